//! The produce workload: batches in flight within a window, or due at a rate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinSet;

use super::{Batching, BenchError, Outcome, Pace, Report, Target, Usage, WorkloadOptions};
use crate::client::{
    BatchDelivery, BatchSender, Client, ClientError, Delivered, Delivery, NewRecord, Producer,
    ProducerOptions,
};
use crate::env::{Clock, SystemClock};
use crate::record::{BatchBuilder, BuilderOptions, RecordRef};
use crate::types::{Class, ErrorKind, PartitionId};

/// Runs the workload against a server whose topic exists.
pub async fn produce(target: &Target, options: &WorkloadOptions) -> Result<Report, BenchError> {
    let clock = SystemClock::new();
    let load = Arc::new(Load::new(options)?);
    let mut clients = Vec::new();
    for _ in 0..options.connections.max(1) {
        clients.push(target.connect().await?);
    }
    let schedule = Schedule { start: clock.monotonic(), clock };
    let mut tasks = JoinSet::new();
    // Connections outlast the last reading: a thread of the floor ends with its connection.
    let connected = clients.clone();
    for (number, client) in clients.into_iter().enumerate() {
        let lane = Lane { number, load: Arc::clone(&load), schedule: schedule.clone() };
        match options.batching {
            Batching::Prebuilt => tasks.spawn(lane.run_prebuilt(client)),
            Batching::Client => tasks.spawn(lane.run_client(client)),
        };
    }
    let before = measure_from(target, &schedule, options).await;
    let mut outcome = Outcome::default();
    while let Some(lane) = tasks.join_next().await {
        outcome.add(lane??);
    }
    let mut report = Report::new("produce", target, options, outcome, before);
    for client in &connected {
        report.wire_bytes += client.traffic_bytes().await;
    }
    Ok(report)
}

/// Takes the readings of both processes when the warm-up is over.
async fn measure_from(
    target: &Target,
    schedule: &Schedule,
    options: &WorkloadOptions,
) -> (Option<Usage>, Option<Usage>) {
    let over = schedule.start + options.warm_up;
    tokio::time::sleep(over.saturating_sub(schedule.clock.monotonic())).await;
    (target.usage(), Usage::of(std::process::id()))
}

/// What every connection sends.
struct Load {
    options: WorkloadOptions,
    value: Vec<u8>,
    batch: Bytes,
    records_per_batch: u64,
}

impl Load {
    fn new(options: &WorkloadOptions) -> Result<Load, BenchError> {
        let value = value(options.record_bytes);
        let (batch, records_per_batch) = batch_of(&value, options.batch_bytes)?;
        Ok(Load { options: options.clone(), value, batch, records_per_batch })
    }

    /// Batches one connection sends in all; `None` = until the time is over.
    fn batches_per_lane(&self) -> Option<u64> {
        let lanes = self.options.connections.max(1) as u64;
        self.options.count.map(|records| (records / self.records_per_batch / lanes).max(1))
    }

    fn end(&self) -> Duration {
        self.options.warm_up + self.options.duration
    }
}

