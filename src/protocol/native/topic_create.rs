//! TOPIC_CREATE: one durable catalog record.

use super::frame::{Call, FrameType};
use crate::types::{TopicConfig, TopicId, TopicName};

wire_struct! {
    /// Creates a topic.
    pub struct Request {
        /// Its name.
        pub name: TopicName,
        /// Number of its partitions; at least 1.
        pub partitions: u32,
        /// Settings by name, as `TopicConfig` spells them; the rest are defaults.
        pub settings: Vec<(String, String)>,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// The topic is durable (not with `dry_run`).
    pub struct Response {
        /// Its id; all zero with `dry_run`.
        pub id: TopicId,
        /// Its settings.
        pub config: TopicConfig,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::TopicCreate;
    type Answer = Response;
}
