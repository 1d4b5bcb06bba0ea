//! From one segment to the next: what an append waits for there, and when the full one is synced.

use std::time::Duration;

use stoplog::env::sim::{Bias, Crash, Fault};
use stoplog::storage::{AppendError, Finding, PartitionOptions, StorageOptions, SyncJob};
use stoplog::types::{Acks, Durability, DurabilityLevel, Offset, PartitionHealth, Timestamp};

use crate::world::{World, batch, tiny};

fn value(number: usize) -> Vec<u8> {
    format!("record {number:06}").into_bytes()
}

fn with_durability(durability: Durability) -> (StorageOptions, PartitionOptions) {
    let (storage, partition) = tiny();
    (storage, PartitionOptions { durability, ..partition })
}

/// Rounds with all their jobs, but for those of `held` kinds: they come back to nobody.
fn run_without(world: &World, held: &[&str]) -> Vec<SyncJob> {
    let mut waiting = Vec::new();
    for _ in 0..20 {
        for job in world.step.round() {
            match held.contains(&job.name()) {
                true => waiting.push(job),
                false => world.step.sync_done(job.execute()),
            }
        }
    }
    waiting
}

fn finish(world: &World, jobs: Vec<SyncJob>) {
    for job in jobs {
        world.step.sync_done(job.execute());
    }
    world.step.run_until_idle();
}

/// What the power going off now would leave.
fn after_a_power_cut(world: &World) -> World {
    let disk = world.disk.image(Crash { bias: Bias::Nothing, seed: 1 });
    world.started_on(disk)
}

#[test]
fn a_roll_does_not_wait_for_the_old_segment_to_be_synced() {
    let world = World::with(27, with_durability(Durability::Os));
    world.append(&[vec![1; 3000]]).expect("fills the first segment");
    world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Topic);
    let held = run_without(&world, &["commit", "seal"]);
    assert!(world.answers.take(1).expect("answered").is_ok());
    assert_eq!(world.partition.segment_count(), 2);
    assert_eq!(world.read_all(Offset(0)).len(), 2, "visible before it is durable");
    assert_eq!(world.partition.offsets().durable_end, Offset(0), "nothing is synced");
    let cut = after_a_power_cut(&world);
    assert_eq!(cut.partition.health(), PartitionHealth::Writable);
    assert!(cut.read_all(cut.partition.offsets().start).is_empty(), "the device has nothing yet");
    finish(&world, held);
    assert_eq!(sealed(&world), 1, "the old one is sealed");
    let cut = after_a_power_cut(&world);
    assert_eq!(cut.read_all(Offset(0)).len(), 2);
}

#[test]
fn nothing_is_durable_before_all_segments_in_front_of_it() {
    let world = World::with(28, with_durability(Durability::Os));
    world.append(&[vec![1; 3000]]).expect("fills the first segment");
    world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Durable);
    let mut held = Vec::new();
    for _ in 0..20 {
        for job in world.step.round() {
            match job.name() {
                "commit" if held.is_empty() => held.push(job),
                _ => world.step.sync_done(job.execute()),
            }
        }
    }
    assert_eq!(held.len(), 1, "the sync of the first segment");
    assert_eq!(world.answers.take(1), None, "the second is synced, the first is not");
    assert_eq!(world.partition.offsets().durable_end, Offset(0));
    let cut = after_a_power_cut(&world);
    assert_eq!(cut.partition.health(), PartitionHealth::Writable, "a torn log, not a damaged one");
    assert!(cut.read_all(cut.partition.offsets().start).is_empty(), "a log has no holes");
    assert!(cut.disk.files().iter().any(|(path, _)| path.starts_with("torn")), "but it is kept");
    let appended = cut.append(&[value(0)]).expect("goes on");
    assert!(appended.base_offset >= Offset(2), "no offset is handed out twice: {appended:?}");
    finish(&world, held);
    let level = world.answers.take(1).expect("answered").expect("appended").level;
    assert_eq!(level, DurabilityLevel::Durable);
    assert_eq!(after_a_power_cut(&world).read_all(Offset(0)).len(), 2);
}

