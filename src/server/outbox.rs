//! Answers of one connection on their way to its socket.
//!
//! Small answers are encoded straight into one buffer, so hundreds of acks leave in one write;
//! batches follow as the slices they are. Any thread may add: nothing here blocks or waits.
//!
//! The connection's writing task sends what is queued. Acks may leave without it: the log writer's
//! thread that answers a round sends them at its end, unless that task is sending or there is
//! something else to send.
//!
//! # Invariants
//! At most one sends at a time, so bytes leave in the order in which they were added.
//!
//! Bounded by its callers: every small answer belongs to a request that was admitted, no request
//! is read while `outbox_bytes_max` are queued, and batches hold a permit until they are written.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What is released when a segment was written or dropped.
pub(super) type Hold = Box<dyn Any + Send>;

/// The queue.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// There is something to write, or nothing more will come.
    wake: Notify,
    /// Something was written, or the connection is gone.
    room: Notify,
    /// The connection is gone.
    gone: Notify,
    /// Where acks go that leave without the writing task; it alone keeps the socket open.
    socket: Weak<TcpStream>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Segment>,
    /// Small answers behind the queue.
    open: Vec<u8>,
    /// An empty buffer to use next.
    spare: Vec<u8>,
    /// Bytes of small answers and heads that are queued.
    small_bytes: usize,
    /// Somebody sends what was taken out of here.
    sending: bool,
    finishing: bool,
    closed: bool,
}

/// Bytes to be written in order.
pub(super) enum Segment {
    /// Encoded answers.
    Small(Vec<u8>),
    /// Batches.
    Data(Data),
}

/// Batches, and what is held until they are written.
pub(super) struct Data {
    bytes: Bytes,
    _hold: Option<Hold>,
}

impl Segment {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Segment::Small(bytes) => bytes,
            Segment::Data(data) => &data.bytes,
        }
    }
}

/// Largest buffer kept for reuse.
const SPARE_BYTES_MAX: usize = 64 << 10;

impl Outbox {
    /// Answers that go to `socket`.
    pub(super) fn new(socket: Weak<TcpStream>) -> Outbox {
        Outbox { socket, ..Outbox::default() }
    }

    /// Adds small answers.
    pub(super) fn reply(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.add(encode) {
            self.wake.notify_one();
        }
    }

    /// Adds small answers and wakes nobody. `true` = nothing else was queued: whoever called must
    /// call [`Outbox::send_now`] soon.
    #[must_use]
    pub(super) fn add(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        let idle = state.is_empty();
        let before = state.open.len();
        encode(&mut state.open);
        let added = state.open.len() - before;
        state.small_bytes += added;
        idle
    }

    /// Sends small answers on this thread as far as the socket takes them at once; the writing task
    /// does the rest.
    pub(super) fn send_now(&self) {
        while let Some(mut answers) = self.take_small() {
            let socket = self.socket.upgrade();
            let sent = socket.map_or(Ok(0), |socket| socket.try_write(&answers)).unwrap_or(0);
            let whole = sent == answers.len();
            if whole {
                self.written(answers);
            } else {
                answers.drain(..sent);
                let mut state = self.lock();
                state.small_bytes = state.small_bytes.saturating_sub(sent);
                state.queue.push_front(Segment::Small(answers));
            }
            let mut state = self.lock();
            state.sending = false;
            // What came meanwhile woke the task in vain, or nobody.
            let woken = state.finishing || state.closed || !state.queue.is_empty();
            drop(state);
            if woken {
                return self.wake.notify_one();
            }
        }
    }

    /// The small answers that are queued, to be sent by the caller; `None` when there are none, or
    /// the writing task sends them.
    fn take_small(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        if state.sending || state.open.is_empty() {
            return None;
        }
        if !state.queue.is_empty() {
            drop(state);
            self.wake.notify_one();
            return None;
        }
        state.sending = true;
        let next = std::mem::take(&mut state.spare);
        Some(std::mem::replace(&mut state.open, next))
    }

