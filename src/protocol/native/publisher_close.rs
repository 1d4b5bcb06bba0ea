//! PUBLISHER_CLOSE: gives a publisher's grant back.

use super::frame::{Call, FrameType};

wire_struct! {
    /// Closes a publisher; its unanswered batches are still answered.
    pub struct Request {
        /// Its number.
        pub publisher: u32,
    }
}

wire_struct! {
    /// It is closed.
    pub struct Response {
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::PublisherClose;
    type Answer = Response;
}
