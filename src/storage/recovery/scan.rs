//! Reading a segment from batch to batch by `pread` in large blocks, never by the map: a device
//! error is an error here and not a signal.
//!
//! A batch is *valid* behind a tail when its header reads, its length lies within bounds, its
//! counts agree, it continues the tail (the next offset; a later one only where the leader epoch
//! grows; the epoch never falls) and its CRC-32C holds.

use std::io;
use std::sync::Arc;

use crate::env::{File, read_full_at};
use crate::record::{BATCH_HEADER_BYTES, BatchHeader, CRC_FROM, crc32c};
use crate::types::{LeaderEpoch, Offset};

use crate::storage::index::Index;
use crate::storage::layout::BATCH_BYTES_MAX;
use crate::storage::tail::SegmentTail;

/// Bytes read at once where batches are checked one after another.
const BLOCK_BYTES: usize = 1 << 20;

/// A window of the file in memory.
pub(crate) struct Window {
    file: Arc<dyn File>,
    start: u64,
    bytes: Vec<u8>,
    end: u64,
}

impl Window {
    /// Nothing is read at or behind `end`.
    pub(crate) fn new(file: Arc<dyn File>, end: u64) -> Window {
        Window { file, start: 0, bytes: Vec::new(), end }
    }

    /// `len` bytes at `position`, or as many as there are before the end; `ahead` more are read
    /// with them when a read is needed.
    pub(crate) fn at(&mut self, position: u64, len: usize, ahead: usize) -> io::Result<&[u8]> {
        let have = self.start..self.start + self.bytes.len() as u64;
        let wanted = position..(position + len as u64).min(self.end);
        if wanted.start >= wanted.end {
            return Ok(&[]);
        }
        if !(have.start <= wanted.start && wanted.end <= have.end) {
            let to = (wanted.end + ahead as u64).min(self.end);
            self.bytes.resize(usize::try_from(to - position).unwrap_or(0), 0);
            let read = read_full_at(self.file.as_ref(), &mut self.bytes, position)?;
            self.bytes.truncate(read);
            self.start = position;
        }
        let from = usize::try_from(position - self.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.bytes.len());
        Ok(self.bytes.get(from..to).unwrap_or(&[]))
    }
}

/// What makes bytes at a tail not the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// The end of what was to be scanned.
    End,
    /// No batch header, impossible length or counts, or the batch is cut off.
    Header,
    /// A batch, but not the next one.
    Order,
    /// The next batch, of an older epoch: the header before it may be the damaged one.
    Epoch,
    /// Its checksum does not match.
    Checksum,
}

/// Goes over a segment's batches, keeping the tail.
pub(crate) struct Scan {
    window: Window,
    /// State behind the last valid batch.
    pub(crate) tail: SegmentTail,
    /// Where the batch before the tail starts.
    pub(crate) last: Option<(u64, Offset)>,
    /// Epoch that an offset gap in front of the first batch must exceed.
    floor_epoch: LeaderEpoch,
}

impl Scan {
    /// Scans `[tail.position, end)`. `created_epoch` is the segment's epoch at its creation.
    pub(crate) fn new(
        file: Arc<dyn File>,
        tail: SegmentTail,
        end: u64,
        created_epoch: LeaderEpoch,
    ) -> Scan {
        Scan { window: Window::new(file, end), tail, last: None, floor_epoch: created_epoch }
    }

    /// Goes over the next batch and returns its header, or says why there is none.
    pub(crate) fn step(&mut self) -> io::Result<Result<BatchHeader, Invalid>> {
        let position = self.tail.position;
        if position >= self.window.end {
            return Ok(Err(Invalid::End));
        }
        let head = self.window.at(position, BATCH_HEADER_BYTES, BLOCK_BYTES)?;
        let Some(header) = plausible(head) else { return Ok(Err(Invalid::Header)) };
        if let Err(invalid) = self.continues(&header) {
            return Ok(Err(invalid));
        }
        let bytes = self.window.at(position, header.size_bytes(), BLOCK_BYTES)?;
        if bytes.len() < header.size_bytes() {
            return Ok(Err(Invalid::Header));
        }
        if bytes.get(CRC_FROM..).map(crc32c) != Some(header.crc) {
            return Ok(Err(Invalid::Checksum));
        }
        if let Some((head, payload)) = bytes.split_first_chunk() {
            self.tail.push(&header, head, payload);
        }
        self.last = Some((position, header.base_offset));
        Ok(Ok(header))
    }

    /// Bytes of a batch that was just gone over.
    pub(crate) fn bytes(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        self.window.at(position, len, 0)
    }

    fn continues(&self, header: &BatchHeader) -> Result<(), Invalid> {
        let tail = &self.tail;
        let last_epoch = if tail.is_empty() { self.floor_epoch } else { tail.last_epoch };
        let grows = header.leader_epoch > last_epoch;
        let follows = header.base_offset == tail.next_offset;
        match follows || (grows && header.base_offset > tail.next_offset) {
            true if header.leader_epoch >= tail.last_epoch => Ok(()),
            true => Err(Invalid::Epoch),
            false => Err(Invalid::Order),
        }
    }
}

