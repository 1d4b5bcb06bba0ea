//! The engine's promises, one by one.

use std::sync::Arc;
use std::time::Duration;

use stoplog::env::sim::{Bias, Crash, Fault};
use stoplog::record::ProducerStamp;
use stoplog::storage::{
    Append, AppendError, Appended, IDENTITY_BYTES, Identity, Index, LogDir, Materialised,
    OpenError, Partition, PartitionOptions, PartitionPaths, ReadError, StorageOptions,
};
use stoplog::types::{
    Acks, Durability, DurabilityLevel, Offset, PartitionHealth, PartitionId, ProducerEpoch,
    ProducerId, Timestamp, TimestampType, TopicId, TopicPartition,
};

use crate::world::{World, batch, checked, read, tiny};

fn value(number: usize) -> Vec<u8> {
    format!("record {number:06}").into_bytes()
}

fn producer(base_sequence: i32) -> Option<ProducerStamp> {
    Some(ProducerStamp { id: ProducerId(9), epoch: ProducerEpoch(0), base_sequence })
}

fn with_durability(durability: Durability) -> (StorageOptions, PartitionOptions) {
    let (storage, partition) = tiny();
    (storage, PartitionOptions { durability, ..partition })
}

#[test]
fn a_partition_without_appends_has_no_files() {
    let world = World::new(1);
    assert!(!world.partition.is_materialised());
    assert!(world.disk.files().iter().all(|(path, _)| !path.starts_with("topics")));
    assert!(world.read(Offset(0), 100).expect("empty").records.is_empty());
    assert!(matches!(world.read(Offset(1), 1), Err(ReadError::OffsetOutOfRange { .. })));
    world.append(&[value(0)]).expect("appended");
    assert!(world.partition.is_materialised());
    assert_eq!(world.dir.take_materialised(), [world.partition.id()]);
}

#[test]
fn an_acknowledged_batch_is_durable_visible_and_readable() {
    let world = World::new(2);
    let appended = world.append(&[value(0), value(1)]).expect("appended");
    assert_eq!((appended.base_offset, appended.last_offset), (Offset(0), Offset(1)));
    assert_eq!(appended.level, DurabilityLevel::Durable);
    let ends = world.partition.offsets();
    assert_eq!(
        (ends.visible_end, ends.log_end, ends.durable_end),
        (Offset(2), Offset(2), Offset(2))
    );
    let world = world.reopen_crashed(Crash { bias: Bias::Nothing, seed: 5 });
    assert_eq!(world.read_all(Offset(0)), [(Offset(0), value(0)), (Offset(1), value(1))]);
}

#[test]
fn nothing_is_visible_or_acknowledged_before_its_sync() {
    let world = World::new(3);
    world.append(&[value(0)]).expect("made the segment");
    world.send(1, batch(&[value(1)], Timestamp(1), None), Acks::Topic);
    let jobs = world.step.round();
    assert_eq!(jobs.len(), 1, "one commit");
    let ends = world.partition.offsets();
    assert_eq!((ends.log_end, ends.visible_end), (Offset(2), Offset(1)));
    assert!(world.answers.take(1).is_none());
    for job in jobs {
        world.step.sync_done(job.execute());
    }
    world.step.run_until_idle();
    assert_eq!(world.partition.offsets().visible_end, Offset(2));
    assert!(world.answers.take(1).expect("answered").is_ok());
}

#[test]
fn who_arrives_during_a_sync_joins_the_next_one() {
    let world = World::new(4);
    world.append(&[value(0)]).expect("made the segment");
    world.send(1, batch(&[value(1)], Timestamp(1), None), Acks::Topic);
    let first = world.step.round();
    world.send(2, batch(&[value(2)], Timestamp(1), None), Acks::Topic);
    world.send(3, batch(&[value(3)], Timestamp(1), None), Acks::Topic);
    assert!(world.step.round().is_empty(), "one sync in flight per file");
    assert_eq!(world.partition.offsets().log_end, Offset(4), "appends go on meanwhile");
    for job in first {
        world.step.sync_done(job.execute());
    }
    let second = world.step.round();
    assert!(world.answers.take(1).is_some(), "covered by the first");
    assert!(world.answers.take(2).is_none(), "not covered by the first");
    assert_eq!(second.len(), 1);
    for job in second {
        world.step.sync_done(job.execute());
    }
    world.step.run_until_idle();
    assert!(world.answers.take(2).is_some() && world.answers.take(3).is_some());
}

