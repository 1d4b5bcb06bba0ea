//! The log of one partition: a machine with a single owner, stepped round by round. It never waits:
//! it appends from its backlog, and hands out jobs for everything that may take the device's time.
//!
//! A step does, in this order: refuse what can never be done, append what can be appended now,
//! start at most one job on the manifest or the active file, one that makes the next segment, and one
//! on the full segments before it. A finished job is brought back by `finish`; then the machine is
//! stepped again. The simulator does the same without threads.
//!
//! Deliberately absent: threads, locks held over I/O, knowledge of other partitions.
//!
//! # Invariants
//! - One job at a time writes a file's header, one the manifest: one `fdatasync` in flight per file,
//!   each slot states what the one before covered.
//! - `active.durable.position <= active.tail.position <= active.allocated`.
//! - No batch is written while the synced slot is clean or its lease does not cover the offsets.

mod adopt;
mod append_round;
mod commit_round;
mod naming;
mod orders;
mod retire;
mod roll;
mod seal;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::admin::AdminCommand;
use super::append::Append;
use super::commit::PendingAcks;
use super::dir::DirShared;
use super::error::AppendError;
use super::job::{Caches, Outcome, SyncDone, SyncJob, Work};
use super::layout::PartitionPaths;
use super::manifest::Manifest;
use super::options::PartitionOptions;
use super::partition::PartitionShared;
use super::producer_state::ProducerState;
use super::segment::Segment;
use super::slot::{Slot, SlotPlace};
use super::tail::SegmentTail;
use crate::env::File;
use crate::types::{LeaderEpoch, Offset, Timestamp};

use append_round::Staging;
use naming::Naming;
use orders::Orders;
use seal::Seals;

/// The moment of a step, and where its jobs go.
pub(crate) struct Round<'a> {
    /// Monotonic time.
    pub now: Duration,
    /// Wall time.
    pub wall: Timestamp,
    pub jobs: &'a mut Vec<SyncJob>,
}

/// The log of one partition.
pub(crate) struct PartitionLog {
    shared: Arc<PartitionShared>,
    dir: Arc<DirShared>,
    paths: Arc<PartitionPaths>,
    options: Arc<PartitionOptions>,
    manifest: Manifest,
    producers: ProducerState,
    epoch: LeaderEpoch,
    /// The offset of the next record.
    next: Offset,
    active: Option<Active>,
    seals: Seals,
    backlog: VecDeque<Append>,
    blocked: Option<Blocked>,
    staging: Staging,
    acks: PendingAcks,
    orders: Orders,
    /// The job that has the manifest.
    in_flight: bool,
    /// That job writes a clean slot: nothing is appended until it is back.
    checkpointing: bool,
    /// The file of the next segment is being made.
    creating: bool,
    naming: Naming,
    extending: bool,
    cleanup: CleanupState,
    /// Producers as they were when the index was last written on: how a snapshot of them is doing.
    snapshot: SnapshotState,
    /// Why nothing is appended any more.
    stopped: Option<AppendError>,
    /// Snapshots that are on disk, oldest first.
    snapshots: Vec<Offset>,
    last_append: Duration,
    /// What the writer will wake it for.
    timer: Option<Duration>,
    /// When the oldest write that is not synced was made.
    unsynced_since: Option<Duration>,
}

/// The segment that takes appends.
struct Active {
    segment: Arc<Segment>,
    /// Closed while nothing is unsynced and other files are needed more.
    file: Option<Arc<dyn File>>,
    allocated: u64,
    tail: SegmentTail,
    /// What the last `fdatasync` covered.
    durable: SegmentTail,
    /// The slot that was synced last, and where.
    slot: Slot,
    place: SlotPlace,
    max_append_time: Timestamp,
    epoch: LeaderEpoch,
    /// While no manifest names it: below this the offsets are promised by a slot that was synced.
    unnamed: Option<Offset>,
    /// A commit is in flight.
    committing: bool,
    indexed: Indexed,
}

/// How far the active segment's index file was written.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    entries: usize,
    /// Where the data ended then.
    position: u64,
}

