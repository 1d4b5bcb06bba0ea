//! One fault at every operation of a fixed run: every append and every order is answered, nothing
//! panics or hangs, the fault has the scope that DESIGN D7 gives it, and the starts after it, in
//! the same boot and after a power cut, find everything that was acknowledged.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use stoplog::env::sim::{Bias, Crash, Fault, Op, SimDisk};
use stoplog::storage::AdminTicket;
use stoplog::types::{Acks, Durability, PartitionHealth};

use crate::model::{Cut, Outcome};
use crate::world::{Opened, Plan, World, small_partition, small_storage};

/// Rounds of the run.
const TURNS: usize = 12;
/// The turn in which the last partition goes.
const DELETED_AT: usize = 8;
/// Failures that are shown; one defect often fails many operations.
const SHOWN_MAX: usize = 8;

/// What is stored where: the third partition is made late, and deleted.
fn plan() -> Plan {
    let mut rolling = small_partition(Durability::Os);
    rolling.retention_bytes = Some(30_000);
    let parts = vec![
        Arc::new(small_partition(Durability::Fsync)),
        Arc::new(rolling),
        Arc::new(small_partition(Durability::Interval { ms: 100 })),
    ];
    Plan { storage: small_storage(), parts }
}

/// A run whose operations fail one after another.
struct Run {
    world: World,
    deletion: Option<AdminTicket<()>>,
}

impl Run {
    fn new() -> Result<Run, String> {
        let mut world = World::new(5, plan())?;
        world.tolerates_read_errors = true;
        for part in 0..2 {
            world.add_producer(part);
        }
        Ok(Run { world, deletion: None })
    }

    /// Appends over several segments at every level, retries, trims, retention, checkpoints, quiet
    /// times, a partition that comes and goes.
    fn all(&mut self) -> Result<(), String> {
        for turn in 0..TURNS {
            self.turn(turn).map_err(|e| format!("turn {turn}: {e}"))?;
        }
        Ok(())
    }

    fn turn(&mut self, turn: usize) -> Result<(), String> {
        let world = &mut self.world;
        world.append(0, Some(0), 2, 700, Acks::Durable);
        world.append(0, None, 1, 40 + 50 * turn, Acks::Topic);
        world.append(1, Some(0), 2, 900, Acks::Os);
        world.round();
        world.append(
            1,
            None,
            1,
            30,
            if turn.is_multiple_of(3) { Acks::Durable } else { Acks::None },
        );
        if (2..DELETED_AT).contains(&turn) {
            world.append(2, None, 1, 200, Acks::Topic);
        }
        world.settle()?;
        match turn {
            3 => {
                let known = world.parts[0].model.known_of(1000);
                if let Some((index, _)) = known.last() {
                    world.submit(0, *index, Acks::Durable);
                }
            }
            5 => drop(world.parts[1].handle.checkpoint()),
            7 => {
                let end = world.parts[0].handle.offsets().visible_end.0;
                world.trim(0, end - 1);
            }
            DELETED_AT => {
                world.parts[2].deleted = true;
                self.deletion = Some(world.parts[2].handle.delete());
            }
            _ => {}
        }
        world.settle()?;
        let ms = if turn == 9 { 6_000 } else { 1_100 };
        world.clock.advance(Duration::from_millis(ms));
        world.settle()
    }

    /// Everything was answered.
    fn check_answers(&mut self) -> Result<(), String> {
        let waiting = |sent: &crate::model::Sent| sent.outcome == Outcome::Waiting;
        for part in &self.world.parts {
            let appends = part.model.sent.iter().filter(|sent| waiting(sent)).count();
            if appends + part.trims_waiting() > 0 {
                let trims = part.trims_waiting();
                return Err(format!(
                    "{}: {appends} appends and {trims} trims without answer",
                    part.id
                ));
            }
        }
        match self.deletion.as_mut().map(AdminTicket::try_take) {
            Some(None) => Err("the deletion was never answered".to_owned()),
            _ => Ok(()),
        }
    }

