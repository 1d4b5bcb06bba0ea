//! `stoplog explain E0404`, and `docs/errors.md` from the same table.

#[cfg(test)]
use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::failure::{CommandResult, Exit, Failure, exit_of};
use super::output::{Output, Table};
use crate::types::{ErrorCode, ErrorKind};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code, as in E0404; without one all are listed.
    code: Option<String>,
}

/// What a caller does about errors of this kind.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Retry => "try again; nothing is wrong with the request",
        ErrorKind::Throttle => "try again after retry_after",
        ErrorKind::Invalid => "change the request; it will be wrong again",
        ErrorKind::NotFound => "it does not exist, or exists already",
        ErrorKind::Fenced => "another instance took over; stop, or start again under a new epoch",
        ErrorKind::Corrupt => "stored bytes are damaged; other data is not affected",
        ErrorKind::Closed => "the other side is gone or going; reconnect",
        ErrorKind::Internal => "a defect or a failed device; an operator has to look",
    }
}

fn to_json(code: ErrorCode) -> Value {
    json!({
        "code": code.to_string(),
        "name": code.name(),
        "kind": code.kind(),
        "title": code.title(),
        "help": code.help(),
        "exit": exit_of(code) as u8,
    })
}

/// Explains one code, or lists all.
pub fn run(args: &ExplainArgs, out: &mut Output) -> CommandResult {
    let Some(text) = &args.code else {
        let mut table = Table::new(&["CODE", "EXIT", "MEANING"]);
        for code in ErrorCode::ALL {
            let exit = (exit_of(*code) as u8).to_string();
            table.row([code.to_string(), exit, code.title().to_owned()]);
            out.json(&to_json(*code))?;
        }
        return out.table(&table);
    };
    let code = ErrorCode::parse(text).ok_or_else(|| {
        let failure =
            Failure::new(ErrorCode::InvalidInput, format!("no error has the code {text:?}"));
        failure.help("stoplog explain lists all codes.").exit_with(Exit::NotFound)
    })?;
    out.say(format_args!("{code} {}\n\n{}\n", code.name(), code.title()))?;
    out.say(format_args!("What to do   {}", code.help()))?;
    out.say(format_args!("As a caller  {}", advice(code.kind())))?;
    out.say(format_args!("Exit code    {}", exit_of(code) as u8))?;
    out.json(&to_json(code))
}

/// The text of `docs/errors.md`.
#[cfg(test)]
pub fn errors_page() -> String {
    let mut page = "\
# Errors

<!-- Generated from src/types/error_code.rs. Do not edit: STOPLOG_BLESS=1 cargo test rewrites it. -->

Every error has one stable code. The wire carries its number, the command line prints it, and
`stoplog explain E0404` explains it. A code is never reused for another meaning.

| code | kind | exit | what happened | what to do |
|---|---|---|---|---|
"
    .to_owned();
    for code in ErrorCode::ALL {
        let kind = json!(code.kind());
        let _ = writeln!(
            page,
            "| {code} {} | {} | {} | {} | {} |",
            code.name(),
            kind.as_str().unwrap_or_default(),
            exit_of(*code) as u8,
            code.title(),
            code.help().replace('|', "\\|"),
        );
    }
    page.push_str("\n## Kinds\n\n");
    for kind in [
        ErrorKind::Retry,
        ErrorKind::Throttle,
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Fenced,
        ErrorKind::Corrupt,
        ErrorKind::Closed,
        ErrorKind::Internal,
    ] {
        let _ =
            writeln!(page, "- `{}`: {}", json!(kind).as_str().unwrap_or_default(), advice(kind));
    }
    page
}
