//! A limit on what a data directory takes of its disk, without a file system or rights of its own:
//! beyond it every write and allocation fails with ENOSPC, as on a disk of that size.
//!
//! What counts is what files have allocated, in blocks of 4 KiB from their start to the furthest byte
//! that was written or allocated; directories cost nothing. The space of a removed file comes back
//! with its last handle. Deliberately absent: maps that outlive their file's handles, and other
//! processes' files in the directory, which are counted once, at the start.
//!
//! # Invariants
//! `used <= capacity`, but for what was there at the start.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{DirEntry, DirLock, Disk, Env, File, OpenMode, Region, Space};

const BLOCK_BYTES: u64 = 4096;

/// A disk of which only a part may be used.
pub struct CappedDisk {
    inner: Arc<dyn Disk>,
    room: Arc<Room>,
    /// Files with open handles, by name.
    open: Mutex<HashMap<PathBuf, Weak<Extent>>>,
}

/// Bytes of all files together.
struct Room {
    capacity: u64,
    used: AtomicU64,
}

/// Bytes of one file, as long as it has handles.
struct Extent {
    room: Arc<Room>,
    bytes: AtomicU64,
    /// One change of the size at a time.
    growing: Mutex<()>,
    removed: AtomicBool,
}

struct CappedFile {
    inner: Arc<dyn File>,
    extent: Arc<Extent>,
}

impl Env {
    /// The same with a data directory of at most `capacity` bytes.
    ///
    /// # Errors
    /// What the disk says when it is asked what is there already.
    pub fn capped(self, capacity: u64) -> io::Result<Env> {
        let disk = Arc::new(CappedDisk::new(self.disk, capacity)?);
        Ok(Env { disk, ..self })
    }
}

impl CappedDisk {
    /// A disk of `capacity` bytes on `inner`, of which what is there is used.
    ///
    /// # Errors
    /// What `inner` says when it is asked what is there.
    pub fn new(inner: Arc<dyn Disk>, capacity: u64) -> io::Result<CappedDisk> {
        let used = match inner.read_dir(Path::new("")) {
            Ok(_) => allocated_below(inner.as_ref(), Path::new(""))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        let room = Arc::new(Room { capacity, used: AtomicU64::new(used) });
        Ok(CappedDisk { inner, room, open: Mutex::default() })
    }

    fn files(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<Extent>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file of this name has, while nobody else changes names.
    fn extent_of(
        &self,
        files: &mut HashMap<PathBuf, Weak<Extent>>,
        path: &Path,
    ) -> io::Result<Option<Arc<Extent>>> {
        if let Some(extent) = files.get(path).and_then(Weak::upgrade) {
            return Ok(Some(extent));
        }
        let file = match self.inner.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let extent = Arc::new(Extent {
            room: Arc::clone(&self.room),
            bytes: AtomicU64::new(blocks(file.allocated()?)),
            growing: Mutex::new(()),
            removed: AtomicBool::new(false),
        });
        files.insert(path.to_path_buf(), Arc::downgrade(&extent));
        Ok(Some(extent))
    }
}

/// Bytes of all files in a directory and below it.
fn allocated_below(disk: &dyn Disk, dir: &Path) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    for entry in disk.read_dir(dir)? {
        let path = dir.join(&entry.name);
        bytes = bytes.saturating_add(match entry.is_dir {
            true => allocated_below(disk, &path)?,
            false => match disk.open(&path, OpenMode::Read) {
                Ok(file) => blocks(file.allocated()?),
                // Not a file that Stoplog made.
                Err(_) => blocks(entry.len),
            },
        });
    }
    Ok(bytes)
}

fn blocks(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)
}

fn no_space() -> io::Error {
    rustix::io::Errno::NOSPC.into()
}

impl Room {
    fn take(&self, bytes: u64) -> io::Result<()> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.capacity);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.map(|_| ()).map_err(|_| no_space())
    }

    fn give_back(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
}

impl Extent {
    /// Runs what makes the file reach `end`, when there is room for that.
    fn grow<T>(&self, end: u64, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if blocks(end) <= self.bytes.load(Ordering::Acquire) {
            return write();
        }
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.bytes.load(Ordering::Acquire);
        let more = blocks(end).saturating_sub(before);
        self.room.take(more)?;
        let result = write();
        match &result {
            Ok(_) => self.bytes.store(before + more, Ordering::Release),
            Err(_) => self.room.give_back(more),
        }
        drop(growing);
        result
    }

    /// The file was cut to `len`.
    fn cut(&self, len: u64) {
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.bytes.load(Ordering::Acquire);
        let after = before.min(blocks(len));
        self.bytes.store(after, Ordering::Release);
        self.room.give_back(before - after);
        drop(growing);
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        if *self.removed.get_mut() {
            self.room.give_back(*self.bytes.get_mut());
        }
    }
}

