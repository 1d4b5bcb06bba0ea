//! Replays the seeds of the fuzz targets and simple mutations of each, so that what fuzzing found
//! stays found without a fuzzer. `STOPLOG_FUZZ_MUTATIONS` sets how many mutations a seed gets.
#![allow(clippy::disallowed_methods, reason = "seeds are files, and not of the simulated disk")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../../tools/fuzz/targets.rs"]
mod targets;

use targets::TARGETS;

/// Mutations of each seed in a plain test run.
const MUTATIONS: u64 = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("tools/fuzz/seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no seed", folder.display());
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// splitmix64: the same mutations in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}

/// Numbers at which lengths and counts go wrong.
const NUMBERS: [u64; 9] =
    [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len());
        match chance.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&other[chance.below(other.len())..]),
            2 => {
                let end = (at + 1 + chance.below(16)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            3 => {
                let number = NUMBERS[chance.below(NUMBERS.len())];
                let width = 1 << chance.below(4);
                let raw = [number.to_le_bytes(), number.to_be_bytes()][chance.below(2)];
                let raw = if raw[0] == 0 { &raw[8 - width..] } else { &raw[..width] };
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, raw.iter().copied());
            }
            4 => bytes.insert(at, chance.next() as u8),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
        }
    }
    bytes.truncate(1 << 16);
}

fn run(target: fn(&[u8]), name: &str, seed: &Path, data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
        panic!("{name} fails on a mutation of {}; commit it as a seed:\n{hex}", seed.display());
    }
}

#[test]
fn seeds_and_their_mutations_hold() {
    let wanted = std::env::var("STOPLOG_FUZZ_MUTATIONS").ok().and_then(|n| n.parse().ok());
    let mutations = wanted.unwrap_or(MUTATIONS);
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let mut chance = Chance(1);
        for (path, seed) in &seeds {
            run(*target, name, path, seed);
            for _ in 0..mutations {
                let mut bytes = seed.clone();
                let other = &seeds[chance.below(seeds.len())].1;
                mutate(&mut bytes, other, &mut chance);
                run(*target, name, path, &bytes);
            }
        }
    }
}

/// Names of all `pub fn fuzz_*` below `src`.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            for line in fs::read_to_string(&path).unwrap().lines() {
                let name =
                    line.trim_start().strip_prefix("pub fn ").and_then(|l| l.split('(').next());
                found.extend(name.filter(|n| n.starts_with("fuzz_")).map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_fuzz_function_is_a_target() {
    let mut names = BTreeSet::new();
    functions(&root().join("src"), &mut names);
    let table = fs::read_to_string(root().join("tools/fuzz/targets.rs")).unwrap();
    let missing: Vec<&String> =
        names.iter().filter(|name| !table.contains(&format!("::{name}"))).collect();
    assert!(missing.is_empty(), "no row in tools/fuzz/targets.rs: {missing:?}");
}

#[test]
fn every_target_is_known_to_cargo_fuzz() {
    let manifest = fs::read_to_string(root().join("tools/fuzz/Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "no [[bin]] {name}");
        let file = root().join(format!("tools/fuzz/fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(&format!("target!(\"{name}\")")), "{}", file.display());
    }
    let bins = manifest.matches("[[bin]]").count();
    assert_eq!(bins, TARGETS.len(), "a [[bin]] without a row in targets.rs");
}
