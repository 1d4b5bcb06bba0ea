//! The corruption table: damage to every kind of file, in every region, and the verdict that the
//! next start must come to. Whatever it is, nothing below the watermark is lost in silence, what is
//! cut above it is kept in `torn/` and reported, and a second start changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stoplog::env::sim::{Bias, Crash, SimDisk};
use stoplog::storage::{
    FileName, Finding, IDENTITY_BYTES, Identity, Partition, SLOT_BYTES, SlotPair,
};
use stoplog::types::{Acks, Durability, PartitionHealth};

use crate::explorer::differs;
use crate::history;
use crate::world::{Opened, Plan, World, read_one, small_partition, small_storage};

/// What a start makes of a damaged directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Everything is there and it takes appends.
    Intact,
    /// What was above the watermark was cut, kept in `torn/` and reported.
    Cut,
    /// Above the watermark, and nothing is left that could be kept: as if never written.
    Vanished,
    /// The partition is fenced and says where; every batch outside of that is there.
    Fenced,
    /// It takes appends; who reads the damaged batch is told, or sees that its CRC is wrong.
    ReaderTold,
    /// It does not open, and says why.
    Refused,
}
use Verdict::{Cut, Fenced, Intact, ReaderTold, Refused, Vanished};

/// Where damage is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Region {
    Whole,
    Identity,
    SlotNewest,
    SlotOlder,
    Reserved,
    FirstHeader,
    FirstPayload,
    MiddleHeader,
    MiddlePayload,
    LastBatch,
    Footer,
    Allocated,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Flip,
    Zero,
    Truncate,
    Swap,
    Delete,
}

const DAMAGES: [Damage; 5] =
    [Damage::Flip, Damage::Zero, Damage::Truncate, Damage::Swap, Damage::Delete];

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Sealed,
    Active,
    Index,
    Snapshot,
    Manifest,
    Epochs,
    Meta,
    Reserve,
    Lock,
}

/// How the process ended before the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Clean,
    Crashed,
}

type Case = (End, Kind, Region, Damage);

/// Every byte of a region up to this length is flipped, one at a time; of a longer one some.
const HEADER_BYTES: usize = 64;
/// Bytes of a longer region that are flipped.
const FLIPS: usize = 24;

/// The table: what a start may make of it. A list holds more than one verdict where the place of
/// the damage within the region decides.
fn expected((end, kind, region, damage): Case) -> &'static [Verdict] {
    match kind {
        Kind::Sealed => sealed(region, damage),
        Kind::Active if end == End::Clean => clean(region, damage),
        Kind::Active => unclean(region, damage),
        // Caches, and room.
        Kind::Index | Kind::Snapshot | Kind::Epochs | Kind::Reserve | Kind::Lock => &[Intact],
        Kind::Manifest => &[Fenced],
        Kind::Meta => &[Refused],
    }
}

/// Trusted when manifest, footer and length agree, else read whole: its data is not read again at
/// every start, so damage in it is found by whoever reads it (and by `verify`).
fn sealed(region: Region, damage: Damage) -> &'static [Verdict] {
    match (region, damage) {
        // The manifest says what the data has to be.
        (Region::Footer, _) => &[Intact],
        (_, Damage::Truncate | Damage::Swap | Damage::Delete) => &[Fenced],
        (Region::FirstHeader | Region::MiddleHeader | Region::LastBatch, Damage::Flip) => {
            // The epoch is outside of the CRC, and no reader needs it.
            &[ReaderTold, Intact]
        }
        (
            Region::FirstHeader
            | Region::FirstPayload
            | Region::MiddleHeader
            | Region::MiddlePayload
            | Region::LastBatch,
            Damage::Flip | Damage::Zero,
        ) => &[ReaderTold],
        _ => &[Intact],
    }
}

