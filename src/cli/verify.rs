//! `stoplog verify DIR`: reads a data directory whole and judges every file; with `--repair` also
//! mends what can be mended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::failure::{CommandResult, Failure};
use super::now;
use super::output::{Output, Table, counted, grouped};
use crate::broker::topic_names;
use crate::env::{Disk, RealDisk};
use crate::storage::{
    RepairMode, RepairOptions, RepairSummary, Verdict, VerifyError, VerifyOptions, VerifyRow,
    VerifySummary, repair, verify,
};
use crate::types::{ErrorCode, PartitionId, TopicId, TopicPartition, format_bytes};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The data directory. Without --repair it is only read.
    dir: PathBuf,
    /// Mend what can be mended; the broker must be stopped.
    #[arg(long)]
    repair: bool,
    /// With --repair: only say what would be done.
    #[arg(long, requires = "repair")]
    dry_run: bool,
    /// With --repair: give up the lost records of this partition. May be repeated.
    #[arg(long, requires = "repair", value_name = "TOPIC/P")]
    accept_loss: Vec<String>,
}

/// Names of topics as the catalog has them; files know only ids.
type Names = BTreeMap<TopicId, String>;

/// Runs `verify`.
pub fn run(args: &VerifyArgs, out: &mut Output) -> CommandResult {
    if !args.dir.is_dir() {
        let what = format!("{} is no directory", args.dir.display());
        return Err(
            Failure::new(ErrorCode::InvalidInput, what).help("Give the broker's --data DIR.")
        );
    }
    let disk = RealDisk::new(args.dir.clone());
    // A damaged catalog must not keep anybody from looking at the rest.
    let names = topic_names(&disk).unwrap_or_else(|cause| {
        eprintln!("warning: names of topics are not known: {cause}");
        Names::new()
    });
    if args.repair { mend(args, &disk, names, out) } else { look(&disk, names, out) }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Failure {
        let code = match &error {
            VerifyError::Meta(_) => ErrorCode::NotADataDir,
            VerifyError::Newer(_) => ErrorCode::UnsupportedFormat,
            VerifyError::InUse => ErrorCode::DataDirLocked,
            VerifyError::Io(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {
                return Failure::quiet(super::failure::Exit::Ok);
            }
            VerifyError::Io(_) => ErrorCode::DiskRead,
        };
        Failure::new(code, error.to_string())
    }
}

fn look(disk: &dyn Disk, names: Names, out: &mut Output) -> CommandResult {
    let options = VerifyOptions { names, ..VerifyOptions::default() };
    let mut table = Table::new(&["FILE", "TOPIC", "PARTITION", "OFFSETS", "POSITION", "VERDICT"]);
    let summary = verify(disk, &options, &mut |row| {
        print(&row, &mut table, out).map_err(|_| io::ErrorKind::BrokenPipe.into())
    })?;
    out.table(&table)?;
    summarize(&summary, out)?;
    if summary.corrupt > 0 {
        let what = format!("{} findings of damage", summary.corrupt);
        return Err(Failure::new(ErrorCode::VerifyFailed, what));
    }
    Ok(())
}

fn print(row: &VerifyRow, table: &mut Table, out: &mut Output) -> CommandResult {
    out.json(row)?;
    // People want what is worth a look; what is whole is counted in the summary.
    if row.verdict != Verdict::Ok {
        let offsets = match (row.first_offset, row.last_offset) {
            (Some(first), Some(last)) => format!("{first}..={last}"),
            (Some(first), None) => format!("{first}.."),
            _ => "-".to_owned(),
        };
        let detail = row.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
        table.row([
            row.file.clone(),
            row.topic.clone().unwrap_or_else(|| "-".to_owned()),
            row.partition.map_or("-".to_owned(), |p| p.to_string()),
            offsets,
            row.position.map_or("-".to_owned(), grouped),
            format!("{}{detail}", word(&row.verdict)),
        ]);
    }
    Ok(())
}

fn word(value: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(value).ok();
    word.as_ref().and_then(|v| v.as_str()).unwrap_or_default().replace('_', " ")
}

fn summarize(summary: &VerifySummary, out: &mut Output) -> CommandResult {
    let mut line = json!(summary);
    line["summary"] = true.into();
    out.json(&line)?;
    if summary.live {
        out.say(
            "a broker uses this directory: only what lies below the durable marks was checked",
        )?;
    }
    out.say(format_args!(
        "checked {}, {}, {}, {}, {}: {}",
        counted(summary.partitions, "partition"),
        counted(summary.segments, "segment"),
        counted(summary.batches, "batch"),
        counted(summary.records, "record"),
        format_bytes(summary.bytes),
        match (summary.corrupt, summary.notes) {
            (0, 0) => "all is well".to_owned(),
            (0, notes) => format!("no damage, {}", counted(notes, "note")),
            (corrupt, notes) => {
                let findings = counted(corrupt, "finding");
                format!("{findings} of damage, {}", counted(notes, "note"))
            }
        }
    ))
}

fn mend(args: &VerifyArgs, disk: &dyn Disk, names: Names, out: &mut Output) -> CommandResult {
    let accept_loss = args.accept_loss.iter().map(|text| parse_partition(text, &names));
    let options = RepairOptions {
        mode: if args.dry_run { RepairMode::DryRun } else { RepairMode::Write },
        accept_loss: accept_loss.collect::<Result<BTreeSet<_>, _>>()?,
        names,
        now: now(),
    };
    let mut table = Table::new(&["FILE", "TOPIC", "PARTITION", "OFFSETS", "ACTION", "DONE"]);
    let summary = repair(disk, &options, &mut |row| {
        let offsets = match (row.first_offset, row.last_offset) {
            (Some(first), Some(last)) => format!("{first}..={last}"),
            _ => "-".to_owned(),
        };
        table.row([
            row.file.clone(),
            row.topic.clone().unwrap_or_else(|| row.topic_id.to_string()),
            row.partition.to_string(),
            offsets,
            word(&row.action),
            if row.done { "yes" } else { "no" }.to_owned(),
        ]);
        out.json(&row).map_err(|_| io::ErrorKind::BrokenPipe.into())
    })?;
    out.table(&table)?;
    report(args, &summary, out)
}

fn report(args: &VerifyArgs, summary: &RepairSummary, out: &mut Output) -> CommandResult {
    let mut line = json!(summary);
    line["summary"] = true.into();
    line["dry_run"] = args.dry_run.into();
    out.json(&line)?;
    let verb = if args.dry_run { "would repair" } else { "repaired" };
    out.say(format_args!(
        "{verb} {} of {} partitions; {} offsets given up; {} partitions stay fenced",
        summary.repaired,
        summary.partitions,
        grouped(summary.lost_offsets),
        summary.refused
    ))?;
    if summary.refused > 0 {
        let what = format!("{} partitions have lost records", summary.refused);
        let failure = Failure::new(ErrorCode::VerifyFailed, what);
        return Err(failure.help("--accept-loss TOPIC/P gives a partition's lost records up."));
    }
    Ok(())
}

/// `orders/3`, or the topic's id where the catalog cannot be read.
fn parse_partition(text: &str, names: &Names) -> Result<TopicPartition, Failure> {
    let form = || Failure::usage(format!("--accept-loss {text:?}: write TOPIC/PARTITION"));
    let (topic, partition) = text.rsplit_once('/').ok_or_else(form)?;
    let partition = PartitionId(partition.parse().map_err(|_| form())?);
    let named = names.iter().find(|(_, name)| *name == topic).map(|(id, _)| *id);
    let id = named.or_else(|| topic.parse::<Uuid>().ok().map(TopicId)).ok_or_else(|| {
        Failure::new(ErrorCode::TopicNotFound, format!("no topic {topic:?} in this directory"))
    })?;
    Ok(TopicPartition { topic: id, partition })
}
