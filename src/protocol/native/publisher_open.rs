//! PUBLISHER_OPEN: a sender of one connection to one topic.

use super::frame::{Call, FrameType};
use super::grant;
use crate::types::{Class, TopicId};

wire_struct! {
    /// Opens a publisher.
    pub struct Request {
        /// The topic it sends to.
        pub topic: TopicId,
        /// Who gives way when there is not enough for all. Quotas may lower it.
        pub class: Class,
    }
}

wire_struct! {
    /// The publisher and how far it may send at once.
    pub struct Response {
        /// Its first grant; names the publisher.
        pub grant: grant::Request,
        /// Bytes it may always send beyond the grant while nothing of it is unanswered.
        pub allowance_bytes: u32,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::PublisherOpen;
    type Answer = Response;
}
