//! GROUP_DELETE: deletes a group and its offsets.

use super::frame::{Call, FrameType};
use crate::types::GroupId;

wire_struct! {
    /// Refused with E0504 while the group has members.
    pub struct Request {
        /// The group.
        pub group: GroupId,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// The deletion is durable (not with `dry_run`).
    pub struct Response {
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::GroupDelete;
    type Answer = Response;
}
