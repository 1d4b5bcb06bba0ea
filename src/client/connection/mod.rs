//! One connection: requests multiplexed by correlation id, answers in any order, notices to whom
//! they concern. A reader and a writer task own the halves of the socket; whoever asks only queues
//! a whole frame and waits, so that a dropped future never harms the connection.
//!
//! Deliberately absent: reconnecting (`Client` does) and retries.

mod open;
mod outbox;
mod reader;
mod written;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::ClientError;
use crate::protocol::native::{
    Call, ErrorAnswer, Frame, Notice, batches, encode_call, encode_notice, grant, produce, pushback,
};
use crate::types::Acks;
use outbox::Outbox;
use written::Written;

/// Where the answer to a PRODUCE goes; called exactly once, maybe on the reader's task: it must
/// not block.
pub(super) trait ProduceSink: Send {
    fn done(self: Box<Self>, answer: Result<produce::Response, ClientError>);
}

impl<F: FnOnce(Result<produce::Response, ClientError>) + Send> ProduceSink for F {
    fn done(self: Box<Self>, answer: Result<produce::Response, ClientError>) {
        self(answer)
    }
}

/// Where a publisher's notices go.
pub(super) trait PublisherSink: Send + Sync {
    /// How far it may send.
    fn grant(&self, grant: &grant::Request);
    /// News that hold until told otherwise.
    fn pushback(&self, notice: &pushback::Request);
    /// No more notices come.
    fn lost(&self);
}

/// What happens to a subscription.
#[derive(Debug)]
pub(super) enum SubscriptionEvent {
    /// Batches came.
    Batches(batches::Request, Bytes),
    /// The broker ended it.
    End(u32, ErrorAnswer),
    /// What was asked for last, SUBSCRIBE included, is done.
    Told,
    /// It is not: the broker knows nothing of it, or stands where it stood.
    Refused(ClientError),
}

/// An event and the subscription it belongs to.
pub(super) type Delivered = (u32, SubscriptionEvent);

enum Pending {
    Call { answer: oneshot::Sender<Result<Frame, ClientError>>, _permit: OwnedSemaphorePermit },
    Produce(Box<dyn ProduceSink>),
    Ordered(Box<dyn FnOnce(Result<Frame, ClientError>) + Send>),
}

#[derive(Default)]
struct State {
    closed: Option<ClientError>,
    pending: HashMap<u64, Pending>,
    publishers: HashMap<u32, Arc<dyn PublisherSink>>,
    subscriptions: HashMap<u32, mpsc::UnboundedSender<Delivered>>,
}

/// An open connection.
pub(super) struct Connection {
    address: String,
    /// Names the broker's process: requests on their way to one die with it.
    writer_id: Arc<str>,
    outbox: Outbox,
    state: Mutex<State>,
    requests: Arc<Semaphore>,
    correlations: AtomicU64,
    subscription_numbers: AtomicU32,
    /// How many are open.
    subscriptions: AtomicU64,
    closed: watch::Sender<bool>,
    draining: AtomicBool,
    /// Frames received so far: what keeps the connection from being taken for dead.
    received: AtomicU64,
    /// Bytes written and read, but for HELLO.
    traffic_bytes: AtomicU64,
}

impl Connection {
    /// Whether new work should go to another connection.
    pub(super) fn is_spent(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.lock().closed.is_some()
    }

    /// The broker's process, by a name of its own.
    pub(super) fn writer_id(&self) -> Arc<str> {
        Arc::clone(&self.writer_id)
    }

