//! File operations that may wait for the device: the only thing sync threads run. A job owns all
//! it needs, does it in order, and comes back as a `SyncDone`; it decides nothing about the log.
//!
//! Every order of write, sync and rename that recovery relies on is in this file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::dir::{DirShared, OnFull};
pub(crate) use super::fault::Fault;
use super::footer::Footer;
use super::identity::Identity;
use super::layout::{IDENTITY_POSITION, PartitionPaths, TOPICS_DIR, TRASH_DIR, topic_dir};
use super::manifest::Manifest;
use super::slot::{Slot, SlotPlace};
use super::small_file::write_small_file;
use super::tail::SegmentTail;
use crate::env::{Disk, File, OpenMode, write_all_at};
use crate::types::Offset;

/// A file operation to run on a thread that may wait for the device.
#[must_use = "a job that is not executed stops its partition"]
pub struct SyncJob {
    pub(crate) key: u32,
    pub(crate) dir: Arc<DirShared>,
    pub(crate) work: Work,
}

/// A finished file operation, to be given back to the writer it came from.
#[must_use = "the writer waits for it"]
pub struct SyncDone {
    pub(crate) key: u32,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Work {
    Commit(Commit),
    Extend(Extend),
    Create(Box<CreateSegment>),
    Name(Box<NameSegments>),
    Seal(Box<SealWork>),
    Trim(Box<Trim>),
    Cleanup(Cleanup),
    Checkpoint(Box<Checkpoint>),
    /// Nobody waits for it.
    Caches(Caches),
    Remove(PartitionPaths),
}

pub(crate) enum Outcome {
    Commit(Commit, Result<(), Fault>),
    Extend(u64, io::Result<()>),
    Create(Box<CreateSegment>, Result<Opened, Fault>),
    Name(Box<NameSegments>, Result<(), Fault>),
    Seal(Box<SealWork>, Result<(), Fault>),
    Trim(Box<Trim>, Result<(), Fault>),
    Cleanup(Cleanup, Result<(), Fault>),
    Checkpoint(Box<Checkpoint>, Result<(), Fault>),
    Caches(Caches, Result<(), Fault>),
    Remove(Result<(), Fault>),
}

/// Makes everything written so far durable, and states what the last one made durable.
pub(crate) struct Commit {
    /// Which segment it is.
    pub base: Offset,
    pub file: Arc<dyn File>,
    pub slot: Option<(SlotPlace, Slot)>,
    pub tail: SegmentTail,
    pub index: Option<Box<IndexPiece>>,
    /// Few bytes: whoever waits for it waits for a moment.
    pub short: bool,
    /// When it was ordered.
    pub issued: Duration,
}

/// Blocks of the active segment's index file, a cache: written in place and not synced.
pub(crate) struct IndexPiece {
    pub path: PathBuf,
    pub position: u64,
    pub bytes: Vec<u8>,
}

/// Allocates further ahead.
pub(crate) struct Extend {
    pub file: Arc<dyn File>,
    pub from: u64,
    pub to: u64,
}

/// Makes the next segment. Nothing of it is durable yet: no append waits for a sync here.
pub(crate) struct CreateSegment {
    pub paths: Arc<PartitionPaths>,
    pub identity: Identity,
    pub slot: Slot,
    pub allocate: u64,
    /// The first manifest of the partition, whose directory may not be there. This one is durable
    /// before the segment is made.
    pub first: Option<Manifest>,
    /// Whose the segment is: the reserve is not there for user data.
    pub on_full: OnFull,
}

/// Says durably which segments are full and which are behind them.
pub(crate) struct NameSegments {
    pub paths: Arc<PartitionPaths>,
    pub manifest: Manifest,
    pub segments: Vec<Unnamed>,
}

/// A segment that no manifest on the device names, as it was when the job was made.
pub(crate) struct Unnamed {
    pub base: Offset,
    pub file: Arc<dyn File>,
    pub tail: SegmentTail,
}

/// The end of a segment whose data is durable: a footer on the device says so.
pub(crate) struct SealWork {
    pub file: Arc<dyn File>,
    pub base: Offset,
    pub footer: Footer,
    pub caches: Caches,
    pub on_full: OnFull,
}

/// Files that recovery can do without: it only takes longer.
#[derive(Default)]
pub(crate) struct Caches {
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Older ones that these replace.
    pub outdated: Vec<PathBuf>,
    /// Offset of the snapshot among them.
    pub snapshot: Option<Offset>,
}

/// A new segment, ready for its first append.
pub(crate) struct Opened {
    pub file: Arc<dyn File>,
    pub allocated: u64,
}

/// States durably that everything before an offset is gone.
pub(crate) struct Trim {
    pub paths: Arc<PartitionPaths>,
    pub manifest: Manifest,
}

/// Removes the files of segments that the manifest calls `deleting`.
pub(crate) struct Cleanup {
    pub paths: Arc<PartitionPaths>,
    pub bases: Vec<Offset>,
    /// Those that are gone.
    pub gone: Vec<Offset>,
}

/// Writes the caches, what the manifest does not say yet, and then a clean slot.
pub(crate) struct Checkpoint {
    pub paths: Arc<PartitionPaths>,
    pub manifest: Option<Manifest>,
    pub file: Arc<dyn File>,
    pub caches: Caches,
    pub slot: (SlotPlace, Slot),
}

impl SyncJob {
    /// Runs the operation. Waits for the device.
    pub fn execute(self) -> SyncDone {
        let dir = self.dir.as_ref();
        let outcome = match self.work {
            Work::Commit(mut work) => {
                let result = work.run(dir);
                Outcome::Commit(work, result)
            }
            Work::Extend(work) => {
                Outcome::Extend(work.to, work.file.allocate(work.from, work.to - work.from))
            }
            Work::Create(mut work) => {
                let result = work.run(dir);
                Outcome::Create(work, result)
            }
            Work::Name(mut work) => {
                let result = work.run(dir);
                Outcome::Name(work, result)
            }
            Work::Seal(work) => {
                let result = work.run(dir);
                Outcome::Seal(work, result)
            }
            Work::Trim(mut work) => {
                let (paths, manifest) = (&work.paths, &mut work.manifest);
                let result = write_manifest(dir, paths, manifest, OnFull::SpendReserve);
                Outcome::Trim(work, result)
            }
            Work::Cleanup(mut work) => {
                let result = work.run(dir);
                Outcome::Cleanup(work, result)
            }
            Work::Checkpoint(mut work) => {
                let result = work.run(dir);
                Outcome::Checkpoint(work, result)
            }
            Work::Caches(work) => {
                let result = work.write(dir);
                Outcome::Caches(work, result)
            }
            Work::Remove(paths) => Outcome::Remove(remove_partition(dir, &paths)),
        };
        SyncDone { key: self.key, outcome }
    }

