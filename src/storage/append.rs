//! What goes into a partition's queue and what comes back.

use std::any::Any;
use std::fmt;

use super::error::AppendError;
use crate::record::CheckedBatch;
use crate::types::{Acks, DurabilityLevel, Offset, Timestamp};

/// A batch on its way into the log. Spent exactly once: `done` is called once, whatever happens.
#[must_use = "an append that is dropped is never answered"]
pub struct Append {
    /// The batch, header and CRC checked.
    pub batch: CheckedBatch,
    /// What its answer waits for.
    pub acks: Acks,
    /// Who is told.
    pub done: Box<dyn AppendDone>,
}

/// Where the answer of an append goes.
///
/// `Any`, so that whoever is given a refused append back can take its own value out again.
pub trait AppendDone: Any + Send {
    /// Called once, on a writer's thread: must neither block nor call back into storage.
    fn done(self: Box<Self>, result: Result<Appended, AppendError>);
}

/// Who sends answers in batches.
pub trait RoundEnd: Send + Sync {
    /// A log writer's round ended, and with it the answers it had to give. Called on its thread: must
    /// neither block nor call back into storage.
    fn round_ended(&self);
}

impl<F: FnOnce(Result<Appended, AppendError>) + Send + 'static> AppendDone for F {
    fn done(self: Box<Self>, result: Result<Appended, AppendError>) {
        self(result)
    }
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Wall time of its append, as the broker saw it.
    pub append_time: Timestamp,
    /// What it survives from now on.
    pub level: DurabilityLevel,
    /// Whether it had been there before: a retry, answered with the offsets of the original.
    pub duplicate: bool,
    /// First offset of the partition that may be read.
    pub log_start: Offset,
}

impl Append {
    /// An append.
    pub fn new(batch: CheckedBatch, acks: Acks, done: Box<dyn AppendDone>) -> Append {
        Append { batch, acks, done }
    }

    /// Bytes it takes in the queue and on disk.
    pub fn size_bytes(&self) -> usize {
        self.batch.bytes().len()
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("batch", self.batch.header())
            .field("acks", &self.acks)
            .finish()
    }
}
