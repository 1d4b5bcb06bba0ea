//! The 61 bytes before the records of a batch, big-endian:
//!
//! | at | bytes | field | in the CRC |
//! |---|---|---|---|
//! | 0 | 8 | base offset | no |
//! | 8 | 4 | batch length: bytes after this field | no |
//! | 12 | 4 | leader epoch | no |
//! | 16 | 1 | magic = 2 | no |
//! | 17 | 4 | CRC-32C of everything from byte 21 to the end | no |
//! | 21 | 2 | attributes | yes |
//! | 23 | 4 | last offset delta | yes |
//! | 27 | 8 | base timestamp | yes |
//! | 35 | 8 | max timestamp | yes |
//! | 43 | 8 | producer id | yes |
//! | 51 | 2 | producer epoch | yes |
//! | 53 | 4 | base sequence | yes |
//! | 57 | 4 | record count | yes |

use super::{Attributes, BatchError, crc32c};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Bytes of a batch before its records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes before what the length field counts.
const LENGTH_PREFIX_BYTES: usize = 12;
/// Bytes of the header that the length field counts.
const LENGTH_MIN: i32 = 49;
/// Where the checksummed part starts.
pub(crate) const CRC_FROM: usize = 21;
/// The only format version this code knows.
pub(super) const MAGIC: i8 = 2;

/// The header of a batch, read and not yet believed: `CheckedBatch` and `BatchView` do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after this field; at least 49.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch; -1 before.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything after this field.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Offset of the last record less that of the first (kept when compaction drops the last).
    pub last_offset_delta: i32,
    /// What record timestamps are relative to: normally the first record's time.
    pub base_timestamp: Timestamp,
    /// The largest record timestamp, or the append time. Some producers leave it at -1.
    pub max_timestamp: Timestamp,
    /// The idempotent producer, or -1.
    pub producer_id: ProducerId,
    /// Its epoch, or -1.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// No records, no producer, no epoch; the start for a header that is made.
    pub(super) const EMPTY: BatchHeader = BatchHeader {
        base_offset: Offset::ZERO,
        batch_length: LENGTH_MIN,
        leader_epoch: LeaderEpoch(-1),
        crc: 0,
        attributes: Attributes(0),
        last_offset_delta: 0,
        base_timestamp: Timestamp::NONE,
        max_timestamp: Timestamp::NONE,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        record_count: 0,
    };

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// `Truncated` (fewer than 61 bytes), `Magic`, `Length` (below a header). Nothing else is
    /// checked: the bytes of the batch need not be there.
    pub fn read(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let short = BatchError::Truncated { needed: BATCH_HEADER_BYTES, have: bytes.len() };
        let mut fields = Fields(bytes.get(..BATCH_HEADER_BYTES).ok_or(short.clone())?);
        let (header, magic) = fields.header().ok_or(short)?;
        if magic != MAGIC {
            return Err(BatchError::Magic { magic });
        }
        if header.batch_length < LENGTH_MIN {
            return Err(BatchError::Length { batch_length: header.batch_length });
        }
        Ok(header)
    }

    /// Writes all 61 bytes.
    pub fn write(&self, to: &mut [u8; BATCH_HEADER_BYTES]) {
        let mut rest = to.as_mut_slice();
        put(&mut rest, self.base_offset.0.to_be_bytes());
        put(&mut rest, self.batch_length.to_be_bytes());
        put(&mut rest, self.leader_epoch.0.to_be_bytes());
        put(&mut rest, MAGIC.to_be_bytes());
        put(&mut rest, self.crc.to_be_bytes());
        put(&mut rest, self.attributes.0.to_be_bytes());
        put(&mut rest, self.last_offset_delta.to_be_bytes());
        put(&mut rest, self.base_timestamp.0.to_be_bytes());
        put(&mut rest, self.max_timestamp.0.to_be_bytes());
        put(&mut rest, self.producer_id.0.to_be_bytes());
        put(&mut rest, self.producer_epoch.0.to_be_bytes());
        put(&mut rest, self.base_sequence.to_be_bytes());
        put(&mut rest, self.record_count.to_be_bytes());
        assert!(rest.is_empty(), "the fields fill the header");
    }

    /// Writes this header over the first 61 bytes of `batch`, with the length and the CRC of what
    /// stands there.
    pub(super) fn seal(mut self, batch: &mut [u8]) {
        let rest_bytes = batch.len() - LENGTH_PREFIX_BYTES;
        self.batch_length = i32::try_from(rest_bytes).unwrap_or(i32::MAX);
        self.write_over(batch);
        self.crc = crc32c(batch.get(CRC_FROM..).unwrap_or(&[]));
        self.write_over(batch);
    }

    fn write_over(&self, batch: &mut [u8]) {
        let Some(place) = batch.first_chunk_mut() else {
            unreachable!("a batch begins with room for its header")
        };
        self.write(place);
    }

    /// Bytes of the whole batch, header included.
    pub fn size_bytes(&self) -> usize {
        usize::try_from(self.batch_length).unwrap_or(0).saturating_add(LENGTH_PREFIX_BYTES)
    }

    /// Offset of the last record (`i64::MAX` when a damaged base offset would pass it).
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// First offset after the batch (`i64::MAX` when a damaged base offset would pass it).
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// Whether an idempotent producer wrote the batch.
    pub fn is_idempotent(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Sequence number of the last record; after `i32::MAX` comes 0, as in Kafka.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.last_offset_delta)
    }
}

