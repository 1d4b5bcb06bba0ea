//! Commits: when one is due, what it states, what it lets go.
//!
//! One is in flight per file. Whoever arrives meanwhile is covered by the next, which starts as
//! soon as the one before is back: no artificial delay. The slot of a commit states what the one
//! before covered, so that stating costs no sync of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::storage::job::{Caches, Checkpoint, Commit, Fault, IndexPiece, Work};
use crate::storage::segment::Border;
use crate::storage::slot::{OFFSET_LEASE, Slot, SlotPlace};
use crate::storage::snapshot::encode_snapshot;
use crate::types::{Durability, Offset};

use super::{Active, Blocked, Indexed, PartitionLog, Round, SnapshotState};

/// In pieces of the index; a segment of the usual size is full before.
const UNSYNCED_PIECES: u64 = 4;

impl PartitionLog {
    /// The offset before which everything is durable.
    pub(super) fn durable_end(&self) -> Offset {
        let durable = self.active.as_ref().map(|active| active.durable.next_offset);
        let durable = || durable.unwrap_or_else(|| self.log_end());
        self.durable_end_of_seals().unwrap_or_else(durable)
    }

    /// The offset behind the last record.
    pub(super) fn log_end(&self) -> Offset {
        let full = || self.seals.queue.back().map(|sealing| &sealing.full);
        let last = self.active.as_ref().or_else(full).map(|it| it.tail.next_offset);
        last.unwrap_or_else(|| self.shared.offsets().log_end)
    }

    /// A commit, when one is due.
    pub(super) fn commit_work(&mut self, round: &Round<'_>) -> Option<Work> {
        if !self.is_commit_due(round.now) {
            return None;
        }
        let slot = self.next_slot();
        let index = self.index_piece();
        let active = self.active.as_mut()?;
        match active.open_file(&self.dir) {
            Ok(file) => {
                active.committing = true;
                let (base, tail) = (active.segment.base_offset, active.tail);
                let bytes = tail.position - active.durable.position;
                let short = bytes <= self.dir.options.round_bytes_max as u64;
                let issued = round.now;
                Some(Work::Commit(Commit { base, file, slot, tail, index, short, issued }))
            }
            Err(e) => {
                self.stop(&e);
                None
            }
        }
    }

    /// The next blocks of the index file, when enough was appended since the last ones.
    fn index_piece(&mut self) -> Option<Box<IndexPiece>> {
        let flush_bytes = self.dir.options.index_flush_bytes;
        let active = self.active.as_mut().filter(|_| self.stopped.is_none())?;
        if active.tail.position < active.indexed.position + flush_bytes {
            return None;
        }
        let state = active.segment.read();
        let index = state.index.as_ref()?;
        let (position, bytes) = index.encode_from(active.segment.tag, active.indexed.entries);
        let entries = index.entries().len();
        drop(state);
        active.indexed = Indexed { entries, position: active.tail.position };
        let path = self.paths.index(active.segment.base_offset);
        if matches!(self.snapshot, SnapshotState::Idle) {
            // Then an unclean start replays from there too.
            self.snapshot = SnapshotState::Wanted(self.snapshot_cache());
        }
        (!bytes.is_empty()).then(|| Box::new(IndexPiece { path, position, bytes }))
    }

