//! GROUP_LIST: all groups.

use super::frame::{Call, FrameType};
use crate::types::GroupListing;

wire_struct! {
    /// Asks for all groups.
    pub struct Request {
    }
}

wire_struct! {
    /// All groups, by name.
    pub struct Response {
        /// The groups.
        pub groups: Vec<GroupListing>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::GroupList;
    type Answer = Response;
}
