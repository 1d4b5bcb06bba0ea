//! Records from somewhere to a topic, acknowledged batch by batch: what `produce` and `load` share.
//!
//! A thread reads records, a task hands them to the producer (which makes it wait when the broker
//! does), and the command's own task tells about every batch the moment it is acknowledged.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use super::connection::{Connection, Stop, runtime};
use super::failure::{CommandResult, Failure};
use super::output::{Output, counted};
use crate::client::{
    BatchDelivery, ClientOptions, NewRecord, Producer, ProducerOptions, TrySendError,
};
use crate::record::{Compression, RecordHeader};
use crate::types::{
    Acks, Class, DurabilityLevel, Offset, PartitionId, Severity, Timestamp, TopicName, parse_bytes,
    parse_duration,
};

/// Records between the reading thread and the producer: enough to hide a switch of threads.
const RECORDS_AHEAD: usize = 1_024;
/// Batches between the producer and the printing: more than a producer can have unanswered.
const BATCHES_AHEAD: usize = 4_096;

/// How records are sent.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// When a batch counts as acknowledged: none, os, durable, or topic for the topic's own.
    #[arg(long, default_value = "durable")]
    acks: Acks,
    /// How long each record is tried.
    #[arg(long, default_value = "120s", value_parser = parse_duration)]
    timeout: Duration,
    /// How long a batch waits for more records.
    #[arg(long, default_value = "5ms", value_parser = parse_duration)]
    linger: Duration,
    /// Largest batch.
    #[arg(long, default_value = "64KiB", value_parser = parse_bytes)]
    batch_bytes: u64,
    /// Codec of the batches: none, gzip, snappy, lz4 or zstd; default: what the topic advises.
    #[arg(long, value_parser = parse_codec)]
    compression: Option<Compression>,
    /// How much it matters when not everybody can be served: p1, p2 or p3.
    #[arg(long, default_value = "p2")]
    class: Class,
    /// Do not wait for a broker that limits: end with exit code 6 and its reason. What was taken before
    /// and is not acknowledged yet is given up.
    #[arg(long = "try")]
    refuse: bool,
    #[command(flatten)]
    connection: Connection,
}

fn parse_codec(text: &str) -> Result<Compression, String> {
    match text {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "snappy" => Ok(Compression::Snappy),
        "lz4" => Ok(Compression::Lz4),
        "zstd" => Ok(Compression::Zstd),
        _ => Err("one of none, gzip, snappy, lz4, zstd".to_owned()),
    }
}

/// One acknowledged batch, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Ack {
    partition: PartitionId,
    base_offset: Option<Offset>,
    count: u32,
    level: DurabilityLevel,
}

/// What was acknowledged so far.
struct Acked {
    records: u64,
    batches: u64,
    partitions: BTreeSet<PartitionId>,
    level: DurabilityLevel,
}

/// A record on its way to the producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Its key; `None` is null.
    pub key: Option<Bytes>,
    /// Its value; `None` is null.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<RecordHeader>,
    /// Its time; `None` = now.
    pub timestamp: Option<Timestamp>,
    /// Its partition; `None` = by key.
    pub partition: Option<PartitionId>,
}

impl Outgoing {
    fn as_new(&self) -> NewRecord<'_> {
        NewRecord {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
            timestamp: self.timestamp,
            partition: self.partition,
        }
    }
}

/// Gives the next record; `None` at the end. Runs on a thread of its own, so it may block.
pub trait NextRecord: FnMut() -> Result<Option<Outgoing>, Failure> + Send + 'static {}

impl<F: FnMut() -> Result<Option<Outgoing>, Failure> + Send + 'static> NextRecord for F {}

/// Sends everything `next` gives, and succeeds when all of it was acknowledged at the asked level.
pub fn publish(
    topic: &TopicName,
    args: &PublishArgs,
    next: impl NextRecord,
    out: &mut Output,
) -> CommandResult {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut stop = Stop::listen()?;
        tokio::select! {
            result = send_all(topic, args, next, out) => result,
            failure = stop.asked() => Err(failure),
        }
    });
    // The reading thread may sit in a read of a terminal that never ends: it is not waited for.
    runtime.shutdown_background();
    result
}