/// Why the first batch of the backlog has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocked {
    /// Another segment must be made first.
    Segment,
    /// A slot that is not clean and promises more offsets must be synced first.
    Lease,
    /// Space is being allocated.
    Extend,
}

/// A snapshot of the producers beside appends.
#[derive(Default)]
enum SnapshotState {
    #[default]
    Idle,
    Wanted(Caches),
    InFlight,
}

/// Segments whose files are to be removed.
#[derive(Default)]
struct CleanupState {
    in_flight: bool,
    /// The manifest says `deleting`.
    pending: Vec<Offset>,
    /// The files are gone; the manifest forgets them when no job holds it.
    gone: Vec<Offset>,
    /// They could not be removed; tried again later.
    failed: Vec<Offset>,
}

impl CleanupState {
    fn retry(&mut self) {
        self.pending.append(&mut self.failed);
    }
}

impl PartitionLog {
    /// The log of a partition without files.
    pub(crate) fn new(shared: Arc<PartitionShared>) -> PartitionLog {
        let dir = Arc::clone(&shared.dir);
        let manifest = Manifest::new(dir.cluster_id, shared.id);
        let producers = ProducerState::new(dir.producer_limits());
        // What arrives for one that was closed or deleted is refused, and makes no files.
        let closed = shared.is_closed();
        PartitionLog {
            paths: Arc::new(PartitionPaths::new(shared.id)),
            options: shared.options(),
            manifest,
            producers,
            epoch: LeaderEpoch(0),
            next: Offset::ZERO,
            active: None,
            seals: Seals::default(),
            backlog: VecDeque::new(),
            blocked: None,
            staging: Staging::default(),
            acks: PendingAcks::default(),
            orders: Orders::new(closed),
            in_flight: false,
            checkpointing: false,
            creating: false,
            naming: Naming::default(),
            extending: false,
            cleanup: CleanupState::default(),
            snapshot: SnapshotState::default(),
            stopped: closed.then_some(AppendError::Closed),
            snapshots: Vec::new(),
            last_append: Duration::ZERO,
            timer: None,
            unsynced_since: None,
            shared,
            dir,
        }
    }

    /// Its name among the partitions of this process.
    pub(crate) fn key(&self) -> u32 {
        self.shared.key
    }

    /// Whether it was closed or deleted and can be dropped.
    pub(crate) fn is_finished(&self) -> bool {
        let settled = !self.is_busy() && !self.cleanup.in_flight;
        self.orders.finished && settled && !self.orders.wants_removal()
    }

    /// Takes a batch into the backlog; the next step appends it.
    pub(crate) fn enqueue(&mut self, append: Append) {
        self.backlog.push_back(append);
    }

    /// Takes an order; the next step carries it out or starts it.
    pub(crate) fn order(&mut self, command: AdminCommand) {
        if let AdminCommand::Options(options) = &command {
            self.options = Arc::clone(options);
            self.shared.set_options(Arc::clone(options));
            return;
        }
        self.orders.take(command);
    }

    /// Does what can be done now.
    pub(crate) fn step(&mut self, round: &mut Round<'_>) {
        self.refuse_after_fault();
        if self.orders.finished && !self.orders.wants_removal() {
            // Its files may be gone: nothing is asked of them any more.
            return self.orders.refuse_closed();
        }
        self.append_backlog(round);
        self.catch_up_manifest();
        self.reclaim(round);
        self.start_job(round);
    }

    /// Takes a finished job back. The next step goes on from there.
    pub(crate) fn finish(&mut self, done: SyncDone, round: &mut Round<'_>) {
        match done.outcome {
            Outcome::Commit(commit, result) => self.finish_commit(commit, result, round),
            Outcome::Create(work, result) => self.finish_create(*work, result, round),
            Outcome::Name(work, result) => self.finish_naming(*work, result),
            Outcome::Seal(work, result) => self.finish_seal(*work, result),
            Outcome::Trim(trim, result) => self.finish_trim(*trim, result),
            Outcome::Checkpoint(work, result) => self.finish_checkpoint(*work, result, round),
            Outcome::Cleanup(cleanup, result) => self.finish_cleanup(cleanup, result),
            Outcome::Extend(to, result) => self.finish_extend(to, result),
            Outcome::Caches(work, result) => self.finish_snapshot(&work, result),
            Outcome::Remove(result) => self.finish_remove(result),
        }
    }

