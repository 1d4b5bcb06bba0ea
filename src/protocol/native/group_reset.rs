//! GROUP_RESET: moves committed offsets.

use super::frame::{Call, FrameType};
use crate::types::{GroupId, Offset, OffsetReset, PartitionId, TopicName};

wire_struct! {
    /// One committed offset that moves.
    pub struct Move {
        /// The partition.
        pub partition: PartitionId,
        /// Where it was.
        pub from: Option<Offset>,
        /// Where it is.
        pub to: Offset,
    }
}

wire_struct! {
    /// Refused with E0504 while the group has members. A group that does not exist is made.
    pub struct Request {
        /// The group.
        pub group: GroupId,
        /// The topic.
        pub topic: TopicName,
        /// Its partitions; absent = all.
        pub partitions: Option<Vec<PartitionId>>,
        /// Where to.
        pub to: OffsetReset,
        /// Say what would be done and do nothing.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// What was done (or would be), by partition.
    pub struct Response {
        /// The moves.
        pub moves: Vec<Move>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::GroupReset;
    type Answer = Response;
}
