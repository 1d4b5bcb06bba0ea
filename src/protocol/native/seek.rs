//! SEEK: moves a subscription.

use super::frame::{Call, FrameType};
use crate::types::Offset;

wire_struct! {
    /// Starts a new epoch at another offset. BATCHES of older epochs may still arrive before the answer.
    pub struct Request {
        /// Its number.
        pub subscription: u32,
        /// The new epoch; greater than the last one.
        pub epoch: u32,
        /// First offset wanted.
        pub from: Offset,
        /// Credit of the new epoch in bytes.
        pub bytes_to: u64,
        /// Credit of the new epoch in records.
        pub records_to: u64,
    }
}

wire_struct! {
    /// All BATCHES after this answer are of the new epoch.
    pub struct Response {
        /// First offset that can be read.
        pub start: Offset,
        /// First offset that cannot be read yet.
        pub visible_end: Offset,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Seek;
    type Answer = Response;
}
