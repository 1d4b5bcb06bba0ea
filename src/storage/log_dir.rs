//! A data directory in use: its lock, its identity, its writers, and the partitions in it.
//!
//! One process uses it at a time. Nothing that was found and cannot be explained is deleted: it is
//! moved to `quarantine/` and reported.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use uuid::Uuid;

use super::append::RoundEnd;
use super::dir::{DirShared, SpaceReport};
use super::error::OpenError;
use super::fault::Fault;
use super::job::{SyncDone, SyncJob, remove_partition};
use super::layout::{
    LOCK_FILE, META_FILE, PartitionPaths, QUARANTINE_DIR, TOPICS_DIR, TORN_DIR, TRASH_DIR,
    parse_partition_dir,
};
use super::meta::{META_BYTES_MAX, Meta};
use super::options::{Drive, PartitionOptions, StorageOptions};
use super::partition::{Partition, PartitionShared};
use super::queue::{Command, WriterQueue};
use super::recovery::Materialised;
use super::small_file::{read_small_file, write_small_file};
use super::writer::WriterCore;
use super::writer_driver::Drivers;
use crate::env::{DirLock, Env};
use crate::types::TopicPartition;

/// A data directory in use. Cheap to clone; the last clone stops its threads.
#[derive(Clone)]
pub struct LogDir {
    inner: Arc<Inner>,
}

struct Inner {
    dir: Arc<DirShared>,
    queues: Vec<Arc<WriterQueue>>,
    drive: DriveState,
    /// Partitions whose directories were there at the start.
    found: Mutex<HashSet<TopicPartition>>,
    open: Mutex<HashMap<TopicPartition, Weak<PartitionShared>>>,
    next_key: AtomicU32,
    /// Held until the data directory is left.
    lock: Mutex<Option<Box<dyn DirLock>>>,
}

enum DriveState {
    Threads(Mutex<Drivers>),
    Stepped(Mutex<Vec<WriterCore>>),
}

/// How a data directory is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Everything queued is appended and made durable; clean slots spare the next start a scan.
    Drain,
    /// At once: what is not acknowledged may be lost, the next start recovers.
    Abort,
}

/// Writers one can keep busy with copies into the page cache.
const WRITERS_MAX: usize = 4;

