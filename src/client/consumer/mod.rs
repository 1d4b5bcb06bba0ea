//! The consumer: partitions to records, in order within each, at least once.
//!
//! The broker pushes batches within the credit this side gives; credit follows what is handed out,
//! so a slow program holds `memory_bytes` at most. In a group, a partition is given up only between
//! two calls of `next`, after what was processed is committed.

mod commit;
mod lane;
mod membership;
mod stream;
mod turn;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{Connection, Delivered};
use super::core::Core;
use super::flow::RetryContract;
use super::moment::moment;
use super::{ClientError, CommitMode, ConsumerOptions};
use crate::record::{DecodeLimits, Record, batches};
use crate::types::{ErrorCode, Offset, PartitionId, TopicName, TopicPartition};
use lane::Lane;
use membership::Membership;
use turn::Grant;

pub use stream::RecordStream;

/// A record and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// The topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: PartitionId,
    /// Offset, time, key, value, headers; they share the memory of their batch.
    pub record: Record,
}

/// Record batches as they are stored. Neither their CRC nor their records were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBatches {
    /// The topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: PartitionId,
    /// Whole batches, one after the other; the first may start before the position asked for.
    pub data: Bytes,
    /// The offset after them.
    pub next_offset: Offset,
}

/// What happened to the partitions of a group's member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// They are read from now on.
    Assigned(Vec<TopicPartition>),
    /// They were given up; what was processed is committed.
    Revoked(Vec<TopicPartition>),
    /// They are gone: this member was silent too long, and others may read them already.
    Lost(Vec<TopicPartition>),
}

type Hook = Arc<dyn Fn(&Rebalance) + Send + Sync>;

/// A reader of partitions.
///
/// Every future of it, and a stream made of it, may be dropped at any point: no record is lost or
/// skipped, and none is committed that was not handed out. `next_exactly` keeps what it had taken
/// for whoever asks next. So `select!` and timeouts around them are fine.
///
/// A consumer that is dropped leaves its group at once, in the background; what was handed out since
/// the last commit is read again by others. `close` commits first.
pub struct Consumer {
    core: Arc<Core>,
    options: ConsumerOptions,
    limits: DecodeLimits,
    lanes: BTreeMap<TopicPartition, Lane>,
    /// Partitions with something received, in the order in which they are served.
    ring: VecDeque<TopicPartition>,
    /// Lanes by subscription number on `connection`.
    numbers: HashMap<u32, TopicPartition>,
    connection: Option<Arc<Connection>>,
    events: mpsc::UnboundedReceiver<Delivered>,
    events_in: mpsc::UnboundedSender<Delivered>,
    membership: Option<Arc<Membership>>,
    started: bool,
    /// Records that may still be handed out.
    records_left: Option<u64>,
    /// Lanes of which records were handed out and are not known to be processed.
    handed: Vec<TopicPartition>,
    /// Records that a `next_exactly` which was dropped had taken: the next ones to hand out.
    partial: VecDeque<(TopicPartition, ConsumedRecord)>,
    next_commit: Instant,
    retries: RetryContract,
    /// Since when no connection could be made.
    away_since: Option<Instant>,
    on_rebalance: Option<Hook>,
}

impl Consumer {
    pub(super) async fn open(
        core: Arc<Core>,
        options: ConsumerOptions,
    ) -> Result<Consumer, ClientError> {
        let (events_in, events) = mpsc::unbounded_channel();
        let mut consumer = Consumer {
            retries: RetryContract::new(core.options.retry_wait),
            core,
            records_left: options.records_max,
            options,
            limits: DecodeLimits::default(),
            lanes: BTreeMap::new(),
            ring: VecDeque::new(),
            numbers: HashMap::new(),
            connection: None,
            events,
            events_in,
            membership: None,
            started: false,
            handed: Vec::new(),
            partial: VecDeque::new(),
            next_commit: Instant::now(),
            away_since: None,
            on_rebalance: None,
        };
        consumer.start().await?;
        Ok(consumer)
    }