/// As a sealed one, but block 0 alone says whose it is.
fn clean(region: Region, damage: Damage) -> &'static [Verdict] {
    match region {
        Region::Identity => &[Fenced],
        Region::Allocated => &[Intact],
        _ => sealed(region, damage),
    }
}

/// Read from the last index entry below the watermark on: the middle lies behind it, the first batch
/// before. Only the last batch is above the watermark.
fn unclean(region: Region, damage: Damage) -> &'static [Verdict] {
    match (region, damage) {
        (Region::MiddleHeader | Region::MiddlePayload, _) => &[Fenced],
        (Region::LastBatch, Damage::Flip) => &[Cut, Intact],
        (Region::LastBatch, _) => &[Cut, Vanished],
        _ => clean(region, damage),
    }
}

/// A data directory with several segments, and where everything in it is.
struct Reference {
    world: World,
    disk: SimDisk,
    /// Offsets below it are below the watermark of the active segment.
    watermark: i64,
}

impl Reference {
    fn build(end: End) -> Reference {
        let mut options = small_partition(Durability::Fsync);
        options.segment_bytes = 12_000;
        let options = Arc::new(options);
        let plan = Plan { storage: small_storage(), parts: vec![Arc::clone(&options), options] };
        let mut world = World::new(11, plan).unwrap();
        for part in 0..2 {
            world.add_producer(part);
        }
        for turn in 0..45 {
            for part in 0..2 {
                world.append(part, Some(0), 2, 100 + 10 * turn + part, Acks::Durable);
            }
            world.settle().unwrap();
        }
        if end == End::Clean {
            // Closed, and opened once more.
            history::close(&mut world).unwrap();
        }
        let bias = Bias::Everything;
        let disk = world.disk.image(Crash { bias, seed: 1 });
        let bytes = disk.read_file(logs(&disk, &world).last().unwrap()).unwrap();
        let watermark = slots(&bytes).newest().unwrap().1.tail.next_offset.0;
        Reference { world, disk, watermark }
    }

    fn acknowledged(&self, part: usize) -> Vec<(i64, u32)> {
        self.world.parts[part].model.acknowledged().collect()
    }

    /// Files that are damaged: those of the first partition, and of the directory itself.
    fn files(&self) -> Vec<(PathBuf, Kind)> {
        let files = self.disk.files().into_iter();
        files.filter_map(|(path, _)| Some((path.clone(), self.kind_of(&path)?))).collect()
    }

    fn kind_of(&self, path: &Path) -> Option<Kind> {
        let name = path.file_name()?.to_str()?;
        if path.parent() == Some(Path::new("")) {
            return match name {
                "meta.properties" => Some(Kind::Meta),
                "reserve.bin" => Some(Kind::Reserve),
                "LOCK" => Some(Kind::Lock),
                _ => None,
            };
        }
        if !path.starts_with(dir_of(&self.world, 0)) {
            return None;
        }
        match FileName::parse(name) {
            FileName::Log(_) if logs(&self.disk, &self.world).last()? == path => Some(Kind::Active),
            FileName::Log(_) => Some(Kind::Sealed),
            FileName::Index(_) => Some(Kind::Index),
            FileName::Snapshot(_) => Some(Kind::Snapshot),
            FileName::Manifest => Some(Kind::Manifest),
            FileName::Epochs => Some(Kind::Epochs),
            _ => None,
        }
    }

