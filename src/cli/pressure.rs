//! `stoplog pressure`: what limits whom, right now, and what came and went.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;

use super::connection::{Connection, block_on};
use super::failure::{CommandResult, Failure};
use super::output::{Output, Table, grouped};
use super::position::rfc3339;
use crate::client::Admin;
use crate::types::{
    DiskPressure, EntityKind, LimitUse, Limited, PressureEvent, PressureQuery, PressureReport,
    WouldRefuse, format_bytes, parse_duration,
};

const EXAMPLES: &str = "\
Examples:
  stoplog pressure                  who is limited now, or was in the last minute
  stoplog pressure --watch          the same each second, until Ctrl-C
  stoplog pressure --history 15m    what came and went, too
  stoplog pressure --json           everything, metrics included: one JSON value a look
stoplog why topic NAME says where a limit comes from and what to do about it.";

/// Arguments of `pressure`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct PressureArgs {
    /// Look again each second, until it is stopped.
    #[arg(short, long)]
    watch: bool,
    /// Also tell what came and went in this time.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    history: Option<Duration>,
    /// Most entries of who is limited.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limited: u32,
    #[command(flatten)]
    connection: Connection,
}

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Prints who is limited by what, then every limit with its use, the binding ones first.
pub fn run(args: &PressureArgs, out: &mut Output) -> CommandResult {
    block_on(async {
        let client = args.connection.open().await?;
        let admin = client.admin();
        loop {
            look(args, &admin, out).await?;
            if !args.watch {
                return Ok(());
            }
            out.say("")?;
            out.flush()?;
            tokio::time::sleep(WATCH_EVERY).await;
        }
    })
}

async fn look(args: &PressureArgs, admin: &Admin, out: &mut Output) -> Result<(), Failure> {
    let history_ms = args.history.map_or(0, |time| time.as_millis());
    let report = admin
        .pressure(PressureQuery {
            limited_max: args.limited,
            history_ms: u32::try_from(history_ms).unwrap_or(u32::MAX),
            metrics: out.is_json(),
        })
        .await?;
    out.json(&report)?;
    if args.watch {
        out.say(rfc3339(super::now()))?;
    }
    who(&report, out)?;
    if args.history.is_some() {
        history(&report.events, out)?;
    }
    if let Some(line) = enforcement(&report) {
        out.say(line)?;
    }
    out.say(disk(&report.disk))?;
    let mut table = Table::new(&["LIMIT", "SCOPE", "USED", "OF", "ACTION", "SINCE", "REFUSED"]);
    report.limits.iter().for_each(|limit| table.row(row(limit)));
    out.table(&table)
}

fn who(report: &PressureReport, out: &mut Output) -> CommandResult {
    if report.limited.is_empty() {
        return out.say("nobody is limited, and nobody was in the last minute");
    }
    let mut table = Table::new(&["WHO", "LIMITED BY", "SINCE", "UNTIL", "OF THE LAST MINUTE"]);
    report.limited.iter().for_each(|limited| table.row(limited_row(limited)));
    out.table(&table)?;
    match report.limited_left_off {
        0 => Ok(()),
        more => out.say(format_args!("and {} more: --limited N shows them", grouped(more))),
    }
}

fn limited_row(limited: &Limited) -> [String; 5] {
    let shares = limited.shares.iter().map(|share| match limited.shares.len() {
        1 if share.cause == limited.by => percent(share.per_mille),
        _ => format!("{} {}", percent(share.per_mille), share.cause),
    });
    let by = if limited.by == "none" { "- (it was)" } else { &limited.by };
    [
        limited.entity.to_string(),
        by.to_owned(),
        limited.since_ms.map_or("-".to_owned(), ago),
        limited.until_ms.map_or("-".to_owned(), |ms| format!("in {}", ago(ms))),
        shares.collect::<Vec<_>>().join(", "),
    ]
}

fn history(events: &[PressureEvent], out: &mut Output) -> CommandResult {
    if events.is_empty() {
        return out.say("nothing came or went in that time");
    }
    let mut table = Table::new(&["TIME", "WHO", "FROM", "TO", "MEASURED", "AGAIN IN"]);
    for event in events {
        table.row([
            rfc3339(event.at),
            event.entity.to_string(),
            event.from.clone(),
            event.to.clone(),
            measured(event.observed, event.limit, &event.unit),
            match event.retry_after_ms {
                0 => "-".to_owned(),
                ms => ago(u64::from(ms)),
            },
        ]);
    }
    out.table(&table)
}

