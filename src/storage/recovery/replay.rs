//! Producer state: the newest valid snapshot, and the headers of all batches behind it.

use std::io;
use std::sync::Arc;

use crate::env::{Disk, File};
use crate::storage::index::Index;
use crate::storage::layout::{DATA_START, PartitionPaths};
use crate::storage::producer_state::ProducerState;
use crate::storage::small_file::read_small_file;
use crate::storage::snapshot::{SNAPSHOT_BYTES_MAX, decode_snapshot};
use crate::types::Offset;

use super::RecoveryContext;
use super::scan::HeaderWalk;

/// Snapshots of a partition.
pub(super) struct Snapshots {
    /// From the newest valid one, or nothing.
    pub state: ProducerState,
    /// What it covers.
    pub offset: Offset,
    /// Offsets of those that are valid, ascending.
    pub valid: Vec<Offset>,
    /// Those that do not read back.
    pub damaged: Vec<Offset>,
}

/// Reads the snapshots at `offsets`, which all are at or below the log end.
pub(super) fn load_snapshots(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    context: &RecoveryContext,
    offsets: &[Offset],
) -> io::Result<Snapshots> {
    let empty = ProducerState::new(context.producers);
    let mut found =
        Snapshots { state: empty, offset: Offset::ZERO, valid: Vec::new(), damaged: Vec::new() };
    for offset in offsets {
        let bytes = match read_small_file(disk, &paths.snapshot(*offset), SNAPSHOT_BYTES_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Vec::new(),
            Err(e) => return Err(e),
        };
        match decode_snapshot(&bytes, paths.id(), *offset, context.producers) {
            Ok(state) => {
                found.state = state;
                found.offset = *offset;
                found.valid.push(*offset);
            }
            Err(_) => found.damaged.push(*offset),
        }
    }
    Ok(found)
}

/// A segment's data, for replay.
pub(super) struct Source {
    pub file: Arc<dyn File>,
    pub base: Offset,
    /// Behind the last valid batch.
    pub end: u64,
    pub index: Option<Index>,
}

/// Lets the batches of a segment from `from` on change the state; the bytes gone over. Stops at
/// damage: what is behind it belongs to a fenced partition.
pub(super) fn replay(
    state: &mut ProducerState,
    source: &Source,
    from: Offset,
    context: &RecoveryContext,
) -> io::Result<u64> {
    let at = source.index.as_ref().and_then(|index| {
        let before = index.entries().partition_point(|entry| index.offset_of(entry) <= from);
        index.entries().get(before.checked_sub(1)?)
    });
    let start = at.map_or(DATA_START, |entry| u64::from(entry.position));
    let mut walk = HeaderWalk::new(Arc::clone(&source.file), start, source.end);
    loop {
        match walk.step() {
            Ok(Some((_, header, _))) if header.base_offset >= from => {
                state.record(&header, context.now);
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(source.end.saturating_sub(start)),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                tracing::debug!("segment {}: replay of producers stopped: {e}", source.base);
                return Ok(source.end.saturating_sub(start));
            }
            Err(e) => return Err(e),
        }
    }
}
