//! The last word of the demo: what went in, what lies in the log, what each subscriber got, side by
//! side; and whether all of it is equal.

use serde_json::{Value, json};

use super::ledger::Ledger;
use crate::cli::output::{Table, grouped};

/// The ledgers to compare, the input's being the measure.
#[derive(Debug)]
pub struct Verdict {
    input: Ledger,
    columns: Vec<(&'static str, Ledger)>,
}

/// One comparison that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose.
    pub column: &'static str,
    /// What is wrong.
    pub what: String,
}

const ROWS: [&str; 10] = [
    "events",
    "order lines",
    "units",
    "money",
    "customers",
    "customers out of order",
    "gaps",
    "duplicates",
    "came again, removed by offset",
    "deliveries",
];

impl Verdict {
    /// Compares `columns` (the log first, then the subscribers) with `input`.
    pub fn new(input: Ledger, columns: Vec<(&'static str, Ledger)>) -> Verdict {
        Verdict { input, columns }
    }

    /// Everything that does not hold; empty = the demo succeeded.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let wanted = self.input.tally();
        for (column, ledger) in &self.columns {
            let mut check = |holds: bool, what: String| {
                if !holds {
                    findings.push(Finding { column, what });
                }
            };
            let found = ledger.tally();
            check(
                found.events == wanted.events,
                format!("{} events of {}", found.events, wanted.events),
            );
            check(
                found.lines == wanted.lines,
                format!("{} order lines of {}", found.lines, wanted.lines),
            );
            check(
                found.units == wanted.units,
                format!("{} units of {}", found.units, wanted.units),
            );
            check(
                found.money == wanted.money,
                format!("money {} of {}", found.money, wanted.money),
            );
            let differ = found.customers_that_differ(wanted);
            check(differ == 0, format!("{differ} customers with other events or another order"));
            check(ledger.gaps() == 0, format!("{} offsets skipped", ledger.gaps()));
            let duplicates = ledger.duplicates(&self.input);
            check(duplicates == 0, format!("{duplicates} duplicates"));
            check(ledger.changed() == 0, format!("{} came again changed", ledger.changed()));
        }
        findings
    }

    /// The table for people.
    pub fn table(&self) -> Table {
        let mut head = vec!["", "INPUT"];
        head.extend(self.columns.iter().map(|(name, _)| *name));
        let mut table = Table::new(&head);
        let cells: Vec<[String; ROWS.len()]> = std::iter::once(&self.input)
            .chain(self.columns.iter().map(|(_, ledger)| ledger))
            .map(|ledger| self.cells(ledger))
            .collect();
        for (at, name) in ROWS.into_iter().enumerate() {
            table.row(std::iter::once(name.to_owned()).chain(cells.iter().map(|c| c[at].clone())));
        }
        table
    }

    fn cells(&self, ledger: &Ledger) -> [String; ROWS.len()] {
        let tally = ledger.tally();
        [
            grouped(tally.events),
            grouped(tally.lines),
            grouped(tally.units),
            tally.money.to_string(),
            grouped(tally.customers.len() as u64),
            grouped(tally.customers_that_differ(self.input.tally()) as u64),
            grouped(ledger.gaps()),
            grouped(ledger.duplicates(&self.input)),
            grouped(ledger.redelivered()),
            grouped(ledger.delivered()),
        ]
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let column = |ledger: &Ledger| {
            let tally = ledger.tally();
            json!({
                "events": tally.events,
                "order_lines": tally.lines,
                "units": tally.units,
                "money": tally.money,
                "customers": tally.customers.len(),
                "customers_out_of_order": tally.customers_that_differ(self.input.tally()),
                "gaps": ledger.gaps(),
                "duplicates": ledger.duplicates(&self.input),
                "redelivered": ledger.redelivered(),
                "deliveries": ledger.delivered(),
            })
        };
        let columns: serde_json::Map<String, Value> = self
            .columns
            .iter()
            .map(|(name, ledger)| ((*name).to_owned(), column(ledger)))
            .collect();
        let findings: Vec<String> =
            self.findings().iter().map(|f| format!("{}: {}", f.column, f.what)).collect();
        json!({
            "ok": findings.is_empty(),
            "findings": findings,
            "input": column(&self.input),
            "columns": columns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::input::Input;
    use crate::cli::demo::ledger::Delivery;

    fn ledger(skip: Option<i64>) -> Ledger {
        let mut ledger = Ledger::default();
        let mut offset = 0;
        Input::Generated { seed: 1, events: 300 }
            .for_each(|event| {
                if Some(offset) != skip {
                    ledger
                        .take(Delivery { partition: 0, offset, event: &event.value })
                        .expect("an order");
                }
                offset += 1;
                Ok(())
            })
            .expect("generated");
        ledger
    }

    #[test]
    fn equal_ledgers_leave_nothing_to_say() {
        let verdict = Verdict::new(ledger(None), vec![("LOG", ledger(None))]);
        assert_eq!(verdict.findings(), []);
        assert_eq!(verdict.json()["ok"], true);
        assert!(verdict.table().render().lines().count() == ROWS.len() + 1);
    }

    #[test]
    fn one_lost_event_shows_in_every_total() {
        let verdict =
            Verdict::new(ledger(None), vec![("LOG", ledger(None)), ("EMAIL", ledger(Some(9)))]);
        let findings = verdict.findings();
        assert!(findings.iter().all(|f| f.column == "EMAIL"));
        for part in ["299 events of 300", "1 offsets skipped", "1 customers with other events"] {
            assert!(findings.iter().any(|f| f.what.contains(part)), "{part}: {findings:?}");
        }
    }
}