#[test]
fn acks_decide_what_an_answer_waits_for() {
    let world = World::with(5, with_durability(Durability::Os));
    world.append(&[value(0)]).expect("made the segment");
    world.send(1, batch(&[value(1)], Timestamp(1), None), Acks::Topic);
    world.send(2, batch(&[value(2)], Timestamp(1), None), Acks::Durable);
    world.send(3, batch(&[value(3)], Timestamp(1), None), Acks::None);
    let jobs = world.step.round();
    let level = |n| world.answers.take(n).map(|a| a.expect("appended").level);
    assert_eq!(level(1), Some(DurabilityLevel::Os));
    assert_eq!(level(3), Some(DurabilityLevel::None));
    assert_eq!(level(2), None);
    assert_eq!(world.partition.offsets().visible_end, Offset(4), "os: visible once written");
    for job in jobs {
        world.step.sync_done(job.execute());
    }
    world.step.run_until_idle();
    assert_eq!(level(2), Some(DurabilityLevel::Durable));
}

#[test]
fn an_interval_bounds_the_age_of_unsynced_writes() {
    let world = World::with(6, with_durability(Durability::Interval { ms: 50 }));
    world.append(&[value(0)]).expect("appended");
    assert_eq!(world.partition.offsets().durable_end, Offset(0));
    world.advance(Duration::from_millis(49));
    assert_eq!(world.partition.offsets().durable_end, Offset(0));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.partition.offsets().durable_end, Offset(1));
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offsets() {
    let world = World::new(7);
    let bytes = |sequence| batch(&[value(0), value(1)], Timestamp(1), producer(sequence));
    let first = world.append_bytes(bytes(0)).expect("appended");
    let again = world.append_bytes(bytes(0)).expect("a duplicate");
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.base_offset, again.last_offset), (first.base_offset, first.last_offset));
    assert_eq!(world.partition.offsets().log_end, Offset(2));
    let skipped = world.append_bytes(bytes(5)).expect_err("a gap");
    assert_eq!(skipped, AppendError::OutOfOrderSequence { expected: 2, found: 5 });
}

#[test]
fn a_duplicate_of_what_is_not_durable_yet_waits_for_it() {
    let world = World::new(8);
    world.append(&[value(0)]).expect("made the segment");
    let bytes = || batch(&[value(1)], Timestamp(1), producer(0));
    world.send(1, bytes(), Acks::Topic);
    world.send(2, bytes(), Acks::Topic);
    world.send(3, batch(&[value(2)], Timestamp(1), producer(7)), Acks::Topic);
    let jobs = world.step.round();
    assert!(world.answers.drain().is_empty(), "nothing is answered before the sync");
    for job in jobs {
        world.step.sync_done(job.execute());
    }
    world.step.run_until_idle();
    let answers = world.answers.drain();
    let original = answers[&1].clone().expect("appended");
    let duplicate = answers[&2].clone().expect("a duplicate");
    assert!(duplicate.duplicate);
    assert_eq!(duplicate.base_offset, original.base_offset);
    assert_eq!(answers[&3], Err(AppendError::OutOfOrderSequence { expected: 1, found: 7 }));
}

#[test]
fn producers_are_remembered_over_restarts() {
    let mut world = World::new(9);
    let bytes = |n: i32| batch(&[value(0)], Timestamp(1), producer(n));
    for sequence in 0..40 {
        world.append_bytes(bytes(sequence)).expect("appended");
        if sequence % 10 == 9 {
            world = if sequence == 19 { world.reopen_clean() } else { world.reopen_killed() };
            let again = world.append_bytes(bytes(sequence)).expect("a duplicate");
            assert!(again.duplicate, "sequence {sequence}");
        }
    }
}

