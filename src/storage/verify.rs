//! `stoplog verify`: reads a data directory whole and says of every file whether it is what it
//! should be. Writes nothing, not even the lock file; repairs are in `repair.rs`.
//!
//! On the directory of a running broker (somebody holds the lock) it checks below the watermarks
//! only: what is above is being written. A file that vanishes meanwhile because its segment was
//! deleted is no finding.

mod partition;
pub(crate) mod segment;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use crate::env::{DirLock, Disk};
use crate::types::{Offset, PartitionId, TopicId, TopicPartition};

use super::fields::FormatError;
use super::layout::{
    LOCK_FILE, META_FILE, PartitionPaths, QUARANTINE_DIR, TOPICS_DIR, parse_partition_dir,
};
use super::meta::{META_BYTES_MAX, Meta};
use super::small_file::read_small_file;

pub(crate) use partition::seal_of;

/// What is to be looked at, and how closely.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Names of topics, for the rows; the files know ids only.
    pub names: BTreeMap<TopicId, String>,
    /// Only this partition.
    pub only: Option<TopicPartition>,
    /// How closely batches are looked at.
    pub depth: VerifyDepth,
}

/// How closely batches are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyDepth {
    /// Headers, checksums, order.
    Batches,
    /// Every record too, decompressed where need be.
    #[default]
    Records,
}

/// One finding about one file, or a range of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyRow {
    /// Name of the topic, where it is known.
    pub topic: Option<String>,
    /// Id of the topic; `None` for files that belong to none.
    pub topic_id: Option<TopicId>,
    /// The partition.
    pub partition: Option<PartitionId>,
    /// Path in the data directory.
    pub file: String,
    /// First offset it is about.
    pub first_offset: Option<Offset>,
    /// Last offset it is about.
    pub last_offset: Option<Offset>,
    /// Position in the file where it starts.
    pub position: Option<u64>,
    /// What was found.
    pub verdict: Verdict,
    /// The same for people, where there is more to say.
    pub detail: Option<String>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything is as it should be.
    Ok,
    /// Bytes above the watermark that are not whole batches; the next start keeps and cuts them.
    Torn,
    /// The next start completes what a crash interrupted.
    Interrupted,
    /// Above the watermark of a running broker: not checked.
    AboveWatermark,
    /// A cache that is made again when it is needed.
    CacheBad,
    /// Nothing explains this file.
    Unexplained,
    /// A loss that an operator accepted.
    Gap,
    /// Whole batches whose records do not decode: a client wrote them so.
    Undecodable,
    /// Records that were durable are damaged or gone.
    Corrupt,
    /// A file that should be there is not.
    Missing,
    /// Header, slot or footer of a segment is damaged; its records are whole.
    DescriptionDamaged,
    /// The manifest is damaged: what should be there is not known for sure.
    ManifestDamaged,
}

impl Verdict {
    /// Whether stored bytes are damaged (exit code 8 of `stoplog verify`).
    pub fn is_corruption(self) -> bool {
        match self {
            Verdict::Corrupt
            | Verdict::Missing
            | Verdict::DescriptionDamaged
            | Verdict::ManifestDamaged => true,
            Verdict::Ok
            | Verdict::Torn
            | Verdict::Interrupted
            | Verdict::AboveWatermark
            | Verdict::CacheBad
            | Verdict::Unexplained
            | Verdict::Gap
            | Verdict::Undecodable => false,
        }
    }
}

/// The whole directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifySummary {
    /// Identity of the data directory.
    pub cluster_id: Option<Uuid>,
    /// A broker is running: only what lies below the watermarks was checked.
    pub live: bool,
    /// Partitions with files.
    pub partitions: u64,
    /// Segments read.
    pub segments: u64,
    /// Valid batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows with a verdict of corruption.
    pub corrupt: u64,
    /// Rows with any other verdict than ok.
    pub notes: u64,
}

/// Why a directory was not verified.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// It has no readable `meta.properties`.
    #[error("not a data directory of Stoplog: {0}")]
    Meta(String),
    /// A newer version wrote it.
    #[error(transparent)]
    Newer(FormatError),
    /// A broker is running; it would have to be stopped.
    #[error("the data directory is in use: stop the broker first")]
    InUse,
    /// The device failed, or the caller's sink did.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads everything below `disk` and hands every row to `sink`, as soon as it is found.
