//! Full segments on their way to being sealed, beside the appends to the one behind them.
//!
//! Oldest first, one step of one segment at a time: `fdatasync` of the data; then the footer and
//! another `fdatasync`. So a footer says that the data before it is durable, and what comes later
//! may say of itself that it is durable only when all before it is.
//!
//! # Invariants
//! - The durable end passes no byte that no `fdatasync` covered: it stops in the oldest segment of
//!   which something is missing.
//! - A slot states data only when the data of all segments before it is durable.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::storage::dir::OnFull;
use crate::storage::footer::Footer;
use crate::storage::job::{Caches, Commit, Fault, SealWork, Work};
use crate::storage::retention::retention_time;
use crate::storage::segment::{Border, Segment};
use crate::types::{Durability, Offset, Timestamp};

use super::{Active, PartitionLog, Round};

/// All of a partition, oldest first.
#[derive(Default)]
pub(super) struct Seals {
    pub(super) queue: VecDeque<Sealing>,
    /// A footer is being written.
    pub(super) in_flight: bool,
    /// A footer found no space: tried again with the next look at time, or when a roll needs it.
    pub(super) no_space: bool,
    /// Sealed; the manifest in memory says so when no job holds it. Nobody else knows before: what a
    /// trim removes is what its manifest calls sealed.
    sealed: Vec<(Arc<Segment>, Footer)>,
    /// The manifest in memory says more than the one on the device.
    pub(super) unstated: bool,
}

/// A full segment.
pub(super) struct Sealing {
    pub(super) full: Active,
    /// Caches of the moment at which it was full.
    files: Vec<(PathBuf, Vec<u8>)>,
    full_since: Duration,
    /// When the oldest of its writes was made that was not synced then.
    unsynced_since: Option<Duration>,
    /// It is to go: see `retire.rs`.
    pub(super) retired: bool,
}

impl Sealing {
    pub(super) fn base(&self) -> Offset {
        self.full.segment.base_offset
    }

    pub(super) fn is_durable(&self) -> bool {
        self.full.durable.position == self.full.tail.position
    }
}

impl Active {
    pub(super) fn footer(&self) -> Footer {
        let (tag, tail) = (self.segment.tag, self.tail);
        Footer { tag, tail, max_append_time: self.max_append_time }
    }

    /// From when on its age counts for retention; `None` without records.
    pub(super) fn age_from(&self, skew: Duration) -> Option<Timestamp> {
        (!self.tail.is_empty()).then(|| retention_time(&self.footer(), skew))
    }
}

impl Seals {
    /// Whether everything in front of the active segment is durable.
    pub(super) fn are_durable(&self) -> bool {
        self.queue.iter().all(Sealing::is_durable)
    }

    /// Whether nothing more happens by itself.
    pub(super) fn are_settled(&self) -> bool {
        let stuck = self.no_space && self.are_durable();
        !self.in_flight && (self.queue.is_empty() || stuck)
    }

    /// Whether one of them is to go. Somebody waits for its space, and its end may take the reserve.
    pub(super) fn are_retiring(&self) -> bool {
        self.queue.iter().any(|sealing| sealing.retired)
    }

    /// The one that was full last is to go.
    pub(super) fn retire_last(&mut self) {
        if let Some(last) = self.queue.back_mut() {
            last.retired = true;
        }
    }

    /// Whether a job of one of them is under way.
    pub(super) fn are_busy(&self) -> bool {
        self.in_flight || self.queue.iter().any(|sealing| sealing.full.committing)
    }
}

impl PartitionLog {
    /// The active segment takes no more.
    pub(super) fn begin_seal(&mut self, now: Duration) {
        let Some(full) = self.active.take() else { return };
        assert!(!full.tail.is_empty(), "an empty segment is never sealed");
        let files = self.state_caches();
        let unsynced_since = self.unsynced_since.take();
        let retired = false;
        self.seals.queue.push_back(Sealing {
            full,
            files,
            full_since: now,
            unsynced_since,
            retired,
        });
        self.shared.set_active_age(None);
        self.dir.segment_closed();
    }

    /// When the next step of the oldest one is due. A sync that nobody waits for is put off: it would
    /// only hold up the appends beside it.
    pub(super) fn seal_deadline(&self) -> Option<Duration> {
        let leaves = self.orders.wants_removal() || self.dir.latch.is_closed();
        let front = self.seals.queue.front().filter(|_| !leaves && !self.seals.are_busy())?;
        self.manifest.segment(front.base())?;
        if front.is_durable() {
            let stuck = self.stopped.is_some() || self.seals.no_space;
            return (!stuck && self.is_stated_full(front.base())).then_some(Duration::ZERO);
        }
        Some(self.sync_deadline())
    }

