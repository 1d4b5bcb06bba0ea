//! PAUSE: a subscription holds its breath.

use super::frame::{Call, FrameType};

wire_struct! {
    /// Pauses a subscription; credit and position stay.
    pub struct Request {
        /// Its number.
        pub subscription: u32,
    }
}

wire_struct! {
    /// No BATCHES of it follow until RESUME.
    pub struct Response {
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Pause;
    type Answer = Response;
}