    /// Whether it is a commit of few bytes: short, and somebody waits for it.
    pub fn is_short_commit(&self) -> bool {
        matches!(&self.work, Work::Commit(commit) if commit.short)
    }

    /// What it does, in a word: for traces and for tests that hold one kind back.
    pub fn name(&self) -> &'static str {
        match self.work {
            Work::Commit(_) => "commit",
            Work::Extend(_) => "extend",
            Work::Create(_) => "create",
            Work::Name(_) => "name",
            Work::Seal(_) => "seal",
            Work::Trim(_) => "trim",
            Work::Cleanup(_) => "cleanup",
            Work::Checkpoint(_) => "checkpoint",
            Work::Caches(_) => "caches",
            Work::Remove(_) => "remove",
        }
    }
}

impl Commit {
    /// Without space for the slot the data is committed all the same, and nothing is stated.
    fn run(&mut self, dir: &DirShared) -> Result<(), Fault> {
        if let Some((place, slot)) = &self.slot {
            match write_slot(self.file.as_ref(), *place, slot) {
                Err(Fault::NoSpace(_)) => self.slot = None,
                result => result?,
            }
        }
        self.file.sync().map_err(Fault::Sync)?;
        if let Some(Err(e)) = self.index.take().map(|piece| piece.write(dir)) {
            tracing::debug!("the index was not written on: {e}");
        }
        Ok(())
    }
}

