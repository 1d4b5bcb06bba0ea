//! GROUP_COMMIT: how far a group has read, durable when answered.

use super::answer::ErrorAnswer;
use super::frame::{Call, FrameType};
use crate::types::{GroupId, LeaderEpoch, Offset, PartitionId, TopicId};

wire_struct! {
    /// One offset to commit.
    pub struct CommitOffset {
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// The next offset the group is to read.
        pub offset: Offset,
        /// Leader epoch of the last record read; -1 = unknown.
        pub leader_epoch: LeaderEpoch,
        /// Anything the group wants to keep with it; at most 4 KiB.
        pub metadata: Option<String>,
    }
}

wire_struct! {
    /// The offset is committed.
    pub struct Committed {
    }
}

wire_struct! {
    /// Commits offsets.
    pub struct Request {
        /// The group.
        pub group: GroupId,
        /// The member; empty = not a member, allowed while the group has none.
        pub member_id: String,
        /// The member's epoch; -1 when not a member.
        pub member_epoch: i32,
        /// What to commit.
        pub offsets: Vec<CommitOffset>,
    }
}

wire_struct! {
    /// One entry an offset, in the order asked.
    pub struct Response {
        /// What became of them.
        pub results: Vec<Result<Committed, ErrorAnswer>>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::GroupCommit;
    type Answer = Response;
}
