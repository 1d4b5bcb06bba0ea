//! What a repair of one partition would do, decided before anything is written.

use std::io;

use uuid::Uuid;

use crate::env::{Disk, OpenMode};
use crate::storage::layout::{DATA_START, PartitionPaths};
use crate::storage::manifest::{GAPS_MAX, Gap, Manifest, Seal, SegmentEntry, SegmentState};
use crate::storage::producer_state::ProducerLimits;
use crate::storage::recovery::files::Listing;
use crate::storage::recovery::sealed::{guess_manifest, read_footer, read_identity, read_slots};
use crate::storage::recovery::{
    Access, Finding, Materialised, RecoverError, Recovered, RecoveryContext, recover_partition,
};
use crate::storage::slot::OFFSET_LEASE;
use crate::storage::tail::SegmentTail;
use crate::storage::verify::segment::{SegmentRead, ValidRun, read_segment};
use crate::storage::verify::{VerifyDepth, VerifyError, seal_of};
use crate::types::{LeaderEpoch, Offset, PartitionHealth, Timestamp};

use super::tail_of;

/// A new segment.
pub(super) struct Part {
    /// Base offset of the segment whose batches it takes.
    pub source: Offset,
    /// Which ones.
    pub run: ValidRun,
    /// When the original was made.
    pub created: Timestamp,
}

/// A repair.
pub(super) struct Plan {
    pub parts: Vec<Part>,
    /// Segments whose originals go to quarantine.
    pub replaced: Vec<Offset>,
    pub lost: Vec<Gap>,
    pub manifest_is_damaged: bool,
    /// Something may be lost.
    pub needs_acceptance: bool,
    /// The manifest afterwards.
    pub target: Manifest,
}

struct Maker<'a> {
    disk: &'a dyn Disk,
    paths: &'a PartitionPaths,
    cluster_id: Uuid,
    now: Timestamp,
    plan: Plan,
}

impl Plan {
    /// Reads the partition whole.
    pub(super) fn make(
        disk: &dyn Disk,
        paths: &PartitionPaths,
        cluster_id: Uuid,
        now: Timestamp,
    ) -> Result<Plan, VerifyError> {
        let recovered = look(disk, paths, cluster_id, now)?;
        let damaged = |f: &Finding| matches!(f, Finding::ManifestDamaged(_));
        let manifest_is_damaged = recovered.findings.iter().any(damaged);
        let mut fenced = matches!(recovered.health, PartitionHealth::Fenced { .. });
        let mut manifest = recovered.manifest.clone();
        if manifest_is_damaged {
            let logs = Listing::read(disk, paths.dir())?.unwrap_or_default().logs;
            manifest = guess_manifest(disk, paths, cluster_id, &logs)?;
        }
        let plan = Plan {
            parts: Vec::new(),
            replaced: Vec::new(),
            lost: Vec::new(),
            manifest_is_damaged,
            needs_acceptance: manifest_is_damaged,
            target: Manifest { segments: Vec::new(), ..manifest.clone() },
        };
        let mut maker = Maker { disk, paths, cluster_id, now, plan };
        for entry in &manifest.segments {
            match entry.state {
                SegmentState::Sealed(seal) => maker.sealed(entry, seal)?,
                // The next start completes it, unless the partition is fenced.
                SegmentState::Sealing(seal) if fenced => maker.sealed(entry, seal)?,
                // What a start takes for granted is read here.
                SegmentState::Active if fenced || !maker.is_whole(entry)? => {
                    fenced = true;
                    maker.active(entry)?;
                }
                _ => maker.plan.target.segments.push(*entry),
            }
        }
        maker.finish(&recovered, fenced)
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.lost.is_empty() && !self.manifest_is_damaged
    }

    pub(super) fn lost_offsets(&self) -> u64 {
        self.lost.iter().map(|gap| u64::try_from(gap.next - gap.first).unwrap_or(0)).sum()
    }
}

fn look(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    cluster_id: Uuid,
    now: Timestamp,
) -> Result<Recovered, VerifyError> {
    let context = RecoveryContext {
        cluster_id,
        boot_id: disk.boot_id()?,
        now,
        materialised: Materialised::Unknown,
        access: Access::ReadOnly,
        producers: ProducerLimits::default(),
    };
    recover_partition(disk, paths, &context).map_err(|e| match e {
        RecoverError::Newer(e) => VerifyError::Newer(e),
        RecoverError::Io(e) | RecoverError::NoSpace(e) | RecoverError::Sync(e) => {
            VerifyError::Io(e)
        }
    })
}

