//! One suite of rules that the machine's disk and the simulated one both keep, and a differential
//! run of random calls: whatever one answers, the other does.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stoplog::env::sim::SimDisk;
use stoplog::env::{Disk, File, OpenMode, RealDisk, Rng, SeededRng, read_full_at, write_all_at};

fn on_both(rule: impl Fn(&dyn Disk)) {
    let dir = tempfile::tempdir().unwrap();
    rule(&RealDisk::new(dir.path().to_path_buf()));
    rule(&SimDisk::new(1));
}

fn create(disk: &dyn Disk, path: &str) -> Arc<dyn File> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let read = read_full_at(file, &mut bytes, 0).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

fn names(disk: &dyn Disk, path: &str) -> Vec<String> {
    disk.read_dir(Path::new(path)).unwrap().into_iter().map(|e| e.name).collect()
}

#[test]
fn buffers_are_written_one_after_another() {
    on_both(|disk| {
        let file = create(disk, "f");
        let parts = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defg")];
        assert_eq!(file.pwritev(&parts, 2).unwrap(), 7);
        assert_eq!(contents(&*file), b"\0\0abcdefg");
        assert_eq!(file.len().unwrap(), 9);
        file.sync().unwrap();
    });
}

#[test]
fn reads_end_at_the_end() {
    on_both(|disk| {
        let file = create(disk, "f");
        write_all_at(&*file, b"0123456789", 0).unwrap();
        let mut buffer = [9; 8];
        assert_eq!(read_full_at(&*file, &mut buffer, 6).unwrap(), 4);
        assert_eq!(&buffer, b"6789\x09\x09\x09\x09");
        assert_eq!(file.pread(&mut buffer, 10).unwrap(), 0);
        assert_eq!(file.pread(&mut buffer, 1 << 40).unwrap(), 0);
    });
}

#[test]
fn allocation_extends_with_zeros_and_never_shrinks() {
    on_both(|disk| {
        let file = create(disk, "f");
        write_all_at(&*file, b"data", 0).unwrap();
        file.allocate(0, 65_536).unwrap();
        assert_eq!(file.len().unwrap(), 65_536);
        assert!(file.allocated().unwrap() >= 65_536);
        file.allocate(0, 100).unwrap();
        assert_eq!(file.len().unwrap(), 65_536);
        assert_eq!(contents(&*file).iter().map(|b| u64::from(*b)).sum::<u64>(), 410);
        assert!(file.allocate(5, 0).is_err());
    });
}

#[test]
fn a_cut_file_shows_zeros_when_it_grows_again() {
    on_both(|disk| {
        let file = create(disk, "f");
        write_all_at(&*file, &[7; 3000], 0).unwrap();
        file.set_len(1000).unwrap();
        file.set_len(3000).unwrap();
        let bytes = contents(&*file);
        assert!(bytes[..1000].iter().all(|b| *b == 7));
        assert!(bytes[1000..].iter().all(|b| *b == 0));
    });
}

#[test]
fn open_modes_hold_what_they_say() {
    on_both(|disk| {
        let open = |mode| disk.open(Path::new("f"), mode);
        let kind = |mode| open(mode).err().map(|e| e.kind());
        assert_eq!(kind(OpenMode::Read), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(OpenMode::ReadWrite), Some(io::ErrorKind::NotFound));
        let file = open(OpenMode::CreateNew).unwrap();
        write_all_at(&*file, b"x", 0).unwrap();
        assert_eq!(kind(OpenMode::CreateNew), Some(io::ErrorKind::AlreadyExists));
        let reader = open(OpenMode::Read).unwrap();
        assert_eq!(contents(&*reader), b"x");
        assert!(write_all_at(&*reader, b"y", 0).is_err());
        assert!(reader.set_len(0).is_err());
        assert!(reader.allocate(0, 10).is_err());
        open(OpenMode::Truncate).unwrap();
        assert_eq!(file.len().unwrap(), 0);
        disk.create_dir_all(Path::new("d")).unwrap();
        assert!(disk.open(Path::new("d"), OpenMode::Read).is_err());
        assert!(disk.open(Path::new("d"), OpenMode::Truncate).is_err());
    });
}

