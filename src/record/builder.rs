//! Makes a batch: records are encoded as they are pushed, behind room for the header, so that an
//! uncompressed batch is finished by writing 61 bytes.
//!
//! Cost per record: one size computation and one copy of its bytes; no allocation but the growth
//! of the one buffer.

use bytes::Bytes;

use super::codec::compress;
use super::header::{BATCH_HEADER_BYTES, BatchHeader};
use super::records::{RecordRef, body_bytes, put_record};
use super::{Attributes, Compression, varint};
use crate::types::{ProducerEpoch, ProducerId, Timestamp, TimestampType};

/// What a batch is to be.
#[derive(Clone, Copy, Debug)]
pub struct BuilderOptions {
    /// Codec of the records. A batch that a codec does not make smaller is stored as it is.
    pub compression: Compression,
    /// Who is to have written the timestamps (a broker says `Append`).
    pub timestamp_type: TimestampType,
    /// Further attribute bits: `TRANSACTIONAL`, `CONTROL`, `DELETE_HORIZON`.
    pub flags: i16,
    /// The idempotent producer.
    pub producer: Option<ProducerStamp>,
    /// Largest batch in bytes before compression, header included: as large as the receiver's
    /// `max_message_bytes`, which so holds whatever the codec does.
    pub bytes_max: usize,
    /// Most records in a batch; the receiver has such a limit too.
    pub records_max: u32,
    /// Bytes to reserve at once, to save growth when batches are known to fill up.
    pub bytes_reserved: usize,
}

impl Default for BuilderOptions {
    fn default() -> BuilderOptions {
        BuilderOptions {
            compression: Compression::None,
            timestamp_type: TimestampType::Create,
            flags: 0,
            producer: None,
            bytes_max: 1 << 20,
            records_max: 1 << 20,
            bytes_reserved: 0,
        }
    }
}

/// Who wrote a batch, for idempotence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// Sequence number of the first record.
    pub base_sequence: i32,
}

/// Why a record was not added. The batch is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Build this batch and push the record into the next one.
    #[error("the batch is full")]
    BatchFull,
    /// The record alone exceeds a batch.
    #[error("a batch with this record alone has {size_bytes} bytes, the limit is {bytes_max}")]
    RecordTooLarge {
        /// Bytes of a batch with only this record.
        size_bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// A batch in the making.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BuilderOptions,
    bytes: Vec<u8>,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    record_count: u32,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(mut options: BuilderOptions) -> BatchBuilder {
        options.bytes_max = options.bytes_max.min(i32::MAX as usize);
        options.records_max = options.records_max.min(i32::MAX as u32);
        let reserved = options.bytes_reserved.min(options.bytes_max).max(BATCH_HEADER_BYTES);
        let mut bytes = Vec::with_capacity(reserved);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        BatchBuilder {
            options,
            bytes,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            record_count: 0,
        }
    }

    /// Adds a record at the next offset.
    ///
    /// # Errors
    /// `PushError`; nothing was added.
    pub fn push(&mut self, record: &RecordRef<'_>) -> Result<(), PushError> {
        let first = self.record_count == 0;
        let base = if first { record.timestamp } else { self.base_timestamp };
        // Wraps for absurd pairs of times, and wraps back when read.
        let timestamp_delta = record.timestamp.0.wrapping_sub(base.0);
        let offset_delta = i32::try_from(self.record_count).unwrap_or(i32::MAX);
        let body = body_bytes(record, timestamp_delta, offset_delta);
        let size_bytes =
            self.bytes.len().saturating_add(varint::size_of_len(body)).saturating_add(body);
        let bytes_max = self.options.bytes_max;
        if size_bytes > bytes_max || self.record_count >= self.options.records_max {
            return Err(if first {
                PushError::RecordTooLarge { size_bytes, bytes_max }
            } else {
                PushError::BatchFull
            });
        }
        put_record(&mut self.bytes, record, body, timestamp_delta, offset_delta);
        self.base_timestamp = base;
        self.max_timestamp = if first { base } else { self.max_timestamp.max(record.timestamp) };
        self.record_count += 1;
        Ok(())
    }

    /// Bytes of the batch so far, header included, before compression.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Records so far.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether no record was pushed.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Says who the producer is; decided when the batch is sent, not when it was begun.
    pub fn set_producer(&mut self, producer: Option<ProducerStamp>) {
        self.options.producer = producer;
    }

    /// The batch with base offset 0 and leader epoch -1, which the broker stamps.
    ///
    /// # Panics
    /// When no record was pushed: there are no empty batches.
    pub fn build(mut self) -> Bytes {
        assert!(!self.is_empty(), "a batch has a record");
        let codec = self.compress();
        let producer = self.options.producer.unwrap_or(ProducerStamp {
            id: ProducerId::NONE,
            epoch: ProducerEpoch(-1),
            base_sequence: -1,
        });
        let record_count = i32::try_from(self.record_count).unwrap_or(i32::MAX);
        let attributes = Attributes::new(codec, self.options.timestamp_type);
        let header = BatchHeader {
            attributes: attributes.with(self.options.flags),
            last_offset_delta: record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: producer.base_sequence,
            record_count,
            ..BatchHeader::EMPTY
        };
        header.seal(&mut self.bytes);
        Bytes::from(self.bytes)
    }

    /// Replaces the records by their compressed form if that is smaller; says what they are now.
    fn compress(&mut self) -> Compression {
        let codec = self.options.compression;
        if codec == Compression::None {
            return codec;
        }
        let records = self.bytes.get(BATCH_HEADER_BYTES..).unwrap_or(&[]);
        let mut smaller = Vec::with_capacity(self.bytes.len());
        smaller.resize(BATCH_HEADER_BYTES, 0);
        match compress(codec, records, &mut smaller) {
            Ok(()) if smaller.len() < self.bytes.len() => {
                self.bytes = smaller;
                codec
            }
            // Incompressible, or a codec out of memory: uncompressed is always right.
            _ => Compression::None,
        }
    }
}
