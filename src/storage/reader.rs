//! Reads as plans: what to return is decided from memory, fetched later, elsewhere, in one of two
//! ways.
//!
//! *Mapped*: slices of the mapped segment, for a socket write and nothing else (a device error
//! there is EFAULT). *Owned*: `pread` into memory, for whatever is parsed in the process. Whole
//! batches only; the first one may exceed `max_bytes`, so that a reader never stalls.
//!
//! Blocking is the caller's choice (DESIGN D8): `is_resident` says whether `mapped` would wait for
//! the device; if so, `populate` runs on a thread that may wait, first.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::error::ReadError;
use super::partition::PartitionShared;
use super::segment::{Border, Segment, SegmentState, last_entry};
use crate::env::read_full_at;
use crate::record::{BATCH_HEADER_BYTES, BatchHeader};
use crate::types::{Offset, PartitionHealth, Timestamp};

/// What a reader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The first offset it wants.
    pub from: Offset,
    /// Bytes it wants at most; one batch may exceed it.
    pub max_bytes: usize,
}

/// What a read returns, decided and not yet fetched. Holds its segment: a trim in between changes
/// nothing for it.
#[derive(Clone)]
pub struct ReadPlan {
    segment: Option<Arc<Segment>>,
    from: Offset,
    max_bytes: u64,
    /// Reads stop before this offset.
    until: Offset,
    high: Offset,
    extent: Option<Extent>,
}

/// Batches of a plan: `[start, end)` in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u64,
    end: u64,
    next: Offset,
}

/// Data this close to the end of the log was written lately and is taken to be in memory.
const TAIL_BYTES: u64 = 64 << 20;
/// Headers are read in pieces of this: the index names a batch every 4 KiB.
const WALK_BYTES: usize = 4096 + BATCH_HEADER_BYTES;
/// `populate` brings in at most this per call, so that one reader does not hold a thread for long.
const POPULATE_BYTES: u64 = 1 << 20;

impl ReadPlan {
    pub(crate) fn build(
        partition: &Arc<PartitionShared>,
        request: ReadRequest,
    ) -> Result<ReadPlan, ReadError> {
        if partition.is_closed() {
            return Err(ReadError::Closed);
        }
        let ends = partition.offsets();
        let (start, end, from) = (ends.start, ends.visible_end, request.from);
        if from < start || from > end {
            return Err(ReadError::OffsetOutOfRange { from, start, end });
        }
        let until = readable_until(&partition.health(), from, end)?;
        let mut plan = ReadPlan {
            segment: None,
            from,
            max_bytes: request.max_bytes as u64,
            until,
            high: end,
            extent: None,
        };
        if from < until {
            let segments = partition.segments();
            let segments = segments.as_deref().map_or(&[][..], Vec::as_slice);
            plan.segment = segment_of(segments, from);
        }
        plan.locate_in_memory()?;
        Ok(plan)
    }

    /// The visible end when the plan was made.
    pub fn high(&self) -> Offset {
        self.high
    }

    /// Whether there is nothing to read: the reader is at the visible end.
    pub fn is_empty(&self) -> bool {
        self.segment.is_none()
    }

    /// Where the next read goes on, and the bytes of this one. `None` before `populate` when the
    /// plan is not resident.
    pub fn extent(&self) -> Option<(Offset, usize)> {
        match (&self.segment, self.extent) {
            (None, _) => Some((self.from, 0)),
            (Some(_), extent) => extent.map(|e| (e.next, (e.end - e.start) as usize)),
        }
    }

    /// Whether `mapped` and `owned` return without waiting for the device. A hint.
    pub fn is_resident(&self) -> bool {
        let Some(segment) = &self.segment else { return true };
        let Some(extent) = self.extent else { return false };
        if is_near_tail(segment, extent.start) {
            return true;
        }
        let Ok(map) = segment.map(extent.end) else { return false };
        map.is_resident(extent.start..extent.end)
    }

