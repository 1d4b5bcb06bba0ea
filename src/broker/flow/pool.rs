//! The one hard pool for bytes in flight, with shares per partition and per connection, and of each
//! partition in a connection's share.
//!
//! `admit -> Permit`: the permit travels with a request until its answer and gives everything back
//! when it is dropped, on whatever path. A tenth of the pool is nobody's: what the broker needs to
//! get out of trouble. While log writers are busy the lower classes may use less.
//!
//! # Invariants
//! `used <= limit` of the pool, always. `used <= limit` of a share, or the share holds exactly one
//! request (so that a batch larger than a share never deadlocks). Where a class is refused for want
//! of room in the pool, every lower one is.

mod reserved;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::FlowOptions;
use super::binding::Binding;
use super::lanes::{Lane, Lanes};
use super::retry::{busy, retry_after_ms};
use crate::types::{Class, Pushback, PushbackScope};

pub use reserved::Reserved;

/// What a request costs beside its bytes: the boxes and queue places that carry it.
const REQUEST_BYTES: u64 = 512;
/// Parts of the pool, in per mille, that a class may fill: calm, and while writers are busy.
const CEILING: u64 = 900;
const CEILING_NORMAL: u64 = 850;
const CEILING_BULK: u64 = 700;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<PoolState>);

struct PoolState {
    limit: u64,
    used: AtomicU64,
    /// Of what is used, what is reserved: bodies that are still to come.
    arriving: AtomicU64,
    partition_limit: u64,
    connection_limit: u64,
    lane_limit: u64,
    options: FlowOptions,
    /// Number of the next partition.
    next: AtomicU32,
    /// What the log writers take, as of the last tick; 0 = not known.
    bytes_per_second: AtomicU64,
    /// Whether a log writer is busy, as of the last tick.
    busy: AtomicBool,
    bindings: [Binding; 3],
    /// Told whenever the pool is empty, for a shutdown that waits.
    empty: Notify,
}

/// A part of the pool that belongs to one partition.
#[derive(Debug)]
pub struct Share {
    number: u32,
    limit: u64,
    used: AtomicU64,
}

/// A part of the pool that belongs to one connection; cheap to clone, made by
/// [`Pool::connection_share`].
#[derive(Clone, Debug)]
pub struct ConnectionShare(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    share: Share,
    lanes: Lanes,
    publishers: AtomicU64,
}

/// Bytes of the pool. Holds them until it is dropped, which is when the request was answered.
#[must_use = "dropping a permit gives its bytes back at once"]
pub struct Permit {
    pool: Pool,
    partition: Arc<Share>,
    connection: Option<(ConnectionShare, Lane)>,
    bytes: u64,
    /// Bytes of the batch: what its partition counts, as grants do. 0 once it has left it.
    partition_bytes: u64,
}

/// A limit of the pool that was met.
struct Met {
    scope: PushbackScope,
    limit_id: &'static str,
    observed: u64,
    limit: u64,
}

impl Pool {
    /// A pool of [`FlowOptions::pool_bytes`].
    pub fn new(options: FlowOptions, machine_bytes: Option<u64>) -> Pool {
        let limit = options.pool_bytes(machine_bytes);
        let part = |of: u64, share: u32| (of / u64::from(share.max(1))).max(1);
        let connection_limit = part(limit, options.connection_share);
        Pool(Arc::new(PoolState {
            limit,
            used: AtomicU64::new(0),
            arriving: AtomicU64::new(0),
            partition_limit: part(limit, options.partition_share),
            connection_limit,
            lane_limit: part(connection_limit, options.lane_share),
            options,
            next: AtomicU32::new(0),
            bytes_per_second: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            bindings: Default::default(),
            empty: Notify::new(),
        }))
    }

    /// The share of a new connection.
    pub fn connection_share(&self) -> ConnectionShare {
        let share = Share::new(0, self.0.connection_limit);
        let lanes = Lanes::new(self.0.lane_limit);
        ConnectionShare(Arc::new(Connection { share, lanes, publishers: AtomicU64::new(0) }))
    }

    /// The share of a partition.
    pub fn partition_share(&self) -> Share {
        Share::new(self.0.next.fetch_add(1, Ordering::Relaxed), self.0.partition_limit)
    }

