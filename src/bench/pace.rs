//! Open-loop pacing: sends are due at fixed times, whether or not earlier ones were answered.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::env::{Clock, SystemClock};

/// Due times of a constant rate from a start on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval_ns: f64,
    /// Shortest sleep between two events.
    grain: Duration,
}

/// Ticks a late sender may be behind before the ticker waits for it; they keep their due times.
const TICKS_WAITING_MAX: usize = 1 << 20;

impl Pace {
    /// `per_second` events a second; `None` when that is not a rate.
    pub fn new(per_second: f64) -> Option<Pace> {
        let grain = Duration::ZERO;
        (per_second.is_finite() && per_second > 0.0)
            .then(|| Pace { interval_ns: 1e9 / per_second, grain })
    }

    /// The same, but events may be late by up to `grain`, several at a time: waking for each of them
    /// would take processor time from what is measured.
    #[must_use]
    pub fn coarse(self, grain: Duration) -> Pace {
        Pace { grain, ..self }
    }

    /// When event number `index` is due, counted from the start.
    pub fn due(&self, index: u64) -> Duration {
        Duration::from_nanos((self.interval_ns * index as f64) as u64)
    }

    /// The due times of all events before `end`, each given out when it is due. A thread of its own
    /// keeps the time: the runtime's timer is only good to a millisecond.
    pub fn ticks(self, clock: SystemClock, end: Duration) -> mpsc::Receiver<Duration> {
        let (sender, receiver) = mpsc::channel(TICKS_WAITING_MAX);
        std::thread::spawn(move || {
            let start = clock.monotonic();
            let due_times = (0..).map(|index| self.due(index)).take_while(|due| *due < end);
            for due in due_times {
                while let Some(early) = (start + due).checked_sub(clock.monotonic()) {
                    std::thread::park_timeout(early.max(self.grain));
                }
                if sender.blocking_send(start + due).is_err() {
                    return; // nobody listens any more
                }
            }
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_at_the_rate() {
        let pace = Pace::new(5_000.0).expect("a rate");
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(5_000), Duration::from_secs(1));
        assert!(Pace::new(0.0).is_none() && Pace::new(f64::NAN).is_none());
    }

    #[test]
    fn no_tick_is_early_and_none_is_lost() {
        let clock = SystemClock::new();
        let pace = Pace::new(10_000.0).expect("a rate");
        for pace in [pace, pace.coarse(Duration::from_millis(3))] {
            let mut ticks = pace.ticks(clock.clone(), Duration::from_millis(20));
            let mut count = 0;
            while let Some(due) = ticks.blocking_recv() {
                assert!(due <= clock.monotonic());
                count += 1;
            }
            assert_eq!(count, 200);
        }
    }
}
