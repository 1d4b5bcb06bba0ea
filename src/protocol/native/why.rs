//! WHY: from somebody who is limited to the root of it.

use super::frame::{Call, FrameType};
use crate::types::{EntityKind, WhyReport};

wire_struct! {
    /// Asks who makes somebody wait.
    pub struct Request {
        /// What it is.
        pub kind: EntityKind,
        /// Its name, as PRESSURE tells it.
        pub name: String,
    }
}

wire_struct! {
    /// The way to the root.
    pub struct Response {
        /// The way.
        pub report: WhyReport,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Why;
    type Answer = Response;
}