    /// Called whenever partitions come or go, from within `next`.
    pub fn on_rebalance(&mut self, hook: impl Fn(&Rebalance) + Send + Sync + 'static) {
        self.on_rebalance = Some(Arc::new(hook));
    }

    /// The next record; `None` when reading ended (`stop`, `records_max`). An error concerns what it names;
    /// calling again goes on with the rest. With `CommitMode::Auto`, the records handed out before
    /// are processed by now.
    pub async fn next(&mut self) -> Option<Result<ConsumedRecord, ClientError>> {
        self.before_next();
        while !self.has_handed_all() {
            if self.is_urgent()
                && let Err(error) = self.turn().await
            {
                return Some(Err(error));
            }
            let kept = self.partial.pop_front().map(Ok);
            if let Some(found) = kept.or_else(|| self.take_record()) {
                return Some(found.map(|(part, record)| {
                    self.note_handed(part, 1);
                    record
                }));
            }
            if self.is_finished() {
                break;
            }
            if let Err(error) = self.wait().await {
                return Some(Err(error));
            }
        }
        self.commit_processed().await.err().map(Err)
    }

    /// Exactly so many records, or fewer when reading ended. What else was received is kept.
    pub async fn next_exactly(
        &mut self,
        records: usize,
    ) -> Result<Vec<ConsumedRecord>, ClientError> {
        self.before_next();
        let left = self.records_left.map(|left| usize::try_from(left).unwrap_or(usize::MAX));
        let records = records.min(left.unwrap_or(usize::MAX));
        while self.partial.len() < records {
            if self.is_urgent() {
                self.turn().await?;
            }
            match self.take_record() {
                Some(found) => self.partial.push_back(found?),
                None if self.is_finished() => break,
                None => self.wait().await?,
            }
        }
        let count = records.min(self.partial.len());
        let taken: Vec<_> = self.partial.drain(..count).collect();
        let hand = |(part, record)| {
            self.note_handed(part, 1);
            record
        };
        Ok(taken.into_iter().map(hand).collect())
    }

    /// The next batches, undecoded; `None` when reading ended.
    pub async fn next_batch(&mut self) -> Option<Result<RawBatches, ClientError>> {
        self.before_next();
        while !self.has_handed_all() {
            if self.is_urgent()
                && let Err(error) = self.turn().await
            {
                return Some(Err(error));
            }
            if let Some(batches) = self.take_batches() {
                return Some(Ok(batches));
            }
            if self.is_finished() {
                break;
            }
            if let Err(error) = self.wait().await {
                return Some(Err(error));
            }
        }
        self.commit_processed().await.err().map(Err)
    }

    /// Says that everything handed out so far is processed, without committing it yet: it is when
    /// a partition is given up, and with the next `commit`.
    pub fn mark_processed(&mut self) {
        for part in std::mem::take(&mut self.handed) {
            let kept = self.partial.iter().find(|(from, _)| *from == part);
            if let Some(lane) = self.lanes.get_mut(&part) {
                lane.processed = kept.map_or(lane.position, |(_, record)| record.record.offset);
            }
        }
    }

