//! Everything that limits one broker, in one place: the broker, the embedded API and the simulator
//! drive the same [`Flow`].
//!
//! It does no I/O and owns no task. What a batch passes is atomics; what is decided is decided by
//! whoever ticks. Deliberately absent: how anybody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::tick::Ticking;
use super::{
    BacklogGate, Cause, ConnectionFlow, ControllerOptions, DiskGauge, DiskOptions, DiskWatch, Edge,
    Enforcement, FetchPool, FlowOptions, Forgone, GrantOptions, Identity, NoWake, Offer, Parties,
    Party, Pool, Pressure, PressureOptions, PublisherGrant, QuotaOptions, QuotaTable, QuotaTree,
    ReadOptions, ReadPath, Seat, Seats, Share, TopicLimit, Wake, WriterGauge, WriterMask,
};
use crate::types::{Class, DiskPressure, Entity, EntityKind, TopicName};

/// All limits of one broker.
pub struct Flow {
    /// Its settings.
    pub options: FlowOptions,
    /// What limits whom.
    pub pressure: Arc<Pressure>,
    /// Bytes of batches between admission and answer.
    pub pool: Pool,
    /// What reads pass.
    pub reads: Arc<ReadPath>,
    /// Log writers, by number.
    pub writers: Box<[WriterGauge]>,
    /// Open publishers.
    pub seats: Seats,
    /// Quotas.
    pub quotas: Arc<QuotaTree>,
    /// Callers in this process.
    pub embedded: ConnectionFlow,
    /// Free space.
    pub disk: DiskGauge,
    disk_watch: Mutex<DiskWatch>,
    /// Connections since the start: the number in their names.
    connections: AtomicU64,
    /// Somebody met the end of the disk, or the next level's mark.
    pub look_at_disk: Notify,
    /// A topic refuses, or is over its limit and drops its oldest segments.
    pub over_limit: Notify,
    /// Batches that shares and windows would have refused, had they been in force.
    pub forgone: Forgone,
    pub(super) ticking: Mutex<Ticking>,
}

/// What limits are sized by beside their options.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Memory of the machine, where it is known.
    pub machine_bytes: Option<u64>,
    /// Rules of the data directory's disk.
    pub disk: DiskOptions,
    /// What is known of who is limited.
    pub pressure: PressureOptions,
    /// Number of log writers.
    pub writers: usize,
    /// The time now.
    pub now: Duration,
}

/// The limits of one topic.
#[derive(Debug)]
pub struct TopicFlow {
    /// The topic.
    pub name: TopicName,
    /// Bytes it may store.
    pub limit: TopicLimit,
    /// Groups that must not fall further behind.
    pub backlog: BacklogGate,
    /// Told of when the topic's own limits, or a group's backlog, refuse.
    pub party: Arc<Party>,
}

/// The limits of one partition.
#[derive(Debug)]
pub struct PartitionFlow {
    /// Its share of the pool.
    pub share: Arc<Share>,
    /// Which log writer appends to it.
    pub writer: usize,
    /// What reads of it pass.
    pub reads: Arc<ReadPath>,
}

/// A publisher that opens.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its class.
    pub class: Class,
    /// Log writers it may write to.
    pub writers: WriterMask,
    /// Partitions it may write to.
    pub partitions: u64,
}

impl Flow {
    /// Limits of which nothing is used yet.
    pub fn new(options: FlowOptions, surroundings: Surroundings, quotas: QuotaTable) -> Flow {
        let now = surroundings.now;
        let pressure = Arc::new(Pressure::new(surroundings.pressure, now));
        let pool = Pool::new(options, surroundings.machine_bytes);
        let controllers = controller_options(&options, pool.limit());
        let ticking = Ticking::new(controllers, surroundings.writers, surroundings.now);
        let writer = |_| WriterGauge::new(ticking.window());
        let quota_options =
            QuotaOptions { enforcement: options.enforcement, ..QuotaOptions::default() };
        let quotas = QuotaTree::new(quota_options, Arc::clone(pressure.names()), quotas);
        let quotas = Arc::new(quotas);
        let share = pool.connection_share();
        let identity = Identity::embedded();
        let parties = Parties::new(Arc::clone(&pressure), &identity.client, 0, now);
        Flow {
            options,
            pressure,
            reads: Arc::new(ReadPath::new(
                FetchPool::new(options.fetch_bytes_max),
                ReadOptions::default(),
            )),
            writers: (0..surroundings.writers).map(writer).collect(),
            seats: Seats::new(pool.limit(), options.grant_bytes_first),
            embedded: ConnectionFlow::new(identity, share, Arc::clone(&quotas), parties),
            quotas,
            pool,
            disk: DiskGauge::new(),
            disk_watch: Mutex::new(DiskWatch::new(surroundings.disk)),
            connections: AtomicU64::new(0),
            look_at_disk: Notify::new(),
            over_limit: Notify::new(),
            forgone: Forgone::default(),
            ticking: Mutex::new(ticking),
        }
    }

