//! SUBSCRIBE: the broker pushes what a partition gets, within credit.

use super::frame::{Call, FrameType};
use crate::types::{GroupId, Offset, PartitionId, TopicId};

wire_struct! {
    /// Opens a subscription.
    pub struct Request {
        /// Its number, chosen by the client; unused on this connection.
        pub subscription: u32,
        /// The topic.
        pub topic: TopicId,
        /// Its partition.
        pub partition: PartitionId,
        /// First offset wanted; the first batch may start before it.
        pub from: Offset,
        /// Credit of epoch 0 in bytes, see CREDIT.
        pub bytes_to: u64,
        /// Credit of epoch 0 in records, see CREDIT.
        pub records_to: u64,
        /// The group it is read for: its quotas count too.
        pub group: Option<GroupId>,
    }
}

wire_struct! {
    /// It is open; BATCHES follow.
    pub struct Response {
        /// First offset that can be read.
        pub start: Offset,
        /// First offset that cannot be read yet.
        pub visible_end: Offset,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Subscribe;
    type Answer = Response;
}
