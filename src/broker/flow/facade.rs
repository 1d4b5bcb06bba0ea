//! Everything that limits one broker, in one place: the broker, the embedded API and the simulator
//! drive the same [`Flow`].
//!
//! It does no I/O and owns no task. What a batch passes is atomics; what is decided is decided by
//! whoever ticks. Deliberately absent: how anybody waits.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::{
    BacklogGate, ConnectionFlow, DiskGauge, DiskOptions, DiskWatch, Edge, FetchPool, FlowOptions,
    GrantOptions, Identity, Names, Pool, PublisherGrant, QuotaOptions, QuotaTable, QuotaTree,
    Seats, Share, TopicLimit, Wake,
};
use crate::env::Clock;
use crate::types::{Class, TopicName};

/// All limits of one broker.
pub struct Flow {
    /// Its settings.
    pub options: FlowOptions,
    /// Names in causes.
    pub names: Arc<Names>,
    /// Bytes of batches between admission and answer.
    pub pool: Pool,
    /// Bytes of answers between planning and sending.
    pub fetch_pool: FetchPool,
    /// Open publishers.
    pub seats: Seats,
    /// Quotas.
    pub quotas: Arc<QuotaTree>,
    /// Callers in this process.
    pub embedded: ConnectionFlow,
    /// Free space.
    pub disk: DiskGauge,
    disk_watch: Mutex<DiskWatch>,
    /// Somebody met the end of the disk, or the next level's mark.
    pub look_at_disk: Notify,
    /// A topic is over its limit and drops its oldest segments.
    pub over_limit: Notify,
}

/// What limits are sized by beside their options.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Memory of the machine, where it is known.
    pub machine_bytes: Option<u64>,
    /// Rules of the data directory's disk.
    pub disk: DiskOptions,
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
}

/// The limits of one partition.
#[derive(Debug)]
pub struct PartitionFlow {
    /// Its share of the pool.
    pub share: Arc<Share>,
}

/// The mask of the one window there is, the pool.
const POOL_AS_WRITER: u64 = 1;

impl Flow {
    /// Limits of which nothing is used yet.
    pub fn new(
        options: FlowOptions,
        surroundings: Surroundings,
        quotas: QuotaTable,
        clock: Arc<dyn Clock>,
    ) -> Flow {
        let names = Arc::<Names>::default();
        let pool = Pool::new(options, surroundings.machine_bytes, clock);
        let quotas = QuotaTree::new(QuotaOptions::default(), Arc::clone(&names), quotas);
        let quotas = Arc::new(quotas);
        let share = pool.connection_share();
        Flow {
            options,
            names,
            fetch_pool: FetchPool::new(options.fetch_bytes_max),
            seats: Seats::new(pool.limit(), options.grant_bytes_first),
            embedded: ConnectionFlow::new(Identity::embedded(), share, Arc::clone(&quotas)),
            quotas,
            pool,
            disk: DiskGauge::new(),
            disk_watch: Mutex::new(DiskWatch::new(surroundings.disk)),
            look_at_disk: Notify::new(),
            over_limit: Notify::new(),
        }
    }

    /// The limits of a new connection.
    pub fn connect(&self, identity: Identity) -> ConnectionFlow {
        ConnectionFlow::new(identity, self.pool.connection_share(), Arc::clone(&self.quotas))
    }

    /// The limits of a partition.
    pub fn partition(&self) -> PartitionFlow {
        PartitionFlow { share: Arc::new(self.pool.partition_share()) }
    }

    /// A new publisher. `wake` is told when it waits and may perhaps send; the share of its seat is
    /// what [`PublisherGrant::poll`] is to be offered.
    pub fn open_publisher(&self, wake: Weak<dyn Wake>) -> PublisherGrant {
        let seat = self.seats.open(Class::Normal, POOL_AS_WRITER, wake);
        PublisherGrant::new(GrantOptions::from(&self.options), seat)
    }

    /// Notes what the disk says of itself. Returns what changed by it, and when to look again.
    pub fn note_space(&self, capacity: u64, free: u64, now: Duration) -> Option<Edge> {
        self.disk_watch().look(now, capacity, free, &self.disk)
    }

    /// How long until the disk is to be looked at again.
    pub fn next_look(&self) -> Duration {
        self.disk_watch().next_look()
    }

    fn disk_watch(&self) -> std::sync::MutexGuard<'_, DiskWatch> {
        // Counters; a panic between two of them leaves the next look to correct them.
        self.disk_watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopicFlow {
    /// A topic that stores nothing yet.
    pub fn new(name: TopicName) -> TopicFlow {
        TopicFlow { name, limit: TopicLimit::default(), backlog: BacklogGate::default() }
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").field("options", &self.options).finish_non_exhaustive()
    }
}
