//! Answers of one connection on their way to its socket.
//!
//! Small answers are encoded straight into one buffer, so hundreds of acks leave in one write;
//! batches follow as the slices they are. Any thread may add: nothing here blocks or waits.
//!
//! Bounded by its callers: every small answer belongs to a request that was admitted, no request
//! is read while `outbox_bytes_max` are queued, and batches hold a permit until they are written.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
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
    /// Adds small answers.
    pub(super) fn reply(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let idle = state.is_empty();
        let before = state.open.len();
        encode(&mut state.open);
        let added = state.open.len() - before;
        state.small_bytes += added;
        drop(state);
        if idle {
            self.wake.notify_one();
        }
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
    pub(super) async fn take(&self, batch: &mut VecDeque<Segment>) -> bool {
        loop {
            {
                let mut state = self.lock();
                state.close_open();
                if !state.queue.is_empty() {
                    batch.append(&mut state.queue);
                    return true;
                }
                if state.finishing || state.closed {
                    return false;
                }
            }
            self.wake.notified().await;
        }
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
        outbox.finish();
        assert!(!outbox.take(&mut batch).await);
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
