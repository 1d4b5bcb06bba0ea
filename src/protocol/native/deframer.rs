//! Received bytes to frames, without I/O: the caller reads into [`Deframer::spare`] and takes
//! frames out of [`Deframer::next_frame`].
//!
//! A large frame gets a buffer of its own size and is read to its very end (plus the next
//! header), so its batch is never moved; small ones share a buffer. Frames are slices of it.
//!
//! A large frame is announced as soon as its header came. Whoever does not want it skips it: its data
//! part is dropped as it arrives, but for the head that the frame's checksum binds.
//!
//! # Invariants
//! - `capacity <= max(CHUNK_BYTES, 2 * received, largest frame this peer has completed)`: a claimed
//!   length alone never allocates.
//! - Frames hold at most 4/3 of their bytes while all frames of a buffer are held.
//! - A skipped frame is what the whole one had been, but for its data part; the next frame starts
//!   where it would have.

use std::sync::Arc;

use bytes::buf::Limit;
use bytes::{BufMut, Bytes};

use super::answer::ErrorAnswer;
use super::frame::{BATCH_HEADER_BYTES, Frame, FrameError, FrameHeader, FrameLimits, HEADER_BYTES};
use super::pool::{BufferPool, CHUNK_BYTES, FIRST_BYTES};

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
    /// A good frame whose data part was dropped.
    Skipped(Skipped),
    /// One to be answered with an error.
    Refused(Refused),
}

/// A frame without its data part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The frame; of its data only the head that the checksum binds.
    pub frame: Frame,
    /// Bytes of the data part as it was sent.
    pub data_bytes: u32,
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
    /// The frame at the start of `filling`, once its header is there.
    pending: Option<Pending>,
    /// Capacity of a buffer for frames that are not known yet.
    chunk_bytes: usize,
    proven_bytes: usize,
    failed: Option<FrameError>,
}

/// A frame that is not whole.
#[derive(Debug)]
struct Pending {
    header: FrameHeader,
    told: bool,
    skip: Option<Skip>,
}

/// How a frame is skipped.
#[derive(Clone, Copy, Debug)]
struct Skip {
    /// Bytes at its start that are kept.
    keep: usize,
    /// Bytes after them that are still to come.
    left: u64,
}

impl Pending {
    fn is_large(&self) -> bool {
        self.header.frame_bytes() > SMALL_FRAME_BYTES
    }
}

