//! `stoplog pressure`: what limits whom, right now.

use std::time::Duration;

use clap::Args;

use super::connection::{Connection, block_on};
use super::failure::CommandResult;
use super::output::{Output, Table, grouped};
use crate::types::{LimitUse, format_bytes, format_duration};

/// Arguments of `pressure`.
#[derive(Debug, Args)]
pub struct PressureArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Prints every limit with its use, the binding ones first.
pub fn run(args: &PressureArgs, out: &mut Output) -> CommandResult {
    block_on(async {
        let client = args.connection.open().await?;
        let report = client.admin().pressure().await?;
        let mut table = Table::new(&["LIMIT", "SCOPE", "USED", "OF", "ACTION", "SINCE", "REFUSED"]);
        for limit in &report.limits {
            out.json(limit)?;
            table.row(row(limit));
        }
        out.table(&table)?;
        out.say(summary(&report.limits))
    })
}

fn row(limit: &LimitUse) -> [String; 7] {
    let amount = |number: u64| match limit.unit.as_str() {
        "bytes" => format_bytes(number),
        unit => format!("{} {unit}", grouped(number)),
    };
    let since = |ms: u64| format_duration(Duration::from_millis(ms / 1_000 * 1_000));
    [
        limit.limit.clone(),
        limit.scope.clone(),
        amount(limit.used),
        if limit.of == 0 { "no limit".to_owned() } else { amount(limit.of) },
        limit.action.map_or("-", |code| code.name()).to_owned(),
        limit.since_ms.map_or("-".to_owned(), since),
        grouped(limit.refused),
    ]
}

/// One sentence: who is limited by what.
pub fn summary(limits: &[LimitUse]) -> String {
    let binding: Vec<String> = limits
        .iter()
        .filter_map(|l| {
            l.action.map(|code| format!("{} limits {}: {}", l.limit, l.scope, code.name()))
        })
        .collect();
    if binding.is_empty() { "nobody is limited".to_owned() } else { binding.join("; ") }
}
