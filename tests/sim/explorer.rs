//! The crash explorer: random histories, crashed after every change of the disk, recovered and
//! checked against what was known just before.
//!
//! A failure names its seed. Replay it alone with `STOPLOG_SIM_SEED=<seed> cargo test --test sim
//! explorer`; longer campaigns: `tools/soak/README.md`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use stoplog::env::sim::{Bias, Crash, SimDisk};
use stoplog::env::{Rng, SeededRng};
use stoplog::storage::Finding;

use crate::history::{self, ALIEN};
use crate::model::Cut;
use crate::world::{Opened, World, holds_file, recovered};

/// Crash images that a plain `cargo test` looks at, at least.
const IMAGES_MIN: u64 = 100_000;
/// Steps of one history.
const STEPS: usize = 110;
/// Seeds that ever failed. They run first, for ever.
const REGRESSIONS: &[u64] = &[10, 14, 19, 36, 54, 145, 168, 230, 653];

/// What a campaign has seen.
#[derive(Debug, Default)]
struct Tally {
    images: AtomicU64,
    histories: AtomicU64,
    recovered_twice: AtomicU64,
    crashed_twice: AtomicU64,
    probes: AtomicU64,
    /// Steps at which several segments of a partition were full and not sealed.
    sealing: AtomicU64,
    /// Images in which a full segment was torn, and later ones were set aside with it.
    set_aside: AtomicU64,
}

impl Tally {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs one history and looks at its crash images; a hash of all that happened.
fn explore(seed: u64, tally: &Tally) -> Result<u64, String> {
    let plan = history::plan_of(seed);
    let mut world = World::new(seed, plan)?;
    world.slow_syncs = seed.is_multiple_of(3);
    let choices = SeededRng::new(seed ^ 0xc4a5_1e5e);
    let mut alien = false;
    let mut trace = 0_u64;
    for number in 0..STEPS {
        world.disk.record_snapshots();
        let context = |e: String| format!("step {number}: {e}");
        history::step(&mut world).map_err(context)?;
        let snapshots = world.disk.take_snapshots();
        for (change, snapshot) in snapshots.iter().enumerate() {
            let context = |e: String| format!("step {number}, change {change}: {e}");
            look_at(&world, snapshot, alien, &choices, tally).map_err(context)?;
        }
        let context = |e: String| format!("step {number}: {e}");
        world.absorb().map_err(context)?;
        if world.sealing() > 1 {
            Tally::count(&tally.sealing);
        }
        if !alien && seed.is_multiple_of(4) && number > STEPS / 4 {
            alien = history::plant_alien(&world.disk, &world);
        }
        if world.one_in(50) {
            trace ^= world.disk.trace();
            history::interrupt(&mut world).map_err(context)?;
        }
    }
    history::close(&mut world)?;
    Tally::count(&tally.histories);
    Ok(trace ^ world.disk.trace() ^ world.disk.digest())
}

/// Crashes one state of the disk in several ways.
fn look_at(
    world: &World,
    snapshot: &SimDisk,
    alien: bool,
    choices: &SeededRng,
    tally: &Tally,
) -> Result<(), String> {
    let crash = Crash::from_seed(choices.next_u64());
    let context = |e: String| format!("{crash:?}: {e}");
    look_at_image(world, &snapshot.image(crash), Cut::Power, alien, choices, tally)
        .map_err(context)?;
    if choices.below(3) == 0 {
        let context = |e: String| format!("killed: {e}");
        look_at_image(world, &snapshot.fork(), Cut::Kill, alien, choices, tally)
            .map_err(context)?;
    }
    Ok(())
}

fn look_at_image(
    world: &World,
    image: &SimDisk,
    cut: Cut,
    alien: bool,
    choices: &SeededRng,
    tally: &Tally,
) -> Result<(), String> {
    Tally::count(&tally.images);
    let twice = choices.below(12);
    if twice == 0 {
        image.record_snapshots();
    }
    let opened = world.check_image(image, cut)?;
    let findings = opened.handles.iter().flatten().flat_map(|handle| handle.findings());
    let moved = |kept: &str| kept.ends_with("-0.bin");
    if findings.into_iter().any(|f| matches!(f, Finding::TornCut { kept, .. } if moved(kept))) {
        Tally::count(&tally.set_aside);
    }
    if alien && !holds_file(image, ALIEN) {
        return Err("recovery lost a file that is not its own".to_owned());
    }
    match twice {
        0 => {
            Tally::count(&tally.crashed_twice);
            crash_again(world, image, cut, choices)
        }
        1 => {
            Tally::count(&tally.recovered_twice);
            drop(opened);
            recover_again(world, image)
        }
        2 => {
            Tally::count(&tally.probes);
            probe(world, &opened)
        }
        _ => Ok(()),
    }
}

/// A crash in the middle of recovery: the next one must find no less.
fn crash_again(
    world: &World,
    image: &SimDisk,
    cut: Cut,
    choices: &SeededRng,
) -> Result<(), String> {
    let during = image.take_snapshots();
    if during.is_empty() {
        return Ok(());
    }
    let at = usize::try_from(choices.below(during.len() as u64)).unwrap();
    let crash = Crash::from_seed(choices.next_u64());
    // What only memory held before the first cut may be lost by the second.
    let cut = if cut == Cut::Kill && choices.below(2) == 0 { Cut::Kill } else { Cut::Power };
    let again = if cut == Cut::Kill { during[at].fork() } else { during[at].image(crash) };
    world
        .check_image(&again, cut)
        .map(drop)
        .map_err(|e| format!("and {cut:?} {crash:?} at change {at} of the recovery: {e}"))
}

/// What recovery leaves is durable, what it found in the page cache after a kill included, and a
/// second recovery changes no byte.
fn recover_again(world: &World, image: &SimDisk) -> Result<(), String> {
    let after = image.crash(Crash { bias: Bias::Nothing, seed: 0 });
    differs(image, &after).map_err(|e| format!("recovery left unsynced changes: {e}"))?;
    let before = after.fork();
    drop(Opened::start(world, &after)?);
    differs(&before, &after).map_err(|e| format!("the second recovery changed {e}"))
}

/// Compares all files but those that say nothing: what is only room (allocated tails too), and what
/// is about to go.
pub fn differs(one: &SimDisk, other: &SimDisk) -> Result<(), String> {
    let says_nothing = |path: &Path| {
        let is_tmp = path.extension().is_some_and(|e| e == "tmp");
        is_tmp || path == Path::new("reserve.bin") || path.starts_with("trash")
    };
    // A snapshot whose removal is not durable yet may come back: it is older, and as good.
    let is_snapshot = |path: &Path| path.extension().is_some_and(|e| e == "snap");
    let came_back = |path: &Path| is_snapshot(path) && one.read_file(path).is_none();
    let said = |disk: &SimDisk, path: &Path| {
        let mut bytes = disk.read_file(path)?;
        let room = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        bytes.truncate(bytes.len() - room);
        Some(bytes)
    };
    let mut paths: Vec<_> = one.files().into_iter().chain(other.files()).collect();
    paths.sort();
    paths.dedup();
    let told = |path: &Path| {
        let len = |disk: &SimDisk| disk.read_file(path).map(|bytes| bytes.len());
        format!("{} ({:?}, {:?})", path.display(), len(one), len(other))
    };
    let different: Vec<String> = paths
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !says_nothing(path) && !came_back(path))
        .filter(|path| said(one, path) != said(other, path))
        .map(|path| told(path))
        .collect();
    if different.is_empty() { Ok(()) } else { Err(different.join(", ")) }
}