impl LogDir {
    /// Opens a data directory, or makes one in an empty place.
    ///
    /// # Errors
    /// `Locked`, `Meta` (not ours, or a newer version's), `Io`.
    pub fn open(options: StorageOptions, env: Env) -> Result<LogDir, OpenError> {
        let disk = Arc::clone(&env.disk);
        disk.create_dir_all(Path::new(""))?;
        let lock = disk.lock(Path::new(LOCK_FILE)).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked,
            _ => OpenError::Io(e),
        })?;
        let cluster_id = read_or_make_meta(&env)?;
        let boot_id = disk.boot_id()?;
        let dir = Arc::new(DirShared::new(env, options, cluster_id, boot_id));
        dir.make_tree(&[TOPICS_DIR, TRASH_DIR, TORN_DIR, QUARANTINE_DIR])?;
        empty_trash(&dir);
        if let Err(e) = dir.reserve.ensure(disk.as_ref(), &dir.options) {
            tracing::warn!("no space is held back for metadata: {e}");
        }
        let found = find_partitions(&dir)?;
        let queues = make_queues(&dir);
        let core = |queue| WriterCore::new(Arc::clone(&dir), Arc::clone(queue));
        let cores: Vec<WriterCore> = queues.iter().map(core).collect();
        let drive = match dir.options.drive {
            Drive::Stepped => DriveState::Stepped(Mutex::new(cores)),
            Drive::Threads => {
                let drivers = Drivers::start(cores, dir.options.sync_threads_max)?;
                DriveState::Threads(Mutex::new(drivers))
            }
        };
        let inner = Inner {
            dir,
            queues,
            drive,
            found: Mutex::new(found),
            open: Mutex::default(),
            next_key: AtomicU32::new(0),
            lock: Mutex::new(Some(lock)),
        };
        Ok(LogDir { inner: Arc::new(inner) })
    }

    /// Identity of the data directory for ever.
    pub fn cluster_id(&self) -> Uuid {
        self.inner.dir.cluster_id
    }

    /// Identity of this process start.
    pub fn writer_id(&self) -> Uuid {
        self.inner.dir.writer_id
    }

    /// Why no more is written, once a sync has failed.
    pub fn latched(&self) -> Option<String> {
        self.inner.dir.latch.cause().map(str::to_owned)
    }

    /// Room on its disk.
    ///
    /// # Errors
    /// What the device says.
    pub fn space_report(&self) -> io::Result<SpaceReport> {
        self.inner.dir.space_report()
    }

    /// [`Partition::reclaim`] of every open partition. For when space is short: it comes back at once,
    /// and the space as the writers get to it.
    pub fn reclaim(&self) {
        let open: Vec<_> = self.inner.open().values().filter_map(Weak::upgrade).collect();
        open.into_iter().for_each(|shared| Partition { shared }.reclaim());
    }

    /// Whether segments are allocated further than what is written needs, in growing steps: the
    /// usual way, and the wrong one while space is short.
    pub fn allocate_ahead(&self, ahead: bool) {
        self.inner.dir.allocate_ahead(ahead);
    }

    /// Holds space back again after it was given up, when there is room for it.
    ///
    /// # Errors
    /// What the device says.
    pub fn ensure_reserve(&self) -> io::Result<()> {
        let dir = &self.inner.dir;
        dir.reserve.ensure(dir.env.disk.as_ref(), &dir.options)
    }

    /// Partitions that got their first file since the last call: the catalog is to mark them.
    pub fn take_materialised(&self) -> Vec<TopicPartition> {
        self.inner.dir.take_materialised()
    }

    /// Opens a partition: recovers it when it has files, else costs a kilobyte and no file access.
    /// Recovery waits for the device; several partitions may be opened by several threads.
    ///
    /// # Errors
    /// `AlreadyOpen`, `Missing`, `Recovery`, `Io`.
    pub fn partition(
        &self,
        id: TopicPartition,
        options: Arc<PartitionOptions>,
        known: Materialised,
    ) -> Result<Partition, OpenError> {
        let inner = &self.inner;
        let key = inner.next_key.fetch_add(1, Ordering::Relaxed);
        let number = key as usize % inner.queues.len();
        let Some(queue) = inner.queues.get(number) else { return Err(OpenError::Locked) };
        let (dir, queue) = (Arc::clone(&inner.dir), Arc::clone(queue));
        let shared = Arc::new(PartitionShared::new(id, key, dir, queue, options));
        inner.claim(id, &shared)?;
        let exists = inner.found().contains(&id) || inner.dir.was_made(id);
        if !exists && known == Materialised::Yes {
            inner.open().remove(&id);
            return Err(OpenError::Missing(id));
        }
        if exists {
            let recovered = super::partition_log::PartitionLog::recover(Arc::clone(&shared), known);
            let log = recovered.inspect_err(|_| {
                inner.open().remove(&id);
            })?;
            shared.queue.command(Command::Adopt(Box::new(log)));
        }
        Ok(Partition { shared })
    }

    /// Removes the files of a partition that is not open: the rest of a deletion that a crash
    /// stopped. The caller has a durable record that it is to go.
    ///
    /// # Errors
    /// `AlreadyOpen`, `Io`; the call can be repeated.
    pub fn delete_partition(&self, id: TopicPartition) -> Result<(), OpenError> {
        if self.inner.open().get(&id).is_some_and(|open| open.strong_count() > 0) {
            return Err(OpenError::AlreadyOpen(id));
        }
        let dir = &self.inner.dir;
        remove_partition(dir, &PartitionPaths::new(id)).map_err(|fault| {
            if let Fault::Sync(e) = &fault {
                dir.latch(&format!("removal of partition {id}: {e}"));
            }
            io::Error::from(fault)
        })?;
        self.inner.found().remove(&id);
        Ok(())
    }

    /// Moves partitions that `known` does not know to `quarantine/`; those that were moved.
    ///
    /// # Errors
    /// `Io`; the call can be repeated.
    pub fn quarantine_unknown(
        &self,
        known: impl Fn(TopicPartition) -> bool,
    ) -> Result<Vec<TopicPartition>, OpenError> {
        let mut unknown: Vec<_> =
            self.inner.found().iter().copied().filter(|id| !known(*id)).collect();
        unknown.sort_unstable();
        let disk = self.inner.dir.env.disk.as_ref();
        for id in &unknown {
            let paths = PartitionPaths::new(*id);
            disk.rename(paths.dir(), &paths.quarantine("partition"))?;
            disk.sync_dir(Path::new(QUARANTINE_DIR))?;
            disk.sync_dir(paths.dir().parent().unwrap_or(Path::new(TOPICS_DIR)))?;
            self.inner.found().remove(id);
        }
        Ok(unknown)
    }

    /// Leaves the data directory. Waits; not for a thread of an async runtime.
    pub fn shutdown(&self, mode: ShutdownMode) {
        let open: Vec<_> = self.inner.open().values().filter_map(Weak::upgrade).collect();
        let partitions = open.into_iter().map(|shared| Partition { shared });
        if mode == ShutdownMode::Drain {
            let tickets: Vec<_> = partitions.map(|p| (p.id(), p.close())).collect();
            if let Some(stepper) = self.stepper() {
                stepper.run_until_idle();
            }
            for (id, mut ticket) in tickets {
                let result = match self.inner.drive {
                    DriveState::Threads(_) => Some(ticket.wait()),
                    DriveState::Stepped(_) => ticket.try_take(),
                };
                if let Some(Err(e)) = result {
                    tracing::warn!("partition {id} was not left clean: {e}");
                }
            }
        }
        match &self.inner.drive {
            DriveState::Threads(drivers) => {
                drivers.lock().unwrap_or_else(PoisonError::into_inner).stop();
            }
            DriveState::Stepped(cores) => {
                self.inner.queues.iter().for_each(|queue| queue.close());
                cores.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        }
        // Another process may have it now, though handles of this one linger.
        drop(self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Number of its writers.
    pub fn writers(&self) -> usize {
        self.inner.queues.len()
    }

    /// Adds to `into` how long the commits of a writer took from order to end that ended since the
    /// last call; at most 256 are kept.
    pub fn take_sync_times(&self, writer: usize, into: &mut Vec<Duration>) {
        if let Some(queue) = self.inner.queues.get(writer) {
            queue.take_syncs(into);
        }
    }

    /// Has `watcher` told, for as long as it lives, when a round of a writer has given its answers.
    pub fn at_round_end(&self, watcher: Weak<dyn RoundEnd>) {
        self.inner.dir.at_round_end(watcher);
    }

    /// Wakes the writers for what [`Partition::append_more`] left to them.
    pub fn wake_writers(&self) {
        self.inner.queues.iter().for_each(|queue| queue.flush());
    }

    /// The writers, to be stepped by hand; `None` when threads do.
    pub fn stepper(&self) -> Option<Stepper> {
        match self.inner.drive {
            DriveState::Stepped(_) => Some(Stepper { inner: Arc::clone(&self.inner) }),
            DriveState::Threads(_) => None,
        }
    }
}

impl Inner {
    fn claim(&self, id: TopicPartition, shared: &Arc<PartitionShared>) -> Result<(), OpenError> {
        let mut open = self.open();
        let before = open.get(&id).and_then(Weak::upgrade);
        if before.is_some_and(|before| !before.is_closed()) {
            return Err(OpenError::AlreadyOpen(id));
        }
        open.insert(id, Arc::downgrade(shared));
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<TopicPartition, Weak<PartitionShared>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, HashSet<TopicPartition>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    /// What is queued holds partitions, which hold the queue.
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.close());
    }
}

/// Steps the writers of a data directory by hand: no threads, the same machines.
pub struct Stepper {
    inner: Arc<Inner>,
}

impl Stepper {
    /// One round of every writer; the jobs are to be executed, in any order, and brought back.
    pub fn round(&self) -> Vec<SyncJob> {
        let now = self.inner.dir.env.clock.monotonic();
        let mut jobs = Vec::new();
        for core in self.cores().iter_mut() {
            jobs.extend(core.run_round(now).jobs);
        }
        jobs
    }

    /// Brings a finished job back; the next round goes on from it.
    pub fn sync_done(&self, done: SyncDone) {
        let mut cores = self.cores();
        let count = cores.len().max(1);
        if let Some(core) = cores.get_mut(done.key as usize % count) {
            core.sync_done(done);
        }
    }

    /// Rounds and jobs until nothing is left to do at this moment.
    pub fn run_until_idle(&self) {
        loop {
            let now = self.inner.dir.env.clock.monotonic();
            let mut progressed = false;
            for core in self.cores().iter_mut() {
                let report = core.run_round(now);
                progressed |= report.progressed || !report.jobs.is_empty();
                for job in report.jobs {
                    core.sync_done(job.execute());
                }
            }
            if !progressed {
                return;
            }
        }
    }

    /// When the next round is due though nothing arrives (monotonic time).
    pub fn next_deadline(&self) -> Option<Duration> {
        self.cores().iter().filter_map(WriterCore::next_deadline).min()
    }

    fn cores(&self) -> MutexGuard<'_, Vec<WriterCore>> {
        match &self.inner.drive {
            DriveState::Stepped(cores) => cores.lock().unwrap_or_else(PoisonError::into_inner),
            DriveState::Threads(_) => unreachable!("a stepper is only made for stepped writers"),
        }
    }
}

