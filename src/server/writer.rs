//! The writing half of a connection: everything queued leaves in as few vectored writes as the
//! socket allows.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::outbox::{Outbox, Segment};

/// Slices of one write: the kernel takes 1,024, more than a few dozen gain nothing.
const SLICES_MAX: usize = 64;
/// Writes without waiting before other tasks get their turn.
const WRITES_PER_TURN: usize = 16;

/// Segments on their way, the first one perhaps partly written.
#[derive(Default)]
struct Batch {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that are written.
    written: usize,
}

/// Writes until the outbox is finished and empty, then closes the socket's sending side.
///
/// # Errors
/// The socket's, and `TimedOut` when the peer took nothing for `stall`.
pub(super) async fn write_all(
    outbox: &Outbox,
    socket: &TcpStream,
    stall: Duration,
) -> io::Result<()> {
    let mut batch = Batch::default();
    let mut writes = 0_usize;
    while outbox.take(&mut batch.segments).await {
        while !batch.segments.is_empty() {
            match batch.write(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    batch.advance(written, outbox);
                    writes += 1;
                    if writes.is_multiple_of(WRITES_PER_TURN) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    timeout(stall, socket.writable()).await??;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        outbox.sent();
    }
    SockRef::from(socket).shutdown(Shutdown::Write)
}

impl Batch {
    fn write(&self, socket: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut skip = self.written;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(&segment.bytes()[skip..]);
            skip = 0;
            count += 1;
        }
        socket.try_write_vectored(&slices[..count])
    }

    /// Drops what was written.
    fn advance(&mut self, written: usize, outbox: &Outbox) {
        self.written += written;
        while let Some(first) = self.segments.front()
            && self.written >= first.bytes().len()
        {
            self.written -= first.bytes().len();
            if let Some(Segment::Small(buffer)) = self.segments.pop_front() {
                outbox.written(buffer);
            }
        }
    }
}
