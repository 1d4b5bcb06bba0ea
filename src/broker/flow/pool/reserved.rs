//! Bytes of the pool that are held while a batch is on its way in, before it is known where it goes.
//!
//! # Invariants
//! All that is reserved is at most half of the pool, or it is one batch alone: whoever does not go on
//! sending keeps nobody out. A reservation is given back when it is dropped, but for what a permit
//! takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{ConnectionShare, Met, Permit, Pool, REQUEST_BYTES, Share, take};
use crate::types::{Class, Pushback, PushbackScope};

/// Bytes of the pool and of a connection's share.
#[must_use = "dropping it gives its bytes back at once"]
pub struct Reserved {
    pool: Pool,
    connection: ConnectionShare,
    bytes: u64,
}

impl Pool {
    /// Nothing yet, for a batch of a connection that is on its way in.
    pub fn reserve(&self, connection: &ConnectionShare) -> Reserved {
        Reserved { pool: self.clone(), connection: connection.clone(), bytes: 0 }
    }

    /// [`Pool::admit`] of what is in memory already: the permit goes on holding all that was
    /// reserved for it.
    pub fn admit_reserved(
        &self,
        mut reserved: Reserved,
        bytes: u64,
        class: Class,
        partition: &Arc<Share>,
        now: Duration,
    ) -> Result<Permit, Pushback> {
        let held = bytes.saturating_add(REQUEST_BYTES);
        reserved.grow_to(reserved.bytes.max(held), class, now)?;
        let lanes = &reserved.connection.0.lanes;
        let lane = lanes.take(partition.number, bytes).map_err(|observed| {
            let (scope, limit) = (PushbackScope::Partition, lanes.limit());
            let met = Met { scope, limit_id: "connection/partition", observed, limit };
            self.refuse(&met, held, now)
        })?;
        if let Err(observed) = partition.take(bytes) {
            lanes.give(lane, bytes);
            let (scope, limit) = (PushbackScope::Partition, partition.limit);
            let met = Met { scope, limit_id: "partition", observed, limit };
            return Err(self.refuse(&met, held, now));
        }
        let connection = Some((reserved.connection.clone(), lane));
        let (pool, partition) = (self.clone(), Arc::clone(partition));
        let held = reserved.hand_over();
        Ok(Permit { pool, partition, connection, bytes: held, partition_bytes: bytes })
    }
}

impl Reserved {
    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds so many bytes, or goes on holding what it held.
    pub fn resize(&mut self, bytes: u64, now: Duration) -> Result<(), Pushback> {
        if bytes < self.bytes {
            self.give(self.bytes - bytes);
            return Ok(());
        }
        self.grow_to(bytes, Class::Normal, now)
    }

    fn grow_to(&mut self, bytes: u64, class: Class, now: Duration) -> Result<(), Pushback> {
        let (held, more) = (self.bytes, bytes.saturating_sub(self.bytes));
        if more == 0 {
            return Ok(());
        }
        let pool = &self.pool;
        let share = &self.connection.0.share;
        if let Err(observed) = take_more(&share.used, share.limit, held, more) {
            let (scope, limit) = (PushbackScope::Connection, share.limit);
            return Err(pool.refuse(
                &Met { scope, limit_id: "connection", observed, limit },
                more,
                now,
            ));
        }
        let limit = pool.ceiling(class);
        let (half, arriving) = (pool.0.limit / 2, &pool.0.arriving);
        let taken = take_more(arriving, half, held, more).and_then(|()| {
            let taken = take(&pool.0.used, more, limit, false);
            if taken.is_err() {
                arriving.fetch_sub(more, Ordering::AcqRel);
            }
            taken
        });
        if let Err(observed) = taken {
            share.give(more);
            let scope = PushbackScope::Broker;
            return Err(pool.refuse(&Met { scope, limit_id: "pool", observed, limit }, more, now));
        }
        self.bytes = bytes;
        Ok(())
    }

    fn give(&mut self, bytes: u64) {
        self.connection.0.share.give(bytes);
        self.pool.0.arriving.fetch_sub(bytes, Ordering::AcqRel);
        self.pool.give(bytes);
        self.bytes -= bytes;
    }

    /// What it holds belongs to a permit from now on.
    fn hand_over(&mut self) -> u64 {
        self.pool.0.arriving.fetch_sub(self.bytes, Ordering::AcqRel);
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.give(self.bytes);
        }
    }
}

