//! What everything in one data directory shares.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use uuid::Uuid;

use super::append::RoundEnd;
use super::fault::Fault;
use super::handle_cache::{HandleCache, HandleLimits};
use super::options::StorageOptions;
use super::producer_state::ProducerLimits;
use super::queue::WriterQueue;
use super::reserve::Reserve;
use crate::env::{Env, Latch, Region};
use crate::types::TopicPartition;

/// Bytes of loaded indexes of sealed segments that are kept: about 10 GiB of log that is read in
/// tiny batches, 170 GiB in batches of 64 KiB.
const INDEX_BYTES_MAX: usize = 64 << 20;
/// Smallest step in which a segment is allocated.
pub(crate) const ALLOCATE_STEP_MIN: u64 = 64 << 10;

/// Shared by the log directory, its partitions, writers and jobs.
pub(crate) struct DirShared {
    pub(crate) env: Env,
    pub(crate) options: StorageOptions,
    pub(crate) cluster_id: Uuid,
    /// This process start.
    pub(crate) writer_id: Uuid,
    pub(crate) boot_id: [u8; 16],
    pub(crate) latch: Latch,
    pub(crate) handles: HandleCache,
    pub(crate) reserve: Reserve,
    /// Partitions with an active segment: they share what may be allocated ahead.
    active: AtomicUsize,
    /// Little space is left: only what is needed is allocated.
    saves_space: AtomicBool,
    materialised: Mutex<Vec<TopicPartition>>,
    /// Partitions that got files since the start.
    made: Mutex<HashSet<TopicPartition>>,
    unlinked: Mutex<Vec<(Weak<dyn Region>, u64)>>,
    writers: Mutex<Vec<Weak<WriterQueue>>>,
    round_ends: RwLock<Vec<Weak<dyn RoundEnd>>>,
}

/// What a write does when there is no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFull {
    /// It fails: its producer is told.
    Fail,
    /// It takes what is held back: internal logs, and whatever frees space.
    SpendReserve,
}

/// Room on the disk of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceReport {
    /// All of it, in bytes.
    pub capacity: u64,
    /// What may still be allocated.
    pub free: u64,
    /// Bytes of removed segments that a reader still holds: not free yet.
    pub unlinked_bytes: u64,
    /// Bytes held back for metadata; 0 once they were needed.
    pub reserve_bytes: u64,
}

impl DirShared {
    pub(crate) fn new(
        env: Env,
        options: StorageOptions,
        cluster_id: Uuid,
        boot_id: [u8; 16],
    ) -> DirShared {
        let writer_id = Uuid::from_u64_pair(env.rng.next_u64(), env.rng.next_u64());
        let limits = HandleLimits {
            files_max: options.files_max,
            maps_max: options.maps_max,
            index_bytes_max: INDEX_BYTES_MAX,
        };
        DirShared {
            env,
            options,
            cluster_id,
            writer_id,
            boot_id,
            latch: Latch::new(),
            handles: HandleCache::new(limits),
            reserve: Reserve::default(),
            active: AtomicUsize::new(0),
            saves_space: AtomicBool::new(false),
            materialised: Mutex::default(),
            made: Mutex::default(),
            unlinked: Mutex::default(),
            writers: Mutex::default(),
            round_ends: RwLock::default(),
        }
    }

    pub(crate) fn producer_limits(&self) -> ProducerLimits {
        let idle_ms = i64::try_from(self.options.producer_expiry.as_millis()).unwrap_or(i64::MAX);
        ProducerLimits { producers_max: self.options.producers_max, idle_ms }
    }

    /// Has `watcher` told when rounds end, for as long as it lives.
    pub(crate) fn at_round_end(&self, watcher: Weak<dyn RoundEnd>) {
        let mut watchers = self.round_ends.write().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(watcher);
    }