    /// Another append to each partition, long after the fault: who serves on, by number.
    fn serving(&mut self) -> Result<Vec<bool>, String> {
        let world = &mut self.world;
        let sent: Vec<_> =
            (0..2).map(|part| world.append(part, None, 1, 64, Acks::Durable)).collect();
        world.settle()?;
        let mut serving = Vec::new();
        for (part, index) in sent.into_iter().enumerate() {
            match world.parts[part].model.sent[index].outcome {
                Outcome::Done(_) => serving.push(true),
                Outcome::Unknown => serving.push(false),
                other => return Err(format!("partition {part} answers {other:?} after the fault")),
            }
        }
        Ok(serving)
    }
}

/// D7: what a fault may stop. `struck` is what it hit.
fn check_scope(run: &mut Run, struck: Op) -> Result<(), String> {
    run.check_answers()?;
    let serving = run.serving()?;
    let latched = run.world.dir.as_ref().unwrap().latched();
    let healthy = |part: &crate::world::Part| part.handle.health() == PartitionHealth::Writable;
    let shown = serving.iter().zip(&run.world.parts).all(|(serves, part)| {
        // A latched directory says so itself.
        latched.is_some() || *serves == healthy(part)
    });
    if !shown {
        return Err(format!("health does not say who serves: {serving:?}"));
    }
    let stopped = serving.iter().filter(|serves| !**serves).count();
    match (struck, &latched) {
        (Op::Sync | Op::SyncDir, None) => Err("a failed sync did not latch".to_owned()),
        (Op::Sync | Op::SyncDir, Some(_)) if stopped == serving.len() => Ok(()),
        (_, Some(cause)) => Err(format!("latched without a failed sync: {cause}")),
        (Op::Open | Op::Read | Op::ReadDir | Op::Populate, None) if stopped > 1 => {
            Err("a failed read stopped everything".to_owned())
        }
        (_, None) if stopped > 1 => Err("one failed write stopped two partitions".to_owned()),
        _ => Ok(()),
    }
}

/// ENOSPC and short writes stop nothing at all.
fn check_goes_on(run: &mut Run, fault: Fault) -> Result<(), String> {
    run.check_answers()?;
    if let Some(cause) = run.world.dir.as_ref().unwrap().latched() {
        return Err(format!("latched: {cause}"));
    }
    for part in &run.world.parts {
        if part.handle.health() != PartitionHealth::Writable {
            return Err(format!("{} is {:?}", part.id, part.handle.health()));
        }
    }
    let not_done = |sent: &&crate::model::Sent| !matches!(sent.outcome, Outcome::Done(_));
    let refused = run.world.parts.iter().flat_map(|part| &part.model.sent).filter(not_done).count();
    if fault == Fault::ShortWrite && refused > 0 {
        return Err(format!("{refused} appends were refused for a short write"));
    }
    match run.serving()?.iter().all(|serves| *serves) {
        true => Ok(()),
        false => Err("it does not serve on".to_owned()),
    }
}

/// One run with the fault at operation `n`; what it hit.
fn run_with_fault(n: u64, fault: Fault) -> Result<Option<Op>, (Option<Op>, String)> {
    let mut run = Run::new().map_err(|e| (None, e))?;
    run.world.disk.fail_nth(n, fault);
    let result = run.all();
    let Some(struck) = run.world.disk.struck() else {
        return result.map(|()| None).map_err(|e| (None, e));
    };
    run.world.disk.clear_fault();
    let told = |e: String| (Some(struck), e);
    result.map_err(told)?;
    match fault {
        Fault::Enospc | Fault::ShortWrite => check_goes_on(&mut run, fault),
        Fault::Eio | Fault::SyncFailed => check_scope(&mut run, struck),
    }
    .map_err(told)?;
    check_starts(&run.world, struck, n).map_err(told)?;
    Ok(Some(struck))
}

