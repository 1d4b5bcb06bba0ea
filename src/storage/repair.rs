//! `stoplog verify --repair`: the way out of a fence. Offline only: it takes the lock.
//!
//! A damaged segment is replaced by sealed segments that hold its valid batches, and the manifest
//! gets a gap marker for every range of offsets that is lost. Losing anything needs the partition's
//! name in `accept_loss`; rewriting a damaged header or footer around whole data does not.
//!
//! # Order of writes
//! 1. Whole originals are copied to `quarantine/`; nothing of them is lost, whatever follows.
//! 2. New segments are written as `*.log.part`, synced. 3. The new manifest is written as
//!    `partition.manifest.repair`: from here on the repair is decided. 4. Parts are renamed over the
//!    originals, what the new manifest does not name goes to `quarantine/`, then the manifest is
//!    replaced and the plan removed.
//!
//! A crash before 3 leaves the partition as it was; after it, a broker fences the partition until
//! `verify --repair` is run again, which goes on at 4.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::env::{Disk, File, OpenMode, write_all_at};
use crate::types::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicPartition};

use super::footer::Footer;
use super::identity::{Features, Identity};
use super::layout::{FileName, PartitionPaths};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use super::recovery::files::{keep_copy, quarantine, remove, unused_quarantine_path};
use super::recovery::scan::{Scan, scan_to_end};
use super::slot::{Slot, SlotPlace};
use super::small_file::{read_small_file, write_small_file};
use super::tail::SegmentTail;
use super::verify::{VerifyError, partitions, read_meta, take_lock};

use plan::{Part, Plan};

/// What may be done.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Whether anything is written.
    pub mode: RepairMode,
    /// Partitions whose lost records are given up.
    pub accept_loss: BTreeSet<TopicPartition>,
    /// Names of topics, for the rows.
    pub names: BTreeMap<TopicId, String>,
    /// Wall time, for gap markers.
    pub now: Timestamp,
}

/// Whether anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// Say what would be done.
    DryRun,
    /// Do it.
    Write,
}

/// One thing that is done, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairRow {
    /// Name of the topic, where it is known.
    pub topic: Option<String>,
    /// Its id.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// What it is about.
    pub file: String,
    /// First offset it is about.
    pub first_offset: Option<Offset>,
    /// Last offset it is about.
    pub last_offset: Option<Offset>,
    /// What is done.
    pub action: RepairAction,
    /// Whether it was done (and not only found).
    pub done: bool,
}

/// What a repair does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairAction {
    /// Valid batches are written to a new segment; the original is kept in `quarantine/`.
    Rewrite,
    /// A range of offsets is given up and marked as a gap.
    AcceptLoss,
    /// The manifest is made from the segments.
    RebuildManifest,
    /// A repair that was interrupted is completed.
    Resume,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairSummary {
    /// Partitions that were looked at.
    pub partitions: u64,
    /// Partitions that are repaired, or would be.
    pub repaired: u64,
    /// Partitions that stay fenced because a loss was not accepted.
    pub refused: u64,
    /// Offsets given up.
    pub lost_offsets: u64,
}

/// Repairs every partition that needs it and may be repaired.
///
/// # Errors
/// `InUse` while a broker runs; else as [`VerifyError`].
pub fn repair(
    disk: &dyn Disk,
    options: &RepairOptions,
    sink: &mut dyn FnMut(RepairRow) -> io::Result<()>,
) -> Result<RepairSummary, VerifyError> {
    let meta = read_meta(disk)?;
    let (live, _lock) = take_lock(disk)?;
    if live {
        return Err(VerifyError::InUse);
    }
    let mut summary = RepairSummary::default();
    for id in partitions(disk, &mut |_| Ok(()))? {
        let paths = PartitionPaths::new(id);
        let mut run = Run { disk, options, sink, paths: &paths, cluster_id: meta.cluster_id };
        run.partition(&mut summary)?;
    }
    Ok(summary)
}

struct Run<'a> {
    disk: &'a dyn Disk,
    options: &'a RepairOptions,
    sink: &'a mut dyn FnMut(RepairRow) -> io::Result<()>,
    paths: &'a PartitionPaths,
    cluster_id: Uuid,
}