    /// The directory with the damage done, in several places of the region.
    fn damaged(
        &self,
        path: &Path,
        range: (usize, usize),
        damage: Damage,
    ) -> Vec<(String, SimDisk)> {
        let original = self.disk.read_file(path).unwrap();
        let (from, to) = range;
        let with = |told: String, change: &dyn Fn(&mut Vec<u8>)| {
            let disk = self.disk.fork();
            let mut bytes = original.clone();
            change(&mut bytes);
            assert!(disk.write_file(path, &bytes));
            (bytes != original).then_some((told, disk))
        };
        match damage {
            Damage::Flip => {
                let bytes = to - from;
                let step = if bytes <= HEADER_BYTES { 1 } else { bytes / FLIPS };
                let spots = (from..to).step_by(step);
                let flip = |spot: usize| {
                    let mask = 1 << ((spot * 7) % 8);
                    with(format!("byte {spot} ^ {mask}"), &|b: &mut Vec<u8>| b[spot] ^= mask)
                };
                spots.filter_map(flip).collect()
            }
            Damage::Zero => {
                let half = from + (to - from) / 2;
                let zero = |(from, to): (usize, usize)| {
                    with(format!("{from}..{to}"), &|b: &mut Vec<u8>| b[from..to].fill(0))
                };
                [(from, to), (half, to)].into_iter().filter_map(zero).collect()
            }
            Damage::Truncate => {
                let cut = |at| with(format!("to {at}"), &|b: &mut Vec<u8>| b.truncate(at));
                [from, from + (to - from) / 2].into_iter().filter_map(cut).collect()
            }
            Damage::Swap => self.swapped(path, &original),
            Damage::Delete => {
                let disk = self.disk.fork();
                assert!(disk.delete_file(path));
                vec![(String::new(), disk)]
            }
        }
    }

    /// The file and another one of its kind change places.
    fn swapped(&self, path: &Path, original: &[u8]) -> Vec<(String, SimDisk)> {
        let kind = self.kind_of(path);
        let is_log = |kind| matches!(kind, Some(Kind::Sealed | Kind::Active));
        let brothers = self.files().into_iter().map(|(other, _)| other).filter(|other| {
            let theirs = self.kind_of(other);
            other != path && (theirs == kind || (is_log(theirs) && is_log(kind)))
        });
        let twin = path.strip_prefix(dir_of(&self.world, 0)).ok();
        let twin = twin.map(|name| dir_of(&self.world, 1).join(name));
        let swap = |other: PathBuf| {
            let disk = self.disk.fork();
            let theirs = disk.read_file(&other).filter(|theirs| theirs != original)?;
            assert!(disk.write_file(path, &theirs) && disk.write_file(&other, original));
            Some((format!("with {}", other.display()), disk))
        };
        brothers.chain(twin).filter_map(swap).collect()
    }

    /// What the next start makes of it; an error is a defect.
    fn verdict(&self, disk: &SimDisk) -> Result<Verdict, String> {
        let opened = match Opened::start(&self.world, disk) {
            Ok(opened) => opened,
            Err(_) => return Ok(Refused),
        };
        let verdict = self.verdict_of(&opened, 0, disk)?;
        self.verdict_of(&opened, 1, disk).map_err(|e| format!("the other partition: {e}"))?;
        drop(opened);
        self.check_again(disk, verdict)?;
        Ok(verdict)
    }

    /// `recover(recover(x)) = recover(x)`.
    fn check_again(&self, disk: &SimDisk, verdict: Verdict) -> Result<(), String> {
        let after = disk.crash(Crash { bias: Bias::Nothing, seed: 0 });
        differs(disk, &after).map_err(|e| format!("the start left unsynced changes: {e}"))?;
        let before = after.fork();
        let opened = Opened::start(&self.world, &after)?;
        differs(&before, &after).map_err(|e| format!("the second start changed {e}"))?;
        let handle = opened.handle(0);
        match (verdict, handle.health()) {
            (Fenced, PartitionHealth::Fenced { .. }) => Ok(()),
            (Fenced, health) => Err(format!("fenced, after the second start {health:?}")),
            (_, PartitionHealth::Writable) => self.check_goes_on(&opened),
            (_, health) => Err(format!("writable, after the second start {health:?}")),
        }
    }

    fn check_goes_on(&self, opened: &Opened) -> Result<(), String> {
        let model = &self.world.parts[0].model;
        match opened.probe(0, model)? {
            base if base < model.handed_end => Err(format!("{base} was handed out again")),
            _ => Ok(()),
        }
    }

