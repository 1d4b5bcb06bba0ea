//! Decides the window of one log writer, once per interval of about 100 ms.
//!
//! `target` = twice the median sync of the last minute, within bounds. While even the quickest batch
//! takes longer than that, the window shrinks; while it does not and somebody waits for room, it
//! grows. All arithmetic uses the real length of the interval where it matters, so a late tick is
//! only coarser.
//!
//! A disk whose syncs are slower than the largest target never meets it, and a window that shrank
//! for ever would give away its throughput for nothing. So a window keeps a floor: 2.5 times what
//! the best second of the last minute wrote during one quiet sync (bandwidth times delay). Whether
//! syncs are slow because the disk is, or because much is written, nobody can see from their times
//! under a constant load; so a window that stands on its floor is halved for 2 seconds of every 20.
//! If syncs get quicker by that, the floor comes down.
//!
//! Where nothing is synced the same holds of the threads that a batch passes: they wake each other
//! within `target_min` at best, so what the writer's best second takes in 2.5 of those is kept too.
//! Before a writer had a second's work nothing is known of its pace, and its window is left alone.
//!
//! # Invariants
//! `window_min <= window <= window_max`. One interval alone makes nobody busy.

use std::time::Duration;

use super::minute::{RateMinute, SyncMinute};
use super::{Load, Seen};

/// Rules of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerOptions {
    /// Bounds of the target: below, noise of the disk decides; above, a person notices.
    pub target_min: Duration,
    /// See `target_min`.
    pub target_max: Duration,
    /// A window is never smaller: one large batch always fits.
    pub window_min: u64,
    /// A window is never larger: the pool.
    pub window_max: u64,
    /// Four targets for this long make a writer busy.
    pub busy_after: Duration,
    /// Less than two targets for this long end it.
    pub clear_after: Duration,
    /// More of the pool than this, in per mille, makes every writer busy.
    pub pool_busy: u32,
    /// Above this much of the pool, in per mille, nobody stops being busy.
    pub pool_clear: u32,
}

impl Default for ControllerOptions {
    fn default() -> ControllerOptions {
        ControllerOptions {
            target_min: Duration::from_millis(5),
            target_max: Duration::from_millis(50),
            window_min: 1 << 20,
            window_max: 256 << 20,
            busy_after: Duration::from_millis(500),
            clear_after: Duration::from_secs(2),
            pool_busy: 850,
            pool_clear: 700,
        }
    }
}

/// Whether anybody waits for room in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nobody: a larger window would change nothing.
    Met,
    /// A publisher waits for a grant.
    Waiting,
}

/// One interval, as the controller wants it.
#[derive(Clone, Copy, Debug)]
pub struct Interval<'a> {
    /// What the gauge saw.
    pub seen: Seen,
    /// How long the syncs took that ended in it.
    pub syncs: &'a [Duration],
    /// Whether a publisher waits; a batch that the gauge refused counts by itself.
    pub demand: Demand,
    /// How much of the pool is used.
    pub pool_per_mille: u32,
}

/// What the controller made of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The window from now on.
    pub window: u64,
    /// What batches should take.
    pub target: Duration,
    /// What the quickest took; for a writer that hangs, how old its oldest batch is.
    pub sojourn: Duration,
    /// How loaded the writer is.
    pub load: Load,
    /// Whether the disk's syncs, not the load, are what keeps batches above the target.
    pub sync_bound: bool,
    /// The load before, when it changed.
    pub was: Option<Load>,
}

/// The controller of one log writer.
#[derive(Clone, Debug)]
pub struct Controller {
    options: ControllerOptions,
    window: u64,
    syncs: SyncMinute,
    rates: RateMinute,
    last_tick: Duration,
    load: Load,
    /// For how long batches took far too long, or were quick enough again.
    over_for: Duration,
    clear_for: Duration,
    probe: Probe,
}

/// What a window that stands on its floor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// It stands there since then; `None` = it does not.
    Standing(Option<Duration>),
    /// It was halved until then.
    Halved(Duration),
}

const SHRINK_PERCENT: u64 = 85;
const GROW_PERCENT: u64 = 110;
/// The floor in delays, in tenths. A batch waits for the sync before its own and for its own;
/// the half above that keeps the fixed point stable while syncs vary.
const FLOOR_DELAYS_TENTHS: u128 = 25;
const PROBE_AFTER: Duration = Duration::from_secs(18);
/// Long enough to hold one whole second, which is what a quiet sync is taken from.
const PROBE_FOR: Duration = Duration::from_secs(2);
/// A tick that comes late counts for no more than this: one interval alone decides nothing.
const INTERVAL_MAX: Duration = Duration::from_millis(200);

