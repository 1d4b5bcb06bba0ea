//! The one hard pool for bytes in flight, with shares per partition and per connection.
//!
//! `admit -> Permit`: the permit travels with a request until its answer and gives everything back
//! when it is dropped, on whatever path.
//!
//! # Invariants
//! `used <= limit` of the pool, always. `used <= limit` of a share, or the share holds exactly one
//! request (so that a batch larger than a share never deadlocks).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::binding::Binding;
use super::retry::{busy, retry_after_ms};
use super::{DrainRate, FlowOptions};
use crate::env::Clock;
use crate::types::{Pushback, PushbackScope};

/// What a request costs beside its bytes: the boxes and queue places that carry it.
const REQUEST_BYTES: u64 = 512;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<PoolState>);

struct PoolState {
    limit: u64,
    used: AtomicU64,
    partition_limit: u64,
    connection_limit: u64,
    options: FlowOptions,
    clock: Arc<dyn Clock>,
    drain: DrainRate,
    bindings: [Binding; 3],
    /// Told whenever the pool is empty, for a shutdown that waits.
    empty: Notify,
}

/// A part of the pool that belongs to one partition.
#[derive(Debug)]
pub struct Share {
    limit: u64,
    used: AtomicU64,
}

/// A part of the pool that belongs to one connection; cheap to clone, made by
/// [`Pool::connection_share`].
#[derive(Clone, Debug)]
pub struct ConnectionShare(Arc<Share>);

/// Bytes of the pool. Holds them until it is dropped, which is when the request was answered.
#[must_use = "dropping a permit gives its bytes back at once"]
pub struct Permit {
    pool: Pool,
    partition: Arc<Share>,
    connection: Option<ConnectionShare>,
    bytes: u64,
}

impl Pool {
    /// A pool of [`FlowOptions::pool_bytes`].
    pub fn new(options: FlowOptions, machine_bytes: Option<u64>, clock: Arc<dyn Clock>) -> Pool {
        let limit = options.pool_bytes(machine_bytes);
        Pool(Arc::new(PoolState {
            limit,
            used: AtomicU64::new(0),
            partition_limit: (limit / u64::from(options.partition_share.max(1))).max(1),
            connection_limit: (limit / u64::from(options.connection_share.max(1))).max(1),
            options,
            clock,
            drain: DrainRate::new(),
            bindings: Default::default(),
            empty: Notify::new(),
        }))
    }

    /// The share of a new connection.
    pub fn connection_share(&self) -> ConnectionShare {
        ConnectionShare(Arc::new(Share::new(self.0.connection_limit)))
    }

    /// The share of a partition.
    pub fn partition_share(&self) -> Share {
        Share::new(self.0.partition_limit)
    }

    /// Takes place for a request of `bytes`, or says which limit refuses it and for how long.
    pub fn admit(
        &self,
        bytes: u64,
        partition: &Arc<Share>,
        connection: Option<&ConnectionShare>,
    ) -> Result<Permit, Pushback> {
        let bytes = bytes.saturating_add(REQUEST_BYTES);
        if let Some(share) = connection {
            let taken = share.0.take(bytes);
            taken.map_err(|observed| self.refuse(PushbackScope::Connection, bytes, observed))?;
        }
        let give_back = || connection.into_iter().for_each(|share| share.0.give(bytes));
        if let Err(observed) = partition.take(bytes) {
            give_back();
            return Err(self.refuse(PushbackScope::Partition, bytes, observed));
        }
        if let Err(observed) = take(&self.0.used, bytes, self.0.limit, false) {
            partition.give(bytes);
            give_back();
            return Err(self.refuse(PushbackScope::Broker, bytes, observed));
        }
        let connection = connection.cloned();
        Ok(Permit { pool: self.clone(), partition: Arc::clone(partition), connection, bytes })
    }

    /// SERVER_BUSY for a partition whose queue is full: counted like the partition's share.
    pub fn refuse_queue(&self, bytes: u64, partition: &Share) -> Pushback {
        self.refuse(PushbackScope::Partition, bytes, partition.used())
    }

