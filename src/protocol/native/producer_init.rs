//! PRODUCER_INIT: an identity for an idempotent producer.

use super::frame::{Call, FrameType};
use crate::types::{ProducerEpoch, ProducerId};

wire_struct! {
    /// Identity of an idempotent producer.
    pub struct Producer {
        /// Its id.
        pub id: ProducerId,
        /// Its epoch.
        pub epoch: ProducerEpoch,
    }
}

wire_struct! {
    /// Asks for a new producer id, or for the next epoch of one.
    pub struct Request {
        /// The id whose epoch is to be raised; older epochs are fenced.
        pub previous: Option<Producer>,
    }
}

wire_struct! {
    /// The identity to put into batches.
    pub struct Response {
        /// Id and epoch.
        pub producer: Producer,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::ProducerInit;
    type Answer = Response;
}
