//! The `stoplog` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    stoplog::cli::run()
}
