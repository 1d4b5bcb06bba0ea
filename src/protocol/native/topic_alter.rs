//! TOPIC_ALTER: changes settings of a topic.

use super::frame::{Call, FrameType};
use super::topic_delete::TopicRef;
use crate::types::{TopicConfig, TopicId};

wire_struct! {
    /// Changes settings; those not named stay.
    pub struct Request {
        /// Which topic.
        pub topic: TopicRef,
        /// Settings by name, as `TopicConfig` spells them.
        pub settings: Vec<(String, String)>,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// All settings after the change.
    pub struct Response {
        /// Id of the topic.
        pub id: TopicId,
        /// Its settings.
        pub config: TopicConfig,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::TopicAlter;
    type Answer = Response;
}