#[test]
fn a_roll_waits_where_as_many_segments_as_may_are_not_sealed() {
    let (storage, partition) = with_durability(Durability::Os);
    let storage = StorageOptions { sealing_segments_max: 3, ..storage };
    let world = World::with(29, (storage, partition));
    for number in 0..5 {
        world.send(number, batch(&[vec![1; 3000]], Timestamp(1), None), Acks::Topic);
    }
    let held = run_without(&world, &["commit", "seal"]);
    assert_eq!(world.partition.segment_count(), 4, "three that are full and the active one");
    assert_eq!(world.answers.drain().len(), 4);
    finish(&world, held);
    assert_eq!(world.answers.drain().len(), 1);
    assert_eq!(world.read_all(Offset(0)).len(), 5);
}

#[test]
fn a_roll_does_not_wait_for_a_commit_of_the_old_segment() {
    let world = World::with(30, with_durability(Durability::Interval { ms: 50 }));
    world.append(&[vec![1; 3000]]).expect("fills the first segment");
    world.clock.advance(Duration::from_millis(50));
    let commit = run_without(&world, &["commit"]);
    assert_eq!(commit.len(), 1, "the interval is over");
    world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Topic);
    let more = run_without(&world, &["commit", "seal"]);
    assert!(more.is_empty(), "one sync in flight per file");
    assert!(world.answers.take(1).expect("answered").is_ok());
    finish(&world, commit);
    assert!(world.partition.offsets().durable_end >= Offset(1));
}

#[test]
fn segments_that_are_not_sealed_go_with_their_partition() {
    let world = World::with(31, with_durability(Durability::Os));
    for number in 0..4 {
        world.send(number, batch(&[vec![1; 3000]], Timestamp(1), None), Acks::Topic);
    }
    let held = run_without(&world, &["commit", "seal"]);
    let mut ticket = world.partition.delete();
    world.step.run_until_idle();
    assert_eq!(ticket.try_take(), None, "its files are in use");
    finish(&world, held);
    assert_eq!(ticket.try_take(), Some(Ok(())));
    assert!(world.disk.files().iter().all(|(path, _)| !path.starts_with("topics")));
}

#[test]
fn a_trim_behind_a_segment_that_is_not_sealed_removes_it_later() {
    let world = World::new(32);
    world.append(&[vec![1; 3000]]).expect("fills the first segment");
    world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Topic);
    let held = run_without(&world, &["seal"]);
    assert!(world.answers.take(1).is_some(), "durable, though not sealed");
    let mut ticket = world.partition.trim(Offset(1));
    assert!(run_without(&world, &["seal"]).is_empty(), "one seal at a time");
    assert_eq!(ticket.try_take(), Some(Ok(Offset(1))));
    assert_eq!(world.partition.segment_count(), 2, "it stays until it is sealed");
    finish(&world, held);
    assert_eq!(world.partition.segment_count(), 1);
    assert_eq!(world.read_all(Offset(1)).len(), 1);
}

#[test]
fn a_stop_in_order_seals_everything() {
    let world = World::with(33, with_durability(Durability::Os));
    for number in 0..4 {
        world.send(number, batch(&[vec![1; 3000]], Timestamp(1), None), Acks::Topic);
    }
    run_without(&world, &[]).clear();
    let world = world.reopen_clean();
    let sealed = |finding: &Finding| matches!(finding, Finding::SealCompleted { .. });
    assert!(!world.partition.findings().iter().any(sealed), "nothing was left to the start");
    assert_eq!(world.partition.sealed_segments().len(), 3);
    let digest = world.disk.digest();
    let world = world.reopen_killed();
    assert_eq!(world.disk.digest(), digest);
}

#[test]
fn a_failed_sync_of_a_full_segment_latches_the_data_directory() {
    let world = World::with(34, with_durability(Durability::Os));
    world.append(&[vec![1; 3000]]).expect("fills the first segment");
    world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Durable);
    let held = run_without(&world, &["commit", "seal"]);
    world.disk.fail_from(0, Fault::SyncFailed);
    finish(&world, held);
    assert!(world.dir.latched().is_some());
    assert!(matches!(world.answers.take(1), Some(Err(AppendError::Latched { .. }))));
}

