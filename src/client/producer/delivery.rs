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

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveredBatch {
    /// Where.
    pub partition: PartitionId,
    /// Offset of its first record, as far as anybody knows.
    pub base_offset: Option<Offset>,
    /// How many records it has.
    pub records: u32,
    /// What it survives.
    pub level: DurabilityLevel,
    /// Whether an earlier attempt had written it already.
    pub duplicate: bool,
}

/// What became of a batch: `offset` is its first record's; the number is how many it has.
pub(super) type BatchOutcome = Result<(Delivered, u32), ClientError>;

/// The fate of a whole batch.
#[derive(Debug)]
#[must_use = "await it to learn whether the batch was delivered"]
pub struct BatchDelivery {
    batch: watch::Receiver<Option<BatchOutcome>>,
}

impl BatchDelivery {
    /// Waits for it.
    pub async fn wait(self) -> Result<DeliveredBatch, ClientError> {
        let (first, records) = outcome(self.batch).await?;
        Ok(DeliveredBatch {
            partition: first.partition,
            base_offset: first.offset,
            records,
            level: first.level,
            duplicate: first.duplicate,
        })
    }
}

async fn outcome(
    mut batch: watch::Receiver<Option<BatchOutcome>>,
) -> Result<(Delivered, u32), ClientError> {
    // The sender goes away unanswered only with the whole runtime.
    let outcome = batch.wait_for(Option::is_some).await.map_err(|_| ClientError::Closed)?;
    outcome.clone().unwrap_or(Err(ClientError::Closed))
}

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

    /// The fate of the whole batch, when this record is its first: for who reports by batch.
    pub fn opened_batch(&self) -> Option<BatchDelivery> {
        (self.index == 0).then(|| BatchDelivery { batch: self.batch.clone() })
    }

    /// Waits for it.
    pub async fn wait(self) -> Result<Delivered, ClientError> {
        let (delivered, _) = outcome(self.batch).await?;
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
