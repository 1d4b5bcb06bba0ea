//! `stoplog version`.

use serde_json::json;

use super::failure::CommandResult;
use super::output::Output;
use crate::protocol::native::{VERSION_MAX, VERSION_MIN};
use crate::storage::FORMAT_VERSION;
use crate::types::COMMIT;

/// Prints the version.
pub fn run(out: &mut Output) -> CommandResult {
    let version = env!("CARGO_PKG_VERSION");
    out.say(format_args!("stoplog {version}"))?;
    out.json(&json!({
        "name": "stoplog",
        "version": version,
        "commit": COMMIT,
        "storage_format": FORMAT_VERSION,
        "protocol_min": VERSION_MIN,
        "protocol_max": VERSION_MAX,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "rust_min": env!("CARGO_PKG_RUST_VERSION"),
    }))
}
