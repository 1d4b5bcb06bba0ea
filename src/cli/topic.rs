//! `stoplog topic create|ls|describe|alter|delete|trim`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::Connection;
use super::failure::{CommandResult, Exit, Failure};
use super::output::{Output, Table, confirm, counted, grouped};
use crate::client::{Admin, Run};
use crate::types::{
    ErrorCode, Offset, PartitionHealth, PartitionId, TopicDescription, TopicName, format_bytes,
};

/// Arguments of `topic`.
#[derive(Debug, Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a topic.
    Create(Create),
    /// List all topics.
    #[command(visible_alias = "list")]
    Ls {
        /// Also the broker's own, whose names begin with __.
        #[arg(short, long)]
        all: bool,
    },
    /// Show settings and partitions of topics.
    #[command(visible_alias = "get")]
    Describe {
        /// The topics.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<TopicName>,
    },
    /// Change settings, or add partitions.
    Alter(Alter),
    /// Delete topics and all their records.
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Drop the records of a partition before an offset.
    Trim(Trim),
}

#[derive(Debug, Args)]
struct Create {
    /// Its name: 1 to 249 of a-z A-Z 0-9 . _ -
    name: TopicName,
    /// Number of its partitions.
    #[arg(short, long, default_value_t = 1)]
    partitions: u32,
    /// One setting of the topic, as in docs/configuration.md. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Exit 0 when the topic exists already.
    #[arg(long)]
    if_not_exists: bool,
    /// Only check.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Alter {
    /// Its name.
    name: TopicName,
    /// Number of partitions afterwards; never fewer than now.
    #[arg(short, long)]
    partitions: Option<u32>,
    /// One setting of the topic, as in docs/configuration.md. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Only check.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Delete {
    /// The topics.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<TopicName>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be deleted.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Trim {
    /// Its name.
    name: TopicName,
    /// The partition.
    #[arg(short, long)]
    partition: u32,
    /// First offset that stays.
    #[arg(long, value_name = "OFFSET")]
    before: i64,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be dropped.
    #[arg(long)]
    dry_run: bool,
}

/// Runs `topic`.
pub fn run(args: &TopicArgs, out: &mut Output) -> CommandResult {
    args.connection.administer(async |admin| match &args.verb {
        Verb::Create(args) => create(&admin, args, out).await,
        Verb::Ls { all } => list(&admin, *all, out).await,
        Verb::Describe { names } => describe(&admin, names, out).await,
        Verb::Alter(args) => alter(&admin, args, out).await,
        Verb::Delete(args) => delete(&admin, args, out).await,
        Verb::Trim(args) => trim(&admin, args, out).await,
    })
}

/// What `--dry-run` means to the client.
pub(super) fn really(dry_run: bool) -> Run {
    if dry_run { Run::Dry } else { Run::Really }
}

/// `key=value` pairs, taken apart; the broker checks what they say.
pub(super) fn settings(pairs: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let split = |pair: &String| {
        let parts = pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()));
        parts.ok_or_else(|| Failure::usage(format!("{pair:?}: write KEY=VALUE")))
    };
    pairs.iter().map(split).collect()
}

/// A setting or a number that does not fit is a wrong command line.
pub(super) fn as_usage(failure: Failure) -> Failure {
    match failure.code() {
        ErrorCode::InvalidConfig | ErrorCode::InvalidRequest => failure.exit_with(Exit::Usage),
        _ => failure,
    }
}

async fn create(admin: &Admin, args: &Create, out: &mut Output) -> CommandResult {
    let set = settings(&args.set)?;
    let created = admin.create_topic(&args.name, args.partitions, &set, really(args.dry_run)).await;
    let verb = if args.dry_run { "would create" } else { "created" };
    match created.map_err(Failure::from) {
        Ok(created) => {
            let durability = created.config.durability;
            out.say(format_args!(
                "{verb} topic {}: {}, durability {durability}",
                args.name,
                counted(u64::from(args.partitions), "partition")
            ))?;
            out.json(&json!({
                "topic": args.name, "topic_id": created.id, "partitions": args.partitions,
                "settings": created.config.entries(), "dry_run": args.dry_run, "created": true,
            }))
        }
        Err(failure) if args.if_not_exists && failure.code() == ErrorCode::TopicExists => {
            out.say(format_args!("topic {} exists", args.name))?;
            out.json(&json!({ "topic": args.name, "created": false }))
        }
        Err(failure) => Err(as_usage(failure)),
    }
}

async fn list(admin: &Admin, all: bool, out: &mut Output) -> CommandResult {
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "ID"]);
    for topic in admin.list_topics().await? {
        if topic.name.is_reserved() && !all {
            continue;
        }
        table.row([topic.name.to_string(), topic.partitions.to_string(), topic.id.to_string()]);
        out.json(&json!({
            "topic": topic.name, "topic_id": topic.id, "partitions": topic.partitions,
        }))?;
    }
    out.table(&table)
}

