//! A partition that is deleted: what is under way then, and what comes too late.

use std::time::Duration;

use stoplog::storage::{AppendError, PartitionOptions, StorageOptions};
use stoplog::types::{Acks, Durability, Offset, Timestamp};

use crate::world::{World, batch, tiny};

/// A partition with segments that are full, and neither named nor sealed yet.
fn with_unnamed_segments(seed: u64) -> World {
    let (storage, partition) = tiny();
    let storage = StorageOptions { seal_delay_max: Duration::from_secs(5), ..storage };
    let partition = PartitionOptions { durability: Durability::Os, ..partition };
    let world = World::with(seed, (storage, partition));
    for number in 0..3 {
        world.send(number, batch(&[vec![1; 3000]], Timestamp(1), None), Acks::Topic);
    }
    world.step.run_until_idle();
    assert_eq!(world.partition.segment_count(), 3);
    world
}

fn files_of_topics(world: &World) -> Vec<String> {
    let files = world.disk.files();
    let paths = files.iter().map(|(path, _)| path.display().to_string());
    paths.filter(|path| path.starts_with("topics")).collect()
}

fn run_for(world: &World, time: Duration) {
    for _ in 0..10 {
        world.clock.advance(time / 10);
        world.step.run_until_idle();
    }
}

#[test]
fn nothing_is_asked_of_the_directory_of_a_deleted_partition() {
    let world = with_unnamed_segments(61);
    let mut deleted = world.partition.delete();
    world.step.run_until_idle();
    assert_eq!(deleted.try_take(), Some(Ok(())));
    run_for(&world, Duration::from_secs(30));
    assert_eq!(world.dir.latched(), None, "other partitions take writes");
    assert_eq!(files_of_topics(&world), Vec::<String>::new());
}

#[test]
fn a_deletion_waits_for_what_is_under_way() {
    for held in ["name", "seal", "commit", "caches", "create", "checkpoint"] {
        let world = with_unnamed_segments(62);
        world.clock.advance(Duration::from_secs(6));
        let mut deleted = None;
        let mut waiting = Vec::new();
        for turn in 0..40 {
            for job in world.step.round() {
                match job.name() == held && turn < 20 {
                    true => waiting.push(job),
                    false => world.step.sync_done(job.execute()),
                }
            }
            if turn == 10 {
                deleted = Some(world.partition.delete());
            }
            if turn == 20 {
                for job in waiting.drain(..) {
                    world.step.sync_done(job.execute());
                }
            }
        }
        let mut deleted = deleted.expect("asked for");
        assert_eq!(deleted.try_take(), Some(Ok(())), "with {held} under way");
        run_for(&world, Duration::from_secs(30));
        assert_eq!(world.dir.latched(), None, "with {held} under way");
        assert_eq!(files_of_topics(&world), Vec::<String>::new(), "with {held} under way");
    }
}

#[test]
fn what_comes_after_the_removal_is_refused_and_makes_no_file() {
    let world = with_unnamed_segments(63);
    let mut deleted = world.partition.delete();
    world.step.run_until_idle();
    assert_eq!(deleted.try_take(), Some(Ok(())));
    let late = world.append(&[vec![2; 10]]);
    assert!(matches!(late, Err(AppendError::Closed)), "{late:?}");
    let mut trimmed = world.partition.trim(Offset(1));
    let mut again = world.partition.delete();
    world.step.run_until_idle();
    assert!(trimmed.try_take().is_some_and(|result| result.is_err()));
    assert_eq!(again.try_take(), Some(Ok(())), "gone is gone");
    assert_eq!(files_of_topics(&world), Vec::<String>::new());
    assert_eq!(world.dir.latched(), None);
}
