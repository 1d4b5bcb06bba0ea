//! The command line: one binary, `stoplog NOUN VERB`, human tables or `--json` on stdout, everything
//! else on stderr, and an exit code a script can act on.
//!
//! Every command is a file with its arguments and its run function. Deliberately absent: logic that
//! an embedded user or another client would need too; that lives in the rooms below.

mod args;
mod bench;
mod bytes_text;
mod completions;
mod config;
mod connection;
mod consume;
mod demo;
mod doctor;
mod dump;
mod explain;
mod failure;
mod group;
mod inspect;
mod keys;
mod lines;
mod load;
mod output;
mod position;
mod pressure;
mod produce;
mod publish;
mod quota;
mod record_format;
#[cfg(test)]
mod reference;
mod serve;
mod topic;
mod verify;
mod version;
mod why;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::env::{Clock as _, SystemClock};
use crate::types::Timestamp;
use args::{Cli, Command};
use failure::{CommandResult, Exit, Failure};
use output::{Form, Output};

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_run(&error),
    };
    let mut out = Output::new(if cli.json { Form::Json } else { Form::Human });
    let result = dispatch(cli.command, &mut out).and_then(|()| out.flush());
    drop(out);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                eprint!("{text}");
            }
            ExitCode::from(failure.exit() as u8)
        }
    }
}

/// Help and version go to stdout and are no failure; a wrong command line is told with its code.
fn not_run(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Whoever reads may have left.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render();
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if coloured { text.ansi().to_string() } else { text.to_string() };
    eprint!("{}", Failure::coded(&text));
    ExitCode::from(Exit::Usage as u8)
}

fn dispatch(command: Command, out: &mut Output) -> CommandResult {
    match command {
        Command::Serve(args) => serve::run(&args, out),
        Command::Demo(args) => demo::run(&args, out),
        Command::Topic(args) => topic::run(&args, out),
        Command::Produce(args) => produce::run(&args, out),
        Command::Consume(args) => consume::run(&args, out),
        Command::Group(args) => group::run(&args, out),
        Command::Dump(args) => dump::run(&args, out),
        Command::Load(args) => load::run(&args, out),
        Command::Pressure(args) => pressure::run(&args, out),
        Command::Why(args) => why::run(&args, out),
        Command::Quota(args) => quota::run(&args, out),
        Command::Inspect(args) => inspect::run(&args, out),
        Command::Verify(args) => verify::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Config(args) => config::run(&args, out),
        Command::Completions(args) => completions::run(&args, out),
        Command::Explain(args) => explain::run(&args, out),
        Command::Bench(args) => bench::run(&args, out),
        Command::Version => version::run(out),
    }
}

/// Wall time.
fn now() -> Timestamp {
    SystemClock::new().now()
}
