//! The LZ4 frame format. Written as Kafka's Java client writes it and alone reads it: independent
//! blocks of 64 KiB without checksums (the batch has its own). Every frame is read.

use std::io::{self, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::Budget;
use crate::record::DecodeError;

pub(super) fn compress(records: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, to);
    encoder.write_all(records)?;
    encoder.finish().map(drop).map_err(io::Error::from)
}

pub(super) fn decompress(compressed: &[u8], budget: &Budget) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(budget.first_capacity());
    let mut rest = compressed;
    // The decoder ends with its frame; some writers join several.
    loop {
        let before = rest.len();
        budget.drain_to(FrameDecoder::new(&mut rest), &mut out)?;
        if rest.is_empty() {
            return Ok(out);
        }
        if rest.len() == before {
            return Err(budget.damaged("no frame can be read"));
        }
    }
}
