//! `stoplog group ls|describe|lag|seek|delete`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::Connection;
use super::failure::{CommandResult, Failure};
use super::now;
use super::output::{Output, Table, confirm, counted, grouped};
use super::position::{Position, TimeRef};
use super::topic::really;
use crate::client::Admin;
use crate::types::{
    CommittedOffset, ErrorCode, GroupDescription, GroupId, Offset, OffsetReset, PartitionId,
    TopicName,
};

/// Arguments of `group`.
#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all groups.
    #[command(visible_alias = "list")]
    Ls,
    /// Show members, their partitions and the committed offsets of a group.
    #[command(visible_alias = "get")]
    Describe {
        /// The group.
        group: GroupId,
    },
    /// Show how far a group is behind.
    Lag {
        /// The group.
        group: GroupId,
    },
    /// Move committed offsets; the group must have no members.
    ///
    /// A group that does not exist is made, and stderr says so: that is how a new group begins
    /// elsewhere than at the start.
    Seek(Seek),
    /// Delete a group and its committed offsets.
    #[command(visible_alias = "rm")]
    Delete {
        /// The group.
        group: GroupId,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
struct Seek {
    /// The group.
    group: GroupId,
    /// The topic.
    #[arg(short, long)]
    topic: TopicName,
    /// Only this partition; may be repeated.
    #[arg(short, long)]
    partition: Vec<u32>,
    /// start, end, OFFSET, @TIME, or +N and -N from the committed offset.
    #[arg(long, allow_hyphen_values = true, value_name = "POSITION")]
    to: Position,
    /// Only say where the offsets would move.
    #[arg(long)]
    dry_run: bool,
}

/// Runs `group`.
pub fn run(args: &GroupArgs, out: &mut Output) -> CommandResult {
    args.connection.administer(async |admin| match &args.verb {
        Verb::Ls => list(&admin, out).await,
        Verb::Describe { group } => describe(&admin, group, out).await,
        Verb::Lag { group } => lag(&admin, group, out).await,
        Verb::Seek(args) => seek(&admin, args, out).await,
        Verb::Delete { group, yes, dry_run } => delete(&admin, group, *yes, *dry_run, out).await,
    })
}

async fn list(admin: &Admin, out: &mut Output) -> CommandResult {
    let mut table = Table::new(&["GROUP", "STATE", "MEMBERS"]);
    for group in admin.list_groups().await? {
        let state = format!("{:?}", group.state).to_lowercase();
        table.row([group.group.to_string(), state, group.members.to_string()]);
        out.json(&group)?;
    }
    out.table(&table)
}

async fn describe(admin: &Admin, group: &GroupId, out: &mut Output) -> CommandResult {
    let description = admin.describe_group(group).await?;
    out.json(&description)?;
    let state = format!("{:?}", description.state).to_lowercase();
    let (epoch, assignor) = (description.epoch, description.assignor);
    let assignor = format!("{assignor:?}").to_lowercase();
    out.say(format_args!("group {group}  {state}  epoch {epoch}  assignor {assignor}"))?;
    if !description.members.is_empty() {
        out.table(&members_table(&description))?;
    }
    out.table(&lag_table(&description.offsets))
}

fn members_table(group: &GroupDescription) -> Table {
    let head = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "EPOCH", "PARTITIONS"];
    let mut table = Table::new(&head);
    for member in &group.members {
        let owned = member.owned.iter().map(|p| p.partition.to_string());
        table.row([
            member.member_id.clone(),
            member.instance_id.clone().unwrap_or_else(|| "-".to_owned()),
            member.client_id.clone(),
            member.client_host.clone(),
            member.epoch.to_string(),
            owned.collect::<Vec<_>>().join(","),
        ]);
    }
    table
}

fn lag_table(offsets: &[CommittedOffset]) -> Table {
    let mut table = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"]);
    for offset in offsets {
        table.row([
            offset.topic.to_string(),
            offset.partition.to_string(),
            offset.committed.map_or("-".to_owned(), |o| grouped(o.0)),
            grouped(offset.end.0),
            grouped(offset.lag),
        ]);
    }
    table
}

async fn lag(admin: &Admin, group: &GroupId, out: &mut Output) -> CommandResult {
    let description = admin.describe_group(group).await?;
    for offset in &description.offsets {
        out.json(offset)?;
    }
    out.table(&lag_table(&description.offsets))?;
    let total: i64 = description.offsets.iter().map(|o| o.lag).sum();
    out.say(format_args!("total lag {}", grouped(total)))
}

/// Where a position moves committed offsets to. Counts are relative to the committed offset, as
/// `Shift` of every Kafka tool.
fn reset_of(position: Position) -> Result<OffsetReset, Failure> {
    Ok(match position {
        Position::Start => OffsetReset::Earliest,
        Position::End => OffsetReset::Latest,
        Position::At(offset) => OffsetReset::To(Offset(offset)),
        Position::AfterStart(count) => OffsetReset::Shift(count),
        Position::BeforeEnd(count) => OffsetReset::Shift(-count),
        Position::Time(TimeRef::At(at)) => OffsetReset::AtTime(at),
        Position::Time(ago) => OffsetReset::AtTime(ago.resolve(now())),
    })
}

async fn seek(admin: &Admin, args: &Seek, out: &mut Output) -> CommandResult {
    let partitions: Vec<PartitionId> = args.partition.iter().copied().map(PartitionId).collect();
    let partitions = (!partitions.is_empty()).then_some(partitions);
    let to = reset_of(args.to)?;
    let is_new = !exists(admin, &args.group).await?;
    let moves =
        admin.reset_group(&args.group, &args.topic, partitions, to, really(args.dry_run)).await?;
    let mut table = Table::new(&["TOPIC", "PARTITION", "FROM", "TO"]);
    for moved in &moves {
        table.row([
            args.topic.to_string(),
            moved.partition.to_string(),
            moved.from.map_or("-".to_owned(), |o| grouped(o.0)),
            grouped(moved.to.0),
        ]);
        out.json(&json!({
            "topic": args.topic, "partition": moved.partition, "from": moved.from,
            "to": moved.to, "dry_run": args.dry_run,
        }))?;
    }
    out.table(&table)?;
    if is_new {
        // A name that was mistyped is no error to the broker.
        let verb = if args.dry_run { "would be" } else { "was" };
        eprintln!("warning: group {} is new: it {verb} made with these offsets", args.group);
    }
    let verb = if args.dry_run { "would move" } else { "moved" };
    let moved = counted(moves.len() as u64, "partition");
    out.say(format_args!("{verb} {moved} of group {}", args.group))
}

async fn exists(admin: &Admin, group: &GroupId) -> Result<bool, Failure> {
    match admin.describe_group(group).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == ErrorCode::GroupNotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn delete(
    admin: &Admin,
    group: &GroupId,
    yes: bool,
    dry_run: bool,
    out: &mut Output,
) -> CommandResult {
    let description = admin.describe_group(group).await?;
    let committed = description.offsets.iter().filter(|o| o.committed.is_some()).count();
    let plan = format!("group {group}: {committed} committed offsets");
    if !dry_run {
        confirm(&format!("delete {plan}"), yes)?;
    }
    admin.delete_group(group, really(dry_run)).await?;
    let verb = if dry_run { "would delete" } else { "deleted" };
    out.say(format_args!("{verb} {plan}"))?;
    out.json(&json!({ "group": group, "committed_offsets": committed, "dry_run": dry_run }))
}
