//! The five codecs of a batch: one way in, one way out, both over whole buffers.
//!
//! # Invariants
//! `decompress(..)?.len() <= limits.bytes_max`; memory grows with the bytes that were produced,
//! never with a length that the input claims.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::io::{self, Read};

use super::{Compression, DecodeError};

/// What decompressing one batch may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most bytes after decompression: bounds the memory a batch of any size can take.
    pub bytes_max: usize,
    /// Most bytes after decompression per byte before: what expands further is a bomb.
    pub ratio_max: u32,
    /// The ratio counts beyond this many bytes only, because small batches of repeated records
    /// honestly compress a thousandfold.
    pub ratio_free_bytes: usize,
}

impl Default for DecodeLimits {
    fn default() -> DecodeLimits {
        DecodeLimits { bytes_max: 64 << 20, ratio_max: 200, ratio_free_bytes: 16 << 20 }
    }
}

/// The limits applied to one input.
#[derive(Clone, Copy, Debug)]
struct Budget {
    codec: Compression,
    compressed_bytes: usize,
    limits: DecodeLimits,
    /// Most bytes that may be produced.
    bytes: usize,
}

impl Budget {
    fn new(codec: Compression, compressed_bytes: usize, limits: &DecodeLimits) -> Budget {
        let expanded = compressed_bytes.saturating_mul(limits.ratio_max as usize);
        let bytes = expanded.max(limits.ratio_free_bytes).min(limits.bytes_max);
        Budget { codec, compressed_bytes, limits: *limits, bytes }
    }

    /// Room to begin with: what a usual batch needs, from bytes that were really received.
    fn first_capacity(&self) -> usize {
        self.compressed_bytes.saturating_mul(4).min(self.bytes)
    }

    /// Why more than `bytes` may not be produced.
    fn exceeded(&self) -> DecodeError {
        if self.bytes == self.limits.bytes_max {
            return DecodeError::TooLarge { bytes_max: self.bytes };
        }
        let (compressed_bytes, ratio_max) = (self.compressed_bytes, self.limits.ratio_max);
        DecodeError::Ratio { compressed_bytes, ratio_max }
    }

    fn damaged(&self, reason: impl ToString) -> DecodeError {
        DecodeError::Codec { codec: self.codec, reason: reason.to_string() }
    }

    /// Reads a decoder to its end or to the limit.
    fn drain(&self, decoder: impl Read) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::with_capacity(self.first_capacity());
        self.drain_to(decoder, &mut out)?;
        Ok(out)
    }

    /// As `drain`, behind what earlier parts of the input gave.
    fn drain_to(&self, decoder: impl Read, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let one_more = (self.bytes - out.len()).saturating_add(1);
        let end = decoder.take(u64::try_from(one_more).unwrap_or(u64::MAX)).read_to_end(out);
        if out.len() > self.bytes {
            return Err(self.exceeded());
        }
        end.map(drop).map_err(|e| self.damaged(e))
    }
}

/// Appends the compressed form of `records` to `to`. For `None` that is a copy.
pub(super) fn compress(codec: Compression, records: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    match codec {
        Compression::None => to.extend_from_slice(records),
        Compression::Gzip => gzip::compress(records, to)?,
        Compression::Snappy => snappy::compress(records, to)?,
        Compression::Lz4 => lz4::compress(records, to)?,
        Compression::Zstd => zstd::compress(records, to)?,
    }
    Ok(())
}

/// The bytes that `compressed` stands for. For `None` that is a copy.
pub(super) fn decompress(
    codec: Compression,
    compressed: &[u8],
    limits: &DecodeLimits,
) -> Result<Vec<u8>, DecodeError> {
    let budget = Budget::new(codec, compressed.len(), limits);
    match codec {
        Compression::None => budget.drain(compressed),
        Compression::Gzip => gzip::decompress(compressed, &budget),
        Compression::Snappy => snappy::decompress(compressed, &budget),
        Compression::Lz4 => lz4::decompress(compressed, &budget),
        Compression::Zstd => zstd::decompress(compressed, &budget),
    }
}

/// Any bytes: decompression ends within its limits. The first byte chooses the codec.
pub fn fuzz_decompress(data: &[u8]) {
    let Some((&choice, compressed)) = data.split_first() else { return };
    let limits = DecodeLimits { bytes_max: 1 << 20, ratio_max: 100, ratio_free_bytes: 1 << 16 };
    for codec in Compression::ALL.into_iter().skip(usize::from(choice % 5)).take(1) {
        if let Ok(bytes) = decompress(codec, compressed, &limits) {
            assert!(bytes.len() <= limits.bytes_max);
            assert!(bytes.len() <= (compressed.len() * 100).max(1 << 16));
        }
    }
}

/// Any bytes: what a codec makes of them, it gives back. The first byte chooses the codec.
pub fn fuzz_compress(data: &[u8]) {
    let Some((&choice, records)) = data.split_first() else { return };
    for codec in Compression::ALL.into_iter().skip(usize::from(choice % 5)).take(1) {
        let mut compressed = Vec::new();
        compress(codec, records, &mut compressed).expect("memory is there");
        let back = decompress(codec, &compressed, &DecodeLimits::default());
        assert_eq!(back.as_deref(), Ok(records), "{codec}");
    }
}

#[cfg(test)]
mod tests;
