//! The facade: a broker in this process, whoever asks.

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use super::backlog::Backlogs;
use super::coordinator::{Coordinator, GroupHandle};
use super::core::{Core, Opened};
use super::error::OpenError;
use super::flow::{ConnectionFlow, Flow, Identity, Place, PublisherGrant, Wake};
use super::housekeeping::{note_materialised, tick_flow};
use super::lifecycle::Lifecycle;
use super::options::BrokerOptions;
use super::pressure_topic::tell_pressure;
use super::request::ShutdownMode;
use super::space::{hold_limits, watch_disk};
use super::topic::Topic;
use super::topics::purge_tombstones;
use crate::env::{Clock, Env};
use crate::types::{Class, Pushback};

/// An event log in this process: topics, partitions, groups, limits. Cheap to clone; all clones are
/// the same broker.
///
/// A server puts it on a network; embedded use calls it directly. Needs a tokio runtime with time
/// enabled. Dropping the last clone without [`Broker::shutdown`] is a crash: what was acknowledged
/// is safe, the next start recovers.
///
/// ```
/// use std::time::Duration;
///
/// use stoplog::broker::{
///     Broker, BrokerOptions, FetchPartition, FetchRequest, NewTopic, ProduceRequest, ReadMode,
///     ShutdownMode,
/// };
/// use stoplog::record::{BatchBuilder, BuilderOptions, RecordRef, Records};
/// use stoplog::types::{Acks, Class, DurabilityLevel, Offset, PartitionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let dir = tempfile::tempdir()?;
/// let broker = Broker::open(BrokerOptions::new(dir.path())).await?;
/// let orders = broker.create_topic(NewTopic::new("orders".parse()?, 1)).await?;
///
/// let mut batch = BatchBuilder::new(BuilderOptions::default());
/// batch.push(&RecordRef { value: Some(b"OrderPlaced 4711"), ..RecordRef::default() })?;
/// let produced = broker
///     .produce_and_wait(ProduceRequest {
///         topic: orders.id(),
///         partition: PartitionId(0),
///         batch: batch.build(),
///         acks: Acks::Topic,
///         deadline: None,
///         connection: None,
///         class: Class::Normal,
///         standing: None,
///     })
///     .await?;
/// assert_eq!((produced.base_offset, produced.level), (Offset(0), DurabilityLevel::Durable));
///
/// let read = orders.partition(PartitionId(0)).ok_or("a partition")?;
/// let fetched = read.read(Offset(0), 1 << 20, ReadMode::Owned).await?;
/// let batch = Records::open(fetched.data[0].clone(), &Default::default())?;
/// let values: Vec<_> = batch.filter_map(|record| record.ok()?.value).collect();
/// assert_eq!(values, ["OrderPlaced 4711"]);
///
/// broker.shutdown(ShutdownMode::Graceful).await;
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct Broker {
    front: Arc<Front>,
}

/// The last clone's end stops the tasks.
struct Front {
    core: Arc<Core>,
    groups: GroupHandle,
    lifecycle: Lifecycle,
}

impl Broker {
    /// Opens the data directory of `options`, or makes one in an empty place. Ready when it
    /// returns: every partition is recovered, or fenced and says why.
    ///
    /// # Errors
    /// [`OpenError`]; nothing runs then.
    pub fn open(options: BrokerOptions) -> impl Future<Output = Result<Broker, OpenError>> {
        let env = Env::real(options.data_dir.clone());
        Broker::open_with(options, env)
    }

    /// [`Broker::open`] with another outside world: a simulated disk or clock.
    pub async fn open_with(options: BrokerOptions, env: Env) -> Result<Broker, OpenError> {
        let opening = tokio::task::spawn_blocking(move || Core::open(options, env));
        let opened = opening.await.map_err(|e| OpenError::Options(format!("died: {e}")))??;
        let Opened { core, groups, tombstones } = opened;
        let core = Arc::new(core);
        let (groups, coordinator) = Coordinator::new(Arc::clone(&core), groups);
        let lifecycle = Lifecycle::new(Arc::clone(&core), tokio::spawn(coordinator.run()));
        lifecycle.run("disk watch", watch_disk(Arc::clone(&core)));
        lifecycle.run("flow", tick_flow(Arc::clone(&core), Backlogs::begin(&core)));
        lifecycle.run("limits of topics", hold_limits(Arc::clone(&core)));
        if core.options.pressure.topic {
            lifecycle.run("pressure topic", tell_pressure(Arc::clone(&core)));
        }
        lifecycle.run("marks of written partitions", note_materialised(Arc::clone(&core)));
        if !tombstones.is_empty() {
            drop(tokio::spawn(purge_tombstones(Arc::clone(&core), tombstones)));
        }
        Ok(Broker { front: Arc::new(Front { core, groups, lifecycle }) })
    }

    /// Ends the broker. Graceful: new produce requests are refused with DRAINING, those under way
    /// are answered (at most `drain_ms` long), then every partition gets a clean mark. Called a
    /// second time with [`ShutdownMode::AtOnce`], it ends at once.
    pub async fn shutdown(&self, mode: ShutdownMode) {
        self.front.lifecycle.shutdown(mode).await;
    }

    /// Consumer groups.
    pub fn groups(&self) -> &GroupHandle {
        &self.front.groups
    }

    /// A place for a connection that comes from `ip`, to be kept while it is open, or which quota of
    /// its address refuses it. To be asked before anything is read.
    pub fn arrive(&self, ip: IpAddr) -> Result<Place, Pushback> {
        let arrived = self.core().flow.quotas.arrive(ip, self.monotonic());
        arrived.map_err(|refusal| refusal.pushback())
    }

    /// The limits of a new connection. Put them into its requests.
    pub fn connect(&self, identity: Identity) -> ConnectionFlow {
        self.core().flow.connect(identity, self.monotonic())
    }

    /// A new publisher of a topic and a connection; `None` in embedded use. Its class is what quotas
    /// leave of the one asked for. `wake` is told when it waits and may perhaps send.
    pub fn open_publisher(
        &self,
        topic: &Topic,
        connection: Option<&ConnectionFlow>,
        class: Class,
        wake: Weak<dyn Wake>,
    ) -> PublisherGrant {
        let flow = self.flow();
        let class = connection.unwrap_or(&flow.embedded).class(class, self.monotonic());
        let grant = flow.open_publisher(topic.opening(class), wake);
        match connection {
            Some(connection) => grant.of(connection.share()),
            None => grant,
        }
    }

    /// Everything that limits.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.core().flow
    }

    /// What it was opened with.
    pub fn options(&self) -> &BrokerOptions {
        &self.core().options
    }

    /// The clock of the broker's machines.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.core().env.clock
    }

    /// Time since some fixed moment, as the broker's machines want it.
    pub fn monotonic(&self) -> std::time::Duration {
        self.core().env.clock.monotonic()
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.front.core
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("core", self.core()).finish_non_exhaustive()
    }
}
