//! What the floor sends by itself: the batches of a subscription, from the mapped file, as far as
//! its credit goes.

use std::collections::HashMap;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use super::topics::Topic;
use crate::protocol::native::{batches, credit, subscribe};

/// Sent at a time: what one BATCHES frame carries.
const PIECE_BYTES: u64 = 1 << 20;

/// The credits of a connection's subscriptions.
#[derive(Default)]
pub(super) struct Credits {
    by_subscription: Mutex<HashMap<u32, credit::Request>>,
    changed: Condvar,
    /// The connection is gone: who sends to it ends, and lets go of its topic's files.
    closed: AtomicBool,
}

impl Credits {
    /// A subscription's credit is this from now on.
    pub(super) fn set(&self, credit: credit::Request) {
        lock(&self.by_subscription).insert(credit.subscription, credit);
        self.changed.notify_all();
    }

    /// Nothing is sent any more.
    pub(super) fn close(&self) {
        let credits = lock(&self.by_subscription);
        self.closed.store(true, Ordering::Relaxed);
        drop(credits);
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// Sends one subscription.
pub(super) struct Pusher {
    topic: Arc<Topic>,
    request: subscribe::Request,
    credits: Arc<Credits>,
    out: Arc<Mutex<TcpStream>>,
    sent_bytes: u64,
    sent_records: u64,
}

impl Pusher {
    /// Of a topic that was subscribed to.
    pub(super) fn new(
        topic: Arc<Topic>,
        request: subscribe::Request,
        credits: Arc<Credits>,
        out: Arc<Mutex<TcpStream>>,
    ) -> Pusher {
        Pusher { topic, request, credits, out, sent_bytes: 0, sent_records: 0 }
    }

    /// Runs until the connection is closed.
    pub(super) fn run(mut self) -> io::Result<()> {
        let topic = Arc::clone(&self.topic);
        let partition = topic.partition(self.request.partition).ok_or(io::ErrorKind::NotFound)?;
        let mut batch = partition.batch_at(self.request.from);
        while !self.credits.is_closed() {
            let window = self.window();
            let Some((slice, next)) = partition.read(batch, window.min(PIECE_BYTES)) else {
                partition.wait_for(batch, Duration::from_secs(1));
                continue;
            };
            batch = next;
            self.sent_bytes += slice.bytes.len() as u64;
            self.sent_records += slice.records;
            let notice = batches::Request {
                subscription: self.request.subscription,
                epoch: 0,
                next_offset: slice.next_offset,
                visible_end: slice.visible_end,
                sent_bytes: self.sent_bytes,
                sent_records: self.sent_records,
            };
            let mut head = Vec::with_capacity(128);
            let bytes = u32::try_from(slice.bytes.len()).unwrap_or(u32::MAX);
            batches::encode(&mut head, &notice, bytes);
            let mut buffers = [IoSlice::new(&head), IoSlice::new(&slice.bytes)];
            write_all_vectored(&mut lock(&self.out), &mut buffers)?;
        }
        Ok(())
    }

    /// Bytes that may be sent; waits while there are none and the connection lasts.
    fn window(&self) -> u64 {
        let credits = lock(&self.credits.by_subscription);
        let left = |credits: &HashMap<u32, credit::Request>| {
            let credit = credits.get(&self.request.subscription);
            credit.map_or(0, |c| {
                let records_left = c.records_to > self.sent_records;
                if records_left { c.bytes_to.saturating_sub(self.sent_bytes) } else { 0 }
            })
        };
        let waited = self
            .credits
            .changed
            .wait_while(credits, |credits| left(credits) == 0 && !self.credits.is_closed());
        left(&waited.unwrap_or_else(PoisonError::into_inner))
    }
}

fn write_all_vectored(socket: &mut TcpStream, mut buffers: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !buffers.is_empty() {
        match socket.write_vectored(buffers)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut buffers, written),
        }
    }
    Ok(())
}
