//! The small scope, whole: every short sequence of orders, crashed after every change of its last
//! one, in every combination of what was not yet durable.

use std::collections::HashSet;
use std::sync::Arc;

use stoplog::env::sim::{SimClock, SimDisk};
use stoplog::types::{Acks, Durability};

use crate::model::Cut;
use crate::world::{Plan, World, small_partition, small_storage};

/// Combinations per state of the disk that are all tried; the first of more.
const COMBINATIONS_MAX: usize = 4096;
/// Where several segments are not synced there are more states of the disk: fewer of each.
const COMBINATIONS_UNSYNCED_MAX: usize = 128;
/// Longest sequence.
const LENGTH: usize = 4;

/// What a sequence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Append a batch, acknowledged when durable.
    Append,
    /// Append one that is acknowledged when written.
    AppendOs,
    /// Seal the active segment at the next append.
    Roll,
    /// The same and then append a batch that is acknowledged when written.
    RollOs,
    /// Trim everything that is visible.
    Trim,
    /// A clean slot.
    Checkpoint,
}

const ORDERS: [Order; 5] =
    [Order::Append, Order::AppendOs, Order::Roll, Order::Trim, Order::Checkpoint];
/// While every sync waits, until the last one is given.
const UNSYNCED: [Order; 5] =
    [Order::Append, Order::AppendOs, Order::RollOs, Order::Trim, Order::Checkpoint];

fn plan(durability: Durability) -> Plan {
    Plan { storage: small_storage(), parts: vec![Arc::new(small_partition(durability))] }
}

fn give(world: &mut World, order: Order) {
    match order {
        Order::Append => drop(world.append(0, None, 1, 40, Acks::Durable)),
        Order::AppendOs => drop(world.append(0, None, 2, 600, Acks::Os)),
        Order::Roll => drop(world.parts[0].handle.roll()),
        Order::RollOs => {
            drop(world.parts[0].handle.roll());
            world.append(0, None, 1, 300, Acks::Os);
        }
        Order::Trim => {
            let end = world.parts[0].handle.offsets().visible_end.0;
            world.trim(0, end);
        }
        Order::Checkpoint => drop(world.parts[0].handle.checkpoint()),
    }
}

/// Every combination of what is not yet durable, as a counter whose digits are the choices.
fn combinations(
    disk: &SimDisk,
    max: usize,
    mut visit: impl FnMut(SimDisk) -> Result<(), String>,
) -> Result<usize, String> {
    let mut digits: Vec<usize> = Vec::new();
    for count in 1..=max {
        let mut versions = Vec::new();
        let image = disk.image_by(|_, n| {
            let chosen = digits.get(versions.len()).copied().unwrap_or(0);
            versions.push(n);
            chosen
        });
        let used = versions.len();
        digits.resize(used, 0);
        let context = |e: String| format!("choices {digits:?} of {versions:?}: {e}");
        visit(image).map_err(context)?;
        // The next number: the last digit that can grow does, those behind it start again.
        let Some(grows) = (0..used).rev().find(|i| digits[*i] + 1 < versions[*i]) else {
            return Ok(count);
        };
        digits[grows] += 1;
        digits.truncate(grows + 1);
    }
    Ok(max)
}

/// Runs a sequence and looks at every crash of its last order. Jobs that are `held` wait for it.
fn explore(sequence: &[Order], durability: Durability, held: &[&str]) -> Result<usize, String> {
    let mut world = World::new(1, plan(durability))?;
    let (last, before) = sequence.split_last().unwrap();
    for order in before {
        give(&mut world, *order);
        world.settle_without(held)?;
    }
    let max = if held.is_empty() { COMBINATIONS_MAX } else { COMBINATIONS_UNSYNCED_MAX };
    world.disk.record_snapshots();
    give(&mut world, *last);
    let mut images = 0;
    let mut quiet = 0;
    while quiet < 3 {
        if world.jobs.is_empty() {
            world.round()
        } else {
            world.execute(0)
        }
        let snapshots = world.disk.take_snapshots();
        quiet = if snapshots.is_empty() && world.jobs.is_empty() { quiet + 1 } else { 0 };
        for (change, snapshot) in snapshots.iter().enumerate() {
            let mut seen = HashSet::new();
            images += combinations(snapshot, max, |image| {
                if seen.insert(image.digest()) {
                    world.check_image(&image, Cut::Power)?;
                }
                Ok(())
            })
            .map_err(|e| format!("change {change}: {e}"))?;
        }
        world.absorb()?;
    }
    Ok(images)
}

#[test]
fn every_short_sequence_survives_every_crash() {
    let mut images = 0;
    for length in 1..=LENGTH {
        for number in 0..ORDERS.len().pow(u32::try_from(length).unwrap()) {
            let digit = |place: u32| ORDERS[number / ORDERS.len().pow(place) % ORDERS.len()];
            let sequence: Vec<Order> =
                (0..length).map(|place| digit(u32::try_from(place).unwrap())).collect();
            let durability = if number % 4 == 3 { Durability::Os } else { Durability::Fsync };
            images += explore(&sequence, durability, &[])
                .unwrap_or_else(|e| panic!("{sequence:?} {durability:?}: {e}"));
        }
    }
    println!("{images} crash images of all sequences of up to {LENGTH} orders");
    assert!(images > 10_000);
}

#[test]
fn every_short_sequence_survives_every_crash_while_segments_wait_to_be_synced() {
    let mut images = 0;
    for length in 2..=LENGTH {
        for number in 0..UNSYNCED.len().pow(u32::try_from(length).unwrap()) {
            let digit = |place: u32| UNSYNCED[number / UNSYNCED.len().pow(place) % UNSYNCED.len()];
            let sequence: Vec<Order> =
                (0..length).map(|place| digit(u32::try_from(place).unwrap())).collect();
            // Of the longest only those in which several segments wait.
            let rolls = sequence.iter().filter(|order| **order == Order::RollOs).count();
            if rolls + 1 < length.min(3) {
                continue;
            }
            let durability = if number % 4 == 3 { Durability::Fsync } else { Durability::Os };
            let unnamed: &[&str] = &["commit", "seal", "name"];
            let held = if number % 2 == 0 { unnamed } else { &unnamed[..2] };
            images += explore(&sequence, durability, held)
                .unwrap_or_else(|e| panic!("{sequence:?} {durability:?}: {e}"));
        }
    }
    println!("{images} crash images of sequences of up to {LENGTH} orders without a sync between");
    assert!(images > 10_000);
}

#[test]
fn a_crash_while_a_data_directory_is_made_leaves_one_that_opens() {
    let disk = SimDisk::new(3);
    disk.record_snapshots();
    World::on(disk.clone(), SimClock::new(), 3, plan(Durability::Fsync)).unwrap();
    let mut images = 0;
    for snapshot in disk.take_snapshots() {
        let again = |image: SimDisk| {
            World::on(image, SimClock::new(), 4, plan(Durability::Fsync)).map(drop)
        };
        images += combinations(&snapshot, COMBINATIONS_MAX, again).unwrap();
    }
    assert!(images > 20, "{images}");
}