    /// Largest batch that can ever be admitted.
    pub fn batch_bytes_max(&self) -> u64 {
        self.0.limit.saturating_sub(REQUEST_BYTES)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    /// Bytes there are.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// The limit of one scope: the pool, or one share of it.
    pub fn limit_of(&self, scope: PushbackScope) -> u64 {
        match scope {
            PushbackScope::Partition => self.0.partition_limit,
            PushbackScope::Connection => self.0.connection_limit,
            _ => self.0.limit,
        }
    }

    /// How long what is in the pool now takes to leave, or `None` while no rate is known.
    pub fn predicted_sojourn(&self) -> Option<Duration> {
        self.time_for(self.used())
    }

    fn time_for(&self, bytes: u64) -> Option<Duration> {
        self.0.drain.time_for(bytes, self.0.clock.monotonic())
    }

    /// When something that needs `bytes` to leave first is to try again, in milliseconds.
    pub fn retry_after_ms(&self, bytes: u64) -> u32 {
        retry_after_ms(self.time_for(bytes), &self.0.options)
    }

    /// Refusals and the length of the current stretch of them, for each scope that the pool has.
    pub fn refusals(&self) -> [(PushbackScope, u64, Option<u64>); 3] {
        let now = self.0.clock.monotonic();
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

    fn refuse(&self, scope: PushbackScope, bytes: u64, observed: u64) -> Pushback {
        self.binding(scope).refused(self.0.clock.monotonic());
        let limit = self.limit_of(scope);
        let excess = observed.saturating_add(bytes).saturating_sub(limit).max(bytes);
        busy(scope, observed, limit, self.retry_after_ms(excess))
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

impl Share {
    fn new(limit: u64) -> Share {
        Share { limit, used: AtomicU64::new(0) }
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
        self.0.used()
    }
}

impl Permit {
    /// Bytes it holds, the request's own cost included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(share) = &self.connection {
            share.0.give(self.bytes);
        }
        self.partition.give(self.bytes);
        let pool = &self.pool.0;
        let left = pool.used.fetch_sub(self.bytes, Ordering::AcqRel).saturating_sub(self.bytes);
        pool.drain.record(self.bytes, left, pool.clock.monotonic());
        if left == 0 {
            pool.empty.notify_waiters();
        }
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

/// The pool for fetched bytes between planning and sending. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FetchPool(Arc<FetchPoolState>);

#[derive(Debug)]
struct FetchPoolState {
    limit: u64,
    used: AtomicU64,
    released: Notify,
}

/// Bytes of the fetch pool, held until it is dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives its bytes back at once"]
pub struct FetchPermit {
    pool: FetchPool,
    bytes: u64,
}

impl FetchPool {
    /// A pool of `limit` bytes.
    pub fn new(limit: u64) -> FetchPool {
        FetchPool(Arc::new(FetchPoolState {
            limit: limit.max(1),
            used: AtomicU64::new(0),
            released: Notify::new(),
        }))
    }

    /// Takes up to `wanted` bytes; fewer, perhaps 0, when the pool is short.
    pub fn take(&self, wanted: u64) -> FetchPermit {
        let mut taken = 0;
        let some = |used: u64| {
            taken = wanted.min(self.0.limit.saturating_sub(used));
            Some(used + taken)
        };
        let _ = self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, some);
        FetchPermit { pool: self.clone(), bytes: taken }
    }

    /// Completes when something can be taken; at once when it can.
    pub async fn has_room(&self) {
        loop {
            let released = self.0.released.notified();
            let mut released = std::pin::pin!(released);
            released.as_mut().enable();
            if self.used() < self.0.limit {
                return;
            }
            released.await;
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes there are.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }
}

impl FetchPermit {
    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps what is really used. A first batch may be larger than what was taken; the excess is
    /// counted, so that later fetches make up for it.
    pub fn resize(&mut self, bytes: u64) {
        if bytes >= self.bytes {
            self.pool.0.used.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            self.pool.0.used.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }
}

impl Drop for FetchPermit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.pool.0.used.fetch_sub(self.bytes, Ordering::AcqRel);
            self.pool.0.released.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemClock;
    use proptest::prelude::*;

    fn pool(limit: u64) -> Pool {
        let options = FlowOptions { inflight_bytes_max: Some(limit), ..FlowOptions::default() };
        Pool::new(options, None, Arc::new(SystemClock::new()))
    }

    #[test]
    fn a_share_is_exhausted_before_the_pool() {
        let pool = pool(64 << 10);
        let (one, other) = (Arc::new(pool.partition_share()), Arc::new(pool.partition_share()));
        let held = pool.admit(15 << 10, &one, None).expect("fits the share");
        let refused = pool.admit(1 << 10, &one, None).err().expect("the share is used up");
        assert_eq!(refused.scope, PushbackScope::Partition);
        assert!(refused.retry_after_ms >= 50);
        let _other = pool.admit(1 << 10, &other, None).expect("another partition goes on");
        drop(held);
        let _again = pool.admit(1 << 10, &one, None).expect("the share is free again");
    }

    #[test]
    fn a_batch_larger_than_a_share_is_admitted_alone() {
        let pool = pool(64 << 10);
        let share = Arc::new(pool.partition_share());
        let connection = pool.connection_share();
        let held = pool.admit(40 << 10, &share, Some(&connection)).expect("alone it fits");
        assert!(pool.admit(1, &share, Some(&connection)).is_err());
        drop(held);
        assert_eq!((pool.used(), share.used(), connection.used()), (0, 0, 0));
        assert!(pool.admit(64 << 10, &share, None).is_err(), "the pool itself is hard");
    }

    #[test]
    fn a_short_fetch_pool_gives_what_it_has() {
        let pool = FetchPool::new(100);
        let mut first = pool.take(80);
        assert_eq!(pool.take(80).bytes(), 20);
        first.resize(130);
        assert_eq!(pool.take(1).bytes(), 0);
        drop(first);
        assert_eq!(pool.used(), 0);
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
                held.extend(pool.admit(bytes, &partitions[partition], Some(&connections[connection])));
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
