//! TOPIC_DELETE: the name is free at once, the files go soon after.

use super::frame::{Call, FrameType};
use crate::types::{TopicId, TopicName};

wire_enum! {
    /// One topic, by name or by id.
    pub enum TopicRef {
        /// By name.
        0 => Name {
            /// The name.
            name: TopicName,
        },
        /// By id: safe against a topic of the same name created since.
        1 => Id {
            /// The id.
            id: TopicId,
        },
    }
}

wire_struct! {
    /// Deletes a topic and its records.
    pub struct Request {
        /// Which one.
        pub topic: TopicRef,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// The deletion is durable (not with `dry_run`).
    pub struct Response {
        /// Id of the topic.
        pub id: TopicId,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::TopicDelete;
    type Answer = Response;
}