async fn send_all(
    topic: &TopicName,
    args: &PublishArgs,
    mut next: impl NextRecord,
    out: &mut Output,
) -> CommandResult {
    let mut options =
        ClientOptions { client_id: "stoplog-produce".to_owned(), ..Default::default() };
    options.retry_timeout = options.retry_timeout.min(args.timeout);
    let client = args.connection.open_with(options).await?;
    let options = ProducerOptions {
        acks: args.acks,
        class: args.class,
        batch_bytes: usize::try_from(args.batch_bytes).unwrap_or(usize::MAX),
        linger: args.linger,
        compression: args.compression,
        delivery_timeout: args.timeout,
        ..ProducerOptions::default()
    };
    let producer = client.producer(topic, options).await?;
    let (record_sender, record_receiver) = mpsc::channel(RECORDS_AHEAD);
    std::thread::spawn(move || {
        while let Some(record) = next().transpose() {
            let failed = record.is_err();
            if record_sender.blocking_send(record).is_err() || failed {
                break;
            }
        }
    });
    let (batch_sender, batch_receiver) = mpsc::channel(BATCHES_AHEAD);
    let refuse = args.refuse;
    let given_up = Arc::new(Notify::new());
    let give_up = Arc::clone(&given_up);
    let sending = tokio::spawn(async move {
        let sending = send(&producer, refuse, record_receiver, batch_sender);
        tokio::select! {
            result = sending => result,
            failure = refused(&producer), if refuse => {
                give_up.notify_one();
                Err(failure)
            }
        }
    });
    let start = Instant::now();
    let mut acked = Acked {
        records: 0,
        batches: 0,
        partitions: BTreeSet::new(),
        level: DurabilityLevel::Durable,
    };
    let printed = tokio::select! {
        biased;
        printed = print(batch_receiver, &mut acked, out) => printed,
        () = given_up.notified() => Ok(()),
    };
    let sent = match printed {
        Ok(()) => sending.await.map_err(|e| Failure::from(std::io::Error::other(e)))?,
        Err(failure) => {
            sending.abort();
            Err(failure)
        }
    };
    summarize(topic, &acked, start.elapsed(), sent, out)
}

/// Hands records to the producer, and its batches to whoever waits for their acknowledgements.
async fn send(
    producer: &Producer,
    refuse: bool,
    mut records: mpsc::Receiver<Result<Outgoing, Failure>>,
    batches: mpsc::Sender<BatchDelivery>,
) -> CommandResult {
    let mut result = Ok(());
    while let Some(record) = records.recv().await {
        let delivery = match record {
            Ok(record) if refuse => producer.try_send(record.as_new()).map_err(|e| match e {
                TrySendError::Pushback(pushback) => Failure::from(pushback),
                TrySendError::Refused(error) => Failure::from(error),
            })?,
            Ok(record) => producer.send(record.as_new()).await?,
            Err(failure) => {
                result = Err(failure);
                break;
            }
        };
        if let Some(batch) = delivery.opened_batch()
            && batches.send(batch).await.is_err()
        {
            return Ok(());
        }
    }
    producer.flush().await?;
    result
}

/// How often it is looked whether the broker refuses.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A publisher that waits for its grant is refused after so long; before, it is only paced.
const GRANT_WITHIN: Duration = Duration::from_secs(1);

/// Returns when the broker refuses what was sent, or does not let it be sent.
async fn refused(producer: &Producer) -> Failure {
    let mut waits = Duration::ZERO;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let limit = producer.limited_by().filter(|limit| limit.severity != Severity::Slow);
        match limit {
            Some(limit) if limit.limit_id != "grant" || waits >= GRANT_WITHIN => {
                return limit.into();
            }
            Some(_) => waits += LOOK_EVERY,
            None => waits = Duration::ZERO,
        }
    }
}

/// Tells about every batch as soon as it is acknowledged; ends with the first that failed.
async fn print(
    mut batches: mpsc::Receiver<BatchDelivery>,
    acked: &mut Acked,
    out: &mut Output,
) -> CommandResult {
    let bar = progress(out);
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            batch = batches.recv(), if open => match batch {
                Some(batch) => under_way.push(batch.wait()),
                None => open = false,
            },
            Some(delivered) = under_way.next(), if !under_way.is_empty() => {
                let delivered = delivered?;
                acked.batches += 1;
                acked.records += u64::from(delivered.records);
                acked.partitions.insert(delivered.partition);
                acked.level = acked.level.min(delivered.level);
                out.json(&Ack {
                    partition: delivered.partition,
                    base_offset: delivered.base_offset,
                    count: delivered.records,
                    level: delivered.level,
                })?;
                if out.is_json() {
                    out.flush()?;
                }
                bar.set_position(acked.records);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// A bar for people who look at a terminal; for everybody else none.
fn progress(out: &Output) -> ProgressBar {
    if out.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} records  {per_sec}  {elapsed}");
    let bar = ProgressBar::new_spinner();
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn summarize(
    topic: &TopicName,
    acked: &Acked,
    took: Duration,
    sent: CommandResult,
    out: &mut Output,
) -> CommandResult {
    match sent {
        Ok(()) => out.say(format_args!(
            "{topic}: {} acknowledged ({}), {} to {}, {:.2} s",
            counted(acked.records, "record"),
            acked.level,
            counted(acked.batches, "batch"),
            counted(acked.partitions.len() as u64, "partition"),
            took.as_secs_f64()
        )),
        Err(failure) => {
            out.flush()?;
            let acked = counted(acked.records, "record");
            eprintln!("{topic}: acknowledged before this: {acked}");
            Err(failure)
        }
    }
}
