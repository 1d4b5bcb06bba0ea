//! The running state at the end of a segment's data: what slots, footer, recovery and the writer
//! all agree on.
//!
//! # Invariants
//! `DATA_START <= position`, `base offset <= next_offset`, `batches == 0` exactly when
//! `position == DATA_START`; `data_crc` is the checksum, by `sum`, of bytes `[DATA_START, position)` and
//! `chain_crc` the CRC-32 of the batch headers (61 bytes each) among them, in order.

use crate::record::{BATCH_HEADER_BYTES, BatchHeader, CRC_FROM, crc32c, crc32c_joined};
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
    /// Checksum of the data.
    pub data_crc: u32,
    /// Which.
    pub sum: DataSum,
    /// CRC-32 of the batch headers.
    pub chain_crc: u32,
}

/// How the data of a segment is summed up: one way for all of it, from its creation on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataSum {
    /// CRC-32, another walk over all bytes: what the first builds wrote.
    Crc32,
    /// CRC-32C, joined from those of the batches: nothing is read for it.
    #[default]
    Crc32c,
}

impl SegmentTail {
    /// The tail of a new segment without data.
    pub fn empty(base_offset: Offset) -> SegmentTail {
        SegmentTail::summed(base_offset, DataSum::default())
    }

    /// The tail of a segment without data that is summed up so.
    pub fn summed(base_offset: Offset, sum: DataSum) -> SegmentTail {
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
            sum,
            chain_crc: 0,
        }
    }

    /// Goes on behind a batch whose CRC-32C holds: its header, the same as stored bytes, and the bytes
    /// after them.
    pub fn push(&mut self, header: &BatchHeader, head: &[u8; BATCH_HEADER_BYTES], payload: &[u8]) {
        self.data_crc = match self.sum {
            DataSum::Crc32 => continue_crc(continue_crc(self.data_crc, head), payload),
            DataSum::Crc32c => {
                let (before, covered) = head.split_at(CRC_FROM);
                let crc = crc32c_joined(self.data_crc, crc32c(before), before.len());
                crc32c_joined(crc, header.crc, covered.len() + payload.len())
            }
        };
        let time = header.max_timestamp.max(header.base_timestamp);
        if self.is_empty() {
            self.first_epoch = header.leader_epoch;
            self.min_timestamp = header.base_timestamp;
        }
        self.position += (head.len() + payload.len()) as u64;
        self.next_offset = header.next_offset();
        self.batches += 1;
        self.records += u64::try_from(header.record_count).unwrap_or(0);
        self.min_timestamp = self.min_timestamp.min(header.base_timestamp);
        self.max_timestamp = self.max_timestamp.max(time);
        self.last_epoch = header.leader_epoch;
        self.chain_crc = continue_crc(self.chain_crc, head);
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
    use crate::record::{BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, RecordRef};

    #[test]
    fn a_checksum_continues_where_it_stopped() {
        let whole = crc32fast::hash(b"stop log");
        assert_eq!(continue_crc(continue_crc(0, b"stop"), b" log"), whole);
    }

    #[test]
    fn the_data_crc_is_that_of_all_bytes_in_either_way() {
        for (sum, checksum) in
            [(DataSum::Crc32, crc32fast::hash as fn(&[u8]) -> u32), (DataSum::Crc32c, crc32c)]
        {
            let mut tail = SegmentTail::summed(Offset(0), sum);
            let mut data = Vec::new();
            for value in [&b"one"[..], &[7; 5000]] {
                let mut builder = BatchBuilder::new(BuilderOptions::default());
                let record = RecordRef { value: Some(value), ..RecordRef::default() };
                builder.push(&record).expect("room");
                let batch = CheckedBatch::check(builder.build(), &BatchLimits::client(10_000));
                let batch = batch.expect("a batch");
                let stamp = (tail.next_offset, LeaderEpoch(3), Some(Timestamp(5)));
                let header = batch.stamped(stamp.0, stamp.1, stamp.2);
                let head = batch.stamp(stamp.0, stamp.1, stamp.2);
                tail.push(&header, &head, batch.payload());
                data.extend_from_slice(&head);
                data.extend_from_slice(batch.payload());
            }
            assert_eq!((tail.data_crc, tail.data_bytes()), (checksum(&data), data.len() as u64));
        }
    }

    #[test]
    fn an_empty_tail_starts_at_the_data_region() {
        let tail = SegmentTail::empty(Offset(9));
        assert!(tail.is_empty());
        assert_eq!((tail.position, tail.data_bytes(), tail.next_offset), (16_384, 0, Offset(9)));
    }
}
