//! Topics and partitions as everybody reads them: names and ids to handles, without a lock on the
//! way of a request.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use super::error::FetchError;
use super::flow::{
    BacklogClaim, ConnectionFlow, FetchPermit, Numbers, Offer, Opening, PartitionFlow, Past,
    Reading, TopicFlow, TopicRules, Waits, WriterMask,
};
use super::read::{Reads, execute, reading};
use super::request::{Fetched, ReadMode};
use crate::storage::Partition;
use crate::types::{
    Class, LeaderEpoch, Offset, PartitionDescription, PartitionHealth, PartitionId, Timestamp,
    TopicConfig, TopicId, TopicName, TopicPartition,
};

/// A topic that exists.
pub struct Topic {
    id: TopicId,
    config: ArcSwap<TopicConfig>,
    partitions: ArcSwap<Vec<Arc<PartitionHandle>>>,
    /// Who appends to them.
    writers: WriterMask,
    pub(super) flow: Arc<TopicFlow>,
}

/// One partition of a topic.
pub struct PartitionHandle {
    id: TopicPartition,
    /// `Err` = its files could not be opened at all; the cause.
    log: Result<Partition, String>,
    pub(super) flow: PartitionFlow,
}

impl Topic {
    pub(super) fn new(
        flow: TopicFlow,
        id: TopicId,
        config: TopicConfig,
        partitions: Vec<Arc<PartitionHandle>>,
    ) -> Topic {
        let topic = Topic {
            id,
            config: ArcSwap::from_pointee(config),
            partitions: ArcSwap::default(),
            writers: WriterMask::default(),
            flow: Arc::new(flow),
        };
        topic.set_partitions(partitions);
        topic.measure();
        topic
    }

    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.flow.name
    }

    /// Its identity.
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Its settings now.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    /// Number of its partitions.
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.load().len()).unwrap_or(u32::MAX)
    }

    /// One of its partitions.
    pub fn partition(&self, partition: PartitionId) -> Option<Arc<PartitionHandle>> {
        self.partitions.load().get(usize::try_from(partition.0).ok()?).cloned()
    }

    /// All its partitions, by number.
    pub fn partitions(&self) -> Arc<Vec<Arc<PartitionHandle>>> {
        self.partitions.load_full()
    }

    /// Bytes of all its partitions, as storage counts them.
    pub fn bytes(&self) -> u64 {
        self.partitions.load().iter().map(|partition| partition.bytes()).sum()
    }

    /// Bytes that producers may write before they wait for a group, or `None` while none of its
    /// backlog limits counts.
    pub fn backlog_room_bytes(&self) -> Option<u64> {
        self.flow.backlog.room_bytes()
    }

    /// An offer to a publisher, cut to what the topic's own limit leaves: nothing while it withholds
    /// grants. `outstanding` is what the publisher has under way; that took its room already.
    pub fn limit_offer(&self, offer: Offer, outstanding: u64, now: Duration) -> Offer {
        let Some(rules) = TopicRules::of(&self.config_now()) else { return offer };
        let (room, cause) = self.flow.limit.room(&rules, now);
        let bytes = outstanding.saturating_add(room);
        if bytes < offer.bytes { Offer { bytes, cause } } else { offer }
    }

    /// For a publisher's grants, which leave what groups must still read its room.
    pub fn backlog_claim(&self) -> BacklogClaim {
        BacklogClaim::new(Arc::clone(&self.flow))
    }

    /// A publisher of all its partitions, those that are added later included.
    pub(super) fn opening(&self, class: Class) -> Opening {
        let partitions = u64::from(self.partition_count());
        Opening { class, writers: self.writers.clone(), partitions }
    }

    pub(super) fn config_now(&self) -> Guard<Arc<TopicConfig>> {
        self.config.load()
    }

    pub(super) fn set_config(&self, config: TopicConfig) {
        self.config.store(Arc::new(config));
    }

    pub(super) fn set_partitions(&self, partitions: Vec<Arc<PartitionHandle>>) {
        self.writers.add(partitions.iter().map(|partition| partition.flow.writer));
        self.partitions.store(Arc::new(partitions));
    }

    /// Lets the limit on bytes start from what storage counts.
    pub(super) fn measure(&self) {
        self.flow.limit.measured(self.bytes());
    }
}

impl PartitionHandle {
    pub(super) fn new(
        id: TopicPartition,
        log: Result<Partition, String>,
        flow: PartitionFlow,
    ) -> PartitionHandle {
        PartitionHandle { id, log, flow }
    }

    /// Which partition it is.
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// First offset that can be read, and first that cannot be read yet.
    pub fn span(&self) -> (Offset, Offset) {
        self.log.as_ref().map_or((Offset::ZERO, Offset::ZERO), |log| {
            let ends = log.offsets();
            (ends.start, ends.visible_end)
        })
    }