impl Controller {
    /// A controller that starts at `now` with a small window: what is too much grows back slowly.
    pub fn new(options: ControllerOptions, now: Duration) -> Controller {
        let window_max = options.window_max.max(options.window_min);
        Controller {
            options: ControllerOptions { window_max, ..options },
            window: (window_max / 32).max(options.window_min),
            syncs: SyncMinute::default(),
            rates: RateMinute::default(),
            last_tick: now,
            load: Load::Calm,
            over_for: Duration::ZERO,
            clear_for: Duration::ZERO,
            probe: Probe::Standing(None),
        }
    }

    /// The window now.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Takes one interval that ended at `now`.
    pub fn tick(&mut self, now: Duration, interval: &Interval<'_>) -> Verdict {
        let seen = &interval.seen;
        let elapsed = now.saturating_sub(self.last_tick);
        self.last_tick = now;
        self.syncs.record(now, interval.syncs);
        self.rates.record(now, seen.busy, seen.completed_bytes);
        let target = self.target();
        let sojourn = seen.min_sojourn.unwrap_or(seen.pending_age);
        let sync_floor = self.floor(self.syncs.quiet().unwrap_or(Duration::ZERO));
        let floor = match self.rates.known() {
            true => sync_floor.max(self.floor(self.options.target_min)),
            false => self.window,
        };
        let wanted = interval.demand == Demand::Waiting || seen.refused > 0;
        let mut sync_bound = false;
        if sojourn > target {
            let smaller = self.window / 100 * SHRINK_PERCENT;
            sync_bound = smaller <= sync_floor;
            self.window = self.on_floor(now, smaller.max(floor), sync_bound);
        } else {
            self.probe = Probe::Standing(None);
            if wanted {
                self.window = self.window.saturating_mul(GROW_PERCENT) / 100;
            }
        }
        self.window = self.window.clamp(self.options.window_min, self.options.window_max);
        let was = self.load;
        self.load = self.judge(elapsed.min(INTERVAL_MAX), sojourn, target, interval.pool_per_mille);
        Verdict {
            window: self.window,
            target,
            sojourn,
            load: self.load,
            sync_bound,
            was: (was != self.load).then_some(was),
        }
    }

    fn target(&self) -> Duration {
        let syncs = self.syncs.median().map_or(Duration::ZERO, |median| median * 2);
        syncs.max(self.options.target_min).min(self.options.target_max)
    }

    /// Bytes that pass in 2.5 times the delay at the best rate of the minute.
    fn floor(&self, delay: Duration) -> u64 {
        let delay = delay.as_nanos();
        let bytes = u128::from(self.rates.best()) * delay * FLOOR_DELAYS_TENTHS / 10_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The window of a writer above its target: `kept`, or half of it while it is probed.
    fn on_floor(&mut self, now: Duration, kept: u64, stands: bool) -> u64 {
        match self.probe {
            Probe::Halved(until) if now < until => kept / 2,
            Probe::Standing(Some(since)) if stands && now >= since + PROBE_AFTER => {
                self.probe = Probe::Halved(now + PROBE_FOR);
                kept / 2
            }
            Probe::Standing(Some(_)) if stands => kept,
            _ => {
                self.probe = Probe::Standing(stands.then_some(now));
                kept
            }
        }
    }

    fn judge(&mut self, elapsed: Duration, sojourn: Duration, target: Duration, pool: u32) -> Load {
        let count = |sum: Duration, holds: bool| if holds { sum + elapsed } else { Duration::ZERO };
        self.over_for = count(self.over_for, sojourn > target * 4);
        let clear = sojourn < target * 2 && pool < self.options.pool_clear;
        self.clear_for = count(self.clear_for, clear);
        let busy = self.over_for >= self.options.busy_after || pool > self.options.pool_busy;
        if busy || (self.load == Load::Busy && self.clear_for < self.options.clear_after) {
            return Load::Busy;
        }
        if sojourn > target { Load::Slow } else { Load::Calm }
    }
}

#[cfg(test)]
mod tests;
