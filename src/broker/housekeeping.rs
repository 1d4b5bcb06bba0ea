//! Background work: look at the disk, hold topics under `max_bytes`, note which partitions have
//! files. Retention by time and size, and clean marks on quiet partitions, are storage's own work.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::catalog::CatalogRecord;
use super::core::Core;
use super::topic::{PartitionHandle, Topic};
use crate::storage::{Partition, SealedSegment};
use crate::types::{OnFull, TopicPartition};

/// Looks at the disk in its period, and whenever somebody met its end.
pub(super) async fn watch_disk(core: Arc<Core>) {
    let mut pause = millis(core.options.housekeeping.disk_interval_ms);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.flow.look_at_disk.notified() => {}
        }
        let looking = Arc::clone(&core);
        match tokio::task::spawn_blocking(move || looking.observe_disk()).await {
            Ok(next) => pause = next.max(LOOK_PAUSE),
            Err(e) => warn!("looking at the disk died: {e}"),
        }
        // Also when asked: a burst of refusals asks once.
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Between two looks at the disk, however often somebody asks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Lets flow control decide, and wakes those that wait for it.
pub(super) async fn tick_flow(core: Arc<Core>) {
    let mut tick = tokio::time::interval(FLOW_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = core.env.clock.monotonic();
        for wake in core.flow.tick(now, core.as_ref()) {
            wake.offer_changed(now);
        }
    }
}

/// The longest a publisher waits for what another left; a few syncs of a disk.
const FLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Drops the oldest segments of topics over their limit, and corrects what is counted as stored.
pub(super) async fn hold_limits(core: Arc<Core>) {
    let period = millis(core.options.housekeeping.limits_interval_ms);
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = core.flow.over_limit.notified() => {}
        }
        let topics: Vec<Arc<Topic>> = core.topics.now().iter().cloned().collect();
        for topic in topics {
            hold_limit(&core, &topic).await;
        }
    }
}

async fn hold_limit(core: &Core, topic: &Topic) {
    let config = topic.config();
    let Some(max_bytes) = config.max_bytes else { return };
    topic.measure();
    if config.on_full != OnFull::DropOldest {
        return;
    }
    let mut bytes = topic.flow.limit.stored();
    while bytes > max_bytes {
        let dropped = match oldest_segment(topic) {
            Some((partition, segment)) => drop_segment(&partition, segment).await,
            // Nothing but active segments: the largest is sealed at its next append.
            None => seal_largest(topic).await,
        };
        if let Err(cause) = dropped {
            return warn!("topic {} stays over its limit: {cause}", topic.name());
        }
        topic.measure();
        let left = topic.flow.limit.stored();
        if left >= bytes {
            return;
        }
        core.metrics.dropped_bytes.add(bytes - left);
        bytes = left;
    }
}

/// The sealed segment to go next: of the partition that holds most, its oldest one.
fn oldest_segment(topic: &Topic) -> Option<(Arc<PartitionHandle>, SealedSegment)> {
    let partitions = topic.partitions();
    let sealed = |handle: &Arc<PartitionHandle>| {
        let segment = handle.log().ok()?.sealed_segments().first().copied()?;
        Some((Arc::clone(handle), segment))
    };
    partitions.iter().filter_map(sealed).max_by_key(|(handle, _)| handle.bytes())
}

async fn drop_segment(handle: &PartitionHandle, segment: SealedSegment) -> Result<(), String> {
    let log = handle.log().map_err(|e| e.to_string())?;
    log.trim(segment.next_offset).await.map(|_| ()).map_err(|e| e.to_string())
}

async fn seal_largest(topic: &Topic) -> Result<(), String> {
    let partitions = topic.partitions();
    let log: Option<&Partition> =
        partitions.iter().max_by_key(|handle| handle.bytes()).and_then(|handle| handle.log().ok());
    let Some(log) = log else { return Ok(()) };
    log.roll().await.map_err(|e| e.to_string())
}

/// Divides quotas among those who are under them, and tells them what topics store.
pub(super) async fn divide_quotas(core: Arc<Core>) {
    loop {
        tokio::time::sleep(QUOTA_INTERVAL).await;
        if core.flow.quotas.is_unused() {
            continue;
        }
        let topics = core.topics.now().sorted();
        core.flow.quotas.measure_storage(topics.iter().map(|topic| (topic.name(), topic.bytes())));
        core.flow.quotas.tick(core.env.clock.monotonic());
    }
}

/// How late a share may follow what others use.
const QUOTA_INTERVAL: Duration = Duration::from_millis(100);

/// Marks in the catalog which partitions have files, so that missing ones are noticed.
pub(super) async fn note_materialised(core: Arc<Core>) {
    let mut found = Vec::new();
    loop {
        tokio::time::sleep(MATERIALISED_INTERVAL).await;
        found.extend(core.storage.take_materialised());
        if !found.is_empty() {
            mark_materialised(&core, &mut found).await;
        }
    }
}

/// A mark late by this much only means that lost files are taken for none.
const MATERIALISED_INTERVAL: Duration = Duration::from_millis(500);
/// Marks per record: bounds its size.
const MARKS_MAX: usize = 10_000;

/// Commits marks for `found`; what could not be marked stays in it.
pub(super) async fn mark_materialised(core: &Arc<Core>, found: &mut Vec<TopicPartition>) {
    let mut catalog = core.catalog.lock().await;
    found.retain(|id| catalog.machine().topic(id.topic).is_some());
    while !found.is_empty() {
        let rest = found.split_off(found.len().min(MARKS_MAX));
        let partitions = std::mem::replace(found, rest);
        let record = CatalogRecord::Materialised { partitions };
        if let Err(e) = catalog.commit(std::slice::from_ref(&record)).await {
            warn!("partitions are not marked as written yet: {e}");
            if let CatalogRecord::Materialised { partitions } = record {
                found.extend(partitions);
            }
            return;
        }
    }
}

fn millis(period: u64) -> Duration {
    Duration::from_millis(period.max(1))
}
