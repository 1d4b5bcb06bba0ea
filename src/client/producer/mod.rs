//! The producer: records to batches to acknowledgements.
//!
//! Per partition, records fill a batch (by size and linger); up to `window` batches are under way;
//! each carries sequence numbers, so that what is sent again after a lost answer is not written
//! twice. Memory is bounded by `buffer_bytes`: `send` waits for room, `try_send` says what is in
//! the way. The broker's grants and refusals are obeyed.

mod answers;
mod batch_sender;
mod deadlines;
mod delivery;
mod driver;
mod lane;
mod limits;
mod shared;

use std::sync::Arc;

use tokio::sync::watch;

use super::core::Core;
use super::options::WINDOW_MAX;
use super::{ClientError, Idempotence, ProducerOptions, Topic};
use crate::record::RecordHeader;
use crate::types::{PartitionId, Pushback, Timestamp, TopicName};
use shared::Shared;

pub use batch_sender::BatchSender;
pub use delivery::{BatchDelivery, Delivered, DeliveredBatch, Delivery};
pub use lane::LostRange;

/// A record to be sent. Its bytes are copied into a batch at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// Records with the same key go to the same partition, in order; `None` = null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` = null.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [RecordHeader],
    /// Its time; `None` = now.
    pub timestamp: Option<Timestamp>,
    /// The partition; `None` = by key, or any without one.
    pub partition: Option<PartitionId>,
}

impl<'a> NewRecord<'a> {
    /// A record with a key.
    pub fn keyed(key: &'a [u8], value: &'a [u8]) -> NewRecord<'a> {
        NewRecord { key: Some(key), value: Some(value), ..NewRecord::default() }
    }

    /// A record without a key.
    pub fn value(value: &'a [u8]) -> NewRecord<'a> {
        NewRecord { value: Some(value), ..NewRecord::default() }
    }

    /// About what it costs while it is buffered.
    fn room_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 32;
        let headers: usize = self
            .headers
            .iter()
            .map(|h| h.key.len() + h.value.as_ref().map_or(0, |value| value.len()) + OVERHEAD_BYTES)
            .sum();
        self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + headers
            + OVERHEAD_BYTES
    }
}

/// Why `try_send` did not take a record. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// There is no room: what the broker said last, or else this producer's own limit.
    #[error("{0}")]
    Pushback(Pushback),
    /// The record cannot be sent at all.
    #[error(transparent)]
    Refused(#[from] ClientError),
}

/// A producer to one topic. Clones share its buffer and batches. When the last clone is dropped,
/// what is buffered is still sent; to know that it arrived, `close`.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Producer {
    pub(super) async fn open(
        core: Arc<Core>,
        topic: &TopicName,
        mut options: ProducerOptions,
    ) -> Result<Producer, ClientError> {
        let topic = core.topic(topic).await?;
        if topic.partitions == 0 {
            return Err(ClientError::Invalid("the topic has no partitions".to_owned()));
        }
        options.linger = options.linger.min(options.delivery_timeout / 2);
        options.window = options.window.max(1);
        if options.idempotence == Idempotence::On {
            options.window = options.window.min(WINDOW_MAX);
        }
        let shared = Arc::new(Shared::new(core, topic, options));
        tokio::spawn(driver::drive(Arc::clone(&shared)));
        Ok(Producer { _guard: Arc::new(Guard(Arc::clone(&shared))), shared })
    }

    /// The topic, as it was last seen.
    pub fn topic(&self) -> Topic {
        self.shared.topic()
    }

    /// Takes a record as soon as there is room for it. The delivery tells what became of it.
    /// Dropping the future sends nothing.
    pub async fn send(&self, record: NewRecord<'_>) -> Result<Delivery, ClientError> {
        let bytes = self.shared.room_for(record.room_bytes());
        let room = self.shared.room.acquire_many(bytes).await;
        room.map_err(|_| ClientError::Closed)?.forget();
        self.shared.place(&record, bytes)
    }

    /// Takes a record if there is room for it now, and the broker lets its partition send. Else the
    /// refusal that is in force is returned, and nothing is sent.
    pub fn try_send(&self, record: NewRecord<'_>) -> Result<Delivery, TrySendError> {
        self.shared.would_wait(&record)?;
        let bytes = self.shared.room_for(record.room_bytes());
        match self.shared.room.try_acquire_many(bytes) {
            Ok(room) => room.forget(),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(ClientError::Closed.into()),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                let limit = self.limited_by().unwrap_or_else(|| self.shared.buffer_full());
                return Err(TrySendError::Pushback(limit));
            }
        }
        Ok(self.shared.place(&record, bytes)?)
    }

    /// Sends everything that was taken so far, and waits for it. The first failure is returned.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let mut first = Ok(());
        for delivery in self.shared.flush() {
            let outcome = delivery.wait().await.map(|_| ());
            first = first.and(outcome);
        }
        first
    }

    /// Flushes, then refuses further records.
    pub async fn close(self) -> Result<(), ClientError> {
        let flushed = self.flush().await;
        self.shared.finish();
        flushed
    }

    /// Records that were acknowledged and then lost by the broker, since the last call. Only
    /// topics with `os` or `interval` durability can lose any.
    pub fn take_losses(&self) -> Vec<LostRange> {
        self.shared.take_losses()
    }

    /// What keeps this producer from sending as fast as it could: what the broker said last, while it
    /// holds, or the grant it waits for.
    pub fn limited_by(&self) -> Option<Pushback> {
        self.shared.limited_by()
    }

    /// The same as it changes, for a program that slows its own sources, or tells somebody. `None`
    /// while nothing limits it; what came and went between two looks is not seen.
    ///
    /// ```
    /// # async fn slow_down(producer: stoplog::client::Producer) {
    /// let mut pressure = producer.on_pressure();
    /// while pressure.changed().await.is_ok() {
    ///     match &*pressure.borrow_and_update() {
    ///         Some(limit) => println!("{limit}, for {} ms", limit.retry_after_ms),
    ///         None => println!("nothing limits"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn on_pressure(&self) -> watch::Receiver<Option<Pushback>> {
        self.shared.limit.subscribe()
    }
}