#[test]
fn a_full_disk_leaves_a_segment_without_a_footer_and_not_without_its_data() {
    let (storage, partition) = with_durability(Durability::Os);
    let storage = StorageOptions { sealing_segments_max: 1, ..storage };
    let world = World::with(35, (storage, partition));
    world.append(&[vec![1; 20_000]]).expect("fills the first segment");
    world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Topic);
    let held = run_without(&world, &["commit", "seal"]);
    for job in held {
        world.step.sync_done(job.execute());
    }
    let footer = run_without(&world, &["seal"]);
    assert_eq!(world.partition.offsets().durable_end, Offset(2), "durable without its footer");
    world.disk.fail_nth(0, Fault::Enospc);
    finish(&world, footer);
    assert!(world.disk.struck().is_some());
    assert_eq!((world.dir.latched(), world.partition.sealed_segments().len()), (None, 0));
    assert_eq!(world.partition.health(), PartitionHealth::Writable);
    let refused = world.append(&[vec![3; 3000]]).expect_err("no further segment meanwhile");
    assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
    world.advance(Duration::from_secs(11));
    for number in 2..6 {
        world.append(&[vec![1; 3000]]).unwrap_or_else(|e| panic!("append {number}: {e}"));
    }
    assert_eq!(world.partition.sealed_segments().len(), 5, "sealed when there was room again");
}

/// A full segment and one batch in the next, of a topic that is not synced by its acks.
fn full_and_next(seed: u64, durability: Durability) -> World {
    let (storage, partition) = with_durability(durability);
    let storage = StorageOptions { seal_delay_max: Duration::from_secs(5), ..storage };
    let world = World::with(seed, (storage, partition));
    world.append(&[vec![1; 3000]]).expect("fills the first segment");
    world.append(&[vec![2; 3000]]).expect("in the second segment");
    assert_eq!(world.partition.segment_count(), 2);
    world
}

fn sealed(world: &World) -> usize {
    world.partition.sealed_segments().len()
}

#[test]
fn a_full_segment_of_an_os_topic_is_sealed_by_its_deadline() {
    let world = full_and_next(36, Durability::Os);
    assert_eq!((sealed(&world), world.partition.offsets().durable_end), (0, Offset(0)));
    world.advance(Duration::from_millis(4_999));
    assert_eq!((sealed(&world), world.partition.offsets().durable_end), (0, Offset(0)));
    world.advance(Duration::from_millis(1));
    assert_eq!((sealed(&world), world.partition.offsets().durable_end), (1, Offset(2)));
    assert_eq!(after_a_power_cut(&world).read_all(Offset(0)).len(), 2);
}

#[test]
fn an_interval_holds_for_a_full_segment_too() {
    let world = full_and_next(37, Durability::Interval { ms: 50 });
    world.advance(Duration::from_millis(49));
    assert_eq!(world.partition.offsets().durable_end, Offset(0));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.partition.offsets().durable_end, Offset(2));
}

#[test]
fn half_of_the_full_segments_that_may_wait_do() {
    let world = full_and_next(38, Durability::Os);
    for number in 2..4 {
        world.append(&[vec![1; 3000]]).expect("appended");
        assert_eq!(sealed(&world), 0, "append {number}");
    }
    world.append(&[vec![1; 3000]]).expect("the fourth full one");
    assert_eq!(sealed(&world), 4, "named, synced and sealed together");
    for number in 5..24 {
        world.append(&[vec![1; 3000]]).expect("appended");
        assert_eq!(sealed(&world), number / 4 * 4);
    }
}

#[test]
fn whoever_needs_a_full_segment_durable_gets_it_at_once() {
    let durable = |world: &World| {
        world.send(1, batch(&[value(3)], Timestamp(1), None), Acks::Durable);
        world.step.run_until_idle();
        let answer = world.answers.take(1).expect("answered").expect("appended");
        assert_eq!(answer.level, DurabilityLevel::Durable);
    };
    let trimmed = |world: &World| {
        let mut ticket = world.partition.trim(Offset(1));
        world.step.run_until_idle();
        assert_eq!(ticket.try_take(), Some(Ok(Offset(1))));
    };
    let checkpointed = |world: &World| {
        let mut ticket = world.partition.checkpoint();
        world.step.run_until_idle();
        assert_eq!(ticket.try_take(), Some(Ok(())));
    };
    let synced = |world: &World| {
        let options =
            PartitionOptions { durability: Durability::Fsync, ..world.partition_options.clone() };
        world.partition.set_options(options.into());
        world.step.run_until_idle();
    };
    for need in [&durable as &dyn Fn(&World), &trimmed, &checkpointed, &synced] {
        let world = full_and_next(39, Durability::Os);
        assert_eq!((sealed(&world), world.partition.offsets().durable_end), (0, Offset(0)));
        need(&world);
        assert!(world.partition.offsets().durable_end >= Offset(1), "without any delay");
    }
}