    /// Returns when the connection is closed.
    pub(super) async fn closed(&self) {
        // An error means that the sender is gone, and with it the connection.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// One request, one answer.
    pub(super) async fn call<C: Call>(
        &self,
        call: &C,
        timeout: Duration,
    ) -> Result<C::Answer, ClientError> {
        let (frame, _) = self.call_frame(call, timeout).await?;
        frame.answer::<C>().map_err(ClientError::from)
    }

    /// One request, its answer's frame: for those whose data part matters.
    pub(super) async fn call_frame<C: Call>(
        &self,
        call: &C,
        timeout: Duration,
    ) -> Result<(Frame, u64), ClientError> {
        let timed_out = || ClientError::TimedOut { what: C::TYPE.name(), after: timeout };
        let answer = async {
            let permit = Arc::clone(&self.requests).acquire_owned().await;
            let permit = permit.map_err(|_| ClientError::Closed)?;
            let (sender, receiver) = oneshot::channel();
            let correlation = self.next_correlation();
            let pending = Pending::Call { answer: sender, _permit: permit };
            self.register(correlation, pending).map_err(|(error, _)| error)?;
            // When it is closed by now, so is the call.
            let _ = self.outbox.push(|out| encode_call(out, correlation, call), None, None);
            // The sender is dropped only by `close`, which answers first.
            let frame = receiver.await.map_err(|_| self.lost("closed"))??;
            Ok((frame, correlation))
        };
        tokio::time::timeout(timeout, answer).await.map_err(|_| timed_out())?
    }

    /// Queues one request now, behind everything queued before: for those whose order matters, and
    /// which the broker answers at once and does not count. The sink is called when it is
    /// answered, never from within this call.
    ///
    /// # Errors
    /// The connection is closed; the sink was dropped and will not be called.
    pub(super) fn call_in_order<C: Call>(
        &self,
        call: &C,
        sink: impl FnOnce(Result<C::Answer, ClientError>) + Send + 'static,
    ) -> Result<(), ClientError> {
        let decode =
            |answer: Result<Frame, ClientError>| answer?.answer::<C>().map_err(ClientError::from);
        let pending = Pending::Ordered(Box::new(move |answer| sink(decode(answer))));
        let correlation = self.next_correlation();
        self.register(correlation, pending).map_err(|(error, _)| error)?;
        // When it is closed by now, the sink was told.
        let _ = self.outbox.push(|out| encode_call(out, correlation, call), None, None);
        Ok(())
    }

    /// Sends a frame that has no answer; a closed connection takes it and does nothing.
    pub(super) fn notify<N: Notice>(&self, notice: &N) {
        let _ = self.outbox.push(|out| encode_notice(out, 0, notice), None, None);
    }

    /// Queues one batch. The sink is called when it is answered, or, with `Acks::None`, written;
    /// never from within this call, so that the caller may hold its own lock.
    ///
    /// # Errors
    /// The connection is closed; the sink was dropped and will not be called.
    pub(super) fn produce(
        &self,
        request: &produce::Request,
        batch: Bytes,
        sink: Box<dyn ProduceSink>,
    ) -> Result<(), ClientError> {
        let correlation = self.next_correlation();
        let mut written = None;
        if request.acks == Acks::None {
            if let Some(cause) = &self.lock().closed {
                return Err(cause.clone());
            }
            let lost = self.lost("not written");
            written = Some(Written::new(sink, lost));
        } else {
            self.register(correlation, Pending::Produce(sink)).map_err(|(error, _)| error)?;
        }
        let head = batch.clone();
        let encode = |out: &mut Vec<u8>| produce::encode(out, correlation, request, &head);
        match self.outbox.push(encode, Some(batch), written) {
            // An answered batch was registered, so whoever closed the connection tells its sink.
            Err(Some(written)) => {
                written.forget();
                Err(self.lost("closed"))
            }
            Ok(()) | Err(None) => Ok(()),
        }
    }

    /// Where the notices of a publisher go from now on.
    pub(super) fn add_publisher(&self, publisher: u32, sink: Arc<dyn PublisherSink>) {
        let mut state = self.lock();
        if state.closed.is_none() {
            state.publishers.insert(publisher, sink);
        }
    }

    /// The publisher is closed.
    pub(super) fn remove_publisher(&self, publisher: u32) {
        self.lock().publishers.remove(&publisher);
    }

    /// A number for a new subscription, whose events go to `sink`.
    pub(super) fn add_subscription(&self, sink: mpsc::UnboundedSender<Delivered>) -> u32 {
        let number = self.subscription_numbers.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if state.closed.is_none() {
            state.subscriptions.insert(number, sink);
            self.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        number
    }

    /// Bytes that went over the wire in either direction, but for HELLO.
    pub(super) fn traffic_bytes(&self) -> u64 {
        self.traffic_bytes.load(Ordering::Relaxed)
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> u64 {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// The subscription is over; later events of it are dropped.
    pub(super) fn remove_subscription(&self, number: u32) {
        self.take_subscription(number);
    }

    fn take_subscription(&self, number: u32) -> Option<mpsc::UnboundedSender<Delivered>> {
        let sink = self.lock().subscriptions.remove(&number)?;
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        Some(sink)
    }

    /// Closes the connection; whatever waits gets `cause`.
    pub(super) fn close(&self, cause: ClientError) {
        let state = {
            let mut state = self.lock();
            if state.closed.is_some() {
                return;
            }
            let failed = State { closed: Some(cause.clone()), ..State::default() };
            std::mem::replace(&mut *state, failed)
        };
        self.outbox.close();
        self.requests.close();
        for pending in state.pending.into_values() {
            pending.fail(cause.clone());
        }
        for publisher in state.publishers.into_values() {
            publisher.lost();
        }
        self.closed.send_replace(true);
    }

    fn lost(&self, cause: impl ToString) -> ClientError {
        ClientError::ConnectionLost { address: self.address.clone(), cause: cause.to_string() }
    }

    fn next_correlation(&self) -> u64 {
        self.correlations.fetch_add(1, Ordering::Relaxed)
    }

    fn register(&self, correlation: u64, pending: Pending) -> Result<(), (ClientError, Pending)> {
        let mut state = self.lock();
        if let Some(cause) = &state.closed {
            return Err((cause.clone(), pending));
        }
        state.pending.insert(correlation, pending);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is a single insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn fail(self, cause: ClientError) {
        match self {
            // Nobody waits any more: fine.
            Pending::Call { answer, .. } => drop(answer.send(Err(cause))),
            Pending::Produce(sink) => sink.done(Err(cause)),
            Pending::Ordered(sink) => sink(Err(cause)),
        }
    }
}