/// The sequence number `records` after `sequence`; after `i32::MAX` comes 0, as in Kafka.
pub fn sequence_after(sequence: i32, records: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(records);
    i32::try_from(sum.rem_euclid(1 << 31)).unwrap_or(0)
}

/// Takes fixed-width fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    /// The header and its magic.
    fn header(&mut self) -> Option<(BatchHeader, i8)> {
        let base_offset = Offset(i64::from_be_bytes(self.take()?));
        let batch_length = i32::from_be_bytes(self.take()?);
        let leader_epoch = LeaderEpoch(i32::from_be_bytes(self.take()?));
        let magic = i8::from_be_bytes(self.take()?);
        let header = BatchHeader {
            base_offset,
            batch_length,
            leader_epoch,
            crc: u32::from_be_bytes(self.take()?),
            attributes: Attributes(i16::from_be_bytes(self.take()?)),
            last_offset_delta: i32::from_be_bytes(self.take()?),
            base_timestamp: Timestamp(i64::from_be_bytes(self.take()?)),
            max_timestamp: Timestamp(i64::from_be_bytes(self.take()?)),
            producer_id: ProducerId(i64::from_be_bytes(self.take()?)),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(self.take()?)),
            base_sequence: i32::from_be_bytes(self.take()?),
            record_count: i32::from_be_bytes(self.take()?),
        };
        Some((header, magic))
    }
}

fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    let Some((place, after)) = std::mem::take(rest).split_first_chunk_mut::<N>() else {
        unreachable!("the header's fields have 61 bytes");
    };
    *place = field;
    *rest = after;
}

/// Any bytes: a header that is read is written back as it was.
pub fn fuzz_batch_header(data: &[u8]) {
    if let Ok(header) = BatchHeader::read(data) {
        let mut copy = [0; BATCH_HEADER_BYTES];
        header.write(&mut copy);
        assert_eq!(data.get(..BATCH_HEADER_BYTES), Some(copy.as_slice()));
        assert!(header.size_bytes() >= BATCH_HEADER_BYTES);
        assert!(header.next_offset() >= header.last_offset());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_back(mut bytes in prop::collection::vec(any::<u8>(), 61..80)) {
            fuzz_batch_header(&bytes);
            bytes[16] = 2;
            fuzz_batch_header(&bytes);
            bytes[8] = 0;
            prop_assume!(bytes[9..12] > [0, 0, 48][..]);
            prop_assert!(BatchHeader::read(&bytes).is_ok());
        }
    }

    #[test]
    fn refusals_are_typed() {
        let mut bytes = [0u8; 61];
        assert_eq!(BatchHeader::read(&bytes), Err(BatchError::Magic { magic: 0 }));
        bytes[16] = 2;
        assert_eq!(BatchHeader::read(&bytes), Err(BatchError::Length { batch_length: 0 }));
        bytes[11] = 49;
        assert!(BatchHeader::read(&bytes).is_ok());
        let short = Err(BatchError::Truncated { needed: 61, have: 60 });
        assert_eq!(BatchHeader::read(&bytes[..60]), short);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(5, 3), 8);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 4), 2);
    }

    #[test]
    fn a_damaged_base_offset_does_not_overflow() {
        let mut bytes = [0xff_u8; 61];
        bytes[0] = 0x7f;
        (bytes[8], bytes[16]) = (0x7f, 2);
        bytes[23] = 0x7f;
        let header = BatchHeader::read(&bytes).expect("readable");
        assert_eq!(header.next_offset(), Offset(i64::MAX));
    }
}
