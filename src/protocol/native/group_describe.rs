//! GROUP_DESCRIBE: everything an operator asks about groups.

use super::answer::ErrorAnswer;
use super::frame::{Call, FrameType};
use crate::types::{GroupDescription, GroupId};

wire_struct! {
    /// Asks about groups.
    pub struct Request {
        /// The groups.
        pub groups: Vec<GroupId>,
    }
}

wire_struct! {
    /// One entry a group, in the order asked.
    pub struct Response {
        /// The groups.
        pub groups: Vec<Result<GroupDescription, ErrorAnswer>>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::GroupDescribe;
    type Answer = Response;
}
