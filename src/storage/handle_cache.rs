//! Which segments keep an open file, a map and a loaded index: least recently used ones lose theirs.
//!
//! Handles live in the segments, so that a read finds them without a common lock; this is the
//! account of who has what. A file with unsynced writes is also held by its writer, and losing it
//! here closes nothing (write-back errors are reported once per open file).
//!
//! # Invariants
//! After every `charge`, what is held is within the limits, or one segment alone exceeds them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use super::segment::Segment;

/// What a segment can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// An open file.
    File,
    /// A map.
    Map,
    /// A loaded index of a sealed segment.
    Index,
}

/// Most of each kind: files, maps, bytes of indexes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandleLimits {
    pub files_max: usize,
    pub maps_max: usize,
    pub index_bytes_max: usize,
}

/// The account.
pub(crate) struct HandleCache {
    limits: HandleLimits,
    tick: AtomicU64,
    next_id: AtomicU64,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    by_id: HashMap<u64, Holder>,
    totals: [usize; 3],
}

struct Holder {
    segment: Weak<Segment>,
    amounts: [usize; 3],
}

impl HandleCache {
    pub(crate) fn new(limits: HandleLimits) -> HandleCache {
        HandleCache {
            limits,
            tick: AtomicU64::new(1),
            next_id: AtomicU64::new(1),
            holders: Mutex::default(),
        }
    }

    /// A name for a new segment.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A moment in the order of uses.
    pub(crate) fn tick(&self) -> u64 {
        self.tick.fetch_add(1, Ordering::Relaxed)
    }

    /// Says that `id` now holds `amount` of `kind`; others lose theirs while there is too much.
    pub(crate) fn charge(&self, id: u64, segment: Weak<Segment>, kind: Held, amount: usize) {
        let mut victims = Vec::new();
        {
            let mut holders = self.lock();
            let holder = holders.by_id.entry(id).or_insert(Holder { segment, amounts: [0; 3] });
            let before = std::mem::replace(&mut holder.amounts[kind as usize], amount);
            holders.totals[kind as usize] = holders.totals[kind as usize] - before + amount;
            while holders.totals[kind as usize] > self.limit(kind) {
                let Some(victim) = holders.take_oldest(kind, id) else { break };
                victims.extend(victim.upgrade());
            }
        }
        // Outside of the lock: a victim's own lock is taken, and dropping the last reference to a
        // segment comes back here.
        for victim in victims {
            victim.release(kind);
        }
    }

    /// Says that the segment is gone.
    pub(crate) fn forget(&self, id: u64) {
        let mut holders = self.lock();
        if let Some(holder) = holders.by_id.remove(&id) {
            for (total, amount) in holders.totals.iter_mut().zip(holder.amounts) {
                *total -= amount;
            }
        }
    }

    fn limit(&self, kind: Held) -> usize {
        match kind {
            Held::File => self.limits.files_max,
            Held::Map => self.limits.maps_max,
            Held::Index => self.limits.index_bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holders {
    /// Takes `kind` from the holder that used it longest ago, other than `except`.
    fn take_oldest(&mut self, kind: Held, except: u64) -> Option<Weak<Segment>> {
        let used = |holder: &Holder| holder.segment.upgrade().map_or(0, |s| s.last_used());
        let candidates =
            self.by_id.iter().filter(|(id, h)| **id != except && h.amounts[kind as usize] > 0);
        let oldest = *candidates.min_by_key(|(_, holder)| used(holder))?.0;
        let holder = self.by_id.get_mut(&oldest)?;
        self.totals[kind as usize] -= std::mem::take(&mut holder.amounts[kind as usize]);
        Some(holder.segment.clone())
    }
}