    /// Takes place for a request of `bytes`, or says which limit refuses it and for how long.
    pub fn admit(
        &self,
        bytes: u64,
        class: Class,
        partition: &Arc<Share>,
        connection: Option<&ConnectionShare>,
        now: Duration,
    ) -> Result<Permit, Pushback> {
        let held = bytes.saturating_add(REQUEST_BYTES);
        let refuse = |met: Met| self.refuse(&met, held, now);
        let lane = connection.map(|connection| connection.take(partition.number, bytes));
        let lane = lane.transpose().map_err(refuse)?;
        let connection = connection.cloned().zip(lane);
        let give_back = |connection: &Option<(ConnectionShare, Lane)>| {
            connection.iter().for_each(|(connection, lane)| connection.give(*lane, bytes));
        };
        if let Err(observed) = partition.take(bytes) {
            give_back(&connection);
            let (scope, limit) = (PushbackScope::Partition, partition.limit);
            return Err(refuse(Met { scope, limit_id: "partition", observed, limit }));
        }
        let limit = self.ceiling(class);
        if let Err(observed) = take(&self.0.used, held, limit, false) {
            partition.give(bytes);
            give_back(&connection);
            let scope = PushbackScope::Broker;
            let told = refuse(Met { scope, limit_id: "pool", observed, limit });
            return Err(Pushback { min_class: self.min_class(observed + held), ..told });
        }
        let (pool, partition) = (self.clone(), Arc::clone(partition));
        Ok(Permit { pool, partition, connection, bytes: held, partition_bytes: bytes })
    }

    /// SERVER_BUSY for a partition whose queue is full: counted like the partition's share.
    pub fn refuse_queue(&self, bytes: u64, partition: &Share, now: Duration) -> Pushback {
        let (scope, limit) = (PushbackScope::Partition, partition.limit);
        let met = Met { scope, limit_id: "partition", observed: partition.used(), limit };
        self.refuse(&met, bytes, now)
    }

    /// Largest batch that can be admitted while nobody is busy.
    pub fn batch_bytes_max(&self) -> u64 {
        part(self.0.limit, CEILING).saturating_sub(REQUEST_BYTES)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    /// Bytes there are.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// How full it is, in per mille.
    pub fn per_mille(&self) -> u32 {
        let per_mille = u128::from(self.used()) * 1_000 / u128::from(self.0.limit.max(1));
        u32::try_from(per_mille).unwrap_or(u32::MAX)
    }

    /// The limit of one scope: the pool, or one share of it.
    pub fn limit_of(&self, scope: PushbackScope) -> u64 {
        match scope {
            PushbackScope::Partition => self.0.partition_limit,
            PushbackScope::Connection => self.0.connection_limit,
            _ => self.0.limit,
        }
    }

    /// What one partition may use of one connection's share.
    pub fn lane_limit(&self) -> u64 {
        self.0.lane_limit
    }

    /// Makes known how fast the log writers are (0 = not known) and whether one is busy.
    pub fn publish(&self, bytes_per_second: u64, busy: bool) {
        self.0.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
        self.0.busy.store(busy, Ordering::Relaxed);
    }

    /// When something that needs `bytes` to leave first is to try again, in milliseconds.
    pub fn retry_after_ms(&self, bytes: u64) -> u32 {
        let rate = self.0.bytes_per_second.load(Ordering::Relaxed);
        let time = |rate| Duration::from_millis(bytes.saturating_mul(1_000) / rate);
        retry_after_ms((rate > 0).then_some(rate).map(time), &self.0.options)
    }

    /// Refusals and the length of the current stretch of them, for each scope that the pool has.
    pub fn refusals(&self, now: Duration) -> [(PushbackScope, u64, Option<u64>); 3] {
        [PushbackScope::Broker, PushbackScope::Partition, PushbackScope::Connection].map(|scope| {
            let binding = self.binding(scope);
            (scope, binding.refusals(), binding.since_ms(now))
        })
    }

    /// Completes when no request is in flight; at once when none is.
    pub async fn empty(&self) {
        loop {
            let told = self.0.empty.notified();
            let mut told = std::pin::pin!(told);
            told.as_mut().enable();
            if self.used() == 0 {
                return;
            }
            told.await;
        }
    }

    fn give(&self, bytes: u64) {
        if self.0.used.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.0.empty.notify_waiters();
        }
    }

    /// Bytes that a class may fill.
    fn ceiling(&self, class: Class) -> u64 {
        let busy = self.0.busy.load(Ordering::Relaxed);
        let per_mille = match (busy, class) {
            (_, Class::System) => return self.0.limit,
            (true, Class::Normal) => CEILING_NORMAL,
            (true, Class::Bulk) => CEILING_BULK,
            _ => CEILING,
        };
        part(self.0.limit, per_mille)
    }