/// What is not in force, when something is not.
fn enforcement(report: &PressureReport) -> Option<String> {
    let would = |limit: &WouldRefuse| format!("{} by {}", grouped(limit.refusals), limit.limit);
    match report.enforcement.as_str() {
        "dry_run" => {
            let would: Vec<_> = report.would_refuse.iter().map(would).collect();
            Some(format!("dry run: would have refused {}", would.join(", ")))
        }
        "off" => Some("enforcement is off: no quota, window or share is asked".to_owned()),
        _ => None,
    }
}

fn disk(disk: &DiskPressure) -> String {
    let full = match disk.seconds_to_full {
        Some(seconds) => format!("full in {} if it goes on so", ago(seconds * 1_000)),
        None => format!("full below {}", format_bytes(disk.full)),
    };
    let (left, of) = (format_bytes(disk.available), format_bytes(disk.capacity));
    format!("disk {}: {left} of {of} left, {full}", disk.level)
}

fn row(limit: &LimitUse) -> [String; 7] {
    [
        limit.limit.clone(),
        limit.scope.clone(),
        amount(limit.used, &limit.unit),
        if limit.of == 0 { "no limit".to_owned() } else { amount(limit.of, &limit.unit) },
        limit.action.map_or("-", |code| code.name()).to_owned(),
        limit.since_ms.map_or("-".to_owned(), |ms| ago(ms / 1_000 * 1_000)),
        grouped(limit.refused),
    ]
}

/// One sentence: what limits topics and clients now.
pub fn causes(limited: &[Limited]) -> String {
    let asked = |kind| matches!(kind, EntityKind::Topic | EntityKind::Client);
    let now = limited.iter().filter(|who| who.by != "none" && asked(who.entity.kind));
    let by: BTreeSet<&str> = now.map(|who| who.by.as_str()).collect();
    if by.is_empty() {
        return "nobody is limited".to_owned();
    }
    format!("limited by {}", by.into_iter().collect::<Vec<_>>().join(", "))
}

/// `99 of 100 records`, `5.0 MiB/s of 4.0 MiB/s`; `-` when nothing was measured.
pub fn measured(observed: u64, limit: u64, unit: &str) -> String {
    match (observed, limit) {
        (0, 0) => "-".to_owned(),
        (observed, 0) => amount(observed, unit),
        // The unit once where it stands behind the number.
        (observed, limit) if !unit.starts_with("bytes") => {
            format!("{} of {}", grouped(observed), amount(limit, unit))
        }
        (observed, limit) => format!("{} of {}", amount(observed, unit), amount(limit, unit)),
    }
}

fn amount(number: u64, unit: &str) -> String {
    match unit {
        "bytes" => format_bytes(number),
        "bytes free" => format!("{} free", format_bytes(number)),
        "bytes/s" => format!("{}/s", format_bytes(number)),
        unit => format!("{} {unit}", grouped(number)),
    }
}

/// A time for people who glance: `180 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub fn ago(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms} ms"),
        1..10 => format!("{}.{} s", seconds, ms % 1_000 / 100),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// `95 %`; what is not nothing is at least `1 %`.
pub fn percent(per_mille: u16) -> String {
    format!("{} %", per_mille.div_ceil(10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Entity;

    #[test]
    fn each_cause_of_clients_and_topics_is_named_once() {
        let limited = |kind, name: &str, by: &str| Limited {
            entity: Entity { kind, name: name.to_owned() },
            by: by.to_owned(),
            since_ms: None,
            until_ms: None,
            shares: Vec::new(),
        };
        assert_eq!(causes(&[]), "nobody is limited");
        assert_eq!(causes(&[limited(EntityKind::Client, "shop", "none")]), "nobody is limited");
        let all = [
            limited(EntityKind::Topic, "orders", "backlog:email"),
            limited(EntityKind::Client, "shop", "quota:client/shop"),
            limited(EntityKind::Client, "partner", "backlog:email"),
            limited(EntityKind::Subscription, "email#1/orders/0", "credit"),
        ];
        assert_eq!(causes(&all), "limited by backlog:email, quota:client/shop");
    }

    #[test]
    fn times_and_amounts_are_short() {
        let all = [(0, "0 ms"), (180, "180 ms"), (4_260, "4.2 s"), (59_999, "59 s")];
        assert!(all.iter().all(|(ms, text)| ago(*ms) == *text));
        assert_eq!((ago(200_000).as_str(), ago(7_500_000).as_str()), ("3 min 20 s", "2 h 5 min"));
        assert_eq!(measured(99, 100, "records"), "99 of 100 records");
        assert_eq!(measured(5 << 20, 4 << 20, "bytes/s"), "5.0 MiB/s of 4.0 MiB/s");
        assert_eq!(
            (measured(0, 0, "").as_str(), measured(2_000, 0, "ms").as_str()),
            ("-", "2,000 ms")
        );
        assert_eq!(
            (percent(1), percent(950), percent(0)),
            ("1 %".into(), "95 %".into(), "0 %".into())
        );
    }
}
