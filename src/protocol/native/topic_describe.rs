//! TOPIC_DESCRIBE: everything an operator asks about topics.

use super::answer::ErrorAnswer;
use super::frame::{Call, FrameType};
use super::metadata::TopicSelector;
use crate::types::TopicDescription;

wire_struct! {
    /// Asks about topics.
    pub struct Request {
        /// Which topics.
        pub topics: TopicSelector,
    }
}

wire_struct! {
    /// One entry a topic that was asked for, in the order asked.
    pub struct Response {
        /// The topics.
        pub topics: Vec<Result<TopicDescription, ErrorAnswer>>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::TopicDescribe;
    type Answer = Response;
}