#[test]
fn timestamps_of_the_broker_are_stamped() {
    let (storage, partition) = tiny();
    let partition = PartitionOptions { timestamp_type: TimestampType::Append, ..partition };
    let world = World::with(10, (storage, partition));
    let appended = world.append(&[value(0)]).expect("appended");
    let found = world.partition.offset_at(appended.append_time).expect("looks");
    assert_eq!(found, Some((Offset(0), appended.append_time)));
    assert_eq!(world.read_all(Offset(0)).len(), 1, "the new checksum holds");
}

#[test]
fn a_batch_larger_than_a_segment_has_one_of_its_own() {
    let world = World::new(11);
    world.append(&[value(0)]).expect("appended");
    let large = vec![7; 20_000];
    world.append(std::slice::from_ref(&large)).expect("appended");
    world.append(&[value(2)]).expect("appended");
    assert_eq!(world.partition.segment_count(), 3);
    let all = world.read_all(Offset(0));
    assert_eq!(all[1], (Offset(1), large));
    assert_eq!(all.len(), 3);
    let too_large = world.append(&[vec![0; 2 << 20]]);
    assert!(matches!(too_large, Err(AppendError::TooLarge { .. })), "{too_large:?}");
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let world = World::new(12);
    world.append_bytes(batch(&[value(0)], Timestamp(1), producer(0))).expect("appended");
    let used: u64 = world.disk.files().iter().map(|(_, bytes)| bytes).sum();
    world.disk.set_capacity(used);
    let big = vec![1; 200_000];
    let bytes = || batch(std::slice::from_ref(&big), Timestamp(1), producer(1));
    assert!(matches!(world.append_bytes(bytes()), Err(AppendError::DiskFull { .. })));
    assert_eq!(world.partition.health(), PartitionHealth::Writable);
    assert_eq!(world.dir.latched(), None);
    assert_eq!(world.read_all(Offset(0)).len(), 1, "reads go on");
    world.disk.set_capacity(1 << 30);
    let appended = world.append_bytes(bytes()).expect("the same batch, the same sequence");
    assert_eq!((appended.base_offset, appended.duplicate), (Offset(1), false));
}

#[test]
fn a_failed_sync_latches_the_data_directory() {
    let world = World::new(13);
    world.append(&[value(0)]).expect("appended");
    world.disk.fail_from(0, Fault::SyncFailed);
    let refused = world.append(&[value(1)]).expect_err("no sync");
    assert!(matches!(refused, AppendError::Latched { .. }), "{refused:?}");
    let cause = world.dir.latched().expect("latched");
    world.disk.clear_fault();
    assert_eq!(world.append(&[value(2)]), Err(AppendError::Latched { cause: cause.clone() }));
    assert_eq!(world.dir.latched(), Some(cause), "the first cause stays");
    assert_eq!(world.read_all(Offset(0)), [(Offset(0), value(0))], "reads go on");
    let world = world.reopen_crashed(Crash { bias: Bias::Nothing, seed: 1 });
    assert_eq!(world.read_all(Offset(0)), [(Offset(0), value(0))]);
}

#[test]
fn a_failed_write_makes_one_partition_read_only() {
    let world = World::new(14);
    world.append(&[value(0)]).expect("appended");
    world.disk.fail_nth(0, Fault::Eio);
    let refused = world.append(&[value(1)]).expect_err("no write");
    assert!(matches!(refused, AppendError::ReadOnly { .. }), "{refused:?}");
    assert!(matches!(world.partition.health(), PartitionHealth::ReadOnly { .. }));
    assert!(matches!(world.append(&[value(2)]), Err(AppendError::ReadOnly { .. })));
    assert_eq!(world.dir.latched(), None);
    assert_eq!(world.read_all(Offset(0)).len(), 1);
}

#[test]
fn offsets_are_never_handed_out_twice() {
    let mut world = World::with(15, with_durability(Durability::Os));
    let mut highest = -1;
    for round in 0..20 {
        for number in 0..7 {
            let appended = world.append(&[value(number), value(number)]).expect("appended");
            assert!(appended.base_offset.0 > highest, "round {round}");
            highest = appended.last_offset.0;
        }
        world = world.reopen_crashed(Crash::from_seed(round));
    }
}

