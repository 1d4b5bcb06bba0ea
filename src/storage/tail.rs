//! The running state at the end of a segment's data: what slots, footer, recovery and the writer
//! all agree on.
//!
//! # Invariants
//! `DATA_START <= position`, `base offset <= next_offset`, `batches == 0` exactly when
//! `position == DATA_START`; `data_crc` is the CRC-32 of bytes `[DATA_START, position)` and
//! `chain_crc` the CRC-32 of the batch headers (61 bytes each) among them, in order.

use crate::record::{BATCH_HEADER_BYTES, BatchHeader, crc32_joined};
use crate::types::{LeaderEpoch, Offset, Timestamp};

use super::layout::DATA_START;

/// State of a segment's data up to, and not including, `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTail {
    /// Position in the file of the first byte behind the data.
    pub position: u64,
    /// Offset behind the last record; the segment's base offset while it is empty.
    pub next_offset: Offset,
    /// Record batches.
    pub batches: u64,
    /// Records, as the batch headers count them.
    pub records: u64,
    /// Smallest base timestamp of a batch; [`Timestamp::NONE`] while empty.
    pub min_timestamp: Timestamp,
    /// Largest max timestamp of a batch; [`Timestamp::NONE`] while empty.
    pub max_timestamp: Timestamp,
    /// Leader epoch of the first batch; -1 while empty.
    pub first_epoch: LeaderEpoch,
    /// Leader epoch of the last batch; -1 while empty.
    pub last_epoch: LeaderEpoch,
    /// CRC-32 of the data.
    pub data_crc: u32,
    /// CRC-32 of the batch headers.
    pub chain_crc: u32,
}

/// Length and CRC-32 of a batch's bytes behind its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadSum {
    pub(crate) bytes: usize,
    pub(crate) crc: u32,
}

impl SegmentTail {
    /// The tail of a segment without data.
    pub fn empty(base_offset: Offset) -> SegmentTail {
        SegmentTail {
            position: DATA_START,
            next_offset: base_offset,
            batches: 0,
            records: 0,
            min_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            first_epoch: LeaderEpoch(-1),
            last_epoch: LeaderEpoch(-1),
            data_crc: 0,
            chain_crc: 0,
        }
    }

    /// Goes on behind a batch: its header, the same as stored bytes, and the bytes after them.
    pub fn push(&mut self, header: &BatchHeader, head: &[u8; BATCH_HEADER_BYTES], payload: &[u8]) {
        let data_crc = continue_crc(continue_crc(self.data_crc, head), payload);
        self.advance(header, head, payload.len(), data_crc);
    }

    /// [`SegmentTail::push`] for a payload whose CRC-32 is known.
    pub(crate) fn push_summed(
        &mut self,
        header: &BatchHeader,
        head: &[u8; BATCH_HEADER_BYTES],
        payload: PayloadSum,
    ) {
        let data_crc = continue_crc(self.data_crc, head);
        let data_crc = crc32_joined(data_crc, payload.crc, payload.bytes);
        self.advance(header, head, payload.bytes, data_crc);
    }

    fn advance(
        &mut self,
        header: &BatchHeader,
        head: &[u8; BATCH_HEADER_BYTES],
        payload_bytes: usize,
        data_crc: u32,
    ) {
        let time = header.max_timestamp.max(header.base_timestamp);
        if self.is_empty() {
            self.first_epoch = header.leader_epoch;
            self.min_timestamp = header.base_timestamp;
        }
        self.position += (head.len() + payload_bytes) as u64;
        self.next_offset = header.next_offset();
        self.batches += 1;
        self.records += u64::try_from(header.record_count).unwrap_or(0);
        self.min_timestamp = self.min_timestamp.min(header.base_timestamp);
        self.max_timestamp = self.max_timestamp.max(time);
        self.last_epoch = header.leader_epoch;
        self.chain_crc = continue_crc(self.chain_crc, head);
        self.data_crc = data_crc;
    }

    /// Whether `other` describes the same bytes, as far as an index entry knows them.
    pub(crate) fn same_bytes(&self, other: &SegmentTail) -> bool {
        self.position == other.position
            && self.next_offset == other.next_offset
            && self.data_crc == other.data_crc
            && self.chain_crc == other.chain_crc
    }

    /// Whether no batch was written.
    pub fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// Bytes of data.
    pub fn data_bytes(&self) -> u64 {
        self.position - DATA_START
    }
}

/// CRC-32 of the bytes so far continued over `bytes`.
pub fn continue_crc(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_continues_where_it_stopped() {
        let whole = crc32fast::hash(b"stop log");
        assert_eq!(continue_crc(continue_crc(0, b"stop"), b" log"), whole);
    }

    #[test]
    fn an_empty_tail_starts_at_the_data_region() {
        let tail = SegmentTail::empty(Offset(9));
        assert!(tail.is_empty());
        assert_eq!((tail.position, tail.data_bytes(), tail.next_offset), (16_384, 0, Offset(9)));
    }
}
