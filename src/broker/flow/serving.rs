//! The time of the serving threads: while deliveries wait, produce gets no more than its part of it.
//!
//! A delivery waits when its subscription has credit and data and nobody served it for 20 ms. A consumer
//! without credit waits for nobody but itself, so lag alone never lowers ingest. While a delivery waited
//! within the last 100 ms, each turn of produce pays for the time it took, and who has spent the part of
//! produce pauses until it is there again.
//!
//! # Invariants
//! Without a delivery that waits, produce owes nothing. With one, its turns in any interval take at most
//! their part of it, 10 ms a thread and one turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Bucket;

/// A delivery that was ready for so long waits.
const WAITS_AFTER: Duration = Duration::from_millis(20);
/// For how long one that waited counts.
const COUNTS_FOR_NS: u64 = 100_000_000;
/// What produce may use at once, for each thread.
const BURST_NS: u64 = 10_000_000;
/// No pause is longer: what is decided on is the last 100 ms.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The time of the serving threads of one broker.
#[derive(Debug)]
pub struct Serving {
    /// Nanoseconds of produce.
    produce: Bucket,
    /// When a delivery had waited last, in nanoseconds + 1; 0 = none did.
    waited_ns: AtomicU64,
}

impl Serving {
    /// The time of `threads`, of which deliveries keep `delivery_percent` while any waits.
    pub fn new(threads: u64, delivery_percent: u64) -> Serving {
        let threads = threads.max(1);
        let part = 100u64.saturating_sub(delivery_percent).max(1);
        let rate = threads.saturating_mul(1_000_000_000 / 100).saturating_mul(part);
        Serving {
            produce: Bucket::new(rate, threads.saturating_mul(BURST_NS)),
            waited_ns: AtomicU64::new(0),
        }
    }

    /// A subscription with credit and data was ready since `ready_at`, and is served now or looked at
    /// again.
    pub fn delivery(&self, ready_at: Duration, now: Duration) {
        if now.saturating_sub(ready_at) >= WAITS_AFTER {
            self.waited_ns.store(nanos(now).saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Whether any delivery ever waited: as long as none did, nobody needs to measure anything.
    pub fn has_waited(&self) -> bool {
        self.waited_ns.load(Ordering::Relaxed) > 0
    }

    /// Whether a delivery waited within the last 100 ms.
    pub fn deliveries_wait(&self, now: Duration) -> bool {
        let waited_ns = self.waited_ns.load(Ordering::Relaxed);
        waited_ns > 0 && nanos(now).saturating_sub(waited_ns) < COUNTS_FOR_NS
    }

    /// A turn of produce took `took`. Returns for how long the connection takes no more of it, when
    /// produce has used its part.
    pub fn produce_turn(&self, took: Duration, now: Duration) -> Option<Duration> {
        if !self.deliveries_wait(now) {
            return None;
        }
        self.produce.force(nanos(took), now);
        self.produce.owing(now).map(|owing| owing.wait.min(PAUSE_MAX))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn produce_owes_nothing_while_no_delivery_waits() {
        let serving = Serving::new(1, 50);
        for at in 0..1_000 {
            assert_eq!(serving.produce_turn(ms(1), ms(at)), None);
            serving.delivery(ms(at), ms(at + 19));
        }
    }

    #[test]
    fn produce_owes_exactly_what_passes_its_half() {
        let serving = Serving::new(1, 50);
        serving.delivery(ms(0), ms(1_000));
        assert_eq!(serving.produce_turn(ms(9), ms(1_000)), None, "within the burst");
        let pause = serving.produce_turn(ms(5), ms(1_000)).expect("4 ms too many");
        assert!(pause > ms(8) && pause <= ms(9), "{pause:?} at half of the time");
        assert_eq!(serving.produce_turn(ms(0), ms(1_009)), None);
        assert_eq!(serving.produce_turn(ms(50), ms(1_101)), None, "the delivery was served");
    }

    #[test]
    fn deliveries_that_go_on_waiting_get_half_of_every_thread() {
        for threads in [1, 4] {
            let serving = Serving::new(threads, 50);
            let (mut busy, mut pauses) = (ms(0), vec![ms(0); 8]);
            for at in 0..10_000 {
                serving.delivery(ms(at), ms(at + 20));
                for paused_until in &mut pauses {
                    if *paused_until <= ms(at) {
                        busy += ms(1);
                        let pause = serving.produce_turn(ms(1), ms(at + 20));
                        *paused_until = ms(at + 1) + pause.unwrap_or_default();
                    }
                }
            }
            let half = ms(5_000) * u32::try_from(threads).expect("few");
            assert!(busy <= half + ms(10 * threads) + ms(8), "{busy:?} of {threads}");
            assert!(busy >= half - ms(100), "{busy:?} of {threads}");
        }
    }
}
