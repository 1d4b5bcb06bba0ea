//! The end-to-end workload: how long from the moment a record is due until a subscriber has it.

use std::time::Duration;

use super::produce::value;
use super::{BenchError, Outcome, Pace, Report, Target, Usage, WorkloadOptions};
use crate::client::{Client, Consumer, ConsumerOptions, NewRecord, ProducerOptions, StartAt};
use crate::env::{Clock, SystemClock};
use crate::types::TopicName;

/// A record that is so late will not come: the run fails.
const LATE_MAX: Duration = Duration::from_secs(10);
/// The due time stands in a record's first bytes.
const STAMP_BYTES: usize = 8;

/// Sends single records at the rate and receives them on another connection.
pub async fn e2e(target: &Target, options: &WorkloadOptions) -> Result<Report, BenchError> {
    let rate = options.rate.and_then(Pace::new);
    let pace = rate.ok_or(BenchError::Options("end to end needs a --rate above 0"))?;
    if options.record_bytes < STAMP_BYTES {
        return Err(BenchError::Options("end to end needs records of at least 8 bytes"));
    }
    let topic: TopicName = options.topic.parse()?;
    let clock = SystemClock::new();
    let subscriber = subscribe(target, &topic).await?;
    let publisher = target.connect().await?;
    let start = clock.monotonic();
    let receiving = tokio::spawn(receive(subscriber, options.clone(), (clock.clone(), start)));
    let sending = tokio::spawn(send(publisher, options.clone(), pace, (clock.clone(), start)));
    tokio::time::sleep(options.warm_up).await;
    let before = (target.usage(), Usage::of(std::process::id()));
    sending.await??;
    let outcome = receiving.await??;
    Ok(Report::new("e2e", target, options, outcome, before))
}

async fn subscribe(target: &Target, topic: &TopicName) -> Result<Consumer, BenchError> {
    let options = ConsumerOptions { start: StartAt::End, ..ConsumerOptions::topic(topic.clone()) };
    let mut consumer = target.connect().await?.consumer(options).await?;
    // Nothing is subscribed before the first call; the topic is silent, so this one times out.
    let first = tokio::time::timeout(Duration::from_millis(500), consumer.next()).await;
    match first {
        Err(_silent) => Ok(consumer),
        Ok(_) => Err(BenchError::Options("somebody else writes to the topic of this bench")),
    }
}

async fn send(
    client: Client,
    options: WorkloadOptions,
    pace: Pace,
    (clock, start): (SystemClock, Duration),
) -> Result<(), BenchError> {
    let producer_options = ProducerOptions {
        acks: options.acks,
        linger: options.linger,
        batch_bytes: options.batch_bytes,
        ..ProducerOptions::default()
    };
    let producer = client.producer(&options.topic.parse()?, producer_options).await?;
    let mut ticks = pace.ticks(clock, options.warm_up + options.duration);
    let mut record = value(options.record_bytes);
    while let Some(due) = ticks.recv().await {
        let due = u64::try_from((due - start).as_nanos()).unwrap_or(u64::MAX);
        if let Some(stamp) = record.first_chunk_mut::<STAMP_BYTES>() {
            *stamp = due.to_le_bytes();
        }
        drop(producer.send(NewRecord::value(&record)).await?);
    }
    Ok(producer.close().await?)
}

async fn receive(
    mut consumer: Consumer,
    options: WorkloadOptions,
    (clock, start): (SystemClock, Duration),
) -> Result<Outcome, BenchError> {
    let mut outcome = Outcome::default();
    let end = options.warm_up + options.duration;
    loop {
        let next = tokio::time::timeout(LATE_MAX, consumer.next()).await;
        let Ok(Some(record)) = next else { return Err(BenchError::Options("records are missing")) };
        let record = record?;
        let now = clock.monotonic() - start;
        let stamp = record.record.value.as_deref().and_then(|v| v.first_chunk::<STAMP_BYTES>());
        let due = Duration::from_nanos(stamp.map_or(0, |stamp| u64::from_le_bytes(*stamp)));
        if due >= options.warm_up {
            outcome.moved(now, 1, options.record_bytes as u64);
            outcome.latencies.record(now.saturating_sub(due), 1);
        }
        // The last tick is due one interval before the end.
        if due + Duration::from_secs_f64(1.5 / options.rate.unwrap_or(1.0)) >= end {
            return Ok(outcome);
        }
    }
}
