//! `__pressure`: what came and went, as records of a topic of the broker's own, for whoever wants to
//! act on it without asking each second.
//!
//! The ring of events is the queue: bounded, and read with a number that says what was missed.
//! Records are appended below admission, so that no limit that they tell of can hold them up.
//!
//! # Invariants
//! - Nothing is written while the disk is FULL: what the ring still has by then is written later.
//! - The topic exists only once there was something to tell.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::core::Core;
use super::flow::DiskLevel;
use super::request::NewTopic;
use super::topic::Topic;
use super::topics::create;
use crate::record::{BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, RecordRef};
use crate::storage::{Append, AppendError, Appended};
use crate::types::{Acks, Durability, OnFull, PartitionId, PressureEvent, TopicConfig, TopicName};

/// Its name.
const NAME: &str = "__pressure";
/// How late an event may be in the topic.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// Events of one batch.
const EVENTS_PER_BATCH: usize = 512;
/// After a failure, which is not told again meanwhile.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// An hour of a bad day, and never more than this.
const BYTES_MAX: u64 = 16 << 20;
const SEGMENT_BYTES: u64 = 4 << 20;
const RETENTION_MS: u64 = 3_600_000;

/// Writes events as they come, until the broker ends.
pub(super) async fn tell_pressure(core: Arc<Core>) {
    let mut tick = tokio::time::interval(WRITE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = 0;
    loop {
        tick.tick().await;
        match write(&core, next).await {
            Ok(after) => next = after,
            Err(cause) => {
                warn!("{NAME} gets no events for a while: {cause}");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }
}

/// Writes what came since number `from`; where to go on.
async fn write(core: &Arc<Core>, from: u64) -> Result<u64, String> {
    let followed = core.flow.pressure.events().follow(from, EVENTS_PER_BATCH);
    if followed.events.is_empty() || core.flow.disk.level() >= DiskLevel::Full {
        return Ok(from);
    }
    let topic = topic(core).await?;
    let partition = topic.partition(PartitionId(0)).ok_or("it has no partition")?;
    let log = partition.log().map_err(|e| e.to_string())?;
    let (batch, written) = batch(&followed.events)?;
    let (told, answer) = oneshot::channel();
    let done = move |result: Result<Appended, AppendError>| {
        // Whoever waits goes only with the broker.
        let _ = told.send(result);
    };
    let queued = log.append(Append::new(batch, Acks::Topic, Box::new(done)));
    queued.map_err(|_| "the log writer's queue is full")?;
    match answer.await {
        Ok(Ok(_)) => {
            core.metrics.pressure_events_missed.add(followed.missed);
            Ok(followed.next - (followed.events.len() - written) as u64)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the log is closed".to_owned()),
    }
}

async fn topic(core: &Arc<Core>) -> Result<Arc<Topic>, String> {
    let name: TopicName = NAME.parse().map_err(|e| format!("{e}"))?;
    if let Some(topic) = core.topics.by_name(&name) {
        return Ok(topic);
    }
    let config = TopicConfig {
        durability: Durability::Os,
        segment_bytes: SEGMENT_BYTES,
        retention_ms: Some(RETENTION_MS),
        max_bytes: Some(BYTES_MAX),
        on_full: OnFull::DropOldest,
        ..TopicConfig::default()
    };
    create(core, NewTopic { name, partitions: 1, config }).await.map_err(|e| e.to_string())
}

/// As many of the events as fit, and how many those are.
fn batch(events: &[PressureEvent]) -> Result<(CheckedBatch, usize), String> {
    let mut batch = BatchBuilder::new(BuilderOptions::default());
    for event in events {
        let (key, value) = (event.entity.to_string(), value(event));
        let record = RecordRef {
            timestamp: event.at,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..RecordRef::default()
        };
        if batch.push(&record).is_err() {
            break;
        }
    }
    let written = batch.record_count() as usize;
    let bytes: Bytes = batch.build();
    let limits = BatchLimits::client(bytes.len());
    let batch = CheckedBatch::check(bytes, &limits).map_err(|e| e.to_string())?;
    Ok((batch, written))
}

/// For a program, with one sentence for a person.
fn value(event: &PressureEvent) -> String {
    json!({
        "at_ms": event.at.0,
        "kind": event.entity.kind,
        "name": event.entity.name,
        "from": event.from,
        "to": event.to,
        "observed": event.observed,
        "limit": event.limit,
        "unit": event.unit,
        "retry_after_ms": event.retry_after_ms,
        "note": event.note,
        "says": event.to_string(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Records;
    use crate::types::{Entity, EntityKind, Timestamp};

    fn event(to: &str) -> PressureEvent {
        PressureEvent {
            at: Timestamp(77),
            entity: Entity::new(EntityKind::Client, "shop"),
            from: "none".to_owned(),
            to: to.to_owned(),
            observed: 7,
            limit: 5,
            unit: "records".to_owned(),
            retry_after_ms: 180,
            note: String::new(),
        }
    }

    #[test]
    fn a_record_says_it_to_programs_and_to_people() {
        let back = PressureEvent { from: "quota:client/shop".to_owned(), ..event("none") };
        let (batch, _) = batch(&[event("quota:client/shop"), back]).expect("a batch");
        let records = Records::open(batch.bytes().clone(), &Default::default()).expect("records");
        let values: Vec<serde_json::Value> = records
            .map(|record| record.expect("a record"))
            .map(|record| serde_json::from_slice(&record.value.expect("a value")).expect("JSON"))
            .collect();
        assert_eq!((&values[0]["kind"], &values[0]["name"]), (&json!("client"), &json!("shop")));
        assert_eq!(values[0]["retry_after_ms"], 180);
        assert_eq!(
            values[0]["says"],
            "client shop is limited by quota:client/shop: 7 of 5 records, again in 180 ms"
        );
        assert_eq!(values[1]["says"], "client shop is no longer limited by quota:client/shop");
    }

    #[test]
    fn what_does_not_fit_one_batch_goes_into_the_next() {
        let name = "n".repeat(2_000);
        let long = PressureEvent { from: format!("quota:{name}"), ..event(&name) };
        let (_, written) = batch(&vec![long; EVENTS_PER_BATCH]).expect("a batch");
        assert!((1..EVENTS_PER_BATCH).contains(&written), "{written}");
    }
}