    fn is_commit_due(&self, now: Duration) -> bool {
        let Some(active) = self.active.as_ref().filter(|it| it.unnamed.is_none()) else {
            return false;
        };
        if self.blocked == Some(Blocked::Lease) {
            return true;
        }
        let unsynced = active.tail.position > active.durable.position;
        let wanted = self.acks.wanted().is_some_and(|end| end > active.durable.next_offset)
            || self.options.durability == Durability::Fsync
            || self.orders.wants_commit(active.durable.next_offset)
            || active.tail.position - active.durable.position >= self.unsynced_max()
            || self.is_lease_low(active);
        (unsynced && wanted) || self.commit_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Bytes of one segment that are left to the operating system at most: an unclean start reads
    /// what lies behind the index, and that is written on beside commits.
    fn unsynced_max(&self) -> u64 {
        self.dir.options.index_flush_bytes.saturating_mul(UNSYNCED_PIECES)
    }

    /// When a commit is due that nobody waits for.
    pub(super) fn commit_deadline(&self) -> Option<Duration> {
        let active = self.active.as_ref().filter(|active| active.unnamed.is_none())?;
        if active.tail.position > active.durable.position {
            let period = match self.options.durability {
                Durability::Interval { ms } => Duration::from_millis(u64::from(ms)),
                Durability::Fsync | Durability::Os => self.dir.options.checkpoint_idle,
            };
            return Some(self.unsynced_since? + period);
        }
        let unstated =
            self.seals.are_durable() && active.durable.position > active.slot.tail.position;
        let states = unstated && self.stopped.is_none();
        states.then(|| self.last_append + self.dir.options.slot_flush)
    }

    pub(super) fn is_lease_low(&self, active: &Active) -> bool {
        !active.slot.clean && active.lease() - self.next < self.dir.options.lease_records / 2
    }

    /// The slot that the next commit writes, when it has anything new to state.
    fn next_slot(&self) -> Option<(SlotPlace, Slot)> {
        let active = self.active.as_ref().filter(|_| self.stopped.is_none())?;
        let renew = active.slot.clean || self.is_lease_low(active);
        let offset_lease = if renew { self.renewed_lease() } else { active.slot.offset_lease };
        let slot = self.slot_after(active, false, offset_lease);
        let news = active.slot.clean
            || slot.tail != active.slot.tail
            || slot.offset_lease != active.slot.offset_lease;
        news.then_some((active.place.other(), slot))
    }

    /// A lease that covers the next batch in any case.
    pub(super) fn renewed_lease(&self) -> Offset {
        let usual = self.dir.options.lease_records.min(OFFSET_LEASE);
        let front = self.backlog.front().map_or(0, |append| append.batch.header().record_count);
        self.next + usual.max(i64::from(front))
    }

    fn slot_after(&self, active: &Active, clean: bool, offset_lease: Offset) -> Slot {
        Slot {
            generation: active.slot.generation + 1,
            tag: active.segment.tag,
            clean,
            // It speaks for all segments before it too.
            tail: if self.seals.are_durable() { active.durable } else { active.slot.tail },
            offset_lease,
            max_append_time: active.max_append_time,
            boot_id: self.dir.boot_id,
            leader_epoch: self.epoch,
        }
    }

    pub(super) fn finish_commit(
        &mut self,
        commit: Commit,
        result: Result<(), Fault>,
        round: &Round<'_>,
    ) {
        let is_active =
            self.active.as_ref().is_some_and(|active| active.segment.base_offset == commit.base);
        let full = self.seals.queue.iter_mut().map(|sealing| &mut sealing.full);
        let mut owners = self.active.iter_mut().chain(full);
        let Some(owner) = owners.find(|it| it.segment.base_offset == commit.base) else { return };
        owner.committing = false;
        if let Err(fault) = result {
            self.fault(fault);
            return;
        }
        if self.dir.latch.is_closed() {
            return;
        }
        self.shared.queue.note_sync(round.now.saturating_sub(commit.issued));
        owner.durable = commit.tail;
        let all = owner.tail.position == owner.durable.position;
        if let Some((place, slot)) = commit.slot {
            (owner.place, owner.slot) = (place, slot);
        }
        if is_active {
            self.unsynced_since = (!all).then_some(round.now);
        }
        if is_active && commit.slot.is_none() {
            // Nothing was to be stated, or its slot found no space: again after a quiet time.
            self.last_append = round.now;
            if self.blocked == Some(Blocked::Lease) {
                // Without a lease nothing more can be appended.
                let error = self.disk_full(0);
                self.refuse_backlog(&error);
            }
        }
        self.publish_durable();
    }

    /// What is durable is published and answered.
    pub(super) fn publish_durable(&mut self) {
        let end = self.durable_end();
        self.shared.set_durable_end(end);
        if self.options.durability == Durability::Fsync {
            self.show_durable_seals();
            if let Some(active) = self.active.as_ref().filter(|_| self.seals.are_durable()) {
                active.show_durable();
            }
            if end > self.shared.offsets().visible_end {
                self.shared.set_visible_end(end);
            }
        }
        self.acks.release(end);
    }

    /// When the partition has been quiet for so long that it gets a clean slot.
    pub(super) fn quiet_deadline(&self) -> Option<Duration> {
        let settled = self.seals.are_settled() && self.is_all_named();
        let active = self.active.as_ref().filter(|_| settled)?;
        let all = active.tail.position == active.durable.position;
        (all && !active.slot.clean).then(|| self.last_append + self.dir.options.checkpoint_idle)
    }

    /// A clean slot and everything else that spares the next start a scan.
    pub(super) fn checkpoint_work(&mut self, round: &Round<'_>) -> Option<Work> {
        let asked = self.orders.wants_checkpoint();
        let quiet = self.quiet_deadline().is_some_and(|deadline| deadline <= round.now);
        if !(asked || quiet) || !self.backlog.is_empty() || self.stopped.is_some() {
            return None;
        }
        let all = |a: &Active| a.tail.position == a.durable.position && !a.slot.clean;
        let settled = self.seals.are_settled() && self.is_all_named();
        self.active.as_ref().filter(|active| all(active) && settled)?;
        let caches = self.caches();
        let manifest = self.seals.unstated.then(|| self.manifest.clone());
        let paths = Arc::clone(&self.paths);
        let active = self.active.as_ref()?;
        let slot = (active.place.other(), self.slot_after(active, true, self.next));
        let active = self.active.as_mut()?;
        match active.open_file(&self.dir) {
            Ok(file) => {
                self.checkpointing = true;
                let work = Checkpoint { paths, manifest, file, caches, slot };
                Some(Work::Checkpoint(Box::new(work)))
            }
            Err(e) => {
                self.stop(&e);
                None
            }
        }
    }

    pub(super) fn finish_checkpoint(
        &mut self,
        work: Checkpoint,
        result: Result<(), Fault>,
        round: &Round<'_>,
    ) {
        self.in_flight = false;
        self.checkpointing = false;
        self.snapshots_written(&work.caches);
        match result {
            Ok(()) => {
                if let Some(manifest) = work.manifest {
                    self.manifest = manifest;
                    self.seals.unstated = false;
                }
                if let Some(active) = self.active.as_mut() {
                    (active.place, active.slot) = work.slot;
                    active.file = None;
                }
            }
            Err(Fault::NoSpace(e)) => {
                // Nothing is lost: the next start scans. Looked at again after another quiet time.
                self.last_append = round.now;
                self.orders.checkpoint_failed(&e);
            }
            Err(fault) => self.fault(fault),
        }
    }

    /// The files that recovery can do without, as of now.
    pub(super) fn caches(&self) -> Caches {
        let Some(active) = &self.active else { return Caches::default() };
        let mut files = self.state_caches();
        files.extend(self.index_cache(active));
        self.caches_at(files, self.next)
    }

    /// What is known of producers now.
    fn snapshot_cache(&self) -> Caches {
        let snapshot = encode_snapshot(&self.producers, self.shared.id, self.next);
        self.caches_at(vec![(self.paths.snapshot(self.next), snapshot)], self.next)
    }

    pub(super) fn start_snapshot(&mut self, round: &mut Round<'_>) {
        let over = self.stopped.is_some() || self.dir.latch.is_closed();
        match std::mem::take(&mut self.snapshot) {
            SnapshotState::Wanted(caches) if !over => {
                self.snapshot = SnapshotState::InFlight;
                self.send(Work::Caches(caches), round);
            }
            SnapshotState::InFlight => self.snapshot = SnapshotState::InFlight,
            SnapshotState::Wanted(_) | SnapshotState::Idle => {}
        }
    }

    pub(super) fn finish_snapshot(&mut self, caches: &Caches, result: Result<(), Fault>) {
        self.snapshot = SnapshotState::Idle;
        match result {
            Ok(()) => self.snapshots_written(caches),
            Err(fault) => self.fault(fault),
        }
    }

    /// What is known of producers and epochs now.
    pub(super) fn state_caches(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let snapshot = encode_snapshot(&self.producers, self.shared.id, self.next);
        let epochs = self.shared.epochs().encode(self.shared.id);
        vec![(self.paths.snapshot(self.next), snapshot), (self.paths.epochs(), epochs)]
    }

    pub(super) fn index_cache(&self, it: &Active) -> Option<(PathBuf, Vec<u8>)> {
        let state = it.segment.read();
        let bytes = state.index.as_ref()?.encode(it.segment.tag);
        Some((self.paths.index(it.segment.base_offset), bytes))
    }

    /// These, with a snapshot of this offset among them.
    pub(super) fn caches_at(&self, files: Vec<(PathBuf, Vec<u8>)>, snapshot: Offset) -> Caches {
        let older = self.snapshots.iter().filter(|offset| **offset < snapshot);
        // The newest one that is there already stays, should this one be lost.
        let outdated = older.rev().skip(1).map(|offset| self.paths.snapshot(*offset)).collect();
        Caches { files, outdated, snapshot: Some(snapshot) }
    }

    pub(super) fn snapshots_written(&mut self, caches: &Caches) {
        let paths = &self.paths;
        self.snapshots.retain(|offset| !caches.outdated.contains(&paths.snapshot(*offset)));
        let Some(snapshot) = caches.snapshot else { return };
        if let Err(place) = self.snapshots.binary_search(&snapshot) {
            self.snapshots.insert(place, snapshot);
        }
    }

    /// What a failed job means for the partition or the data directory.
    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Sync(e) => {
                self.dir.latch(&format!("partition {}: {e}", self.shared.id));
                self.refuse_after_fault();
            }
            Fault::NoSpace(e) | Fault::Write(e) => self.stop(&e),
        }
    }
}

impl Active {
    /// Readers may see what is durable.
    pub(super) fn show_durable(&self) {
        let border = Border::of(&self.durable);
        let mut state = self.segment.write();
        if border.position > state.visible.position {
            state.visible = border;
        }
    }
}