/// Bytes that neither compress to nothing nor cost time to make.
pub(super) fn value(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// One batch of as many such values as fit, and how many they are.
pub(super) fn batch_of(value: &[u8], batch_bytes: usize) -> Result<(Bytes, u64), BenchError> {
    let options = BuilderOptions { bytes_max: batch_bytes, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    // Records of 1970 would be past their retention as soon as their segment is sealed.
    let timestamp = SystemClock::new().now();
    let record = RecordRef { timestamp, value: Some(value), ..RecordRef::default() };
    let first = builder.push(&record);
    first.map_err(|source| BenchError::Record {
        record_bytes: value.len(),
        batch_bytes,
        source,
    })?;
    let mut records = 1;
    while builder.push(&record).is_ok() {
        records += 1;
    }
    Ok((builder.build(), records))
}

#[derive(Clone)]
struct Schedule {
    start: Duration,
    clock: SystemClock,
}

/// One connection.
struct Lane {
    number: usize,
    load: Arc<Load>,
    schedule: Schedule,
}

type Sent = (Duration, Result<Delivered, ClientError>);

impl Lane {
    async fn run_prebuilt(self, client: Client) -> Result<Outcome, BenchError> {
        let options = &self.load.options;
        let sender = client.batch_sender(&options.topic.parse()?, Class::Normal).await?;
        let lanes = options.connections.max(1) as f64;
        let per_lane = |rate: f64| rate / self.load.records_per_batch as f64 / lanes;
        match options.rate.and_then(|rate| Pace::new(per_lane(rate))) {
            Some(pace) => self.paced(&sender, pace).await,
            None => self.windowed(&sender).await,
        }
    }

    /// As fast as answers come: `window` batches are always under way.
    async fn windowed(&self, sender: &BatchSender) -> Result<Outcome, BenchError> {
        let mut outcome = Outcome::default();
        let mut in_flight = FuturesUnordered::new();
        let total = self.load.batches_per_lane();
        let mut index = 0;
        loop {
            let now = self.now();
            let over = total.map_or(now >= self.load.end(), |total| index >= total);
            if !over && in_flight.len() < self.load.options.window.max(1) {
                in_flight.push(self.send(sender, index, now));
                index += 1;
            } else {
                let Some(sent) = in_flight.next().await else { return Ok(outcome) };
                self.count(&mut outcome, sent, self.load.records_per_batch).await?;
            }
        }
    }

    /// At fixed times, however late answers are.
    async fn paced(&self, sender: &BatchSender, pace: Pace) -> Result<Outcome, BenchError> {
        let mut outcome = Outcome::default();
        let mut in_flight = FuturesUnordered::new();
        let mut ticks = pace.ticks(self.schedule.clock.clone(), self.load.end());
        let mut index = 0;
        loop {
            tokio::select! {
                biased;
                Some(sent) = in_flight.next() => {
                    self.count(&mut outcome, sent, self.load.records_per_batch).await?;
                }
                tick = ticks.recv() => {
                    let Some(due) = tick else { break };
                    let due = due.saturating_sub(self.schedule.start);
                    in_flight.push(self.send(sender, index, due));
                    index += 1;
                }
            }
        }
        while let Some(sent) = in_flight.next().await {
            self.count(&mut outcome, sent, self.load.records_per_batch).await?;
        }
        Ok(outcome)
    }

    /// One record after the other through the producer, which makes the batches.
    async fn run_client(self, client: Client) -> Result<Outcome, BenchError> {
        let options = &self.load.options;
        let producer_options = ProducerOptions {
            acks: options.acks,
            batch_bytes: options.batch_bytes,
            window: options.window.min(ProducerOptions::default().window),
            linger: options.linger,
            ..ProducerOptions::default()
        };
        let producer = client.producer(&options.topic.parse()?, producer_options).await?;
        let (answers, mut waiting): (Answers, _) = tokio::sync::mpsc::channel(1 << 16);
        let clock = self.schedule.clock.clone();
        let start = self.schedule.start;
        let collector = async {
            let mut outcome = Outcome::default();
            while let Some((due, awaited)) = waiting.recv().await {
                // The producer obeys back pressure itself: what it gives up has failed.
                let records = awaited.wait().await?;
                self.acked(&mut outcome, due, records);
            }
            Ok::<_, BenchError>(outcome)
        };
        let records = options.count.map(|count| count / options.connections.max(1) as u64);
        let rate = options.rate.map(|rate| rate / options.connections.max(1) as f64);
        let load = &self.load;
        let sending = async move {
            let mut source = Source { pace: rate.and_then(Pace::new), records, start, clock };
            source.run(&producer, load, answers).await?;
            producer.close().await.map_err(BenchError::from)
        };
        let (sent, outcome) = tokio::join!(sending, collector);
        sent?;
        outcome
    }

    fn now(&self) -> Duration {
        self.schedule.clock.monotonic() - self.schedule.start
    }

    fn send(
        &self,
        sender: &BatchSender,
        index: u64,
        due: Duration,
    ) -> impl Future<Output = Sent> + use<> {
        let partitions = u64::from(self.load.options.partitions.max(1));
        let partition = (index + self.number as u64) % partitions;
        let partition = PartitionId(u32::try_from(partition).unwrap_or(0));
        let answer =
            sender.produce_batch(partition, self.load.batch.clone(), self.load.options.acks);
        async move { (due, answer.await) }
    }

    /// Counts records if they were acknowledged in the measured time.
    fn acked(&self, outcome: &mut Outcome, due: Duration, records: u64) {
        let now = self.now();
        let whole_run = self.load.options.count.is_some();
        if whole_run || (now >= self.load.options.warm_up && now <= self.load.end()) {
            let bytes = self.load.batch.len() as u64 * records / self.load.records_per_batch;
            outcome.moved(now, records, bytes);
            outcome.latencies.record(now.saturating_sub(due), records);
        }
    }

    /// Counts an answer, or waits as it says.
    async fn count(
        &self,
        outcome: &mut Outcome,
        sent: Sent,
        records: u64,
    ) -> Result<(), BenchError> {
        let (due, answer) = sent;
        match answer {
            Ok(_) => {
                self.acked(outcome, due, records);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Throttle => {
                outcome.throttled += 1;
                tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What is waited for: each record at a rate; else whole batches, as old as their first record, so
/// that measuring does not cost more than sending.
enum Awaited {
    Record(Delivery),
    Batch(BatchDelivery),
}

impl Awaited {
    /// How many records were acknowledged.
    async fn wait(self) -> Result<u64, ClientError> {
        match self {
            Awaited::Record(delivery) => delivery.wait().await.map(|_| 1),
            Awaited::Batch(batch) => batch.wait().await.map(|batch| u64::from(batch.records)),
        }
    }
}

/// Without a rate the clock is read once for so many records.
const RECORDS_PER_READING: u64 = 32;

/// Single records, due at a rate or as fast as the producer takes them.
struct Source {
    pace: Option<Pace>,
    records: Option<u64>,
    start: Duration,
    clock: SystemClock,
}

type Answers = tokio::sync::mpsc::Sender<(Duration, Awaited)>;

impl Source {
    async fn run(
        &mut self,
        producer: &Producer,
        load: &Load,
        answers: Answers,
    ) -> Result<(), BenchError> {
        let mut ticks = self.pace.map(|pace| pace.ticks(self.clock.clone(), load.end()));
        let (mut index, mut reading) = (0, self.clock.monotonic());
        loop {
            if let Some(ticks) = &mut ticks {
                let Some(due) = ticks.recv().await else { return Ok(()) };
                reading = due;
            } else if index % RECORDS_PER_READING == 0 {
                reading = self.clock.monotonic();
            }
            let due = reading.saturating_sub(self.start);
            if self.records.map_or(due >= load.end(), |records| index >= records) {
                return Ok(());
            }
            let delivery = producer.send(NewRecord::value(&load.value)).await?;
            index += 1;
            let awaited = match &ticks {
                Some(_) => Some(Awaited::Record(delivery)),
                None => delivery.opened_batch().map(Awaited::Batch),
            };
            let Some(awaited) = awaited else { continue };
            if answers.send((due, awaited)).await.is_err() {
                return Ok(()); // the collector says why
            }
        }
    }
}
