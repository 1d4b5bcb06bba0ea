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
        let bytes = bytes.saturating_add(REQUEST_BYTES);
        reserved.grow_to(reserved.bytes.max(bytes), class, now)?;
        let lanes = &reserved.connection.0.lanes;
        let lane = lanes.take(partition.number, bytes).map_err(|observed| {
            let (scope, limit) = (PushbackScope::Partition, lanes.limit());
            let met = Met { scope, limit_id: "connection/partition", observed, limit };
            self.refuse(&met, bytes, now)
        })?;
        if let Err(observed) = partition.take(bytes) {
            lanes.give(lane, bytes);
            let (scope, limit) = (PushbackScope::Partition, partition.limit);
            return Err(self.refuse(
                &Met { scope, limit_id: "partition", observed, limit },
                bytes,
                now,
            ));
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
    use crate::broker::flow::FlowOptions;

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
        assert_eq!((permit.bytes(), share.used()), (12 << 10, (10 << 10) + REQUEST_BYTES));
        let mut third = pool.reserve(&other);
        third.resize(1 << 10, NOW).expect("another connection goes on");
        let grown = admit(&pool, third, 2 << 10, &share);
        assert_eq!(other.used(), (2 << 10) + REQUEST_BYTES);
        drop((permit, grown, second));
        assert_eq!((pool.used(), one.used(), other.used(), share.used()), (0, 0, 0, 0));
        assert_eq!(pool.0.arriving.load(Ordering::Relaxed), 0);
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
