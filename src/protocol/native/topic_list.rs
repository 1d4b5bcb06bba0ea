//! TOPIC_LIST: the catalog in short.

use super::frame::{Call, FrameType};
use crate::types::{TopicId, TopicName};

wire_struct! {
    /// One line of the list of topics.
    pub struct Listing {
        /// Its name.
        pub name: TopicName,
        /// Its id.
        pub id: TopicId,
        /// Number of its partitions.
        pub partitions: u32,
    }
}

wire_struct! {
    /// Asks for all topics.
    pub struct Request {
    }
}

wire_struct! {
    /// All topics, by name.
    pub struct Response {
        /// The topics.
        pub topics: Vec<Listing>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::TopicList;
    type Answer = Response;
}
