//! The main job, shown and checked: orders published as events, subscribers at their own pace, a
//! crash, a replay, and totals that must agree to the last digit.

pub mod board;
pub mod children;
pub mod generator;
pub mod input;
pub mod ledger;
pub mod order;
mod pressure;
mod publisher;
mod story;
pub mod tally;
pub mod verdict;

use std::path::PathBuf;

use clap::Args;

use super::connection::block_on;
use super::failure::{CommandResult, Failure};
use super::output::Output;
use crate::types::ErrorCode;
use input::Input;
use story::{Script, Story};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Publish the events of this file, one JSON object a line (.gz and .zst are unpacked), instead
    /// of generated ones.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "events"])]
    input: Option<PathBuf>,
    /// Keep the log in this directory, which must be empty or new, instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seed of the generated orders.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many orders are generated.
    #[arg(long, default_value_t = 25_900, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    events: u64,
    /// Also kill the broker with SIGKILL midway, and start it again.
    #[arg(long)]
    crash: bool,
    /// Show back pressure instead: a slow subscriber, a quota and a small disk.
    #[arg(long, conflicts_with_all = ["input", "events", "crash"])]
    pressure: bool,
}

/// Runs the demo.
pub fn run(args: &DemoArgs, out: &mut Output) -> CommandResult {
    let input = match &args.input {
        Some(path) => Input::File(path.clone()),
        None => Input::Generated { seed: args.seed, events: args.events },
    };
    // Removed at the end, whatever the end is; the broker's log lies beside the data.
    let workspace = tempfile::Builder::new().prefix("stoplog-demo-").tempdir()?;
    let data = args.data.clone().unwrap_or_else(|| workspace.path().join("data"));
    if std::fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_some()) {
        let failure = Failure::usage(format!("{} is not empty", data.display()));
        return Err(failure.help("Give an empty or new directory to --data, or none."));
    }
    let script = Script { data, log: workspace.path().join("broker.log"), crash: args.crash };
    if args.pressure {
        return block_on(pressure::run(args.seed, &script, out));
    }
    block_on(async {
        let verdict = Story::tell(&input, &script).await?;
        out.say("")?;
        out.table(&verdict.table())?;
        out.say("")?;
        out.json(&verdict.json())?;
        let findings = verdict.findings();
        if findings.is_empty() {
            return out.say("Everything is equal to the input: nothing lost, nothing twice, nothing out of order.");
        }
        let list: Vec<String> =
            findings.iter().map(|f| format!("{}: {}", f.column, f.what)).collect();
        Err(Failure::new(ErrorCode::ResultMismatch, list.join("; ")))
    })
}
