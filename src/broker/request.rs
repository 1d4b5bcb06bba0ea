//! What goes into the facade and what comes out. Plain data and two small traits; the front ends
//! translate it from and to their own protocols.

use std::time::Duration;

use bytes::Bytes;

use super::error::{FetchError, ProduceError};
use super::flow::{Cause, ConnectionFlow, FetchPermit, Standing};
use crate::types::{
    Acks, Class, DurabilityLevel, GroupId, Offset, PartitionId, ProducerEpoch, ProducerId,
    Timestamp, TopicConfig, TopicId, TopicName,
};

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct ProduceRequest {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionId,
    /// Exactly one RecordBatch version 2.
    pub batch: Bytes,
    /// What the answer waits for.
    pub acks: Acks,
    /// How long the caller waits for the answer from now on; `None` = as long as it takes.
    pub deadline: Option<Duration>,
    /// Whose share of the pool it takes, and whose quotas it is under; `None` in embedded use.
    pub connection: Option<ConnectionFlow>,
    /// Who gives way when there is not enough for all.
    pub class: Class,
    /// By what right its publisher sends it; `None` = it has no publisher.
    pub standing: Option<Standing>,
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Wall time of the append as the broker saw it.
    pub append_time: Timestamp,
    /// What it survives.
    pub level: DurabilityLevel,
    /// Whether it is a repeat that had been written before; the offsets are the first write's.
    pub duplicate: bool,
    /// First offset of the partition that can be read.
    pub log_start: Offset,
}

/// Where the outcome of a produce goes.
pub trait ProduceDone: Send + 'static {
    /// Called exactly once, on the caller's thread (a refusal) or a log writer's: it must neither
    /// block nor call back into the broker.
    fn done(self: Box<Self>, outcome: Result<Produced, ProduceError>);
}

impl<F: FnOnce(Result<Produced, ProduceError>) + Send + 'static> ProduceDone for F {
    fn done(self: Box<Self>, outcome: Result<Produced, ProduceError>) {
        self(outcome)
    }
}

/// How fetched bytes are handed out (DESIGN D2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Slices of the mapped segments, without a copy. For bytes that go only into a socket write:
    /// a disk error while they are touched is an error of that write.
    #[default]
    Mapped,
    /// Copies made by `pread`. For whatever is parsed in this process.
    Owned,
}

/// Records of many partitions at once.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// From where; at most `limits.fetch_partitions_max`.
    pub partitions: Vec<FetchPartition>,
    /// Most bytes of the answer. The first batch of the answer may exceed it.
    pub max_bytes: u32,
    /// Answer as soon as this many bytes are there.
    pub min_bytes: u32,
    /// Answer after this long in any case.
    pub max_wait: Duration,
    /// How the bytes are handed out.
    pub mode: ReadMode,
    /// Whose quotas it is under; `None` in embedded use.
    pub connection: Option<ConnectionFlow>,
    /// The group it is read for, when there is one: its quotas count too.
    pub group: Option<GroupId>,
}

/// Where to read in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionId,
    /// First offset wanted; the answer starts with the batch that holds it.
    pub from: Offset,
    /// Most bytes from this partition.
    pub max_bytes: u32,
}

/// The answer to a fetch.
#[derive(Debug)]
pub struct FetchResponse {
    /// One answer per asked partition, in the order of the request.
    pub partitions: Vec<FetchedPartition>,
    /// What kept the answer smaller than asked for, beside the end of the log.
    pub limited_by: Option<Cause>,
    /// Holds the bytes' place in the fetch pool; drop it when they are sent.
    pub permit: FetchPermit,
}

/// The answer for one partition.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: PartitionId,
    /// What was read.
    pub result: Result<Fetched, FetchError>,
}

/// Whole batches of one partition.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Batches back to back, possibly split into pieces at segment borders only. Records below the
    /// asked offset may come first, since batches are never split.
    pub data: Vec<Bytes>,
    /// The offset to ask for next.
    pub next_offset: Offset,
    /// First offset that can be read.
    pub start: Offset,
    /// First offset that could not be read yet.
    pub visible_end: Offset,
}

impl Fetched {
    /// Bytes of all pieces.
    pub fn size_bytes(&self) -> usize {
        self.data.iter().map(Bytes::len).sum()
    }
}

/// What to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The first offset that can be read.
    Earliest,
    /// The visible end.
    Latest,
    /// The first record at or after this time.
    AtTime(Timestamp),
}

/// What was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; the visible end when no record is that late.
    pub offset: Offset,
    /// The record's timestamp, for a look-up by time that found one.
    pub timestamp: Option<Timestamp>,
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions, at least 1.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
}

impl NewTopic {
    /// A topic with default settings.
    pub fn new(name: TopicName, partitions: u32) -> NewTopic {
        NewTopic { name, partitions, config: TopicConfig::default() }
    }
}

/// What an idempotent producer stamps into its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
}

/// How a broker is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Refuse new produce requests, wait for those under way, write clean marks.
    Graceful,
    /// Wait for nothing. What was acknowledged is safe; the next start recovers.
    AtOnce,
}
