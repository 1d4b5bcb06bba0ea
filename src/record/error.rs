//! Why bytes are not a batch, and why a batch's records cannot be read. Both are facts about the
//! bytes: nothing was changed, and the same bytes fail again.

use super::Compression;

/// Why bytes were refused as a record batch, before any record was looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the batch needs {needed} bytes, {have} are there")]
    Truncated {
        /// Bytes the batch (or, below 61, its header) takes.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Bytes follow the batch where exactly one was expected.
    #[error("{extra} bytes follow the batch")]
    TrailingBytes {
        /// Number of bytes after the batch.
        extra: usize,
    },
    /// The length field is below the rest of a header.
    #[error("batch length {batch_length} is below the 49 bytes of a header's rest")]
    Length {
        /// The field's value.
        batch_length: i32,
    },
    /// Not format version 2.
    #[error("batch format {magic} is not supported, only 2 is")]
    Magic {
        /// The version byte that was found.
        magic: i8,
    },
    /// The bytes are not the ones the checksum was made of.
    #[error("CRC-32C is {found:#010x}, the header says {expected:#010x}")]
    Crc {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// The batch is larger than the limit.
    #[error("the batch has {size_bytes} bytes, the limit is {bytes_max}")]
    TooLarge {
        /// Bytes of the batch with its header.
        size_bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The batch holds no record, more than the limit, or more than its bytes can hold.
    #[error("record count {record_count} is not within 1 to {records_max}")]
    RecordCount {
        /// The field's value.
        record_count: i32,
        /// The limit that applied.
        records_max: u32,
    },
    /// A producer's batch must hold consecutive records.
    #[error("last offset delta {last_offset_delta} does not fit {record_count} records")]
    OffsetDelta {
        /// The field's value.
        last_offset_delta: i32,
        /// Records the header announces.
        record_count: i32,
    },
    /// The codec bits name no codec.
    #[error("unknown compression codec {id}")]
    UnknownCodec {
        /// The three bits.
        id: u8,
    },
    /// Attribute bits are set that the sender may not set or nobody knows.
    #[error("attribute bits {bits:#06x} are not allowed here")]
    Attributes {
        /// The offending bits.
        bits: i16,
    },
    /// Producer id, epoch and sequence contradict each other.
    #[error(
        "producer id {producer_id}, epoch {producer_epoch}, sequence {base_sequence} do not fit together"
    )]
    Producer {
        /// The id.
        producer_id: i64,
        /// The epoch.
        producer_epoch: i16,
        /// The sequence number of the first record.
        base_sequence: i32,
    },
}

/// Why the records of a batch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The batch itself is not one.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The compressed bytes are damaged.
    #[error("{codec} data is damaged: {reason}")]
    Codec {
        /// The codec the header names.
        codec: Compression,
        /// What the decoder says.
        reason: String,
    },
    /// Decompression was stopped at the absolute limit.
    #[error("decompressed records exceed {bytes_max} bytes")]
    TooLarge {
        /// The limit, `DecodeLimits::bytes_max`.
        bytes_max: usize,
    },
    /// Decompression was stopped because so little input must not become so much output.
    #[error("{compressed_bytes} compressed bytes expand more than {ratio_max}-fold")]
    Ratio {
        /// Bytes before decompression.
        compressed_bytes: usize,
        /// The limit, `DecodeLimits::ratio_max`.
        ratio_max: u32,
    },
    /// A record is malformed.
    #[error("record {index} of the batch: {fault}")]
    Record {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong.
        fault: RecordFault,
    },
    /// Bytes follow the last record.
    #[error("{extra} bytes follow the last record of the batch")]
    TrailingBytes {
        /// Number of bytes.
        extra: usize,
    },
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The batch ends inside it, or a field ends outside it.
    #[error("it ends early")]
    Truncated,
    /// A variable-length number has too many bytes or bits.
    #[error("a number is too long")]
    Varint,
    /// A length is negative where it may not be.
    #[error("a length is negative")]
    NegativeLength,
    /// It has more headers than bytes for them.
    #[error("it announces more headers than it has room for")]
    HeaderCount,
    /// Its fields end before it does.
    #[error("bytes follow its last field")]
    TrailingBytes,
    /// Offsets do not rise, or pass the batch's last.
    #[error("its offset does not rise within the batch's range")]
    OffsetOrder,
}
