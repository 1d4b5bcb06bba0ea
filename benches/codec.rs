//! The batch format: what a producer pays to build a batch, the broker to check and stamp it, a
//! consumer to walk it. Throughput counts uncompressed bytes.
#![allow(missing_docs, reason = "macros of criterion")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stoplog::record::{
    BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, Compression, DecodeLimits, RecordRef,
    Records, batches, crc32c,
};
use stoplog::types::{LeaderEpoch, Offset, Timestamp};

const BATCH_BYTES: usize = 64 << 10;

/// Text that compresses about as JSON events do.
fn value(len: usize, number: usize) -> Vec<u8> {
    let mut text = String::new();
    for field in 0.. {
        if text.len() >= len {
            break;
        }
        let noise = (number * 31 + field).wrapping_mul(2_654_435_761) % 1_000_003;
        text.push_str(&format!("{{\"field{}\":{noise},\"state\":\"shipped\"}},", field % 7));
    }
    text.truncate(len);
    text.into_bytes()
}

/// A batch full of records of `record_bytes`.
fn build(values: &[Vec<u8>], compression: Compression, bytes_max: usize) -> Bytes {
    let options = BuilderOptions {
        compression,
        bytes_max,
        bytes_reserved: bytes_max,
        ..BuilderOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    for (time, value) in (0..).zip(values.iter().cycle()) {
        let record = RecordRef {
            timestamp: Timestamp(1_700_000_000_000 + time),
            key: Some(b"customer-17"),
            value: Some(value),
            headers: &[],
        };
        if builder.push(&record).is_err() {
            break;
        }
    }
    builder.build()
}

fn values(record_bytes: usize) -> Vec<Vec<u8>> {
    (0..64).map(|number| value(record_bytes, number)).collect()
}

fn build_batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
    for record_bytes in [100, 1024] {
        let values = values(record_bytes);
        for codec in Compression::ALL {
            let id = BenchmarkId::new(codec.to_string(), format!("{record_bytes}B"));
            group.bench_function(id, |b| b.iter(|| build(&values, codec, BATCH_BYTES)));
        }
    }
    group.finish();
}

fn check_batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("check");
    for bytes_max in [4 << 10, BATCH_BYTES, 1 << 20] {
        let batch = build(&values(1024), Compression::None, bytes_max);
        let limits = BatchLimits::client(bytes_max);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(BenchmarkId::new("check", bytes_max), |b| {
            b.iter(|| CheckedBatch::check(batch.clone(), &limits).expect("sound"))
        });
        group.bench_function(BenchmarkId::new("crc32c", bytes_max), |b| {
            b.iter(|| crc32c(black_box(&batch)))
        });
        let checked = CheckedBatch::check(batch, &limits).expect("sound");
        for (name, time) in [("stamp", None), ("stamp-append-time", Some(Timestamp(5)))] {
            group.bench_function(BenchmarkId::new(name, bytes_max), |b| {
                b.iter(|| checked.stamp(black_box(Offset(77)), LeaderEpoch(1), time))
            });
        }
    }
    group.finish();
}

fn walk_records(c: &mut Criterion) {
    let mut group = c.benchmark_group("walk");
    group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
    let limits = DecodeLimits::default();
    for record_bytes in [100, 1024] {
        for codec in Compression::ALL {
            let batch = build(&values(record_bytes), codec, BATCH_BYTES);
            let size = format!("{record_bytes}B");
            group.bench_function(BenchmarkId::new(format!("{codec}-borrowed"), &size), |b| {
                b.iter(|| {
                    let view = batches(&batch).next().expect("a batch").expect("sound");
                    view.check_crc().expect("sound");
                    let payload = view.payload(&limits).expect("readable");
                    payload.records().map(|r| r.expect("sound").offset.0).sum::<i64>()
                })
            });
            group.bench_function(BenchmarkId::new(format!("{codec}-owned"), &size), |b| {
                b.iter(|| {
                    let records = Records::open(batch.clone(), &limits).expect("readable");
                    records.map(|r| r.expect("sound").offset.0).sum::<i64>()
                })
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = codec;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = check_batches, build_batches, walk_records
}
criterion_main!(codec);
