//! QUOTA_DELETE: one durable catalog record.

use super::frame::{Call, FrameType};

wire_struct! {
    /// Removes an entity's quota.
    pub struct Request {
        /// Whose quota.
        pub entity: String,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// It is gone and limits nobody any more (not with `dry_run`).
    pub struct Response {
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::QuotaDelete;
    type Answer = Response;
}
