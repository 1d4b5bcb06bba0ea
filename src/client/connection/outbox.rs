//! Frames on their way out: heads are encoded into one buffer, data parts are kept as they are, and
//! everything queued leaves by vectored writes.
//!
//! # Invariants
//! A frame is queued whole or not at all, so a caller that is cancelled never tears one.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

use super::written::Written;

#[derive(Default)]
struct Queue {
    heads: Vec<u8>,
    cuts: Vec<Cut>,
    closed: bool,
}

/// After so many bytes of heads comes this data.
struct Cut {
    head_end: usize,
    data: Bytes,
    written: Option<Written>,
}

/// What is to be written.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

impl Outbox {
    /// Queues a frame, or gives `written` back when the connection is closed.
    pub(super) fn push(
        &self,
        encode: impl FnOnce(&mut Vec<u8>),
        data: Option<Bytes>,
        written: Option<Written>,
    ) -> Result<(), Option<Written>> {
        {
            let mut queue = self.lock();
            if queue.closed {
                return Err(written);
            }
            encode(&mut queue.heads);
            if data.is_some() || written.is_some() {
                let head_end = queue.heads.len();
                queue.cuts.push(Cut { head_end, data: data.unwrap_or_default(), written });
            }
        }
        self.filled.notify_one();
        Ok(())
    }

    /// Everything that is queued, as soon as there is anything; `None` when closed.
    pub(super) async fn take(&self) -> Option<Outgoing> {
        loop {
            {
                let mut queue = self.lock();
                if queue.closed {
                    return None;
                }
                if !queue.heads.is_empty() {
                    let heads = std::mem::take(&mut queue.heads);
                    return Some(Outgoing::new(heads, std::mem::take(&mut queue.cuts)));
                }
            }
            self.filled.notified().await;
        }
    }

    /// Nothing is taken or given out any more.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        let unwritten = std::mem::replace(&mut *queue, Queue { closed: true, ..Queue::default() });
        drop(queue);
        self.filled.notify_one();
        // Tells sinks, which take locks of their own.
        drop(unwritten);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // The queue is whole at any moment: `encode` only appends.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames that are being written.
pub(super) struct Outgoing {
    pieces: VecDeque<Bytes>,
    written: Vec<Written>,
    remaining: usize,
}

impl Outgoing {
    fn new(heads: Vec<u8>, cuts: Vec<Cut>) -> Outgoing {
        let mut heads = Bytes::from(heads);
        let mut outgoing = Outgoing { pieces: VecDeque::new(), written: Vec::new(), remaining: 0 };
        let mut taken = 0;
        for cut in cuts {
            outgoing.add(heads.split_to(cut.head_end - taken));
            taken = cut.head_end;
            outgoing.add(cut.data);
            outgoing.written.extend(cut.written);
        }
        outgoing.add(heads);
        outgoing
    }

    fn add(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.remaining += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// All bytes are out.
    pub(super) fn finish(self) {
        self.written.into_iter().for_each(Written::done);
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        self.remaining -= count;
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else { return };
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_leave_in_order_and_whole() {
        let outbox = Outbox::default();
        assert!(outbox.push(|out| out.extend_from_slice(b"one"), None, None).is_ok());
        let batch = Bytes::from_static(b"BATCH");
        assert!(outbox.push(|out| out.extend_from_slice(b"two"), Some(batch), None).is_ok());
        assert!(outbox.push(|out| out.extend_from_slice(b"three"), None, None).is_ok());
        let mut outgoing = outbox.take().await.expect("open");
        assert_eq!(outgoing.pieces.len(), 3);
        let mut all = Vec::new();
        while outgoing.has_remaining() {
            let step = outgoing.chunk().len().min(2);
            all.extend_from_slice(&outgoing.chunk()[..step]);
            outgoing.advance(step);
        }
        assert_eq!(all, b"onetwoBATCHthree");
        outbox.close();
        assert!(outbox.push(|_| {}, None, None).is_err());
        assert!(outbox.take().await.is_none());
    }
}
