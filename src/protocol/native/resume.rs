//! RESUME: a paused subscription goes on.

use super::frame::{Call, FrameType};

wire_struct! {
    /// Resumes a subscription where it stopped.
    pub struct Request {
        /// Its number.
        pub subscription: u32,
    }
}

wire_struct! {
    /// It goes on.
    pub struct Response {
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Resume;
    type Answer = Response;
}
