//! `.idx`: where in a segment an offset or a time is found. A cache: rebuilt from the log whenever
//! it is missing or bad, never a reason to drop data.
//!
//! The file is a row of blocks of 4,096 bytes, each with its own checksum; all but the last are full.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `SIX1` |
//! | 4 | 4 | tag: CRC-32 of the segment's identity |
//! | 8 | 2 | number of the block, from 0 |
//! | 10 | 2 | number of entries, 1 to 170 |
//! | 12 | 4 | CRC-32 of the block without these four bytes |
//! | 16 | 24 each | entries; the rest is zero |
//!
//! An entry is the state of the log *before* the batch that starts at its position:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | offset of that batch less the segment's base offset |
//! | 4 | 4 | position in the file |
//! | 8 | 8 | largest timestamp of all batches before it, ms; -1 = none |
//! | 16 | 4 | chain CRC before it |
//! | 20 | 4 | data CRC before it |
//!
//! # Invariants
//! Positions, offsets and timestamps ascend (the first two strictly). To find offset `o`: start at
//! the last entry at or below it. To find time `t`: start at the last entry whose timestamp is below
//! `t`. No entry fits: start at `DATA_START`.

use std::io;
use std::sync::Arc;

use crate::env::{Disk, File};
use crate::types::{Offset, Timestamp};

use super::footer::Footer;
use super::layout::{DATA_START, PartitionPaths};
use super::small_file::read_small_file;
use super::tail::SegmentTail;

/// Data between two entries: the smallest read that is worth avoiding.
pub const INDEX_INTERVAL_BYTES: u64 = 4096;
/// Bytes of a block.
pub const INDEX_BLOCK_BYTES: usize = 4096;
/// Entries in a full block.
pub const INDEX_BLOCK_ENTRIES: usize = 170;
/// A segment is rolled before its index grows past this: a 1 GiB segment fits.
pub const INDEX_ENTRIES_MAX: usize = 1 << 19;

const MAGIC: &[u8; 4] = b"SIX1";
const ENTRY_BYTES: usize = 24;
const HEAD_BYTES: usize = 16;

/// The state of a segment before the batch that starts at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset of that batch less the segment's base offset.
    pub rel_offset: u32,
    /// Position in the file.
    pub position: u32,
    /// Largest timestamp before it.
    pub max_timestamp: Timestamp,
    /// CRC-32 of the batch headers before it.
    pub chain_crc: u32,
    /// CRC-32 of the data before it.
    pub data_crc: u32,
}

/// The index of one segment, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    base_offset: Offset,
    entries: Vec<IndexEntry>,
}

impl Index {
    /// The index of an empty segment.
    pub fn new(base_offset: Offset) -> Index {
        Index { base_offset, entries: Vec::new() }
    }

    /// The entries, ascending.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Whether the batch that will start at `tail` is to get an entry.
    pub fn is_due(&self, tail: &SegmentTail) -> bool {
        let last = self.entries.last().map_or(DATA_START, |e| u64::from(e.position));
        tail.position >= last + INDEX_INTERVAL_BYTES
    }

    /// Whether no more entries fit, or offsets no longer do: the segment must be rolled.
    pub fn is_full(&self, tail: &SegmentTail) -> bool {
        self.entries.len() >= INDEX_ENTRIES_MAX
            || u32::try_from(tail.next_offset - self.base_offset).is_err()
            || u32::try_from(tail.position).is_err()
    }

    /// Adds the batch that starts at `tail`, at offset `batch_offset` (which differs from
    /// `tail.next_offset` behind a declared gap). The caller asks [`is_due`](Index::is_due) first.
    pub fn push(&mut self, tail: &SegmentTail, batch_offset: Offset) {
        let rel_offset = u32::try_from(batch_offset - self.base_offset);
        let position = u32::try_from(tail.position);
        let (Ok(rel_offset), Ok(position)) = (rel_offset, position) else { return };
        self.entries.push(IndexEntry {
            rel_offset,
            position,
            max_timestamp: tail.max_timestamp,
            chain_crc: tail.chain_crc,
            data_crc: tail.data_crc,
        });
    }

    /// Adds the entries of `other`, which lie behind its own.
    pub(crate) fn append(&mut self, other: &Index) {
        self.entries.extend_from_slice(&other.entries);
    }

    /// Offset of the batch an entry stands for.
    pub fn offset_of(&self, entry: &IndexEntry) -> Offset {
        self.base_offset + i64::from(entry.rel_offset)
    }

    /// Drops entries at or behind `position`; whether there were any.
    pub fn cut(&mut self, position: u64) -> bool {
        let keep = self.entries.partition_point(|e| u64::from(e.position) < position);
        let cut = keep < self.entries.len();
        self.entries.truncate(keep);
        cut
    }

    /// The whole file of the segment with this `tag`.
    pub fn encode(&self, tag: u32) -> Vec<u8> {
        self.encode_from(tag, 0).1
    }