/// Adds `more` to `used` when the sum fits, or when nothing else than `held` is in use.
fn take_more(used: &AtomicU64, limit: u64, held: u64, more: u64) -> Result<(), u64> {
    let fits = |now: u64| {
        let sum = now.checked_add(more)?;
        (sum <= limit || now == held).then_some(sum)
    };
    used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Weak;

    use crate::broker::flow::{
        Cause, FlowOptions, GrantOptions, NoWake, Offer, PublisherGrant, Seats,
    };

    const NOW: Duration = Duration::ZERO;

    fn pool(limit: u64) -> Pool {
        let options = FlowOptions { inflight_bytes_max: Some(limit), ..FlowOptions::default() };
        Pool::new(options, None)
    }

    fn admit(pool: &Pool, reserved: Reserved, bytes: u64, share: &Arc<Share>) -> Permit {
        pool.admit_reserved(reserved, bytes, Class::Normal, share, NOW).expect("there is room")
    }

    #[test]
    fn what_was_reserved_becomes_the_permit_and_is_held_once() {
        let pool = pool(64 << 10);
        let share = Arc::new(pool.partition_share());
        let (one, other) = (pool.connection_share(), pool.connection_share());
        let mut reserved = pool.reserve(&one);
        reserved.resize(20 << 10, NOW).expect("alone it may pass its share");
        reserved.resize(12 << 10, NOW).expect("less");
        assert_eq!((pool.used(), one.used(), share.used()), (12 << 10, 12 << 10, 0));
        let refused = reserved.resize(65 << 10, NOW).expect_err("the pool itself is hard");
        assert_eq!((refused.scope, pool.used()), (PushbackScope::Broker, 12 << 10));
        let mut second = pool.reserve(&one);
        let refused = second.resize(1, NOW).expect_err("the connection's share is used up");
        assert_eq!(refused.scope, PushbackScope::Connection);
        let permit = admit(&pool, reserved, 10 << 10, &share);
        assert_eq!((permit.bytes(), share.used()), (12 << 10, 10 << 10));
        let mut third = pool.reserve(&other);
        third.resize(1 << 10, NOW).expect("another connection goes on");
        let grown = admit(&pool, third, 2 << 10, &share);
        assert_eq!(other.used(), (2 << 10) + REQUEST_BYTES);
        drop((permit, grown, second));
        assert_eq!((pool.used(), one.used(), other.used(), share.used()), (0, 0, 0, 0));
        assert_eq!(pool.0.arriving.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_that_is_granted_to_the_publishers_of_a_connection_fits_its_share() {
        for (publishers, batch) in [(1, 1 << 20), (1, 1 << 10), (3, 1 << 20), (8, 64 << 10)] {
            let pool = pool(256 << 20);
            let connection = pool.connection_share();
            let max = pool.lane_limit();
            let seats = Seats::new(pool.limit(), max);
            let options = GrantOptions { first: max, max, ttl: Duration::from_secs(10) };
            let open = |_| {
                let seat = seats.open(Class::Normal, 1, Weak::<NoWake>::new());
                PublisherGrant::new(options, seat).of(&connection)
            };
            let mut grants: Vec<_> = (0..publishers).map(open).collect();
            let mut permits = Vec::new();
            for grant in &mut grants {
                let share = Arc::new(pool.partition_share());
                let offer = Offer { bytes: u64::MAX, cause: Cause::Grant };
                let bytes_to = grant.poll(NOW, offer).expect("a first grant").bytes_to;
                for _ in 0..bytes_to / batch {
                    let mut reserved = pool.reserve(&connection);
                    // The buffer of a frame is up to a quarter larger, and has some slack.
                    reserved.resize(batch / 4 * 5 + 256, NOW).expect("it was granted");
                    permits.push(admit(&pool, reserved, batch, &share));
                }
            }
            assert!(!permits.is_empty(), "{publishers} publishers of {batch}");
        }
    }

    #[test]
    fn what_is_still_to_come_has_half_of_the_pool() {
        let pool = pool(64 << 10);
        let connections: Vec<_> = (0..5).map(|_| pool.connection_share()).collect();
        let mut reserved: Vec<_> = connections.iter().map(|share| pool.reserve(share)).collect();
        let taken = reserved.iter_mut().filter_map(|one| one.resize(8 << 10, NOW).ok()).count();
        assert_eq!((taken, pool.used()), (4, 32 << 10));
        let share = Arc::new(pool.partition_share());
        let _permit = pool.admit(8 << 10, Class::Normal, &share, None, NOW).expect("it goes on");
        drop(reserved);
        assert_eq!(pool.0.arriving.load(Ordering::Relaxed), 0);
    }
}
