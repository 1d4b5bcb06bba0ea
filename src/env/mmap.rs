//! Read-only maps of files: the only unsafe code of the crate.
//!
//! A file is mapped once at the largest length it may reach, although it is still shorter. Touching
//! a page beyond its end would be SIGBUS, so nobody may slice above the published end of the file;
//! below it nothing is ever written again, which is what makes the bytes handed out immutable.
//! Deliberately absent: writable maps, advice that changes read-ahead, signal handlers.
//!
//! # Invariants
//! - `start <= end <= map.len()` for every slice handed out.
//! - a slice keeps its map alive; the address of a map never changes.

use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

use super::Region;

/// Pages asked per `mincore`: 1 MiB of 4 KiB pages, answered on the stack.
const PAGES_PER_PROBE: usize = 256;
/// Bytes populated per `madvise`, so that one call never holds the map for long.
const POPULATE_STEP_BYTES: usize = 4 << 20;

// SAFETY: this is the signature of mincore(2) in every libc that std links on Linux.
#[allow(unsafe_code)]
unsafe extern "C" {
    fn mincore(addr: *mut c_void, len: usize, residency: *mut u8) -> c_int;
}

/// A shared read-only map of the first bytes of one file.
#[derive(Debug)]
pub(super) struct Map {
    raw: MmapRaw,
    len: usize,
    file: Arc<std::fs::File>,
}

impl Map {
    /// Maps `[0, len)` of `file`, of which only what the file already holds may be touched.
    pub(super) fn new(file: Arc<std::fs::File>, len: usize) -> io::Result<Map> {
        let raw = MmapOptions::new().len(len).map_raw_read_only(&*file)?;
        Ok(Map { raw, len, file })
    }

    fn checked(&self, range: &Range<u64>) -> Option<Range<usize>> {
        let start = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        (start <= end && end <= self.len).then_some(start..end)
    }

    /// Reads the range through the file: the way to fill the page cache on kernels before 5.14,
    /// which lack `MADV_POPULATE_READ`.
    fn read_through(&self, range: Range<usize>) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let mut buffer = vec![0; 256 << 10];
        let mut position = range.start;
        while position < range.end {
            let wanted = buffer.len().min(range.end - position);
            match self.file.read_at(&mut buffer[..wanted], position as u64) {
                Ok(0) => return Err(rustix::io::Errno::FAULT.into()),
                Ok(read) => position += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Part of a map; the owner behind the `Bytes` handed out.
struct Slice {
    map: Arc<Map>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        assert!(self.range.start <= self.range.end && self.range.end <= self.map.len);
        // SAFETY: the range lies within the map (asserted), which stays mapped at this address as
        // long as `self.map` lives, and the returned borrow cannot outlive `self`. By the promise
        // of `Region` the bytes lie below the published end of the file, where this process never
        // writes again; the data directory is locked and private (0700), so no other process does.
        // Should a foreign process cut the file all the same, the access ends in EFAULT (socket
        // write) or SIGBUS, not in a wrong value.
        unsafe {
            std::slice::from_raw_parts(
                self.map.raw.as_ptr().add(self.range.start),
                self.range.end - self.range.start,
            )
        }
    }
}

impl Region for Map {
    fn slice(self: Arc<Self>, range: Range<u64>) -> Option<Bytes> {
        let range = self.checked(&range)?;
        if range.is_empty() {
            return Some(Bytes::new());
        }
        Some(Bytes::from_owner(Slice { map: self, range }))
    }

    #[allow(unsafe_code)]
    fn is_resident(&self, range: Range<u64>) -> bool {
        let Some(range) = self.checked(&range) else { return false };
        let page_bytes = rustix::param::page_size();
        let mut start = range.start - range.start % page_bytes;
        let mut residency = [0_u8; PAGES_PER_PROBE];
        while start < range.end {
            let bytes = (range.end - start).min(PAGES_PER_PROBE * page_bytes);
            let pages = bytes.div_ceil(page_bytes);
            // SAFETY: `start` is page-aligned (maps start at a page) and below `map.len`, the bytes
            // asked for end within the map's last page, and `residency` has room for one byte per
            // page, at most PAGES_PER_PROBE. mincore only reads page tables.
            let answer = unsafe {
                mincore(self.raw.as_mut_ptr().add(start).cast(), bytes, residency.as_mut_ptr())
            };
            if answer != 0 || residency.iter().take(pages).any(|page| page & 1 == 0) {
                return false;
            }
            start += bytes;
        }
        true
    }

    fn populate(&self, range: Range<u64>) -> io::Result<()> {
        let range = self.checked(&range).ok_or(io::ErrorKind::InvalidInput)?;
        let mut start = range.start;
        while start < range.end {
            let bytes = (range.end - start).min(POPULATE_STEP_BYTES);
            match self.raw.advise_range(Advice::PopulateRead, start, bytes) {
                Ok(()) => start += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    return self.read_through(start..range.end);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn file_of(bytes: &[u8]) -> Arc<std::fs::File> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Arc::new(file)
    }

    #[test]
    fn a_map_longer_than_its_file_shows_bytes_written_later() {
        let file = file_of(b"early");
        let map = Arc::new(Map::new(Arc::clone(&file), 1 << 20).unwrap());
        file.write_all_at(b"later", 9_000).unwrap();
        assert_eq!(map.clone().slice(0..5).unwrap(), &b"early"[..]);
        assert_eq!(map.slice(9_000..9_005).unwrap(), &b"later"[..]);
    }

    #[test]
    fn populate_beyond_the_file_is_an_error_and_not_a_signal() {
        let map = Map::new(file_of(b"short"), 1 << 20).unwrap();
        map.populate(0..5).unwrap();
        assert!(map.is_resident(0..5));
        map.populate(65_536..131_072).unwrap_err();
        map.populate(0..(1 << 20) + 1).unwrap_err();
    }

    #[test]
    fn a_slice_outlives_its_map_and_its_file() {
        let map = Arc::new(Map::new(file_of(b"kept alive"), 4096).unwrap());
        let bytes = Arc::clone(&map).slice(5..10).unwrap();
        drop(map);
        assert_eq!(bytes, &b"alive"[..]);
    }

    #[test]
    fn reading_through_fills_or_fails_like_populate() {
        let map = Map::new(file_of(&[7; 300_000]), 1 << 20).unwrap();
        map.read_through(0..300_000).unwrap();
        map.read_through(0..300_001).unwrap_err();
    }

    #[test]
    fn ranges_outside_the_map_are_none() {
        let map = Arc::new(Map::new(file_of(b"x"), 10).unwrap());
        assert!(map.clone().slice(Range { start: 3, end: 2 }).is_none());
        assert!(map.clone().slice(0..11).is_none());
        assert!(map.slice(4..4).unwrap().is_empty());
    }
}
