//! LIST_OFFSETS: where a partition starts, ends, or was at a time.

use super::answer::ErrorAnswer;
use super::frame::{Call, FrameType};
use crate::types::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId};

wire_enum! {
    /// Which offset of a partition is wanted.
    pub enum OffsetSpec {
        /// The first that can be read.
        0 => Earliest,
        /// The visible end: the first that cannot be read yet.
        1 => Latest,
        /// That of the first record at or after this time.
        2 => AtTime {
            /// The time.
            time: Timestamp,
        },
    }
}

wire_struct! {
    /// One offset that is wanted.
    pub struct Query {
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// Which offset.
        pub at: OffsetSpec,
    }
}

wire_struct! {
    /// The answer to one query.
    pub struct Found {
        /// The offset; absent when no record is that late.
        pub offset: Option<Offset>,
        /// Timestamp of the record there, for a look-up by time.
        pub timestamp: Option<Timestamp>,
        /// The partition's leader epoch.
        pub leader_epoch: LeaderEpoch,
    }
}

wire_struct! {
    /// Asks about partitions.
    pub struct Request {
        /// What to look up.
        pub partitions: Vec<Query>,
    }
}

wire_struct! {
    /// One entry a query, in the order asked.
    pub struct Response {
        /// What was found.
        pub offsets: Vec<Result<Found, ErrorAnswer>>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::ListOffsets;
    type Answer = Response;
}