impl Maker<'_> {
    fn sealed(&mut self, entry: &SegmentEntry, seal: Seal) -> io::Result<()> {
        let base = entry.base_offset;
        let file = match self.disk.open(&self.paths.log(base), OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.lose(base, seal.next_offset);
                return Ok(());
            }
            other => other?,
        };
        let identity = read_identity(file.as_ref(), self.paths, self.cluster_id, base)?;
        let created = identity.identity.as_ref().map_or(self.now, |identity| identity.created);
        let end = seal.data_end.min(file.len()?);
        let empty = SegmentTail::summed(base, identity.data_sum());
        let epoch = identity.created_epoch();
        let read = read_segment(&file, empty, end, epoch, VerifyDepth::Batches)?;
        let footer = read_footer(file.as_ref(), seal.data_end, identity.tag)?;
        let whole = read.bad.is_empty() && seal_of(&read.tail) == seal;
        let described = identity.identity.is_ok()
            && footer
                .is_ok_and(|f| Seal::from(&f) == seal && Some(f.file_bytes()) == file.len().ok());
        if whole && described {
            let state = SegmentState::Sealed(seal);
            self.plan.target.segments.push(SegmentEntry { state, ..*entry });
            return Ok(());
        }
        self.plan.needs_acceptance |= !whole;
        self.replace(base, &file, &read.runs, created, seal.next_offset)
    }

    /// Whether an active segment holds what its watermark says; a missing one is a fence's matter.
    fn is_whole(&self, entry: &SegmentEntry) -> io::Result<bool> {
        let base = entry.base_offset;
        let file = match self.disk.open(&self.paths.log(base), OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other?,
        };
        let identity = read_identity(file.as_ref(), self.paths, self.cluster_id, base)?;
        let slots = read_slots(file.as_ref(), identity.tag)?;
        let Some((_, slot)) = slots.newest() else { return Ok(true) };
        let empty = SegmentTail::summed(base, identity.data_sum());
        let epoch = identity.created_epoch();
        let end = slot.tail.position.min(file.len()?);
        let read = read_segment(&file, empty, end, epoch, VerifyDepth::Batches)?;
        Ok(read.bad.is_empty() && read.tail.same_bytes(&slot.tail))
    }

    /// The active segment of a fenced or damaged partition is sealed with what is valid of it.
    fn active(&mut self, entry: &SegmentEntry) -> io::Result<()> {
        self.plan.needs_acceptance = true;
        let base = entry.base_offset;
        let file = match self.disk.open(&self.paths.log(base), OpenMode::Read) {
            // How much was in it nobody knows.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let identity = read_identity(file.as_ref(), self.paths, self.cluster_id, base)?;
        let created = identity.identity.as_ref().map_or(self.now, |identity| identity.created);
        let slots = read_slots(file.as_ref(), identity.tag)?;
        let empty = SegmentTail::summed(base, identity.data_sum());
        let watermark = slots.newest().map_or(empty, |(_, slot)| slot.tail);
        let end = watermark.position.min(file.len()?);
        let epoch = identity.created_epoch();
        let below = read_segment(&file, empty, end, epoch, VerifyDepth::Batches)?;
        let above = read_segment(&file, watermark, file.len()?, epoch, VerifyDepth::Batches)?;
        let runs = joined(below, above);
        self.replace(base, &file, &runs, created, watermark.next_offset)
    }

    fn replace(
        &mut self,
        base: Offset,
        file: &std::sync::Arc<dyn crate::env::File>,
        runs: &[ValidRun],
        created: Timestamp,
        expected: Offset,
    ) -> io::Result<()> {
        self.plan.replaced.push(base);
        let mut next = base;
        for run in runs {
            // A first batch above the base is a declared gap, not a loss.
            if run.position > DATA_START {
                self.lose(next, run.first);
            }
            let tail = tail_of(file, run)?;
            let state = SegmentState::Sealed(seal_of(&tail));
            self.plan.target.segments.push(SegmentEntry { base_offset: run.first, state });
            self.plan.parts.push(Part { source: base, run: *run, created });
            next = run.next;
        }
        self.lose(next, expected);
        Ok(())
    }

    fn lose(&mut self, first: Offset, next: Offset) {
        if first < next {
            self.plan.needs_acceptance = true;
            self.plan.lost.push(Gap { first, next, at: self.now });
        }
    }

    fn finish(mut self, recovered: &Recovered, fenced: bool) -> Result<Plan, VerifyError> {
        let target = &mut self.plan.target;
        target.generation += 1;
        target.offset_floor = target.offset_floor.max(recovered.next_offset);
        if fenced {
            // Offsets may have been handed out that no slot tells of any more.
            target.offset_floor = target.offset_floor + OFFSET_LEASE;
            target.leader_epoch = LeaderEpoch(recovered.leader_epoch.0.saturating_add(1));
        }
        target.gaps.extend(self.plan.lost.iter().filter(|gap| gap.next > target.log_start));
        target.gaps.sort_by_key(|gap| gap.first);
        target.gaps.dedup_by(|b, a| {
            let overlap = b.first < a.next;
            if overlap {
                a.next = a.next.max(b.next);
            }
            overlap
        });
        if target.gaps.len() > GAPS_MAX {
            let what = format!("{} gaps, at most {GAPS_MAX} are kept", target.gaps.len());
            return Err(VerifyError::Io(io::Error::other(what)));
        }
        Ok(self.plan)
    }
}

/// Runs below and above the watermark; the first above goes on where the last below ended.
fn joined(below: SegmentRead, above: SegmentRead) -> Vec<ValidRun> {
    let mut runs = below.runs;
    for run in above.runs {
        match runs.last_mut() {
            Some(last) if last.end == run.position => {
                last.end = run.end;
                last.next = run.next;
            }
            _ => runs.push(run),
        }
    }
    runs
}
