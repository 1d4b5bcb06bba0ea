//! Looking up offsets, trimming, and producer ids.

use std::sync::Arc;

use super::error::{CommitError, FetchError, InitProducerError, TrimError};
use super::facade::Broker;
use super::read::fetch_error;
use super::request::{FoundOffset, OffsetQuery, ProducerIdentity};
use super::topic::PartitionHandle;
use super::topics::uncancelled;
use crate::record::{DecodeLimits, Records};
use crate::storage::{AdminError, Partition, ReadRequest};
use crate::types::{Offset, PartitionId, Timestamp, TopicId};

impl Broker {
    /// Looks an offset up.
    pub async fn list_offset(
        &self,
        topic: TopicId,
        partition: PartitionId,
        query: OffsetQuery,
    ) -> Result<FoundOffset, FetchError> {
        let handle = self.handle(topic, partition)?;
        handle.find(query).await
    }

    /// Makes everything before `before` unreadable for good; the new first offset, which is
    /// `before` or higher, is durable when this returns. Space comes back in whole segments.
    pub async fn trim(
        &self,
        topic: TopicId,
        partition: PartitionId,
        before: Offset,
    ) -> Result<Offset, TrimError> {
        let owner = self.core().topics.by_id(topic).ok_or(TrimError::TopicNotFound)?;
        let handle = owner.partition(partition).ok_or(TrimError::PartitionNotFound(partition))?;
        let log = handle.log().map_err(|e| TrimError::Storage { cause: e.to_string() })?;
        let trimmed = log.trim(before).await.map_err(trim_error);
        owner.measure();
        trimmed
    }

    /// A producer identity: a new one, or the next epoch of a known one, which fences the last.
    pub async fn init_producer(
        &self,
        known: Option<ProducerIdentity>,
    ) -> Result<ProducerIdentity, InitProducerError> {
        let core = Arc::clone(self.core());
        let given = uncancelled(async move {
            core.admit_change()?;
            core.producers.lock().await.init(known).await
        });
        given.await.unwrap_or(Err(InitProducerError::Commit(CommitError::Closed)))
    }

    pub(super) fn handle(
        &self,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<Arc<PartitionHandle>, FetchError> {
        let topic = self.core().topics.by_id(topic).ok_or(FetchError::TopicNotFound)?;
        topic.partition(partition).ok_or(FetchError::PartitionNotFound(partition))
    }
}

impl PartitionHandle {
    /// Looks an offset up. By time, the record is found in its batch, on a thread that may wait.
    pub async fn find(&self, query: OffsetQuery) -> Result<FoundOffset, FetchError> {
        let (start, end) = self.span();
        let log = self.log()?.clone();
        let at = match query {
            OffsetQuery::Earliest => return Ok(FoundOffset { offset: start, timestamp: None }),
            OffsetQuery::Latest => return Ok(FoundOffset { offset: end, timestamp: None }),
            OffsetQuery::AtTime(at) => at,
        };
        let found = tokio::task::spawn_blocking(move || first_at(&log, at)).await;
        let died = |e: tokio::task::JoinError| Err(FetchError::Disk { cause: e.to_string() });
        let found = found.unwrap_or_else(died)?;
        Ok(found.unwrap_or(FoundOffset { offset: end, timestamp: None }))
    }
}

/// The first record at or after `at`. Reads and decodes the batch that storage names.
fn first_at(log: &Partition, at: Timestamp) -> Result<Option<FoundOffset>, FetchError> {
    let Some((base, largest)) = log.offset_at(at).map_err(fetch_error)? else { return Ok(None) };
    let start = log.offsets().start;
    let mut plan =
        log.plan_read(ReadRequest { from: base.max(start), max_bytes: 1 }).map_err(fetch_error)?;
    plan.populate().map_err(fetch_error)?;
    for mut bytes in plan.owned().map_err(fetch_error)? {
        let batch = Records::take_batch(&mut bytes, &DecodeLimits::default());
        // Records that a codec hides from us are the client's to walk: the batch is named.
        for record in batch.into_iter().flatten().flatten().flatten() {
            if record.timestamp >= at && record.offset >= start {
                let (offset, timestamp) = (record.offset, Some(record.timestamp));
                return Ok(Some(FoundOffset { offset, timestamp }));
            }
        }
    }
    Ok(Some(FoundOffset { offset: base.max(start), timestamp: Some(largest) }))
}

fn trim_error(error: AdminError) -> TrimError {
    match error {
        AdminError::BeyondEnd { end, .. } => TrimError::OffsetOutOfRange { end },
        AdminError::Io(cause) | AdminError::Latched { cause } => TrimError::Storage { cause },
        AdminError::Closed => TrimError::Closed,
    }
}
