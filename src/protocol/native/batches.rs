//! BATCHES: record batches of one subscription, pushed.

use super::frame::{DataPart, FrameFlags, encode as encode_frame};
use super::frame::{FrameType, Notice};
use crate::types::Offset;

wire_struct! {
    /// The data part is record batches, one after the other, verbatim.
    pub struct Request {
        /// Its number.
        pub subscription: u32,
        /// Of an older SEEK when it was under way: drop it.
        pub epoch: u32,
        /// The offset after these batches; more than the last record's + 1 when offsets were skipped.
        pub next_offset: Offset,
        /// First offset that cannot be read yet.
        pub visible_end: Offset,
        /// All data bytes of this epoch, these included: what CREDIT is counted against.
        pub sent_bytes: u64,
        /// All records of this epoch, these included. A record counts as one offset.
        pub sent_records: u64,
    }
}

impl Notice for Request {
    const TYPE: FrameType = FrameType::Batches;
}

/// Appends header and control part; `data_bytes` of batches are to be written after.
pub fn encode(out: &mut Vec<u8>, notice: &Request, data_bytes: u32) {
    let data = DataPart { bytes: data_bytes, head: &[] };
    encode_frame(out, (FrameType::Batches, FrameFlags::NONE), 0, notice, data);
}
