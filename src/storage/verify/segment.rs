//! One segment, read whole: runs of valid batches, and what lies between them.

use std::io;
use std::sync::Arc;

use crate::env::File;
use crate::record::{BatchView, DecodeLimits};
use crate::storage::index::Index;
use crate::storage::recovery::scan::{Invalid, Scan, find_batch};
use crate::storage::recovery::sealed::tail_behind_damage;
use crate::storage::tail::SegmentTail;
use crate::types::{LeaderEpoch, Offset};

use super::VerifyDepth;

/// Valid batches one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValidRun {
    /// Position of the first.
    pub position: u64,
    /// Its offset.
    pub first: Offset,
    /// Position behind the last.
    pub end: u64,
    /// Offset behind the last.
    pub next: Offset,
}

/// Bytes that are no valid batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRange {
    /// Where they start.
    pub position: u64,
    /// First offset that is lost.
    pub first: Offset,
    /// Where valid batches go on, and at which offset.
    pub resume: Option<(u64, Offset)>,
}

/// A segment's batches below some position.
#[derive(Clone, Debug)]
pub(crate) struct SegmentRead {
    /// In order.
    pub runs: Vec<ValidRun>,
    /// In order.
    pub bad: Vec<BadRange>,
    /// State at the end; exact while nothing is bad.
    pub tail: SegmentTail,
    /// Borders that an index may name; exact while nothing is bad.
    pub index: Index,
    /// Batches whose records do not decode: position, offset, what is wrong.
    pub undecodable: Vec<(u64, Offset, String)>,
    /// Valid batches, their records and bytes.
    pub counts: (u64, u64, u64),
}

/// Reads `[from.position, end)`.
pub(crate) fn read_segment(
    file: &Arc<dyn File>,
    from: SegmentTail,
    end: u64,
    created: LeaderEpoch,
    depth: VerifyDepth,
) -> io::Result<SegmentRead> {
    let mut read = SegmentRead {
        runs: Vec::new(),
        bad: Vec::new(),
        tail: from,
        index: Index::new(from.next_offset),
        undecodable: Vec::new(),
        counts: (0, 0, 0),
    };
    loop {
        let mut scan = Scan::new(Arc::clone(file), read.tail, end, created);
        let (run, why) = read_run(&mut scan, &mut read, depth)?;
        let mut stop = scan.tail;
        let mut run = run;
        if let (Invalid::Epoch, Some((position, offset))) = (why, scan.last) {
            stop = SegmentTail { position, next_offset: offset, ..stop };
            run = run.map(|run| ValidRun { end: position, next: offset, ..run });
        }
        read.runs.extend(run.filter(|run| run.end > run.position));
        read.tail = stop;
        if stop.position >= end {
            return Ok(read);
        }
        let found = find_batch(file, stop.position + 1, end, stop.next_offset + 1)?;
        let resume = found.map(|(at, header)| (at, header.base_offset));
        read.bad.push(BadRange { position: stop.position, first: stop.next_offset, resume });
        let Some((at, offset)) = resume else { return Ok(read) };
        read.tail = tail_behind_damage(at, offset, &stop);
    }
}

fn read_run(
    scan: &mut Scan,
    read: &mut SegmentRead,
    depth: VerifyDepth,
) -> io::Result<(Option<ValidRun>, Invalid)> {
    let mut run: Option<ValidRun> = None;
    loop {
        let before = scan.tail;
        let header = match scan.step()? {
            Ok(header) => header,
            Err(why) => return Ok((run, why)),
        };
        if read.index.is_due(&before) {
            read.index.push(&before, header.base_offset);
        }
        let (position, end) = (before.position, scan.tail.position);
        let start = run.unwrap_or(ValidRun {
            position,
            first: header.base_offset,
            end,
            next: header.next_offset(),
        });
        run = Some(ValidRun { end, next: header.next_offset(), ..start });
        let (batches, records, bytes) = read.counts;
        let count = u64::try_from(header.record_count).unwrap_or(0);
        read.counts = (batches + 1, records + count, bytes + (end - position));
        if depth == VerifyDepth::Records
            && let Err(what) = check_records(scan.bytes(position, header.size_bytes())?)
        {
            read.undecodable.push((position, header.base_offset, what));
        }
    }
}

/// Walks the records of one batch.
fn check_records(bytes: &[u8]) -> Result<(), String> {
    let (view, _) = BatchView::parse(bytes).map_err(|e| e.to_string())?;
    let payload = view.payload(&DecodeLimits::default()).map_err(|e| e.to_string())?;
    for record in payload.records() {
        record.map_err(|e| e.to_string())?;
    }
    Ok(())
}
