//! The last word: what was acknowledged against what is there, and who was refused by what.

use serde_json::{Value, json};

use super::sender::Book;
use super::story::LAG_MAX;
use crate::cli::demo::ledger::Ledger;
use crate::cli::demo::verdict;
use crate::cli::output::{Table, grouped};

/// What each act must have shown; any one of the codes of a line does.
const SHOWN: [&[&str]; 3] = [&["BACKLOG_LIMIT"], &["THROTTLED_RATE"], &["DISK_LOW", "DISK_FULL"]];
/// A group may be ahead of a look at it by a tenth.
const LAG_SLACK: u64 = LAG_MAX / 10;

/// The books of everybody.
#[derive(Debug)]
pub struct Verdict {
    totals: verdict::Verdict,
    clients: Vec<(&'static str, Book)>,
    lag_most: i64,
}

impl Verdict {
    /// Compares the log and email's deliveries with what was acknowledged.
    pub fn new(
        acked: Ledger,
        log: Ledger,
        email: Ledger,
        clients: Vec<(&'static str, Book)>,
        lag_most: i64,
    ) -> Verdict {
        let totals = verdict::Verdict::new(acked, vec![("LOG", log), ("email", email)]);
        Verdict { totals, clients, lag_most }
    }

    /// Everything that does not hold; empty = the demo succeeded.
    pub fn findings(&self) -> Vec<String> {
        let differences = self.totals.findings();
        let mut findings: Vec<String> =
            differences.iter().map(|f| format!("{}: {}", f.column, f.what)).collect();
        for codes in SHOWN {
            if !codes.iter().any(|code| self.count(code) > 0) {
                findings.push(format!("nobody was told {}", codes.join(" or ")));
            }
        }
        for (client, book) in &self.clients {
            if book.with_effects > 0 {
                findings.push(format!("{client}: {} refusals may have written", book.with_effects));
            }
        }
        let most = i64::try_from(LAG_MAX + LAG_SLACK).unwrap_or(i64::MAX);
        if self.lag_most > most {
            findings.push(format!("email was {} orders behind, of {LAG_MAX}", self.lag_most));
        }
        let partner = self.clients.iter().find(|(client, _)| *client == "partner");
        let limited = partner.and_then(|(_, book)| book.refusals.get("THROTTLED_RATE"));
        if let Some(refused) = limited {
            findings.push(format!("partner has no quota and was refused {refused} times by one"));
        }
        findings
    }

    /// Who was told what, how often, and the last of it in full.
    pub fn refusals(&self) -> Table {
        let head = ["CLIENT", "REFUSED WITH", "BY", "SEVERITY", "EFFECTS", "TIMES"];
        let mut table = Table::new(&head);
        for (client, book) in &self.clients {
            for (code, told) in &book.last {
                table.row([
                    (*client).to_owned(),
                    (*code).to_owned(),
                    told.limit_id.clone(),
                    word(told.severity),
                    word(told.effects),
                    grouped(book.refusals.get(code).copied().unwrap_or(0)),
                ]);
            }
        }
        table
    }

    /// What was acknowledged, what lies in the log, what email got.
    pub fn totals(&self) -> Table {
        self.totals.table()
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let findings = self.findings();
        let client = |(client, book): &(&'static str, Book)| {
            let value = json!({
                "acknowledged": book.acked,
                "waited_ms": u64::try_from(book.waited.as_millis()).unwrap_or(u64::MAX),
                "refusals": book.refusals,
                "last": book.last,
            });
            ((*client).to_owned(), value)
        };
        let clients: serde_json::Map<String, Value> = self.clients.iter().map(client).collect();
        json!({
            "ok": findings.is_empty(),
            "findings": findings,
            "lag_most": self.lag_most,
            "lag_limit": LAG_MAX,
            "clients": clients,
            "totals": self.totals.json(),
        })
    }

    fn count(&self, code: &str) -> u64 {
        let counts = self.clients.iter().filter_map(|(_, book)| book.refusals.get(code));
        counts.sum()
    }
}

/// `Hold` as `hold`.
fn word(variant: impl std::fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(codes: &[&'static str], with_effects: u64, lag_most: i64) -> Vec<String> {
        let refusals = codes.iter().map(|code| (*code, 1)).collect();
        let shop = Book { refusals, with_effects, ..Book::default() };
        let ledger = Ledger::default;
        Verdict::new(ledger(), ledger(), ledger(), vec![("shop", shop)], lag_most).findings()
    }

    #[test]
    fn all_three_limits_must_have_been_seen_and_kept() {
        let all = ["BACKLOG_LIMIT", "THROTTLED_RATE", "DISK_LOW"];
        assert_eq!(verdict(&all, 0, 1_320), Vec::<String>::new());
        assert_eq!(verdict(&all[..2], 0, 0), ["nobody was told DISK_LOW or DISK_FULL"]);
        assert_eq!(verdict(&all, 2, 0), ["shop: 2 refusals may have written"]);
        assert_eq!(verdict(&all, 0, 1_321), ["email was 1321 orders behind, of 1200"]);
    }
}