#[test]
fn a_clean_start_goes_on_without_a_gap_and_writes_nothing() {
    let world = World::new(16);
    for number in 0..50 {
        world.append(&[value(number)]).expect("appended");
    }
    let world = world.reopen_clean();
    let digest = world.disk.digest();
    assert!(world.partition.findings().iter().all(|finding| !finding.is_alarming()));
    let world = world.reopen_killed();
    assert_eq!(world.disk.digest(), digest, "a second start changes nothing");
    assert_eq!(world.append(&[value(50)]).expect("appended").base_offset, Offset(50));
    assert_eq!(world.read_all(Offset(0)).len(), 51);
}

#[test]
fn a_quiet_partition_gets_a_clean_slot() {
    let world = World::new(17);
    world.append(&[value(0)]).expect("appended");
    world.advance(Duration::from_secs(2));
    world.advance(Duration::from_secs(60));
    let digest = world.disk.digest();
    let world = world.reopen_killed();
    assert_eq!(world.disk.digest(), digest, "nothing to recover");
    assert_eq!(world.append(&[value(1)]).expect("appended").base_offset, Offset(1));
}

#[test]
fn trim_moves_the_start_for_good() {
    let world = World::new(18);
    for number in 0..300 {
        world.append(&[value(number)]).expect("appended");
    }
    let segments = world.partition.segment_count();
    let mut ticket = world.partition.trim(Offset(200));
    world.step.run_until_idle();
    assert_eq!(ticket.try_take(), Some(Ok(Offset(200))));
    assert!(world.partition.segment_count() < segments);
    assert!(matches!(world.read(Offset(199), 10), Err(ReadError::OffsetOutOfRange { .. })));
    assert_eq!(world.read_all(Offset(200)).len(), 100);
    let world = world.reopen_crashed(Crash { bias: Bias::Nothing, seed: 3 });
    assert_eq!(world.partition.offsets().start, Offset(200));
    assert_eq!(world.read_all(Offset(200)).len(), 100);
    let mut beyond = world.partition.trim(Offset(9999));
    world.step.run_until_idle();
    assert!(matches!(beyond.try_take(), Some(Err(_))));
}

#[test]
fn a_reader_keeps_what_it_has_while_the_segment_goes() {
    let world = World::new(19);
    for number in 0..300 {
        world.append(&[value(number)]).expect("appended");
    }
    let request = stoplog::storage::ReadRequest { from: Offset(0), max_bytes: 1000 };
    let mut plan = world.partition.plan_read(request).expect("planned");
    let before = plan.mapped().expect("read");
    let _ticket = world.partition.trim(Offset(250));
    world.step.run_until_idle();
    assert_eq!(plan.mapped().expect("still there"), before);
}

#[test]
fn retention_drops_sealed_segments_only() {
    let (storage, partition) = tiny();
    let partition = PartitionOptions { retention_bytes: Some(10_000), ..partition };
    let world = World::with(20, (storage, partition.clone()));
    for number in 0..400 {
        world.append(&[value(number)]).expect("appended");
    }
    world.advance(Duration::from_secs(11));
    world.advance(Duration::from_secs(11));
    assert!(world.partition.segment_count() <= 2);
    let start = world.partition.offsets().start;
    assert!(start > Offset(0));
    assert_eq!(world.read_all(start).last(), Some(&(Offset(399), value(399))));
    let by_time = PartitionOptions {
        retention: Some(Duration::from_secs(60)),
        retention_bytes: None,
        ..partition
    };
    world.partition.set_options(Arc::new(by_time));
    world.advance(Duration::from_secs(120));
    world.advance(Duration::from_secs(11));
    assert_eq!(world.partition.segment_count(), 1, "the active one stays");
    assert_eq!(
        world.read_all(world.partition.offsets().start).last(),
        Some(&(Offset(399), value(399)))
    );
}

#[test]
fn a_deleted_partition_leaves_no_files() {
    let world = World::new(21);
    for number in 0..100 {
        world.append(&[value(number)]).expect("appended");
    }
    let mut ticket = world.partition.delete();
    world.step.run_until_idle();
    assert_eq!(ticket.try_take(), Some(Ok(())));
    assert!(world.disk.files().iter().all(|(path, _)| !path.starts_with("topics")));
    assert_eq!(world.append(&[value(0)]), Err(AppendError::Closed));
    assert_eq!(read(&world.partition, Offset(0), 10).map(|_| ()), Err(ReadError::Closed));
}

