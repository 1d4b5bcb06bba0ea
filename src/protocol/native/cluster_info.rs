//! CLUSTER_INFO: the broker itself.

use super::frame::{Call, FrameType};
use crate::types::ClusterInfo;

wire_struct! {
    /// Asks for it.
    pub struct Request {
    }
}

wire_struct! {
    /// The answer.
    pub struct Response {
        /// The broker.
        pub info: ClusterInfo,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::ClusterInfo;
    type Answer = Response;
}
