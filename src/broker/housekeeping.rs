//! Background work: all that flow control decides, which partitions have files. Space is given back
//! in `space.rs`; retention by time and size, and clean marks on quiet partitions, are storage's work.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::backlog::Backlogs;
use super::catalog::CatalogRecord;
use super::core::Core;
use super::flow::{Paces, Pressure};
use crate::types::TopicPartition;

/// Lets flow control decide, and wakes those that wait for it; tells who is limited, and how groups
/// keep up. Nothing of it waits for anything but the next tick.
pub(super) async fn tick_flow(core: Arc<Core>, mut backlogs: Backlogs) {
    let mut tick = tokio::time::interval(FLOW_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (tell_each, look_each) = (ticks(Pressure::TICK), ticks(Paces::LOOK_EVERY));
    let mut ticked = 0u64;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = core.limits_changed.notified() => {
                backlogs.scan();
                backlogs.tick();
                continue;
            }
        }
        let now = core.env.clock.monotonic();
        for wake in core.flow.tick(now, core.as_ref()) {
            wake.offer_changed(now);
        }
        divide_quotas(&core, now);
        backlogs.tick();
        ticked += 1;
        if ticked.is_multiple_of(tell_each) {
            core.tell_pressure(now);
        }
        if ticked.is_multiple_of(look_each) {
            core.look_at_groups(now);
        }
    }
}

/// Ticks in so much time.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / FLOW_INTERVAL.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The longest a publisher waits for what another left, and a limit for what a group committed; a
/// few syncs of a disk.
const FLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Divides quotas among those who are under them, and tells them what topics store.
fn divide_quotas(core: &Core, now: Duration) {
    if core.flow.quotas.is_unused() {
        return;
    }
    let topics = core.topics.now().sorted();
    core.flow.quotas.measure_storage(topics.iter().map(|topic| (topic.name(), topic.bytes())));
    core.flow.quotas.tick(now);
}

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
