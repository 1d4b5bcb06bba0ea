//! `tests/golden/data-dir-v1` was written by version 1 and must open in every later build.
//! It was made by `STOPLOG_WRITE_GOLDEN=1 cargo test --test storage golden_dir`; never make it again
//! for the same version: that would only prove that a build reads itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stoplog::env::Disk;
use stoplog::env::sim::{SimClock, SimDisk, env_on};
use stoplog::record::{BatchBuilder, BuilderOptions, Compression, ProducerStamp, RecordRef};
use stoplog::storage::{
    Append, Drive, LogDir, Materialised, Partition, PartitionOptions, RepairMode, RepairOptions,
    ShutdownMode, StorageOptions, VerifyOptions, repair, verify,
};
use stoplog::types::{
    Acks, Durability, Offset, PartitionHealth, PartitionId, ProducerEpoch, ProducerId, Timestamp,
    TopicId, TopicPartition,
};

use crate::world::{checked, read};

/// Partition 0: sealed and trimmed segments, a producer, left clean.
const CLEAN: u32 = 0;
/// Partition 1: compressed batches, left as a killed process leaves it, the last batch torn.
const TORN: u32 = 1;
/// Partition 2: lost three batches to rot, was repaired with the loss accepted.
const REPAIRED: u32 = 2;

const BATCHES: i64 = 60;
const RECORDS_PER_BATCH: i64 = 2;
const TRIMMED_BEFORE: Offset = Offset(41);

#[test]
fn golden_dir_of_version_1_opens_and_reads_back() {
    if std::env::var_os("STOPLOG_WRITE_GOLDEN").is_some() {
        write_files(&make());
    }
    let disk = load_files();
    let summary = verify(&disk, &VerifyOptions::default(), &mut |_| Ok(())).expect("verifies");
    assert_eq!((summary.partitions, summary.corrupt), (3, 0));
    let dir = open(&disk);
    let all = BATCHES * RECORDS_PER_BATCH;

    let clean = open_partition(&dir, CLEAN);
    assert_eq!(clean.offsets().start, TRIMMED_BEFORE);
    assert_eq!(offsets(&clean, TRIMMED_BEFORE), (TRIMMED_BEFORE.0..all).collect::<Vec<_>>());

    let torn = open_partition(&dir, TORN);
    assert_eq!(offsets(&torn, Offset(0)), (0..all - RECORDS_PER_BATCH).collect::<Vec<_>>());
    assert!(torn.findings().iter().any(|finding| finding.to_string().contains("torn")));

    let repaired = open_partition(&dir, REPAIRED);
    let kept = offsets(&repaired, Offset(0));
    let lost: Vec<i64> = (0..all).filter(|offset| !kept.contains(offset)).collect();
    assert_eq!(lost, [4, 5]);

    for partition in [&clean, &torn, &repaired] {
        assert_eq!(partition.health(), PartitionHealth::Writable);
        let end = partition.offsets().log_end;
        append(&dir, partition, end, Compression::None, Acks::Durable);
        assert!(partition.offsets().log_end > end, "it takes appends");
    }
    let ends = [&clean, &torn, &repaired].map(|partition| partition.offsets().log_end);
    dir.shutdown(ShutdownMode::Abort);
    drop((clean, torn, repaired, dir));
    goes_on(&disk.kill(), ends);
}

/// A segment of version 1 that this build wrote on is as good as any: it keeps the way in which its
/// data is summed up.
fn goes_on(disk: &SimDisk, ends: [Offset; 3]) {
    let summary = verify(disk, &VerifyOptions::default(), &mut |_| Ok(())).expect("verifies");
    assert_eq!((summary.partitions, summary.corrupt), (3, 0));
    let dir = open(disk);
    for (number, end) in [CLEAN, TORN, REPAIRED].into_iter().zip(ends) {
        let partition = open_partition(&dir, number);
        assert_eq!(
            (partition.health(), partition.offsets().log_end),
            (PartitionHealth::Writable, end)
        );
        for base in (end.0..end.0 + BATCHES * RECORDS_PER_BATCH).step_by(RECORDS_PER_BATCH as usize)
        {
            append(&dir, &partition, Offset(base), Compression::None, Acks::Durable);
        }
    }
    dir.shutdown(ShutdownMode::Drain);
    drop(dir);
    let summary = verify(disk, &VerifyOptions::default(), &mut |_| Ok(())).expect("verifies");
    assert_eq!((summary.partitions, summary.corrupt), (3, 0));
}

/// Offsets from `from` to the end; every value must be the one that was written at its offset.
fn offsets(partition: &Partition, from: Offset) -> Vec<i64> {
    let (mut at, mut found) = (from, Vec::new());
    loop {
        let piece = read(partition, at, 5000).expect("readable");
        for (offset, bytes) in &piece.records {
            assert_eq!(*bytes, value(partition.id().partition.0, *offset), "{offset}");
            found.push(offset.0);
        }
        if piece.next == at {
            return found;
        }
        at = piece.next;
    }
}

fn value(partition: u32, offset: Offset) -> Vec<u8> {
    let mut value = format!("partition {partition} record {offset} ").into_bytes();
    value.resize(300, b'.');
    value
}

fn id(partition: u32) -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([0x60; 16]), partition: PartitionId(partition) }
}