    fn verdict_of(&self, opened: &Opened, part: usize, disk: &SimDisk) -> Result<Verdict, String> {
        let handle = opened.handle(part);
        let health = handle.health();
        let mut lost = Vec::new();
        let mut told = false;
        for (base, key) in self.acknowledged(part) {
            match read_one(handle, base) {
                Ok(found) if found.key == key && found.header.base_offset.0 == base => {}
                Ok(found) if found.header.base_offset.0 == base => {
                    return Err(format!("a reader gets another batch at {base}"));
                }
                // The batch is named by its own header; a reader that asked for `base` skips it.
                Ok(_) => lost.push(base),
                Err(_) if base < handle.offsets().visible_end.0 => told = true,
                Err(_) => lost.push(base),
            }
            if let (PartitionHealth::Fenced { first_bad, next_good }, Err(e)) =
                (&health, read_one(handle, base))
                && (base < first_bad.0 || next_good.is_some_and(|good| base >= good.0))
            {
                return Err(format!("{base} is outside of {first_bad}..{next_good:?}, yet {e}"));
            }
        }
        match (health, lost.first()) {
            (PartitionHealth::Fenced { .. }, _)
                if opened.probe(part, &self.world.parts[part].model).is_ok() =>
            {
                Err("it is fenced, and takes appends".to_owned())
            }
            (PartitionHealth::Fenced { first_bad, next_good }, _) => {
                let named = |base: &&i64| {
                    **base >= first_bad.0 && next_good.is_none_or(|good| **base < good.0)
                };
                match lost.iter().find(|base| !named(base)) {
                    Some(base) => {
                        Err(format!("{base} is lost outside of {first_bad}..{next_good:?}"))
                    }
                    None => Ok(Fenced),
                }
            }
            (PartitionHealth::ReadOnly { cause }, _) => Err(format!("read-only: {cause}")),
            (PartitionHealth::Writable, None) if told => Ok(ReaderTold),
            (PartitionHealth::Writable, None) => Ok(Intact),
            (PartitionHealth::Writable, Some(first)) if part > 0 || *first < self.watermark => {
                Err(format!("lost in silence: {lost:?}, the watermark is {}", self.watermark))
            }
            (PartitionHealth::Writable, Some(_)) if was_cut(handle, disk) => Ok(Cut),
            (PartitionHealth::Writable, Some(_)) => Ok(Vanished),
        }
    }
}

fn was_cut(handle: &Partition, disk: &SimDisk) -> bool {
    let kept = |path: &str| disk.read_file(path).is_some_and(|bytes| !bytes.is_empty());
    handle.findings().iter().any(|finding| match finding {
        Finding::TornCut { kept: path, .. } => kept(path),
        _ => false,
    })
}

fn dir_of(world: &World, part: usize) -> PathBuf {
    stoplog::storage::PartitionPaths::new(world.parts[part].id).dir().to_path_buf()
}

fn logs(disk: &SimDisk, world: &World) -> Vec<PathBuf> {
    let dir = dir_of(world, 0);
    let is_log =
        |path: &PathBuf| path.starts_with(&dir) && path.extension().is_some_and(|e| e == "log");
    disk.files().into_iter().map(|(path, _)| path).filter(is_log).collect()
}

fn slots(bytes: &[u8]) -> SlotPair {
    let tag = Identity::decode(&bytes[..IDENTITY_BYTES]).unwrap().tag();
    SlotPair::decode(&bytes[4096..4096 + SLOT_BYTES], &bytes[8192..8192 + SLOT_BYTES], tag)
}

/// Positions of the batches in a segment, and their end.
fn batches_of(bytes: &[u8]) -> (Vec<usize>, usize) {
    let mut found = Vec::new();
    let mut at = 16_384;
    while let Some(header) = bytes.get(at..at + 61) {
        let Ok(header) = stoplog::record::BatchHeader::read(header) else { break };
        found.push(at);
        at += header.size_bytes();
    }
    (found, at)
}

