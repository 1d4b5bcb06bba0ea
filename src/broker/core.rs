//! What everything in one broker shares, and how it comes to be: open the data directory, replay
//! the internal logs, recover every partition.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tracing::{error, info, warn};

use super::catalog::{Catalog, CatalogTopic};
use super::error::{CommitError, OpenError};
use super::flow::{Board, DiskLevel, Facts, Flow, Paces, QuotaTable, Surroundings};
use super::groups::Groups;
use super::internal_log::{InternalId, InternalLog};
use super::options::BrokerOptions;
use super::producer_ids::ProducerIds;
use super::report::BrokerMetrics;
use super::topic::{PartitionHandle, Topic, TopicTable};
use crate::env::{Env, Latch};
use crate::storage::{LogDir, Materialised, Partition, PartitionOptions};
use crate::types::{
    Offset, PartitionId, Pushback, PushbackScope, TopicConfig, TopicId, TopicPartition,
};

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Nobody asked for it.
    Running,
    /// New produce requests are refused, those under way are waited for.
    Draining,
    /// Nothing is waited for.
    AtOnce,
}

/// Shared by the facade, its tasks and every request.
pub(super) struct Core {
    pub(super) options: BrokerOptions,
    pub(super) env: Env,
    pub(super) storage: LogDir,
    pub(super) topics: TopicTable,
    pub(super) catalog: Mutex<InternalLog<Catalog>>,
    pub(super) producers: Mutex<ProducerIds>,
    pub(super) flow: Arc<Flow>,
    /// What groups committed.
    pub(super) board: Board,
    pub(super) paces: std::sync::Mutex<Paces>,
    pub(super) metrics: BrokerMetrics,
    pub(super) phase: watch::Sender<Phase>,
    /// Closed by a task that died: writes are refused with the cause from then on.
    pub(super) fault: Latch,
    /// Topics came, went or grew.
    pub(super) topics_changed: Notify,
    /// Settings of topics changed, or topics came.
    pub(super) limits_changed: Notify,
    pub(super) fetch_turn: AtomicUsize,
    pub(super) opened_at: Duration,
}

/// What opening gives besides the core.
pub(super) struct Opened {
    pub(super) core: Core,
    pub(super) groups: InternalLog<Groups>,
    /// Deleted topics whose directories may remain.
    pub(super) tombstones: Vec<(TopicId, u32)>,
}

/// Threads that recover partitions at the start: enough to keep a disk busy.
const RECOVERY_THREADS: usize = 8;

impl Core {
    /// Opens everything. Blocks on the disk.
    pub(super) fn open(options: BrokerOptions, env: Env) -> Result<Opened, OpenError> {
        let env = match options.disk.capacity_bytes {
            Some(capacity) => env.capped(capacity).map_err(crate::storage::OpenError::Io)?,
            None => env,
        };
        let storage = LogDir::open(options.storage.clone(), env.clone())?;
        let snapshot_bytes = options.housekeeping.snapshot_bytes.max(1);
        let catalog: InternalLog<Catalog> =
            InternalLog::open(InternalId::CATALOG, &storage, &env, snapshot_bytes)?;
        let unknown = account_for_directories(&storage, &catalog)?;
        for id in unknown {
            error!("no topic explains the directory of {id}: moved to quarantine/");
        }
        let groups = InternalLog::open(InternalId::GROUPS, &storage, &env, snapshot_bytes)?;
        let producers = InternalLog::open(InternalId::PRODUCERS, &storage, &env, snapshot_bytes)?;
        let flow = Arc::new(open_flow(&options, catalog.machine(), &storage, &env)?);
        let topics = TopicTable::default();
        let board = Board::of(groups.machine(), env.clock.now(), env.clock.monotonic());
        let (idle_max, now) = (options.flow.protect_idle(), env.clock.monotonic());
        let kept = |part: TopicPartition, config: &TopicConfig| {
            let groups = board.protecting(part.topic, &config.protect);
            board.protected(part, &groups, idle_max, now)
        };
        topics.insert(open_topics(&storage, &flow, catalog.machine(), now, &kept)?);
        let tombstones = catalog.machine().tombstones().collect();
        let core = Core {
            topics,
            catalog: Mutex::new(catalog),
            producers: Mutex::new(ProducerIds::new(producers)),
            flow,
            board,
            paces: std::sync::Mutex::default(),
            metrics: BrokerMetrics::default(),
            phase: watch::Sender::new(Phase::Running),
            fault: Latch::new(),
            topics_changed: Notify::new(),
            limits_changed: Notify::new(),
            fetch_turn: AtomicUsize::new(0),
            opened_at: now,
            options,
            env,
            storage,
        };
        core.observe_disk();
        Ok(Opened { core, groups, tombstones })
    }

