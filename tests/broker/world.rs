//! A broker on a simulated disk, and the few things every test does with it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoplog::broker::{
    Broker, BrokerOptions, ProduceError, ProduceRequest, Produced, ReadMode, Topic,
};
use stoplog::env::sim::{Crash, SimDisk};
use stoplog::env::{Env, SeededRng, SystemClock};
use stoplog::record::{
    BatchBuilder, BuilderOptions, DecodeLimits, ProducerStamp, RecordRef, Records,
};
use stoplog::types::{Acks, Class, Offset, PartitionId, Timestamp, TopicConfig};

/// Longer than any test takes on a busy machine: a hang is a failure, slowness is not.
const PATIENCE: Duration = Duration::from_secs(120);

/// A disk and what a broker on it is told.
pub struct World {
    pub disk: SimDisk,
    pub options: BrokerOptions,
}

impl World {
    pub fn new() -> World {
        let mut options = BrokerOptions::new("");
        options.storage.reserve_bytes_max = 64 << 10;
        options.storage.writers = 2;
        World { disk: SimDisk::new(1), options }
    }

    pub fn env(&self) -> Env {
        Env {
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(SeededRng::new(7)),
            disk: Arc::new(self.disk.clone()),
        }
    }

    pub async fn open(&self) -> Broker {
        Broker::open_with(self.options.clone(), self.env()).await.expect("the broker opens")
    }

    /// The world after a power cut now; the broker of this one can do no more.
    pub fn crash(&self, seed: u64) -> World {
        World { disk: self.disk.crash(Crash::from_seed(seed)), options: self.options.clone() }
    }
}

/// Runs a test on a runtime of its own.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await });
    runtime.shutdown_background();
    ended.expect("the test hangs")
}

/// Waits until `holds`, looking now and then.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

pub fn config(settings: &[(&str, &str)]) -> TopicConfig {
    let mut config = TopicConfig::default();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    config
}

pub fn batch(values: &[&str]) -> Bytes {
    stamped_batch(values, None)
}

pub fn stamped_batch(values: &[&str], producer: Option<ProducerStamp>) -> Bytes {
    let options = BuilderOptions { producer, bytes_max: 8 << 20, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for (number, value) in values.iter().enumerate() {
        let timestamp = Timestamp(1_000 + number as i64);
        let value = Some(value.as_bytes());
        builder.push(&RecordRef { timestamp, value, ..RecordRef::default() }).unwrap();
    }
    builder.build()
}

/// A batch of about `bytes` with one record.
pub fn large_batch(bytes: usize) -> Bytes {
    batch(&[&"x".repeat(bytes)])
}

pub fn request(topic: &Topic, partition: u32, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        topic: topic.id(),
        partition: PartitionId(partition),
        batch,
        acks: Acks::Topic,
        deadline: None,
        connection: None,
        class: Class::Normal,
        standing: None,
    }
}

pub async fn produce(
    broker: &Broker,
    topic: &Topic,
    partition: u32,
    batch: Bytes,
) -> Result<Produced, ProduceError> {
    broker.produce_and_wait(request(topic, partition, batch)).await
}

/// Values of pieces of log, in order.
pub fn values_of(pieces: &[Bytes]) -> Vec<String> {
    let mut values = Vec::new();
    for piece in pieces {
        let mut rest = piece.clone();
        while let Some(records) = Records::take_batch(&mut rest, &DecodeLimits::default()) {
            for record in records.unwrap() {
                let value = record.unwrap().value.unwrap();
                values.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        assert!(rest.is_empty(), "only whole batches");
    }
    values
}

/// Every value of a partition.
pub async fn read_all(topic: &Topic, partition: u32) -> Vec<String> {
    let partition = topic.partition(PartitionId(partition)).unwrap();
    let (mut next, end) = partition.span();
    let mut values = Vec::new();
    while next < end {
        let fetched = partition.read(next, 64 << 10, ReadMode::Owned).await.unwrap();
        if fetched.data.is_empty() {
            break;
        }
        values.extend(values_of(&fetched.data));
        assert!(fetched.next_offset > next);
        next = fetched.next_offset;
    }
    assert!(next >= Offset::ZERO);
    values
}
