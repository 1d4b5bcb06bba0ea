//! SUBSCRIPTION_END: a subscription ended without the client's doing.

use super::answer::ErrorAnswer;
use super::frame::{FrameType, Notice};

wire_struct! {
    /// Its number may be used again. E0204: the offset is out of range; E0205: damaged records, go on at
    /// `next_good`; E0201: the topic is gone.
    pub struct Request {
        /// Its number.
        pub subscription: u32,
        /// Its epoch.
        pub epoch: u32,
        /// Why.
        pub error: ErrorAnswer,
    }
}

impl Notice for Request {
    const TYPE: FrameType = FrameType::SubscriptionEnd;
}
