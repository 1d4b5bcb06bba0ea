//! UNSUBSCRIBE: ends a subscription.

use super::frame::{Call, FrameType};

wire_struct! {
    /// Ends a subscription.
    pub struct Request {
        /// Its number.
        pub subscription: u32,
    }
}

wire_struct! {
    /// It has ended: no BATCHES of it follow, its number may be used again.
    pub struct Response {
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Unsubscribe;
    type Answer = Response;
}