fn open(disk: &SimDisk) -> LogDir {
    let options = StorageOptions {
        drive: Drive::Stepped,
        writers: 1,
        reserve_bytes_max: 0,
        ..StorageOptions::default()
    };
    LogDir::open(options, env_on(disk, &SimClock::new(), 60)).expect("opens")
}

fn open_partition(dir: &LogDir, partition: u32) -> Partition {
    let options = PartitionOptions {
        segment_bytes: 32 << 10,
        retention: None,
        durability: if partition == TORN { Durability::Os } else { Durability::Fsync },
        ..PartitionOptions::default()
    };
    dir.partition(id(partition), Arc::new(options), Materialised::Unknown).expect("recovers")
}

fn append(dir: &LogDir, to: &Partition, base: Offset, compression: Compression, acks: Acks) {
    let number = to.id().partition.0;
    let producer = (number == CLEAN).then_some(ProducerStamp {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
        base_sequence: base.0 as i32,
    });
    let options = BuilderOptions { compression, producer, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for offset in base.0..base.0 + RECORDS_PER_BATCH {
        let value = value(number, Offset(offset));
        let timestamp = Timestamp(1_700_000_000_000 + offset);
        let record = RecordRef { timestamp, value: Some(&value), ..RecordRef::default() };
        builder.push(&record).expect("room");
    }
    let append = Append::new(checked(builder.build()), acks, Box::new(|_| {}));
    to.append(append).expect("room in the queue");
    dir.stepper().expect("stepped").run_until_idle();
}

fn fill(dir: &LogDir, partition: u32, compression: Compression, acks: Acks) -> Partition {
    let partition = open_partition(dir, partition);
    for base in (0..BATCHES * RECORDS_PER_BATCH).step_by(RECORDS_PER_BATCH as usize) {
        append(dir, &partition, Offset(base), compression, acks);
    }
    partition
}

fn make() -> SimDisk {
    let disk = SimDisk::new(60);
    let dir = open(&disk);
    let clean = fill(&dir, CLEAN, Compression::None, Acks::Durable);
    let trimmed = clean.trim(TRIMMED_BEFORE);
    dir.stepper().expect("stepped").run_until_idle();
    drop(trimmed);
    let repaired = fill(&dir, REPAIRED, Compression::None, Acks::Durable);
    dir.shutdown(ShutdownMode::Drain);
    drop((clean, repaired, dir));

    let rotten = log(REPAIRED, 0);
    disk.flip_bit(&rotten, 16_384 + 2 * 700 + 100, 3);
    accept_loss(&disk);

    let dir = open(&disk);
    let torn = fill(&dir, TORN, Compression::Zstd, Acks::Os);
    dir.shutdown(ShutdownMode::Abort);
    drop((torn, dir));
    let disk = disk.kill();
    tear(&disk);
    disk
}

fn log(partition: u32, base: i64) -> PathBuf {
    let id = id(partition);
    PathBuf::from(format!("topics/{}/{}/{base:020}.log", id.topic, id.partition))
}

fn accept_loss(disk: &SimDisk) {
    let options = RepairOptions {
        mode: RepairMode::Write,
        accept_loss: BTreeSet::from([id(REPAIRED)]),
        names: BTreeMap::new(),
        now: Timestamp(1_700_000_000_000),
    };
    let summary = repair(disk, &options, &mut |_| Ok(())).expect("repairs");
    assert_eq!(summary.repaired, 1);
    for (path, _) in disk.files() {
        if path.starts_with("quarantine") {
            disk.delete_file(&path);
        }
    }
}

/// Cuts into the last batch of the torn partition's last segment.
fn tear(disk: &SimDisk) {
    let dir = format!("topics/{}/{TORN}", id(TORN).topic);
    let logs = disk.files().into_iter().map(|(path, _)| path);
    let last = logs
        .filter(|path| path.starts_with(&dir) && path.extension().is_some_and(|e| e == "log"))
        .max()
        .expect("a segment");
    let mut bytes = disk.read_file(&last).expect("there");
    let end = bytes.iter().rposition(|b| *b != 0).expect("data");
    bytes.truncate(end - 5);
    disk.write_file(&last, &bytes);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data-dir-v1")
}

#[expect(clippy::disallowed_methods, reason = "golden files are real files")]
fn write_files(disk: &SimDisk) {
    for (path, _) in disk.files() {
        if path == Path::new("LOCK") {
            continue;
        }
        let to = root().join(&path);
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("made");
        std::fs::write(to, disk.read_file(&path).expect("there")).expect("written");
    }
}

fn load_files() -> SimDisk {
    let disk = SimDisk::new(61);
    let mut waiting = vec![root()];
    while let Some(dir) = waiting.pop() {
        let inside = dir.strip_prefix(root()).expect("below").to_path_buf();
        disk.create_dir_all(&inside).expect("made");
        for entry in std::fs::read_dir(&dir).expect("the golden directory") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                load_file(&disk, &path);
            }
        }
    }
    disk
}

#[expect(clippy::disallowed_methods, reason = "golden files are real files")]
fn load_file(disk: &SimDisk, path: &Path) {
    let bytes = std::fs::read(path).expect("readable");
    let inside = path.strip_prefix(root()).expect("below");
    disk.create_dir_all(inside.parent().expect("a directory")).expect("made");
    assert!(disk.write_file(inside, &bytes));
}