    /// When full segments are to be synced.
    pub(super) fn sync_deadline(&self) -> Duration {
        let Some(front) = self.seals.queue.front() else { return Duration::ZERO };
        let delay = front.full_since + self.dir.options.seal_delay_max;
        match self.options.durability {
            _ if self.is_seal_wanted() => Duration::ZERO,
            Durability::Fsync => Duration::ZERO,
            Durability::Os => delay,
            Durability::Interval { ms } => {
                let since = front.unsynced_since.unwrap_or(front.full_since);
                delay.min(since + Duration::from_millis(u64::from(ms)))
            }
        }
    }

    /// Whether somebody waits for durable data of full segments, or as many as may wait do.
    fn is_seal_wanted(&self) -> bool {
        self.seals.queue.len() >= (self.dir.options.sealing_segments_max / 2).max(1)
            || self.seals.are_retiring()
            || self.acks.wanted().is_some()
            || self.orders.wants_commit(self.durable_end())
            || self.stopped.is_some()
    }

    /// The next step of the oldest one, when it is due.
    pub(super) fn start_seal(&mut self, round: &mut Round<'_>) {
        if self.seal_deadline().is_none_or(|deadline| deadline > round.now) {
            return;
        }
        let Some(front) = self.seals.queue.front_mut() else { return };
        match front.full.open_file(&self.dir) {
            Err(e) if self.stopped.is_none() => self.stop(&e),
            Err(_) => {}
            Ok(file) if front.is_durable() => {
                let (base, footer) = (front.full.segment.base_offset, front.full.footer());
                let caches = self.seal_caches();
                let on_full = match self.seals.are_retiring() {
                    true => OnFull::SpendReserve,
                    false => self.on_full(),
                };
                self.seals.in_flight = true;
                let work = SealWork { file, base, footer, caches, on_full };
                self.send(Work::Seal(Box::new(work)), round);
            }
            Ok(file) => {
                front.full.committing = true;
                let (base, tail) = (front.full.segment.base_offset, front.full.tail);
                let (slot, index, short, issued) = (None, None, false, round.now);
                let work = Commit { base, file, slot, tail, index, short, issued };
                self.send(Work::Commit(work), round);
            }
        }
    }

    pub(super) fn finish_seal(&mut self, work: SealWork, result: Result<(), Fault>) {
        self.seals.in_flight = false;
        match result {
            Ok(()) => {
                self.snapshots_written(&work.caches);
                let Some(Sealing { full, .. }) = self.seals.queue.pop_front() else { return };
                full.segment.write().visible = Border::of(&full.tail);
                self.seals.sealed.push((full.segment, work.footer));
            }
            Err(Fault::NoSpace(e)) => {
                tracing::debug!("segment {} of {} has no footer: {e}", work.base, self.shared.id);
                self.seals.no_space = true;
            }
            Err(fault) => self.fault(fault),
        }
    }

    /// The manifest in memory learns what is sealed; the next one that is written says so.
    pub(super) fn note_sealed(&mut self) {
        for (segment, footer) in self.seals.sealed.drain(..) {
            self.manifest.seal(segment.base_offset, &footer);
            segment.seal(footer);
            self.seals.unstated = true;
        }
    }

    /// Whether as many wait as may. One that finds no space for its footer is told to whoever needs
    /// another segment.
    pub(super) fn is_seal_awaited(&mut self) -> bool {
        if self.seals.queue.len() < self.sealing_max() {
            return false;
        }
        if std::mem::take(&mut self.seals.no_space) {
            let needed = self.backlog.front().map_or(0, |append| append.size_bytes());
            let error = self.disk_full(needed);
            self.refuse_backlog(&error);
        }
        true
    }

    /// How many may be full and not sealed.
    pub(super) fn sealing_max(&self) -> usize {
        self.dir.options.sealing_segments_max.max(1)
    }

    /// The first offset behind durable data in full segments, while some of theirs is not.
    pub(super) fn durable_end_of_seals(&self) -> Option<Offset> {
        let waits = self.seals.queue.iter().find(|sealing| !sealing.is_durable());
        waits.map(|sealing| sealing.full.durable.next_offset)
    }

    /// Readers of an `fsync` topic see of full segments what is durable.
    pub(super) fn show_durable_seals(&self) {
        for Sealing { full, .. } in &self.seals.queue {
            full.show_durable();
            if full.durable.position < full.tail.position {
                return;
            }
        }
    }

    /// What the state was when the oldest was full, and its index.
    fn seal_caches(&self) -> Caches {
        let Some(front) = self.seals.queue.front() else { return Caches::default() };
        let snapshot = front.full.tail.next_offset;
        let mut files = front.files.clone();
        files.extend(self.index_cache(&front.full));
        self.caches_at(files, snapshot)
    }
}
