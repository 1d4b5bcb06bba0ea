//! What became of a record.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use tokio::sync::watch;

use crate::client::ClientError;
use crate::types::{DurabilityLevel, Offset, PartitionId, Timestamp};

/// A record that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Where.
    pub partition: PartitionId,
    /// Its offset; `None` when nobody remembers: with `Acks::None`, or for a repeat older than the
    /// broker's memory.
    pub offset: Option<Offset>,
    /// When the broker appended it; -1 when it does not say.
    pub timestamp: Timestamp,
    /// What it survives.
    pub level: DurabilityLevel,
    /// Whether an earlier attempt had written it already.
    pub duplicate: bool,
}

/// What became of a batch: `offset` is its first record's.
pub(super) type BatchOutcome = Result<Delivered, ClientError>;

/// The fate of one record. Await it, or drop it: the record is delivered all the same.
#[derive(Debug)]
#[must_use = "await it to learn whether the record was delivered"]
pub struct Delivery {
    batch: watch::Receiver<Option<BatchOutcome>>,
    index: u32,
}

impl Delivery {
    pub(super) fn new(batch: watch::Receiver<Option<BatchOutcome>>, index: u32) -> Delivery {
        Delivery { batch, index }
    }

    /// Waits for it.
    pub async fn wait(mut self) -> Result<Delivered, ClientError> {
        // The sender goes away unanswered only with the whole runtime.
        let outcome =
            self.batch.wait_for(Option::is_some).await.map_err(|_| ClientError::Closed)?;
        let delivered = outcome.clone().unwrap_or(Err(ClientError::Closed))?;
        let offset = delivered.offset.and_then(|base| base.checked_add(i64::from(self.index)));
        Ok(Delivered { offset, ..delivered })
    }
}

impl IntoFuture for Delivery {
    type Output = Result<Delivered, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