#[test]
fn a_partition_that_was_closed_opens_with_what_it_holds() {
    let world = World::new(25);
    world.append(&[value(0)]).expect("appended");
    let _ticket = world.partition.close();
    world.step.run_until_idle();
    let options = Arc::new(world.partition_options.clone());
    let known = stoplog::storage::Materialised::Unknown;
    let again = world.dir.partition(world.partition.id(), options, known).expect("opens");
    assert_eq!(read(&again, Offset(0), 100).expect("readable").records.len(), 1);
}

#[test]
fn a_sealed_segment_is_not_allocated_any_further() {
    let (storage, partition) = tiny();
    let options = PartitionOptions { segment_bytes: 512 << 10, ..partition };
    let world = World::with(26, (storage, options));
    world.append(&[vec![7; 60_000]]).expect("appended");
    let world = world.reopen_killed();
    world.append(&[value(1)]).expect("appended to a new segment: the epoch changed");
    let first = world.disk.files().into_iter().find(|(path, _)| path.ends_with(FIRST_SEGMENT));
    let bytes = first.expect("the first segment").1;
    assert!(bytes < 100_000, "one batch of 60,000 bytes fills a sealed file of {bytes}");
}

const FIRST_SEGMENT: &str = "00000000000000000000.log";

#[test]
fn nothing_is_left_in_memory_of_a_data_directory_that_was_dropped() {
    let world = World::new(40);
    world.append(&[value(0)]).expect("appended");
    let world = world.reopen_killed();
    let World { env, dir, partition, step, .. } = world;
    let held = Arc::strong_count(&env.disk);
    drop((dir, partition, step));
    assert!(held > 1);
    assert_eq!(Arc::strong_count(&env.disk), 1);
}

#[test]
fn a_data_directory_has_one_user() {
    let world = World::new(22);
    let second = LogDir::open(world.options.clone(), world.env.clone());
    assert!(matches!(second, Err(OpenError::Locked)));
}

#[test]
fn a_waiter_is_woken_by_the_visible_end() {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};
    let world = World::new(23);
    let partition = world.partition.clone();
    let mut waiting = Box::pin(partition.wait_visible(Offset(0)));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    world.append(&[value(0)]).expect("appended");
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(Some(Offset(1))));
    let mut waiting = Box::pin(partition.wait_visible(Offset(1)));
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    let _ticket = world.partition.close();
    world.step.run_until_idle();
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(None));
}

#[test]
fn epochs_grow_at_unclean_starts_and_are_answered() {
    let mut world = World::new(24);
    let mut ends = Vec::new();
    for number in 0..3 {
        world.append(&[value(number)]).expect("appended");
        ends.push((world.partition.leader_epoch(), world.partition.offsets().log_end));
        world = world.reopen_killed();
    }
    assert!(ends.windows(2).all(|pair| pair[0].0 < pair[1].0), "{ends:?}");
    for (epoch, end) in ends {
        assert_eq!(world.partition.end_offset_for_epoch(epoch), Some((epoch, end)));
    }
}

#[test]
fn a_queue_full_of_records_still_takes_the_brokers_own() {
    let (mut storage, partition) = tiny();
    (storage.queue_bytes_max, storage.queue_batches_max) = (64 << 10, 8);
    let world = World::with(1, (storage, partition.clone()));
    let id = TopicPartition { topic: TopicId::from_bytes([8; 16]), partition: PartitionId(0) };
    let options = PartitionOptions { internal: true, segment_bytes: 1 << 20, ..partition };
    let own = world.dir.partition(id, Arc::new(options), Materialised::Unknown).expect("opens");
    // What is refused is given back unanswered: `done` is dropped.
    let fill = |partition: &Partition| {
        let append = || {
            Append::new(
                checked(batch(&[value(0)], Timestamp(1), None)),
                Acks::Topic,
                Box::new(|result: Result<Appended, _>| assert!(result.is_ok())),
            )
        };
        (0..1_000).take_while(|_| partition.append(append()).is_ok()).count()
    };
    assert_eq!(fill(&world.partition), 8);
    assert_eq!(fill(&own), 64, "a reserve, and a bound");
    assert_eq!(fill(&world.partition), 0);
    world.step.run_until_idle();
    assert_eq!(own.offsets().durable_end, Offset(64));
    assert_eq!(fill(&world.partition), 8, "room again");
    world.step.run_until_idle();
}

