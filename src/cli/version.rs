//! `stoplog version`.

use serde_json::json;

use super::failure::CommandResult;
use super::output::Output;

/// Prints the version.
pub fn run(out: &mut Output) -> CommandResult {
    let version = env!("CARGO_PKG_VERSION");
    out.say(format_args!("stoplog {version}"))?;
    out.json(&json!({
        "name": "stoplog",
        "version": version,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "rust_min": env!("CARGO_PKG_RUST_VERSION"),
    }))
}
