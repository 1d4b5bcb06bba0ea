//! The partition log on a real disk (a temporary directory, or the one in `STOPLOG_BENCH_DIR`): what
//! it costs to append a batch, to find an offset or a time, to plan and to execute a read.
//!
//! Writers are stepped by the benchmark itself, so that no thread switch is in the figures; `fsync`
//! figures are the device's.
#![allow(missing_docs, reason = "macros of criterion")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stoplog::env::Env;
use stoplog::record::{BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, RecordRef};
use stoplog::storage::{
    Append, AppendError, Appended, Drive, LogDir, Materialised, Partition, PartitionOptions,
    ReadRequest, Stepper, StorageOptions,
};
use stoplog::types::{Acks, Durability, Offset, PartitionId, Timestamp, TopicId, TopicPartition};

/// Batches given to the writer before it is stepped: what a busy connection has in flight.
const BATCHES_PER_ROUND: usize = 16;
/// A partition is trimmed when it holds more, so that a long run does not fill the disk.
const BYTES_MAX: u64 = 1 << 30;
/// Partition for the read benchmarks.
const READ_BYTES: u64 = 64 << 20;

struct Log {
    partition: Partition,
    stepper: Stepper,
    _log_dir: LogDir,
    _folder: tempfile::TempDir,
}

impl Log {
    fn open(durability: Durability) -> Log {
        let parent =
            std::env::var_os("STOPLOG_BENCH_DIR").map_or(std::env::temp_dir(), PathBuf::from);
        let folder = tempfile::tempdir_in(parent).expect("a folder");
        let options = StorageOptions { drive: Drive::Stepped, writers: 1, ..Default::default() };
        let env = Env::real(folder.path().to_path_buf());
        let log_dir = LogDir::open(options, env).expect("opened");
        let options = PartitionOptions { durability, ..PartitionOptions::default() };
        let id = TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId(0) };
        let partition =
            log_dir.partition(id, Arc::new(options), Materialised::Unknown).expect("a partition");
        let stepper = log_dir.stepper().expect("stepped");
        Log { partition, stepper, _log_dir: log_dir, _folder: folder }
    }

    fn append(&self, batch: &CheckedBatch, acks: Acks) {
        let done = |result: Result<Appended, AppendError>| {
            result.expect("appended");
        };
        let append = Append::new(batch.clone(), acks, Box::new(done));
        assert!(self.partition.append(append).is_ok(), "there is room in the queue");
    }

    fn round(&self, batch: &CheckedBatch) {
        for _ in 0..BATCHES_PER_ROUND {
            self.append(batch, Acks::Topic);
        }
        self.stepper.run_until_idle();
        if self.partition.bytes() > BYTES_MAX {
            let _ticket = self.partition.trim(self.partition.offsets().visible_end);
            self.stepper.run_until_idle();
        }
    }

    /// A log with `READ_BYTES` of this batch, whose times rise by a second each.
    fn filled(batch_bytes: usize) -> Log {
        let log = Log::open(Durability::Os);
        let mut time = 0;
        while log.partition.bytes() < READ_BYTES {
            for _ in 0..BATCHES_PER_ROUND {
                time += 1000;
                log.append(&batch(batch_bytes, time), Acks::Os);
            }
            log.stepper.run_until_idle();
        }
        log
    }
}

fn batch(bytes_max: usize, time: i64) -> CheckedBatch {
    let options = BuilderOptions { bytes_max, bytes_reserved: bytes_max, ..Default::default() };
    let mut builder = BatchBuilder::new(options);
    let value = vec![b'v'; (bytes_max / 2).clamp(1, 1024)];
    let record =
        RecordRef { timestamp: Timestamp(time), value: Some(&value), ..RecordRef::default() };
    while builder.push(&record).is_ok() {}
    let batch: Bytes = builder.build();
    CheckedBatch::check(batch, &BatchLimits::client(bytes_max)).expect("sound")
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for (name, durability) in [("os", Durability::Os), ("fsync", Durability::Fsync)] {
        for batch_bytes in [1 << 10, 64 << 10, 1 << 20] {
            let log = Log::open(durability);
            let batch = batch(batch_bytes, 0);
            let bytes = batch.bytes().len() * BATCHES_PER_ROUND;
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::new(name, batch_bytes), |b| {
                b.iter(|| log.round(&batch));
            });
        }
    }
    group.finish();
}

/// Offsets all over the log, the same in every run.
struct Jumps(u64);

impl Jumps {
    fn next(&mut self, end: Offset) -> Offset {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Offset(i64::try_from((self.0 >> 33) % end.0.unsigned_abs()).expect("below the end"))
    }
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    for batch_bytes in [512, 64 << 10] {
        let log = Log::filled(batch_bytes);
        let end = log.partition.offsets().visible_end;
        let mut jumps = Jumps(1);
        group.bench_function(BenchmarkId::new("offset", batch_bytes), |b| {
            b.iter(|| {
                let request = ReadRequest { from: jumps.next(end), max_bytes: 1 };
                black_box(log.partition.plan_read(request).expect("a plan").extent())
            });
        });
        let batches = i64::try_from(log.partition.bytes()).expect("small") / batch_bytes as i64;
        group.bench_function(BenchmarkId::new("time", batch_bytes), |b| {
            b.iter(|| {
                let at = Timestamp(jumps.next(Offset(batches)).0 * 1000);
                black_box(log.partition.offset_at(at).expect("found"))
            });
        });
    }
    group.finish();
}

fn read_plan(c: &mut Criterion) {
    let mut group = c.benchmark_group("read_plan");
    for batch_bytes in [1 << 10, 64 << 10] {
        let log = Log::filled(batch_bytes);
        for max_bytes in [64 << 10, 1 << 20] {
            let name = format!("{batch_bytes}B-batches-{max_bytes}B");
            group.throughput(Throughput::Bytes(max_bytes as u64));
            let read = |from: &mut Offset, mapped: bool| {
                let request = ReadRequest { from: *from, max_bytes };
                let mut plan = log.partition.plan_read(request).expect("a plan");
                let pieces = if mapped { plan.mapped() } else { plan.owned() };
                let (next, bytes) = plan.extent().expect("located");
                // From the start again at the end of the log.
                *from = if bytes == 0 { Offset::ZERO } else { next };
                pieces.expect("read")
            };
            let mut from = Offset::ZERO;
            group.bench_function(BenchmarkId::new("mapped", &name), |b| {
                b.iter(|| read(&mut from, true));
            });
            group.bench_function(BenchmarkId::new("owned", &name), |b| {
                b.iter(|| read(&mut from, false));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = storage;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = append, index, read_plan
}
criterion_main!(storage);
