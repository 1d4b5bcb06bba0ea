//! GROUP_COMMITTED: reads committed offsets.

use super::frame::{Call, FrameType};
use crate::types::{GroupId, LeaderEpoch, Offset, PartitionId, TopicId, TopicPartition};

wire_struct! {
    /// One committed offset.
    pub struct CommittedEntry {
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// The offset, when there is one.
        pub committed: Option<CommittedAt>,
    }
}

wire_struct! {
    /// Where a group is.
    pub struct CommittedAt {
        /// The next offset it reads.
        pub offset: Offset,
        /// As committed.
        pub leader_epoch: LeaderEpoch,
        /// As committed.
        pub metadata: Option<String>,
    }
}

wire_struct! {
    /// Asks for committed offsets.
    pub struct Request {
        /// The group.
        pub group: GroupId,
        /// A member's id and epoch, to be sure it is still one; absent = anybody.
        pub member: Option<(String, i32)>,
        /// Of these partitions; absent = of all that have one.
        pub partitions: Option<Vec<TopicPartition>>,
    }
}

wire_struct! {
    /// What is committed. A partition that was asked for and has none is listed without an offset.
    pub struct Response {
        /// The offsets.
        pub offsets: Vec<CommittedEntry>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::GroupCommitted;
    type Answer = Response;
}
