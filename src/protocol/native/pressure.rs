//! PRESSURE: who is limited, by what, since when.

use super::frame::{Call, FrameType};
use crate::types::PressureReport;

wire_struct! {
    /// Asks for the report.
    pub struct Request {
    }
}

wire_struct! {
    /// The report.
    pub struct Response {
        /// The report.
        pub report: PressureReport,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Pressure;
    type Answer = Response;
}