    /// How far a shutdown is.
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Refuses changes while the broker goes down or after a task of it died.
    pub(super) fn admit_change(&self) -> Result<(), CommitError> {
        if let Some(cause) = self.fault.cause() {
            return Err(CommitError::Latched { cause: cause.to_owned() });
        }
        if self.phase() != Phase::Running {
            return Err(CommitError::Pushback(Pushback::draining()));
        }
        Ok(())
    }

    /// Looks at the disk once. Blocks on it. Returns when the next look is due.
    pub(super) fn observe_disk(&self) -> Duration {
        match self.storage.space_report() {
            Ok(space) => {
                let now = self.env.clock.monotonic();
                if let Some(edge) = self.flow.note_space(space.capacity, space.free, now) {
                    let (from, to) = (edge.from.name(), edge.to.name());
                    let (free, mark) = self.flow.disk.free_and_mark();
                    warn!("disk from {from} to {to}: {free} bytes free, full below {mark}");
                }
            }
            Err(e) => warn!("the free space of the disk cannot be read: {e}"),
        }
        self.storage.allocate_ahead(self.flow.disk.level() < DiskLevel::Low);
        self.flow.next_look()
    }

    /// Opens partitions `range` of a topic that is known to have no files yet.
    pub(super) fn open_new(
        &self,
        topic: TopicId,
        range: std::ops::Range<u32>,
        config: &TopicConfig,
    ) -> Vec<Arc<PartitionHandle>> {
        let options = Arc::new(PartitionOptions::of_topic(config, range.end));
        let open = |partition| {
            let id = TopicPartition { topic, partition: PartitionId(partition) };
            open_partition(&self.storage, &self.flow, id, &options, Materialised::Unknown)
        };
        range.map(open).collect()
    }

    /// Whose turn it is to be first among `count`.
    pub(super) fn next_turn(&self, count: usize) -> usize {
        self.fetch_turn.fetch_add(1, Ordering::Relaxed) % count.max(1)
    }

