//! A paced reader under a storm of producers. The control is the same storm against a bare server beside
//! it: it takes the processors away without being the broker's business.

use std::time::Duration;

use super::{Bound, Case, CaseReport, PressureOptions};
use crate::bench::{BenchError, Spread, Target, WorkloadOptions};
use crate::bench::{consume, produce};
use crate::client::{ConsumerOptions, StopAt};
use crate::env::{Clock, SystemClock};
use crate::types::TopicName;

const CONNECTIONS: usize = 64;
/// What the reader wants of what it could read alone.
const PACE: f64 = 0.3;
/// What it gets through what it gets beside the control.
const SHARE_MIN: f64 = 0.8;
const READ_BYTES: u64 = 256 << 20;
const RECORD_BYTES: usize = 1 << 10;

pub(super) async fn run(
    (floor, broker): (&Target, &Target),
    options: &PressureOptions,
    progress: &mut dyn FnMut(String),
) -> Result<CaseReport, BenchError> {
    let read = WorkloadOptions {
        topic: "storm-read".to_owned(),
        count: Some(READ_BYTES / RECORD_BYTES as u64),
        record_bytes: RECORD_BYTES,
        warm_up: Duration::ZERO,
        ..WorkloadOptions::default()
    };
    broker.create_topic(&read, &[]).await?;
    produce(broker, &read).await?;
    let (mut solo, mut stormed, mut control, mut shares) = (vec![], vec![], vec![], vec![]);
    for round in 1..=options.rounds.max(1) {
        let alone = consume(broker, &read).await?.mb_per_s;
        let pace = PACE * alone;
        let (one, two) = if round % 2 == 0 { (floor, broker) } else { (broker, floor) };
        let first = under_storm(broker, one, pace, options).await?;
        let second = under_storm(broker, two, pace, options).await?;
        let (got, beside) = if round % 2 == 0 { (second, first) } else { (first, second) };
        progress(format!(
            "round {round}: alone {alone:.1} MB/s, wants {pace:.1}, gets {got:.1} under the storm, {beside:.1} \
             beside it"
        ));
        solo.push(alone);
        stormed.push(got);
        control.push(beside);
        shares.push(got / beside.max(1e-9));
    }
    let bounds = vec![Bound::at_least(
        "read under the storm through the control",
        SHARE_MIN,
        Spread::of(shares),
    )];
    let figures = vec![
        ("solo_mb_per_s", Spread::of(solo)),
        ("storm_mb_per_s", Spread::of(stormed)),
        ("control_mb_per_s", Spread::of(control)),
    ];
    Ok(CaseReport::new(Case::Storm, bounds, figures))
}

async fn under_storm(
    broker: &Target,
    stormed: &Target,
    pace: f64,
    options: &PressureOptions,
) -> Result<f64, BenchError> {
    let storm = WorkloadOptions {
        topic: "storm-write".to_owned(),
        connections: CONNECTIONS,
        partitions: 8,
        window: 4,
        duration: options.duration,
        warm_up: options.warm_up,
        ..WorkloadOptions::default()
    };
    stormed.create_topic(&storm, &[]).await?;
    let (storm_report, read) =
        tokio::join!(produce(stormed, &storm), read_paced(broker, pace, options));
    storm_report?;
    stormed.delete_topic(&storm).await?;
    read
}

/// Reads at most `pace` millions of bytes a second, over and over; what it got of that.
async fn read_paced(
    broker: &Target,
    pace: f64,
    options: &PressureOptions,
) -> Result<f64, BenchError> {
    let client = broker.connect().await?;
    let topic: TopicName = "storm-read".parse()?;
    tokio::time::sleep(options.warm_up).await;
    let clock = SystemClock::new();
    let mut bytes = 0u64;
    while clock.monotonic() < options.duration {
        let mut reading = ConsumerOptions::topic(topic.clone());
        reading.stop = StopAt::End;
        let mut consumer = client.consumer(reading).await?;
        while let Some(batches) = consumer.next_batch().await {
            bytes += batches?.data.len() as u64;
            let now = clock.monotonic();
            if now >= options.duration {
                break;
            }
            let due = Duration::from_secs_f64(bytes as f64 / 1e6 / pace.max(1e-3));
            tokio::time::sleep(due.min(options.duration).saturating_sub(now)).await;
        }
    }
    Ok(bytes as f64 / 1e6 / clock.monotonic().as_secs_f64())
}
