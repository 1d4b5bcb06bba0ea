//! The broker's own logs (catalog, groups, producer ids): the same engine as user data, always
//! fsync, read back through a pure machine (DESIGN section 7, seam 4).
//!
//! # Promises
//! - Nothing changes the machine before the record that says so is durable: `commit` appends, waits
//!   for the ticket, then applies.
//! - Opening applies the newest whole snapshot and every record after it, in order.
//! - The log is bounded: after `snapshot_bytes` a snapshot is stored and what lies below the one
//!   before it is trimmed.
//!
//! A future of `commit` must be driven to its end: dropped half-way, the record may be durable and
//! not applied. The callers run it in tasks of their own.

mod snapshot;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tracing::{error, warn};

use self::snapshot::Snapshots;
use super::encoding;
use super::error::{CommitError, OpenError};
use super::flow::busy;
use crate::env::{Disk, Env};
use crate::record::{
    BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, DecodeLimits, PushError, RecordRef,
    Records,
};
use crate::storage::{
    Append, AppendError, Appended, Fault, LogDir, Materialised, Partition, PartitionOptions,
    ReadRequest,
};
use crate::types::{
    Acks, Durability, Offset, PartitionId, Pushback, PushbackCode, PushbackScope, TimestampType,
    TopicId, TopicPartition,
};

/// State that is the sum of its records.
pub trait Machine: Default + Send + 'static {
    /// One change.
    type Record: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Makes a change. Deterministic, and total: any record may follow any other.
    fn apply(&mut self, record: &Self::Record);

    /// Records that, applied to the default, make this state.
    fn snapshot(&self) -> Vec<Self::Record>;
}

/// Largest batch of an internal log: many small records, or one large.
const BATCH_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 1 << 20;
/// A full queue of a log writer empties within a round or two; then the commit is refused.
const QUEUE_TRIES: u32 = 500;
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// A segment is at least this large, however small the snapshots are.
const SEGMENT_BYTES_MIN: u64 = 16 << 10;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// Which internal log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalId {
    /// Name of its snapshots, and in messages.
    pub name: &'static str,
    /// Last byte of its reserved topic id; 0 to 15 are taken by `ALL_INTERNAL`.
    number: u8,
}

impl InternalId {
    /// Topics and their settings.
    pub const CATALOG: InternalId = InternalId { name: "catalog", number: 1 };
    /// Consumer groups and committed offsets.
    pub const GROUPS: InternalId = InternalId { name: "groups", number: 2 };
    /// Blocks of producer ids.
    pub const PRODUCERS: InternalId = InternalId { name: "producers", number: 3 };
    /// All of them.
    pub const ALL: [InternalId; 3] =
        [InternalId::CATALOG, InternalId::GROUPS, InternalId::PRODUCERS];

    /// The reserved topic id: version 8 (RFC 9562, vendor-specific), so it never meets a topic's,
    /// which has version 7.
    pub fn topic(self) -> TopicId {
        let mut bytes = *b"stoplog\0\x80log\0\0\0\0";
        bytes[6] = 0x80;
        bytes[15] = self.number;
        TopicId::from_bytes(bytes)
    }

    /// Its only partition.
    pub fn partition(self) -> TopicPartition {
        TopicPartition { topic: self.topic(), partition: PartitionId(0) }
    }
}

/// The newest whole snapshot of a log and the offset behind it, without opening the log.
pub(super) fn newest_snapshot(
    disk: &dyn Disk,
    id: InternalId,
) -> io::Result<Option<(Offset, Vec<u8>)>> {
    if !disk.exists(Path::new(snapshot::DIRECTORY))? {
        return Ok(None);
    }
    Snapshots::open(disk, id.name)?.newest(disk)
}

/// An internal log and its machine.
pub struct InternalLog<M: Machine> {
    id: InternalId,
    env: Env,
    partition: Partition,
    machine: M,
    snapshots: Option<Snapshots>,
    snapshot_bytes: u64,
    bytes_since_snapshot: u64,
}

