//! `reserve.bin`: space kept back so that metadata can still be written on a full disk.
//!
//! Given up at the first ENOSPC of an internal log, of metadata, or of what frees space; made again
//! when the broker finds enough room. A missing one never prevents a start.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::layout::RESERVE_FILE;
use super::options::StorageOptions;
use crate::env::{Disk, OpenMode, Space};

/// What the reserve file holds.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    bytes: Mutex<u64>,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Below it a disk is small: what is kept back is a share alone.
const SMALL_BYTES: u64 = 20 * GIB;

/// Bytes a reserve should have on a disk of this capacity: 1 %, at most 64 MiB, of a small one;
/// 0.5 %, from 64 MiB to 1 GiB, of a large one.
fn reserve_bytes(capacity: u64, bytes_max: u64) -> u64 {
    let wanted = match capacity < SMALL_BYTES {
        true => (capacity / 100).min(64 * MIB),
        false => (capacity / 200).clamp(64 * MIB, GIB),
    };
    wanted.min(bytes_max)
}

/// Free bytes that stay beside a reserve that is made: making it must not fill the disk.
fn room_beside(space: &Space) -> u64 {
    (space.capacity / 25).min(SMALL_BYTES)
}

/// Whether an error says that there is no space left.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Reserve {
    /// Bytes held back now.
    pub(crate) fn bytes(&self) -> u64 {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the file when it is missing and there is room for it.
    pub(crate) fn ensure(&self, disk: &dyn Disk, options: &StorageOptions) -> io::Result<()> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let space = disk.space()?;
        let wanted = reserve_bytes(space.capacity, options.reserve_bytes_max);
        if *held >= wanted || wanted == 0 {
            return Ok(());
        }
        let path = Path::new(RESERVE_FILE);
        let found = match disk.open(path, OpenMode::ReadWrite) {
            Ok(file) => file.allocated()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        if found >= wanted {
            *held = found;
            return Ok(());
        }
        if space.free < room_beside(&space) + wanted {
            return Ok(());
        }
        disk.open(path, OpenMode::Truncate)?.allocate(0, wanted)?;
        *held = wanted;
        Ok(())
    }

    /// Gives the space back; `false` when there was none.
    pub(crate) fn release(&self, disk: &dyn Disk) -> bool {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == 0 {
            return false;
        }
        *held = 0;
        match disk.remove_file(Path::new(RESERVE_FILE)) {
            Ok(()) => true,
            Err(e) => {
                tracing::warn!("the reserve file could not be removed: {e}");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_keeps_a_share_back_and_a_large_one_within_bounds() {
        let all = |capacity| reserve_bytes(capacity, u64::MAX);
        assert_eq!([all(1_000_000), all(10 * GIB)], [10_000, 64 * MIB]);
        assert_eq!([all(20 * GIB), all(400 * GIB)], [20 * GIB / 200, GIB]);
        assert_eq!(reserve_bytes(10 * GIB, 4096), 4096);
    }
}