/// Syncs that were made until append 1 was answered.
fn syncs_until_answered(world: &World) -> u64 {
    let before = world.disk.syncs();
    for _ in 0..100 {
        if world.answers.take(1).is_some() {
            return world.disk.syncs() - before;
        }
        for job in world.step.round() {
            // Beside it, and nothing waits for it.
            if job.name() != "seal" {
                world.step.sync_done(job.execute());
            }
        }
    }
    panic!("never answered");
}

#[test]
fn an_append_at_a_roll_waits_for_no_sync_under_os() {
    for durability in [Durability::Os, Durability::Interval { ms: 1000 }] {
        let (storage, partition) = with_durability(durability);
        let storage = StorageOptions { seal_delay_max: Duration::from_secs(5), ..storage };
        let world = World::with(41, (storage, partition));
        world.append(&[vec![1; 3000]]).expect("fills the first segment");
        for segments in 2..4 {
            world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Topic);
            assert_eq!(syncs_until_answered(&world), 0);
            assert_eq!(world.partition.segment_count(), segments);
        }
        let world = world.reopen_killed();
        assert_eq!(world.partition.health(), PartitionHealth::Writable);
        assert_eq!(world.read_all(Offset(0)).len(), 3, "a kill takes nothing that was answered");
    }
}

#[test]
fn a_durable_append_at_a_roll_waits_for_its_file_its_name_and_one_manifest() {
    let world = World::new(42);
    world.append(&[vec![1; 3000]]).expect("fills the first segment");
    world.send(1, batch(&[vec![2; 3000]], Timestamp(1), None), Acks::Topic);
    // The file with the batch in it, the directory, the manifest's two.
    assert_eq!(syncs_until_answered(&world), 4);
}

#[test]
fn one_manifest_names_all_segments_that_were_made_meanwhile() {
    let world = full_and_next(43, Durability::Os);
    world.append(&[vec![2; 3000]]).expect("in the third segment");
    let before = world.disk.syncs();
    let mut names = Vec::new();
    world.clock.advance(Duration::from_secs(5));
    for _ in 0..30 {
        for job in world.step.round() {
            names.push(job.name());
            world.step.sync_done(job.execute());
        }
    }
    assert_eq!(names.iter().filter(|name| **name == "name").count(), 1, "{names:?}");
    assert_eq!(sealed(&world), 2);
    assert!(world.disk.syncs() > before);
}

#[test]
fn a_power_cut_before_a_segment_is_named_hands_no_offset_out_twice() {
    for bias in [Bias::Nothing, Bias::Everything] {
        let world = full_and_next(44, Durability::Os);
        let end = world.partition.offsets().log_end;
        let world = world.reopen_crashed(Crash { bias, seed: 3 });
        assert_eq!(world.partition.health(), PartitionHealth::Writable, "{bias:?}");
        let appended = world.append(&[value(9)]).expect("goes on");
        assert!(appended.base_offset >= end, "{bias:?}: {appended:?}");
    }
}

#[test]
fn a_segment_whose_header_a_power_cut_took_is_set_aside() {
    let world = full_and_next(45, Durability::Os);
    world.dir.shutdown(stoplog::storage::ShutdownMode::Abort);
    let disk = world.disk.kill();
    let paths = stoplog::storage::PartitionPaths::new(world.partition.id());
    let path = paths.log(Offset(1));
    let mut bytes = disk.read_file(&path).expect("the second segment");
    bytes[..4096].fill(0);
    disk.write_file(&path, &bytes);
    let world = world.started_on(disk);
    assert_eq!(world.partition.health(), PartitionHealth::Writable);
    assert_eq!(world.read_all(Offset(0)).len(), 1);
    let quarantined = |f: &Finding| matches!(f, Finding::Quarantined { .. });
    assert!(world.partition.findings().iter().any(quarantined));
    let appended = world.append(&[value(9)]).expect("goes on");
    assert!(appended.base_offset >= Offset(2), "{appended:?}");
}