    /// Adds an answer with batches; `hold` is dropped when they were written.
    pub(super) fn reply_data(
        &self,
        encode: impl FnOnce(&mut Vec<u8>),
        data: Vec<Bytes>,
        hold: Option<Hold>,
    ) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let idle = state.is_empty();
        let before = state.open.len();
        encode(&mut state.open);
        let added = state.open.len() - before;
        state.small_bytes += added;
        state.close_open();
        let last = data.len().saturating_sub(1);
        let mut hold = hold;
        for (at, bytes) in data.into_iter().enumerate() {
            let _hold = if at == last { hold.take() } else { None };
            state.queue.push_back(Segment::Data(Data { bytes, _hold }));
        }
        drop(state);
        if idle {
            self.wake.notify_one();
        }
    }

    /// Moves everything queued behind `batch`; waits while there is nothing. `false` = nothing is
    /// queued and nothing more will come.
    ///
    /// Nothing else is taken before [`Outbox::sent`].
    pub(super) async fn take(&self, batch: &mut VecDeque<Segment>) -> bool {
        loop {
            if let Some(taken) = self.try_take(batch) {
                return taken;
            }
            self.wake.notified().await;
        }
    }

    /// `None` = nothing may be taken yet.
    fn try_take(&self, batch: &mut VecDeque<Segment>) -> Option<bool> {
        let mut state = self.lock();
        if state.sending {
            return None;
        }
        state.close_open();
        if !state.queue.is_empty() {
            batch.append(&mut state.queue);
            state.sending = true;
            return Some(true);
        }
        (state.finishing || state.closed).then_some(false)
    }

    /// What was taken is sent.
    pub(super) fn sent(&self) {
        self.lock().sending = false;
    }

    /// A small segment was written: its buffer is used again.
    pub(super) fn written(&self, mut buffer: Vec<u8>) {
        let mut state = self.lock();
        state.small_bytes = state.small_bytes.saturating_sub(buffer.len());
        if buffer.capacity() <= SPARE_BYTES_MAX && state.spare.capacity() == 0 {
            buffer.clear();
            state.spare = buffer;
        }
        drop(state);
        self.room.notify_waiters();
    }

    /// Completes once fewer than `bytes` of small answers are queued, or the connection is gone.
    pub(super) async fn below(&self, bytes: usize) {
        until(&self.room, || self.is_below(bytes)).await;
    }

    /// Whether fewer than `bytes` of small answers are queued, or the connection is gone.
    pub(super) fn is_below(&self, bytes: usize) -> bool {
        let state = self.lock();
        state.closed || state.small_bytes < bytes
    }

    /// Nothing more will be added: what is queued is written, then the socket's side is closed.
    pub(super) fn finish(&self) {
        self.lock().finishing = true;
        self.wake.notify_one();
    }

    /// The socket is gone: what is queued and what comes is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        state.open = Vec::new();
        drop(state);
        drop(queue); // holds may wake others; not under the lock
        self.wake.notify_one();
        self.room.notify_waiters();
        self.gone.notify_waiters();
    }

    /// Whether the socket is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Completes once the socket is gone.
    pub(super) async fn closed(&self) {
        until(&self.gone, || self.is_closed()).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while encoding leaves half an answer at the end of `open`: the connection is
        // closed by its task's end, which is what a panic in it leads to.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes once `done`, which becomes true only before `told` tells.
async fn until(told: &Notify, done: impl Fn() -> bool) {
    loop {
        let told = told.notified();
        let mut told = std::pin::pin!(told);
        told.as_mut().enable();
        if done() {
            return;
        }
        told.await;
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.open.is_empty()
    }

    fn close_open(&mut self) {
        if !self.open.is_empty() {
            let next = std::mem::take(&mut self.spare);
            let full = std::mem::replace(&mut self.open, next);
            self.queue.push_back(Segment::Small(full));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn answers_keep_their_order_and_acks_share_a_buffer() {
        let outbox = Outbox::default();
        outbox.reply(|out| out.extend_from_slice(b"ack1"));
        outbox.reply(|out| out.extend_from_slice(b"ack2"));
        let data = vec![Bytes::from_static(b"batch"), Bytes::from_static(b"es")];
        outbox.reply_data(|out| out.extend_from_slice(b"head"), data, None);
        outbox.reply(|out| out.extend_from_slice(b"ack3"));
        let mut batch = VecDeque::new();
        assert!(outbox.take(&mut batch).await);
        let texts: Vec<_> = batch.iter().map(|segment| segment.bytes().to_vec()).collect();
        assert_eq!(texts, [&b"ack1ack2head"[..], b"batch", b"es", b"ack3"]);
        outbox.sent();
        outbox.finish();
        assert!(!outbox.take(&mut batch).await);
    }

    /// Both ends of a connection.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.expect("connected"), accepted.expect("accepted").0)
    }

    #[tokio::test]
    async fn acks_leave_at_once_but_never_before_what_was_queued_first() {
        let (mut client, server) = connected().await;
        server.writable().await.expect("open");
        let server = std::sync::Arc::new(server);
        let outbox = Outbox::new(std::sync::Arc::downgrade(&server));
        assert!(outbox.add(|out| out.extend_from_slice(b"ack1")));
        assert!(!outbox.add(|out| out.extend_from_slice(b"ack2")), "its sender is on the way");
        outbox.send_now();
        let mut got = [0; 8];
        client.read_exact(&mut got).await.expect("sent without a task");
        assert_eq!((&got, outbox.is_below(1)), (b"ack1ack2", true));

        // While the task sends, and while batches are queued, acks wait for their turn.
        let mut batch = VecDeque::new();
        outbox.reply(|out| out.extend_from_slice(b"head"));
        assert!(outbox.take(&mut batch).await);
        assert!(outbox.add(|out| out.extend_from_slice(b"ack3")));
        outbox.send_now();
        outbox.reply_data(|_| (), vec![Bytes::from_static(b"batch")], None);
        outbox.sent();
        outbox.send_now();
        batch.clear();
        assert!(outbox.take(&mut batch).await);
        let texts: Vec<_> = batch.iter().map(|segment| segment.bytes().to_vec()).collect();
        assert_eq!(texts, [&b"ack3"[..], b"batch"]);
        let read = client.try_read(&mut got).map_err(|error| error.kind());
        assert_eq!(read, Err(std::io::ErrorKind::WouldBlock), "nothing was sent meanwhile");
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_is_left_to_the_task() {
        let (mut client, server) = connected().await;
        server.writable().await.expect("open");
        let server = std::sync::Arc::new(server);
        let outbox = Outbox::new(std::sync::Arc::downgrade(&server));
        let much = vec![7; 64 << 20];
        assert!(outbox.add(|out| out.extend_from_slice(&much)));
        outbox.send_now();
        let mut batch = VecDeque::new();
        assert!(outbox.take(&mut batch).await, "the task is woken for the rest");
        let rest = batch.iter().map(|segment| segment.bytes().len()).sum::<usize>();
        drop((outbox, server));
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.expect("all that was sent");
        assert_eq!((got.len() + rest, rest > 0), (much.len(), true));
    }

    #[tokio::test]
    async fn a_closed_outbox_releases_what_is_held() {
        let outbox = Outbox::default();
        let hold = std::sync::Arc::new(());
        let data = vec![Bytes::from_static(b"batch")];
        outbox.reply_data(|_| (), data.clone(), Some(Box::new(hold.clone())));
        outbox.close();
        outbox.reply_data(|_| (), data, Some(Box::new(hold.clone())));
        assert_eq!(std::sync::Arc::strong_count(&hold), 1);
        outbox.closed().await;
        outbox.below(0).await;
    }
}
