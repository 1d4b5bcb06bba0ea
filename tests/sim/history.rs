//! A random history: one step at a time, chosen by the world's seed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stoplog::env::Rng;
use stoplog::env::sim::{Crash, SimDisk};
use stoplog::storage::{PartitionPaths, StorageOptions};
use stoplog::types::{Acks, Durability};

use crate::model::{Cut, Outcome};
use crate::world::{Plan, World, small_partition, small_storage};

/// A file nobody listed, put into a partition's directory: it must never be lost.
pub const ALIEN: &[u8] = b"a file that Stoplog did not write";

/// What a history is about, by seed.
pub fn plan_of(seed: u64) -> Plan {
    let rng = stoplog::env::SeededRng::new(seed ^ 0x517c_c1b7);
    let durabilities = [
        Durability::Fsync,
        Durability::Fsync,
        Durability::Fsync,
        Durability::Os,
        Durability::Interval { ms: 100 },
    ];
    let count = if rng.below(4) == 0 { 2 + rng.below(2) } else { 1 };
    let parts = (0..count)
        .map(|_| {
            let kind = usize::try_from(rng.below(5)).unwrap();
            let mut options = small_partition(durabilities[kind]);
            match rng.below(8) {
                0 => options.retention_bytes = Some(40_000),
                1 => options.retention = Some(Duration::from_secs(3)),
                _ => {}
            }
            options.segment_age = Duration::from_secs(2 + rng.below(100));
            Arc::new(options)
        })
        .collect();
    let lease_records = 4 + i64::try_from(rng.below(60)).unwrap();
    let sealing_segments_max = 1 + usize::try_from(rng.below(6)).unwrap();
    let storage = StorageOptions { lease_records, sealing_segments_max, ..small_storage() };
    Plan { storage, parts }
}

/// Does one random step. Answers are not taken in: the caller looks at the disk first.
pub fn step(world: &mut World) -> Result<(), String> {
    let part = world.below(world.parts.len());
    match world.rng.below(100) {
        0..40 => append(world, part),
        40..62 => {
            world.round();
        }
        62..84 if !world.jobs.is_empty() => {
            let number = world.below(world.jobs.len());
            let waits = ["commit", "seal", "name"].contains(&world.jobs[number].name());
            if !(world.slow_syncs && waits) || world.one_in(6) {
                world.execute(number);
            }
        }
        62..84 => {
            world.round();
        }
        84..88 => {
            let ms = [1, 60, 300, 2_000, 6_000][world.below(5)];
            world.clock.advance(Duration::from_millis(ms));
        }
        88..91 => {
            let ends = world.parts[part].handle.offsets();
            let span = u64::try_from(ends.visible_end - ends.start).unwrap();
            let before = ends.start.0 + i64::try_from(world.rng.below(span + 1)).unwrap();
            world.trim(part, before);
        }
        91..93 => drop(world.parts[part].handle.roll()),
        93..95 => drop(world.parts[part].handle.checkpoint()),
        95..97 => retry(world, part),
        97 => misbehave(world, part),
        98 => world.parts[part].handle.reclaim(),
        _ => {
            world.round();
        }
    }
    Ok(())
}

fn acks(world: &World) -> Acks {
    [Acks::Topic, Acks::Durable, Acks::Durable, Acks::Os, Acks::None][world.below(5)]
}

fn append(world: &mut World, part: usize) {
    let producers = world.parts[part].producers.len();
    if producers < 3 && world.one_in(6) {
        world.add_producer(part);
    }
    let producers = world.parts[part].producers.len();
    let producer = (producers > 0 && !world.one_in(4)).then(|| world.below(producers));
    let records = 1 + u32::try_from(world.rng.below(3)).unwrap();
    let value_bytes = [8, 30, 100, 400, 700, 1500][world.below(6)];
    let acks = acks(world);
    world.append(part, producer, records, value_bytes, acks);
}

/// Sends one of a producer's newest batches again, as a client does that missed the answer.
fn retry(world: &mut World, part: usize) {
    let Some(producer) = world.parts[part].producers.first().map(|p| p.id) else { return };
    let known = world.parts[part].model.known_of(producer);
    let back = world.below(5);
    if let Some((index, _)) = known.iter().rev().nth(back) {
        let acks = acks(world);
        world.submit(part, *index, acks);
    }
}

/// A batch that skips a sequence number: refused, and nothing of it may ever be found.
fn misbehave(world: &mut World, part: usize) {
    if let Some(producer) = world.parts[part].producers.first_mut() {
        producer.next_sequence += 7;
        world.append(part, Some(0), 1, 50, Acks::Durable);
    }
}

/// The ways a process ends in the middle of a history.
pub fn interrupt(world: &mut World) -> Result<(), String> {
    match world.below(3) {
        0 => close(world),
        1 => {
            let after = world.disk.kill();
            world.restart(after, Cut::Kill)
        }
        _ => {
            let after = world.disk.crash(Crash::from_seed(world.rng.next_u64()));
            world.restart(after, Cut::Power)
        }
    }
}

/// Closes in order and starts again on what a power cut would leave then: everything.
pub fn close(world: &mut World) -> Result<(), String> {
    world.settle()?;
    let mut tickets: Vec<_> = world.parts.iter().map(|p| p.handle.close()).collect();
    world.settle()?;
    for (ticket, part) in tickets.iter_mut().zip(&world.parts) {
        match ticket.try_take() {
            Some(Ok(())) => {}
            other => return Err(format!("close of {}: {other:?}", part.id)),
        }
    }
    let waiting = |part: &crate::world::Part| {
        part.model.sent.iter().any(|sent| sent.outcome == Outcome::Waiting)
    };
    if world.parts.iter().any(waiting) {
        return Err("closed, and an append was never answered".to_owned());
    }
    let after = world.disk.crash(Crash::from_seed(world.rng.next_u64()));
    world.restart(after, Cut::Close)
}

/// Puts a file into the first partition's directory that no record explains.
pub fn plant_alien(disk: &SimDisk, world: &World) -> bool {
    let paths = PartitionPaths::new(world.parts[0].id);
    let path: PathBuf = paths.dir().join("notes.txt");
    disk.write_file(path, ALIEN)
}
