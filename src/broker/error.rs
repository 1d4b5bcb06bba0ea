//! One error enum per operation, each with `kind()`: what the caller does about it. Deliberately
//! absent: wire codes, which the front ends choose in exhaustive matches of their own.

use thiserror::Error;

use crate::types::{
    ConfigError, ErrorKind, Offset, PartitionId, ProducerEpoch, Pushback, QuotaEntity, QuotaError,
    TopicName,
};

/// Why a broker did not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The data directory did not open; the cause says whether it is locked, foreign or damaged.
    #[error(transparent)]
    Storage(#[from] crate::storage::OpenError),
    /// An internal log or its snapshot cannot be read: starting would lose what it says.
    #[error("internal log {log}: {cause}")]
    InternalLog {
        /// Which one.
        log: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// There are topic directories but no catalog that names them.
    #[error("the data directory holds {directories} topics but its catalog is missing")]
    CatalogMissing {
        /// Directories that no catalog explains.
        directories: usize,
    },
    /// A setting does not fit another.
    #[error("{0}")]
    Options(String),
}

/// Why a record of an internal log was not committed. Nothing changed unless the text says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// Not now: the disk is full even for the broker's own records, or the broker drains.
    #[error("{0}")]
    Pushback(Pushback),
    /// The data directory takes no writes until a restart. The last record may have been written.
    #[error("the data directory takes no writes: {cause}")]
    Latched {
        /// The first cause.
        cause: String,
    },
    /// The record is larger than an internal log takes.
    #[error("the record has {size} bytes, {limit} are allowed")]
    TooLarge {
        /// Bytes of the record.
        size: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// The broker was shut down.
    #[error("the broker is closed")]
    Closed,
}

/// Why a quota was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuotaChangeError {
    /// The setting or its value does not fit.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// There is no quota of this entity.
    #[error("{entity} has no quota of its own{}", ruled(.by.as_ref()))]
    NotFound {
        /// The entity.
        entity: QuotaEntity,
        /// The quota that it is under nevertheless: that of `<default>`.
        by: Option<QuotaEntity>,
    },
    /// There are as many quotas as there may be.
    #[error("there are {limit} quotas already")]
    Limit {
        /// Most quotas.
        limit: u32,
    },
    /// The change could not be made durable.
    #[error("{0}")]
    Commit(#[from] CommitError),
}

fn ruled(by: Option<&QuotaEntity>) -> String {
    by.map_or_else(String::new, |by| format!(": it is under that of {by}"))
}

/// A change of a topic that is the broker's own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("topic {0} belongs to the broker, as do all names that begin with __: it can only be read")]
pub struct ReservedTopic(pub TopicName);

/// Refuses names that are the broker's own.
pub(super) fn refuse_reserved(name: &TopicName) -> Result<(), ReservedTopic> {
    if name.is_reserved() { Err(ReservedTopic(name.clone())) } else { Ok(()) }
}

/// Why a topic was not created.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CreateTopicError {
    /// The name is of the kind that the broker keeps for itself.
    #[error(transparent)]
    Reserved(#[from] ReservedTopic),
    /// The name is taken.
    #[error("topic {0} exists already")]
    Exists(TopicName),
    /// A topic has at least one partition.
    #[error("a topic needs at least one partition")]
    NoPartitions,
    /// A limit on topics or partitions is reached.
    #[error("{what} would be {wanted}, {limit} are allowed")]
    Limit {
        /// `topics` or `partitions`.
        what: &'static str,
        /// How many there would be.
        wanted: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Settings that do not fit each other.
    #[error("{0}")]
    Config(String),
    /// The catalog did not take the record.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a topic was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AlterTopicError {
    /// It is one of the broker's own.
    #[error(transparent)]
    Reserved(#[from] ReservedTopic),
    /// No such topic.
    #[error("no such topic")]
    NotFound,
    /// An unknown setting or a value that does not fit.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// Settings that do not fit each other.
    #[error("{0}")]
    Config(String),
    /// Partitions are never taken away.
    #[error("the topic has {has} partitions; {asked} would be fewer")]
    FewerPartitions {
        /// How many it has.
        has: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// A limit on partitions is reached.
    #[error("partitions would be {wanted}, {limit} are allowed")]
    Limit {
        /// How many there would be.
        wanted: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The catalog did not take the record.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a topic was not deleted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeleteTopicError {
    /// It is one of the broker's own.
    #[error(transparent)]
    Reserved(#[from] ReservedTopic),
    /// No such topic.
    #[error("no such topic")]
    NotFound,
    /// The catalog did not take the record.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProduceError {
    /// The topic is one of the broker's own.
    #[error(transparent)]
    Reserved(#[from] ReservedTopic),
    /// A limit refused it; the value says which, for how long and with what effects.
    #[error("{0}")]
    Pushback(Pushback),
    /// No such topic.
    #[error("no such topic")]
    TopicNotFound,
    /// The topic has no such partition.
    #[error("the topic has no partition {0}")]
    PartitionNotFound(PartitionId),
    /// The bytes are not one valid record batch.
    #[error("invalid batch: {reason}")]
    InvalidBatch {
        /// What is wrong.
        reason: String,
    },
    /// The batch is larger than the topic or a segment takes.
    #[error("the batch has {size} bytes, {limit} are allowed")]
    BatchTooLarge {
        /// Bytes of the batch.
        size: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// The sequence number is not the next one of this producer.
    #[error("sequence {found} where {expected} was expected")]
    OutOfOrderSequence {
        /// The next one.
        expected: i32,
        /// The one in the batch.
        found: i32,
    },
    /// A newer epoch of this producer wrote already.
    #[error("the producer was fenced by epoch {}", current.0)]
    ProducerFenced {
        /// The newest epoch.
        current: ProducerEpoch,
    },
    /// A repeat that is older than the remembered batches; it was written before.
    #[error("a repeat of a batch whose offset is not remembered")]
    DuplicateUnknown,
    /// The partition takes no writes after a device error.
    #[error("the partition is read-only: {cause}")]
    ReadOnly {
        /// The first cause.
        cause: String,
    },
    /// The data directory takes no writes until a restart.
    #[error("the data directory takes no writes: {cause}")]
    Latched {
        /// The first cause.
        cause: String,
    },
    /// Bytes below the durable mark are damaged; the partition takes no writes.
    #[error("the partition is fenced: {cause}")]
    Fenced {
        /// What is damaged.
        cause: String,
    },
    /// The broker was shut down, or the topic deleted, while the batch waited. It may have been
    /// written.
    #[error("closed while the batch waited")]
    Closed,
}

/// Why records were not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    /// No such topic.
    #[error("no such topic")]
    TopicNotFound,
    /// The topic has no such partition.
    #[error("the topic has no partition {0}")]
    PartitionNotFound(PartitionId),
    /// The offset is below the first kept or beyond the end.
    #[error("offset outside of [{start}, {end}]")]
    OffsetOutOfRange {
        /// First offset that can be read.
        start: Offset,
        /// First offset that cannot be read yet.
        end: Offset,
    },
    /// Stored records here are damaged.
    #[error("records from {first_bad} are damaged")]
    Corrupt {
        /// First offset that cannot be read.
        first_bad: Offset,
        /// First offset after it that can, when there is one.
        next_good: Option<Offset>,
    },
    /// The disk failed while reading.
    #[error("the disk failed while reading: {cause}")]
    Disk {
        /// What it said.
        cause: String,
    },
    /// The request names more partitions than one request may.
    #[error("{partitions} partitions in one request, {limit} are allowed")]
    TooManyPartitions {
        /// How many it names.
        partitions: usize,
        /// How many it may.
        limit: u32,
    },
    /// The broker was shut down or the topic deleted.
    #[error("closed")]
    Closed,
}

/// Why records were not trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrimError {
    /// No such topic.
    #[error("no such topic")]
    TopicNotFound,
    /// The topic has no such partition.
    #[error("the topic has no partition {0}")]
    PartitionNotFound(PartitionId),
    /// The offset lies beyond the visible end.
    #[error("offset beyond the end {end}")]
    OffsetOutOfRange {
        /// First offset that cannot be read yet.
        end: Offset,
    },
    /// The new start could not be made durable.
    #[error("the new start could not be made durable: {cause}")]
    Storage {
        /// What failed.
        cause: String,
    },
    /// The broker was shut down or the topic deleted.
    #[error("closed")]
    Closed,
}

/// Why no producer id was given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InitProducerError {
    /// The id was never given out by this broker.
    #[error("producer id {0} was never given out")]
    UnknownProducer(i64),
    /// The log of producer ids did not take the record.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl OpenError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OpenError::Storage(error) => match error {
                crate::storage::OpenError::Locked => ErrorKind::Closed,
                crate::storage::OpenError::Meta(_) | crate::storage::OpenError::AlreadyOpen(_) => {
                    ErrorKind::Invalid
                }
                crate::storage::OpenError::Missing(_)
                | crate::storage::OpenError::Recovery { .. } => ErrorKind::Corrupt,
                crate::storage::OpenError::Io(_) => ErrorKind::Internal,
            },
            OpenError::InternalLog { .. } | OpenError::CatalogMissing { .. } => ErrorKind::Corrupt,
            OpenError::Options(_) => ErrorKind::Invalid,
        }
    }
}

impl CommitError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CommitError::Pushback(_) => ErrorKind::Throttle,
            CommitError::Latched { .. } => ErrorKind::Internal,
            CommitError::TooLarge { .. } => ErrorKind::Invalid,
            CommitError::Closed => ErrorKind::Closed,
        }
    }
}