#[test]
fn names_move_and_vanish_while_handles_stay() {
    on_both(|disk| {
        disk.create_dir_all(Path::new("a/b")).unwrap();
        disk.create_dir_all(Path::new("a/b")).unwrap();
        disk.create_dir_all(Path::new("trash")).unwrap();
        let file = create(disk, "a/b/f");
        write_all_at(&*file, b"kept", 0).unwrap();
        let map = file.map(1 << 16).unwrap();
        create(disk, "a/b/g");
        assert_eq!(names(disk, "a/b"), ["f", "g"]);
        disk.rename(Path::new("a/b/f"), Path::new("a/b/g")).unwrap();
        assert_eq!(names(disk, "a/b"), ["g"]);
        disk.rename(Path::new("a"), Path::new("trash/a")).unwrap();
        assert!(disk.exists(Path::new("trash/a/b/g")).unwrap());
        assert!(!disk.exists(Path::new("a/b/g")).unwrap());
        assert!(disk.remove_dir(Path::new("trash/a/b")).is_err());
        assert!(disk.remove_file(Path::new("trash/a/b")).is_err());
        disk.remove_file(Path::new("trash/a/b/g")).unwrap();
        disk.remove_dir(Path::new("trash/a/b")).unwrap();
        disk.sync_dir(Path::new("trash/a")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        assert_eq!(contents(&*file), b"kept");
        assert_eq!(map.slice(0..4).unwrap(), &b"kept"[..]);
    });
}

#[test]
fn missing_things_are_not_found() {
    on_both(|disk| {
        let not_found = |e: io::Error| assert_eq!(e.kind(), io::ErrorKind::NotFound);
        not_found(disk.read_dir(Path::new("no")).unwrap_err());
        not_found(disk.sync_dir(Path::new("no")).unwrap_err());
        not_found(disk.remove_file(Path::new("no")).unwrap_err());
        not_found(disk.remove_dir(Path::new("no")).unwrap_err());
        not_found(disk.rename(Path::new("no"), Path::new("x")).unwrap_err());
        not_found(disk.open(Path::new("no/f"), OpenMode::CreateNew).err().unwrap());
        for outside in ["..", "../x", "/x", "a/../../x"] {
            let error = disk.open(Path::new(outside), OpenMode::Read).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{outside}");
        }
    });
}

#[test]
fn a_map_made_early_shows_what_the_file_grows_to_hold() {
    on_both(|disk| {
        let file = create(disk, "f");
        let map = file.map(1 << 20).unwrap();
        file.allocate(0, 1 << 16).unwrap();
        write_all_at(&*file, b"later", 5000).unwrap();
        map.populate(0..1 << 16).unwrap();
        assert!(map.is_resident(0..1 << 16));
        assert_eq!(map.clone().slice(5000..5005).unwrap(), &b"later"[..]);
        assert!(map.populate((1 << 17)..(1 << 17) + 1).is_err());
        assert!(map.clone().slice(0..(1 << 20) + 1).is_none());
        file.drop_cache(0..u64::MAX).unwrap();
        assert_eq!(map.slice(5000..5005).unwrap(), &b"later"[..]);
    });
}

#[test]
fn the_lock_is_exclusive_until_dropped() {
    on_both(|disk| {
        let path = Path::new("LOCK");
        let held = disk.lock(path).unwrap();
        let error = disk.lock(path).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        disk.lock(path).unwrap();
        assert!(disk.exists(path).unwrap());
    });
}

#[test]
fn space_and_boot_are_told() {
    on_both(|disk| {
        let space = disk.space().unwrap();
        assert!(space.free <= space.capacity && space.capacity > 0);
        assert_eq!(disk.boot_id().unwrap(), disk.boot_id().unwrap());
    });
}

/// One call with its outcome as text, so that two disks can be compared.
fn random_call(disk: &dyn Disk, rng: &SeededRng) -> String {
    const PATHS: [&str; 8] = ["a", "b", "d/a", "d/b", "d", "e/x", "e", "d/e"];
    let path = PathBuf::from(PATHS[usize::try_from(rng.below(8)).unwrap()]);
    let other = PathBuf::from(PATHS[usize::try_from(rng.below(8)).unwrap()]);
    let (number, offset, len) = (rng.below(12), rng.below(3000), 1 + rng.below(2000));
    let byte = u8::try_from(rng.below(256)).unwrap();
    let outcome = |result: io::Result<String>| match result {
        Ok(text) => text,
        Err(e) => format!("{:?}", e.kind()),
    };
    let with_file = |work: &dyn Fn(&dyn File) -> io::Result<()>| {
        outcome(disk.open(&path, OpenMode::ReadWrite).and_then(|f| work(&*f)).map(|()| "ok".into()))
    };
    let done = match number {
        0 | 1 => outcome(disk.open(&path, OpenMode::CreateNew).map(|_| "new".into())),
        2 => outcome(disk.open(&path, OpenMode::Truncate).map(|_| "empty".into())),
        3 => outcome(disk.create_dir_all(&path).map(|()| "dir".into())),
        4 => outcome(disk.rename(&path, &other).map(|()| "renamed".into())),
        5 => outcome(disk.remove_file(&path).map(|()| "removed".into())),
        6 => outcome(disk.remove_dir(&path).map(|()| "gone".into())),
        7 | 8 => {
            with_file(&|f| write_all_at(f, &vec![byte; usize::try_from(len).unwrap()], offset))
        }
        9 => with_file(&|f| f.set_len(len)),
        10 => with_file(&|f| f.allocate(offset, len)),
        _ => outcome(disk.open(&path, OpenMode::Read).map(|f| format!("{:?}", contents(&*f)))),
    };
    let listing = |p: &str| outcome(disk.read_dir(Path::new(p)).map(|l| format!("{l:?}")));
    format!("{number} {path:?} {other:?} {done} / {} {}", listing(""), listing("d"))
}

#[test]
fn random_calls_have_the_same_outcome_on_both_disks() {
    for seed in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let real = RealDisk::new(dir.path().to_path_buf());
        let sim = SimDisk::new(seed);
        let (one, two) = (SeededRng::new(seed), SeededRng::new(seed));
        for step in 0..60 {
            let (real, sim) = (random_call(&real, &one), random_call(&sim, &two));
            assert_eq!(real, sim, "seed {seed} step {step}");
        }
        assert_eq!(one.next_u64(), two.next_u64());
    }
}
