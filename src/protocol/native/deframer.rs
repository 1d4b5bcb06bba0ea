//! Received bytes to frames, without I/O: the caller reads into [`Deframer::spare`] and takes
//! frames out of [`Deframer::next_frame`].
//!
//! A large frame gets a buffer of its own size and is read to its very end (plus the next
//! header), so its batch is never moved; small ones share a buffer. Frames are slices of it.
//!
//! # Invariants
//! `capacity <= max(CHUNK_BYTES, 2 * received, largest frame this peer has completed)`: a claimed
//! length alone never allocates.

use std::sync::Arc;

use bytes::buf::Limit;
use bytes::{BufMut, Bytes};

use super::answer::ErrorAnswer;
use super::frame::{Frame, FrameError, FrameHeader, FrameLimits, HEADER_BYTES};
use super::pool::{BufferPool, CHUNK_BYTES};

/// A frame that was refused while the connection stays usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Number of its type as it came.
    pub frame_type: u16,
    /// Whether it was an answer: those are not answered.
    pub is_answer: bool,
    /// Names the request.
    pub correlation: u64,
    /// Why.
    pub error: ErrorAnswer,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A good frame.
    Frame(Frame),
    /// One to be answered with an error.
    Refused(Refused),
}

/// Frames up to this size are read many at a time.
const SMALL_FRAME_BYTES: u64 = 16 << 10;
/// A started frame with at most so many bytes is moved to a buffer of its own while nothing more
/// comes, so that a silent connection holds no chunk.
const PARKED_BYTES_MAX: usize = 4 << 10;

/// Turns one connection's bytes into frames.
#[derive(Debug)]
pub struct Deframer {
    limits: FrameLimits,
    pool: Arc<BufferPool>,
    /// Received bytes that are not whole frames yet.
    filling: Vec<u8>,
    /// Whole frames that were not taken yet.
    ready: Bytes,
    /// Size of the frame at the start of `filling`, once its header is there.
    pending_bytes: Option<u64>,
    proven_bytes: usize,
    failed: Option<FrameError>,
}

impl Deframer {
    /// A deframer that holds no memory yet.
    pub fn new(limits: FrameLimits, pool: Arc<BufferPool>) -> Deframer {
        Deframer {
            limits,
            pool,
            filling: Vec::new(),
            ready: Bytes::new(),
            pending_bytes: None,
            proven_bytes: 0,
            failed: None,
        }
    }

