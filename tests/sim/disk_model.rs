//! What only the simulated disk can show: crashes, kills, faults, capacity, and that a seed is all
//! that decides.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use stoplog::env::sim::{Bias, Crash, Fault, SimDisk, sim_env};
use stoplog::env::{Disk, File, OpenMode, SeededRng, write_all_at};

const NOTHING: Crash = Crash { bias: Bias::Nothing, seed: 0 };
const EVERYTHING: Crash = Crash { bias: Bias::Everything, seed: 0 };

fn create(disk: &SimDisk, path: &str) -> Arc<dyn File> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

fn paths(disk: &SimDisk) -> Vec<String> {
    disk.files().into_iter().map(|(path, _)| path.display().to_string()).collect()
}

#[test]
fn what_was_synced_survives_every_crash() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f");
    write_all_at(&*file, &[1; 2000], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    write_all_at(&*file, &[2; 2000], 2000).unwrap();
    for seed in 0..500 {
        let bytes = disk.image(Crash::from_seed(seed)).read_file("f").unwrap();
        assert_eq!(bytes[..2000], [1; 2000]);
        assert!(bytes[2000..].iter().all(|b| *b == 0 || *b == 2));
    }
}

#[test]
fn a_name_needs_its_directory_synced_and_so_does_each_directory_above() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("a/b")).unwrap();
    create(&disk, "a/b/f").sync().unwrap();
    assert!(paths(&disk.image(NOTHING)).is_empty());
    disk.sync_dir(Path::new("a/b")).unwrap();
    disk.sync_dir(Path::new("a")).unwrap();
    assert!(paths(&disk.image(NOTHING)).is_empty());
    disk.sync_dir(Path::new("")).unwrap();
    assert_eq!(paths(&disk.image(NOTHING)), ["a/b/f"]);
}

#[test]
fn replacing_by_rename_leaves_the_old_or_the_new_file() {
    let disk = SimDisk::new(1);
    let old = create(&disk, "f");
    write_all_at(&*old, b"old", 0).unwrap();
    old.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let new = create(&disk, "f.tmp");
    write_all_at(&*new, b"new", 0).unwrap();
    new.sync().unwrap();
    disk.rename(Path::new("f.tmp"), Path::new("f")).unwrap();
    let found: BTreeSet<Vec<u8>> =
        (0..200).map(|s| disk.image(Crash::from_seed(s)).read_file("f").unwrap()).collect();
    assert_eq!(found, [b"old".to_vec(), b"new".to_vec()].into_iter().collect());
    assert_eq!(paths(&disk.image(EVERYTHING)), ["f"]);
}

#[test]
fn a_removed_file_may_come_back_until_the_directory_is_synced() {
    let disk = SimDisk::new(1);
    create(&disk, "f");
    disk.sync_dir(Path::new("")).unwrap();
    disk.remove_file(Path::new("f")).unwrap();
    assert_eq!(paths(&disk.image(NOTHING)), ["f"]);
    disk.sync_dir(Path::new("")).unwrap();
    assert!(paths(&disk.image(NOTHING)).is_empty());
}

#[test]
fn kill_keeps_memory_and_boot_but_not_locks() {
    let disk = SimDisk::new(1);
    let lock = disk.lock(Path::new("LOCK")).unwrap();
    let file = create(&disk, "f");
    write_all_at(&*file, b"cached", 0).unwrap();
    let after = disk.kill();
    assert_eq!(after.boot_id().unwrap(), disk.boot_id().unwrap());
    assert_eq!(after.read_file("f").unwrap(), b"cached");
    after.lock(Path::new("LOCK")).unwrap();
    assert!(file.sync().is_err(), "the old process is dead");
    assert!(disk.exists(Path::new("f")).is_err());
    drop(lock);
    let rebooted = after.crash(NOTHING);
    assert_ne!(rebooted.boot_id().unwrap(), after.boot_id().unwrap());
    assert!(paths(&rebooted).is_empty());
}

#[test]
fn faults_strike_the_nth_operation_they_can_hit() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f");
    disk.fail_nth(1, Fault::ShortWrite);
    assert_eq!(file.pwritev(&[std::io::IoSlice::new(&[1; 100])], 0).unwrap(), 100);
    let short = file.pwritev(&[std::io::IoSlice::new(&[2; 100])], 100).unwrap();
    assert!((1..100).contains(&short) && disk.clear_fault());
    disk.fail_nth(0, Fault::Enospc);
    file.sync().unwrap();
    let full = write_all_at(&*file, b"x", 0).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    write_all_at(&*file, b"x", 0).unwrap();
    disk.fail_from(0, Fault::Eio);
    assert!(file.sync().is_err() && file.set_len(0).is_err());
    assert!(disk.read_dir(Path::new("")).is_err());
}