///
/// # Errors
/// See [`VerifyError`]; damage is a row and not an error.
pub fn verify(
    disk: &dyn Disk,
    options: &VerifyOptions,
    sink: &mut dyn FnMut(VerifyRow) -> io::Result<()>,
) -> Result<VerifySummary, VerifyError> {
    let meta = read_meta(disk)?;
    let (live, _lock) = take_lock(disk)?;
    let summary = VerifySummary { cluster_id: Some(meta.cluster_id), live, ..Default::default() };
    let mut run = Run { disk, options, sink, summary, cluster_id: meta.cluster_id };
    run.topics()?;
    run.quarantine()?;
    Ok(run.summary)
}

/// One verification.
pub(crate) struct Run<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) options: &'a VerifyOptions,
    sink: &'a mut dyn FnMut(VerifyRow) -> io::Result<()>,
    pub(crate) summary: VerifySummary,
    pub(crate) cluster_id: Uuid,
}

impl Run<'_> {
    fn topics(&mut self) -> io::Result<()> {
        for id in partitions(self.disk, &mut |path| self.unexplained(path))? {
            if self.options.only.is_none_or(|only| only == id) {
                self.summary.partitions += 1;
                self.partition(&PartitionPaths::new(id))?;
            }
        }
        Ok(())
    }

    fn unexplained(&mut self, path: String) -> io::Result<()> {
        self.emit(VerifyRow { verdict: Verdict::Unexplained, ..row_of_file(path) })
    }

    /// What earlier starts set aside is shown, so that it is not forgotten.
    fn quarantine(&mut self) -> io::Result<()> {
        for entry in entries_of(self.disk, Path::new(QUARANTINE_DIR))? {
            self.unexplained(format!("{QUARANTINE_DIR}/{}", entry.name))?;
        }
        Ok(())
    }

    pub(crate) fn emit(&mut self, mut row: VerifyRow) -> io::Result<()> {
        row.topic = row.topic_id.and_then(|id| self.options.names.get(&id).cloned());
        match row.verdict {
            Verdict::Ok => {}
            verdict if verdict.is_corruption() => self.summary.corrupt += 1,
            _ => self.summary.notes += 1,
        }
        (self.sink)(row)
    }
}

/// A row about a file, to be completed.
pub(crate) fn row_of_file(file: String) -> VerifyRow {
    VerifyRow {
        topic: None,
        topic_id: None,
        partition: None,
        file,
        first_offset: None,
        last_offset: None,
        position: None,
        verdict: Verdict::Ok,
        detail: None,
    }
}

/// Every partition that has a directory, and `odd` for whatever else is there.
pub(crate) fn partitions(
    disk: &dyn Disk,
    odd: &mut dyn FnMut(String) -> io::Result<()>,
) -> io::Result<Vec<TopicPartition>> {
    let mut found = Vec::new();
    for topic in entries_of(disk, Path::new(TOPICS_DIR))? {
        let dir = Path::new(TOPICS_DIR).join(&topic.name);
        if !topic.is_dir {
            odd(dir.display().to_string())?;
            continue;
        }
        for partition in entries_of(disk, &dir)? {
            match parse_partition_dir(&topic.name, &partition.name).filter(|_| partition.is_dir) {
                Some(id) => found.push(id),
                None => odd(dir.join(&partition.name).display().to_string())?,
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn read_meta(disk: &dyn Disk) -> Result<Meta, VerifyError> {
    let bytes = read_small_file(disk, Path::new(META_FILE), META_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| VerifyError::Meta("there is no meta.properties".to_owned()))?;
    Meta::decode(&bytes).map_err(|e| match e {
        FormatError::Newer { .. } => VerifyError::Newer(e),
        other => VerifyError::Meta(other.to_string()),
    })
}

/// Whether a broker holds the lock; else it is held until the result is dropped. Without a lock file
/// no broker ever ran here.
pub(crate) fn take_lock(disk: &dyn Disk) -> io::Result<(bool, Option<Box<dyn DirLock>>)> {
    let path = Path::new(LOCK_FILE);
    if !disk.exists(path)? {
        return Ok((false, None));
    }
    match disk.lock(path) {
        Ok(lock) => Ok((false, Some(lock))),
        // Without the right to lock nobody can tell: what holds for a live directory is safe.
        Err(e)
            if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied) =>
        {
            Ok((true, None))
        }
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok((false, None)),
        Err(e) => Err(e),
    }
}

fn entries_of(disk: &dyn Disk, path: &Path) -> io::Result<Vec<crate::env::DirEntry>> {
    match disk.read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