impl IndexPiece {
    fn write(&self, dir: &DirShared) -> io::Result<()> {
        let disk = dir.env.disk.as_ref();
        let mode = if self.position == 0 { OpenMode::Truncate } else { OpenMode::ReadWrite };
        write_all_at(disk.open(&self.path, mode)?.as_ref(), &self.bytes, self.position)
    }
}

impl CreateSegment {
    fn run(&mut self, dir: &DirShared) -> Result<Opened, Fault> {
        if self.first.is_some() {
            self.make_directory(dir)?;
        }
        if let Some(manifest) = self.first.as_mut() {
            write_manifest(dir, &self.paths, manifest, self.on_full)?;
        }
        self.create(dir)
    }

    fn make_directory(&self, dir: &DirShared) -> Result<(), Fault> {
        let disk = dir.env.disk.as_ref();
        let path = self.paths.dir();
        dir.on_full(self.on_full, || disk.create_dir_all(path))?;
        let topic = topic_dir(self.paths.id().topic);
        for parent in [topic.as_path(), Path::new(TOPICS_DIR)] {
            disk.sync_dir(parent).map_err(Fault::Sync)?;
        }
        Ok(())
    }

    /// A file that a failed attempt left is emptied: nothing was written to it.
    fn create(&self, dir: &DirShared) -> Result<Opened, Fault> {
        let disk = dir.env.disk.as_ref();
        let path = self.paths.log(self.identity.base_offset);
        let write = || -> io::Result<Arc<dyn File>> {
            let file = disk.open(&path, OpenMode::Truncate)?;
            file.allocate(0, self.allocate)?;
            write_all_at(file.as_ref(), &self.identity.encode(), IDENTITY_POSITION)?;
            write_all_at(file.as_ref(), &self.slot.encode(), SlotPlace::A.position())?;
            Ok(file)
        };
        let file = dir.on_full(self.on_full, write)?;
        Ok(Opened { file, allocated: self.allocate })
    }
}

impl NameSegments {
    /// Files and names first: what a manifest calls active is there.
    ///
    /// Each segment is synced whole, half of `sealing_segments_max` of them at the most: 512 MiB of a topic
    /// that is not synced by its acks, as the defaults are. Smaller steps would spare nobody a wait: who
    /// waits here needs the last of them (the lease, a durable answer), each step costs a manifest, and
    /// appends go on beside it.
    fn run(&mut self, dir: &DirShared) -> Result<(), Fault> {
        for segment in &self.segments {
            segment.file.sync().map_err(Fault::Sync)?;
        }
        dir.env.disk.sync_dir(self.paths.dir()).map_err(Fault::Sync)?;
        write_manifest(dir, &self.paths, &mut self.manifest, OnFull::SpendReserve)
    }
}

impl SealWork {
    /// Footer behind the data, the rest of the file cut off, all of it durable.
    fn run(&self, dir: &DirShared) -> Result<(), Fault> {
        let position = self.footer.tail.position;
        let bytes = self.footer.encode();
        dir.on_full(self.on_full, || write_all_at(self.file.as_ref(), &bytes, position))?;
        self.file.set_len(self.footer.file_bytes())?;
        self.file.sync().map_err(Fault::Sync)?;
        self.caches.write(dir)
    }
}