/// A batch on its way, and which of the records it holds.
struct Pending {
    records: Range<usize>,
    bytes: u64,
    answer: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl<M: Machine> InternalLog<M> {
    /// Opens the log and replays it. Blocks on the disk: not for a thread of an async runtime.
    pub fn open(
        id: InternalId,
        storage: &LogDir,
        env: &Env,
        snapshot_bytes: u64,
    ) -> Result<InternalLog<M>, OpenError> {
        let damaged = |cause: String| OpenError::InternalLog { log: id.name, cause };
        let snapshots = Snapshots::open(env.disk.as_ref(), id.name)
            .map_err(|e| damaged(format!("snapshots: {e}")))?;
        let known = if snapshots.exist() { Materialised::Yes } else { Materialised::Unknown };
        let partition = storage.partition(
            id.partition(),
            Arc::new(partition_options(snapshot_bytes)),
            known,
        )?;
        let newest = snapshots.newest(env.disk.as_ref());
        let mut log = InternalLog {
            id,
            env: env.clone(),
            partition,
            machine: M::default(),
            snapshots: Some(snapshots),
            snapshot_bytes,
            bytes_since_snapshot: 0,
        };
        let from = match newest.map_err(|e| damaged(format!("snapshots: {e}")))? {
            Some((next, payload)) => {
                let records: Vec<M::Record> = encoding::decode(&payload)
                    .map_err(|e| damaged(format!("snapshot {next}: {e}")))?;
                records.iter().for_each(|record| log.machine.apply(record));
                next
            }
            None => Offset::ZERO,
        };
        log.replay(from).map_err(damaged)?;
        Ok(log)
    }

    /// The state, up to the last committed record.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Whether nothing was ever committed.
    pub fn is_empty(&self) -> bool {
        self.partition.offsets().log_end == Offset::ZERO
    }

    /// Makes the records durable, in order, then applies them.
    ///
    /// # Errors
    /// Records of batches before the failed one are committed and applied; of the others nothing is
    /// applied. With [`CommitError::Latched`] the last batch may be found by the next start.
    pub async fn commit(&mut self, records: &[M::Record]) -> Result<(), CommitError> {
        let batches = self.batches(records)?;
        let mut pending = Vec::with_capacity(batches.len());
        let mut refused = None;
        for (range, batch) in batches {
            match self.append(range, batch).await {
                Ok(ticket) => pending.push(ticket),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        for ticket in pending {
            let appended = ticket.answer.await.unwrap_or(Err(AppendError::Closed));
            if let Err(error) = appended {
                return Err(commit_error(error));
            }
            let committed = records.get(ticket.records).unwrap_or_default();
            committed.iter().for_each(|record| self.machine.apply(record));
            self.bytes_since_snapshot += ticket.bytes;
        }
        self.bound().await;
        refused.map_or(Ok(()), Err)
    }

    /// Stores a snapshot and cuts the log when it has grown enough.
    async fn bound(&mut self) {
        if self.bytes_since_snapshot < self.snapshot_bytes {
            return;
        }
        // Also on a failure: the next try comes after as many bytes again.
        self.bytes_since_snapshot = 0;
        if let Err(cause) = self.store_snapshot().await {
            warn!("internal log {}: no snapshot: {cause}", self.id.name);
        }
    }

    async fn store_snapshot(&mut self) -> Result<(), String> {
        let payload = encoding::encode(&self.machine.snapshot()).map_err(|e| e.to_string())?;
        let Some(mut snapshots) = self.snapshots.take() else { return Ok(()) };
        let next = self.partition.offsets().log_end;
        let disk = Arc::clone(&self.env.disk);
        let store = move || {
            let stored = snapshots.store(disk.as_ref(), next, &payload);
            (snapshots, stored)
        };
        let (snapshots, stored) =
            tokio::task::spawn_blocking(store).await.map_err(|e| e.to_string())?;
        let cut = snapshots.cut();
        self.snapshots = Some(snapshots);
        stored.map_err(|fault| {
            if let Fault::Sync(error) = &fault {
                self.partition.sync_failed(error);
            }
            fault.to_string()
        })?;
        let Some(cut) = cut else { return Ok(()) };
        self.partition.trim(cut).await.map(|_| ()).map_err(|e| e.to_string())
    }

    /// The records as batches. Nothing is appended when one of them is too large.
    fn batches(&self, records: &[M::Record]) -> Result<Vec<(Range<usize>, Bytes)>, CommitError> {
        let options = BuilderOptions { bytes_max: BATCH_BYTES_MAX, ..BuilderOptions::default() };
        let timestamp = self.env.clock.now();
        let mut builder = BatchBuilder::new(options);
        let (mut batches, mut first) = (Vec::new(), 0);
        for (index, record) in records.iter().enumerate() {
            let too_large = |size| CommitError::TooLarge { size, limit: BATCH_BYTES_MAX };
            let value = encoding::encode(record).map_err(|_| too_large(usize::MAX))?;
            let record = RecordRef { timestamp, value: Some(&value), ..RecordRef::default() };
            let mut pushed = builder.push(&record);
            if pushed == Err(PushError::BatchFull) {
                let full = std::mem::replace(&mut builder, BatchBuilder::new(options));
                batches.push((first..index, full.build()));
                first = index;
                pushed = builder.push(&record);
            }
            pushed.map_err(|_| too_large(value.len()))?;
        }
        if !builder.is_empty() {
            batches.push((first..records.len(), builder.build()));
        }
        Ok(batches)
    }

    async fn append(&self, records: Range<usize>, batch: Bytes) -> Result<Pending, CommitError> {
        let bytes = batch.len() as u64;
        let limits = BatchLimits { attributes_refused: 0, ..BatchLimits::client(BATCH_BYTES_MAX) };
        let batch = CheckedBatch::check(batch, &limits);
        let batch = batch.expect("a batch that was just built is valid");
        let (told, answer) = oneshot::channel();
        let done = move |result| {
            let _ = told.send(result);
        };
        let mut append = Append::new(batch, Acks::Durable, Box::new(done));
        for _ in 0..QUEUE_TRIES {
            match self.partition.append(append) {
                Ok(()) => return Ok(Pending { records, bytes, answer }),
                Err(back) => append = back,
            }
            tokio::time::sleep(QUEUE_PAUSE).await;
        }
        append.done.done(Err(AppendError::Closed));
        let (queued, _) = self.partition.queue_depth();
        Err(CommitError::Pushback(busy(
            PushbackScope::Partition,
            "partition",
            queued as u64,
            0,
            1_000,
        )))
    }

    fn replay(&mut self, from: Offset) -> Result<(), String> {
        let ends = self.partition.offsets();
        if ends.start > from || ends.visible_end < from {
            return Err(format!(
                "the state ends at {from}, the log holds {} to {}",
                ends.start, ends.visible_end
            ));
        }
        let mut next = from;
        while next < ends.visible_end {
            let request = ReadRequest { from: next, max_bytes: READ_BYTES };
            let mut plan = self.partition.plan_read(request).map_err(|e| e.to_string())?;
            plan.populate().map_err(|e| e.to_string())?;
            let (after, bytes) = plan.extent().ok_or("a populated plan has an extent")?;
            if bytes == 0 {
                // A declared gap up to the end: offsets that a power cut skipped.
                break;
            }
            for piece in plan.owned().map_err(|e| e.to_string())? {
                self.apply_batches(piece, next)?;
            }
            self.bytes_since_snapshot += bytes as u64;
            next = after;
        }
        Ok(())
    }

    fn apply_batches(&mut self, mut bytes: Bytes, from: Offset) -> Result<(), String> {
        let limits = DecodeLimits::default();
        while let Some(batch) = Records::take_batch(&mut bytes, &limits) {
            for record in batch.map_err(|e| e.to_string())? {
                let record = record.map_err(|e| e.to_string())?;
                if record.offset < from {
                    continue;
                }
                let value = record.value.ok_or("a record without a value")?;
                let change: M::Record = encoding::decode(&value)
                    .map_err(|e| format!("record {}: {e}", record.offset))?;
                self.machine.apply(&change);
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err("a partial batch".to_owned()) }
    }
}

fn partition_options(snapshot_bytes: u64) -> PartitionOptions {
    PartitionOptions {
        durability: Durability::Fsync,
        segment_bytes: snapshot_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
        retention: None,
        retention_bytes: None,
        max_message_bytes: u32::try_from(BATCH_BYTES_MAX).unwrap_or(u32::MAX),
        timestamp_type: TimestampType::Create,
        internal: true,
        ..PartitionOptions::default()
    }
}

/// What a failed append of the broker's own record means to whoever asked for it.
fn commit_error(error: AppendError) -> CommitError {
    match error {
        AppendError::DiskFull { free, needed } => CommitError::Pushback(
            Pushback::hold(PushbackCode::DiskFull, PushbackScope::DataDir, "disk:full")
                .met(free, needed, "bytes free")
                .after_ms(1_000),
        ),
        AppendError::Closed => CommitError::Closed,
        AppendError::TooLarge { found, max } => CommitError::TooLarge { size: found, limit: max },
        AppendError::ReadOnly { cause } | AppendError::Latched { cause } => {
            CommitError::Latched { cause }
        }
        AppendError::OutOfOrderSequence { .. }
        | AppendError::DuplicateUnknown
        | AppendError::ProducerFenced { .. }
        | AppendError::Fenced { .. } => {
            error!("an internal log refused a record: {error}");
            CommitError::Latched { cause: error.to_string() }
        }
    }
}
