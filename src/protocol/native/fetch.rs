//! FETCH: a long poll over many partitions.

use super::answer::ErrorAnswer;
use super::frame::{Call, FrameType};
use super::frame::{DataPart, FrameFlags, encode as encode_frame};
use super::wire::{DecodeError, DecodeProblem};
use bytes::Bytes;

use crate::types::{GroupId, Offset, PartitionId, TopicId};

wire_struct! {
    /// One partition to read.
    pub struct Partition {
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// First offset wanted; the first batch may start before it.
        pub from: Offset,
        /// Most bytes of this partition; one batch may exceed it.
        pub max_bytes: u32,
    }
}

wire_struct! {
    /// What was read from one partition.
    pub struct PartitionAnswer {
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// What was read, or why nothing could be.
        pub read: Result<PartitionRead, ErrorAnswer>,
    }
}

wire_struct! {
    /// Offsets around the batches of one partition.
    pub struct PartitionRead {
        /// First offset that can be read.
        pub start: Offset,
        /// First offset that cannot be read yet.
        pub visible_end: Offset,
        /// Where to read on; more than the last record's offset + 1 when offsets were skipped.
        pub next_offset: Offset,
        /// Bytes of its batches in the data part.
        pub data_bytes: u32,
    }
}

wire_struct! {
    /// Answered as soon as `min_bytes` are there, or after `max_wait_ms`.
    pub struct Request {
        /// Longest time to wait.
        pub max_wait_ms: u32,
        /// Bytes that end the wait.
        pub min_bytes: u32,
        /// Most bytes of the answer's data part; one batch may exceed it.
        pub max_bytes: u32,
        /// What to read, the most wanted first.
        pub partitions: Vec<Partition>,
        /// The group it is read for: its quotas count too.
        pub group: Option<GroupId>,
    }
}

wire_struct! {
    /// One entry a partition that was asked for, in the order asked. The data part is their record
    /// batches one after the other: `data_bytes` of each, in the same order.
    pub struct Response {
        /// What was read.
        pub partitions: Vec<PartitionAnswer>,
        /// What kept the answer smaller than asked for, beside the end of the log.
        pub limited_by: Option<String>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Fetch;
    type Answer = Response;
}

/// Appends header and control part of an answer; `data_bytes` of batches are to be written after.
pub fn encode_response(out: &mut Vec<u8>, correlation: u64, response: &Response, data_bytes: u32) {
    let data = DataPart { bytes: data_bytes, head: &[] };
    encode_frame(out, (FrameType::Fetch, FrameFlags::ANSWER), correlation, response, data);
}

impl Response {
    /// The batches of each partition, in order; empty where nothing was read.
    pub fn split(&self, mut data: Bytes) -> Result<Vec<Bytes>, DecodeError> {
        let lengths =
            || self.partitions.iter().map(|p| p.read.as_ref().map_or(0, |read| read.data_bytes));
        let announced: u64 = lengths().map(u64::from).sum();
        if announced != data.len() as u64 {
            let found = data.len() as u64;
            return Err(DecodeError::new(DecodeProblem::DataLength { announced, found }));
        }
        Ok(lengths().map(|len| data.split_to(len as usize)).collect())
    }
}
