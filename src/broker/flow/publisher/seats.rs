//! The seats of all open publishers, and the tick that divides the windows among those that use
//! theirs.
//!
//! A publisher is active while something of it is under way and for 2 s after it sent or asked; one
//! that waits says so each second, so it waits for 2 s after it said so last. What an active one that
//! does not wait claims is a quarter more than the most it had under way lately. An idle one takes
//! nothing from those: beside them it may begin with an even part of the windows, and is one of them
//! a tick later.
//!
//! # Invariants
//! The shares of active seats add up to the windows at most, and so do those of idle ones but
//! for 4 KiB each. A seat that waits is woken when its
//! share grew, and once a second whatever happened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::shares::{Claimant, Divider};
use crate::types::Class;

/// How long a publisher stays active that does nothing.
const ACTIVE_FOR_MS: u64 = 2_000;
/// Smallest first window, and share of a publisher that is not active.
const FIRST_BYTES_MIN: u64 = 4 << 10;
/// Ticks in which each seat that waits is woken once.
const WAKE_TURNS: u64 = 10;

/// Told by the tick that a publisher that waits may perhaps send.
pub trait Wake: Send + Sync {
    /// Must not block and must not open or close a publisher.
    fn offer_changed(&self, now: Duration);
}

/// For publishers that nobody has to wake.
#[derive(Clone, Copy, Debug)]
pub struct NoWake;

impl Wake for NoWake {
    fn offer_changed(&self, _now: Duration) {}
}

/// Which log writers append to the partitions of a topic: one bit for each, those beyond 64 share the
/// places. Clones are one: partitions that are added later count for publishers that are open.
#[derive(Clone, Debug, Default)]
pub struct WriterMask(Arc<AtomicU64>);

impl WriterMask {
    /// The bits.
    pub fn bits(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// These writers append too.
    pub fn add(&self, writers: impl IntoIterator<Item = usize>) {
        let bits = writers.into_iter().fold(0, |bits, writer| bits | mask(writer));
        self.0.fetch_or(bits, Ordering::Relaxed);
    }
}

impl From<u64> for WriterMask {
    fn from(bits: u64) -> WriterMask {
        WriterMask(Arc::new(AtomicU64::new(bits)))
    }
}

/// The bit of a writer.
pub(in crate::broker::flow) fn mask(writer: usize) -> u64 {
    1 << (writer % 64)
}

/// One publisher's place; given up by dropping it.
pub struct Seat {
    class: Class,
    writers: WriterMask,
    first: u64,
    outstanding: AtomicU64,
    /// Most that was outstanding since the last tick, and lately.
    peak: AtomicU64,
    lately: AtomicU64,
    share: AtomicU64,
    active_ms: AtomicU64,
    /// When it said last that it waits, in milliseconds + 1; 0 = it does not.
    wants_ms: AtomicU64,
    wake: Weak<dyn Wake>,
}

impl Seat {
    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// One bit for each log writer it writes to.
    pub fn writers(&self) -> u64 {
        self.writers.bits()
    }

    /// The most its first window may be: small when there are many, so that all of them together
    /// fit the pool.
    pub fn first_bytes(&self) -> u64 {
        self.first
    }

    /// Bytes it may have under way.
    pub fn share_bytes(&self) -> u64 {
        self.share.load(Ordering::Relaxed)
    }

    /// Bytes it has under way.
    pub fn outstanding(&self) -> u64 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Whether it said lately that it waits, and was not served since.
    pub fn waits(&self, now: Duration) -> bool {
        let wants_ms = self.wants_ms.load(Ordering::Relaxed);
        wants_ms > 0 && millis(now).saturating_sub(wants_ms) < ACTIVE_FOR_MS
    }

    /// A batch of `bytes` came, granted or not.
    pub fn received(&self, bytes: u64, now: Duration) {
        let sum = self.outstanding.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.peak.fetch_max(sum, Ordering::Relaxed);
        self.active_ms.store(millis(now), Ordering::Relaxed);
    }

    /// For senders without grants: takes a batch when it fits the share, or nothing is under way.
    ///
    /// # Errors
    /// Bytes under way, and the share. The batch is not counted then.
    pub fn take(&self, bytes: u64, now: Duration) -> Result<(), (u64, u64)> {
        let share = self.share_bytes();
        self.active_ms.store(millis(now), Ordering::Relaxed);
        let fits = |used: u64| {
            let sum = used.saturating_add(bytes);
            (used == 0 || sum <= share).then_some(sum)
        };
        match self.outstanding.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(used) => {
                self.peak.fetch_max(used.saturating_add(bytes), Ordering::Relaxed);
                self.served();
                Ok(())
            }
            Err(used) => {
                self.wants(now);
                Err((used, share))
            }
        }
    }

    /// A batch of `bytes` was answered.
    pub fn answered(&self, bytes: u64) {
        let was = self.outstanding.fetch_sub(bytes, Ordering::Relaxed);
        assert!(was >= bytes, "more was answered than received");
    }

    /// It could send more.
    pub fn wants(&self, now: Duration) {
        self.wants_ms.store(millis(now).saturating_add(1), Ordering::Relaxed);
        self.active_ms.store(millis(now), Ordering::Relaxed);
    }

    /// It was told that it may send, or sends.
    pub fn served(&self) {
        // Most batches come to a seat that does not wait: a load instead of a store.
        if self.wants_ms.load(Ordering::Relaxed) > 0 {
            self.wants_ms.store(0, Ordering::Relaxed);
        }
    }

