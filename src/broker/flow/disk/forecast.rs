//! How fast a disk fills, and how fast room comes back.
//!
//! Both are averages over about 30 s. Free space moves in steps of whole segments, because they are
//! allocated ahead; so the *net* change is averaged with its sign, and only the result is judged: a
//! step down and the writes into it cancel each other out.

use std::time::Duration;

/// An average forgets about two thirds within this time.
const AVERAGE_OVER: Duration = Duration::from_secs(30);
/// A rate below a byte a second is none.
const UNITS: i128 = 1_000;

/// Rates of one disk.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    last: Option<Look>,
    /// Thousandths of a byte per second.
    ingest: i128,
    net: i128,
    begun: bool,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    written: u64,
    available: u64,
}

impl Forecast {
    /// Nothing is known yet.
    pub fn new() -> Forecast {
        Forecast::default()
    }

    /// Takes a look: bytes written since the start, and bytes free now.
    pub fn observe(&mut self, now: Duration, written: u64, available: u64) {
        let look = Look { at: now, written, available };
        let Some(last) = self.last else {
            self.last = Some(look);
            return;
        };
        let nanos = now.saturating_sub(last.at).as_nanos() as i128;
        if nanos == 0 {
            return;
        }
        self.last = Some(look);
        let per_second = |change: i128| change * 1_000_000_000 * UNITS / nanos;
        let ingest = per_second(i128::from(written) - i128::from(last.written));
        let net = per_second(i128::from(available) - i128::from(last.available));
        if !self.begun {
            (self.begun, self.ingest, self.net) = (true, ingest, net);
            return;
        }
        let over = AVERAGE_OVER.as_nanos() as i128 + nanos;
        self.ingest += (ingest - self.ingest) * nanos / over;
        self.net += (net - self.net) * nanos / over;
    }

    /// Bytes written per second.
    pub fn ingest_bps(&self) -> u64 {
        bytes(self.ingest)
    }

    /// Bytes per second that came back: by retention, trims, or others on the same disk.
    pub fn reclaim_bps(&self) -> u64 {
        bytes(self.ingest + self.net)
    }

    /// Seconds until `mark` bytes are free as things go now, or `None` when that never comes.
    pub fn seconds_to(&self, mark: u64) -> Option<u64> {
        let left = self.last?.available.saturating_sub(mark);
        if left == 0 {
            return Some(0);
        }
        let lost = bytes(-self.net);
        (lost > 0).then(|| left / lost)
    }
}

fn bytes(rate: i128) -> u64 {
    u64::try_from((rate / UNITS).max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_steady_fill_names_its_end() {
        let mut forecast = Forecast::new();
        assert_eq!(forecast.seconds_to(0), None);
        for at in 0..10 {
            forecast.observe(seconds(at), at * 1_000, 100_000 - at * 1_000);
        }
        assert_eq!((forecast.ingest_bps(), forecast.reclaim_bps()), (1_000, 0));
        assert_eq!(forecast.seconds_to(41_000), Some(50));
        assert_eq!(forecast.seconds_to(95_000), Some(0));
    }

    #[test]
    fn what_retention_frees_is_seen_and_a_disk_in_balance_never_fills() {
        let mut forecast = Forecast::new();
        for at in 0..100 {
            forecast.observe(seconds(at), at * 1_000, 50_000);
        }
        assert_eq!((forecast.ingest_bps(), forecast.reclaim_bps()), (1_000, 1_000));
        assert_eq!(forecast.seconds_to(0), None);
    }

    #[test]
    fn allocation_ahead_is_no_reclaim() {
        let mut forecast = Forecast::new();
        for at in 0..600 {
            let allocated = (at / 16 + 1) * 16_000;
            forecast.observe(seconds(at), at * 1_000, 10_000_000 - allocated);
        }
        assert!(forecast.reclaim_bps() < 350, "{}", forecast.reclaim_bps());
        assert_eq!(forecast.ingest_bps(), 1_000);
    }

    #[test]
    fn an_old_rate_is_forgotten() {
        let mut forecast = Forecast::new();
        forecast.observe(seconds(0), 0, 1 << 40);
        forecast.observe(seconds(1), 1 << 30, (1 << 40) - (1 << 30));
        let written = 1 << 30;
        for at in 2..300 {
            forecast.observe(seconds(at), written, (1 << 40) - written);
        }
        assert!(forecast.ingest_bps() < 100_000);
    }
}