impl Run<'_> {
    fn partition(&mut self, summary: &mut RepairSummary) -> Result<(), VerifyError> {
        summary.partitions += 1;
        let writes = self.options.mode == RepairMode::Write;
        if let Some(manifest) = self.interrupted()? {
            let file = self.paths.repair_plan();
            self.emit(&file, None, RepairAction::Resume, writes)?;
            summary.repaired += 1;
            return if writes { Ok(self.install(&manifest)?) } else { Ok(()) };
        }
        let plan = Plan::make(self.disk, self.paths, self.cluster_id, self.options.now)?;
        if plan.is_empty() {
            return Ok(());
        }
        let accepted = self.options.accept_loss.contains(&self.paths.id());
        let goes = accepted || !plan.needs_acceptance;
        self.tell(&plan, goes && writes)?;
        match goes {
            true => summary.repaired += 1,
            false => summary.refused += 1,
        }
        if goes {
            summary.lost_offsets += plan.lost_offsets();
        }
        if goes && writes {
            self.carry_out(&plan)?;
        }
        Ok(())
    }

    fn interrupted(&self) -> io::Result<Option<Manifest>> {
        let bytes = read_small_file(self.disk, &self.paths.repair_plan(), MANIFEST_BYTES_MAX)?;
        Ok(bytes.and_then(|bytes| Manifest::decode(&bytes).ok()))
    }

    fn tell(&mut self, plan: &Plan, done: bool) -> io::Result<()> {
        if plan.manifest_is_damaged {
            self.emit(&self.paths.manifest(), None, RepairAction::RebuildManifest, done)?;
        }
        for part in &plan.parts {
            let range = Some((part.run.first, part.run.next));
            self.emit(&self.paths.log(part.source), range, RepairAction::Rewrite, done)?;
        }
        for gap in &plan.lost {
            let range = Some((gap.first, gap.next));
            self.emit(&self.paths.manifest(), range, RepairAction::AcceptLoss, done)?;
        }
        Ok(())
    }

    fn emit(
        &mut self,
        file: &Path,
        range: Option<(Offset, Offset)>,
        action: RepairAction,
        done: bool,
    ) -> io::Result<()> {
        let id = self.paths.id();
        (self.sink)(RepairRow {
            topic: self.options.names.get(&id.topic).cloned(),
            topic_id: id.topic,
            partition: id.partition,
            file: file.display().to_string(),
            first_offset: range.map(|(first, _)| first),
            last_offset: range.map(|(_, next)| Offset(next.0 - 1)),
            action,
            done,
        })
    }

    fn carry_out(&self, plan: &Plan) -> io::Result<()> {
        for base in &plan.replaced {
            let path = self.paths.log(*base);
            let file = self.disk.open(&path, OpenMode::Read)?;
            let to = unused_quarantine_path(self.disk, self.paths, &path)?;
            keep_copy(self.disk, file.as_ref(), 0, file.len()?, &to)?;
        }
        for part in &plan.parts {
            self.write_part(part)?;
        }
        self.disk.sync_dir(self.paths.dir())?;
        write_small_file(self.disk, &self.paths.repair_plan(), &plan.target.encode())?;
        self.install(&plan.target)
    }

    /// A sealed segment with the batches of one run. What it holds is checked once more on the way.
    fn write_part(&self, part: &Part) -> io::Result<()> {
        let source = self.disk.open(&self.paths.log(part.source), OpenMode::Read)?;
        let base = part.run.first;
        let start = SegmentTail { position: part.run.position, ..SegmentTail::empty(base) };
        let mut scan = Scan::new(source, start, part.run.end, LeaderEpoch(i32::MAX));
        let path = self.paths.part(base);
        let file = self.disk.open(&path, OpenMode::Truncate)?;
        let mut tail = SegmentTail::empty(base);
        loop {
            let from = scan.tail.position;
            let Ok(header) = scan.step()? else { break };
            let bytes = scan.bytes(from, header.size_bytes())?;
            write_all_at(file.as_ref(), bytes, tail.position)?;
            if let Some((head, payload)) = bytes.split_first_chunk() {
                tail.push(&header, head, payload);
            }
        }
        if tail.next_offset != part.run.next {
            return Err(io::Error::other(format!("{} changed meanwhile", path.display())));
        }
        self.describe(file, base, tail, part.created)
    }

    fn describe(
        &self,
        file: Arc<dyn File>,
        base: Offset,
        tail: SegmentTail,
        created: Timestamp,
    ) -> io::Result<()> {
        let identity = Identity {
            cluster_id: self.cluster_id,
            id: self.paths.id(),
            base_offset: base,
            created,
            leader_epoch: tail.first_epoch,
            features: Features::default(),
        };
        let tag = identity.tag();
        let max_append_time = tail.max_timestamp.min(self.options.now);
        let slot = Slot {
            generation: 1,
            tag,
            clean: false,
            tail,
            offset_lease: tail.next_offset,
            max_append_time,
            boot_id: self.disk.boot_id()?,
            leader_epoch: tail.last_epoch,
        };
        write_all_at(file.as_ref(), &identity.encode(), 0)?;
        write_all_at(file.as_ref(), &slot.encode(), SlotPlace::A.position())?;
        let footer = Footer { tag, tail, max_append_time };
        write_all_at(file.as_ref(), &footer.encode(), tail.position)?;
        file.sync()
    }

    /// From a written plan to the repaired partition; may be repeated.
    fn install(&self, target: &Manifest) -> io::Result<()> {
        let listed = |base| target.segment(base).is_some();
        for entry in self.disk.read_dir(self.paths.dir())? {
            let path = self.paths.dir().join(&entry.name);
            match FileName::parse(&entry.name) {
                FileName::Part(base) if listed(base) => {
                    self.disk.rename(&path, &self.paths.log(base))?;
                    remove(self.disk, self.paths, &self.paths.index(base))?;
                }
                FileName::Log(base) if !listed(base) => {
                    quarantine(self.disk, self.paths, &path)?;
                }
                FileName::Index(base) if !listed(base) => {
                    remove(self.disk, self.paths, &path)?;
                }
                _ => {}
            }
        }
        self.disk.sync_dir(self.paths.dir())?;
        write_small_file(self.disk, &self.paths.manifest(), &target.encode())?;
        remove(self.disk, self.paths, &self.paths.repair_plan())?;
        self.disk.sync_dir(self.paths.dir())
    }
}

/// The state at the end of a run that was read before.
pub(super) fn tail_of(
    file: &Arc<dyn File>,
    run: &super::verify::segment::ValidRun,
) -> io::Result<SegmentTail> {
    let start = SegmentTail { position: run.position, ..SegmentTail::empty(run.first) };
    let mut scan = Scan::new(Arc::clone(file), start, run.end, LeaderEpoch(i32::MAX));
    let mut index = super::index::Index::new(run.first);
    scan_to_end(&mut scan, &mut index, |_, _| {})?;
    let shift = run.position - super::layout::DATA_START;
    Ok(SegmentTail { position: scan.tail.position - shift, ..scan.tail })
}

#[cfg(test)]
mod tests;
