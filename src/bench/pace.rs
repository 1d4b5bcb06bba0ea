//! Open-loop pacing: sends are due at fixed times, whether or not earlier ones were answered.

use std::time::Duration;

/// Due times of a constant rate from a start on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval_ns: f64,
}

impl Pace {
    /// `per_second` events a second; `None` when that is not a rate.
    pub fn new(per_second: f64) -> Option<Pace> {
        (per_second.is_finite() && per_second > 0.0).then(|| Pace { interval_ns: 1e9 / per_second })
    }

    /// When event number `index` is due, counted from the start.
    pub fn due(&self, index: u64) -> Duration {
        Duration::from_nanos((self.interval_ns * index as f64) as u64)
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
}
