//! WANT: a publisher is blocked.

use super::frame::{FrameType, Notice};

wire_struct! {
    /// Repeated each second while it is; answered by GRANT as soon as there is room.
    pub struct Request {
        /// Its number.
        pub publisher: u32,
        /// What it would send now.
        pub bytes: u64,
    }
}

impl Notice for Request {
    const TYPE: FrameType = FrameType::Want;
}
