//! Zstandard (RFC 8878). A thread keeps its two contexts: making one costs more than a small batch.

use std::cell::RefCell;
use std::io;

use zstd::bulk::Compressor;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{compress_bound, get_frame_content_size};

use super::Budget;
use crate::record::DecodeError;

/// Kafka's default.
const LEVEL: i32 = 3;
/// Bytes by which the output grows at least.
const STEP_BYTES: usize = 16 << 10;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

pub(super) fn compress(records: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL)?),
        };
        let start = to.len();
        to.resize(start + compress_bound(records.len()), 0);
        let room = to.get_mut(start..).unwrap_or(&mut []);
        let written = compressor.compress_to_buffer(records, room)?;
        to.truncate(start + written);
        Ok(())
    })
}

pub(super) fn decompress(compressed: &[u8], budget: &Budget) -> Result<Vec<u8>, DecodeError> {
    // A frame that says it is too large need not be begun (and its window would be refused with a
    // less clear answer).
    let claim = get_frame_content_size(compressed).ok().flatten().unwrap_or(0);
    if claim > u64::try_from(budget.bytes).unwrap_or(u64::MAX) {
        return Err(budget.exceeded());
    }
    DECODER.with_borrow_mut(|kept| {
        let decoder = match kept {
            Some(decoder) => decoder,
            None => kept.insert(Decoder::new().map_err(|e| budget.damaged(e))?),
        };
        decoder.reinit().map_err(|e| budget.damaged(e))?;
        let window = DParameter::WindowLogMax(window_log_max(budget.bytes));
        decoder.set_parameter(window).map_err(|e| budget.damaged(e))?;
        run(decoder, compressed, budget)
    })
}

/// A window never needs to be larger than everything that may come out (and libzstd's smallest
/// default bound is 10, its largest 27).
fn window_log_max(bytes_max: usize) -> u32 {
    bytes_max.checked_next_power_of_two().map_or(27, usize::ilog2).clamp(10, 27)
}

fn run(
    decoder: &mut Decoder<'static>,
    compressed: &[u8],
    budget: &Budget,
) -> Result<Vec<u8>, DecodeError> {
    let mut out: Vec<u8> = Vec::with_capacity(budget.first_capacity());
    let mut input = InBuffer::around(compressed);
    loop {
        if out.len() == out.capacity() {
            // One byte beyond the limit shows that it was passed.
            let room = (budget.bytes + 1 - out.len()).min(out.len().max(STEP_BYTES));
            out.reserve_exact(room);
        }
        let filled = out.len();
        let mut output = OutBuffer::around_pos(&mut out, filled);
        let hint = decoder.run(&mut input, &mut output).map_err(|e| budget.damaged(e))?;
        let full = output.pos() == output.capacity();
        if out.len() > budget.bytes {
            return Err(budget.exceeded());
        }
        let all_read = input.pos() == compressed.len();
        if all_read && hint == 0 {
            return Ok(out);
        }
        if all_read && !full {
            return Err(budget.damaged("it ends early"));
        }
    }
}
