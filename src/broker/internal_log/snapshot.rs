//! Snapshot files of an internal log: `internal/<log>-<next offset, 20 digits>.snap`.
//!
//! Layout, little-endian: magic `SLSNAP01`, next offset i64, payload length u64, CRC-32 of
//! everything else u32, payload = records by `encoding`. A snapshot is nothing but the records that
//! make the state, so there is one way to read both.
//!
//! The newest two are kept, and the log is only cut below the older one: one damaged file never
//! costs the state.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::Disk;
use crate::storage::{Fault, read_small_file, write_small_file};
use crate::types::Offset;

/// Directory of all snapshots, below the data directory.
pub(super) const DIRECTORY: &str = "internal";
const MAGIC: &[u8; 8] = b"SLSNAP01";
const HEADER_BYTES: usize = 28;
/// Snapshots that are kept per log.
const KEPT: usize = 2;
/// Larger than any snapshot, smaller than what a damaged directory entry might claim.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// The snapshots of one log.
pub(super) struct Snapshots {
    log: &'static str,
    /// Next offsets of the files that exist, oldest first.
    known: Vec<Offset>,
}

impl Snapshots {
    /// Finds what exists.
    pub(super) fn open(disk: &dyn Disk, log: &'static str) -> io::Result<Snapshots> {
        disk.create_dir_all(Path::new(DIRECTORY))?;
        disk.sync_dir(Path::new(""))?;
        let entries = disk.read_dir(Path::new(DIRECTORY))?;
        let offset_of = |name: &str| {
            let digits = name.strip_prefix(log)?.strip_prefix('-')?.strip_suffix(".snap")?;
            digits.parse::<i64>().ok().map(Offset)
        };
        let mut known: Vec<Offset> = entries.iter().filter_map(|e| offset_of(&e.name)).collect();
        known.sort_unstable();
        Ok(Snapshots { log, known })
    }

    /// The newest snapshot that is whole: the offset to go on at, and its payload. Damaged ones are
    /// reported and passed over.
    pub(super) fn newest(&self, disk: &dyn Disk) -> io::Result<Option<(Offset, Vec<u8>)>> {
        for next in self.known.iter().rev() {
            let path = self.path(*next);
            match read_small_file(disk, &path, FILE_BYTES_MAX)?.as_deref().map(open_file) {
                Some(Some((found, payload))) if found == *next => {
                    return Ok(Some((*next, payload.to_vec())));
                }
                _ => {
                    tracing::error!("snapshot {} is damaged; trying the one before", path.display())
                }
            }
        }
        Ok(None)
    }

    /// Whether any snapshot file exists, whole or not.
    pub(super) fn exist(&self) -> bool {
        !self.known.is_empty()
    }

    /// Stores a snapshot durably and removes those that are no longer needed.
    pub(super) fn store(
        &mut self,
        disk: &dyn Disk,
        next: Offset,
        payload: &[u8],
    ) -> Result<(), Fault> {
        write_small_file(disk, &self.path(next), &file_bytes(next, payload))?;
        if !self.known.contains(&next) {
            self.known.push(next);
        }
        while self.known.len() > KEPT {
            let oldest = self.known.remove(0);
            disk.remove_file(&self.path(oldest))?;
        }
        disk.sync_dir(Path::new(DIRECTORY)).map_err(Fault::Sync)
    }

    /// Where the log may be cut: every kept snapshot is at or above this offset.
    pub(super) fn cut(&self) -> Option<Offset> {
        if self.known.len() < KEPT { None } else { self.known.first().copied() }
    }

    fn path(&self, next: Offset) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{}-{:020}.snap", self.log, next.0))
    }
}

fn file_bytes(next: Offset, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&next.0.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn open_file(bytes: &[u8]) -> Option<(Offset, &[u8])> {
    let (header, payload) = bytes.split_at_checked(HEADER_BYTES)?;
    let (summed, crc) = header.split_at_checked(HEADER_BYTES - 4)?;
    let numbers = summed.strip_prefix(MAGIC)?;
    let (next, len) = (numbers.first_chunk()?, numbers.last_chunk()?);
    let whole = u64::from_le_bytes(*len) == payload.len() as u64
        && u32::from_le_bytes(*crc.first_chunk()?) == checksum(summed, payload);
    whole.then(|| (Offset(i64::from_le_bytes(*next)), payload))
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_truncation_is_seen() {
        let bytes = file_bytes(Offset(42), b"the state");
        assert_eq!(open_file(&bytes), Some((Offset(42), &b"the state"[..])));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_file(&damaged), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(open_file(&bytes[..len]), None, "cut to {len}");
        }
    }
}