    /// Commits everything handed out so far.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.mark_processed();
        self.commit_processed().await
    }

    /// Partitions that are read, with the next offset of each to hand out.
    pub fn positions(&self) -> Vec<(TopicName, PartitionId, Offset)> {
        let position = |lane: &Lane| (lane.topic.clone(), lane.part.partition, lane.position);
        self.lanes.values().map(position).collect()
    }

    /// Holds a partition's records back until `resume`.
    pub fn pause(&mut self, topic: &TopicName, partition: PartitionId) -> Result<(), ClientError> {
        self.set_paused(topic, partition, true)
    }

    /// Lets a paused partition go on.
    pub fn resume(&mut self, topic: &TopicName, partition: PartitionId) -> Result<(), ClientError> {
        self.set_paused(topic, partition, false)
    }

    /// Goes on elsewhere in a partition.
    pub fn seek(
        &mut self,
        topic: &TopicName,
        partition: PartitionId,
        to: Offset,
    ) -> Result<(), ClientError> {
        let share = self.share(Grant::First);
        let part = self.find(topic, partition)?;
        self.ring.retain(|queued| *queued != part);
        self.handed.retain(|handed| *handed != part);
        self.partial.retain(|(from, _)| *from != part);
        if let Some(lane) = self.lanes.get_mut(&part) {
            lane.seek(to, share, moment(Instant::now()));
        }
        self.say(part);
        Ok(())
    }

    /// Commits what is processed, leaves the group, ends all subscriptions.
    pub async fn close(mut self) -> Result<(), ClientError> {
        if matches!(self.options.commit, CommitMode::Auto { .. }) {
            self.mark_processed();
        }
        let committed = self.commit_processed().await;
        let parts: Vec<_> = self.lanes.keys().copied().collect();
        self.drop_lanes(&parts);
        if let Some(membership) = self.membership.take() {
            membership.leave().await;
        }
        committed
    }

    fn before_next(&mut self) {
        if matches!(self.options.commit, CommitMode::Auto { .. }) && !self.handed.is_empty() {
            self.mark_processed();
        }
    }

    fn note_handed(&mut self, part: TopicPartition, records: u64) {
        if let Some(left) = &mut self.records_left {
            *left = left.saturating_sub(records);
        }
        if !self.handed.contains(&part) {
            self.handed.push(part);
        }
    }

    /// Serves partitions in turn, a parcel each.
    fn take_record(&mut self) -> Option<Result<(TopicPartition, ConsumedRecord), ClientError>> {
        while let Some(part) = self.ring.front().copied() {
            let Some(lane) = self.lanes.get_mut(&part).filter(|lane| lane.has_parcels()) else {
                self.ring.pop_front();
                continue;
            };
            let found = lane.next_record(&self.limits);
            let (topic, partition) = (lane.topic.clone(), part.partition);
            if lane.take_parcel_done() {
                self.ring.rotate_left(1);
                self.give_credit(part);
            }
            match found {
                Some(Ok(record)) => {
                    return Some(Ok((part, ConsumedRecord { topic, partition, record })));
                }
                Some(Err(error)) => {
                    let (partition, cause) = (partition.0, error.to_string());
                    return Some(Err(ClientError::BadRecords { topic, partition, cause }));
                }
                None => {}
            }
        }
        None
    }

    fn take_batches(&mut self) -> Option<RawBatches> {
        while let Some(part) = self.ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&part).filter(|lane| lane.has_parcels()) else {
                continue;
            };
            let Some((data, next_offset)) = lane.next_parcel() else { continue };
            let topic = lane.topic.clone();
            if lane.has_parcels() {
                self.ring.push_back(part);
            }
            self.note_handed(part, records_in(&data));
            self.give_credit(part);
            return Some(RawBatches { topic, partition: part.partition, data, next_offset });
        }
        None
    }

    fn set_paused(
        &mut self,
        topic: &TopicName,
        partition: PartitionId,
        paused: bool,
    ) -> Result<(), ClientError> {
        let part = self.find(topic, partition)?;
        let Some(lane) = self.lanes.get_mut(&part) else { return Ok(()) };
        lane.paused = paused;
        if lane.has_parcels() && !self.ring.contains(&part) {
            self.ring.push_back(part);
        }
        self.say(part);
        Ok(())
    }

    fn find(
        &self,
        topic: &TopicName,
        partition: PartitionId,
    ) -> Result<TopicPartition, ClientError> {
        let found = self
            .lanes
            .values()
            .find(|lane| lane.part.partition == partition && lane.topic == *topic);
        found.map(|lane| lane.part).ok_or_else(|| {
            let message = format!("{topic}/{partition} is not read by this consumer");
            crate::protocol::native::ErrorAnswer::new(ErrorCode::PartitionNotFound, message).into()
        })
    }
}

fn records_in(data: &Bytes) -> u64 {
    batches(data).flatten().map(|batch| u64::from(batch.header().record_count.unsigned_abs())).sum()
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let parts: Vec<_> = self.lanes.keys().copied().collect();
        self.drop_lanes(&parts);
        if let Some(membership) = &self.membership {
            membership.leave_behind();
        }
    }
}
