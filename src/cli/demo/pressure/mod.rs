//! Back pressure, shown and checked: a slow subscriber, a quota and a small disk, each of which
//! holds somebody back, says so with a typed reason, and lets go by itself.

mod sender;
mod story;
mod verdict;

use super::story::Script;
use crate::cli::failure::{CommandResult, Failure};
use crate::cli::output::Output;
use crate::types::ErrorCode;

/// Runs all of it and prints the verdict.
pub async fn run(seed: u64, script: &Script, out: &mut Output) -> CommandResult {
    let verdict = story::Story::tell(seed, script).await?;
    out.say("")?;
    out.table(&verdict.refusals())?;
    out.say("")?;
    out.table(&verdict.totals())?;
    out.say("")?;
    out.json(&verdict.json())?;
    let findings = verdict.findings();
    if findings.is_empty() {
        return out.say(
            "Every order that was acknowledged is in the log and reached email, once and in order; every refusal was typed, without effects, and ended by itself.",
        );
    }
    Err(Failure::new(ErrorCode::ResultMismatch, findings.join("; ")))
}
