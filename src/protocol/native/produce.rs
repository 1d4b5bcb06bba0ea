//! PRODUCE: one record batch to one partition.

use super::frame::{Call, FrameType};
use super::frame::{DataPart, FrameFlags, encode as encode_frame};
use crate::types::{Acks, DurabilityLevel, Offset, PartitionId, Timestamp, TopicId};

wire_struct! {
    /// The data part is exactly one record batch (v2). The frame's CRC binds it to topic and partition.
    pub struct Request {
        /// The publisher it counts for; 0 = none, then one part for all of the connection's decides.
        pub publisher: u32,
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// When to answer.
        pub acks: Acks,
        /// An answer after so long is of no use: refuse rather than wait; 0 = no deadline.
        pub deadline_ms: u32,
    }
}

wire_struct! {
    /// The batch is in the log.
    pub struct Response {
        /// Offset of its first record.
        pub base_offset: Option<Offset>,
        /// When the broker appended it; -1 for a repeat.
        pub append_time: Timestamp,
        /// What it survives now.
        pub level: DurabilityLevel,
        /// It had been written before; `base_offset` is that of the first time.
        pub duplicate: bool,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Produce;
    type Answer = Response;
}

/// Appends header and control part of a PRODUCE; the batch itself is to be written right after.
pub fn encode(out: &mut Vec<u8>, correlation: u64, request: &Request, batch: &[u8]) {
    let data = DataPart {
        bytes: u32::try_from(batch.len()).expect("a batch below 4 GiB"),
        head: batch.get(..super::frame::BATCH_HEADER_BYTES).unwrap_or(batch),
    };
    encode_frame(out, (FrameType::Produce, FrameFlags::NONE), correlation, request, data);
}
