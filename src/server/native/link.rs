//! What all tasks of one connection share.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Shared;
use crate::broker::Broker;
use crate::broker::flow::{ConnectionFlow, Cost, Identity};
use crate::protocol::native::{
    Call, ErrorAnswer, ErrorDetail, FrameLimits, FrameType, Notice, encode_answer, encode_error,
    encode_notice,
};
use crate::server::admission::Seat;
use crate::server::in_flight::InFlight;
use crate::server::outbox::{Hold, Outbox};
use crate::server::phase::PhaseWatch;
use crate::types::{ErrorCode, Pushback};

/// A connection, as its requests see it.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: SocketAddr,
    pub(super) outbox: Outbox,
    pub(super) in_flight: InFlight,
    /// Room for pushed batches, in KiB; fair, so subscriptions take turns.
    pub(super) push_room: Arc<Semaphore>,
    pub(super) phase: PhaseWatch,
    seat: Seat,
    greeting: OnceLock<Greeting>,
}

/// What HELLO said.
struct Greeting {
    client_id: Arc<str>,
    frame_bytes_max: u32,
    flow: ConnectionFlow,
}

impl Link {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: SocketAddr,
        seat: Seat,
        phase: PhaseWatch,
        outbox: Outbox,
    ) -> Link {
        let room = shared.options.push_queue_bytes.div_ceil(1024).max(1);
        Link {
            shared,
            peer,
            outbox,
            in_flight: InFlight::default(),
            push_room: Arc::new(Semaphore::new(room)),
            phase,
            seat,
            greeting: OnceLock::new(),
        }
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.shared.broker
    }

    /// Remembers what HELLO said. Whoever is beyond a limit on connections gets one of the places
    /// kept for that, if there is one.
    pub(super) fn greet(&self, client_id: &str, frame_bytes_max: u32) -> Result<(), ErrorAnswer> {
        let who = Identity::anonymous(client_id, self.peer.ip());
        let now = self.broker().monotonic();
        // Whoever has no place of a quota is beyond a limit already.
        let counted = self.seat.place().map_or(Ok(()), |place| place.greet(&who, now));
        counted.or_else(|refusal| self.seat.refuse(refusal.pushback()))?;
        let flow = self.broker().connect(who);
        // Said once: whoever is greeted never comes here again.
        let _ = self.greeting.set(Greeting { client_id: client_id.into(), frame_bytes_max, flow });
        Ok(())
    }

    /// Takes from its quotas what a request costs beside its bytes.
    pub(super) fn charge(&self, cost: &Cost) -> Result<(), ErrorAnswer> {
        let Some(flow) = self.flow() else { return Ok(()) };
        let charged = flow.charge(cost, self.broker().monotonic());
        charged.map_err(|refusal| refusal.pushback().into())
    }

    /// What limits it; nothing of its own before HELLO.
    pub(super) fn flow(&self) -> Option<&ConnectionFlow> {
        self.greeting.get().map(|greeting| &greeting.flow)
    }

    /// What refused it, when it is on one of the places beyond the limits.
    pub(super) fn refusal(&self) -> Option<&Pushback> {
        self.seat.refusal()
    }

    /// Whether HELLO was answered.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeting.get().is_some()
    }

    /// What the client calls itself.
    pub(super) fn client_id(&self) -> Arc<str> {
        self.greeting.get().map_or_else(|| "".into(), |greeting| Arc::clone(&greeting.client_id))
    }

    /// Largest frame the client takes.
    pub(super) fn frame_bytes_max(&self) -> u32 {
        let before = FrameLimits::BEFORE_HELLO.frame_bytes_max;
        self.greeting.get().map_or(before, |greeting| greeting.frame_bytes_max)
    }

    /// Answers a call.
    pub(super) fn answer<C: Call>(&self, correlation: u64, result: Result<C::Answer, ErrorAnswer>) {
        match result {
            Ok(answer) => self.outbox.reply(|out| {
                let start = out.len();
                encode_answer::<C>(out, correlation, &answer);
                let (bytes, limit) = (out.len() - start, self.frame_bytes_max());
                if bytes > limit as usize {
                    out.truncate(start);
                    encode_error(out, C::TYPE, correlation, &too_large(bytes, limit));
                }
            }),
            Err(error) => self.refuse(C::TYPE, correlation, &error),
        }
    }

    /// Answers with an error.
    pub(super) fn refuse(&self, kind: FrameType, correlation: u64, error: &ErrorAnswer) {
        self.outbox.reply(|out| encode_error(out, kind, correlation, error));
    }

    /// Sends a notice.
    pub(super) fn notice<N: Notice>(&self, correlation: u64, notice: &N) {
        self.outbox.reply(|out| encode_notice(out, correlation, notice));
    }

    /// Sends a frame with batches, unless the client takes no frame of its size.
    pub(super) fn batches(
        &self,
        frame: Vec<u8>,
        data: Vec<Bytes>,
        hold: Hold,
    ) -> Result<(), ErrorAnswer> {
        let bytes = frame.len() + data.iter().map(Bytes::len).sum::<usize>();
        let limit = self.frame_bytes_max();
        if bytes > limit as usize {
            return Err(too_large(bytes, limit));
        }
        self.outbox.reply_data(|out| out.extend_from_slice(&frame), data, Some(hold));
        Ok(())
    }
}

fn too_large(bytes: usize, limit: u32) -> ErrorAnswer {
    let message = format!("the answer has {bytes} bytes, the client takes {limit}: ask for less");
    ErrorAnswer::new(ErrorCode::FrameTooLarge, message)
        .with_detail(ErrorDetail::BytesMax { bytes: u64::from(limit) })
}