    /// Sets the limits of the frames that are not received yet (after Hello).
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
        if matches!(self.failed, Some(FrameError::TooLarge { .. })) {
            self.failed = None; // judged by the old limits; the next scan judges again
        }
    }

    /// Where the next bytes are to be read; never empty. Read at most what it offers.
    pub fn spare(&mut self) -> Limit<&mut Vec<u8>> {
        let received = self.filling.len();
        let needed = match self.pending_bytes {
            Some(bytes) if bytes > SMALL_FRAME_BYTES => {
                usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(HEADER_BYTES)
            }
            Some(_) | None => CHUNK_BYTES,
        };
        let allowed = CHUNK_BYTES.max(received * 2).max(self.proven_bytes + HEADER_BYTES);
        let capacity = needed.min(allowed);
        if self.filling.capacity() < capacity.max(received + 1) {
            let mut larger = self.pool.take(capacity.max(received + 1));
            larger.extend_from_slice(&self.filling);
            self.pool.give_back(std::mem::replace(&mut self.filling, larger));
        }
        let room = self.filling.capacity() - received;
        let limit = if needed > CHUNK_BYTES || self.is_large() {
            room.min(needed.saturating_sub(received))
        } else {
            room
        };
        (&mut self.filling).limit(limit.max(1))
    }

    /// The next frame, when a whole one is there.
    pub fn next_frame(&mut self) -> Result<Option<Received>, FrameError> {
        if self.ready.is_empty() {
            self.scan();
        }
        let Some(raw) = self.ready.first_chunk::<HEADER_BYTES>() else {
            return match &self.failed {
                Some(error) => Err(error.clone()),
                None => Ok(None),
            };
        };
        let header = FrameHeader::fields(raw);
        let frame_bytes = usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX);
        let frame = self.ready.split_to(frame_bytes.min(self.ready.len()));
        let body = frame.slice(HEADER_BYTES..);
        Ok(Some(match Frame::check(&header, body) {
            Ok(frame) => Received::Frame(frame),
            Err(error) => Received::Refused(Refused {
                frame_type: header.frame_type,
                is_answer: header.flags.is_answer(),
                correlation: header.correlation,
                error,
            }),
        }))
    }

    /// Gives memory back that waits for bytes which may never come. To be called when the socket
    /// has nothing more for now.
    pub fn park(&mut self) {
        if self.filling.is_empty() && self.filling.capacity() > 0 {
            self.pool.give_back(std::mem::take(&mut self.filling));
        } else if self.filling.len() <= PARKED_BYTES_MAX && self.filling.capacity() >= CHUNK_BYTES {
            let small = self.filling.as_slice().to_vec();
            self.pool.give_back(std::mem::replace(&mut self.filling, small));
        }
    }

    /// Bytes of a started frame that is not whole yet; 0 between frames.
    pub fn started_bytes(&self) -> usize {
        self.filling.len()
    }

    fn is_large(&self) -> bool {
        self.pending_bytes.is_some_and(|bytes| bytes > SMALL_FRAME_BYTES)
    }

    /// Moves the whole frames at the start of `filling` to `ready`.
    fn scan(&mut self) {
        if let Some(bytes) = self.pending_bytes
            && bytes > self.filling.len() as u64
        {
            return;
        }
        let mut whole = 0;
        self.pending_bytes = None;
        while self.failed.is_none() {
            let rest = self.filling.get(whole..).unwrap_or_default();
            let Some(raw) = rest.first_chunk::<HEADER_BYTES>() else { break };
            match FrameHeader::parse(raw, self.limits) {
                Ok(header) => {
                    let frame_bytes = usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX);
                    if frame_bytes > rest.len() {
                        self.pending_bytes = Some(header.frame_bytes());
                        break;
                    }
                    whole += frame_bytes;
                    self.proven_bytes = self.proven_bytes.max(frame_bytes);
                }
                Err(error) => self.failed = Some(error),
            }
            // Hello changes the limits: what follows it is judged after it was taken.
            if self.limits == FrameLimits::BEFORE_HELLO && whole > 0 {
                break;
            }
        }
        if whole > 0 {
            self.hand_over(whole);
        }
    }

    /// Shares the first `whole` bytes as frames and keeps the rest.
    fn hand_over(&mut self, whole: usize) {
        let rest = self.filling.get(whole..).unwrap_or_default();
        if whole < self.filling.capacity() / 4 {
            // A small frame must not hold a large buffer for as long as it is in flight.
            self.ready = Bytes::copy_from_slice(self.filling.get(..whole).unwrap_or_default());
            self.filling.drain(..whole);
            return;
        }
        let next = if rest.is_empty() {
            Vec::new()
        } else {
            let capacity = self.pending_bytes.filter(|_| self.is_large()).map_or(0, |bytes| {
                usize::try_from(bytes).unwrap_or(0).min(self.proven_bytes) + HEADER_BYTES
            });
            let mut next = self.pool.take(capacity.max(CHUNK_BYTES).max(rest.len() + 1));
            next.extend_from_slice(rest);
            next
        };
        let mut full = std::mem::replace(&mut self.filling, next);
        full.truncate(whole);
        self.ready = self.pool.share(full);
    }
}