    /// When it wants to be stepped though nothing arrives.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if self.in_flight || self.is_committing() || self.stopped.is_some() {
            return None;
        }
        let commit = self.commit_deadline();
        let quiet = self.quiet_deadline();
        let full = self.naming_deadline().into_iter().chain(self.seal_deadline());
        commit.into_iter().chain(quiet).chain(full).min()
    }

    /// Asks to be woken at `deadline`, unless an earlier call is due anyway: it asks again then.
    pub(crate) fn set_timer(&mut self, deadline: Duration, timers: &mut BTreeSet<(Duration, u32)>) {
        if self.timer.is_some_and(|timer| timer <= deadline) {
            return;
        }
        if let Some(later) = self.timer.replace(deadline) {
            timers.remove(&(later, self.key()));
        }
        timers.insert((deadline, self.key()));
    }

    /// It was woken.
    pub(crate) fn timer_fired(&mut self) {
        self.timer = None;
    }

    fn start_job(&mut self, round: &mut Round<'_>) {
        if !self.in_flight && !self.dir.latch.is_closed() {
            if let Some(work) = self.next_work(round) {
                self.send(work, round);
            }
            self.start_cleanup(round);
        }
        self.start_create(round);
        self.start_snapshot(round);
        self.extend_ahead(round);
        self.start_seal(round);
        self.finish_orders();
    }

    fn next_work(&mut self, round: &Round<'_>) -> Option<Work> {
        let work = None.or_else(|| self.removal_work()).or_else(|| self.naming_work(round));
        self.in_flight = work.is_some();
        if work.is_some() || self.is_committing() {
            return work;
        }
        let commit = self.commit_work(round);
        if commit.is_some() {
            return commit;
        }
        let work = None.or_else(|| self.trim_work()).or_else(|| self.checkpoint_work(round));
        self.in_flight = work.is_some();
        work
    }

    fn is_committing(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.committing)
    }

    /// Whether a job uses a segment or the manifest.
    fn is_busy(&self) -> bool {
        self.in_flight
            || self.creating
            || matches!(self.snapshot, SnapshotState::InFlight)
            || self.extending
            || self.is_committing()
            || self.seals.are_busy()
    }

    /// What happened to segments beside the job that held the manifest.
    fn catch_up_manifest(&mut self) {
        if !self.in_flight {
            self.forget_removed_segments();
            self.note_sealed();
        }
    }

    fn send(&self, work: Work, round: &mut Round<'_>) {
        round.jobs.push(SyncJob { key: self.key(), dir: Arc::clone(&self.dir), work });
    }

    /// The latch closes once for all; then nothing waits any more.
    fn refuse_after_fault(&mut self) {
        if let Some(cause) = self.dir.latch.cause() {
            let error = AppendError::Latched { cause: cause.to_owned() };
            self.acks.refuse(&error);
            self.orders.refuse_latched(cause);
            self.stopped = Some(error);
        }
        if let Some(error) = self.stopped.clone() {
            self.refuse_backlog(&error);
        }
    }

    fn refuse_backlog(&mut self, error: &AppendError) {
        self.blocked = None;
        let backlog = std::mem::take(&mut self.backlog);
        let bytes = backlog.iter().map(Append::size_bytes).sum();
        self.shared.queue.release(bytes, backlog.len());
        for append in backlog {
            append.done.done(Err(error.clone()));
        }
    }

    /// A device error: the partition is read-only until the next start.
    fn stop(&mut self, error: &std::io::Error) {
        let cause = error.to_string();
        tracing::error!("partition {} is read-only: {cause}", self.shared.id);
        self.shared.set_health(crate::types::PartitionHealth::ReadOnly { cause: cause.clone() });
        self.stopped = Some(AppendError::ReadOnly { cause });
        self.refuse_after_fault();
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        // Whoever still waits is told, whatever the reason.
        self.refuse_backlog(&AppendError::Closed);
        self.acks.refuse(&AppendError::Closed);
        if self.active.is_some() {
            self.dir.segment_closed();
        }
    }
}
