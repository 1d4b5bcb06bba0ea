//! The one record-batch format, on disk, on the wire and in memory: Kafka's RecordBatch version 2,
//! byte for byte (DESIGN D3).
//!
//! - `CheckedBatch` is what storage appends: one batch whose header and CRC-32C hold.
//! - `BatchHeader` is read and written alone where records do not matter.
//! - `BatchView`, `batches` and `Records` read records; `BatchBuilder` makes batches.
//!
//! Promises: no input makes this room panic, read outside its bytes, or allocate more than a small
//! multiple of what it was given (decompression: more than `DecodeLimits` allow). Deliberately
//! absent: I/O, the older formats 0 and 1, changing a batch (only a copy of its header is stamped).
//!
//! The table of bytes is in `header.rs` and in `storage-format.md`.
#![deny(clippy::indexing_slicing)]

mod attributes;
mod builder;
mod check;
mod codec;
mod crc;
mod error;
mod header;
mod records;
mod varint;
mod view;

pub use attributes::{Attributes, Compression};
pub use builder::{BatchBuilder, BuilderOptions, ProducerStamp, PushError};
pub use check::{BatchLimits, CheckedBatch, fuzz_checked_batch};
pub use codec::{DecodeLimits, fuzz_compress, fuzz_decompress};
pub use crc::{crc32c, crc32c_joined};
pub use error::{BatchError, DecodeError, RecordFault};
pub(crate) use header::CRC_FROM;
pub use header::{BATCH_HEADER_BYTES, BatchHeader, fuzz_batch_header, sequence_after};
pub use records::{HeaderView, Record, RecordHeader, RecordRef, RecordView};
pub use view::{
    BatchView, Batches, Payload, RecordViews, Records, batches, fuzz_batches, fuzz_records,
};

#[cfg(test)]
mod tests;