/// No offset is handed out twice.
fn probe(world: &World, opened: &Opened) -> Result<(), String> {
    for (number, part) in world.parts.iter().enumerate() {
        let before = recovered(opened.handle(number))?.summary();
        let base = opened.probe(number, &part.model)?;
        if base < part.model.handed_end {
            let handed = part.model.handed_end;
            let told = format!("{base} was handed out again, {handed} is next");
            return Err(format!("{}: {told}; {before}", part.id));
        }
    }
    Ok(())
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

fn fail(seed: u64, error: &str) -> ! {
    panic!("seed {seed}: {error}\nreplay: STOPLOG_SIM_SEED={seed} cargo test --test sim explorer")
}

#[test]
fn no_crash_loses_or_invents_anything() {
    let tally = Tally::default();
    if let Some(seed) = number_of("STOPLOG_SIM_SEED") {
        explore(seed, &tally).unwrap_or_else(|e| fail(seed, &e));
        println!("seed {seed}: {tally:?}");
        return;
    }
    for seed in REGRESSIONS {
        explore(*seed, &tally).unwrap_or_else(|e| fail(*seed, &e));
    }
    let first = number_of("STOPLOG_SIM_FIRST").unwrap_or(1);
    let images_min = number_of("STOPLOG_SIM_IMAGES").unwrap_or(IMAGES_MIN);
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while tally.images.load(Ordering::Relaxed) < images_min {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    explore(seed, &tally).unwrap_or_else(|e| fail(seed, &e));
                }
            });
        }
    });
    println!("seeds {first}..{}: {tally:?}", next.load(Ordering::Relaxed));
    // Shares of all: a campaign may be as short or as long as it likes.
    let images = tally.images.load(Ordering::Relaxed);
    assert!(tally.sealing.load(Ordering::Relaxed) * 200 > images, "rolls wait for syncs");
    let torn = tally.set_aside.load(Ordering::Relaxed);
    assert!(torn * 1_000 > images, "no full segment is ever torn");
}

#[test]
fn the_same_seed_explores_the_same_crashes() {
    let run = |seed| {
        let tally = Tally::default();
        let trace = explore(seed, &tally).unwrap_or_else(|e| fail(seed, &e));
        (trace, format!("{tally:?}"))
    };
    let runs: Vec<_> = (900..904).map(run).collect();
    assert_eq!(runs, (900..904).map(run).collect::<Vec<_>>());
    assert_ne!(runs[0], runs[1]);
}
