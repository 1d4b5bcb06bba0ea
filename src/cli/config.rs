//! `stoplog config show|options`, and the settings as every command that needs them loads them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::{CommandResult, Failure};
use super::output::{Output, Table};
use crate::config::{Config, settings};
use crate::types::ErrorCode;

/// Where settings come from, apart from the environment.
#[derive(Clone, Debug, Default, Args)]
pub struct Sources {
    /// TOML file with settings.
    #[arg(long, env = "STOPLOG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting; see stoplog config options. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print every setting as a broker would use it.
    Show {
        #[command(flatten)]
        sources: Sources,
        /// Also print where each value came from.
        #[arg(long)]
        origin: bool,
    },
    /// Print every setting that exists, with what fits it, its default and its reason.
    Options,
}

/// Defaults < file < environment < `--set`.
pub fn load(sources: &Sources) -> Result<Config, Failure> {
    let mut config = Config::defaults();
    if let Some(path) = &sources.config {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::new(ErrorCode::InvalidInput, format!("{}: {e}", path.display()))
                .help("--config and STOPLOG_CONFIG name a TOML file.")
        })?;
        config.apply_file(path, &text)?;
    }
    config.apply_env(
        std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }),
    )?;
    config.apply_sets(&sources.set)?;
    Ok(config)
}

/// Runs `config`.
pub fn run(args: &ConfigArgs, out: &mut Output) -> CommandResult {
    match &args.verb {
        Verb::Show { sources, origin } => show(&load(sources)?, *origin, out),
        Verb::Options => options(out),
    }
}

fn show(config: &Config, origin: bool, out: &mut Output) -> CommandResult {
    for name in &config.unknown_env {
        eprintln!("warning: {name} is no setting and was ignored");
    }
    let head: &[&str] =
        if origin { &["SETTING", "VALUE", "ORIGIN"] } else { &["SETTING", "VALUE"] };
    let mut table = Table::new(head);
    for (setting, resolved) in config.entries() {
        let value = if resolved.value.is_empty() { "(none)" } else { &resolved.value };
        let mut row = vec![setting.key.to_owned(), value.to_owned()];
        let mut line = json!({ "key": setting.key, "value": setting.json(&resolved.value) });
        if origin {
            row.push(resolved.origin.to_string());
            line["origin"] = resolved.origin.to_string().into();
        }
        table.row(row);
        out.json(&line)?;
    }
    out.table(&table)
}

fn options(out: &mut Output) -> CommandResult {
    for setting in settings() {
        let default = if setting.default.is_empty() { "(none)" } else { setting.default };
        out.say(format_args!(
            "{} = {default}    ({}; {})\n    {}\n    {}\n",
            setting.key,
            setting.kind,
            setting.env_name(),
            setting.doc,
            setting.reason
        ))?;
        out.json(&json!({
            "key": setting.key,
            "env": setting.env_name(),
            "default": setting.json(setting.default),
            "values": setting.kind.to_string(),
            "doc": setting.doc,
            "reason": setting.reason,
        }))?;
    }
    Ok(())
}
