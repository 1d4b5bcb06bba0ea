//! The tree of commands. `--help`, the completions and `docs/cli.md` all come from it.

use clap::{Parser, Subcommand};

use super::{
    bench, completions, config, consume, demo, doctor, dump, explain, group, inspect, load,
    pressure, produce, quota, serve, topic, verify, why,
};

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  another failure
    2  the command line or the input is wrong
    3  it does not exist, or exists already
    4  not authenticated or not allowed
    5  the broker cannot be reached, or the address or directory is taken
    6  refused by back pressure: the cause and, where one can be named, retry_after_ms are on stderr
    7  refused for another reason, or no answer in time
    8  damaged data was found
  130  stopped by a signal

Sizes are written 64KiB or 10MB, durations 250ms, 5m or 7d, times 2011-12-09T12:50:00Z or -1h.";

/// An append-only, partitioned event log whose subject is back pressure.
#[derive(Debug, Parser)]
#[command(name = "stoplog", version, after_long_help = EXIT_CODES, after_help = "See --help for the exit codes.")]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// Print JSON, one value a line, instead of tables and sentences.
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker.
    Serve(serve::ServeArgs),
    /// See it work in under a minute: a broker, orders, subscribers, a crash, a replay, a proof.
    Demo(demo::DemoArgs),
    /// Create, list, describe, alter, delete and trim topics.
    Topic(topic::TopicArgs),
    /// Publish records: one a line, from files or stdin.
    #[command(visible_alias = "pub")]
    Produce(produce::ProduceArgs),
    /// Read records, alone or as a member of a group.
    #[command(visible_alias = "sub")]
    Consume(consume::ConsumeArgs),
    /// List, describe, reset and delete consumer groups.
    Group(group::GroupArgs),
    /// Write a topic's records as JSON lines that load reads.
    Dump(dump::DumpArgs),
    /// Publish what dump wrote.
    Load(load::LoadArgs),
    /// Show what limits whom, right now.
    Pressure(pressure::PressureArgs),
    /// Show who makes whom wait: the way to the root, what to do, and until when.
    Why(why::WhyArgs),
    /// Set, list, describe and remove quotas: who may use how much.
    Quota(quota::QuotaArgs),
    /// Print what one file of a data directory says.
    Inspect(inspect::InspectArgs),
    /// Check a data directory: read-only without --repair.
    Verify(verify::VerifyArgs),
    /// Measure: load against a broker, or broker and floor in pairs.
    Bench(bench::BenchArgs),
    /// Check host, data directory and settings before a broker runs on them.
    Doctor(doctor::DoctorArgs),
    /// Show the settings of a broker: what they are and where each came from.
    Config(config::ConfigArgs),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Explain an error code, or list them all.
    Explain(explain::ExplainArgs),
    /// Print the version of this binary and of what it reads and speaks.
    Version,
}
