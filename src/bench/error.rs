//! Why a run of the load generator ended without a result.

use crate::client::ClientError;
use crate::record::PushError;
use crate::types::InvalidName;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The broker refused or went away.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The topic's name is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A record does not fit its batch.
    #[error("records of {record_bytes} bytes in batches of {batch_bytes}: {source}")]
    Record {
        /// Bytes of a record's value.
        record_bytes: usize,
        /// Bytes of a batch.
        batch_bytes: usize,
        /// What the builder says.
        source: PushError,
    },
    /// A task of the generator panicked.
    #[error("a task of the load generator failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// What was read is not what was written.
    #[error("{read} of {written} bytes came back")]
    Missing {
        /// Bytes written before.
        written: u64,
        /// Bytes read.
        read: u64,
    },
    /// The options do not fit together.
    #[error("{0}")]
    Options(&'static str),
}
