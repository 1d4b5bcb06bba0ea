//! The files around the segments: what a directory holds, completing what the manifest announced,
//! setting aside what nothing explains.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::{Disk, File, OpenMode};
use crate::storage::fault::Fault;
use crate::storage::layout::{DATA_START, FileName, PartitionPaths, QUARANTINE_DIR, TRASH_DIR};
use crate::types::Offset;

/// Names in a partition's directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub logs: Vec<Offset>,
    pub indexes: Vec<Offset>,
    pub snapshots: Vec<Offset>,
    pub tmp: Vec<String>,
    pub unknown: Vec<String>,
    /// A repair was interrupted.
    pub repair: bool,
}

impl Listing {
    /// `None` when there is no directory.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Listing>> {
        let entries = match disk.read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut listing = Listing::default();
        for entry in entries {
            match FileName::parse(&entry.name) {
                _ if entry.is_dir => listing.unknown.push(entry.name),
                FileName::Log(base) => listing.logs.push(base),
                FileName::Index(base) => listing.indexes.push(base),
                FileName::Snapshot(offset) => listing.snapshots.push(offset),
                FileName::Tmp => listing.tmp.push(entry.name),
                FileName::Unknown => listing.unknown.push(entry.name),
                FileName::RepairPlan => listing.repair = true,
                // Only a repair that never got to its plan leaves these alone; it starts again.
                FileName::Part(_) => listing.tmp.push(entry.name),
                FileName::Manifest | FileName::Epochs => {}
            }
        }
        Ok(Some(listing))
    }
}

/// Removes a file by way of `trash/`, so that a crash leaves nothing that looks like it. Durable
/// when it returns: the manifest may forget the file then. A missing one is fine.
pub(crate) fn remove(disk: &dyn Disk, paths: &PartitionPaths, path: &Path) -> Result<bool, Fault> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(false) };
    if !disk.exists(path)? {
        return Ok(false);
    }
    disk.create_dir_all(Path::new(TRASH_DIR))?;
    let trash = paths.trash(name);
    disk.rename(path, &trash)?;
    disk.sync_dir(Path::new(TRASH_DIR)).map_err(Fault::Sync)?;
    disk.sync_dir(paths.dir()).map_err(Fault::Sync)?;
    disk.remove_file(&trash)?;
    Ok(true)
}

/// Moves a file to `quarantine/`, under a name that is not taken; where it is now.
pub(crate) fn quarantine(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    path: &Path,
) -> Result<String, Fault> {
    let to = unused_quarantine_path(disk, paths, path)?;
    disk.rename(path, &to)?;
    disk.sync_dir(Path::new(QUARANTINE_DIR)).map_err(Fault::Sync)?;
    disk.sync_dir(paths.dir()).map_err(Fault::Sync)?;
    Ok(to.display().to_string())
}

/// Where a file can be kept in `quarantine/` without replacing another.
pub(crate) fn unused_quarantine_path(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    path: &Path,
) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("unnamed");
    disk.create_dir_all(Path::new(QUARANTINE_DIR))?;
    let mut to = paths.quarantine(name);
    let mut number = 1;
    while disk.exists(&to)? {
        to = paths.quarantine(&format!("{name}.{number}"));
        number += 1;
    }
    Ok(to)
}

/// Whether a segment file holds no data: what a creation leaves that did not get to its end.
pub(crate) fn is_blank(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    const BLOCK_BYTES: usize = 1 << 16;
    let file = disk.open(path, OpenMode::Read)?;
    let mut position = DATA_START;
    loop {
        let block = super::sealed::read_at(file.as_ref(), position, BLOCK_BYTES)?;
        if block.is_empty() {
            return Ok(true);
        }
        if block.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position += block.len() as u64;
    }
}

/// Copies `[from, to)` of a file to `path`: tmp, sync, rename, sync of the directory.
pub(crate) fn keep_copy(
    disk: &dyn Disk,
    file: &dyn File,
    from: u64,
    to: u64,
    path: &Path,
) -> Result<(), Fault> {
    const BLOCK_BYTES: u64 = 1 << 20;
    let dir = path.parent().unwrap_or(Path::new(""));
    disk.create_dir_all(dir)?;
    let mut name = path.as_os_str().to_owned();
    name.push(crate::storage::layout::TMP_SUFFIX);
    let tmp = Path::new(&name);
    let copy = disk.open(tmp, OpenMode::Truncate)?;
    let mut position = from;
    while position < to {
        let len = usize::try_from((to - position).min(BLOCK_BYTES)).unwrap_or(0);
        let bytes = super::sealed::read_at(file, position, len)?;
        if bytes.is_empty() {
            break;
        }
        crate::env::write_all_at(copy.as_ref(), &bytes, position - from)?;
        position += bytes.len() as u64;
    }
    copy.sync().map_err(Fault::Sync)?;
    drop(copy);
    disk.rename(tmp, path)?;
    disk.sync_dir(dir).map_err(Fault::Sync)
}
