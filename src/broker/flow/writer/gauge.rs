//! What the hot path knows of a log writer: bytes under way to it, its window, and how long the
//! quickest batch of the interval took. Two additions, a minimum and three stores per batch.
//!
//! Nothing here decides: [`super::Controller`] reads an interval with [`WriterGauge::take`] and
//! publishes what it made of it. Counters that one tick reads while batches move are a batch off at
//! most, which the next tick sees.
//!
//! # Invariants
//! What is admitted beside other bytes keeps `in_flight <= limit` of its class; a batch that is alone
//! always fits, so that one larger than the window passes.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::Load;
use super::minute::rate;
use crate::broker::flow::Cause;
use crate::types::Class;

const NOTHING: u64 = u64::MAX;
/// With less than this in an interval it was the load that was slow, or a single sync.
const RATE_BYTES_MIN: u64 = 1 << 20;

/// The gauge of one log writer.
#[derive(Debug)]
#[repr(align(64))]
pub struct WriterGauge {
    in_flight: AtomicU64,
    /// Shortest times of the interval, of batches acknowledged at their topic's level and at others.
    min_topic_ns: AtomicU64,
    min_other_ns: AtomicU64,
    completed: AtomicU64,
    last_done_ns: AtomicU64,
    /// When bytes came to an idle writer.
    busy_since_ns: AtomicU64,
    /// Time of the interval with bytes under way that is over.
    busy_ns: AtomicU64,
    taken_ns: AtomicU64,
    /// What the controller published.
    window: AtomicU64,
    min_sojourn_ns: AtomicU64,
    bytes_per_second: AtomicU64,
    refused: AtomicU64,
    load: AtomicU8,
    sync_bound: AtomicBool,
}

/// How far a batch may go into the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Its publisher was granted these bytes: up to two windows, because grants are overcommitted.
    Grant,
    /// Nobody granted it: one window.
    Window,
}

/// At which level a batch was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Its topic's: the time it took counts.
    Topic,
    /// Another one: its time counts only when there is no better sample.
    Other,
}

/// Why a batch may not go to the writer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Bytes under way.
    pub observed: u64,
    /// What its class and standing may use.
    pub limit: u64,
    /// How loaded the writer is.
    pub load: Load,
    /// The lowest class that would be admitted now, if any.
    pub min_class: Option<Class>,
}

/// One interval of a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Shortest time from queue to acknowledgement; `None` when nothing completed.
    pub min_sojourn: Option<Duration>,
    /// For how long nothing completed though bytes were under way: the age of the oldest of them or
    /// a little less. 0 when something completed.
    pub pending_age: Duration,
    /// Bytes that completed.
    pub completed_bytes: u64,
    /// Time with bytes under way.
    pub busy: Duration,
    /// Bytes under way at its end.
    pub in_flight: u64,
    /// Batches that were refused.
    pub refused: u64,
}

impl WriterGauge {
    /// A writer that has nothing to do, with a first window.
    pub fn new(window: u64) -> WriterGauge {
        WriterGauge {
            in_flight: AtomicU64::new(0),
            min_topic_ns: AtomicU64::new(NOTHING),
            min_other_ns: AtomicU64::new(NOTHING),
            completed: AtomicU64::new(0),
            last_done_ns: AtomicU64::new(0),
            busy_since_ns: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            taken_ns: AtomicU64::new(0),
            window: AtomicU64::new(window),
            min_sojourn_ns: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            load: AtomicU8::new(Load::Calm as u8),
            sync_bound: AtomicBool::new(false),
        }
    }

