//! TRIM: deletes the front of a partition.

use super::frame::{Call, FrameType};
use crate::types::{Offset, PartitionId, TopicId};

wire_struct! {
    /// Records before an offset become unreadable; their segments are deleted.
    pub struct Request {
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// First offset that stays; at most the visible end.
        pub before: Offset,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// The trim is durable (not with `dry_run`).
    pub struct Response {
        /// First offset that can be read afterwards.
        pub start: Offset,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Trim;
    type Answer = Response;
}
