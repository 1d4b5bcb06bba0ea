//! What the broker checks of a batch before it appends it: header and CRC-32C, never the records
//! (DESIGN D3). The result is a type of its own, so that nothing unchecked can be appended.
//!
//! Deliberately absent: decompression, walking records, and any change of the bytes. Offsets are
//! stamped into a copy of the 61 header bytes; the records go to disk from the buffer they came in.

use bytes::Bytes;

use super::crc::{crc32c, crc32c_with_head};
use super::header::{BATCH_HEADER_BYTES, BatchHeader, CRC_FROM};
use super::{Attributes, BatchError, Compression};
use crate::types::{LeaderEpoch, Offset, Timestamp};

/// Fewest bytes of a record: length, attributes, two deltas, two lengths, header count.
const RECORD_BYTES_MIN: usize = 7;

/// What a sender's batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Largest batch in bytes, header included: the topic's `max_message_bytes`.
    pub bytes_max: usize,
    /// Most records in a batch: a compressed batch is not walked, so its count is only a claim,
    /// and each record takes an offset.
    pub records_max: u32,
    /// Attribute bits the sender may not set. Unknown bits are always refused: an unknown bit may
    /// change how records are to be read, as bit 6 once did.
    pub attributes_refused: i16,
}

impl BatchLimits {
    /// What a client may send: no control batches, no delete horizon, no broker's timestamps, and
    /// no transactions as long as there is no coordinator for them.
    pub fn client(bytes_max: usize) -> BatchLimits {
        BatchLimits {
            bytes_max,
            records_max: 1 << 20,
            attributes_refused: Attributes::APPEND_TIME
                | Attributes::TRANSACTIONAL
                | Attributes::CONTROL
                | Attributes::DELETE_HORIZON,
        }
    }
}

/// Exactly one batch whose header is sound and whose bytes match its CRC.
///
/// # Invariants
/// `bytes.len() == header.size_bytes()`, `record_count == last_offset_delta + 1 >= 1`.
#[derive(Clone, Debug)]
pub struct CheckedBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl CheckedBatch {
    /// Checks that `bytes` are exactly one batch within `limits`. The cost is one walk over them.
    ///
    /// # Errors
    /// The first rule that does not hold; the CRC is looked at last.
    pub fn check(bytes: Bytes, limits: &BatchLimits) -> Result<CheckedBatch, BatchError> {
        let header = BatchHeader::read(&bytes)?;
        check_size(&header, bytes.len(), limits)?;
        check_attributes(&header, limits)?;
        check_counts(&header, limits)?;
        check_producer(&header)?;
        let found = crc32c(bytes.get(CRC_FROM..).unwrap_or_default());
        if found != header.crc {
            return Err(BatchError::Crc { expected: header.crc, found });
        }
        Ok(CheckedBatch { header, bytes })
    }

    /// The header as it came.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes after the header: what follows `stamp` on disk.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(BATCH_HEADER_BYTES..).unwrap_or(&[])
    }

    /// The header as it is stored: with its place in the log, and with `append_time` as every
    /// record's timestamp when there is one.
    pub fn stamped(
        &self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        append_time: Option<Timestamp>,
    ) -> BatchHeader {
        let mut header = BatchHeader { base_offset, leader_epoch, ..self.header };
        if let Some(time) = append_time {
            header.attributes = header.attributes.with(Attributes::APPEND_TIME);
            header.max_timestamp = time;
            let (old, new) = (checksummed(&self.header), checksummed(&header));
            header.crc = crc32c_with_head(self.header.crc, &old, &new, self.payload().len());
        }
        header
    }

    /// The bytes of `stamped`. A batch is stored as these 61 bytes and then `payload()`.
    pub fn stamp(
        &self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        append_time: Option<Timestamp>,
    ) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        self.stamped(base_offset, leader_epoch, append_time).write(&mut bytes);
        bytes
    }
}

/// The part of the header that the CRC covers.
fn checksummed(header: &BatchHeader) -> [u8; BATCH_HEADER_BYTES - CRC_FROM] {
    let mut bytes = [0; BATCH_HEADER_BYTES];
    header.write(&mut bytes);
    bytes.last_chunk().copied().unwrap_or([0; BATCH_HEADER_BYTES - CRC_FROM])
}

fn check_size(header: &BatchHeader, have: usize, limits: &BatchLimits) -> Result<(), BatchError> {
    let size_bytes = header.size_bytes();
    if size_bytes > limits.bytes_max {
        return Err(BatchError::TooLarge { size_bytes, bytes_max: limits.bytes_max });
    }
    match have.checked_sub(size_bytes) {
        Some(0) => Ok(()),
        Some(extra) => Err(BatchError::TrailingBytes { extra }),
        None => Err(BatchError::Truncated { needed: size_bytes, have }),
    }
}

fn check_attributes(header: &BatchHeader, limits: &BatchLimits) -> Result<(), BatchError> {
    header.attributes.compression()?;
    let bits = header.attributes.0 & (limits.attributes_refused | !Attributes::KNOWN);
    if bits == 0 { Ok(()) } else { Err(BatchError::Attributes { bits }) }
}

fn check_counts(header: &BatchHeader, limits: &BatchLimits) -> Result<(), BatchError> {
    let mut records_max = limits.records_max;
    if header.attributes.compression()? == Compression::None {
        let room = (header.size_bytes() - BATCH_HEADER_BYTES) / RECORD_BYTES_MIN;
        records_max = records_max.min(u32::try_from(room).unwrap_or(u32::MAX));
    }
    let record_count = header.record_count;
    if record_count < 1 || u32::try_from(record_count).is_ok_and(|count| count > records_max) {
        return Err(BatchError::RecordCount { record_count, records_max });
    }
    if header.last_offset_delta != record_count - 1 {
        let last_offset_delta = header.last_offset_delta;
        return Err(BatchError::OffsetDelta { last_offset_delta, record_count });
    }
    Ok(())
}

/// An idempotent batch has an epoch and a sequence (a transaction's marker has no sequence); another
/// one is of producer -1.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let (id, epoch) = (header.producer_id.0, header.producer_epoch.0);
    let sequence_min = if header.attributes.is_control() { -1 } else { 0 };
    if id == -1 || (id >= 0 && epoch >= 0 && header.base_sequence >= sequence_min) {
        return Ok(());
    }
    let base_sequence = header.base_sequence;
    Err(BatchError::Producer { producer_id: id, producer_epoch: epoch, base_sequence })
}

/// Compares the CRC of exactly one batch with its header's.
pub(super) fn check_crc(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    let found = crc32c(batch.get(CRC_FROM..).unwrap_or(&[]));
    if found == header.crc {
        return Ok(());
    }
    Err(BatchError::Crc { expected: header.crc, found })
}

/// Any bytes: a batch that is accepted can be stamped, and is then still accepted.
pub fn fuzz_checked_batch(data: &[u8]) {
    let mut limits = BatchLimits::client(data.len());
    limits.attributes_refused = 0;
    let Ok(batch) = CheckedBatch::check(Bytes::copy_from_slice(data), &limits) else { return };
    for append_time in [None, Some(Timestamp(1_700_000_000_000))] {
        let header = batch.stamp(Offset(77), LeaderEpoch(3), append_time);
        let stored = Bytes::from([&header, batch.payload()].concat());
        let again = CheckedBatch::check(stored, &limits);
        assert!(again.is_ok_and(|again| again.header().base_offset == Offset(77)));
    }
}
