//! Topics of the floor server: one preallocated file a partition, appended and mapped, nothing else.
//! No index, no checks, no recovery: what is left out here is what the broker is measured for.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use super::lock;
use crate::env::{Disk, File, OpenMode, Region};
use crate::types::{Offset, PartitionId, TopicId, TopicName};

/// Room of one partition: a run of the bench moves less.
const PARTITION_BYTES_MAX: u64 = 8 << 30;
/// Preallocated at a time.
const STEP_BYTES: u64 = 256 << 20;

/// All topics.
pub(super) struct Topics {
    disk: Arc<dyn Disk>,
    topics: Mutex<HashMap<TopicId, Arc<Topic>>>,
}

/// One topic.
pub(super) struct Topic {
    pub(super) name: TopicName,
    pub(super) id: TopicId,
    /// Whether an answer waits for `fdatasync`.
    pub(super) synced: bool,
    pub(super) partitions: Vec<Partition>,
}

/// One partition.
pub(super) struct Partition {
    path: PathBuf,
    file: Arc<dyn File>,
    region: Arc<dyn Region>,
    log: Mutex<Log>,
    grown: Condvar,
}

#[derive(Default)]
struct Log {
    end_bytes: u64,
    allocated_bytes: u64,
    next_offset: i64,
    /// Position after each batch and the offset there.
    ends: Vec<(u64, i64)>,
}

/// Batches that lie one after the other.
pub(super) struct Slice {
    pub(super) bytes: Bytes,
    pub(super) records: u64,
    pub(super) next_offset: Offset,
    pub(super) visible_end: Offset,
}

impl Topics {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Topics {
        Topics { disk, topics: Mutex::default() }
    }

    pub(super) fn create(
        &self,
        name: TopicName,
        partitions: u32,
        synced: bool,
    ) -> io::Result<Arc<Topic>> {
        let id = TopicId(uuid::Uuid::new_v4());
        let partition = |n| Partition::create(&*self.disk, PathBuf::from(format!("{id}-{n}")));
        let partitions = (0..partitions).map(partition).collect::<io::Result<Vec<_>>>()?;
        let topic = Arc::new(Topic { name, id, synced, partitions });
        lock(&self.topics).insert(id, Arc::clone(&topic));
        Ok(topic)
    }

    pub(super) fn by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        lock(&self.topics).get(&id).cloned()
    }

    pub(super) fn by_name(&self, name: &TopicName) -> Option<Arc<Topic>> {
        lock(&self.topics).values().find(|topic| topic.name == *name).cloned()
    }

    pub(super) fn delete(&self, id: TopicId) -> io::Result<()> {
        let Some(topic) = lock(&self.topics).remove(&id) else { return Ok(()) };
        topic.partitions.iter().try_for_each(|p| self.disk.remove_file(&p.path))
    }
}

impl Topic {
    pub(super) fn partition(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions.get(partition.0 as usize)
    }
}

impl Partition {
    fn create(disk: &dyn Disk, path: PathBuf) -> io::Result<Partition> {
        let file = disk.open(&path, OpenMode::CreateNew)?;
        let region = file.map(PARTITION_BYTES_MAX)?;
        Ok(Partition { path, file, region, log: Mutex::default(), grown: Condvar::new() })
    }

    /// Writes batches that were received together in one call; the base offset of each.
    pub(super) fn append(&self, batches: &mut [&mut [u8]]) -> io::Result<Vec<Offset>> {
        let mut log = lock(&self.log);
        let bytes: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
        while log.end_bytes + bytes > log.allocated_bytes {
            self.file.allocate(log.allocated_bytes, STEP_BYTES)?;
            log.allocated_bytes += STEP_BYTES;
        }
        let mut bases = Vec::with_capacity(batches.len());
        let mut end = log.end_bytes;
        for batch in batches.iter_mut() {
            bases.push(Offset(log.next_offset));
            log.next_offset += stamp(batch, log.next_offset);
            end += batch.len() as u64;
            let next_offset = log.next_offset;
            log.ends.push((end, next_offset));
        }
        let buffers: Vec<IoSlice<'_>> = batches.iter().map(|batch| IoSlice::new(batch)).collect();
        let written = self.file.pwritev(&buffers, log.end_bytes)?;
        if written as u64 != bytes {
            let rest: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
            let at = log.end_bytes + written as u64;
            crate::env::write_all_at(&*self.file, &rest[written..], at)?;
        }
        log.end_bytes = end;
        self.grown.notify_all();
        Ok(bases)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    pub(super) fn end(&self) -> Offset {
        Offset(lock(&self.log).next_offset)
    }

    /// Up to `max_bytes` from batch number `from` on (at least one batch), and the number after.
    pub(super) fn read(&self, from: usize, max_bytes: u64) -> Option<(Slice, usize)> {
        let log = lock(&self.log);
        let (start, first_offset) = match from.checked_sub(1) {
            Some(before) => *log.ends.get(before)?,
            None => (0, 0),
        };
        let mut to = from + 1;
        log.ends.get(from)?;
        while log.ends.get(to).is_some_and(|(end, _)| end - start <= max_bytes) {
            to += 1;
        }
        let (end, next_offset) = *log.ends.get(to - 1)?;
        let slice = Slice {
            bytes: Arc::clone(&self.region).slice(start..end)?,
            records: u64::try_from(next_offset - first_offset).unwrap_or(0),
            next_offset: Offset(next_offset),
            visible_end: Offset(log.next_offset),
        };
        Some((slice, to))
    }

    /// Number of the batch that holds `offset`.
    pub(super) fn batch_at(&self, offset: Offset) -> usize {
        lock(&self.log).ends.partition_point(|(_, next)| *next <= offset.0)
    }

    /// Waits until there are more than `batches` batches, or a while.
    pub(super) fn wait_for(&self, batches: usize, at_most: std::time::Duration) {
        let log = lock(&self.log);
        let few = |log: &mut Log| log.ends.len() <= batches;
        drop(self.grown.wait_timeout_while(log, at_most, few));
    }
}

/// Writes the base offset into a batch; the number of its records.
fn stamp(batch: &mut [u8], base: i64) -> i64 {
    if let Some(head) = batch.first_chunk_mut::<8>() {
        *head = base.to_be_bytes();
    }
    let delta = batch.get(23..27).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes);
    i64::from(delta) + 1
}
