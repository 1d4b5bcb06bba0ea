//! GOODBYE: the sender is about to close the connection.

use super::answer::ErrorAnswer;
use super::frame::{FrameType, Notice};

wire_struct! {
    /// From a broker: its drain notice. Requests that it has are still answered; new ones are
    /// refused with E0410. From a client: nothing more comes.
    pub struct Request {
        /// Why, when there is a reason to tell.
        pub error: Option<ErrorAnswer>,
        /// The connection is closed after so many milliseconds at the latest.
        pub close_ms: u32,
    }
}

impl Notice for Request {
    const TYPE: FrameType = FrameType::Goodbye;
}
