//! One partition as everybody but its writer sees it: published ends, readable segments, a queue
//! to write to. Cheap to clone, usable from any thread.
//!
//! # Invariants
//! `log_start <= visible_end <= log_end` and `durable_end <= log_end`; each of them only grows.
//! Bytes below `log_end` never change. A partition that never had an append has no files and costs
//! this struct alone.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::admin::{AdminCommand, AdminTicket, Reply};
use super::append::Append;
use super::dir::DirShared;
use super::epochs::Epochs;
use super::error::{AppendError, ReadError};
use super::options::PartitionOptions;
use super::queue::{Command, WriterQueue};
use super::reader::{ReadPlan, ReadRequest};
use super::recovery::Finding;
use super::segment::Segment;
use crate::env::Clock;
use crate::types::{LeaderEpoch, Offset, PartitionHealth, Timestamp, TopicPartition};

/// The ends of a partition at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// First offset that may be read.
    pub start: Offset,
    /// First offset that may not be read yet.
    pub visible_end: Offset,
    /// First offset that was not handed out yet.
    pub log_end: Offset,
    /// First offset that no `fdatasync` covers.
    pub durable_end: Offset,
}

/// A sealed segment, for those who decide what may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset behind its last record.
    pub next_offset: Offset,
    /// Bytes of its file.
    pub bytes: u64,
    /// When its last record was appended.
    pub max_append_time: Timestamp,
    /// From when on its age counts for retention.
    pub age_from: Timestamp,
}

/// A partition's handle.
#[derive(Clone)]
pub struct Partition {
    pub(crate) shared: Arc<PartitionShared>,
}

/// What the writer publishes and readers read.
pub(crate) struct PartitionShared {
    pub(crate) id: TopicPartition,
    /// Its name among the partitions open in this process.
    pub(crate) key: u32,
    pub(crate) dir: Arc<DirShared>,
    pub(crate) queue: Arc<WriterQueue>,
    log_start: AtomicI64,
    visible_end: AtomicI64,
    log_end: AtomicI64,
    durable_end: AtomicI64,
    leader_epoch: AtomicI32,
    bytes: AtomicU64,
    /// From when on the age of the active segment counts; `i64::MAX` without records in it.
    active_age_from: AtomicI64,
    /// Retention keeps what is at or above it; `i64::MAX` = nobody asks for that.
    protected: AtomicI64,
    /// Appends are taken.
    open: AtomicBool,
    /// Reads and waits are over.
    closed: AtomicBool,
    /// `None` = writable.
    health: ArcSwapOption<PartitionHealth>,
    options: ArcSwap<PartitionOptions>,
    segments: ArcSwapOption<Vec<Arc<Segment>>>,
    epochs: Mutex<Epochs>,
    visible: Notify,
    findings: OnceLock<Vec<Finding>>,
}

