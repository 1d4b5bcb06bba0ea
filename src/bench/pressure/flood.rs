//! Producers that send as much as they may, or more than they may: one record fills a batch.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinSet;

use super::PressureOptions;
use crate::bench::produce::value;
use crate::bench::{BenchError, Outcome, Pace, Target};
use crate::client::{Client, ClientError, Delivery, NewRecord, ProducerOptions, Run, TrySendError};
use crate::env::{Clock, SystemClock};
use crate::types::{ErrorCode, TopicName};

/// Bytes of a record's value: with its frame it fills a batch of 64 KiB.
pub(super) const RECORD_BYTES: usize = 60 << 10;
const BATCH_BYTES: usize = 64 << 10;
/// What one producer buffers: small, so that the delay that is measured is the broker's.
const BUFFER_BYTES: usize = 1 << 20;

/// How late a record may come: no processor time is taken from the broker for waking more often.
const GRAIN: Duration = Duration::from_millis(1);

/// How records come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Demand {
    /// The next one as soon as there is room.
    Closed,
    /// So many bytes a second from each producer, whatever becomes of them.
    Open(f64),
}

/// One producer's connection and topic.
pub(super) type Lane = (Client, TopicName);

/// Runs all of them at the same time.
pub(super) async fn flood(
    lanes: Vec<Lane>,
    demand: Demand,
    options: &PressureOptions,
) -> Result<Flooded, BenchError> {
    let clock = SystemClock::new();
    let mut tasks = JoinSet::new();
    for (number, (client, topic)) in lanes.into_iter().enumerate() {
        let producer = Producer { client, topic, demand, clock: clock.clone(), options: *options };
        tasks.spawn(async move { producer.run().await.map(|moved| (number, moved)) });
    }
    let mut outcomes = Vec::new();
    while let Some(done) = tasks.join_next().await {
        outcomes.push(done??);
    }
    outcomes.sort_by_key(|(number, _)| *number);
    let mut flooded = Flooded::default();
    for (_, (outcome, refused_by)) in outcomes {
        flooded.outcomes.push(outcome);
        for (limit, times) in refused_by {
            *flooded.refused_by.entry(limit).or_default() += times;
        }
    }
    Ok(flooded)
}

/// What became of a flood.
#[derive(Default)]
pub(super) struct Flooded {
    /// What each producer moved in the measured time.
    pub(super) outcomes: Vec<Outcome>,
    /// How often each limit refused, warm-up included.
    pub(super) refused_by: RefusedBy,
}

/// Refusals by the limit they name.
pub(super) type RefusedBy = BTreeMap<String, u64>;

/// Millions of bytes a second of the measured time.
pub(super) fn mb_per_s(outcomes: &[Outcome], options: &PressureOptions) -> f64 {
    let bytes: u64 = outcomes.iter().map(|outcome| outcome.bytes).sum();
    bytes as f64 / 1e6 / options.duration.as_secs_f64()
}

/// Makes a topic anew.
pub(super) async fn fresh_topic(
    target: &Target,
    name: &str,
    partitions: u32,
    settings: &[(&str, &str)],
) -> Result<TopicName, BenchError> {
    let name: TopicName = name.parse()?;
    let admin = target.connect().await?.admin();
    match admin.delete_topic(&name, Run::Really).await {
        Err(error) if error.code() != ErrorCode::TopicNotFound => return Err(error.into()),
        _ => {}
    }
    let settings: Vec<(String, String)> =
        settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    admin.create_topic(&name, partitions, &settings, Run::Really).await?;
    Ok(name)
}

struct Producer {
    client: Client,
    topic: TopicName,
    demand: Demand,
    clock: SystemClock,
    options: PressureOptions,
}

impl Producer {
    async fn run(self) -> Result<(Outcome, RefusedBy), BenchError> {
        let options = ProducerOptions {
            batch_bytes: BATCH_BYTES,
            buffer_bytes: BUFFER_BYTES,
            ..ProducerOptions::default()
        };
        let producer = self.client.producer(&self.topic, options).await?;
        let value = value(RECORD_BYTES);
        let (mut outcome, mut refused_by) = (Outcome::default(), RefusedBy::new());
        let mut waiting = FuturesUnordered::new();
        let mut ticks = match self.demand {
            Demand::Closed => None,
            Demand::Open(bytes_per_s) => Pace::new(bytes_per_s / RECORD_BYTES as f64)
                .map(|pace| pace.coarse(GRAIN).ticks(self.clock.clone(), self.end())),
        };
        while self.clock.monotonic() < self.end() {
            let record = NewRecord::value(&value);
            tokio::select! {
                biased;
                Some((since, done)) = waiting.next() => self.count(&mut outcome, since, done)?,
                due = next(&mut ticks), if ticks.is_some() => {
                    let Some(due) = due else { break };
                    match producer.try_send(record) {
                        Ok(delivery) => waiting.push(wait(due, delivery)),
                        Err(TrySendError::Pushback(pushback)) => {
                            outcome.throttled += 1;
                            *refused_by.entry(pushback.limit_id).or_default() += 1;
                        }
                        Err(TrySendError::Refused(error)) => return Err(error.into()),
                    }
                }
                sent = producer.send(record), if ticks.is_none() => {
                    waiting.push(wait(self.clock.monotonic(), sent?));
                }
            }
        }
        Ok((outcome, refused_by))
    }

    fn end(&self) -> Duration {
        self.options.warm_up + self.options.duration
    }

    fn count(
        &self,
        outcome: &mut Outcome,
        since: Duration,
        done: Result<(), ClientError>,
    ) -> Result<(), BenchError> {
        let now = self.clock.monotonic();
        match done {
            Ok(()) if now >= self.options.warm_up && now < self.end() => {
                outcome.moved(now, 1, RECORD_BYTES as u64);
                outcome.latencies.record(now.saturating_sub(since), 1);
            }
            Ok(()) => {}
            Err(error) if error.pushback().is_some() => outcome.throttled += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

async fn next(ticks: &mut Option<tokio::sync::mpsc::Receiver<Duration>>) -> Option<Duration> {
    ticks.as_mut()?.recv().await
}

async fn wait(since: Duration, delivery: Delivery) -> (Duration, Result<(), ClientError>) {
    (since, delivery.wait().await.map(|_| ()))
}
