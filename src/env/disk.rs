//! What storage asks of a file system, as promises that the real and the simulated disk both keep.
//!
//! Paths are relative to the data directory; `..` never occurs. Errors are `std::io::Error` with
//! `raw_os_error` set, so that ENOSPC, EIO and the rest are told apart the same way on both.
//!
//! # Promises about a crash
//! - Bytes written survive only after a later `sync` (of that file) returned 0. Until then any
//!   subset of the written 512-byte sectors may survive, in any of their versions.
//! - Create, rename and remove survive only after a later `sync_dir` of the directory returned 0;
//!   `sync` of a file makes its length and allocation durable, not its name. A rename is atomic;
//!   across directories it is durable once both were synced. Until then any subset of the changes
//!   may survive, each together with the earlier changes of the same name or file.
//! - A `sync` that failed says nothing about the bytes, and a later one that succeeds neither.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; writes are errors.
    Read,
    /// It must exist.
    ReadWrite,
    /// It must not exist.
    CreateNew,
    /// Created or emptied.
    Truncate,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last component of its path. Names that are not UTF-8 are shown with replacements.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes, 0 for a directory.
    pub len: u64,
}

/// Room on the file system that holds the data directory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub capacity: u64,
    /// What a process without privileges may still allocate.
    pub free: u64,
}

/// Held while the data directory is in use; released on drop or death of the process.
pub trait DirLock: Send + Sync {}

/// A data directory. Every call may block on the device.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Makes a directory and its parents; an existing one is fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether something has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames a file or directory, replacing a file at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Its maps and handles stay usable; its space comes back with the last one.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock of the data directory at `path`, or fails with `WouldBlock` at once.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
    /// Room left.
    fn space(&self) -> io::Result<Space>;
    /// Changes with every start of the operating system: page cache content of another boot is
    /// gone (`/proc/sys/kernel/random/boot_id`).
    fn boot_id(&self) -> io::Result<[u8; 16]>;
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Writes the buffers one after another from `offset`; may write fewer bytes than asked.
    fn pwritev(&self, buffers: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reads into `buffer` from `offset`; may read fewer bytes, 0 only at or past the end.
    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// `fdatasync`: bytes, length and allocation of this file. Never call it again after an error.
    fn sync(&self) -> io::Result<()>;
    /// Allocates `[offset, offset + len)` and extends the length to it; new bytes read as zero.
    /// On an error the length is as before (the real disk cuts back what a failed call left).
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Cuts or extends (with a hole of zeros) to `len`.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Bytes allocated on the device.
    fn allocated(&self) -> io::Result<u64>;
    /// Drops clean cached pages of the range (of all pages that it touches), so that the next read
    /// comes from the device.
    fn drop_cache(&self, range: Range<u64>) -> io::Result<()>;
    /// Maps `[0, len)` for reading; `len` may lie beyond the end of the file: bytes there must not
    /// be touched before the file grew over them.
    fn map(&self, len: u64) -> io::Result<Arc<dyn Region>>;
}

/// A read-only map of a file. Bytes handed out must lie below the file's published end, where
/// nothing is ever written again: that makes them immutable.
pub trait Region: Send + Sync + 'static {
    /// Bytes of the map, without a copy (the simulated disk copies); they keep the map alive.
    /// `None` when the range is empty of sense or beyond the mapped length.
    fn slice(self: Arc<Self>, range: Range<u64>) -> Option<Bytes>;
    /// Whether every page of the range is in memory (`mincore`); a hint.
    fn is_resident(&self, range: Range<u64>) -> bool;
    /// Brings the range into memory in large steps (`MADV_POPULATE_READ`); an I/O error is an
    /// error here and not a signal.
    fn populate(&self, range: Range<u64>) -> io::Result<()>;
}

/// Writes all of `bytes` at `offset`, going on after short writes and EINTR.
pub fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.pwritev(&[io::IoSlice::new(bytes)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends; the number of bytes read.
pub fn read_full_at(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.pread(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
