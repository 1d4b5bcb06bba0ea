//! Under pressure: what is past retention goes without an append, and nothing else does.

use std::time::Duration;

use stoplog::env::sim::{Bias, Crash};
use stoplog::storage::{PartitionOptions, StorageOptions, SyncJob};
use stoplog::types::{Acks, Durability, Offset, PartitionHealth};

use crate::world::{World, batch, tiny};

const RETENTION: Duration = Duration::from_secs(60);
const PAST_RETENTION: Duration = Duration::from_secs(61);

fn options(durability: Durability) -> (StorageOptions, PartitionOptions) {
    let (storage, partition) = tiny();
    let retention = Some(RETENTION);
    let partition = PartitionOptions { durability, retention, segment_age: RETENTION, ..partition };
    (storage, PartitionOptions { segment_bytes: 64 << 10, ..partition })
}

/// One active segment of three batches, all of them past retention.
fn expired(seed: u64, durability: Durability) -> World {
    let world = World::with(seed, options(durability));
    for value in 0..3 {
        world.append(&[vec![value; 900]]).expect("appended");
    }
    world.clock.advance(PAST_RETENTION);
    world
}

fn reclaim(world: &World) {
    world.partition.reclaim();
    world.step.run_until_idle();
}

fn logs(world: &World) -> usize {
    let is_log = |path: &std::path::Path| path.extension().is_some_and(|e| e == "log");
    world.disk.files().iter().filter(|(path, _)| is_log(path)).count()
}

#[test]
fn an_expired_active_segment_goes_without_an_append() {
    for (seed, durability) in
        (1..).zip([Durability::Fsync, Durability::Os, Durability::Interval { ms: 60_000 }])
    {
        let world = expired(seed, durability);
        reclaim(&world);
        assert_eq!((world.partition.segment_count(), world.partition.bytes()), (0, 0));
        assert_eq!(logs(&world), 0, "{durability:?}");
        let ends = world.partition.offsets();
        assert_eq!((ends.start, ends.visible_end, ends.log_end), (Offset(3), Offset(3), Offset(3)));
        assert!(world.read_all(Offset(3)).is_empty());
        let appended = world.append(&[vec![9; 10]]).expect("goes on");
        assert_eq!(appended.base_offset, Offset(3));
        assert_eq!(world.read_all(Offset(3)), [(Offset(3), vec![9; 10])]);
        let world = world.reopen_clean();
        assert_eq!(world.read_all(Offset(3)), [(Offset(3), vec![9; 10])]);
    }
}

#[test]
fn only_an_order_takes_an_active_segment() {
    let world = expired(4, Durability::Fsync);
    world.advance(Duration::from_secs(3_600));
    assert_eq!(world.partition.segment_count(), 1, "housekeeping looks at sealed ones");
    reclaim(&world);
    assert_eq!(world.partition.segment_count(), 0);
}

#[test]
fn what_is_not_past_retention_stays() {
    let world = expired(5, Durability::Fsync);
    world.append(&[vec![7; 10]]).expect("rolls, for the segment is old");
    reclaim(&world);
    assert_eq!(world.read_all(world.partition.offsets().start), [(Offset(3), vec![7; 10])]);
    let edge = world.partition.retention_edge().expect("it has one").0;
    let now = world.env.clock.now().0;
    assert_eq!(edge - now, 60_001, "one of its own");
    world.clock.advance(Duration::from_millis(60_000));
    reclaim(&world);
    assert_eq!(world.partition.segment_count(), 1);
    world.clock.advance(Duration::from_millis(1));
    reclaim(&world);
    assert_eq!(world.partition.segment_count(), 0);
    assert_eq!(world.partition.retention_edge(), None);
}

#[test]
fn protected_records_stay_and_an_operator_may_trim_them() {
    let world = expired(6, Durability::Fsync);
    world.partition.protect(Some(Offset(2)));
    reclaim(&world);
    assert_eq!(world.read_all(Offset(0)).len(), 3, "a segment goes whole or not at all");
    world.append(&[vec![7; 10]]).expect("rolls");
    world.advance(Duration::from_secs(3_600));
    assert_eq!(world.partition.sealed_segments().len(), 1, "nor does housekeeping take it");
    let mut trim = world.partition.trim(Offset(3));
    world.step.run_until_idle();
    assert_eq!(trim.try_take(), Some(Ok(Offset(3))));
    world.partition.protect(None);
    reclaim(&world);
    assert_eq!(world.partition.segment_count(), 0);
}

#[test]
fn a_full_disk_gets_its_space_back() {
    let world = expired(7, Durability::Fsync);
    let before = world.env.disk.space().expect("space");
    world.disk.set_capacity(before.capacity - before.free);
    assert_eq!(world.env.disk.space().expect("space").free, 0);
    reclaim(&world);
    assert_eq!((world.partition.segment_count(), logs(&world)), (0, 0));
    assert_eq!(world.partition.health(), PartitionHealth::Writable);
    assert!(world.env.disk.space().expect("space").free > 3 * 900);
    assert_eq!(world.append(&[vec![9; 10]]).expect("room again").base_offset, Offset(3));
}

#[test]
fn an_append_that_comes_meanwhile_finds_a_segment() {
    let world = expired(8, Durability::Os);
    world.partition.reclaim();
    let mut held: Vec<SyncJob> = Vec::new();
    for _ in 0..10 {
        for job in world.step.round() {
            match job.name() {
                "name" | "commit" | "seal" => held.push(job),
                _ => world.step.sync_done(job.execute()),
            }
        }
    }
    assert!(!held.is_empty());
    world.send(1, batch(&[vec![7; 10]], world.env.clock.now(), None), Acks::Topic);
    held.extend(world.step.round());
    held.into_iter().for_each(|job| world.step.sync_done(job.execute()));
    world.step.run_until_idle();
    let appended = world.answers.take(1).expect("answered").expect("appended");
    assert_eq!(appended.base_offset, Offset(3));
    assert_eq!(world.read_all(world.partition.offsets().start).len(), 1);
    assert_eq!(logs(&world), 1);
}

#[test]
fn no_crash_on_the_way_hands_an_offset_out_twice() {
    let world = expired(9, Durability::Fsync);
    world.disk.record_snapshots();
    reclaim(&world);
    let states = world.disk.take_snapshots();
    assert!(states.len() > 8, "several changes of the disk");
    for (number, state) in states.iter().enumerate() {
        for bias in [Bias::Nothing, Bias::Everything] {
            let after = world.started_on(state.image(Crash { bias, seed: number as u64 }));
            assert_eq!(after.partition.health(), PartitionHealth::Writable, "{number} {bias:?}");
            let start = after.partition.offsets().start;
            let left = after.read_all(start).len();
            assert!([0, 3].contains(&left), "whole or gone: {left}");
            let appended = after.append(&[vec![1; 10]]).expect("goes on");
            assert!(appended.base_offset >= Offset(3), "{number} {bias:?}: {appended:?}");
        }
    }
}
