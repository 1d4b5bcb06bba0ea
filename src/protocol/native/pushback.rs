//! PUSHBACK: who limits, why, for how long, and whether anything was written.

use super::frame::{FrameType, Notice};
use crate::types::{Pushback, TopicPartition};

wire_struct! {
    /// With a correlation id: the answer to that PRODUCE, whose bytes count as sent. With 0: news for
    /// a publisher, for example that a batch with `acks = none` was refused.
    pub struct Request {
        /// The publisher; 0 = whoever produces to `partition`.
        pub publisher: u32,
        /// The partition it is about; absent = all of the publisher's.
        pub partition: Option<TopicPartition>,
        /// The refusal.
        pub pushback: Pushback,
    }
}

impl Notice for Request {
    const TYPE: FrameType = FrameType::Pushback;
}
