//! `stoplog completions SHELL`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::args::Cli;
use super::failure::CommandResult;
use super::output::Output;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs, out: &mut Output) -> CommandResult {
    clap_complete::generate(args.shell, &mut Cli::command(), "stoplog", out.writer());
    Ok(())
}
