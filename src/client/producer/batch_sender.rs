//! Batches that were built before, sent as they are: no work per record, no sequence numbers, no
//! retries. For load generators and for tools that copy logs.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Delivered;
use crate::client::connection::{Connection, ProduceSink, PublisherSink};
use crate::client::core::Core;
use crate::client::flow::PublisherWindow;
use crate::client::moment::moment;
use crate::client::{ClientError, Topic};
use crate::protocol::native::{grant, produce, publisher_close, publisher_open, pushback, want};
use crate::types::{Acks, Class, ErrorCode, PartitionId};

/// A sender of batches on one connection.
#[derive(Clone)]
pub struct BatchSender {
    /// Keeps the connection open.
    _core: Arc<Core>,
    connection: Arc<Connection>,
    topic: Topic,
    /// `None`: no grants, the broker's pool alone decides.
    publisher: Option<Arc<Guard>>,
}

/// Closes the publisher with the last clone of its sender.
struct Guard(Arc<Publisher>);

/// A publisher and the batches that wait for its grants, in order.
struct Publisher {
    /// Held by it.
    connection: Weak<Connection>,
    state: Mutex<State>,
}

struct State {
    window: PublisherWindow,
    waiting: VecDeque<Waiting>,
    /// It said that it is blocked, and heard nothing since.
    wants: bool,
}

struct Waiting {
    request: produce::Request,
    batch: Bytes,
    sink: Box<dyn ProduceSink>,
}

impl BatchSender {
    /// One that sends as far as it is granted.
    pub(in crate::client) async fn open(
        core: Arc<Core>,
        topic: Topic,
        class: Class,
    ) -> Result<BatchSender, ClientError> {
        let connection = core.connection().await?;
        let request = publisher_open::Request { topic: topic.id, class };
        let publisher = match connection.call(&request, core.options.request_timeout).await {
            Ok(opened) => Some(Arc::new(Guard(Publisher::open(&connection, &opened)))),
            Err(error) if error.code() == ErrorCode::Unsupported => None,
            Err(error) => return Err(error),
        };
        Ok(BatchSender { _core: core, connection, topic, publisher })
    }

    /// One that sends whatever it is given.
    pub(in crate::client) async fn unlimited(
        core: Arc<Core>,
        topic: Topic,
    ) -> Result<BatchSender, ClientError> {
        let connection = core.connection().await?;
        Ok(BatchSender { _core: core, connection, topic, publisher: None })
    }

    /// The topic, as it was when the sender was made.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Queues one batch, behind those that wait for a grant; the future only waits for its answer. How
    /// many may wait is the caller's business.
    pub fn produce_batch(
        &self,
        partition: PartitionId,
        batch: Bytes,
        acks: Acks,
    ) -> impl Future<Output = Result<Delivered, ClientError>> + Send + use<> {
        let publisher = self.publisher.clone();
        let request = produce::Request {
            publisher: publisher.as_ref().map_or(0, |publisher| publisher.0.number()),
            topic: self.topic.id,
            partition,
            acks,
            deadline_ms: 0,
        };
        let (sender, receiver) = oneshot::channel();
        let sink = Box::new(move |answer| drop(sender.send(answer)));
        let queued = match &publisher {
            Some(publisher) => {
                publisher.0.push(Waiting { request, batch, sink });
                Ok(())
            }
            None => self.connection.produce(&request, batch, sink),
        };
        async move {
            let _keeps_open = publisher;
            queued?;
            let answer = receiver.await.map_err(|_| ClientError::Closed)??;
            Ok(Delivered {
                partition,
                offset: answer.base_offset,
                timestamp: answer.append_time,
                level: answer.level,
                duplicate: answer.duplicate,
            })
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(connection) = self.0.connection.upgrade() else { return };
        let publisher = self.0.number();
        connection.remove_publisher(publisher);
        // The broker closes it with the connection anyway.
        let _ = connection.call_in_order(&publisher_close::Request { publisher }, drop);
    }
}

impl Publisher {
    fn open(connection: &Arc<Connection>, opened: &publisher_open::Response) -> Arc<Publisher> {
        let window = PublisherWindow::new(opened, moment(Instant::now()));
        let state = State { window, waiting: VecDeque::new(), wants: false };
        let publisher =
            Publisher { connection: Arc::downgrade(connection), state: Mutex::new(state) };
        let publisher = Arc::new(publisher);
        connection.add_publisher(opened.grant.publisher, Arc::new(Arc::clone(&publisher)));
        publisher
    }

    fn number(&self) -> u32 {
        self.lock().window.publisher()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters and a queue; a panic between two of them is a defect.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, waiting: Waiting) {
        let mut state = self.lock();
        state.waiting.push_back(waiting);
        if state.waiting.len() == 1 {
            self.pump(&mut state);
        }
    }

    /// Sends what may be sent; says so when that is not everything.
    fn pump(self: &Arc<Self>, state: &mut State) {
        let Some(connection) = self.connection.upgrade() else { return state.waiting.clear() };
        while let Some(head) = state.waiting.front() {
            let bytes = head.batch.len() as u64;
            if !state.window.admits(bytes, moment(Instant::now())) {
                if !std::mem::replace(&mut state.wants, true) {
                    let publisher = state.window.publisher();
                    connection.notify(&want::Request { publisher, bytes });
                }
                return;
            }
            let Some(Waiting { request, batch, sink }) = state.waiting.pop_front() else { return };
            let (publisher, answers) = (Arc::clone(self), request.acks != Acks::None);
            let sink = Box::new(move |answer| {
                sink.done(answer);
                if answers {
                    publisher.answered(bytes);
                }
            });
            state.window.sent(bytes);
            // On a closed connection the sink is dropped, and who waits for it learns that.
            let _ = connection.produce(&request, batch, sink);
        }
    }

    fn answered(self: &Arc<Self>, bytes: u64) {
        let mut state = self.lock();
        state.window.answered(bytes);
        self.pump(&mut state);
    }
}

impl PublisherSink for Arc<Publisher> {
    fn grant(&self, grant: &grant::Request) {
        let mut state = self.lock();
        state.window.grant(grant, moment(Instant::now()));
        state.wants = false;
        self.pump(&mut state);
    }

    /// Each refused batch is answered as well.
    fn pushback(&self, _notice: &pushback::Request) {}

    fn lost(&self) {
        self.lock().waiting.clear();
    }
}