    fn active(&self, now_ms: u64) -> bool {
        self.outstanding() > 0
            || now_ms.saturating_sub(self.active_ms.load(Ordering::Relaxed)) < ACTIVE_FOR_MS
    }

    /// What it can use, by what it did since the last tick.
    fn want(&self, now: Duration) -> u64 {
        let peak = self.peak.swap(self.outstanding(), Ordering::Relaxed);
        let old = self.lately.load(Ordering::Relaxed);
        let lately = peak.max(old - old / 8);
        self.lately.store(lately, Ordering::Relaxed);
        if self.waits(now) { u64::MAX } else { lately.saturating_add(lately / 4) }
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat")
            .field("class", &self.class)
            .field("outstanding", &self.outstanding())
            .field("share", &self.share_bytes())
            .finish_non_exhaustive()
    }
}

/// All seats.
#[derive(Debug)]
pub struct Seats {
    pool_bytes: u64,
    first_bytes_max: u64,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    seats: Vec<Weak<Seat>>,
    /// All windows together, as of the last tick.
    windows: u64,
    turn: u64,
}

/// Room for the tick, kept between ticks.
#[derive(Default)]
pub struct Scratch {
    active: Vec<Arc<Seat>>,
    claimants: Vec<Claimant>,
    shares: Vec<u64>,
    divider: Divider,
    /// Who is to be woken, by whoever ticked, without any lock held.
    pub woken: Vec<Arc<dyn Wake>>,
}

impl Seats {
    /// No seats yet. First windows are at most `first_bytes_max`.
    pub fn new(pool_bytes: u64, first_bytes_max: u64) -> Seats {
        let open = Open { seats: Vec::new(), windows: pool_bytes, turn: 0 };
        Seats { pool_bytes, first_bytes_max, open: Mutex::new(open) }
    }

    /// A place for a new publisher that writes to the `writers` of the mask.
    pub fn open(
        &self,
        class: Class,
        writers: impl Into<WriterMask>,
        wake: Weak<dyn Wake>,
    ) -> Arc<Seat> {
        let writers = writers.into();
        let mut open = self.lock();
        let first = self.first_bytes(open.seats.len() + 1);
        let share = open.even_share(open.seats.len() + 1);
        let seat = Arc::new(Seat {
            class,
            writers,
            first,
            outstanding: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            lately: AtomicU64::new(0),
            share: AtomicU64::new(share),
            active_ms: AtomicU64::new(0),
            wants_ms: AtomicU64::new(0),
            wake,
        });
        open.seats.push(Arc::downgrade(&seat));
        seat
    }

    /// Publishers that are open, but for those that closed since the last tick.
    pub fn publishers(&self) -> u64 {
        u64::try_from(self.lock().seats.len()).unwrap_or(u64::MAX)
    }

    /// Whether anybody waits at one of the `writers` of the mask.
    pub fn anyone_waits(&self, writers: u64, now: Duration) -> bool {
        let waits = |seat: Arc<Seat>| seat.waits(now) && seat.writers() & writers != 0;
        self.lock().seats.iter().filter_map(Weak::upgrade).any(waits)
    }

    /// Divides `windows`, one per writer, among the active seats and collects whom to wake in
    /// `scratch`. Returns how many are active.
    pub fn tick(&self, now: Duration, windows: &[u64], scratch: &mut Scratch) -> usize {
        let turn = self.collect(now, windows, scratch);
        let Scratch { active, claimants, shares, divider, woken } = scratch;
        divider.divide(windows, claimants, shares);
        for (number, (seat, share)) in (0u64..).zip(active.iter().zip(shares.iter())) {
            let share = (*share).max(1);
            let grew = share > seat.share.swap(share, Ordering::Relaxed);
            let its_turn = number % WAKE_TURNS == turn % WAKE_TURNS;
            if seat.waits(now) && (grew || its_turn) {
                woken.extend(seat.wake.upgrade());
            }
        }
        active.len()
    }

    /// Forgets closed seats, gives idle ones an even share, and lists the others.
    fn collect(&self, now: Duration, windows: &[u64], scratch: &mut Scratch) -> u64 {
        let now_ms = millis(now);
        scratch.active.clear();
        scratch.claimants.clear();
        let mut open = self.lock();
        open.windows = windows.iter().fold(0, |sum, window| sum.saturating_add(*window));
        let even = open.even_share(open.seats.len());
        open.seats.retain(|seat| {
            let Some(seat) = seat.upgrade() else { return false };
            if seat.active(now_ms) {
                let (class, writers) = (seat.class, seat.writers());
                scratch.claimants.push(Claimant { class, writers, want: seat.want(now) });
                scratch.active.push(seat);
            } else {
                seat.share.store(even, Ordering::Relaxed);
            }
            true
        });
        open.turn += 1;
        open.turn
    }

    fn first_bytes(&self, publishers: usize) -> u64 {
        let publishers = u64::try_from(publishers.max(1)).unwrap_or(u64::MAX);
        let even = self.pool_bytes / publishers.saturating_mul(4);
        even.min(self.first_bytes_max).max(FIRST_BYTES_MIN)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // A list of weak pointers; whatever panicked left it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn even_share(&self, publishers: usize) -> u64 {
        let publishers = u64::try_from(publishers.max(1)).unwrap_or(u64::MAX);
        (self.windows / publishers).max(FIRST_BYTES_MIN)
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