    /// The limits of a new connection.
    pub fn connect(&self, identity: Identity, now: Duration) -> ConnectionFlow {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let parties = Parties::new(Arc::clone(&self.pressure), &identity.client, number, now);
        let share = self.pool.connection_share();
        ConnectionFlow::new(identity, share, Arc::clone(&self.quotas), parties)
    }

    /// The limits of a topic that stores nothing yet.
    pub fn topic(&self, name: TopicName, now: Duration) -> TopicFlow {
        let party =
            self.pressure.registry().named(Entity::new(EntityKind::Topic, name.as_str()), now);
        TopicFlow { party, ..TopicFlow::new(name) }
    }

    /// The limits of a partition that this log writer appends to.
    pub fn partition(&self, writer: usize) -> PartitionFlow {
        let share = Arc::new(self.pool.partition_share());
        PartitionFlow { share, writer, reads: Arc::clone(&self.reads) }
    }

    /// A new publisher. `wake` is told when it waits and may perhaps send.
    pub fn open_publisher(&self, opening: Opening, wake: Weak<dyn Wake>) -> PublisherGrant {
        let seat = self.seats.open(opening.class, opening.writers, wake);
        let options = GrantOptions::from(&self.options);
        // No more than its connection could have under way in these partitions.
        let lanes = self.pool.lane_limit().saturating_mul(opening.partitions.max(1));
        let share = self.pool.connection_share().grant_bytes_max();
        let most = lanes.min(share).max(options.first);
        PublisherGrant::new(GrantOptions { max: options.max.min(most), ..options }, seat)
    }

    /// The seat of a connection that sends without a publisher, to any log writer.
    pub(super) fn open_seat(&self, class: Class) -> Arc<Seat> {
        let Opening { writers, .. } = Opening::to(class, 0..self.writers.len());
        let nobody: Weak<NoWake> = Weak::new();
        self.seats.open(class, writers, nobody)
    }

    /// What [`PublisherGrant::poll`] is to be offered for a publisher of this seat.
    pub fn offer(&self, seat: &Seat) -> Offer {
        if self.options.enforcement != Enforcement::On {
            return Offer { bytes: u64::MAX, cause: Cause::Grant };
        }
        let writer = self.writers.get(seat.writers().trailing_zeros() as usize);
        let cause = writer.map_or(Cause::Window, WriterGauge::cause);
        Offer { bytes: seat.share_bytes(), cause }
    }

    /// Notes what the disk says of itself. Returns what changed by it, and when to look again.
    pub fn note_space(&self, capacity: u64, free: u64, now: Duration) -> Option<Edge> {
        self.disk_watch().look(now, capacity, free, &self.disk)
    }

    /// Bytes that would have to go for HIGH to end.
    pub fn space_needed(&self) -> u64 {
        self.disk_watch().needed(&self.disk)
    }

    /// How long until the disk is to be looked at again.
    pub fn next_look(&self) -> Duration {
        self.disk_watch().next_look()
    }

    /// What the last look at the disk said, and what was admitted since.
    pub fn disk_pressure(&self) -> DiskPressure {
        let watch = self.disk_watch();
        let (marks, forecast) = (watch.marks(), watch.forecast());
        DiskPressure {
            level: self.disk.level().name().to_owned(),
            capacity: marks.capacity,
            available: self.disk.available(),
            low: marks.low,
            high: marks.high,
            full: marks.full,
            ingest_bps: forecast.ingest_bps(),
            reclaim_bps: forecast.reclaim_bps(),
            seconds_to_full: forecast.seconds_to(marks.full),
        }
    }

    fn disk_watch(&self) -> std::sync::MutexGuard<'_, DiskWatch> {
        // Counters; a panic between two of them leaves the next look to correct them.
        self.disk_watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn controller_options(options: &FlowOptions, pool_bytes: u64) -> ControllerOptions {
    let target_min = Duration::from_millis(options.sojourn_ms_min);
    ControllerOptions {
        target_min,
        target_max: Duration::from_millis(options.sojourn_ms_max).max(target_min),
        window_min: options.window_bytes_min.max(1),
        window_max: pool_bytes,
        ..ControllerOptions::default()
    }
}

impl Opening {
    /// A publisher of partitions that these log writers append to.
    pub fn to(class: Class, writers: impl IntoIterator<Item = usize>) -> Opening {
        let (mask, mut partitions) = (WriterMask::default(), 0);
        mask.add(writers.into_iter().inspect(|_| partitions += 1));
        Opening { class, writers: mask, partitions }
    }
}

impl TopicFlow {
    /// A topic that stores nothing yet, and of which nobody is told.
    pub fn new(name: TopicName) -> TopicFlow {
        let entity = Entity::new(EntityKind::Topic, name.as_str());
        TopicFlow {
            name,
            limit: TopicLimit::default(),
            backlog: BacklogGate::default(),
            party: Arc::new(Party::alone(entity)),
        }
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").field("options", &self.options).finish_non_exhaustive()
    }
}