    /// The blocks that hold the entries from number `first` on, and where in the file they go. The
    /// writer flushes the file piece by piece with it.
    pub fn encode_from(&self, tag: u32, first: usize) -> (u64, Vec<u8>) {
        let first_block = first / INDEX_BLOCK_ENTRIES;
        let mut bytes = Vec::new();
        let blocks = self.entries.chunks(INDEX_BLOCK_ENTRIES).enumerate().skip(first_block);
        for (number, entries) in blocks {
            encode_block(&mut bytes, tag, number as u16, entries);
        }
        ((first_block * INDEX_BLOCK_BYTES) as u64, bytes)
    }

    /// What can be believed of a file: the entries of all blocks before the first bad one, and
    /// whether there was a bad one. Positions lie in `(DATA_START, end)`.
    pub fn decode(bytes: &[u8], tag: u32, base_offset: Offset, end: u64) -> (Index, bool) {
        let mut index = Index::new(base_offset);
        let mut last_was_full = true;
        for (number, block) in bytes.chunks(INDEX_BLOCK_BYTES).enumerate() {
            let entries = if last_was_full { decode_block(block, tag, number) } else { None };
            let Some(entries) = entries else { return (index, true) };
            last_was_full = entries.len() == INDEX_BLOCK_ENTRIES;
            for entry in entries {
                if !index.may_follow(&entry) || u64::from(entry.position) >= end {
                    return (index, true);
                }
                index.entries.push(entry);
            }
        }
        (index, false)
    }

    fn may_follow(&self, entry: &IndexEntry) -> bool {
        let position = u64::from(entry.position);
        match self.entries.last() {
            None => position > DATA_START,
            Some(last) => {
                last.position < entry.position
                    && last.rel_offset < entry.rel_offset
                    && last.max_timestamp <= entry.max_timestamp
            }
        }
    }
}

/// The index of a sealed segment from its file, when all of it can be believed.
pub fn load(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    base_offset: Offset,
    footer: &Footer,
) -> Option<Index> {
    let bytes = read_small_file(disk, &paths.index(base_offset), INDEX_BYTES_MAX).ok()??;
    let (index, is_bad) = Index::decode(&bytes, footer.tag, base_offset, footer.tail.position);
    // A file that was not flushed to the end would make look-ups slow, never wrong.
    let covered = index.entries.last().map_or(DATA_START, |e| u64::from(e.position));
    let complete = footer.tail.position - covered <= COVERED_BYTES;
    (!is_bad && complete).then_some(index)
}

/// The index of a sealed segment from its batch headers.
///
/// # Errors
/// `InvalidData` when the headers do not lead to the footer's end; else what the device said.
pub fn rebuild(file: Arc<dyn File>, base_offset: Offset, footer: &Footer) -> io::Result<Index> {
    super::recovery::rebuild_index(file, base_offset, footer)
}

/// Largest file.
pub const INDEX_BYTES_MAX: u64 =
    (INDEX_ENTRIES_MAX.div_ceil(INDEX_BLOCK_ENTRIES) * INDEX_BLOCK_BYTES) as u64;
/// An index whose last entry is further from the end than the largest batch and this was not
/// flushed to the end.
const COVERED_BYTES: u64 = super::layout::BATCH_BYTES_MAX + INDEX_INTERVAL_BYTES;

fn encode_block(bytes: &mut Vec<u8>, tag: u32, number: u16, entries: &[IndexEntry]) {
    let mut head = Vec::with_capacity(12);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&tag.to_le_bytes());
    head.extend_from_slice(&number.to_le_bytes());
    head.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    let mut body = Vec::with_capacity(INDEX_BLOCK_BYTES - HEAD_BYTES);
    for entry in entries {
        body.extend_from_slice(&entry.rel_offset.to_le_bytes());
        body.extend_from_slice(&entry.position.to_le_bytes());
        body.extend_from_slice(&entry.max_timestamp.0.to_le_bytes());
        body.extend_from_slice(&entry.chain_crc.to_le_bytes());
        body.extend_from_slice(&entry.data_crc.to_le_bytes());
    }
    body.resize(INDEX_BLOCK_BYTES - HEAD_BYTES, 0);
    let crc = block_crc(&head, &body);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&body);
}

fn decode_block(block: &[u8], tag: u32, number: usize) -> Option<Vec<IndexEntry>> {
    let (head, rest) = block.split_first_chunk::<12>()?;
    let (stored, body) = rest.split_first_chunk::<4>()?;
    let (magic, rest) = head.split_first_chunk::<4>()?;
    let (found_tag, rest) = rest.split_first_chunk::<4>()?;
    let (found_number, count) = rest.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_le_bytes(*count.first_chunk::<2>()?));
    let sound = body.len() == INDEX_BLOCK_BYTES - HEAD_BYTES
        && magic == MAGIC
        && u32::from_le_bytes(*found_tag) == tag
        && usize::from(u16::from_le_bytes(*found_number)) == number
        && (1..=INDEX_BLOCK_ENTRIES).contains(&count)
        && u32::from_le_bytes(*stored) == block_crc(head, body);
    let (entries, padding) = body.split_at_checked(count * ENTRY_BYTES)?;
    if !sound || padding.iter().any(|b| *b != 0) {
        return None;
    }
    entries.chunks_exact(ENTRY_BYTES).map(decode_entry).collect()
}

