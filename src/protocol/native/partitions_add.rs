//! PARTITIONS_ADD: raises a topic's number of partitions.

use super::frame::{Call, FrameType};
use super::topic_delete::TopicRef;
use crate::types::TopicId;

wire_struct! {
    /// Partitions are never taken away; keys may move to new ones.
    pub struct Request {
        /// Which topic.
        pub topic: TopicRef,
        /// Their number afterwards.
        pub partitions: u32,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// The change is durable (not with `dry_run`).
    pub struct Response {
        /// Id of the topic.
        pub id: TopicId,
        /// Number of partitions.
        pub partitions: u32,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::PartitionsAdd;
    type Answer = Response;
}