impl Disk for CappedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut files = self.files();
        let before = match mode {
            OpenMode::Truncate => self.extent_of(&mut files, path)?,
            _ => None,
        };
        let inner = self.inner.open(path, mode)?;
        if let Some(extent) = before {
            extent.cut(0);
        }
        let extent = self.extent_of(&mut files, path)?.ok_or(io::ErrorKind::NotFound)?;
        files.retain(|_, extent| extent.strong_count() > 0);
        Ok(Arc::new(CappedFile { inner, extent }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files();
        let replaced = match self.inner.exists(to)? {
            true => self.extent_of(&mut files, to).ok().flatten(),
            false => None,
        };
        self.inner.rename(from, to)?;
        if let Some(extent) = replaced {
            extent.removed.store(true, Ordering::Release);
            files.remove(to);
        }
        let moved = |path: &Path| path.strip_prefix(from).ok().map(|rest| join(to, rest));
        let renamed: Vec<_> =
            files.keys().filter_map(|path| Some((path.clone(), moved(path)?))).collect();
        for (before, after) in renamed {
            if let Some(extent) = files.remove(&before) {
                files.insert(after, extent);
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut files = self.files();
        let extent = self.extent_of(&mut files, path).ok().flatten();
        self.inner.remove_file(path)?;
        files.remove(path);
        if let Some(extent) = extent {
            extent.removed.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.inner.lock(path)
    }

    fn space(&self) -> io::Result<Space> {
        let all = self.inner.space()?;
        let left = self.room.capacity.saturating_sub(self.room.used.load(Ordering::Acquire));
        Ok(Space { capacity: all.capacity.min(self.room.capacity), free: all.free.min(left) })
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        self.inner.boot_id()
    }
}

/// Joining nothing would append a slash.
fn join(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_path_buf() } else { path.join(rest) }
}

impl File for CappedFile {
    fn pwritev(&self, buffers: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let end = offset.saturating_add(bytes as u64);
        self.extent.grow(end, || self.inner.pwritev(buffers, offset))
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.pread(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        self.extent.grow(end, || self.inner.allocate(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.extent.cut(len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn allocated(&self) -> io::Result<u64> {
        self.inner.allocated()
    }

    fn drop_cache(&self, range: Range<u64>) -> io::Result<()> {
        self.inner.drop_cache(range)
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Region>> {
        self.inner.map(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{RealDisk, write_all_at};

    const KIB: u64 = 1 << 10;

    fn capped(dir: &tempfile::TempDir, capacity: u64) -> CappedDisk {
        let inner = Arc::new(RealDisk::new(dir.path().to_path_buf()));
        CappedDisk::new(inner, capacity).unwrap()
    }

    fn free(disk: &CappedDisk) -> u64 {
        disk.space().unwrap().free
    }

    fn is_full(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::StorageFull
    }

    #[test]
    fn writes_and_allocations_end_where_the_capacity_does() {
        let dir = tempfile::tempdir().unwrap();
        let disk = capped(&dir, 64 * KIB);
        let file = disk.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        file.allocate(0, 40 * KIB).unwrap();
        assert_eq!(free(&disk), 24 * KIB);
        write_all_at(file.as_ref(), &[1; 40 << 10], 0).unwrap();
        assert_eq!(free(&disk), 24 * KIB, "room that was allocated");
        let error = file.allocate(40 * KIB, 25 * KIB).unwrap_err();
        assert!(is_full(&error), "{error}");
        write_all_at(file.as_ref(), &[1; 100], 40 * KIB).unwrap();
        assert_eq!(free(&disk), 20 * KIB, "one block");
        let error = write_all_at(file.as_ref(), &[1; 24 << 10], 41 * KIB).unwrap_err();
        assert!(is_full(&error), "{error}");
        assert_eq!((free(&disk), file.len().unwrap()), (20 * KIB, 40 * KIB + 100));
        assert_eq!(disk.space().unwrap().capacity, 64 * KIB);
    }

    #[test]
    fn space_comes_back_when_a_file_is_cut_emptied_replaced_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = capped(&dir, 64 * KIB);
        let path = Path::new;
        let make = |name: &str| {
            let file = disk.open(path(name), OpenMode::Truncate).unwrap();
            file.allocate(0, 16 * KIB).unwrap();
            file
        };
        drop((make("a"), make("b"), make("c")));
        assert_eq!(free(&disk), 16 * KIB);
        disk.open(path("a"), OpenMode::ReadWrite).unwrap().set_len(4 * KIB).unwrap();
        assert_eq!(free(&disk), 28 * KIB, "cut");
        drop(disk.open(path("b"), OpenMode::Truncate).unwrap());
        assert_eq!(free(&disk), 44 * KIB, "emptied");
        disk.rename(path("a"), path("c")).unwrap();
        assert_eq!(free(&disk), 60 * KIB, "replaced");
        let held = disk.open(path("c"), OpenMode::Read).unwrap();
        disk.remove_file(path("c")).unwrap();
        assert_eq!(free(&disk), 60 * KIB, "somebody has it open");
        drop(held);
        assert_eq!(free(&disk), 64 * KIB);
    }

    #[test]
    fn names_may_change_while_files_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let disk = capped(&dir, 64 * KIB);
        disk.create_dir_all(Path::new("x")).unwrap();
        let file = disk.open(Path::new("x/a"), OpenMode::CreateNew).unwrap();
        file.allocate(0, 8 * KIB).unwrap();
        disk.rename(Path::new("x"), Path::new("y")).unwrap();
        file.allocate(0, 16 * KIB).unwrap();
        disk.remove_file(Path::new("y/a")).unwrap();
        drop(file);
        assert_eq!(free(&disk), 64 * KIB);
    }

    #[test]
    fn what_is_there_at_the_start_counts() {
        let dir = tempfile::tempdir().unwrap();
        let first = capped(&dir, 64 * KIB);
        first.create_dir_all(Path::new("x/y")).unwrap();
        let file = first.open(Path::new("x/y/a"), OpenMode::CreateNew).unwrap();
        file.allocate(0, 20 * KIB).unwrap();
        drop(file);
        let again = capped(&dir, 64 * KIB);
        assert_eq!(free(&again), 44 * KIB);
        let less = capped(&dir, 8 * KIB);
        assert_eq!(free(&less), 0);
        let file = less.open(Path::new("b"), OpenMode::CreateNew).unwrap();
        assert!(is_full(&file.allocate(0, 1).unwrap_err()));
        less.remove_file(Path::new("x/y/a")).unwrap();
        assert_eq!(free(&less), 8 * KIB);
    }
}
