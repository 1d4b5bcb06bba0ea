//! Space comes back where it is short: what a look at the disk or at a full topic orders.
//!
//! | while | what goes |
//! |---|---|
//! | the disk is LOW or worse | what is past retention, at once, active segments too |
//! | it is HIGH or worse | the oldest segments of topics with `on_full=drop_oldest`, until HIGH ends |
//! | a topic is at its limit | its records past retention; with `drop_oldest` its oldest segments |
//!
//! # Invariants
//! No append does any of this, or waits for it. Nothing goes by `drop_oldest` that a group protects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::core::Core;
use super::flow::{
    DiskLevel, Measured, PartitionSpace, Sealed, TopicEdge, TopicRules, TopicSpace, TopicWatch,
    TrimOrder, plan,
};
use super::topic::{PartitionHandle, Topic};
use crate::storage::{Partition, SealedSegment};
use crate::types::{Offset, OnFull, Timestamp, TopicConfig, TopicId};

/// Between two looks at the disk, however often somebody asks: a burst of refusals asks once.
const DISK_PAUSE: Duration = Duration::from_millis(50);
/// The same between two looks at topics, where dropping has to keep up with writing.
const TOPICS_PAUSE: Duration = Duration::from_millis(5);
/// How often topics are looked at while one of them is limited.
const LIMITED_INTERVAL: Duration = Duration::from_millis(250);

/// Looks at the disk in its period and whenever somebody met its end, and carries out what follows.
pub(super) async fn watch_disk(core: Arc<Core>) {
    let mut relief = Relief::default();
    let mut pause = core.flow.next_look();
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.flow.look_at_disk.notified() => {}
        }
        let looking = Arc::clone(&core);
        match tokio::task::spawn_blocking(move || looking.observe_disk()).await {
            Ok(next) => pause = next.max(DISK_PAUSE),
            Err(e) => warn!("looking at the disk died: {e}"),
        }
        relief.after_look(&core).await;
        tokio::time::sleep(DISK_PAUSE).await;
    }
}

/// What was ordered for the disk so far.
#[derive(Default)]
struct Relief {
    level: DiskLevel,
    /// The last look trimmed: its space is not free yet.
    trimmed: bool,
}

impl Relief {
    async fn after_look(&mut self, core: &Arc<Core>) {
        let level = core.flow.disk.level();
        let before = std::mem::replace(&mut self.level, level);
        if level == DiskLevel::Normal {
            if before > DiskLevel::Normal {
                hold_back_again(core).await;
            }
            return;
        }
        match before {
            DiskLevel::Normal => core.storage.reclaim(),
            _ => core.topics.now().iter().for_each(|topic| reclaim_expired(core, topic)),
        }
        let trims = level >= DiskLevel::High && !self.trimmed;
        self.trimmed = trims && trim_for_disk(core).await;
    }
}

/// The reserve, once it was spent.
async fn hold_back_again(core: &Arc<Core>) {
    let storage = core.storage.clone();
    match tokio::task::spawn_blocking(move || storage.ensure_reserve()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => warn!("no space is held back for metadata: {e}"),
        Err(e) => warn!("holding space back died: {e}"),
    }
}

/// Lets go what is past retention, where something is.
fn reclaim_expired(core: &Core, topic: &Topic) {
    let now = core.env.clock.now();
    for handle in topic.partitions().iter() {
        let log = handle.log().ok();
        if let Some(log) = log.filter(|log| log.retention_edge().is_some_and(|edge| edge <= now)) {
            log.reclaim();
        }
    }
}

/// Trims topics that drop their oldest until HIGH would end. `true` when anything was trimmed.
async fn trim_for_disk(core: &Core) -> bool {
    let needed = core.flow.space_needed();
    if needed == 0 {
        return false;
    }
    let topics = core.topics.now().sorted();
    let drops = topics.iter().filter(|topic| topic.config_now().on_full == OnFull::DropOldest);
    let spaces: Vec<TopicSpace> = drops.map(|topic| space_of(topic)).collect();
    let orders = plan(&spaces, needed);
    for order in &orders {
        match carry_out(core, order).await {
            Ok(()) => core.metrics.dropped_bytes.add(order.bytes),
            Err(cause) => warn!("partition {} is not trimmed: {cause}", order.id),
        }
    }
    !orders.is_empty()
}

fn space_of(topic: &Topic) -> TopicSpace {
    let sealed =
        |segment: SealedSegment| Sealed { next: segment.next_offset, bytes: segment.bytes };
    let partition = |handle: &Arc<PartitionHandle>| {
        let log = handle.log().ok()?;
        Some(PartitionSpace {
            id: handle.id(),
            bytes: log.bytes(),
            sealed: log.sealed_segments().into_iter().map(sealed).collect(),
            protected: log.protected(),
        })
    };
    TopicSpace { partitions: topic.partitions().iter().filter_map(partition).collect() }
}

async fn carry_out(core: &Core, order: &TrimOrder) -> Result<(), String> {
    let topic = core.topics.by_id(order.id.topic);
    // It may be gone by now.
    let Some(handle) = topic.and_then(|topic| topic.partition(order.id.partition)) else {
        return Ok(());
    };
    trim(&handle, order.to).await
}

async fn trim(handle: &PartitionHandle, to: Offset) -> Result<(), String> {
    let log = handle.log().map_err(|e| e.to_string())?;
    log.trim(to).await.map(|_| ()).map_err(|e| e.to_string())
}

