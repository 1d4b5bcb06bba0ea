//! `stoplog why`: from somebody who waits to the root of it, what to do, and until when.

use clap::Args;

use super::connection::{Connection, block_on};
use super::failure::{CommandResult, Failure};
use super::output::{Output, Table};
use super::pressure::{ago, measured, percent};
use crate::types::{Entity, EntityKind, WhyReport, WhyStep};

const KINDS: &str = "\
Kinds:
  topic, group, client             by their names
  connection, publisher            as stoplog pressure shows them: shop#12, shop#12/orders
  subscription                     the same: mailer#3/orders/0
  quota, writer                    client/shop; 0
  broker, data_dir                 without a name

Each line is one step nearer to the root; the root is where to do something.";

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(after_long_help = KINDS)]
pub struct WhyArgs {
    /// What waits: topic, group, client, or another kind (see --help).
    kind: EntityKind,
    /// Its name.
    #[arg(default_value = "", hide_default_value = true)]
    name: String,
    #[command(flatten)]
    connection: Connection,
}

/// Prints the way to the root.
pub fn run(args: &WhyArgs, out: &mut Output) -> CommandResult {
    let nameless = matches!(args.kind, EntityKind::Broker | EntityKind::DataDir);
    if args.name.is_empty() != nameless {
        let wanted = if nameless { "has no name" } else { "needs a name" };
        return Err(Failure::usage(format!("{} {wanted}", args.kind.name())));
    }
    block_on(async {
        let client = args.connection.open().await?;
        let report = client.admin().why(Entity::new(args.kind, args.name.as_str())).await?;
        out.json(&report)?;
        tell(&report, out)
    })
}

fn tell(report: &WhyReport, out: &mut Output) -> CommandResult {
    let head = ["WHO", "LIMITED BY", "OF THE LAST MINUTE", "FOR", "MEASURED", "UNTIL"];
    let mut table = Table::new(&head);
    for (depth, step) in report.steps.iter().enumerate() {
        table.row(row(depth, step));
    }
    out.table(&table)?;
    out.say(format_args!("root   {}", report.root))?;
    out.say(format_args!("do     {}", report.advice))?;
    match report.until_ms {
        Some(ms) => out.say(format_args!("until  in {} it may go on by itself", ago(ms))),
        None => Ok(()),
    }
}

fn row(depth: usize, step: &WhyStep) -> [String; 6] {
    let limited = step.per_mille > 0;
    [
        format!("{}{}", "  ".repeat(depth), step.entity),
        if limited { step.by.clone() } else { "-".to_owned() },
        if limited { percent(step.per_mille) } else { "-".to_owned() },
        step.since_ms.map_or("-".to_owned(), ago),
        if limited { measured(step.observed, step.limit, &step.unit) } else { "-".to_owned() },
        step.until_ms.map_or("-".to_owned(), |ms| format!("in {}", ago(ms))),
    ]
}