    /// Completes the plan and brings its bytes into memory. Waits for the device.
    ///
    /// # Errors
    /// `Io`.
    pub fn populate(&mut self) -> Result<(), ReadError> {
        self.locate()?;
        let (Some(segment), Some(extent)) = (&self.segment, self.extent) else { return Ok(()) };
        let map = segment.map(extent.end).map_err(refused)?;
        let mut position = extent.start;
        while position < extent.end {
            let to = (position + POPULATE_BYTES).min(extent.end);
            segment.populate_ahead(&map, position, to, 1).map_err(refused)?;
            position = to;
        }
        Ok(())
    }

    /// Slices of the mapped segment: only for a socket write.
    ///
    /// # Errors
    /// `Io`.
    pub fn mapped(&mut self) -> Result<Vec<Bytes>, ReadError> {
        self.locate()?;
        let (Some(segment), Some(extent)) = (&self.segment, self.extent) else {
            return Ok(Vec::new());
        };
        let map = segment.map(extent.end).map_err(refused)?;
        let ahead = segment.read_ahead_bytes();
        segment.populate_ahead(&map, extent.start, extent.end, ahead).map_err(refused)?;
        let bytes = map.slice(extent.start..extent.end);
        Ok(vec![bytes.ok_or_else(|| refused(io::ErrorKind::UnexpectedEof.into()))?])
    }

    /// The bytes, read into memory of their own.
    ///
    /// # Errors
    /// `Io`.
    pub fn owned(&mut self) -> Result<Vec<Bytes>, ReadError> {
        self.locate()?;
        let (Some(segment), Some(extent)) = (&self.segment, self.extent) else {
            return Ok(Vec::new());
        };
        let file = segment.file().map_err(refused)?;
        let mut bytes = vec![0; (extent.end - extent.start) as usize];
        let read = read_full_at(file.as_ref(), &mut bytes, extent.start).map_err(refused)?;
        if read < bytes.len() {
            return Err(refused(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(vec![Bytes::from(bytes)])
    }

    /// Locates the batches when that needs no file that may be cold.
    fn locate_in_memory(&mut self) -> Result<(), ReadError> {
        let Some(segment) = self.segment.clone() else { return Ok(()) };
        if !segment.has_index() {
            return Ok(());
        }
        let found = segment.with_index(|entries, state| self.floor(entries, state, &segment));
        let (start, _) = found.map_err(refused)?;
        let walks = start.offset != self.from;
        let warm = is_near_tail(&segment, start.position)
            || segment
                .existing_map()
                .is_some_and(|map| map.is_resident(start.position..start.position + 1));
        if !walks || warm { self.locate() } else { Ok(()) }
    }

    /// Finds the batches: the index names one at most 4 KiB before, headers lead from there.
    fn locate(&mut self) -> Result<(), ReadError> {
        let Some(segment) = &self.segment else { return Ok(()) };
        if self.extent.is_some() {
            return Ok(());
        }
        let (floor, visible) = segment
            .with_index(|entries, state| self.floor(entries, state, segment))
            .map_err(refused)?;
        let mut walk = Walk::new(segment, floor, visible);
        while let Some(next) = walk.peek().map_err(refused)? {
            if next.offset > self.from {
                break;
            }
            walk.step(next);
        }
        let start = walk.at;
        let goal = start.position.saturating_add(self.max_bytes);
        let skip = segment
            .with_index(|entries, state| self.ceiling(entries, state.visible, goal, segment))
            .map_err(refused)?;
        if let Some(border) = skip.filter(|border| border.position > start.position) {
            walk.jump(border);
        }
        // At least one batch, and then what still fits; half of what was asked for is enough to
        // save reading another header.
        let enough = start.position + self.max_bytes / 2;
        while walk.at.position < enough.max(start.position + 1) && walk.at.offset < self.until {
            let Some(next) = walk.peek().map_err(refused)? else { break };
            if next.position > goal && walk.at.position > start.position {
                break;
            }
            walk.step(next);
        }
        if walk.at.position == start.position {
            self.segment = None;
            return Ok(());
        }
        let (end, next) = (walk.at.position, walk.at.offset);
        self.extent = Some(Extent { start: start.position, end, next });
        Ok(())
    }

    /// The border in the index at or before `from`, and the visible end of the segment.
    fn floor(
        &self,
        entries: &[super::index::IndexEntry],
        state: &SegmentState,
        segment: &Segment,
    ) -> (Border, Border) {
        let base = segment.base_offset;
        let entry = last_entry(entries, |e| base + i64::from(e.rel_offset) <= self.from);
        let first = Border { position: super::layout::DATA_START, offset: base };
        let border = entry.map_or(first, |e| border_of(base, e));
        (border, state.visible)
    }

    /// The last known border at or before position `goal` and offset `until`.
    fn ceiling(
        &self,
        entries: &[super::index::IndexEntry],
        visible: Border,
        goal: u64,
        segment: &Segment,
    ) -> Option<Border> {
        if visible.position <= goal && visible.offset <= self.until {
            return Some(visible);
        }
        let base = segment.base_offset;
        let entry = last_entry(entries, |e| {
            let border = border_of(base, e);
            border.position <= goal.min(visible.position) && border.offset <= self.until
        });
        entry.map(|e| border_of(base, e))
    }
}

impl std::fmt::Debug for ReadPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let base = self.segment.as_ref().map(|segment| segment.base_offset);
        f.debug_struct("ReadPlan")
            .field("from", &self.from)
            .field("segment", &base)
            .field("extent", &self.extent)
            .finish_non_exhaustive()
    }
}

/// From batch to batch by their headers, below the visible end.
struct Walk<'a> {
    segment: &'a Arc<Segment>,
    at: Border,
    end: Border,
    piece: Vec<u8>,
    piece_at: u64,
    /// Largest timestamp of the batch `peek` saw last, and its first offset.
    seen: (Timestamp, Offset),
}