/// Holds topics at their limits: measures what they store, lets go what may go.
pub(super) async fn hold_limits(core: Arc<Core>) {
    let period = Duration::from_millis(core.options.housekeeping.limits_interval_ms.max(1));
    let mut watches: HashMap<TopicId, TopicWatch> = HashMap::new();
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.flow.over_limit.notified() => {}
        }
        let topics: Vec<Arc<Topic>> = core.topics.now().iter().cloned().collect();
        let there: HashSet<TopicId> = topics.iter().map(|topic| topic.id()).collect();
        watches.retain(|id, _| there.contains(id));
        pause = period;
        for topic in &topics {
            let config = topic.config();
            if let Some(rules) = rules_of(&config) {
                let watch = watches.entry(topic.id()).or_default();
                pause = pause.min(hold_limit(&core, topic, &config, &rules, watch).await);
            }
        }
        tokio::time::sleep(TOPICS_PAUSE).await;
    }
}

/// What to hold a topic to; `None` when it has no limit.
fn rules_of(config: &TopicConfig) -> Option<TopicRules> {
    let by_count =
        |_| TopicRules { max_bytes: u64::MAX, at_limit: config.on_full.into(), slack: 0 };
    TopicRules::of(config).or_else(|| config.max_segments.map(by_count))
}

/// Looks at one topic. Returns when the next look is due.
async fn hold_limit(
    core: &Core,
    topic: &Topic,
    config: &TopicConfig,
    rules: &TopicRules,
    watch: &mut TopicWatch,
) -> Duration {
    let (now, wall) = (core.env.clock.monotonic(), core.env.clock.now());
    let mut measured = measure(topic, wall);
    match watch.look(now, rules, &measured, &topic.flow.limit) {
        Some(TopicEdge::Limited) => info!("topic {} is at its limit", topic.name()),
        Some(TopicEdge::Free) => info!("topic {} has room again", topic.name()),
        None => {}
    }
    let full_with = measured.stored.saturating_add(u64::from(config.max_message_bytes));
    let near = full_with > rules.max_bytes || measured.stored > rules.max_bytes / 10 * 9;
    if watch.is_limited() || near {
        reclaim_expired(core, topic);
    }
    while TopicWatch::over(rules, config.max_segments, &measured).is_some() {
        if let Err(cause) = drop_oldest(topic).await {
            warn!("topic {} stays over its limit: {cause}", topic.name());
            break;
        }
        let left = measure(topic, wall);
        if (left.stored, left.segments) >= (measured.stored, measured.segments) {
            break;
        }
        core.metrics.dropped_bytes.add(measured.stored.saturating_sub(left.stored));
        topic.flow.limit.measured(left.stored);
        measured = left;
    }
    let over = TopicWatch::over(rules, config.max_segments, &measured).is_some();
    match (watch.is_limited() || over, near) {
        (true, _) => LIMITED_INTERVAL,
        (false, true) => measured.retention_edge.unwrap_or(Duration::MAX).max(LIMITED_INTERVAL),
        (false, false) => Duration::MAX,
    }
}

fn measure(topic: &Topic, wall: Timestamp) -> Measured {
    let mut measured = Measured { protected: true, ..Measured::default() };
    for handle in topic.partitions().iter() {
        let Ok(log) = handle.log() else { continue };
        if !log.is_materialised() {
            continue;
        }
        measured.stored = measured.stored.saturating_add(log.bytes());
        let segments = u32::try_from(log.segment_count()).unwrap_or(u32::MAX);
        measured.segments = measured.segments.saturating_add(segments);
        if is_oldest_protected(log) {
            continue;
        }
        measured.protected = false;
        let edge = log.retention_edge().map(|edge| {
            Duration::from_millis(u64::try_from(edge.0.saturating_sub(wall.0)).unwrap_or(0))
        });
        measured.retention_edge = measured.retention_edge.into_iter().chain(edge).min();
    }
    measured.protected &= measured.segments > 0;
    measured
}

fn is_oldest_protected(log: &Partition) -> bool {
    let Some(protected) = log.protected() else { return false };
    let first = log.sealed_segments().first().map(|segment| segment.next_offset);
    protected < first.unwrap_or_else(|| log.offsets().log_end)
}

/// Of the partition that holds most, its oldest sealed segment; where there is none, the largest
/// active one is sealed at its next append.
async fn drop_oldest(topic: &Topic) -> Result<(), String> {
    if let Some((handle, segment)) = oldest_segment(topic) {
        return trim(&handle, segment.next_offset).await;
    }
    let partitions = topic.partitions();
    let largest = partitions.iter().max_by_key(|handle| handle.bytes());
    let Some(Ok(log)) = largest.map(|handle| handle.log()) else { return Ok(()) };
    log.roll().await.map_err(|e| e.to_string())
}

fn oldest_segment(topic: &Topic) -> Option<(Arc<PartitionHandle>, SealedSegment)> {
    let partitions = topic.partitions();
    let sealed = |handle: &Arc<PartitionHandle>| {
        let log = handle.log().ok()?;
        let segment = log.sealed_segments().first().copied()?;
        let free = log.protected().is_none_or(|protected| segment.next_offset <= protected);
        free.then(|| (Arc::clone(handle), segment))
    };
    partitions.iter().filter_map(sealed).max_by_key(|(handle, _)| handle.bytes())
}
