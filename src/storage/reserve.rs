//! `reserve.bin`: space kept back so that metadata can still be written on a full disk.
//!
//! Given up at the first ENOSPC of an internal log or of metadata, made again by housekeeping when
//! there is room. A missing one never prevents a start.

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

/// The reserve is at most this part of the capacity.
const RESERVE_PART: u64 = 200;
/// The disk counts as full below this part of the capacity.
const FULL_PART: u64 = 25;

/// Bytes a reserve should have on a disk of this capacity.
pub(crate) fn reserve_bytes(space: &Space, options: &StorageOptions) -> u64 {
    (space.capacity / RESERVE_PART).min(options.reserve_bytes_max)
}

/// Free bytes below which the disk counts as full.
pub(crate) fn full_bytes(space: &Space, options: &StorageOptions) -> u64 {
    (space.capacity / FULL_PART).min(options.full_bytes_max)
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

    /// Makes the file when it is missing and there is room for it beyond the full level.
    pub(crate) fn ensure(&self, disk: &dyn Disk, options: &StorageOptions) -> io::Result<()> {
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let space = disk.space()?;
        let wanted = reserve_bytes(&space, options);
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
        if space.free < full_bytes(&space, options) + wanted {
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
