//! PRESSURE: who is limited, by what, since when.

use super::frame::{Call, FrameType};
use crate::types::{PressureQuery, PressureReport};

wire_struct! {
    /// Asks for the report.
    pub struct Request {
        /// Most entries of who is limited; at most 1,000 are told.
        pub limited_max: u32,
        /// How far back events are told, in milliseconds; 0 = none.
        pub history_ms: u32,
        /// Whether every number the broker counts is told too.
        pub metrics: bool,
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

impl From<PressureQuery> for Request {
    fn from(query: PressureQuery) -> Request {
        let PressureQuery { limited_max, history_ms, metrics } = query;
        Request { limited_max, history_ms, metrics }
    }
}

impl From<Request> for PressureQuery {
    fn from(request: Request) -> PressureQuery {
        let Request { limited_max, history_ms, metrics } = request;
        PressureQuery { limited_max, history_ms, metrics }
    }
}