impl Caches {
    /// Only a failed sync is an error: it is final for the data directory, whatever the file.
    fn write(&self, dir: &DirShared) -> Result<(), Fault> {
        let disk = dir.env.disk.as_ref();
        for (path, bytes) in &self.files {
            match write_small_file(disk, path, bytes) {
                Err(Fault::NoSpace(e) | Fault::Write(e)) => {
                    tracing::warn!("{} was not written: {e}", path.display());
                    return Ok(());
                }
                result => result?,
            }
        }
        for path in &self.outdated {
            if let Err(e) = disk.remove_file(path) {
                tracing::debug!("{} was not removed: {e}", path.display());
            }
        }
        Ok(())
    }
}

impl Checkpoint {
    fn run(&mut self, dir: &DirShared) -> Result<(), Fault> {
        self.caches.write(dir)?;
        if let Some(manifest) = self.manifest.as_mut() {
            write_manifest(dir, &self.paths, manifest, OnFull::SpendReserve)?;
        }
        let (place, slot) = &self.slot;
        write_slot(self.file.as_ref(), *place, slot)?;
        self.file.sync().map_err(Fault::Sync)
    }
}

impl Cleanup {
    /// By way of `trash/`, so that a crash leaves nothing that looks like a segment.
    fn run(&mut self, dir: &DirShared) -> Result<(), Fault> {
        let disk = dir.env.disk.as_ref();
        for base in std::mem::take(&mut self.bases) {
            let paths = [self.paths.log(base), self.paths.index(base), self.paths.snapshot(base)];
            let results = paths.iter().map(|path| remove_by_trash(dir, &self.paths, path));
            if let Some(e) = results.filter_map(Result::err).next() {
                tracing::warn!("segment {base} of {} is not removed yet: {e}", self.paths.id());
                self.bases.push(base);
            } else {
                self.gone.push(base);
            }
        }
        let sync = disk.sync_dir(Path::new(TRASH_DIR));
        let synced = sync.and_then(|()| disk.sync_dir(self.paths.dir())).map_err(Fault::Sync);
        if synced.is_err() {
            self.bases.append(&mut self.gone);
        }
        synced
    }
}

fn write_slot(file: &dyn File, place: SlotPlace, slot: &Slot) -> Result<(), Fault> {
    Ok(write_all_at(file, &slot.encode(), place.position())?)
}

fn write_manifest(
    dir: &DirShared,
    paths: &PartitionPaths,
    manifest: &mut Manifest,
    on_full: OnFull,
) -> Result<(), Fault> {
    manifest.generation += 1;
    let bytes = manifest.encode();
    dir.on_full(on_full, || write_small_file(dir.env.disk.as_ref(), &paths.manifest(), &bytes))
}

fn remove_by_trash(dir: &DirShared, paths: &PartitionPaths, path: &Path) -> io::Result<()> {
    let disk = dir.env.disk.as_ref();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let trash = paths.trash(name);
    match disk.rename(path, &trash) {
        Ok(()) => disk.remove_file(&trash),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Removes a partition's directory. The caller has a durable record that it is to go, so that the
/// next start goes on where a crash stopped it.
pub(crate) fn remove_partition(dir: &DirShared, paths: &PartitionPaths) -> Result<(), Fault> {
    let disk = dir.env.disk.as_ref();
    let entries = match disk.read_dir(paths.dir()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for entry in entries {
        remove_by_trash(dir, paths, &paths.dir().join(&entry.name))?;
    }
    disk.remove_dir(paths.dir())?;
    match leave_topic(disk, &topic_dir(paths.id().topic)) {
        // Its other partitions are removed beside this one, and one of them was the last.
        Err(fault) if fault.is_not_found() => Ok(()),
        left => left,
    }
}

/// Makes the removal of a partition's directory durable, and removes that of its topic when no other
/// partition is left in it.
fn leave_topic(disk: &dyn Disk, topic: &Path) -> Result<(), Fault> {
    disk.sync_dir(topic).map_err(Fault::Sync)?;
    if disk.read_dir(topic)?.is_empty() {
        disk.remove_dir(topic)?;
        disk.sync_dir(Path::new(TOPICS_DIR)).map_err(Fault::Sync)?;
    }
    Ok(())
}
