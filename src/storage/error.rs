//! One error per operation the caller branches on.

use thiserror::Error;

use crate::types::{Offset, ProducerEpoch, TopicPartition};

/// Why a batch was not appended, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The producer skipped or repeated sequence numbers. Nothing was written.
    #[error("out of order: the batch starts at sequence {found}, {expected} was expected")]
    OutOfOrderSequence {
        /// The sequence that would have been accepted.
        expected: i32,
        /// The sequence of the batch.
        found: i32,
    },
    /// The batch was appended before, so long ago that its offset is no longer known. Nothing was
    /// written now.
    #[error("a repeat of a batch that was appended before")]
    DuplicateUnknown,
    /// A newer instance of the producer wrote here. Nothing was written.
    #[error("producer epoch {found:?} is fenced by {current:?}")]
    ProducerFenced {
        /// The newest epoch.
        current: ProducerEpoch,
        /// The epoch of the batch.
        found: ProducerEpoch,
    },
    /// The batch is larger than the partition allows. Nothing was written.
    #[error("the batch has {found} bytes, {max} are allowed")]
    TooLarge {
        /// Its bytes.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// No space. Nothing was written; the producer's state is as before.
    #[error("disk full: {free} bytes free, {needed} needed")]
    DiskFull {
        /// Bytes free when it was refused.
        free: u64,
        /// Bytes that were needed.
        needed: u64,
    },
    /// The partition takes no writes after a device error. The batch may or may not survive a
    /// restart.
    #[error("the partition is read-only: {cause}")]
    ReadOnly {
        /// The first cause.
        cause: String,
    },
    /// The data directory takes no writes after a failed sync. The batch may or may not survive a
    /// restart.
    #[error("the data directory is latched: {cause}")]
    Latched {
        /// The first cause.
        cause: String,
    },
    /// Stored bytes below the durable mark are damaged; `verify --repair` decides. Nothing was
    /// written.
    #[error("the partition is fenced: damaged from offset {first_bad} on")]
    Fenced {
        /// First offset that cannot be read.
        first_bad: Offset,
    },
    /// The partition or the broker was closed. Nothing was written.
    #[error("closed")]
    Closed,
}

/// Why a read was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The offset is outside of what may be read.
    #[error("offset {from} is outside of {start}..={end}")]
    OffsetOutOfRange {
        /// What was asked for.
        from: Offset,
        /// First offset that may be read.
        start: Offset,
        /// The visible end.
        end: Offset,
    },
    /// Stored bytes are damaged here; elsewhere reads go on.
    #[error("damaged from offset {first_bad} on")]
    Corrupt {
        /// First offset that cannot be read.
        first_bad: Offset,
        /// First offset after it that can, when there is one.
        next_good: Option<Offset>,
    },
    /// The device failed.
    #[error("read failed: {cause}")]
    Io {
        /// What the device said.
        cause: String,
    },
    /// The partition was closed or deleted.
    #[error("closed")]
    Closed,
}

/// Why a trim, roll, deletion or change of options did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdminError {
    /// The offset is beyond what may be trimmed.
    #[error("offset {offset} is beyond the end {end}")]
    BeyondEnd {
        /// What was asked for.
        offset: Offset,
        /// The visible end.
        end: Offset,
    },
    /// The device failed; nothing or all of it happened, and the next start completes it.
    #[error("{0}")]
    Io(String),
    /// The data directory is latched.
    #[error("the data directory is latched: {cause}")]
    Latched {
        /// The first cause.
        cause: String,
    },
    /// The partition or the broker was closed.
    #[error("closed")]
    Closed,
}

/// Why a data directory or a partition was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process uses the data directory.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The directory is not one of ours, or a newer version's.
    #[error("not a usable data directory: {0}")]
    Meta(String),
    /// A partition that is known to have files has none.
    #[error("the files of partition {0} are missing")]
    Missing(TopicPartition),
    /// The partition is open already.
    #[error("partition {0} is open already")]
    AlreadyOpen(TopicPartition),
    /// What is stored cannot be served.
    #[error("partition {id}: {cause}")]
    Recovery {
        /// Which partition.
        id: TopicPartition,
        /// What was found.
        cause: String,
    },
    /// The device failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