    /// A writer's round ended.
    pub(crate) fn round_ended(&self) {
        let watchers = self.round_ends.read().unwrap_or_else(PoisonError::into_inner);
        watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.round_ended());
    }

    /// Closes the latch and wakes every writer, so that nobody waits for a commit that never comes.
    pub(crate) fn latch(&self, cause: &str) {
        tracing::error!("the data directory takes no more writes: {cause}");
        self.latch.close(cause);
        let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in writers.iter().filter_map(Weak::upgrade) {
            queue.kick();
        }
    }

    pub(crate) fn add_writer(&self, queue: &Arc<WriterQueue>) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.push(Arc::downgrade(queue));
    }

    /// Whether segments are allocated further than is needed.
    pub(crate) fn allocates_ahead(&self) -> bool {
        !self.saves_space.load(Ordering::Relaxed)
    }

    pub(crate) fn allocate_ahead(&self, ahead: bool) {
        self.saves_space.store(!ahead, Ordering::Relaxed);
    }

    pub(crate) fn segment_opened(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn segment_closed(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// How far to allocate a file of `allocated` bytes that needs `needed` more and may reach
    /// `target`: double it, within the rest of the segment and a fair share of what is free. Where
    /// space is saved, in the smallest steps.
    pub(crate) fn allocate_step(&self, allocated: u64, needed: u64, target: u64) -> u64 {
        if !self.allocates_ahead() {
            let step = needed.next_multiple_of(ALLOCATE_STEP_MIN);
            return step.min(target.saturating_sub(allocated)).max(needed);
        }
        let active = self.active.load(Ordering::Relaxed).max(1) as u64;
        let share = self.env.disk.space().map_or(0, |space| space.free / 2 / active);
        let doubled = allocated.clamp(ALLOCATE_STEP_MIN, self.options.allocate_step_max);
        let rest = target.saturating_sub(allocated);
        doubled.min(rest).min(share).max(needed)
    }

    /// Runs a write; when there is no space and the write may spend it, once more without the
    /// reserve.
    pub(crate) fn on_full<T, E: Into<Fault>>(
        &self,
        then: OnFull,
        mut write: impl FnMut() -> Result<T, E>,
    ) -> Result<T, Fault> {
        match write().map_err(E::into) {
            Err(Fault::NoSpace(e)) if then == OnFull::SpendReserve => {
                match self.reserve.release(self.env.disk.as_ref()) {
                    true => write().map_err(E::into),
                    false => Err(Fault::NoSpace(e)),
                }
            }
            result => result,
        }
    }

    /// A partition got its first file; the broker marks that in its catalog.
    pub(crate) fn note_materialised(&self, id: TopicPartition) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.materialised.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Whether a partition got files since the start.
    pub(crate) fn was_made(&self, id: TopicPartition) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    pub(crate) fn take_materialised(&self) -> Vec<TopicPartition> {
        std::mem::take(&mut *self.materialised.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A file was removed while somebody may hold its map.
    pub(crate) fn note_unlinked(&self, map: &Arc<dyn Region>, bytes: u64) {
        let mut unlinked = self.unlinked.lock().unwrap_or_else(PoisonError::into_inner);
        unlinked.push((Arc::downgrade(map), bytes));
    }

    fn unlinked_bytes(&self) -> u64 {
        let mut unlinked = self.unlinked.lock().unwrap_or_else(PoisonError::into_inner);
        unlinked.retain(|(map, _)| map.strong_count() > 0);
        unlinked.iter().map(|(_, bytes)| bytes).sum()
    }

    pub(crate) fn space_report(&self) -> io::Result<SpaceReport> {
        let space = self.env.disk.space()?;
        Ok(SpaceReport {
            capacity: space.capacity,
            free: space.free,
            unlinked_bytes: self.unlinked_bytes(),
            reserve_bytes: self.reserve.bytes(),
        })
    }

    /// Makes `topics/` and everything else that must be there; durable when it returns.
    pub(crate) fn make_tree(&self, dirs: &[&str]) -> io::Result<()> {
        for dir in dirs {
            self.env.disk.create_dir_all(Path::new(dir))?;
        }
        self.env.disk.sync_dir(Path::new(""))
    }
}