impl Deframer {
    /// A deframer that holds no memory yet.
    pub fn new(limits: FrameLimits, pool: Arc<BufferPool>) -> Deframer {
        Deframer {
            limits,
            pool,
            filling: Vec::new(),
            ready: Bytes::new(),
            pending: None,
            chunk_bytes: FIRST_BYTES,
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
        let needed = self.needed_bytes();
        let allowed = self.chunk_bytes.max(received * 2).max(self.proven_bytes + HEADER_BYTES);
        let capacity = needed.min(allowed);
        if self.filling.capacity() < capacity.max(received + 1) {
            let mut larger = self.pool.take(capacity.max(received + 1));
            larger.extend_from_slice(&self.filling);
            self.pool.give_back(std::mem::replace(&mut self.filling, larger));
        }
        let room = self.filling.capacity() - received;
        let limit = match &self.pending {
            Some(Pending { skip: Some(skip), .. }) => {
                let left = usize::try_from(skip.left).unwrap_or(usize::MAX);
                room.min(skip.keep.saturating_sub(received).saturating_add(left))
            }
            Some(pending) if pending.is_large() => room.min(needed.saturating_sub(received)),
            Some(_) | None => room,
        };
        (&mut self.filling).limit(limit.max(1))
    }

    /// Size of the buffer that the next bytes are for.
    fn needed_bytes(&self) -> usize {
        let received = self.filling.len();
        match &self.pending {
            Some(Pending { skip: Some(skip), .. }) if received < skip.keep => skip.keep,
            Some(Pending { skip: Some(_), .. }) => received.saturating_add(self.chunk_bytes),
            Some(pending) if pending.is_large() => {
                let bytes = usize::try_from(pending.header.frame_bytes()).unwrap_or(usize::MAX);
                bytes.saturating_add(HEADER_BYTES)
            }
            Some(_) | None => self.chunk_bytes,
        }
    }

    /// The header of a large frame that is still to come; told once for each.
    pub fn announced(&mut self) -> Option<FrameHeader> {
        let pending =
            self.pending.as_mut().filter(|pending| pending.is_large() && !pending.told)?;
        pending.told = true;
        Some(pending.header)
    }

    /// Drops the data part of the frame that is being received; it ends as [`Received::Skipped`].
    pub fn skip_data(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        if pending.skip.is_none() {
            let head = pending.header.data_bytes.min(BATCH_HEADER_BYTES as u32);
            let keep = HEADER_BYTES + pending.header.control_bytes as usize + head as usize;
            let left = u64::from(pending.header.data_bytes - head);
            pending.skip = Some(Skip { keep, left });
            self.drop_data();
        }
    }

    /// The next frame, when a whole one is there.
    pub fn next_frame(&mut self) -> Result<Option<Received>, FrameError> {
        if self.ready.is_empty() {
            if let Some(skip) = self.drop_data() {
                let whole = skip.left == 0 && self.filling.len() >= skip.keep;
                return Ok(whole.then(|| self.take_skipped()).flatten());
            }
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
            Err(error) => refused(&header, error),
        }))
    }

    /// Gives memory back that waits for bytes which may never come. To be called when the socket
    /// has nothing more for now.
    pub fn park(&mut self) {
        if self.filling.is_empty() && self.filling.capacity() > 0 {
            self.pool.give_back(std::mem::take(&mut self.filling));
        } else if self.filling.len() <= PARKED_BYTES_MAX
            && self.filling.capacity() > PARKED_BYTES_MAX
        {
            let small = self.filling.as_slice().to_vec();
            self.pool.give_back(std::mem::replace(&mut self.filling, small));
        }
    }

    /// Bytes received of a started frame that is not whole yet; 0 between frames.
    pub fn started_bytes(&self) -> u64 {
        let kept = self.filling.len() as u64;
        let Some(Pending { header, skip: Some(skip), .. }) = &self.pending else { return kept };
        kept + header.frame_bytes().saturating_sub(skip.keep as u64 + skip.left)
    }

    /// Bytes of memory that what is not whole yet holds.
    pub fn held_bytes(&self) -> usize {
        self.filling.capacity()
    }

    /// Drops what was received of the data part of a frame that is skipped; `None` = none is.
    fn drop_data(&mut self) -> Option<Skip> {
        let skip = self.pending.as_mut()?.skip.as_mut()?;
        let data = self.filling.len().saturating_sub(skip.keep);
        self.filling.truncate(skip.keep);
        skip.left = skip.left.saturating_sub(data as u64);
        Some(*skip)
    }

    /// The frame that was skipped to its end.
    fn take_skipped(&mut self) -> Option<Received> {
        let header = self.pending.take()?.header;
        let body = Bytes::copy_from_slice(self.filling.get(HEADER_BYTES..).unwrap_or_default());
        self.filling.clear();
        Some(match Frame::check(&header, body) {
            Ok(frame) => Received::Skipped(Skipped { frame, data_bytes: header.data_bytes }),
            Err(error) => refused(&header, error),
        })
    }

    /// Moves the whole frames at the start of `filling` to `ready`.
    fn scan(&mut self) {
        if self.filling.len() == self.filling.capacity() && !self.filling.is_empty() {
            self.chunk_bytes = CHUNK_BYTES; // it sends more than a little
        }
        if let Some(pending) = &self.pending
            && pending.header.frame_bytes() > self.filling.len() as u64
        {
            return;
        }
        let mut whole = 0;
        self.pending = None;
        while self.failed.is_none() {
            let rest = self.filling.get(whole..).unwrap_or_default();
            let Some(raw) = rest.first_chunk::<HEADER_BYTES>() else { break };
            match FrameHeader::parse(raw, self.limits) {
                Ok(header) => {
                    let frame_bytes = usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX);
                    if frame_bytes > rest.len() {
                        self.pending = Some(Pending { header, told: false, skip: None });
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
        if whole < self.filling.capacity() / 4 * 3 {
            // Frames must not hold much more than themselves for as long as they are in flight.
            self.ready = Bytes::copy_from_slice(self.filling.get(..whole).unwrap_or_default());
            self.filling.drain(..whole);
            return;
        }
        let next = if rest.is_empty() {
            Vec::new()
        } else {
            let large = self.pending.as_ref().filter(|pending| pending.is_large());
            let capacity = large.map_or(0, |pending| {
                let bytes = usize::try_from(pending.header.frame_bytes()).unwrap_or(0);
                bytes.min(self.proven_bytes) + HEADER_BYTES
            });
            let mut next = self.pool.take(capacity.max(self.chunk_bytes).max(rest.len() + 1));
            next.extend_from_slice(rest);
            next
        };
        let mut full = std::mem::replace(&mut self.filling, next);
        full.truncate(whole);
        self.ready = self.pool.share(full);
    }
}

fn refused(header: &FrameHeader, error: ErrorAnswer) -> Received {
    Received::Refused(Refused {
        frame_type: header.frame_type,
        is_answer: header.flags.is_answer(),
        correlation: header.correlation,
        error,
    })
}

/// Feeds bytes whole and in pieces; both ways must give the same frames and never panic. Skipping
/// frames gives the same ones but for their data.
pub fn fuzz_deframer(data: &[u8]) {
    let run = |piece: usize, skip: bool| {
        let limits = FrameLimits { frame_bytes_max: 1 << 20, control_bytes_max: 1 << 20 };
        let mut deframer = Deframer::new(limits, BufferPool::new(1 << 20));
        let (mut rest, mut taken) = (data, Vec::new());
        loop {
            match deframer.next_frame() {
                Ok(Some(received)) => taken.push(received),
                Err(error) => return (taken, Some(error)),
                Ok(None) if rest.is_empty() => return (taken, None),
                Ok(None) => {
                    if skip && deframer.announced().is_some() {
                        deframer.skip_data();
                    }
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
    let (frames, error) = run(usize::MAX, false);
    let whole = (frames, error);
    assert_eq!(whole, run(7, false), "{ARRIVAL}");
    let (frames, error) = whole;
    let heads: Vec<Received> = frames.into_iter().map(head).collect();
    for piece in [usize::MAX, 7] {
        let (skipped, found) = run(piece, true);
        let skipped: Vec<Received> = skipped.into_iter().map(head).collect();
        assert_eq!((&skipped, &found), (&heads, &error), "{ARRIVAL}");
    }
}

const ARRIVAL: &str = "frames do not depend on how their bytes arrive, nor on what is skipped";

/// What skipping leaves of a frame.
fn head(received: Received) -> Received {
    let Received::Frame(frame) = received else { return received };
    let data_bytes = u32::try_from(frame.data.len()).unwrap_or(u32::MAX);
    let data = frame.data.slice(..frame.data.len().min(BATCH_HEADER_BYTES));
    Received::Skipped(Skipped { frame: Frame { data, ..frame }, data_bytes })
}

#[cfg(test)]
mod tests;
