//! The command line: one binary, `stoplog NOUN VERB`, human tables or `--json` on stdout, everything
//! else on stderr, and an exit code a script can act on.
//!
//! Every command is a file with its arguments and its run function. Deliberately absent: logic that
//! an embedded user or another client would need too; that lives in the rooms below.

mod args;
pub mod bytes_text;
mod completions;
mod config;
pub mod connection;
pub mod demo;
mod doctor;
pub mod explain;
pub mod failure;
pub mod keys;
pub mod lines;
pub mod output;
pub mod position;
pub mod record_format;
pub mod reference;
mod version;

pub use args::{Cli, Command};
pub use failure::{Exit, Failure};

use std::process::ExitCode;

use clap::Parser as _;

use failure::CommandResult;
use output::{Form, Output};

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
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

fn dispatch(command: Command, out: &mut Output) -> CommandResult {
    match command {
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Config(args) => config::run(&args, out),
        Command::Completions(args) => completions::run(&args, out),
        Command::Explain(args) => explain::run(&args, out),
        Command::Version => version::run(out),
    }
}
