//! Ten thousand publishers on a thousand connections, all of which always want more; half of them heed no
//! grant. The broker's own memory stays within its pool and what connections need.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::flood::fresh_topic;
use super::{Bound, Case, CaseReport, PressureOptions};
use crate::bench::produce::{batch_of, value};
use crate::bench::{BenchError, Outcome, Spread, Target};
use crate::client::{BatchSender, ClientError};
use crate::env::{Clock, SystemClock};
use crate::types::{Acks, Class, ErrorKind, PartitionId};

/// The pool that the broker is started with.
pub const POOL_BYTES: u64 = 256 << 20;
const CONNECTIONS: usize = 1_000;
const PUBLISHERS: usize = 10;
const PARTITIONS: u32 = 8;
const MIB: f64 = (1 << 20) as f64;
const ABOVE_POOL_MAX_MIB: f64 = 64.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(
    target: &Target,
    options: &PressureOptions,
    progress: &mut dyn FnMut(String),
) -> Result<CaseReport, BenchError> {
    let topic = fresh_topic(target, "greedy", PARTITIONS, &[("retention_bytes", "256MiB")]).await?;
    let before = rss_anon(target)?;
    let (batch, _) = batch_of(&value(1 << 10), 64 << 10)?;
    let clock = SystemClock::new();
    let mut opened = Vec::new();
    for number in 0..CONNECTIONS {
        let client = target.connect().await?;
        for _ in 0..PUBLISHERS {
            opened.push(match number % 2 {
                0 => client.batch_sender(&topic, Class::Normal).await?,
                _ => client.batch_sender_unlimited(&topic).await?,
            });
        }
    }
    let connected = rss_anon(target)?;
    progress(format!("{} publishers are open after {:.1?}", opened.len(), clock.monotonic()));
    let end = clock.monotonic() + options.duration;
    let mut tasks = JoinSet::new();
    for (number, sender) in opened.into_iter().enumerate() {
        let partition = PartitionId(u32::try_from(number).unwrap_or(0) % PARTITIONS);
        tasks.spawn(want(sender, partition, batch.clone(), (clock.clone(), end)));
    }
    let mut most = connected;
    while clock.monotonic() < end {
        tokio::time::sleep(SAMPLE_EVERY).await;
        most = most.max(rss_anon(target)?);
    }
    let mut outcome = Outcome::default();
    while let Some(done) = tasks.join_next().await {
        outcome.add(done??);
    }
    let above = most / MIB - POOL_BYTES as f64 / MIB;
    progress(format!("{} acknowledged, {} refused", outcome.records, outcome.throttled));
    let one = |figure: f64| Spread::of([figure]);
    let bounds =
        vec![Bound::at_most("largest RssAnon above the pool, MiB", ABOVE_POOL_MAX_MIB, one(above))];
    let figures = vec![
        ("rss_anon_start_mib", one(before / MIB)),
        ("rss_anon_connected_mib", one(connected / MIB)),
        ("rss_anon_most_mib", one(most / MIB)),
        ("batches_acknowledged", one(outcome.records as f64)),
        ("batches_refused", one(outcome.throttled as f64)),
    ];
    Ok(CaseReport::new(Case::Greedy, bounds, figures))
}

fn rss_anon(target: &Target) -> Result<f64, BenchError> {
    let usage = target.usage().ok_or(BenchError::Options("the broker's process is not known"))?;
    Ok(usage.rss_anon_bytes as f64)
}

/// Always wants one more; what is refused it tries again when it was told to.
async fn want(
    sender: BatchSender,
    partition: PartitionId,
    batch: Bytes,
    (clock, end): (SystemClock, Duration),
) -> Result<Outcome, ClientError> {
    let mut outcome = Outcome::default();
    while clock.monotonic() < end {
        match sender.produce_batch(partition, batch.clone(), Acks::Topic).await {
            Ok(_) => outcome.moved(clock.monotonic(), 1, batch.len() as u64),
            Err(error) if error.kind() == ErrorKind::Throttle => {
                outcome.throttled += 1;
                let wait = error.retry_after().unwrap_or(SAMPLE_EVERY);
                tokio::time::sleep(wait.min(end.saturating_sub(clock.monotonic()))).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(outcome)
}