    /// The lowest class that may fill the pool up to `sum`.
    fn min_class(&self, sum: u64) -> Option<Class> {
        let lowest_first = [Class::Bulk, Class::Normal, Class::Critical];
        lowest_first.into_iter().find(|class| sum <= self.ceiling(*class))
    }

    fn refuse(&self, met: &Met, bytes: u64, now: Duration) -> Pushback {
        self.binding(met.scope).refused(now);
        let excess = met.observed.saturating_add(bytes).saturating_sub(met.limit).max(bytes);
        let retry_after_ms = self.retry_after_ms(excess);
        busy(met.scope, met.limit_id, met.observed, met.limit, retry_after_ms)
    }

    fn binding(&self, scope: PushbackScope) -> &Binding {
        let [broker, partition, connection] = &self.0.bindings;
        match scope {
            PushbackScope::Partition => partition,
            PushbackScope::Connection => connection,
            _ => broker,
        }
    }
}

fn part(limit: u64, per_mille: u64) -> u64 {
    limit - limit / 1_000 * (1_000 - per_mille)
}

impl Share {
    fn new(number: u32, limit: u64) -> Share {
        Share { number, limit, used: AtomicU64::new(0) }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), u64> {
        take(&self.used, bytes, self.limit, true)
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl ConnectionShare {
    /// Bytes of the connection in flight.
    pub fn used(&self) -> u64 {
        self.0.share.used()
    }

    /// A publisher of this connection was opened.
    pub(super) fn publisher_opened(&self) {
        self.0.publishers.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them was closed.
    pub(super) fn publisher_closed(&self) {
        self.0.publishers.fetch_sub(1, Ordering::Relaxed);
    }

    /// What each of its publishers may be granted: together half of the share, because a batch takes
    /// up to twice its bytes in memory.
    pub(super) fn grant_bytes_max(&self) -> u64 {
        self.0.share.limit / 2 / self.0.publishers.load(Ordering::Relaxed).max(1)
    }

    /// Takes what a batch of `bytes` holds, and its bytes for its partition.
    fn take(&self, partition: u32, bytes: u64) -> Result<Lane, Met> {
        let Connection { share, lanes, .. } = self.0.as_ref();
        let held = bytes.saturating_add(REQUEST_BYTES);
        share.take(held).map_err(|observed| {
            let (scope, limit) = (PushbackScope::Connection, share.limit);
            Met { scope, limit_id: "connection", observed, limit }
        })?;
        lanes.take(partition, bytes).map_err(|observed| {
            share.give(held);
            let (scope, limit) = (PushbackScope::Partition, lanes.limit());
            Met { scope, limit_id: "connection/partition", observed, limit }
        })
    }

    fn give(&self, lane: Lane, bytes: u64) {
        self.0.lanes.give(lane, bytes);
        self.0.share.give(bytes.saturating_add(REQUEST_BYTES));
    }
}

impl Permit {
    /// Bytes it holds, the request's own cost included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives its partition's bytes back, before its sender is answered and sends the next.
    pub(super) fn leave_partition(&mut self) {
        let bytes = std::mem::take(&mut self.partition_bytes);
        if let Some((connection, lane)) = self.connection.as_ref().filter(|_| bytes > 0) {
            connection.0.lanes.give(*lane, bytes);
        }
        self.partition.give(bytes);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave_partition();
        if let Some((connection, _)) = &self.connection {
            connection.0.share.give(self.bytes);
        }
        self.pool.give(self.bytes);
    }
}

/// Adds `bytes` to `used` when the sum fits, or, where that is allowed, when nothing is in use.
fn take(used: &AtomicU64, bytes: u64, limit: u64, alone_fits: bool) -> Result<(), u64> {
    let fits = |now: u64| {
        let sum = now.checked_add(bytes)?;
        (sum <= limit || (alone_fits && now == 0)).then_some(sum)
    };
    used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(limit: u64) -> Pool {
        let options = FlowOptions { inflight_bytes_max: Some(limit), ..FlowOptions::default() };
        Pool::new(options, None)
    }

    fn admit(
        pool: &Pool,
        bytes: u64,
        partition: &Arc<Share>,
        connection: Option<&ConnectionShare>,
    ) -> Result<Permit, Pushback> {
        pool.admit(bytes, Class::Normal, partition, connection, Duration::ZERO)
    }

    #[test]
    fn a_share_is_exhausted_before_the_pool() {
        let pool = pool(64 << 10);
        let (one, other) = (Arc::new(pool.partition_share()), Arc::new(pool.partition_share()));
        let held = admit(&pool, 15 << 10, &one, None).expect("fits the share");
        let refused = admit(&pool, 2 << 10, &one, None).err().expect("the share is used up");
        assert_eq!(refused.scope, PushbackScope::Partition);
        assert!(refused.retry_after_ms >= 50);
        let _other = admit(&pool, 1 << 10, &other, None).expect("another partition goes on");
        drop(held);
        let _again = admit(&pool, 1 << 10, &one, None).expect("the share is free again");
    }

    #[test]
    fn a_batch_larger_than_a_share_is_admitted_alone() {
        let pool = pool(64 << 10);
        let share = Arc::new(pool.partition_share());
        let connection = pool.connection_share();
        let held = admit(&pool, 40 << 10, &share, Some(&connection)).expect("alone it fits");
        assert!(admit(&pool, 1, &share, Some(&connection)).is_err());
        drop(held);
        assert_eq!((pool.used(), share.used(), connection.used()), (0, 0, 0));
        assert!(admit(&pool, 64 << 10, &share, None).is_err(), "the pool itself is hard");
    }

    #[test]
    fn one_partition_holds_a_quarter_of_its_connections_share() {
        let pool = pool(1 << 20);
        let (one, other) = (Arc::new(pool.partition_share()), Arc::new(pool.partition_share()));
        let connection = pool.connection_share();
        let _held = admit(&pool, 30 << 10, &one, Some(&connection)).expect("less than a quarter");
        let refused = admit(&pool, 10 << 10, &one, Some(&connection)).err().expect("more");
        assert_eq!((refused.limit, &*refused.limit_id), (32 << 10, "connection/partition"));
        let _other = admit(&pool, 10 << 10, &other, Some(&connection)).expect("others go on");
        let _elsewhere = admit(&pool, 10 << 10, &one, None).expect("and other connections");
    }

    #[test]
    fn busy_writers_shed_the_lowest_class_first_and_a_tenth_is_nobodys() {
        let pool = pool(1_000_000);
        let shares: Vec<_> = (0..8).map(|_| Arc::new(pool.partition_share())).collect();
        let ask = |share: usize, bytes, class| {
            pool.admit(bytes - REQUEST_BYTES, class, &shares[share], None, Duration::ZERO)
        };
        let mut held: Vec<_> = (0..3).map(|at| ask(at, 230_000, Class::Bulk)).collect();
        let min_class = |refused: Result<Permit, Pushback>| refused.err().and_then(|r| r.min_class);
        pool.publish(0, true);
        assert_eq!(min_class(ask(3, 20_000, Class::Bulk)), Some(Class::Normal));
        held.push(ask(3, 150_000, Class::Normal));
        assert_eq!(min_class(ask(4, 20_000, Class::Normal)), Some(Class::Critical));
        held.push(ask(4, 60_000, Class::Critical));
        let refused = ask(5, 1_000, Class::Critical).err().expect("90 %");
        assert_eq!((refused.limit, refused.min_class), (900_000, None));
        assert!(held.iter().all(Result::is_ok));
    }

    #[test]
    fn a_refusal_lasts_twice_as_long_as_what_is_too_much_takes_to_leave() {
        let pool = pool(64 << 10);
        let share = Arc::new(pool.partition_share());
        let _held = admit(&pool, 10_000, &share, None).expect("fits");
        pool.publish(100_000, false);
        let refused = admit(&pool, 10_000 - REQUEST_BYTES, &share, None).err().expect("too much");
        assert_eq!(refused.retry_after_ms, 200);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_order_of_requests_exceeds_the_pool(
            steps in prop::collection::vec((0usize..4, 0usize..3, 1u64..20_000, any::<bool>()), 1..200)
        ) {
            let pool = pool(64 << 10);
            let partitions: Vec<_> = (0..4).map(|_| Arc::new(pool.partition_share())).collect();
            let connections: Vec<_> = (0..3).map(|_| pool.connection_share()).collect();
            let mut held = Vec::new();
            for (partition, connection, bytes, release) in steps {
                if release && !held.is_empty() {
                    drop(held.remove(0));
                }
                held.extend(admit(&pool, bytes, &partitions[partition], Some(&connections[connection])));
                prop_assert!(pool.used() <= pool.limit());
                let sum: u64 = held.iter().map(Permit::bytes).sum();
                prop_assert_eq!(pool.used(), sum);
            }
            held.clear();
            prop_assert_eq!(pool.used(), 0);
            prop_assert!(partitions.iter().all(|share| share.used() == 0));
            prop_assert!(connections.iter().all(|share| share.used() == 0));
        }
    }
}