fn decode_entry(bytes: &[u8]) -> Option<IndexEntry> {
    let (rel_offset, rest) = bytes.split_first_chunk::<4>()?;
    let (position, rest) = rest.split_first_chunk::<4>()?;
    let (max_timestamp, rest) = rest.split_first_chunk::<8>()?;
    let (chain_crc, data_crc) = rest.split_first_chunk::<4>()?;
    Some(IndexEntry {
        rel_offset: u32::from_le_bytes(*rel_offset),
        position: u32::from_le_bytes(*position),
        max_timestamp: Timestamp(i64::from_le_bytes(*max_timestamp)),
        chain_crc: u32::from_le_bytes(*chain_crc),
        data_crc: u32::from_le_bytes(*data_crc.first_chunk::<4>()?),
    })
}

fn block_crc(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

/// For `cargo fuzz`: no bytes may panic, and what is believed encodes to the bytes it came from.
pub fn fuzz_index(bytes: &[u8]) {
    let tag =
        bytes.get(4..8).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_le_bytes(*b));
    let (index, is_bad) = Index::decode(bytes, tag, Offset(0), u64::MAX);
    if !is_bad {
        assert_eq!(index.encode(tag), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(entries: u32) -> Index {
        let mut index = Index::new(Offset(1000));
        for i in 1..=entries {
            let mut tail = SegmentTail::empty(Offset(1000));
            tail.position += u64::from(i) * 5000;
            tail.max_timestamp = Timestamp(i64::from(i / 2));
            tail.chain_crc = i;
            index.push(&tail, Offset(1000 + i64::from(i) * 7));
        }
        index
    }

    #[test]
    fn what_is_written_is_read() {
        for entries in [0, 1, 169, 170, 171, 700] {
            let index = example(entries);
            let bytes = index.encode(9);
            assert_eq!(bytes.len() % INDEX_BLOCK_BYTES, 0);
            assert_eq!(Index::decode(&bytes, 9, Offset(1000), u64::MAX), (index, false));
        }
    }

    #[test]
    fn flushing_piece_by_piece_gives_the_same_file() {
        let (part, whole) = (example(200), example(700));
        let mut file = part.encode(9);
        let (position, bytes) = whole.encode_from(9, 200);
        assert_eq!(position, INDEX_BLOCK_BYTES as u64);
        file.truncate(position as usize);
        file.extend_from_slice(&bytes);
        assert_eq!(file, whole.encode(9));
    }

    #[test]
    fn entries_before_the_first_bad_block_are_kept_and_none_behind_it() {
        let index = example(400);
        let mut bytes = index.encode(9);
        for position in (INDEX_BLOCK_BYTES..2 * INDEX_BLOCK_BYTES).step_by(13) {
            bytes[position] ^= 0x10;
            let (read, is_bad) = Index::decode(&bytes, 9, Offset(1000), u64::MAX);
            assert!(is_bad, "byte {position}");
            assert_eq!(read.entries(), &index.entries()[..INDEX_BLOCK_ENTRIES]);
            bytes[position] ^= 0x10;
        }
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        let bytes = example(3).encode(9);
        for len in 1..bytes.len() {
            assert!(Index::decode(&bytes[..len], 9, Offset(1000), u64::MAX).1, "{len}");
        }
        for position in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[position] ^= 1;
            assert!(Index::decode(&bad, 9, Offset(1000), u64::MAX).1, "byte {position}");
        }
    }

    #[test]
    fn a_file_of_another_segment_is_not_believed() {
        let bytes = example(3).encode(9);
        assert!(Index::decode(&bytes, 8, Offset(1000), u64::MAX).0.entries().is_empty());
    }

    #[test]
    fn an_entry_behind_the_end_of_the_data_is_not_believed() {
        let bytes = example(3).encode(9);
        let (index, is_bad) = Index::decode(&bytes, 9, Offset(1000), DATA_START + 10_001);
        assert_eq!((index.entries().len(), is_bad), (2, true));
    }

    #[test]
    fn a_short_block_ends_the_file() {
        let mut bytes = example(3).encode(9);
        bytes.extend_from_slice(&example(400).encode(9)[INDEX_BLOCK_BYTES..]);
        let (index, is_bad) = Index::decode(&bytes, 9, Offset(1000), u64::MAX);
        assert_eq!((index.entries().len(), is_bad), (3, true));
    }

    #[test]
    fn an_entry_is_due_every_four_kibibytes() {
        let mut index = Index::new(Offset(0));
        let mut tail = SegmentTail::empty(Offset(0));
        assert!(!index.is_due(&tail));
        tail.position += INDEX_INTERVAL_BYTES;
        assert!(index.is_due(&tail));
        index.push(&tail, Offset(3));
        assert!(!index.is_due(&tail));
        assert_eq!(index.offset_of(&index.entries()[0]), Offset(3));
        assert!(index.cut(DATA_START + 1));
        assert!(index.entries().is_empty());
    }
}