impl Partition {
    /// The clock of its data directory.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.dir.env.clock
    }

    /// Which partition it is.
    pub fn id(&self) -> TopicPartition {
        self.shared.id
    }

    /// Which of the data directory's writers appends to it.
    pub fn writer(&self) -> usize {
        self.shared.queue.number()
    }

    /// Its ends. Each is exact; together they are from about the same moment.
    pub fn offsets(&self) -> Offsets {
        self.shared.offsets()
    }

    /// Whether it takes writes.
    pub fn health(&self) -> PartitionHealth {
        self.shared.health()
    }

    /// A file that belongs to it, and is not storage's own, could not be synced: final for the data
    /// directory, as any failed sync is.
    pub fn sync_failed(&self, error: &std::io::Error) {
        self.shared.dir.latch(&format!("beside partition {}: {error}", self.shared.id));
    }

    /// What recovery found and did when it was opened, in order.
    pub fn findings(&self) -> &[Finding] {
        self.shared.findings.get().map_or(&[], Vec::as_slice)
    }

    /// Its leader epoch.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.shared.leader_epoch.load(Ordering::Acquire))
    }

    /// Bytes of its segments.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// Number of its segments.
    pub fn segment_count(&self) -> usize {
        self.shared.segments().map_or(0, |segments| segments.len())
    }

    /// Whether it has files.
    pub fn is_materialised(&self) -> bool {
        self.segment_count() > 0
    }

    /// Its sealed segments, oldest first: what `trim` to a `next_offset` would free.
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        let segments = self.shared.segments();
        let segments = segments.as_deref().map_or(&[][..], Vec::as_slice);
        segments.iter().filter_map(|segment| segment.sealed_summary()).collect()
    }

    /// Queues a batch. Never blocks: when the writer's queue is full the batch is given back.
    ///
    /// # Errors
    /// The append itself, unanswered, when the queue is full.
    pub fn append(&self, append: Append) -> Result<(), Append> {
        self.queue(append, false)
    }

    /// [`Partition::append`] while more is about to follow: the writer is woken once it is worth
    /// it, or by [`super::LogDir::wake_writers`], which the caller promises to call.
    ///
    /// # Errors
    /// The append itself, unanswered, when the queue is full.
    pub fn append_more(&self, append: Append) -> Result<(), Append> {
        self.queue(append, true)
    }

    fn queue(&self, append: Append, more: bool) -> Result<(), Append> {
        if !self.shared.open.load(Ordering::Acquire) {
            append.done.done(Err(AppendError::Closed));
            return Ok(());
        }
        self.shared.queue.append(&self.shared, append, more)
    }

    /// Decides what a read returns: whole batches from the one that holds `request.from` on, below
    /// the visible end. Reads nothing but memory; an empty plan is one at the visible end.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `Corrupt` (the offset lies in a damaged range), `Closed`.
    pub fn plan_read(&self, request: ReadRequest) -> Result<ReadPlan, ReadError> {
        ReadPlan::build(&self.shared, request)
    }

    /// The first batch with a record at or after `at`: its base offset and largest timestamp.
    /// Exact to the batch: the caller looks for the record in it. May read from disk: not for a
    /// thread of an async runtime.
    ///
    /// # Errors
    /// `Io`, `Closed`.
    pub fn offset_at(&self, at: Timestamp) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        super::reader::offset_at(&self.shared, at)
    }

    /// Waits until the visible end is beyond `offset` and returns it; `None` when the partition was
    /// closed. Does not poll; dropping the future forgets the wait.
    pub async fn wait_visible(&self, beyond: Offset) -> Option<Offset> {
        loop {
            // Made before the look: a change after the look wakes it.
            let changed = self.shared.visible.notified();
            if self.shared.is_closed() {
                return None;
            }
            let end = self.shared.offsets().visible_end;
            if end > beyond {
                return Some(end);
            }
            changed.await;
        }
    }

    /// The largest epoch not above `epoch`, and the offset behind its last visible record: Kafka's
    /// OffsetForLeaderEpoch. `None` when every known epoch is above it.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let end = self.shared.offsets().visible_end;
        self.shared.epochs().end_offset(epoch, end)
    }

    /// Makes everything before `before` unreadable and frees the segments that lie wholly below.
    /// Ready when that is durable, with the new log start.
    pub fn trim(&self, before: Offset) -> AdminTicket<Offset> {
        self.order(|reply| AdminCommand::Trim { before, reply })
    }

    /// Obeys other settings from the next round on.
    pub fn set_options(&self, options: Arc<PartitionOptions>) {
        let command = AdminCommand::Options(options);
        self.shared.queue.command(Command::Admin(Arc::clone(&self.shared), command));
    }

    /// Seals the active segment at the next append, if it holds anything.
    pub fn roll(&self) -> AdminTicket<()> {
        self.order(|reply| AdminCommand::Roll { reply })
    }

    /// Lets go now what is past retention. An active segment whose every record is past retention by
    /// time goes too, without an append: sealed with nothing behind it, then removed. Comes back at
    /// once; costs nothing where there are no segments.
    pub fn reclaim(&self) {
        if self.is_materialised() {
            let command = Command::Admin(Arc::clone(&self.shared), AdminCommand::Reclaim);
            self.shared.queue.command(command);
        }
    }

    /// Keeps segments with records at or above `from` from every retention, by time and by size, and
    /// from [`Partition::reclaim`]; `None` takes that back. Binds neither [`Partition::trim`] nor a
    /// deletion, and is forgotten at the end of the process. To be called as often as it moves.
    pub fn protect(&self, from: Option<Offset>) {
        self.shared.protected.store(from.map_or(i64::MAX, |from| from.0), Ordering::Release);
    }

    /// What [`Partition::protect`] was told last.
    pub fn protected(&self) -> Option<Offset> {
        self.shared.protected()
    }

    /// When retention by time ends for the oldest segment; `None` when it is kept for ever, or there
    /// is none.
    pub fn retention_edge(&self) -> Option<Timestamp> {
        let limit = self.shared.options.load().retention?;
        let oldest = || self.shared.active_age_from.load(Ordering::Acquire);
        let from = self.first_sealed().map_or_else(oldest, |segment| segment.age_from.0);
        let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        (from < i64::MAX).then(|| Timestamp(from.saturating_add(limit_ms).saturating_add(1)))
    }

    /// Its oldest sealed segment.
    fn first_sealed(&self) -> Option<SealedSegment> {
        self.shared.segments()?.first()?.sealed_summary()
    }

    /// Makes everything durable and writes a clean slot: a start after it scans nothing.
    pub fn checkpoint(&self) -> AdminTicket<()> {
        self.order(|reply| AdminCommand::Checkpoint { reply })
    }

    /// Checkpoints and then takes no more, reads neither.
    pub fn close(&self) -> AdminTicket<()> {
        self.shared.open.store(false, Ordering::Release);
        self.order(|reply| AdminCommand::Close { reply })
    }

    /// Takes no more and removes all files. The caller has made the topic's end durable before.
    pub fn delete(&self) -> AdminTicket<()> {
        self.shared.open.store(false, Ordering::Release);
        self.order(|reply| AdminCommand::Delete { reply })
    }

    /// Bytes and batches that wait for its writer, which it shares with other partitions.
    pub fn queue_depth(&self) -> (usize, usize) {
        self.shared.queue.depth()
    }

    fn order<T>(&self, command: impl FnOnce(Reply<T>) -> AdminCommand) -> AdminTicket<T> {
        let (reply, ticket) = Reply::new();
        self.shared.queue.command(Command::Admin(Arc::clone(&self.shared), command(reply)));
        ticket
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("id", &self.shared.id)
            .field("offsets", &self.offsets())
            .finish_non_exhaustive()
    }
}