fn read_or_make_meta(env: &Env) -> Result<Uuid, OpenError> {
    let disk = env.disk.as_ref();
    let path = Path::new(META_FILE);
    if let Some(bytes) = read_small_file(disk, path, META_BYTES_MAX)? {
        let meta = Meta::decode(&bytes).map_err(|e| OpenError::Meta(e.to_string()))?;
        return Ok(meta.cluster_id);
    }
    let strangers = disk.exists(Path::new(TOPICS_DIR))?;
    if strangers {
        return Err(OpenError::Meta(format!("{TOPICS_DIR}/ is there and {META_FILE} is not")));
    }
    let random = env.rng.next_u64().to_le_bytes();
    let more = env.rng.next_u64().to_le_bytes();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(random.iter().chain(&more)).for_each(|(to, from)| *to = *from);
    let cluster_id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    let meta = Meta::new(cluster_id, env.clock.now()).encode();
    write_small_file(disk, path, &meta).map_err(io::Error::from)?;
    Ok(cluster_id)
}

fn make_queues(dir: &Arc<DirShared>) -> Vec<Arc<WriterQueue>> {
    let options = &dir.options;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = match options.writers {
        0 => (cores / 2).clamp(1, WRITERS_MAX),
        count => count as usize,
    };
    let (bytes_max, batches_max) = (options.queue_bytes_max, options.queue_batches_max);
    let make = |number| Arc::new(WriterQueue::new(number, bytes_max, batches_max));
    let queues: Vec<_> = (0..count).map(make).collect();
    queues.iter().for_each(|queue| dir.add_writer(queue));
    queues
}

/// What a crash left between the two steps of a deletion.
fn empty_trash(dir: &DirShared) {
    let disk = dir.env.disk.as_ref();
    let trash = Path::new(TRASH_DIR);
    let remove = || -> io::Result<()> {
        for entry in disk.read_dir(trash)?.iter().filter(|entry| !entry.is_dir) {
            disk.remove_file(&trash.join(&entry.name))?;
        }
        Ok(())
    };
    if let Err(e) = remove() {
        tracing::warn!("{TRASH_DIR}/ is not empty yet: {e}");
    }
}

fn find_partitions(dir: &DirShared) -> io::Result<HashSet<TopicPartition>> {
    let disk = dir.env.disk.as_ref();
    let topics = Path::new(TOPICS_DIR);
    let mut found = HashSet::new();
    for topic in disk.read_dir(topics)?.iter().filter(|entry| entry.is_dir) {
        let partitions = disk.read_dir(&topics.join(&topic.name))?;
        let ids = partitions.iter().filter(|entry| entry.is_dir);
        found.extend(ids.filter_map(|entry| parse_partition_dir(&topic.name, &entry.name)));
    }
    Ok(found)
}