async fn describe(admin: &Admin, names: &[TopicName], out: &mut Output) -> CommandResult {
    for name in names {
        let topic = admin.describe_topic(name).await?;
        out.json(&topic)?;
        let partitions = counted(topic.partitions.len() as u64, "partition");
        out.say(format_args!("topic {}  id {}  {partitions}", topic.name, topic.id))?;
        for (key, value) in topic.config.entries() {
            out.say(format_args!("  {key} = {value}"))?;
        }
        out.table(&partitions_table(&topic))?;
    }
    Ok(())
}

fn partitions_table(topic: &TopicDescription) -> Table {
    let head = ["PARTITION", "START", "END", "RECORDS", "DURABLE", "SIZE", "SEGMENTS", "STATE"];
    let mut table = Table::new(&head);
    for p in &topic.partitions {
        let state = match &p.health {
            PartitionHealth::Writable => "writable".to_owned(),
            PartitionHealth::ReadOnly { cause } => format!("read-only: {cause}"),
            PartitionHealth::Fenced { first_bad, next_good } => {
                let next = next_good.map_or("none".to_owned(), |o| o.to_string());
                format!("fenced: first bad {first_bad}, next good {next}")
            }
        };
        table.row([
            p.partition.to_string(),
            grouped(p.start.0),
            grouped(p.visible_end.0),
            grouped(p.visible_end - p.start),
            grouped(p.durable_end.0),
            format_bytes(p.bytes),
            p.segments.to_string(),
            state,
        ]);
    }
    table
}

async fn alter(admin: &Admin, args: &Alter, out: &mut Output) -> CommandResult {
    if args.partitions.is_none() && args.set.is_empty() {
        return Err(Failure::usage("nothing to change: give -p or --set"));
    }
    let set = settings(&args.set)?;
    // Settings first: they are checked as a whole, and a refusal must leave everything as it was.
    if !set.is_empty() {
        let altered = admin.alter_topic(&args.name, &set, really(args.dry_run)).await;
        altered.map_err(|e| as_usage(e.into()))?;
    }
    if let Some(partitions) = args.partitions {
        let added = admin.add_partitions(&args.name, partitions, really(args.dry_run)).await;
        added.map_err(|e| as_usage(e.into()))?;
    }
    let verb = if args.dry_run { "would change" } else { "changed" };
    let partitions = args.partitions.map(|p| counted(p.into(), "partition"));
    let parts: Vec<String> = partitions.into_iter().chain(args.set.iter().cloned()).collect();
    out.say(format_args!("{verb} topic {}: {}", args.name, parts.join(", ")))?;
    out.json(&json!({
        "topic": args.name, "partitions": args.partitions, "set": args.set, "dry_run": args.dry_run,
    }))
}

async fn delete(admin: &Admin, args: &Delete, out: &mut Output) -> CommandResult {
    let mut doomed = Vec::new();
    for name in &args.names {
        doomed.push(admin.describe_topic(name).await?);
    }
    let size = |t: &TopicDescription| {
        let records: i64 = t.partitions.iter().map(|p| p.visible_end - p.start).sum();
        let bytes: u64 = t.partitions.iter().map(|p| p.bytes).sum();
        (records, bytes)
    };
    let plan: Vec<String> = doomed
        .iter()
        .map(|topic| {
            let (records, bytes) = size(topic);
            format!(
                "topic {}: {}, {} offsets, {}",
                topic.name,
                counted(topic.partitions.len() as u64, "partition"),
                grouped(records),
                format_bytes(bytes)
            )
        })
        .collect();
    if !args.dry_run {
        confirm(&format!("delete {}", plan.join("; ")), args.yes)?;
    }
    for (topic, plan) in doomed.iter().zip(plan) {
        admin.delete_topic(&topic.name, really(args.dry_run)).await?;
        let verb = if args.dry_run { "would delete" } else { "deleted" };
        out.say(format_args!("{verb} {plan}"))?;
        let (records, bytes) = size(topic);
        out.json(&json!({
            "topic": topic.name, "topic_id": topic.id, "offsets": records, "bytes": bytes,
            "dry_run": args.dry_run,
        }))?;
    }
    Ok(())
}

async fn trim(admin: &Admin, args: &Trim, out: &mut Output) -> CommandResult {
    let topic = admin.describe_topic(&args.name).await?;
    let partition = topic.partitions.iter().find(|p| p.partition.0 == args.partition);
    let partition = partition.ok_or_else(|| {
        let count = topic.partitions.len();
        let what = format!("topic {} has partitions 0 to {}", args.name, count.saturating_sub(1));
        Failure::new(ErrorCode::PartitionNotFound, what)
    })?;
    let dropped = (Offset(args.before) - partition.start).max(0);
    let plan = format!(
        "drop {} offsets ({}..{}) of {}/{}",
        grouped(dropped),
        partition.start,
        args.before.max(partition.start.0),
        args.name,
        args.partition
    );
    if !args.dry_run {
        confirm(&plan, args.yes)?;
    }
    let (id, before) = (PartitionId(args.partition), Offset(args.before));
    let start = admin.trim(&args.name, id, before, really(args.dry_run)).await?;
    let verb = if args.dry_run { "would " } else { "done: " };
    out.say(format_args!("{verb}{plan}; first offset {start}"))?;
    out.json(&json!({
        "topic": args.name, "partition": args.partition, "start": start, "offsets": dropped,
        "dry_run": args.dry_run,
    }))
}
