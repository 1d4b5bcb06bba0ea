//! A client that publishes, waits exactly as long as it is told, and keeps book of what it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::cli::demo::input::Event;
use crate::cli::failure::Failure;
use crate::client::{BatchSender, Client, ClientOptions};
use crate::record::{BatchBuilder, BuilderOptions, RecordRef};
use crate::types::{Acks, Effects, ErrorCode, PartitionId, Pushback, Timestamp, TopicName};

/// A batch that is let in nowhere for so long means that something does not clear.
const STUCK_AFTER: Duration = Duration::from_secs(40);
/// Where no time can be named, one is chosen.
const RETRY_UNNAMED: Duration = Duration::from_millis(200);

/// What one client was told, by code.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// How often each code came.
    pub refusals: BTreeMap<&'static str, u64>,
    /// The last of each code.
    pub last: BTreeMap<&'static str, Pushback>,
    /// Refusals that may have written something all the same.
    pub with_effects: u64,
    /// How long it waited in all.
    pub waited: Duration,
    /// Records that were acknowledged.
    pub acked: u64,
}

impl Book {
    /// Refusals of all codes.
    pub fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }

    fn note(&mut self, told: &Pushback, wait: Duration) {
        *self.refusals.entry(told.code.name()).or_default() += 1;
        self.last.insert(told.code.name(), told.clone());
        self.with_effects += u64::from(told.effects != Effects::None);
        self.waited += wait;
    }
}

/// Everything that was acknowledged, by offset: what the log must hold.
pub type Acknowledged = Arc<Mutex<BTreeMap<i64, Vec<u8>>>>;

/// The client. Clones are the same one.
#[derive(Clone)]
pub struct Sender {
    name: &'static str,
    sender: BatchSender,
    book: Arc<Mutex<Book>>,
}

impl Sender {
    /// A client of its own name, on a connection of its own, to partition 0 of a topic.
    pub async fn connect(
        server: &str,
        name: &'static str,
        topic: &TopicName,
    ) -> Result<Sender, Failure> {
        let options = ClientOptions { client_id: name.to_owned(), ..ClientOptions::default() };
        let client = Client::connect(server, options).await?;
        let sender = client.batch_sender_unlimited(topic).await?;
        Ok(Sender { name, sender, book: Arc::default() })
    }

    /// What it calls itself.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it was told so far.
    pub fn book(&self) -> Book {
        self.lock().clone()
    }

    /// Publishes events in batches, in order, each until it is acknowledged.
    pub async fn publish(
        &self,
        events: &[Event],
        per_batch: usize,
        acked: &Acknowledged,
    ) -> Result<(), Failure> {
        for events in events.chunks(per_batch) {
            let base = self.deliver(batch(events)?).await?;
            let mut acked = acked.lock().unwrap_or_else(PoisonError::into_inner);
            acked.extend((base..).zip(events.iter().map(|event| event.value.clone())));
            self.lock().acked += events.len() as u64;
        }
        Ok(())
    }

    /// Sends a batch once: `true` = it was acknowledged, `false` = it was refused.
    pub async fn attempt(&self, batch: Bytes) -> Result<bool, Failure> {
        Ok(self.send(batch).await?.is_ok())
    }

    async fn deliver(&self, batch: Bytes) -> Result<i64, Failure> {
        let since = Instant::now();
        loop {
            let wait = match self.send(batch.clone()).await? {
                Ok(base) => return Ok(base),
                Err(wait) => wait,
            };
            if since.elapsed() > STUCK_AFTER {
                let told: Vec<_> = self.book().last.values().map(|told| told.to_string()).collect();
                let what = format!("{} is not let in: {}", self.name, told.join("; "));
                return Err(Failure::new(ErrorCode::TimedOut, what));
            }
            sleep(wait).await;
        }
    }

    /// The offset of the batch, or how long it was told to wait. Anything but an acknowledgement or
    /// a typed refusal ends the demo.
    async fn send(&self, batch: Bytes) -> Result<Result<i64, Duration>, Failure> {
        match self.sender.produce_batch(PartitionId(0), batch, Acks::Topic).await {
            Ok(delivered) => Ok(Ok(delivered.offset.map_or(-1, |offset| offset.0))),
            Err(error) => {
                let Some(told) = error.pushback() else { return Err(error.into()) };
                let wait = match told.retry_after_ms {
                    0 => RETRY_UNNAMED,
                    ms => Duration::from_millis(u64::from(ms)),
                };
                self.lock().note(told, wait);
                Ok(Err(wait))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn batch(events: &[Event]) -> Result<Bytes, Failure> {
    let options = BuilderOptions { bytes_max: 1 << 20, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for event in events {
        push(&mut builder, event.key.as_deref(), &event.value)?;
    }
    Ok(builder.build())
}

/// One record of `bytes` bytes that mean nothing.
pub fn filler(bytes: usize) -> Result<Bytes, Failure> {
    let options = BuilderOptions { bytes_max: 1 << 20, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    push(&mut builder, None, &vec![b'.'; bytes])?;
    Ok(builder.build())
}

fn push(builder: &mut BatchBuilder, key: Option<&[u8]>, value: &[u8]) -> Result<(), Failure> {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let timestamp = Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let record = RecordRef { timestamp, key, value: Some(value), ..RecordRef::default() };
    builder.push(&record).map_err(|e| Failure::new(ErrorCode::Internal, e.to_string()))
}