    /// Takes place for `bytes`, to be given back by [`WriterGauge::finish`] or
    /// [`WriterGauge::undo`].
    pub fn start(
        &self,
        bytes: u64,
        within: Within,
        class: Class,
        now: Duration,
    ) -> Result<(), Full> {
        let (window, load) = (self.window(), self.load());
        let limit = limit(window, load, within, class);
        let fits = |used: u64| {
            if used == 0 {
                // Before the bytes are seen: a tick between the two must not take them for old.
                self.busy_since_ns.store(nanos(now), Ordering::Relaxed);
            }
            let sum = used.saturating_add(bytes);
            (sum <= limit || used == 0).then_some(sum)
        };
        let taken = self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.map(|_| ()).map_err(|observed| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let sum = observed.saturating_add(bytes);
            let admits = |class: &Class| sum <= self::limit(window, load, within, *class);
            let lowest_first = [Class::Bulk, Class::Normal, Class::Critical];
            Full { observed, limit, load, min_class: lowest_first.into_iter().find(admits) }
        })
    }

    /// `bytes` were written and acknowledged at `level`, `sojourn` after they were admitted.
    pub fn finish(&self, bytes: u64, sojourn: Duration, level: Level, now: Duration) {
        let shortest = match level {
            Level::Topic => &self.min_topic_ns,
            Level::Other => &self.min_other_ns,
        };
        shortest.fetch_min(nanos(sojourn), Ordering::Relaxed);
        self.completed.fetch_add(bytes, Ordering::Relaxed);
        self.last_done_ns.store(nanos(now), Ordering::Relaxed);
        if self.give_back(bytes) == 0 {
            self.busy_ns.fetch_add(self.busy_until(nanos(now)), Ordering::Relaxed);
        }
    }

    /// Counts `bytes` though there is no place for them: whoever decides does not refuse.
    pub fn force(&self, bytes: u64) {
        self.in_flight.fetch_add(bytes, Ordering::AcqRel);
    }

    /// `bytes` never went to the writer, or it wrote nothing of them: no sample.
    pub fn undo(&self, bytes: u64) {
        self.give_back(bytes);
    }

    /// Bytes under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Its window.
    pub fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }

    /// How loaded it is.
    pub fn load(&self) -> Load {
        Load::from_u8(self.load.load(Ordering::Relaxed))
    }

    /// How long a batch that comes now will take: what is before it at the rate of the last
    /// intervals, where that is known, and at least as long as the quickest of the last interval.
    pub fn predicted(&self) -> Duration {
        let queue = self.time_for(self.in_flight()).unwrap_or(Duration::ZERO);
        queue.max(Duration::from_nanos(self.min_sojourn_ns.load(Ordering::Relaxed)))
    }

    /// How fast it was while much was under way; 0 = not known.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.load(Ordering::Relaxed)
    }

    /// How long `bytes` take to leave at the rate of the last intervals.
    pub fn time_for(&self, bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        (rate > 0).then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Ends the interval: what it saw. One caller, the tick.
    pub fn take(&self, now: Duration) -> Seen {
        let now_ns = nanos(now);
        let topic = self.min_topic_ns.swap(NOTHING, Ordering::Relaxed);
        let other = self.min_other_ns.swap(NOTHING, Ordering::Relaxed);
        let completed_bytes = self.completed.swap(0, Ordering::Relaxed);
        let in_flight = self.in_flight.load(Ordering::Acquire);
        let shortest = if topic == NOTHING { other } else { topic };
        let min_sojourn = (shortest != NOTHING).then(|| Duration::from_nanos(shortest));
        let mut busy = self.busy_ns.swap(0, Ordering::Relaxed);
        let mut pending_age = 0;
        if in_flight > 0 {
            busy += self.busy_until(now_ns);
            let quiet_since = self
                .last_done_ns
                .load(Ordering::Relaxed)
                .max(self.busy_since_ns.load(Ordering::Relaxed));
            pending_age = now_ns.saturating_sub(quiet_since);
        }
        self.taken_ns.store(now_ns, Ordering::Relaxed);
        Seen {
            min_sojourn,
            pending_age: match min_sojourn {
                None => Duration::from_nanos(pending_age),
                Some(_) => Duration::ZERO,
            },
            completed_bytes,
            busy: Duration::from_nanos(busy),
            in_flight,
            refused: self.refused.swap(0, Ordering::Relaxed),
        }
    }

    /// Publishes what the controller decided about the interval that `seen` was.
    pub fn publish(&self, window: u64, load: Load, seen: &Seen) {
        self.window.store(window, Ordering::Relaxed);
        self.load.store(load as u8, Ordering::Relaxed);
        let sojourn = seen.min_sojourn.unwrap_or(seen.pending_age);
        self.min_sojourn_ns.store(nanos(sojourn), Ordering::Relaxed);
        let old = self.bytes_per_second.load(Ordering::Relaxed);
        let rate = rate(seen.completed_bytes, seen.busy);
        // Of little that came and went one learns how slow the load was, not the writer.
        let heavy = seen.completed_bytes >= RATE_BYTES_MIN && !seen.busy.is_zero();
        if heavy && (seen.in_flight >= RATE_BYTES_MIN || rate > old) {
            let smooth = if old == 0 { rate } else { old - old / 4 + rate / 4 };
            self.bytes_per_second.store(smooth.max(1), Ordering::Relaxed);
        }
    }

    /// Publishes whether it is the disk's syncs that keep batches above the target.
    pub fn set_sync_bound(&self, is: bool) {
        self.sync_bound.store(is, Ordering::Relaxed);
    }

    /// What limits whoever is limited by this writer.
    pub fn cause(&self) -> Cause {
        if self.sync_bound.load(Ordering::Relaxed) { Cause::Fsync } else { Cause::Window }
    }

    /// Bytes left after `bytes` were given back.
    fn give_back(&self, bytes: u64) -> u64 {
        let was = self.in_flight.fetch_sub(bytes, Ordering::AcqRel);
        was.checked_sub(bytes).expect("more was given back to a writer than it had")
    }

    /// Time of this interval with bytes under way, of the stretch that lasts until `now_ns`.
    fn busy_until(&self, now_ns: u64) -> u64 {
        let since = self.busy_since_ns.load(Ordering::Relaxed);
        now_ns.saturating_sub(since.max(self.taken_ns.load(Ordering::Relaxed)))
    }
}

