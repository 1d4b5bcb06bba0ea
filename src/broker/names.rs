//! Names of topics out of a data directory that no broker has open: for `stoplog verify`, which must
//! not write anything. What cannot be read leaves names out; it is never an error of the log.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::catalog::{Catalog, CatalogRecord};
use super::encoding;
use super::internal_log::{InternalId, Machine as _, newest_snapshot};
use crate::env::{Disk, OpenMode, read_full_at};
use crate::record::{DecodeLimits, Records};
use crate::storage::{DATA_START, FileName, PartitionPaths};
use crate::types::{Offset, TopicId};

/// Larger than any segment of the catalog.
const SEGMENT_BYTES_MAX: u64 = 128 << 20;

/// The names of all topics, by id, as far as the catalog can be read.
///
/// # Errors
/// What the device says.
pub fn topic_names(disk: &dyn Disk) -> io::Result<BTreeMap<TopicId, String>> {
    let mut catalog = Catalog::default();
    let mut next = Offset::ZERO;
    if let Some((after, payload)) = newest_snapshot(disk, InternalId::CATALOG)?
        && let Ok(records) = encoding::decode::<Vec<CatalogRecord>>(&payload)
    {
        records.iter().for_each(|record| catalog.apply(record));
        next = after;
    }
    let paths = PartitionPaths::new(InternalId::CATALOG.partition());
    if disk.exists(paths.dir())? {
        for entry in disk.read_dir(paths.dir())? {
            if let FileName::Log(base) = FileName::parse(&entry.name) {
                apply_segment(disk, &paths, base, next, &mut catalog)?;
            }
        }
    }
    Ok(catalog.topics().map(|(id, topic)| (id, topic.name.to_string())).collect())
}

/// Applies the records from `next` on, up to the first that cannot be read.
fn apply_segment(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    base: Offset,
    next: Offset,
    catalog: &mut Catalog,
) -> io::Result<()> {
    let file = disk.open(&paths.log(base), OpenMode::Read)?;
    let len = file.len()?.min(SEGMENT_BYTES_MAX).saturating_sub(DATA_START);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let filled = read_full_at(file.as_ref(), &mut bytes, DATA_START)?;
    bytes.truncate(filled);
    let mut bytes = Bytes::from(bytes);
    let limits = DecodeLimits::default();
    while let Some(Ok(batch)) = Records::take_batch(&mut bytes, &limits) {
        for record in batch.map_while(Result::ok).filter(|record| record.offset >= next) {
            let value = record.value.unwrap_or_default();
            if let Ok(change) = encoding::decode::<CatalogRecord>(&value) {
                catalog.apply(&change);
            }
        }
    }
    Ok(())
}
