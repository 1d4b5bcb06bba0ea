//! A data directory with one partition on the simulated disk, stepped by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use stoplog::env::Env;
use stoplog::env::sim::{Crash, SimClock, SimDisk, env_on, sim_env};
use stoplog::record::{
    BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, DecodeLimits, ProducerStamp,
    RecordRef, batches,
};
use stoplog::storage::{
    Append, AppendError, Appended, Drive, LogDir, Materialised, Partition, PartitionOptions,
    ReadError, ReadRequest, ShutdownMode, Stepper, StorageOptions,
};
use stoplog::types::{Acks, Durability, Offset, PartitionId, Timestamp, TopicId, TopicPartition};

/// What the world runs on.
pub struct World {
    pub disk: SimDisk,
    pub clock: SimClock,
    pub env: Env,
    pub options: StorageOptions,
    pub partition_options: PartitionOptions,
    pub dir: LogDir,
    pub partition: Partition,
    pub step: Stepper,
    pub answers: Answers,
    seed: u64,
}

/// Answers by the number of the append.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<BTreeMap<u64, Result<Appended, AppendError>>>>);

impl Answers {
    pub fn take(&self, number: u64) -> Option<Result<Appended, AppendError>> {
        self.0.lock().expect("answers").remove(&number)
    }

    pub fn drain(&self) -> BTreeMap<u64, Result<Appended, AppendError>> {
        std::mem::take(&mut self.0.lock().expect("answers"))
    }
}

pub fn id() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId(3) }
}

/// Tiny segments, a tiny lease: every run crosses every border.
pub fn tiny() -> (StorageOptions, PartitionOptions) {
    let storage = StorageOptions {
        drive: Drive::Stepped,
        writers: 1,
        lease_records: 64,
        seal_delay_max: Duration::ZERO,
        ..StorageOptions::default()
    };
    let partition = PartitionOptions {
        durability: Durability::Fsync,
        segment_bytes: 4096,
        retention: None,
        retention_bytes: None,
        ..PartitionOptions::default()
    };
    (storage, partition)
}

/// One batch of records with these values, all created at `timestamp`.
pub fn batch(values: &[Vec<u8>], timestamp: Timestamp, producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions {
        producer,
        bytes_max: 8 << 20,
        ..BuilderOptions::default()
    });
    for value in values {
        let record = RecordRef { timestamp, value: Some(value), ..RecordRef::default() };
        builder.push(&record).expect("room");
    }
    builder.build()
}

pub fn checked(bytes: Bytes) -> CheckedBatch {
    CheckedBatch::check(bytes, &BatchLimits::client(8 << 20)).expect("a sound batch")
}

impl World {
    pub fn new(seed: u64) -> World {
        World::with(seed, tiny())
    }

    pub fn with(seed: u64, options: (StorageOptions, PartitionOptions)) -> World {
        let (env, disk, clock) = sim_env(seed);
        World::open(env, disk, clock, options, seed)
    }

    fn open(
        env: Env,
        disk: SimDisk,
        clock: SimClock,
        (options, partition_options): (StorageOptions, PartitionOptions),
        seed: u64,
    ) -> World {
        let dir = LogDir::open(options.clone(), env.clone()).expect("opens");
        let partition = dir
            .partition(id(), Arc::new(partition_options.clone()), Materialised::Unknown)
            .expect("recovers");
        let step = dir.stepper().expect("stepped");
        let answers = Answers::default();
        World { disk, clock, env, options, partition_options, dir, partition, step, answers, seed }
    }

    /// Queues a batch; its answer gets this number.
    pub fn send(&self, number: u64, bytes: Bytes, acks: Acks) {
        let answers = self.answers.clone();
        let done = Box::new(move |result| {
            let before = answers.0.lock().expect("answers").insert(number, result);
            assert_eq!(before, None, "append {number} is answered once");
        });
        let append = Append::new(checked(bytes), acks, done);
        self.partition.append(append).map_err(|_| ()).expect("room in the queue");
    }

    /// Appends one batch and waits for its answer.
    pub fn append(&self, values: &[Vec<u8>]) -> Result<Appended, AppendError> {
        self.append_bytes(batch(values, self.env.clock.now(), None))
    }

    pub fn append_bytes(&self, bytes: Bytes) -> Result<Appended, AppendError> {
        self.send(u64::MAX, bytes, Acks::Topic);
        self.step.run_until_idle();
        self.answers.take(u64::MAX).expect("answered")
    }

    /// Values and offsets from `from` on, as one read of `max_bytes` returns them.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<Read, ReadError> {
        read(&self.partition, from, max_bytes)
    }

    /// All records from `from` to the visible end.
    pub fn read_all(&self, from: Offset) -> Vec<(Offset, Vec<u8>)> {
        let mut records = Vec::new();
        let mut at = from;
        loop {
            let read = self.read(at, 700).expect("readable");
            if read.next == at {
                return records;
            }
            records.extend(read.records);
            at = read.next;
        }
    }

    /// Stops as a process should and starts again.
    pub fn reopen_clean(self) -> World {
        self.dir.shutdown(ShutdownMode::Drain);
        self.reopen()
    }

    /// The process dies; the machine goes on.
    pub fn reopen_killed(self) -> World {
        self.dir.shutdown(ShutdownMode::Abort);
        let disk = self.disk.kill();
        self.reopen_on(disk)
    }

    /// The power fails.
    pub fn reopen_crashed(self, crash: Crash) -> World {
        self.dir.shutdown(ShutdownMode::Abort);
        let disk = self.disk.crash(crash);
        self.reopen_on(disk)
    }

    /// Another process on another disk; this one goes on.
    pub fn started_on(&self, disk: SimDisk) -> World {
        let env = env_on(&disk, &self.clock, self.seed);
        let options = (self.options.clone(), self.partition_options.clone());
        World::open(env, disk, self.clock.clone(), options, self.seed)
    }

    fn reopen_on(self, disk: SimDisk) -> World {
        self.started_on(disk)
    }

    fn reopen(self) -> World {
        let World {
            disk, clock, env, options, partition_options, dir, partition, step, seed, ..
        } = self;
        drop((dir, partition, step));
        World::open(env, disk, clock, (options, partition_options), seed)
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.step.run_until_idle();
    }
}

/// What a read returned.
#[derive(Debug)]
pub struct Read {
    pub records: Vec<(Offset, Vec<u8>)>,
    pub next: Offset,
    pub bytes: usize,
}

pub fn read(partition: &Partition, from: Offset, max_bytes: usize) -> Result<Read, ReadError> {
    let mut plan = partition.plan_read(ReadRequest { from, max_bytes })?;
    let owned = plan.owned()?;
    let mapped = plan.mapped()?;
    assert_eq!(owned, mapped, "both executors return the same bytes");
    let (next, bytes) = plan.extent().expect("located");
    assert_eq!(owned.iter().map(Bytes::len).sum::<usize>(), bytes);
    let mut records = Vec::new();
    for piece in &owned {
        let mut rest = batches(piece);
        for batch in rest.by_ref() {
            let batch = batch.expect("a batch");
            batch.check_crc().expect("its checksum holds");
            let payload = batch.payload(&DecodeLimits::default()).expect("decodes");
            for record in payload.records() {
                let record = record.expect("a record");
                if record.offset >= from {
                    records.push((record.offset, record.value.expect("a value").to_vec()));
                }
            }
        }
        assert!(rest.rest().is_empty(), "whole batches only");
    }
    Ok(Read { records, next, bytes })
}