/// What a class may use of a window. Where a class is refused, every lower one is.
fn limit(window: u64, load: Load, within: Within, class: Class) -> u64 {
    let granted = match within {
        Within::Grant => window.saturating_mul(2),
        Within::Window => window,
    };
    match (load, class) {
        (Load::Busy, Class::Bulk) => window / 2,
        (Load::Busy, Class::Normal) => window,
        _ => granted,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn start(gauge: &WriterGauge, bytes: u64, at: u64) -> Result<(), Full> {
        gauge.start(bytes, Within::Window, Class::Normal, ms(at))
    }

    #[test]
    fn the_shortest_time_at_the_topics_level_counts() {
        let gauge = WriterGauge::new(1_000);
        for at in 0..3 {
            start(&gauge, 100, at).expect("fits");
        }
        gauge.finish(100, ms(1), Level::Other, ms(10));
        gauge.finish(100, ms(9), Level::Topic, ms(11));
        gauge.finish(100, ms(30), Level::Topic, ms(32));
        let seen = gauge.take(ms(100));
        assert_eq!(seen.min_sojourn, Some(ms(9)));
        assert_eq!((seen.completed_bytes, seen.in_flight, seen.busy), (300, 0, ms(32)));
        start(&gauge, 100, 100).expect("fits");
        gauge.finish(100, ms(2), Level::Other, ms(102));
        assert_eq!(gauge.take(ms(200)).min_sojourn, Some(ms(2)), "for want of a better one");
        assert_eq!(gauge.take(ms(300)), Seen::default());
    }

    #[test]
    fn a_hung_writer_ages_and_an_idle_one_does_not() {
        let gauge = WriterGauge::new(1_000);
        assert_eq!(gauge.take(ms(5_000)).pending_age, Duration::ZERO);
        start(&gauge, 100, 5_010).expect("fits");
        start(&gauge, 100, 5_050).expect("fits");
        assert_eq!(gauge.take(ms(5_100)).pending_age, ms(90));
        assert_eq!(gauge.take(ms(5_900)).pending_age, ms(890));
        gauge.finish(100, ms(890), Level::Topic, ms(5_900));
        let seen = gauge.take(ms(6_000));
        assert_eq!((seen.min_sojourn, seen.pending_age), (Some(ms(890)), ms(0)));
        assert_eq!(gauge.take(ms(6_100)).pending_age, ms(200));
        gauge.undo(100);
        assert_eq!(gauge.take(ms(6_200)), Seen::default());
    }

    #[test]
    fn a_batch_larger_than_the_window_passes_alone() {
        let gauge = WriterGauge::new(1_000);
        start(&gauge, 5_000, 0).expect("alone");
        let full = start(&gauge, 1, 0).expect_err("used up");
        assert_eq!((full.observed, full.limit), (5_000, 1_000));
        assert_eq!(full.min_class, None);
        gauge.undo(5_000);
        start(&gauge, 1, 0).expect("free again");
    }

    #[test]
    fn a_busy_writer_sheds_the_lowest_class_first() {
        let gauge = WriterGauge::new(1_000);
        gauge.publish(1_000, Load::Busy, &Seen::default());
        start(&gauge, 600, 0).expect("alone");
        let ask = |class, bytes| gauge.start(bytes, Within::Grant, class, ms(0));
        let full = ask(Class::Bulk, 100).expect_err("half a window");
        assert_eq!((full.limit, full.min_class, full.load), (500, Some(Class::Normal), Load::Busy));
        assert_eq!(ask(Class::Normal, 500).map_err(|f| f.min_class), Err(Some(Class::Critical)));
        assert_eq!(ask(Class::Critical, 1_400), Ok(()));
        assert_eq!(gauge.take(ms(1)).refused, 2);
    }

    #[test]
    fn a_prediction_rests_on_busy_time() {
        let gauge = WriterGauge::new(64 << 20);
        assert_eq!(gauge.predicted(), Duration::ZERO);
        start(&gauge, 10_000, 0).expect("fits");
        gauge.finish(10_000, ms(5), Level::Topic, ms(5));
        let seen = gauge.take(ms(100));
        gauge.publish(64 << 20, Load::Calm, &seen);
        assert_eq!((gauge.predicted(), gauge.time_for(1)), (ms(5), None), "it was the load");
        start(&gauge, 10_000_000, 100).expect("fits");
        gauge.finish(10_000_000, ms(50), Level::Topic, ms(150));
        let seen = gauge.take(ms(200));
        gauge.publish(64 << 20, Load::Calm, &seen);
        assert_eq!(gauge.predicted(), ms(50), "idle time is no slowness");
        start(&gauge, 40_000_000, 200).expect("fits");
        assert_eq!(gauge.predicted(), ms(200));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_order_passes_two_windows_and_everything_comes_back(
            steps in prop::collection::vec((1u64..700, 0u8..3, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let gauge = WriterGauge::new(1_000);
            let mut held = std::collections::VecDeque::new();
            for (at, (bytes, class, granted, done)) in steps.into_iter().enumerate() {
                let now = ms(at as u64);
                if done && let Some((bytes, since)) = held.pop_front() {
                    gauge.finish(bytes, now - since, Level::Topic, now);
                }
                let class = [Class::Critical, Class::Normal, Class::Bulk][usize::from(class)];
                let within = if granted { Within::Grant } else { Within::Window };
                let started = gauge.start(bytes, within, class, now);
                prop_assert!(started.is_ok() || !held.is_empty(), "alone it fits");
                if started.is_ok() {
                    held.push_back((bytes, now));
                }
                let sum: u64 = held.iter().map(|(bytes, _)| bytes).sum();
                prop_assert_eq!(gauge.in_flight(), sum);
                prop_assert!(sum <= 2_000);
            }
            held.drain(..).for_each(|(bytes, _)| gauge.undo(bytes));
            prop_assert_eq!(gauge.in_flight(), 0);
        }
    }
}
