//! GRANT: how far a publisher may send.

use super::frame::{FrameType, Notice};
use crate::types::Cause;

wire_struct! {
    /// Cumulative: within an epoch the largest `bytes_to` holds, older epochs are ignored. So a lost,
    /// repeated or reordered grant does no harm.
    pub struct Request {
        /// Its number; never 0.
        pub publisher: u32,
        /// Bumped when the counters start again from 0.
        pub epoch: u32,
        /// The sum of the data parts the publisher may have sent in this epoch.
        pub bytes_to: u64,
        /// After so long without another grant only the allowance holds.
        pub ttl_ms: u32,
        /// What set its size.
        pub cause: Cause,
        /// What that concerns, where the kind does not say it all: the group of `Backlog`; else empty.
        pub name: String,
    }
}

impl Notice for Request {
    const TYPE: FrameType = FrameType::Grant;
}