/// The header at the start of `head`, when a batch could begin with it.
pub(crate) fn plausible(head: &[u8]) -> Option<BatchHeader> {
    let header = BatchHeader::read(head).ok()?;
    let sane = header.size_bytes() as u64 <= BATCH_BYTES_MAX
        && header.base_offset >= Offset::ZERO
        && header.last_offset_delta >= 0
        && header.next_offset() > header.base_offset
        && header.record_count >= 0;
    sane.then_some(header)
}

/// Scans until something is not valid, pushing index entries; what stopped it. `seen` gets every
/// header.
pub(crate) fn scan_to_end(
    scan: &mut Scan,
    index: &mut Index,
    mut seen: impl FnMut(&BatchHeader, &SegmentTail),
) -> io::Result<Invalid> {
    loop {
        let before = scan.tail;
        match scan.step()? {
            Ok(header) => {
                if index.is_due(&before) {
                    index.push(&before, header.base_offset);
                }
                seen(&header, &before);
            }
            Err(why) => return Ok(why),
        }
    }
}

/// The first valid batch that starts in `[from, end)`, by trying every byte. Its base offset must be
/// at least `above`.
pub(crate) fn find_batch(
    file: &Arc<dyn File>,
    from: u64,
    end: u64,
    above: Offset,
) -> io::Result<Option<(u64, BatchHeader)>> {
    let mut window = Window::new(Arc::clone(file), end);
    let mut probe = Window::new(Arc::clone(file), end);
    let mut position = from;
    while position + BATCH_HEADER_BYTES as u64 <= end {
        let piece = window.at(position, BLOCK_BYTES, 0)?.to_vec();
        if piece.len() < BATCH_HEADER_BYTES {
            break;
        }
        for (skipped, head) in piece.windows(BATCH_HEADER_BYTES).enumerate() {
            let Some(header) = candidate(head, above) else { continue };
            let at = position + skipped as u64;
            let bytes = probe.at(at, header.size_bytes(), 0)?;
            let whole = bytes.len() == header.size_bytes();
            if whole && bytes.get(CRC_FROM..).map(crc32c) == Some(header.crc) {
                return Ok(Some((at, header)));
            }
        }
        position += (piece.len() - BATCH_HEADER_BYTES + 1) as u64;
    }
    Ok(None)
}

/// Cheap tests first: of random bytes one in 256 has the magic.
fn candidate(head: &[u8], above: Offset) -> Option<BatchHeader> {
    if head.get(16) != Some(&2) {
        return None;
    }
    plausible(head).filter(|header| header.base_offset >= above)
}

/// Position behind the last byte of `[from, end)` that is not zero, or `from`.
pub(crate) fn last_non_zero(file: &dyn File, from: u64, end: u64) -> io::Result<u64> {
    let mut last = from;
    let mut position = from;
    let mut block = vec![0; BLOCK_BYTES];
    while position < end {
        let len = usize::try_from(end - position).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let Some(piece) = block.get_mut(..len) else { break };
        let read = read_full_at(file, piece, position)?;
        if read == 0 {
            break;
        }
        let found = piece.get(..read).and_then(|bytes| bytes.iter().rposition(|b| *b != 0));
        if let Some(found) = found {
            last = position + found as u64 + 1;
        }
        position += read as u64;
    }
    Ok(last)
}

/// Batch headers one after another without reading what is between them where batches are large.
pub(crate) struct HeaderWalk {
    window: Window,
    position: u64,
    end: u64,
    last_bytes: usize,
}

impl HeaderWalk {
    /// Walks the batches of `[position, end)`, both borders of batches.
    pub(crate) fn new(file: Arc<dyn File>, position: u64, end: u64) -> HeaderWalk {
        HeaderWalk { window: Window::new(file, end), position, end, last_bytes: 0 }
    }

    /// The next header and where it was; `None` at the end.
    ///
    /// # Errors
    /// `InvalidData` where there is none.
    pub(crate) fn step(
        &mut self,
    ) -> io::Result<Option<(u64, BatchHeader, [u8; BATCH_HEADER_BYTES])>> {
        const AHEAD_BYTES: usize = 64 << 10;
        // Behind a large batch the next header is far: what is between is not read.
        let ahead = if self.last_bytes >= AHEAD_BYTES / 4 { 0 } else { AHEAD_BYTES };
        if self.position >= self.end {
            return Ok(None);
        }
        let at = self.position;
        let bytes = self.window.at(at, BATCH_HEADER_BYTES, ahead)?;
        let found = plausible(bytes).zip(bytes.first_chunk().copied());
        let Some((header, head)) = found else { return Err(no_batch(at)) };
        self.last_bytes = header.size_bytes();
        self.position += header.size_bytes() as u64;
        if self.position > self.end {
            return Err(no_batch(at));
        }
        Ok(Some((at, header, head)))
    }
}

pub(crate) fn no_batch(position: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no batch at position {position}"))
}
