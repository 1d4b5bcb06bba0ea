//! How far readers of this boot had seen a segment, remembered over the drop of the page cache.
//!
//! Recovery drops the cache, for after a failed sync it may hold what the device does not. A process
//! killed behind that leaves nothing that says how much there had been, and its successor would hand
//! those offsets out again. So it is written down first, to a file that only has to outlive the
//! process: nothing is synced, and after another boot it means nothing.

use std::io;

use crate::env::{Disk, OpenMode, write_all_at};
use crate::storage::fields::{FieldReader, FieldWriter, FormatError};
use crate::storage::layout::PartitionPaths;
use crate::storage::small_file::read_small_file;
use crate::types::Offset;

const MAGIC: &[u8; 8] = b"STPSEEN1";
const STRUCTURE: &str = "seen end";
const SEEN_BYTES: usize = 8 + 16 + 8 + 8 + 4;

/// The end that was seen of the segment at `base`, if a recovery of this boot wrote it down.
pub(super) fn recall(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    boot_id: [u8; 16],
    base: Offset,
) -> io::Result<Option<Offset>> {
    match read_small_file(disk, &paths.seen(base), SEEN_BYTES as u64) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| decode(&bytes, boot_id, base).ok())),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes it down for processes of this boot.
pub(super) fn remember(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    boot_id: [u8; 16],
    base: Offset,
    seen_end: Offset,
) -> io::Result<()> {
    let fields = FieldWriter::new(MAGIC, SEEN_BYTES).bytes(&boot_id);
    let bytes = fields.i64(base.0).i64(seen_end.0).seal_tight();
    let file = disk.open(&paths.seen(base), OpenMode::Truncate)?;
    write_all_at(file.as_ref(), &bytes, 0)
}

/// What recovery found is durable: it is of no more use.
pub(super) fn forget(disk: &dyn Disk, paths: &PartitionPaths, base: Offset) -> io::Result<()> {
    match disk.remove_file(&paths.seen(base)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn decode(bytes: &[u8], boot_id: [u8; 16], base: Offset) -> Result<Offset, FormatError> {
    let mut fields = FieldReader::open(bytes, MAGIC, STRUCTURE)?;
    if fields.bytes()? != boot_id || fields.i64()? != base.0 {
        return Err(FormatError::Foreign { structure: STRUCTURE, field: "boot or segment" });
    }
    let seen_end = Offset(fields.natural("seen end")?);
    fields.finish()?;
    Ok(seen_end)
}