    /// Its leader epoch.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.log.as_ref().map_or(LeaderEpoch(0), Partition::leader_epoch)
    }

    /// Bytes of its segments.
    pub fn bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Partition::bytes)
    }

    /// Whether it takes writes.
    pub fn health(&self) -> PartitionHealth {
        match &self.log {
            Ok(log) => log.health(),
            Err(cause) => PartitionHealth::ReadOnly { cause: cause.clone() },
        }
    }

    /// Everything that can be said of it now.
    pub fn describe(&self) -> PartitionDescription {
        let Ok(log) = &self.log else {
            return PartitionDescription {
                partition: self.id.partition,
                start: Offset::ZERO,
                visible_end: Offset::ZERO,
                log_end: Offset::ZERO,
                durable_end: Offset::ZERO,
                bytes: 0,
                segments: 0,
                leader_epoch: LeaderEpoch(0),
                health: self.health(),
            };
        };
        let ends = log.offsets();
        PartitionDescription {
            partition: self.id.partition,
            start: ends.start,
            visible_end: ends.visible_end,
            log_end: ends.log_end,
            durable_end: ends.durable_end,
            bytes: log.bytes(),
            segments: u32::try_from(log.segment_count()).unwrap_or(u32::MAX),
            leader_epoch: log.leader_epoch(),
            health: log.health(),
        }
    }

    /// Waits until the visible end is beyond `offset` and returns it; `None` when the partition was
    /// closed or deleted. Does not poll; dropping the future forgets the wait.
    pub async fn wait_visible(&self, beyond: Offset) -> Option<Offset> {
        self.log.as_ref().ok()?.wait_visible(beyond).await
    }

    /// Reads whole batches from the one that holds `from` on: about `max_bytes`, at least one batch,
    /// none when `from` is the visible end. Waits for its turn at the pool of bytes that are read;
    /// cold bytes are brought in by a thread that may wait.
    pub async fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        mode: ReadMode,
    ) -> Result<Fetched, FetchError> {
        let mut permit = self.flow.reads.pool.wait(max_bytes as u64).await;
        self.read_with(&mut permit, from, max_bytes, mode, |_| None).await
    }

    /// Bytes of the pool of what is read, for [`PartitionHandle::read_with`] from `from` on; to be
    /// held until they were sent to the `connection`.
    pub async fn permit(
        &self,
        from: Offset,
        bytes: usize,
        connection: &ConnectionFlow,
    ) -> FetchPermit {
        let reading = || self.log().map_or(Reading::Earlier, |log| reading(log, from));
        self.flow.reads.pool.turn(bytes as u64, connection.on_the_way(), reading).await
    }

    /// [`PartitionHandle::read`] with bytes that the caller took before. A wait for the disk is
    /// `told`: it is one for `cold_reads`.
    pub async fn read_with(
        &self,
        permit: &mut FetchPermit,
        from: Offset,
        max_bytes: usize,
        mode: ReadMode,
        told: impl Fn(Numbers) -> Option<Waits>,
    ) -> Result<Fetched, FetchError> {
        let mut reads = Reads::new(self.log()?, from);
        reads.plan(max_bytes)?;
        let fetched = execute(vec![reads], mode, &self.flow.reads, permit, told).await.pop();
        fetched.unwrap_or(Err(FetchError::Closed))
    }

    /// The first offset that retention keeps for a group that has not read it.
    pub fn protected(&self) -> Option<Offset> {
        self.log.as_ref().ok()?.protected()
    }

    /// Retention keeps what is at or above `from`; `None` = nothing but what its settings say.
    pub(super) fn protect(&self, from: Option<Offset>) {
        if let Ok(log) = &self.log {
            log.protect(from);
        }
    }

    /// Where its sealed segments ended when, oldest first. `now` is of the wall clock.
    pub(super) fn past(&self, now: Timestamp) -> Vec<Past> {
        let sealed = self.log.as_ref().map(Partition::sealed_segments).unwrap_or_default();
        let mut bytes = 0;
        let start = sealed.first().map(|first| (first.base_offset, 0, first.max_append_time));
        let ends = sealed.iter().map(|segment| {
            bytes += segment.bytes;
            (segment.next_offset, bytes, segment.max_append_time)
        });
        let past = start.into_iter().chain(ends).map(|(end, bytes, at)| {
            let age_ms = u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0);
            Past { age: Duration::from_millis(age_ms), end, bytes }
        });
        past.collect()
    }

    pub(super) fn log(&self) -> Result<&Partition, FetchError> {
        self.log.as_ref().map_err(|cause| FetchError::Disk { cause: cause.clone() })
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.flow.name).field("id", &self.id).finish()
    }
}

impl fmt::Debug for PartitionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All topics at one moment.
#[derive(Clone, Default)]
pub(super) struct TopicMap {
    by_id: HashMap<TopicId, Arc<Topic>>,
    by_name: HashMap<TopicName, Arc<Topic>>,
}

/// All topics, readable without a lock. Changed under the catalog's lock only.
#[derive(Default)]
pub(super) struct TopicTable {
    map: ArcSwap<TopicMap>,
    changing: Mutex<()>,
}

impl TopicTable {
    pub(super) fn by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.map.load().by_id.get(&id).cloned()
    }

    pub(super) fn by_name(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.map.load().by_name.get(name).cloned()
    }

    pub(super) fn now(&self) -> Arc<TopicMap> {
        self.map.load_full()
    }

    pub(super) fn insert(&self, topics: impl IntoIterator<Item = Arc<Topic>>) {
        self.change(|map| {
            for topic in topics {
                map.by_id.insert(topic.id(), Arc::clone(&topic));
                map.by_name.insert(topic.name().clone(), topic);
            }
        });
    }

    pub(super) fn remove(&self, topic: &Topic) {
        self.change(|map| {
            map.by_id.remove(&topic.id());
            map.by_name.remove(topic.name());
        });
    }

    fn change(&self, change: impl FnOnce(&mut TopicMap)) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut map = TopicMap::clone(&self.map.load());
        change(&mut map);
        self.map.store(Arc::new(map));
    }
}

impl TopicMap {
    /// All topics, by name.
    pub(super) fn sorted(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.by_name.values().cloned().collect();
        topics.sort_by(|a, b| a.name().cmp(b.name()));
        topics
    }

    /// Number of topics and of their partitions.
    pub(super) fn counts(&self) -> (u64, u64) {
        let partitions = self.by_id.values().map(|topic| u64::from(topic.partition_count()));
        (self.by_id.len() as u64, partitions.sum())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_id.values()
    }
}