impl CreateTopicError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CreateTopicError::Reserved(_) => ErrorKind::Invalid,
            CreateTopicError::Exists(_) => ErrorKind::NotFound,
            CreateTopicError::NoPartitions
            | CreateTopicError::Limit { .. }
            | CreateTopicError::Config(_) => ErrorKind::Invalid,
            CreateTopicError::Commit(e) => e.kind(),
        }
    }
}

impl AlterTopicError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            AlterTopicError::Reserved(_) => ErrorKind::Invalid,
            AlterTopicError::NotFound => ErrorKind::NotFound,
            AlterTopicError::Setting(_)
            | AlterTopicError::Config(_)
            | AlterTopicError::FewerPartitions { .. }
            | AlterTopicError::Limit { .. } => ErrorKind::Invalid,
            AlterTopicError::Commit(e) => e.kind(),
        }
    }
}

impl DeleteTopicError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DeleteTopicError::Reserved(_) => ErrorKind::Invalid,
            DeleteTopicError::NotFound => ErrorKind::NotFound,
            DeleteTopicError::Commit(e) => e.kind(),
        }
    }
}

impl ProduceError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProduceError::Reserved(_) => ErrorKind::Invalid,
            ProduceError::Pushback(_) => ErrorKind::Throttle,
            ProduceError::TopicNotFound | ProduceError::PartitionNotFound(_) => ErrorKind::NotFound,
            ProduceError::InvalidBatch { .. }
            | ProduceError::BatchTooLarge { .. }
            | ProduceError::OutOfOrderSequence { .. }
            | ProduceError::DuplicateUnknown => ErrorKind::Invalid,
            ProduceError::ProducerFenced { .. } => ErrorKind::Fenced,
            ProduceError::ReadOnly { .. } | ProduceError::Latched { .. } => ErrorKind::Internal,
            ProduceError::Fenced { .. } => ErrorKind::Corrupt,
            ProduceError::Closed => ErrorKind::Closed,
        }
    }
}

impl FetchError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            FetchError::TopicNotFound
            | FetchError::PartitionNotFound(_)
            | FetchError::OffsetOutOfRange { .. } => ErrorKind::NotFound,
            FetchError::Corrupt { .. } | FetchError::Disk { .. } => ErrorKind::Corrupt,
            FetchError::TooManyPartitions { .. } => ErrorKind::Invalid,
            FetchError::Closed => ErrorKind::Closed,
        }
    }
}

impl TrimError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TrimError::TopicNotFound
            | TrimError::PartitionNotFound(_)
            | TrimError::OffsetOutOfRange { .. } => ErrorKind::NotFound,
            TrimError::Storage { .. } => ErrorKind::Internal,
            TrimError::Closed => ErrorKind::Closed,
        }
    }
}

impl InitProducerError {
    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            InitProducerError::UnknownProducer(_) => ErrorKind::Invalid,
            InitProducerError::Commit(e) => e.kind(),
        }
    }
}