    /// Milliseconds since the broker was ready.
    pub(super) fn uptime_ms(&self) -> u64 {
        let up = self.env.clock.monotonic().saturating_sub(self.opened_at);
        u64::try_from(up.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Facts for Core {
    fn sync_times(&self, writer: usize, into: &mut Vec<Duration>) {
        self.storage.take_sync_times(writer, into);
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("data_dir", &self.options.data_dir).finish_non_exhaustive()
    }
}

fn open_flow(
    options: &BrokerOptions,
    catalog: &Catalog,
    storage: &LogDir,
    env: &Env,
) -> Result<Flow, OpenError> {
    let quotas = catalog.quotas().map_err(|e| OpenError::Options(format!("the catalog: {e}")))?;
    let surroundings = Surroundings {
        machine_bytes: machine_bytes(),
        disk: options.disk,
        writers: storage.writers(),
        pressure: options.pressure,
        now: env.clock.monotonic(),
    };
    Ok(Flow::new(options.flow, surroundings, QuotaTable::new(quotas)))
}

/// Moves what no record explains to quarantine. Refuses to open when the catalog itself is what is
/// missing: then every topic would look unexplained.
fn account_for_directories(
    storage: &LogDir,
    catalog: &InternalLog<Catalog>,
) -> Result<Vec<TopicPartition>, OpenError> {
    let internal = |id: TopicPartition| InternalId::ALL.iter().any(|log| log.partition() == id);
    if catalog.is_empty() {
        let topics = RefCell::new(HashSet::new());
        storage.quarantine_unknown(|id| {
            if !internal(id) {
                topics.borrow_mut().insert(id.topic);
            }
            true
        })?;
        let topics = topics.into_inner();
        if !topics.is_empty() {
            return Err(OpenError::CatalogMissing { directories: topics.len() });
        }
    }
    let state = catalog.machine();
    Ok(storage.quarantine_unknown(|id| internal(id) || state.knows(id.topic))?)
}

fn open_topics(
    storage: &LogDir,
    flow: &Flow,
    catalog: &Catalog,
    now: Duration,
    kept: &dyn Fn(TopicPartition, &TopicConfig) -> Option<Offset>,
) -> Result<Vec<Arc<Topic>>, OpenError> {
    let mut jobs = Vec::new();
    let mut configs = Vec::new();
    for (id, topic) in catalog.topics() {
        let config = topic.config.read().map_err(|e| OpenError::InternalLog {
            log: InternalId::CATALOG.name,
            cause: format!("topic {}: {e}", topic.name),
        })?;
        check_share(flow, &config)
            .map_err(|cause| OpenError::Options(format!("topic {}: {cause}", topic.name)))?;
        let options = Arc::new(PartitionOptions::of_topic(&config, topic.partitions));
        jobs.extend((0..topic.partitions).map(|number| {
            let job = job(id, topic, number, &options);
            OpenJob { kept: kept(job.id, &config), ..job }
        }));
        configs.push((id, topic, config));
    }
    let mut handles = open_all(storage, flow, &jobs).into_iter();
    let topic = |(id, topic, config): (TopicId, &CatalogTopic, TopicConfig)| {
        let partitions = handles.by_ref().take(topic.partitions as usize).collect();
        let limits = flow.topic(topic.name.clone(), now);
        Arc::new(Topic::new(limits, id, config, partitions))
    };
    let topics: Vec<_> = configs.into_iter().map(topic).collect();
    info!("{} topics with {} partitions are open", topics.len(), jobs.len());
    Ok(topics)
}

/// A connection that has room for no batch of a topic would never be served.
pub(super) fn check_share(flow: &Flow, config: &TopicConfig) -> Result<(), String> {
    let share = flow.pool.limit_of(PushbackScope::Connection);
    let largest = config.max_message_bytes;
    if u64::from(largest) <= share {
        return Ok(());
    }
    Err(format!(
        "max_message_bytes is {largest} and a connection has {share} bytes in flight: \
         one is to be lowered, or memory.inflight_bytes_max raised"
    ))
}

struct OpenJob {
    id: TopicPartition,
    options: Arc<PartitionOptions>,
    known: Materialised,
    /// What retention has to keep, from the first moment on.
    kept: Option<Offset>,
}

fn job(id: TopicId, topic: &CatalogTopic, number: u32, options: &Arc<PartitionOptions>) -> OpenJob {
    let partition = PartitionId(number);
    let known = match topic.materialised.contains(&partition) {
        true => Materialised::Yes,
        false => Materialised::Unknown,
    };
    let id = TopicPartition { topic: id, partition };
    OpenJob { id, options: Arc::clone(options), known, kept: None }
}

/// Opens all partitions, several at a time, in the order of the jobs.
fn open_all(storage: &LogDir, flow: &Flow, jobs: &[OpenJob]) -> Vec<Arc<PartitionHandle>> {
    let turn = AtomicUsize::new(0);
    let work = || {
        let mut opened = Vec::new();
        while let Some((at, job)) = {
            let at = turn.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).map(|job| (at, job))
        } {
            let handle = open_partition(storage, flow, job.id, &job.options, job.known);
            handle.protect(job.kept);
            opened.push((at, handle));
        }
        opened
    };
    let mut opened: Vec<_> = std::thread::scope(|scope| {
        let threads = RECOVERY_THREADS.min(jobs.len());
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .flat_map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    opened.sort_unstable_by_key(|(at, _)| *at);
    opened.into_iter().map(|(_, handle)| handle).collect()
}

/// A partition that cannot be opened does not stop the broker: it says why to whoever asks.
fn open_partition(
    storage: &LogDir,
    flow: &Flow,
    id: TopicPartition,
    options: &Arc<PartitionOptions>,
    known: Materialised,
) -> Arc<PartitionHandle> {
    let log = storage.partition(id, Arc::clone(options), known).map_err(|e| {
        error!("partition {id} cannot be opened: {e}");
        e.to_string()
    });
    let writer = log.as_ref().map_or(0, Partition::writer);
    Arc::new(PartitionHandle::new(id, log, flow.partition(writer)))
}

fn machine_bytes() -> Option<u64> {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit.max(1));
    info.totalram.checked_mul(unit).filter(|bytes| *bytes > 0)
}
