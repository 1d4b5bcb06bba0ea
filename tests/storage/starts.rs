//! What a start finds out after a stop that was not in order, and what it costs.

use std::sync::Arc;

use stoplog::env::sim::{Fault, env_on};
use stoplog::storage::{
    Finding, LogDir, Materialised, PartitionOptions, PartitionPaths, ShutdownMode, Verdict,
    VerifyOptions, verify,
};
use stoplog::types::{
    Acks, Durability, Offset, PartitionHealth, PartitionId, Timestamp, TopicPartition,
};

use crate::world::{World, batch, id, tiny};

fn value(number: usize) -> Vec<u8> {
    format!("record {number:06}").into_bytes()
}

/// A failed sync loses a batch that readers saw; a start drops the cache and dies; the next start
/// finds nothing of the batch, and must not use its offset again.
#[test]
fn a_tail_lost_with_the_cache_is_remembered_over_a_second_kill() {
    let mut skipped = 0;
    for stop in 0..80 {
        let (storage, partition) = tiny();
        let options = PartitionOptions { durability: Durability::Os, ..partition };
        let world = World::with(47 + stop, (storage, options));
        world.append(&[value(0)]).expect("appended");
        world.send(1, batch(&[value(1)], Timestamp(1), None), Acks::Durable);
        world.step.run_until_idle();
        world.append(&[value(2)]).expect("seen");
        let end = world.partition.offsets().visible_end;
        world.disk.fail_nth(0, Fault::SyncFailed);
        world.send(2, batch(&[value(3)], Timestamp(1), None), Acks::Durable);
        world.step.run_until_idle();
        assert!(world.dir.latched().is_some());
        world.dir.shutdown(ShutdownMode::Abort);
        let disk = world.disk.kill();
        disk.fail_from(stop, Fault::Eio);
        let env = env_on(&disk, &world.clock, stop);
        let options = Arc::new(world.partition_options.clone());
        let opened = LogDir::open(world.options.clone(), env)
            .and_then(|dir| dir.partition(id(), options, Materialised::Yes));
        drop(opened);
        let world = world.started_on(disk.kill());
        assert_eq!(world.partition.health(), PartitionHealth::Writable, "stop {stop}");
        let appended = world.append(&[value(4)]).expect("goes on");
        assert!(appended.base_offset >= end, "stop {stop}: {appended:?} below {end}");
        skipped += u32::from(appended.base_offset > end + 1);
    }
    assert!(skipped > 5, "a tail was lost in {skipped} runs");
}

#[test]
fn after_a_clean_stop_verify_finds_nothing_to_complete_of_what_was_trimmed() {
    let world = World::new(48);
    for number in 0..6 {
        world.append(&[vec![number; 3000]]).expect("appended");
    }
    let mut ticket = world.partition.trim(Offset(4));
    world.step.run_until_idle();
    assert_eq!(ticket.try_take(), Some(Ok(Offset(4))));
    let world = world.reopen_clean();
    world.dir.shutdown(ShutdownMode::Drain);
    let mut found = Vec::new();
    verify(&world.disk, &VerifyOptions::default(), &mut |row| {
        found.push((row.file, row.verdict));
        Ok(())
    })
    .expect("verifies");
    found.retain(|(_, verdict)| *verdict != Verdict::Ok);
    assert_eq!(found, []);
}

#[test]
fn missing_files_of_one_partition_fence_that_one() {
    let world = World::new(49);
    world.append(&[value(0)]).expect("appended");
    let other = TopicPartition { partition: PartitionId(4), ..id() };
    let options = Arc::new(world.partition_options.clone());
    world.dir.partition(other, Arc::clone(&options), Materialised::Unknown).expect("opens");
    world.dir.shutdown(ShutdownMode::Abort);
    let disk = world.disk.kill();
    let dir = PartitionPaths::new(id()).dir().to_owned();
    let gone = disk.files().into_iter().filter(|(path, _)| path.starts_with(&dir));
    gone.for_each(|(path, _)| assert!(disk.delete_file(path)));
    let dir = LogDir::open(world.options.clone(), env_on(&disk, &world.clock, 1)).expect("opens");
    let missing = dir.partition(id(), Arc::clone(&options), Materialised::Yes).expect("fenced");
    assert!(matches!(missing.health(), PartitionHealth::Fenced { .. }));
    assert!(missing.findings().contains(&Finding::FilesMissing));
    dir.partition(other, options, Materialised::Unknown).expect("the others open");
}