/// The regions of a file and where each is.
fn regions(kind: Kind, bytes: &[u8]) -> BTreeMap<Region, (usize, usize)> {
    let mut found = BTreeMap::new();
    let mut add = |region, from: usize, to: usize| {
        if from < to && to <= bytes.len() {
            found.insert(region, (from, to));
        }
    };
    if !matches!(kind, Kind::Sealed | Kind::Active) {
        add(Region::Whole, 0, bytes.len());
        return found;
    }
    let (batches, end) = batches_of(bytes);
    let newest_is_a = slots(bytes).newest().is_some_and(|(place, _)| place.position() == 4096);
    let (newest, older) = if newest_is_a { (4096, 8192) } else { (8192, 4096) };
    add(Region::Identity, 0, IDENTITY_BYTES);
    add(Region::SlotNewest, newest, newest + SLOT_BYTES);
    add(Region::SlotOlder, older, older + SLOT_BYTES);
    add(Region::Reserved, 12_288, 16_384);
    add(Region::FirstHeader, batches[0], batches[0] + 61);
    add(Region::FirstPayload, batches[0] + 61, batches[1]);
    let middle = batches.len() / 2;
    add(Region::MiddleHeader, batches[middle], batches[middle] + 61);
    add(Region::MiddlePayload, batches[middle] + 61, batches[middle + 1]);
    add(Region::LastBatch, batches[batches.len() - 1], end);
    match kind {
        Kind::Sealed => add(Region::Footer, end, bytes.len()),
        _ => add(Region::Allocated, end, bytes.len()),
    }
    found
}

/// Verdicts that are not in the table: what was seen, and where.
type Wrong = BTreeMap<(Case, String), BTreeSet<String>>;

/// Does every damage to a directory that was left so; how many there were.
fn try_all(end: End, wrong: &mut Wrong) -> usize {
    let reference = Reference::build(end);
    let mut mutations = 0;
    for (path, kind) in reference.files() {
        let bytes = reference.disk.read_file(&path).unwrap();
        for (region, range) in regions(kind, &bytes) {
            for damage in DAMAGES {
                let whole = matches!(damage, Damage::Swap | Damage::Delete);
                if whole && !matches!(region, Region::Whole | Region::Identity) {
                    continue;
                }
                let case = (end, kind, region, damage);
                for (place, disk) in reference.damaged(&path, range, damage) {
                    mutations += 1;
                    let verdict = catch_unwind(AssertUnwindSafe(|| reference.verdict(&disk)));
                    let seen = match verdict.unwrap_or_else(|_| Err("a panic".to_owned())) {
                        Ok(verdict) if expected(case).contains(&verdict) => continue,
                        Ok(verdict) => format!("{verdict:?}"),
                        Err(e) => format!("a defect: {e}"),
                    };
                    let place = format!("{} {place}", path.display());
                    wrong.entry((case, seen)).or_default().insert(place);
                }
            }
        }
    }
    mutations
}

#[test]
fn every_damage_has_its_verdict() {
    let (mutations, wrong) = std::thread::scope(|scope| {
        let run = |end| {
            scope.spawn(move || {
                let mut wrong = Wrong::new();
                (try_all(end, &mut wrong), wrong)
            })
        };
        let runs = [run(End::Clean), run(End::Crashed)];
        let mut all = (0, Wrong::new());
        for (mutations, wrong) in runs.map(|run| run.join().unwrap()) {
            all.0 += mutations;
            all.1.extend(wrong);
        }
        all
    });
    let mut told = String::new();
    for ((case, seen), places) in &wrong {
        let (expected, count, first) = (expected(*case), places.len(), places.first().unwrap());
        told += &format!("{case:?}: {seen}; expected {expected:?}; {count} places: {first}\n");
    }
    assert!(told.is_empty(), "\n{told}");
    println!("{mutations} mutations");
    assert!(mutations > 2_000, "only {mutations} mutations");
}
