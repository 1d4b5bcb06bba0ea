//! The consume workload: reads what was written before, batch by batch.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{BenchError, Outcome, Report, Target, Usage, WorkloadOptions};
use crate::client::{Client, ConsumerOptions, Reading, StopAt};
use crate::env::{Clock, SystemClock};
use crate::types::{PartitionId, TopicName};

/// Reads the whole topic once, its partitions spread over the connections.
pub async fn consume(target: &Target, options: &WorkloadOptions) -> Result<Report, BenchError> {
    let topic: TopicName = options.topic.parse()?;
    let connections = u32::try_from(options.connections.max(1)).unwrap_or(u32::MAX);
    let mut readers = Vec::new();
    for lane in 0..connections.min(options.partitions.max(1)) {
        let mine = (lane..options.partitions.max(1)).step_by(connections as usize);
        let partitions: Vec<PartitionId> = mine.map(PartitionId).collect();
        readers.push((target.connect().await?, partitions));
    }
    // Connections outlast the last reading: a thread of the floor ends with its connection.
    let connected: Vec<Client> = readers.iter().map(|(client, _)| client.clone()).collect();
    let clock = SystemClock::new();
    let before = (target.usage(), Usage::of(std::process::id()));
    let start = clock.monotonic();
    let mut tasks = JoinSet::new();
    for (client, partitions) in readers {
        tasks.spawn(read(client, topic.clone(), partitions, (clock.clone(), start)));
    }
    let mut outcome = Outcome::default();
    while let Some(lane) = tasks.join_next().await {
        outcome.add(lane??);
    }
    outcome.seconds = Some((clock.monotonic() - start).as_secs_f64());
    let report = Report::new("consume", target, options, outcome, before);
    drop(connected);
    Ok(report)
}

async fn read(
    client: Client,
    topic: TopicName,
    partitions: Vec<PartitionId>,
    (clock, start): (SystemClock, Duration),
) -> Result<Outcome, BenchError> {
    let reading = Reading::Partitions { topic, partitions: Some(partitions) };
    let options = ConsumerOptions { stop: StopAt::End, ..ConsumerOptions::new(reading) };
    let mut consumer = client.consumer(options).await?;
    let mut outcome = Outcome::default();
    while let Some(batches) = consumer.next_batch().await {
        let batches = batches?;
        outcome.moved(clock.monotonic() - start, 0, batches.data.len() as u64);
    }
    outcome.records = consumer.positions().iter().map(|(_, _, at)| at.0.unsigned_abs()).sum();
    Ok(outcome)
}