impl PartitionShared {
    /// A partition without files.
    pub(crate) fn new(
        id: TopicPartition,
        key: u32,
        dir: Arc<DirShared>,
        queue: Arc<WriterQueue>,
        options: Arc<PartitionOptions>,
    ) -> PartitionShared {
        PartitionShared {
            id,
            key,
            dir,
            queue,
            log_start: AtomicI64::new(0),
            visible_end: AtomicI64::new(0),
            log_end: AtomicI64::new(0),
            durable_end: AtomicI64::new(0),
            leader_epoch: AtomicI32::new(0),
            bytes: AtomicU64::new(0),
            active_age_from: AtomicI64::new(i64::MAX),
            protected: AtomicI64::new(i64::MAX),
            open: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            health: ArcSwapOption::empty(),
            options: ArcSwap::new(options),
            segments: ArcSwapOption::empty(),
            epochs: Mutex::default(),
            visible: Notify::new(),
            findings: OnceLock::new(),
        }
    }

    pub(crate) fn offsets(&self) -> Offsets {
        // Ends that must not pass others are read first.
        let start = Offset(self.log_start.load(Ordering::Acquire));
        let durable_end = Offset(self.durable_end.load(Ordering::Acquire));
        let visible_end = Offset(self.visible_end.load(Ordering::SeqCst));
        let log_end = Offset(self.log_end.load(Ordering::Acquire));
        Offsets { start: start.min(visible_end), visible_end, log_end, durable_end }
    }

    pub(crate) fn health(&self) -> PartitionHealth {
        self.health.load_full().map_or(PartitionHealth::Writable, |health| (*health).clone())
    }

    pub(crate) fn set_health(&self, health: PartitionHealth) {
        self.health.store(Some(Arc::new(health)));
    }

    pub(crate) fn options(&self) -> Arc<PartitionOptions> {
        self.options.load_full()
    }

    pub(crate) fn set_options(&self, options: Arc<PartitionOptions>) {
        self.options.store(options);
    }

    pub(crate) fn segments(&self) -> Option<Arc<Vec<Arc<Segment>>>> {
        self.segments.load_full()
    }

    /// Publishes another list of segments, and their bytes.
    pub(crate) fn set_segments(&self, segments: Vec<Arc<Segment>>) {
        self.bytes.store(segments.iter().map(|s| s.used_bytes()).sum(), Ordering::Release);
        self.segments.store(Some(Arc::new(segments)));
    }

    pub(crate) fn protected(&self) -> Option<Offset> {
        let protected = self.protected.load(Ordering::Acquire);
        (protected < i64::MAX).then_some(Offset(protected))
    }

    /// The age of the active segment counts from here; `None` without records in it.
    pub(crate) fn set_active_age(&self, from: Option<Timestamp>) {
        self.active_age_from.store(from.map_or(i64::MAX, |from| from.0), Ordering::Release);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn set_log_start(&self, start: Offset) {
        self.log_start.store(start.0, Ordering::Release);
    }

    pub(crate) fn set_log_end(&self, end: Offset) {
        self.log_end.store(end.0, Ordering::Release);
    }

    pub(crate) fn set_durable_end(&self, end: Offset) {
        self.durable_end.store(end.0, Ordering::Release);
    }

    /// Moves the visible end and wakes those who wait for it. The segments' own visible ends have
    /// been moved before.
    pub(crate) fn set_visible_end(&self, end: Offset) {
        self.visible_end.store(end.0, Ordering::SeqCst);
        self.visible.notify_waiters();
    }

    pub(crate) fn set_leader_epoch(&self, epoch: LeaderEpoch) {
        self.leader_epoch.store(epoch.0, Ordering::Release);
    }

    pub(crate) fn set_findings(&self, findings: Vec<Finding>) {
        // A partition is recovered once.
        let _ = self.findings.set(findings);
    }

    pub(crate) fn epochs(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// From now on appends and reads are refused, and waits end.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        self.visible.notify_waiters();
    }
}
