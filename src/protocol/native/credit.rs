//! CREDIT: how far a subscription may send.

use super::frame::{FrameType, Notice};

wire_struct! {
    /// Cumulative: within an epoch the largest values hold, other epochs are ignored. The broker sends
    /// while `sent_bytes < bytes_to` and `sent_records < records_to`, and may pass them by one batch.
    pub struct Request {
        /// Its number.
        pub subscription: u32,
        /// 0 after SUBSCRIBE, then what SEEK said.
        pub epoch: u32,
        /// Bytes of data parts that may have been sent in this epoch.
        pub bytes_to: u64,
        /// Records that may have been sent in this epoch.
        pub records_to: u64,
    }
}

impl Notice for Request {
    const TYPE: FrameType = FrameType::Credit;
}