/// Feeds bytes whole and in pieces; both ways must give the same frames and never panic.
pub fn fuzz_deframer(data: &[u8]) {
    let run = |piece: usize| {
        let limits = FrameLimits { frame_bytes_max: 1 << 20, control_bytes_max: 1 << 20 };
        let mut deframer = Deframer::new(limits, BufferPool::new(1 << 20));
        let (mut rest, mut taken) = (data, Vec::new());
        loop {
            match deframer.next_frame() {
                Ok(Some(received)) => taken.push(received),
                Err(error) => return (taken, Some(error)),
                Ok(None) if rest.is_empty() => return (taken, None),
                Ok(None) => {
                    deframer.park();
                    let mut spare = deframer.spare();
                    let len = piece.min(rest.len()).min(spare.remaining_mut());
                    let (now, later) = rest.split_at(len);
                    spare.put_slice(now);
                    rest = later;
                }
            }
        }
    };
    assert_eq!(run(usize::MAX), run(7), "frames do not depend on how their bytes arrive");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::native::{encode_call, ping, produce};
    use crate::types::{Acks, ErrorCode, PartitionId, TopicId};

    fn produce_frame(batch: &[u8]) -> Vec<u8> {
        let request = produce::Request {
            publisher: 0,
            topic: TopicId::from_bytes([7; 16]),
            partition: PartitionId(3),
            acks: Acks::Os,
            deadline_ms: 0,
        };
        let mut out = Vec::new();
        produce::encode(&mut out, 9, &request, batch);
        out.extend_from_slice(batch);
        out
    }

    fn feed(deframer: &mut Deframer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut spare = deframer.spare();
            let len = bytes.len().min(spare.remaining_mut());
            spare.put_slice(&bytes[..len]);
            bytes = &bytes[len..];
            if len < bytes.len() {
                break;
            }
        }
        assert!(bytes.is_empty(), "the caller takes frames between reads");
    }

    #[test]
    fn frames_do_not_depend_on_how_they_arrive() {
        let mut stream = Vec::new();
        for size in [0, 100, 70_000, 20_000, 5, 300_000, 64 << 10, 64 << 10] {
            stream.extend_from_slice(&produce_frame(&vec![size as u8; size]));
            encode_call(&mut stream, 1, &ping::Request {});
        }
        fuzz_deframer(&stream);
        fuzz_deframer(&stream[..stream.len() - 3]);
    }

    #[test]
    fn a_large_batch_is_not_moved_once_its_size_is_proven() {
        let frame = produce_frame(&vec![1; 1 << 20]);
        let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(64 << 20));
        let stream = [frame.as_slice(), &frame, &frame].concat();
        let (mut rest, mut reads, mut frames) = (stream.as_slice(), 0, 0);
        while frames < 3 {
            if let Some(Received::Frame(frame)) = deframer.next_frame().expect("good frames") {
                assert_eq!(frame.data.len(), 1 << 20);
                frames += 1;
                reads = 0;
                continue;
            }
            let mut spare = deframer.spare();
            let len = rest.len().min(spare.remaining_mut());
            spare.put_slice(&rest[..len]);
            rest = &rest[len..];
            reads += 1;
            assert!(frames == 0 || reads <= 1, "one read fills the whole frame");
        }
    }

    #[test]
    fn a_claimed_length_alone_allocates_nothing() {
        let frame = produce_frame(&vec![1; 8 << 20]);
        let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
        for received in [1024, 60_000, 200_000] {
            let have = deframer.started_bytes();
            feed(&mut deframer, &frame[have..received]);
            assert_eq!(deframer.next_frame(), Ok(None));
            let capacity = deframer.spare().get_ref().capacity();
            assert!(capacity <= CHUNK_BYTES.max(4 * received), "{capacity} for {received}");
        }
        let mut silent = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
        feed(&mut silent, &frame[..1024]);
        assert_eq!(silent.next_frame(), Ok(None));
        silent.park();
        assert!(silent.filling.capacity() <= 1024);
    }

    #[test]
    fn a_bad_body_is_refused_and_the_next_frame_is_read() {
        let mut stream = produce_frame(b"batch");
        let flipped = stream.len() - 1;
        stream[flipped] ^= 1;
        encode_call(&mut stream, 10, &ping::Request {});
        let mut deframer = Deframer::new(FrameLimits::DEFAULT, BufferPool::new(0));
        feed(&mut deframer, &stream);
        match deframer.next_frame() {
            Ok(Some(Received::Refused(refused))) => {
                assert_eq!(refused.error.code, ErrorCode::ChecksumMismatch);
                assert_eq!(refused.correlation, 9);
            }
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(deframer.next_frame(), Ok(Some(Received::Frame(f))) if f.correlation == 10)
        );
    }

    #[test]
    fn a_frame_before_hello_is_small() {
        let frame = produce_frame(&vec![0; 70_000]);
        let mut deframer = Deframer::new(FrameLimits::BEFORE_HELLO, BufferPool::new(0));
        feed(&mut deframer, &frame[..32]);
        assert!(matches!(deframer.next_frame(), Err(FrameError::TooLarge { correlation: 9, .. })));
    }
}
