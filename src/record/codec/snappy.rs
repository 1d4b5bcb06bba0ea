//! Snappy, in the framing of xerial's Java library, which Kafka's Java client writes:
//! `82 "SNAPPY" 00`, version u32, compatible version u32, then blocks of {length u32, raw snappy}.
//! Bytes without that start are read as one raw block, as librdkafka writes them. Big-endian.

use std::io;

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::Budget;
use crate::record::DecodeError;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\x00";
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Records per block, as xerial's default.
const BLOCK_BYTES: usize = 32 << 10;

pub(super) fn compress(records: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    to.extend_from_slice(&MAGIC);
    to.extend_from_slice(&VERSIONS);
    let mut encoder = Encoder::new();
    for block in records.chunks(BLOCK_BYTES) {
        let length_at = to.len();
        let block_at = length_at + 4;
        to.resize(block_at + max_compress_len(block.len()), 0);
        let room = to.get_mut(block_at..).unwrap_or(&mut []);
        let written = encoder.compress(block, room)?;
        to.truncate(block_at + written);
        let length = u32::try_from(written).map_err(io::Error::other)?;
        if let Some(place) = to.get_mut(length_at..).and_then(|rest| rest.first_chunk_mut()) {
            *place = length.to_be_bytes();
        }
    }
    Ok(())
}

pub(super) fn decompress(compressed: &[u8], budget: &Budget) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    if !compressed.starts_with(&MAGIC) {
        append_block(compressed, &mut out, budget)?;
        return Ok(out);
    }
    out.reserve(budget.first_capacity());
    let mut rest = compressed;
    while !rest.is_empty() {
        if rest.starts_with(&MAGIC) {
            // The start of a stream; some writers join several.
            let start = MAGIC.len() + VERSIONS.len();
            rest = rest.get(start..).ok_or_else(|| budget.damaged("it ends in its start"))?;
            continue;
        }
        let (length, after) =
            rest.split_first_chunk().ok_or_else(|| budget.damaged("it ends in a length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) =
            after.split_at_checked(length).ok_or_else(|| budget.damaged("it ends in a block"))?;
        append_block(block, &mut out, budget)?;
        rest = after;
    }
    Ok(out)
}

/// Appends one raw block, whose own claim of its size is checked before room is made for it: snappy
/// expands at most about 22-fold, so a larger claim is a lie.
fn append_block(block: &[u8], out: &mut Vec<u8>, budget: &Budget) -> Result<(), DecodeError> {
    const EXPANSION_MAX: usize = 64;
    let claimed = decompress_len(block).map_err(|e| budget.damaged(e))?;
    if claimed > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(budget.damaged("a block claims more than snappy can expand to"));
    }
    let start = out.len();
    if claimed > budget.bytes - start {
        return Err(budget.exceeded());
    }
    out.resize(start + claimed, 0);
    let room = out.get_mut(start..).unwrap_or(&mut []);
    let written = Decoder::new().decompress(block, room).map_err(|e| budget.damaged(e))?;
    out.truncate(start + written);
    Ok(())
}
