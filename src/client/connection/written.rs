//! A batch that gets no answer: its sink is told when it is written, or dropped unwritten.

use super::ProduceSink;
use crate::client::ClientError;
use crate::protocol::native::produce;
use crate::types::{DurabilityLevel, Timestamp};

/// Exactly one call of the sink, at the latest when this is dropped, unless it is forgotten.
pub(super) struct Written {
    sink: Option<Box<dyn ProduceSink>>,
    lost: ClientError,
}

impl Written {
    pub(super) fn new(sink: Box<dyn ProduceSink>, lost: ClientError) -> Written {
        Written { sink: Some(sink), lost }
    }

    /// The bytes are out.
    pub(super) fn done(mut self) {
        if let Some(sink) = self.sink.take() {
            sink.done(Ok(produce::Response {
                base_offset: None,
                append_time: Timestamp::NONE,
                level: DurabilityLevel::None,
                duplicate: false,
            }));
        }
    }

    /// The sink is not called.
    pub(super) fn forget(mut self) {
        self.sink = None;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.done(Err(self.lost.clone()));
        }
    }
}