/// Starts in the same boot and after power cuts.
fn check_starts(world: &World, struck: Op, n: u64) -> Result<(), String> {
    // What a sync failed to bring to the device may be gone in the same boot too.
    let killed = if struck == Op::Sync { Cut::Power } else { Cut::Kill };
    let bias = [Bias::Nothing, Bias::Everything, Bias::Random];
    let dark = bias.map(|bias| (world.disk.image(Crash { bias, seed: n }), Cut::Power));
    let starts = [(world.disk.fork(), killed)].into_iter().chain(dark);
    for (number, (disk, cut)) in starts.enumerate() {
        let context = |e: String| match number {
            0 => format!("start in the same boot: {e}"),
            _ => format!("start after a power cut ({:?}): {e}", bias[number - 1]),
        };
        check_start(world, &disk, cut).map_err(context)?;
    }
    Ok(())
}

fn check_start(world: &World, disk: &SimDisk, cut: Cut) -> Result<(), String> {
    let opened = world.check_image(disk, cut)?;
    if let Some(cause) = opened.dir.latched() {
        return Err(format!("latched from the start: {cause}"));
    }
    // What it serves is on the device.
    let dark = disk.image(Crash { bias: Bias::Nothing, seed: 1 });
    world.check_image(&dark, cut).map_err(|e| format!("and a power cut after it: {e}"))?;
    for (number, part) in world.parts.iter().enumerate().filter(|(_, part)| !part.deleted) {
        let base = opened.probe(number, &part.model)?;
        let handed_end = part.model.handed_end;
        if base < handed_end {
            return Err(format!("{}: {base} was handed out again, {handed_end} is next", part.id));
        }
    }
    Ok(())
}

fn every_operation(fault: Fault, operations_min: u64) {
    let mut failures = Vec::new();
    let mut n = 0;
    loop {
        match run_with_fault(n, fault) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err((struck, e)) => {
                failures.push(format!("{fault:?} at operation {n} ({struck:?}): {e}"))
            }
        }
        n += 1;
    }
    let mut told = String::new();
    for failure in failures.iter().take(SHOWN_MAX) {
        writeln!(told, "{failure}").unwrap();
    }
    assert!(failures.is_empty(), "{} of {n} operations:\n{told}", failures.len());
    assert!(n >= operations_min, "the run has only {n} operations");
    println!("{fault:?} at each of {n} operations");
}

#[test]
fn an_io_error_at_any_operation_loses_nothing() {
    every_operation(Fault::Eio, 400);
}

#[test]
fn no_space_at_any_operation_stops_nothing() {
    every_operation(Fault::Enospc, 100);
}

#[test]
fn a_short_write_at_any_operation_is_gone_on_with() {
    every_operation(Fault::ShortWrite, 50);
}

#[test]
fn a_failed_sync_at_any_operation_loses_nothing() {
    every_operation(Fault::SyncFailed, 50);
}

/// The same faults while a start recovers: it may fail, but the next one finds everything.
#[test]
fn a_fault_at_any_operation_of_a_recovery_loses_nothing() {
    let mut run = Run::new().unwrap();
    run.all().unwrap();
    run.world.append(0, None, 1, 700, Acks::Durable);
    run.world.round();
    run.world.absorb().unwrap();
    for fault in [Fault::Eio, Fault::Enospc, Fault::ShortWrite, Fault::SyncFailed] {
        for seed in 0..4 {
            let crashed = run.world.disk.image(Crash::from_seed(seed));
            let n = every_operation_of_a_start(&run.world, &crashed, fault)
                .unwrap_or_else(|e| panic!("{fault:?}, crash {seed}: {e}"));
            assert!(n > 2 || fault == Fault::Enospc, "only {n} operations");
        }
    }
}

fn every_operation_of_a_start(
    world: &World,
    crashed: &SimDisk,
    fault: Fault,
) -> Result<u64, String> {
    for n in 0.. {
        let disk = crashed.fork();
        disk.fail_nth(n, fault);
        drop(Opened::start(world, &disk));
        let struck = disk.struck();
        disk.clear_fault();
        for after in [disk.fork(), disk.image(Crash::from_seed(n))] {
            check_start(world, &after, Cut::Power)
                .map_err(|e| format!("at operation {n} ({struck:?}): {e}"))?;
        }
        if struck.is_none() {
            return Ok(n);
        }
    }
    unreachable!("a start has an end");
}