#[test]
fn a_failed_sync_may_lose_what_later_syncs_claim() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let file = create(&disk, "f");
        disk.sync_dir(Path::new("")).unwrap();
        write_all_at(&*file, &[3; 512], 0).unwrap();
        disk.fail_nth(0, Fault::SyncFailed);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(disk.read_file("f").unwrap(), [3; 512], "memory shows the new bytes");
        lost += u32::from(disk.image(EVERYTHING).read_file("f").unwrap() != [3; 512]);
    }
    assert!((5..35).contains(&lost), "{lost} of 40");
}

#[test]
fn a_full_disk_takes_what_fits_and_removal_gives_room_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(4096);
    let file = create(&disk, "f");
    file.allocate(0, 2048).unwrap();
    assert!(file.allocate(0, 8192).is_err());
    assert_eq!(file.len().unwrap(), 2048);
    write_all_at(&*file, &[1; 2048], 0).unwrap();
    let wrote = file.pwritev(&[std::io::IoSlice::new(&[1; 9000])], 2048).unwrap();
    assert_eq!(wrote, 2048);
    assert_eq!(disk.space().unwrap().free, 0);
    assert!(write_all_at(&*file, &[1], 4096).is_err());
    disk.remove_file(Path::new("f")).unwrap();
    assert_eq!(disk.space().unwrap().free, 0, "an open file keeps its room");
    drop(file);
    assert_eq!(disk.space().unwrap().free, 4096);
}

#[test]
fn damage_is_in_memory_and_on_the_device() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f");
    disk.sync_dir(Path::new("")).unwrap();
    write_all_at(&*file, &[0; 10], 0).unwrap();
    file.sync().unwrap();
    let before = disk.digest();
    assert!(disk.flip_bit("f", 3, 7));
    assert!(!disk.flip_bit("f", 10, 0) && !disk.flip_bit("no", 0, 0));
    assert_eq!(disk.image(NOTHING).read_file("f").unwrap()[3], 0x80);
    assert_ne!(disk.digest(), before);
    assert!(disk.flip_bit("f", 3, 7));
    assert_eq!(disk.digest(), before);
    assert!(disk.write_file("g", b"new") && disk.delete_file("f"));
    assert_eq!(paths(&disk.image(NOTHING)), ["g"]);
}

#[test]
fn snapshots_are_taken_after_each_change() {
    let disk = SimDisk::new(1);
    disk.record_snapshots();
    let file = create(&disk, "f");
    write_all_at(&*file, b"1", 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let snapshots = disk.take_snapshots();
    assert_eq!(snapshots.len(), 4);
    let survives: Vec<bool> =
        snapshots.iter().map(|s| s.image(NOTHING).read_file("f").is_some()).collect();
    assert_eq!(survives, [false, false, false, true]);
    assert!(disk.take_snapshots().is_empty());
}

/// A run of random calls; everything about it must follow from the seed.
fn run(seed: u64) -> (u64, u64, u64) {
    let (env, disk, _clock) = sim_env(seed);
    let rng = SeededRng::new(seed);
    disk.fail_nth(20 + rng.below(20), Fault::SyncFailed);
    let files: Vec<_> = ["a", "b", "c"].iter().map(|p| create(&disk, p)).collect();
    for _ in 0..80 {
        let file = &files[usize::try_from(rng.below(3)).unwrap()];
        let byte = u8::try_from(rng.below(256)).unwrap();
        match rng.below(5) {
            0 => drop(file.sync()),
            1 => file.set_len(rng.below(5000)).unwrap(),
            2 => drop(env.disk.sync_dir(Path::new(""))),
            _ => write_all_at(&**file, &vec![byte; 700], rng.below(5000)).unwrap(),
        }
    }
    let image = disk.image(Crash::from_seed(env.rng.next_u64()));
    (disk.trace(), disk.digest(), image.digest())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let runs: Vec<_> = (0..30).map(run).collect();
    assert_eq!(runs, (0..30).map(run).collect::<Vec<_>>());
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 30);
}
