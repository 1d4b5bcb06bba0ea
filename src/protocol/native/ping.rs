//! PING: is the other side there?

use super::frame::{Call, FrameType};

wire_struct! {
    /// Either side may ask.
    pub struct Request {
    }
}

wire_struct! {
    /// The other side is there.
    pub struct Response {
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Ping;
    type Answer = Response;
}
