//! The controller alone, and against a model of a log writer that collects while it syncs.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::broker::flow::{Level, Within, WriterGauge};
use crate::types::Class;

const MIB: u64 = 1 << 20;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn quick(sojourn_ms: u64) -> Seen {
    let min_sojourn = Some(ms(sojourn_ms));
    Seen { min_sojourn, completed_bytes: MIB, busy: ms(100), ..Seen::default() }
}

fn hung(for_ms: u64) -> Seen {
    Seen { pending_age: ms(for_ms), in_flight: MIB, busy: ms(100), ..Seen::default() }
}

fn interval(seen: Seen) -> Interval<'static> {
    Interval { seen, syncs: &[], demand: Demand::Met, pool_per_mille: 0 }
}

/// A controller and what it made of intervals of 100 ms.
fn after(intervals: &[Interval<'_>]) -> (Controller, Vec<Load>) {
    let mut controller = Controller::new(ControllerOptions::default(), ms(0));
    let mut at = Duration::ZERO;
    let mut loads = Vec::new();
    for interval in intervals {
        at += ms(100);
        loads.push(controller.tick(at, interval).load);
    }
    (controller, loads)
}

#[test]
fn one_slow_sync_never_makes_busy() {
    let seen = [hung(90), hung(190), hung(290), quick(310), quick(3)].map(interval);
    assert_eq!(after(&seen).1, [Load::Slow, Load::Slow, Load::Slow, Load::Slow, Load::Calm]);
}

#[test]
fn a_hung_sync_does_after_500_ms_and_two_quick_seconds_end_it() {
    let mut seen: Vec<_> = (1..=5).map(|n| interval(hung(n * 100))).collect();
    seen.extend([interval(quick(3)); 20]);
    let loads = after(&seen).1;
    assert_eq!(loads[3..5], [Load::Slow, Load::Busy]);
    assert_eq!(loads[23..], [Load::Busy, Load::Calm]);
}

#[test]
fn an_interval_that_came_late_makes_nobody_busy() {
    let (mut controller, _) = after(&[]);
    let verdict = controller.tick(ms(10_000), &interval(hung(9_900)));
    assert_eq!((verdict.load, verdict.was), (Load::Slow, Some(Load::Calm)));
}

#[test]
fn a_full_pool_makes_busy_at_once_until_it_is_below_70_percent() {
    let pool = |pool_per_mille| Interval { pool_per_mille, ..interval(quick(3)) };
    let mut seen = vec![pool(851)];
    seen.extend([pool(700); 30]);
    seen.extend([pool(699); 20]);
    let loads = after(&seen).1;
    assert!(loads[..50].iter().all(|load| *load == Load::Busy));
    assert_eq!(loads[50], Load::Calm);
}

#[test]
fn a_window_grows_only_for_somebody_who_waits() {
    let first = after(&[]).0.window();
    assert_eq!(after(&[interval(quick(3)); 10]).0.window(), first);
    let waiting = Interval { demand: Demand::Waiting, ..interval(quick(3)) };
    assert!(after(&[waiting; 10]).0.window() > first * 2);
    let refused = interval(Seen { refused: 1, ..quick(3) });
    assert!(after(&[refused; 10]).0.window() > first * 2);
    assert_eq!(after(&[waiting; 100]).0.window(), 256 * MIB, "the pool");
    assert_eq!(after(&[interval(quick(30)); 100]).0.window(), MIB, "one large batch");
}

#[test]
fn the_target_is_two_syncs_within_bounds() {
    let target = |sync: u64| {
        let (mut controller, _) = after(&[]);
        controller.tick(ms(100), &Interval { syncs: &[ms(sync); 9], ..interval(quick(3)) }).target
    };
    assert_eq!([target(1), target(8), target(60)], [ms(5), ms(16), ms(50)]);
}

#[test]
fn a_writer_that_never_syncs_keeps_the_window_its_pace_needs() {
    let mut controller = after(&[]).0;
    let mut completed = Vec::new();
    for tick in 1..=900 {
        // Whatever the window is, a batch passes its threads in 8 ms: longer than the target.
        let bytes = (controller.window() * 100 / 8).min(100 * MIB);
        completed.push(bytes);
        let seen = Seen { completed_bytes: bytes, refused: 1, ..quick(8) };
        let verdict = controller.tick(ms(tick * 100), &interval(seen));
        assert!(!verdict.sync_bound, "nothing was synced");
    }
    assert_eq!(completed.iter().min(), completed.first(), "it never got slower than it began");
}

/// A log writer: what comes while it syncs goes into the next round.
struct Model {
    gauge: WriterGauge,
    controller: Controller,
    bytes_per_ms: u64,
    sync_ms: std::ops::Range<u64>,
    random: u64,
    queue: VecDeque<(u64, Duration)>,
    round: Vec<(u64, Duration)>,
    round_ends: Duration,
    round_began: Duration,
    syncs: Vec<Duration>,
    now: Duration,
    sojourns_ms: Vec<u64>,
    bytes: u64,
}

impl Model {
    fn new(sync_ms: std::ops::Range<u64>) -> Model {
        let controller = Controller::new(ControllerOptions::default(), ms(0));
        Model {
            gauge: WriterGauge::new(controller.window()),
            controller,
            bytes_per_ms: 200 * MIB / 1_000,
            sync_ms,
            random: 7,
            queue: VecDeque::new(),
            round: Vec::new(),
            round_ends: ms(0),
            round_began: ms(0),
            syncs: Vec::new(),
            now: ms(0),
            sojourns_ms: Vec::new(),
            bytes: 0,
        }
    }

    /// One millisecond in which greedy producers send five times what the disk takes.
    fn step(&mut self) {
        self.now += ms(1);
        if self.now >= self.round_ends {
            self.end_round();
        }
        for _ in 0..self.bytes_per_ms * 5 / (64 << 10) {
            let (bytes, within) = (64 << 10, Within::Window);
            if self.gauge.start(bytes, within, Class::Normal, self.now).is_ok() {
                self.queue.push_back((bytes, self.now));
            }
        }
        if self.now.as_millis().is_multiple_of(100) {
            let seen = self.gauge.take(self.now);
            let syncs = std::mem::take(&mut self.syncs);
            let interval = Interval { seen, syncs: &syncs, demand: Demand::Met, pool_per_mille: 0 };
            let verdict = self.controller.tick(self.now, &interval);
            self.gauge.publish(verdict.window, Load::Calm, &seen);
        }
    }

    fn end_round(&mut self) {
        if !self.round.is_empty() {
            self.syncs.push(self.now - self.round_began);
        }
        for (bytes, since) in self.round.drain(..) {
            let sojourn = self.now - since;
            self.gauge.finish(bytes, sojourn, Level::Topic, self.now);
            self.sojourns_ms.push(sojourn.as_millis() as u64);
            self.bytes += bytes;
        }
        self.round.extend(self.queue.drain(..));
        let bytes: u64 = self.round.iter().map(|(bytes, _)| bytes).sum();
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let spread = self.sync_ms.end - self.sync_ms.start;
        let sync = self.sync_ms.start + (self.random >> 33) % spread;
        self.round_began = self.now;
        if !self.round.is_empty() {
            self.round_ends = self.now + ms(sync + bytes / self.bytes_per_ms);
        }
    }

    /// Runs for so many seconds: MiB/s and the 99th percentile in ms.
    fn run(&mut self, seconds: u64) -> (u64, u64) {
        self.sojourns_ms.clear();
        self.bytes = 0;
        (0..seconds * 1_000).for_each(|_| self.step());
        self.sojourns_ms.sort_unstable();
        let p99 = self.sojourns_ms.get(self.sojourns_ms.len() * 99 / 100).copied();
        (self.bytes / MIB / seconds, p99.unwrap_or(u64::MAX))
    }
}

/// Rates and percentiles of 200 s, after 30 s to settle.
fn settled(sync_ms: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    let mut model = Model::new(sync_ms);
    model.run(30);
    (0..10).map(|_| model.run(20)).collect()
}

#[test]
fn five_times_too_much_keeps_the_throughput_and_the_target() {
    for (rate, p99) in settled(2..8) {
        assert!(rate >= 160, "{rate} of 200 MiB/s");
        assert!(p99 <= 4 * 50, "{p99} ms");
    }
}

#[test]
fn a_disk_slower_than_the_target_keeps_its_throughput_and_does_not_run_away() {
    for (sync_ms, rate_min, p99_max) in [(35..45, 40, 200), (80..120, 65, 500)] {
        for (rate, p99) in settled(sync_ms.clone()) {
            assert!(rate >= rate_min, "{rate} MiB/s with syncs of {sync_ms:?} ms");
            assert!(p99 <= p99_max, "{p99} ms with syncs of {sync_ms:?} ms");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_sequence_of_intervals_leaves_the_bounds(
        steps in prop::collection::vec((0u64..3_000, 0u64..2_000, 0u64..1_000, 0u32..1_001), 1..300),
    ) {
        let (mut controller, _) = after(&[]);
        let mut now = Duration::ZERO;
        for (pause, sojourn, sync, pool_per_mille) in steps {
            now += ms(pause);
            let demand = if pause % 2 == 0 { Demand::Waiting } else { Demand::Met };
            let seen = if sync == 0 { hung(sojourn) } else { quick(sojourn) };
            let verdict = controller
                .tick(now, &Interval { seen, syncs: &[ms(sync)], demand, pool_per_mille });
            prop_assert!((MIB..=256 * MIB).contains(&verdict.window));
            prop_assert!((ms(5)..=ms(50)).contains(&verdict.target));
        }
    }
}
