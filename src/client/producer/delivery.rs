//! What became of a record.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

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

/// Where the outcome of a batch is told once, to all who hold one of its records' deliveries.
#[derive(Debug, Default)]
struct Fate {
    outcome: OnceLock<BatchOutcome>,
    told: Notify,
}

impl Fate {
    fn tell(&self, outcome: BatchOutcome) {
        // What was told first holds.
        let _ = self.outcome.set(outcome);
        self.told.notify_waiters();
    }

    async fn outcome(&self) -> BatchOutcome {
        loop {
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            // Waits from here on, so that what is told before the next look is not missed.
            let told = self.told.notified();
            if self.outcome.get().is_none() {
                told.await;
            }
        }
    }
}

/// The side that tells a batch's outcome; one that is dropped silently tells `Closed`.
#[derive(Debug, Default)]
pub(super) struct Teller(Arc<Fate>);

impl Teller {
    /// Tells it to all who wait, and to who asks later.
    pub(super) fn tell(&self, outcome: BatchOutcome) {
        self.0.tell(outcome);
    }

    /// For the record of this number in the batch.
    pub(super) fn delivery(&self, index: u32) -> Delivery {
        Delivery { batch: Arc::clone(&self.0), index }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        // Unanswered only when the whole runtime goes away.
        if self.0.outcome.get().is_none() {
            self.0.tell(Err(ClientError::Closed));
        }
    }
}

/// The fate of a whole batch.
#[derive(Debug)]
#[must_use = "await it to learn whether the batch was delivered"]
pub struct BatchDelivery {
    batch: Arc<Fate>,
}

impl BatchDelivery {
    /// Waits for it.
    pub async fn wait(self) -> Result<DeliveredBatch, ClientError> {
        let (first, records) = self.batch.outcome().await?;
        Ok(DeliveredBatch {
            partition: first.partition,
            base_offset: first.offset,
            records,
            level: first.level,
            duplicate: first.duplicate,
        })
    }
}

/// The fate of one record. Await it, or drop it: the record is delivered all the same.
#[derive(Debug)]
#[must_use = "await it to learn whether the record was delivered"]
pub struct Delivery {
    batch: Arc<Fate>,
    index: u32,
}

impl Delivery {
    /// The fate of the whole batch, when this record is its first: for who reports by batch.
    pub fn opened_batch(&self) -> Option<BatchDelivery> {
        (self.index == 0).then(|| BatchDelivery { batch: Arc::clone(&self.batch) })
    }

    /// Waits for it.
    pub async fn wait(self) -> Result<Delivered, ClientError> {
        let (delivered, _) = self.batch.outcome().await?;
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