#[test]
fn how_long_commits_took_is_told_once_and_not_kept_for_ever() {
    let world = World::new(1);
    let taken = || {
        let mut times = Vec::new();
        world.dir.take_sync_times(0, &mut times);
        times
    };
    world.append(&[value(0)]).expect("appended");
    taken();
    world.send(1, batch(&[value(1)], Timestamp(1), None), Acks::Topic);
    let jobs = world.step.round();
    world.clock.advance(Duration::from_millis(7));
    jobs.into_iter().for_each(|job| world.step.sync_done(job.execute()));
    world.step.run_until_idle();
    assert_eq!(taken().into_iter().max(), Some(Duration::from_millis(7)));
    assert!(taken().is_empty());
    for number in 0..300 {
        world.append(&[value(number)]).expect("appended");
    }
    assert_eq!(taken().len(), 256);
    let mut of_nobody = Vec::new();
    world.dir.take_sync_times(1, &mut of_nobody);
    assert!(of_nobody.is_empty(), "there is one writer");
}

#[test]
fn an_unclean_start_reads_a_long_segment_from_the_last_piece_of_its_index_on() {
    for (durability, pieces) in [(Durability::Fsync, 8), (Durability::Os, 16)] {
        recover_a_long_segment(durability, pieces);
    }
}

/// One of 3.2 MB is recovered by reading fewer than `pieces` pieces of 64 KiB.
fn recover_a_long_segment(durability: Durability, pieces: u64) {
    const FLUSH: u64 = 64 << 10;
    let (storage, partition) = tiny();
    let storage = StorageOptions { index_flush_bytes: FLUSH, allocate_step_max: FLUSH, ..storage };
    let options = PartitionOptions { segment_bytes: 8 << 20, durability, ..partition };
    let world = World::with(46, (storage, options));
    for sequence in 0..800 {
        let bytes = batch(&[vec![7; 4000]], Timestamp(1), producer(sequence));
        world.append_bytes(bytes).expect("appended");
    }
    let before = world.disk.bytes_read();
    let world = world.reopen_killed();
    let read = world.disk.bytes_read() - before;
    assert!(
        read < pieces * FLUSH,
        "{durability:?}: {read} bytes read to recover 800 batches of 4,000 bytes"
    );
    let again = batch(&[vec![7; 4000]], Timestamp(1), producer(799));
    assert!(world.append_bytes(again).expect("known").duplicate);
}

#[test]
fn the_index_of_a_long_segment_is_written_on_beside_its_commits() {
    const FLUSH: u64 = 64 << 10;
    let (storage, partition) = tiny();
    let storage = StorageOptions { index_flush_bytes: FLUSH, ..storage };
    let partition = PartitionOptions { segment_bytes: 8 << 20, ..partition };
    let world = World::with(31, (storage, partition));
    for number in 0..200 {
        world.append(&[value(number).repeat(200)]).expect("appended");
    }
    let paths = PartitionPaths::new(world.partition.id());
    let log = world.disk.read_file(paths.log(Offset(0))).expect("there");
    let tag = Identity::decode(&log[..IDENTITY_BYTES]).expect("whole").tag();
    let end = log.iter().rposition(|byte| *byte != 0).expect("data") as u64;
    let stored = world.disk.read_file(paths.index(Offset(0))).expect("written on");
    let (index, is_bad) = Index::decode(&stored, tag, Offset(0), end);
    let last = u64::from(index.entries().last().expect("entries").position);
    assert!(!is_bad && last + 2 * FLUSH > end, "{last} of {end}");
    let before = world.read_all(Offset(0));
    let world = world.reopen_killed();
    assert_eq!(world.partition.health(), PartitionHealth::Writable);
    assert_eq!(world.read_all(Offset(0)), before);
}
