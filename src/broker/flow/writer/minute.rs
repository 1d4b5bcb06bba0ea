//! What the last 60 seconds saw: the median of the syncs, their median in the quietest second, and
//! the best rate. Bounded: 60 seconds of at most 64 samples, the last ones of each.

use std::collections::VecDeque;
use std::time::Duration;

/// Seconds that count.
const SECONDS: u64 = 60;
/// Samples kept of one second.
const SAMPLES_MAX: usize = 64;

/// Times of syncs by the second.
#[derive(Clone, Debug, Default)]
pub(super) struct SyncMinute {
    seconds: VecDeque<Second>,
    /// The second in which both were computed last.
    refreshed: u64,
    median: Option<Duration>,
    quiet: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Second {
    at: u64,
    /// Samples of it so far; the slot of the next one follows from it.
    seen: usize,
    samples: Vec<Duration>,
}

impl SyncMinute {
    /// Notes the syncs that ended up to `now` and forgets what is older than a minute.
    pub(super) fn record(&mut self, now: Duration, syncs: &[Duration]) {
        let at = now.as_secs();
        let new = self.seconds.back().is_none_or(|second| second.at != at);
        if new && !syncs.is_empty() {
            self.seconds.push_back(Second { at, seen: 0, samples: Vec::new() });
        }
        if let Some(second) = self.seconds.back_mut().filter(|second| second.at == at) {
            syncs.iter().for_each(|sync| second.note(*sync));
        }
        let old = |second: &Second| second.at.saturating_add(SECONDS) <= at;
        while self.seconds.front().is_some_and(old) {
            self.seconds.pop_front();
        }
        // A minute's median hardly moves within a second; the first seconds of a broker do.
        if self.refreshed != at || self.seconds.len() <= 2 {
            self.refreshed = at;
            self.refresh(at);
        }
    }

    /// The median of all samples, or `None` without any.
    pub(super) fn median(&self) -> Option<Duration> {
        self.median
    }

    /// The lowest of the medians of whole seconds: what a sync costs when little is written.
    pub(super) fn quiet(&self) -> Option<Duration> {
        self.quiet
    }

    fn refresh(&mut self, now_second: u64) {
        self.median = median(self.seconds.iter().flat_map(|second| second.samples.iter().copied()));
        let whole = self.seconds.iter().filter(|second| second.at != now_second);
        self.quiet = whole.filter_map(|second| median(second.samples.iter().copied())).min();
    }
}

impl Second {
    fn note(&mut self, sample: Duration) {
        match self.samples.get_mut(self.seen % SAMPLES_MAX) {
            Some(slot) => *slot = sample,
            None => self.samples.push(sample),
        }
        self.seen += 1;
    }
}

fn median(samples: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut samples: Vec<Duration> = samples.collect();
    let middle = samples.len() / 2;
    (!samples.is_empty()).then(|| *samples.select_nth_unstable(middle).1)
}

/// The best of the rates that were measured over a second or more.
#[derive(Clone, Debug, Default)]
pub(in crate::broker::flow) struct RateMinute {
    /// Of the second that is under way.
    bytes: u64,
    time: Duration,
    /// `(when, bytes per second)`; falling, so that the first is the best.
    rates: VecDeque<(Duration, u64)>,
}

impl RateMinute {
    /// Notes that `bytes` were written in the `time` before `now`.
    pub(in crate::broker::flow) fn record(&mut self, now: Duration, time: Duration, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.time = self.time.saturating_add(time);
        if self.time >= Duration::from_secs(1) {
            let rate = rate(self.bytes, self.time);
            while self.rates.back().is_some_and(|(_, worse)| *worse <= rate) {
                self.rates.pop_back();
            }
            self.rates.push_back((now, rate));
            (self.bytes, self.time) = (0, Duration::ZERO);
        }
        let minute = Duration::from_secs(SECONDS);
        while self.rates.front().is_some_and(|(at, _)| *at + minute < now) {
            self.rates.pop_front();
        }
    }

    /// Whether a whole second of the last minute's was measured.
    pub(in crate::broker::flow) fn known(&self) -> bool {
        !self.rates.is_empty()
    }

    /// Bytes per second; 0 while not known.
    pub(in crate::broker::flow) fn best(&self) -> u64 {
        self.rates.front().map_or(0, |(_, rate)| *rate)
    }
}

/// `bytes` over `time` in bytes per second.
pub(in crate::broker::flow) fn rate(bytes: u64, time: Duration) -> u64 {
    let nanos = time.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_median_forgets_after_a_minute_and_ignores_one_outlier() {
        let mut minute = SyncMinute::default();
        assert_eq!((minute.median(), minute.quiet()), (None, None));
        minute.record(ms(100), &[ms(3), ms(4), ms(900)]);
        assert_eq!(minute.median(), Some(ms(4)));
        assert_eq!(minute.quiet(), None, "its second is not over");
        minute.record(ms(1_100), &[ms(8); 5]);
        minute.record(ms(2_100), &[]);
        assert_eq!((minute.median(), minute.quiet()), (Some(ms(8)), Some(ms(4))));
        minute.record(ms(60_500), &[ms(8)]);
        assert_eq!(minute.quiet(), Some(ms(8)));
        minute.record(ms(200_000), &[]);
        assert_eq!((minute.median(), minute.quiet()), (None, None));
    }

    #[test]
    fn a_second_of_many_syncs_keeps_its_last_64() {
        let mut minute = SyncMinute::default();
        minute.record(ms(0), &vec![ms(1); 1_000]);
        minute.record(ms(10), &[ms(9); 64]);
        assert_eq!(minute.seconds.back().map(|second| second.samples.len()), Some(64));
        assert_eq!(minute.median(), Some(ms(9)));
    }

    #[test]
    fn the_best_rate_is_of_a_whole_second_and_lasts_a_minute() {
        let mut rates = RateMinute::default();
        rates.record(ms(100), ms(100), 1 << 30);
        assert_eq!((rates.best(), rates.known()), (0, false), "a burst is no rate");
        rates.record(ms(1_000), ms(900), 0);
        assert_eq!(rates.best(), 1 << 30);
        for second in 2..=61 {
            rates.record(ms(second * 1_000), ms(1_000), 1_000);
            assert_eq!(rates.best(), 1 << 30);
        }
        rates.record(ms(62_000), ms(1_000), 500);
        assert_eq!(rates.best(), 1_000);
    }
}