impl<'a> Walk<'a> {
    fn new(segment: &'a Arc<Segment>, at: Border, end: Border) -> Walk<'a> {
        let seen = (Timestamp::NONE, at.offset);
        Walk { segment, at, end, piece: Vec::new(), piece_at: 0, seen }
    }

    fn jump(&mut self, to: Border) {
        self.at = to;
    }

    fn step(&mut self, to: Border) {
        self.at = to;
    }

    /// The border behind the batch that starts here; `None` at the visible end.
    fn peek(&mut self) -> io::Result<Option<Border>> {
        if self.at.position >= self.end.position {
            return Ok(None);
        }
        let header = self.header(self.at)?;
        let border = Border {
            position: self.at.position + header.size_bytes() as u64,
            offset: header.next_offset(),
        };
        let forward = border.offset > header.base_offset && border.offset <= self.end.offset;
        if !forward || border.position > self.end.position || !self.follows(&header, border)? {
            return Err(damaged(self.segment, self.at));
        }
        self.seen = (header.max_timestamp, header.base_offset);
        Ok(Some(border))
    }

    /// The base offset is outside of the batch's CRC. Skipped offsets lie only before the first
    /// batch of a segment, and then the second one has to bear it out.
    fn follows(&mut self, header: &BatchHeader, border: Border) -> io::Result<bool> {
        if header.base_offset == self.at.offset {
            return Ok(true);
        }
        let first = self.at.position == super::layout::DATA_START;
        if !first || header.base_offset < self.at.offset {
            return Ok(false);
        }
        let last = border.position >= self.end.position;
        Ok(last || self.header(border)?.base_offset == border.offset)
    }

    fn header(&mut self, at: Border) -> io::Result<BatchHeader> {
        let bytes = match self.in_piece(at) {
            Some(bytes) => bytes,
            None => {
                self.fill(at)?;
                self.in_piece(at).ok_or_else(|| damaged(self.segment, at))?
            }
        };
        BatchHeader::read(bytes).map_err(|_| damaged(self.segment, at))
    }

    fn in_piece(&self, at: Border) -> Option<&[u8]> {
        let from = usize::try_from(at.position.checked_sub(self.piece_at)?).ok()?;
        self.piece.get(from..from.checked_add(BATCH_HEADER_BYTES)?)
    }

    fn fill(&mut self, at: Border) -> io::Result<()> {
        let bytes = (self.end.position - at.position).min(WALK_BYTES as u64);
        self.piece.resize(bytes as usize, 0);
        self.piece_at = at.position;
        let file = self.segment.file()?;
        let read = read_full_at(file.as_ref(), &mut self.piece, self.piece_at)?;
        self.piece.truncate(read);
        Ok(())
    }
}

/// The first batch with a timestamp at or after `at`.
pub(crate) fn offset_at(
    partition: &Arc<PartitionShared>,
    at: Timestamp,
) -> Result<Option<(Offset, Timestamp)>, ReadError> {
    if partition.is_closed() {
        return Err(ReadError::Closed);
    }
    let ends = partition.offsets();
    let segments = partition.segments();
    for segment in segments.as_deref().map_or(&[][..], Vec::as_slice) {
        let (before, end) = {
            let state = segment.read();
            let over = state.footer.as_ref().is_some_and(|f| f.tail.max_timestamp < at);
            (over || state.visible.offset <= ends.start, state.visible)
        };
        if before {
            continue;
        }
        if let Some(found) = first_at(segment, end, ends.start, at).map_err(refused)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn first_at(
    segment: &Arc<Segment>,
    end: Border,
    log_start: Offset,
    at: Timestamp,
) -> io::Result<Option<(Offset, Timestamp)>> {
    let base = segment.base_offset;
    let from = segment.with_index(|entries, _| {
        // Entries state the largest timestamp before them: all earlier batches are too old.
        let entry = last_entry(entries, |e| e.max_timestamp < at);
        let first = Border { position: super::layout::DATA_START, offset: base };
        entry.map_or(first, |e| border_of(base, e))
    })?;
    let mut walk = Walk::new(segment, from, end);
    while let Some(next) = walk.peek()? {
        let (timestamp, first) = walk.seen;
        if timestamp >= at && next.offset > log_start {
            return Ok(Some((first.max(log_start), timestamp)));
        }
        walk.step(next);
    }
    Ok(None)
}

/// The segment in which the batch of `from`, or the first one after it, lies.
fn segment_of(segments: &[Arc<Segment>], from: Offset) -> Option<Arc<Segment>> {
    let first = segments.partition_point(|s| s.base_offset <= from).saturating_sub(1);
    let candidates = segments.get(first..)?.iter();
    candidates.clone().find(|segment| segment.read_visible().offset > from).cloned()
}

/// Where reads from `from` on must stop.
fn readable_until(
    health: &PartitionHealth,
    from: Offset,
    end: Offset,
) -> Result<Offset, ReadError> {
    let PartitionHealth::Fenced { first_bad, next_good } = health else { return Ok(end) };
    let (first_bad, next_good) = (*first_bad, *next_good);
    if from < first_bad {
        return Ok(end.min(first_bad));
    }
    match next_good {
        Some(good) if from >= good => Ok(end),
        _ if from >= end => Ok(end),
        _ => Err(ReadError::Corrupt { first_bad, next_good }),
    }
}

fn is_near_tail(segment: &Segment, position: u64) -> bool {
    let state = segment.read();
    state.footer.is_none() && position.saturating_add(TAIL_BYTES) >= state.written.position
}

fn border_of(base: Offset, entry: &super::index::IndexEntry) -> Border {
    Border { position: u64::from(entry.position), offset: base + i64::from(entry.rel_offset) }
}

fn damaged(segment: &Segment, at: Border) -> io::Error {
    let base = segment.base_offset;
    let text = format!("segment {base}: no batch at position {}", at.position);
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn refused(error: io::Error) -> ReadError {
    ReadError::Io { cause: error.to_string() }
}
