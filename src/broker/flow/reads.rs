//! The pace of cold reads: catching up and replays, which take the disk from what is written and read
//! at the tail. They are slowed, never refused.
//!
//! While batches take no longer than their target, cold reads are free. Else they get half of what the
//! disk was seen to read, less while it does not help, a tenth at least; and it comes back as it went.
//!
//! A reader reserves its slice and waits as long as it is told. The reservations are a queue in time, so
//! readers take turns by slices: whoever asks for one slice at a time gets as much as any other.
//!
//! # Invariants
//! `floor <= rate` while reads are paced: a replay ends. Reserved within any interval <= rate x time + a
//! second of it + one slice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::writer::minute::RateMinute;
use super::{Bucket, FetchPool, Load, UNLIMITED};

/// Rules of the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Part of the disk's bandwidth for cold reads at first, in per cent: the tail goes before.
    pub share_percent: u64,
    /// The least part, in per cent.
    pub floor_percent: u64,
    /// What a disk is taken to read before anybody measured it, in bytes per second.
    pub bandwidth_first: u64,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { share_percent: 50, floor_percent: 10, bandwidth_first: 100 << 20 }
    }
}

const SHRINK_PERCENT: u64 = 85;
const GROW_PERCENT: u64 = 110;

/// What every cold read passes.
#[derive(Debug)]
pub struct ColdReads {
    pace: Bucket,
    read_bytes: AtomicU64,
    read_ns: AtomicU64,
}

impl Default for ColdReads {
    fn default() -> ColdReads {
        ColdReads::new()
    }
}

impl ColdReads {
    /// Reads that are free.
    pub fn new() -> ColdReads {
        ColdReads {
            pace: Bucket::unlimited(),
            read_bytes: AtomicU64::new(0),
            read_ns: AtomicU64::new(0),
        }
    }

    /// Takes a place in the queue for `bytes`: how long to wait before they are read.
    pub fn reserve(&self, bytes: u64, now: Duration) -> Duration {
        let wait = self.pace.owing(now).map_or(Duration::ZERO, |owing| owing.wait);
        self.pace.force(bytes, now);
        wait
    }

    /// A place that is not used after all.
    pub fn give_up(&self, bytes: u64) {
        self.pace.refund(bytes);
    }

    /// `bytes` were read in `took`, waiting not counted.
    pub fn done(&self, bytes: u64, took: Duration) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.read_ns.fetch_add(took, Ordering::Relaxed);
    }

    /// Bytes per second that may be read; `u64::MAX` = they are free.
    pub fn rate_bps(&self) -> u64 {
        self.pace.rate_per_s()
    }
}

/// What all reads of one broker pass.
pub struct ReadPath {
    /// Bytes on their way to readers.
    pub pool: FetchPool,
    /// Reads of what is not in memory.
    pub cold: ColdReads,
    share: Mutex<ReadShare>,
}

impl ReadPath {
    /// Reads that are free, but for the pool.
    pub fn new(pool: FetchPool, options: ReadOptions) -> ReadPath {
        let share = Mutex::new(ReadShare::new(options));
        ReadPath { pool, cold: ColdReads::new(), share }
    }

    /// Sets the pace of cold reads for the worst `load` of the log writers. To be called every
    /// 100 ms.
    pub fn tick(&self, now: Duration, load: Load) {
        // Counters; a panic between two of them leaves the next tick to correct them.
        self.share.lock().unwrap_or_else(PoisonError::into_inner).tick(now, load, &self.cold);
    }
}

impl std::fmt::Debug for ReadPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadPath").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Decides about the pace, once a tick.
#[derive(Clone, Debug)]
pub struct ReadShare {
    options: ReadOptions,
    seen: RateMinute,
    rate: u64,
}

impl ReadShare {
    /// A share that limits nothing yet.
    pub fn new(options: ReadOptions) -> ReadShare {
        ReadShare { options, seen: RateMinute::default(), rate: UNLIMITED }
    }

    /// Sets the pace of `reads` for the worst `load` of the log writers.
    pub fn tick(&mut self, now: Duration, load: Load, reads: &ColdReads) -> u64 {
        let took = Duration::from_nanos(reads.read_ns.swap(0, Ordering::Relaxed));
        self.seen.record(now, took, reads.read_bytes.swap(0, Ordering::Relaxed));
        let bandwidth = match self.seen.best() {
            0 => self.options.bandwidth_first,
            best => best,
        };
        let part = |percent: u64| (bandwidth / 100).saturating_mul(percent).max(1);
        let floor = part(self.options.floor_percent);
        self.rate = match (self.rate, load) {
            (UNLIMITED, Load::Calm) => UNLIMITED,
            (UNLIMITED, _) => part(self.options.share_percent).max(floor),
            (rate, Load::Calm) => match (rate / 100).saturating_mul(GROW_PERCENT).max(rate + 1) {
                grown if grown >= bandwidth => UNLIMITED,
                grown => grown.max(floor),
            },
            (rate, _) => (rate / 100).saturating_mul(SHRINK_PERCENT).max(floor),
        };
        reads.pace.set_rate(self.rate, self.rate, now);
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn reads_are_free_until_writes_are_slow_and_then_get_half_down_to_a_tenth() {
        let (reads, mut share) = (ColdReads::new(), ReadShare::new(ReadOptions::default()));
        assert_eq!(share.tick(ms(100), Load::Calm, &reads), UNLIMITED);
        assert_eq!(reads.reserve(1 << 40, ms(100)), Duration::ZERO);
        reads.done(400 * MIB, ms(2_000));
        let half = share.tick(ms(200), Load::Slow, &reads);
        assert!((99 * MIB..=100 * MIB).contains(&half), "{half} of 200 MiB/s");
        let rates: Vec<_> = (3..40).map(|n| share.tick(ms(n * 100), Load::Busy, &reads)).collect();
        assert!(rates[0] < half && rates.iter().all(|rate| *rate >= 200 * MIB / 100 * 10));
        assert_eq!(rates[35], 200 * MIB / 100 * 10, "a replay ends");
        let back: Vec<_> = (40..80).map(|n| share.tick(ms(n * 100), Load::Calm, &reads)).collect();
        assert!(back[0] > rates[36] && back[0] < half);
        assert_eq!((back[39], reads.rate_bps()), (UNLIMITED, UNLIMITED));
    }

    #[test]
    fn readers_take_turns_and_none_is_refused() {
        let (reads, mut share) = (ColdReads::new(), ReadShare::new(ReadOptions::default()));
        let rate = share.tick(ms(0), Load::Slow, &reads);
        assert_eq!(rate, 50 * MIB);
        let mut next = [ms(0), ms(0), ms(0)];
        let slices = [MIB, MIB / 4, MIB];
        let mut read = [0u64; 3];
        for at in 0..10_000 {
            for (reader, due) in next.iter_mut().enumerate() {
                if ms(at) >= *due {
                    let wait = reads.reserve(slices[reader], ms(at));
                    *due = ms(at) + wait.max(ms(1));
                    read[reader] += 1;
                }
            }
        }
        assert!(
            read[0].abs_diff(read[2]) <= 1 && read[0].abs_diff(read[1]) <= read[0] / 10,
            "{read:?}"
        );
        let bytes: u64 = read.iter().zip(slices).map(|(count, slice)| count * slice).sum();
        assert!(bytes <= rate * 10 + rate + 3 * MIB && bytes > rate * 10, "{}", bytes / MIB);
    }

    #[test]
    fn a_place_that_is_given_up_costs_nothing() {
        let (reads, mut share) = (ColdReads::new(), ReadShare::new(ReadOptions::default()));
        share.tick(ms(0), Load::Slow, &reads);
        assert_eq!(reads.reserve(200 * MIB, ms(0)), Duration::ZERO);
        assert!(reads.reserve(MIB, ms(0)) > ms(2_900));
        reads.give_up(200 * MIB);
        assert_eq!(reads.reserve(MIB, ms(0)), Duration::ZERO);
    }

    #[test]
    fn the_path_is_as_fast_as_the_log_writers_let_it() {
        let path = ReadPath::new(FetchPool::new(MIB), ReadOptions::default());
        assert_eq!(path.cold.rate_bps(), UNLIMITED);
        path.tick(ms(0), Load::Slow);
        let paced = path.cold.rate_bps();
        assert_eq!(paced, ReadOptions::default().bandwidth_first / 2);
        for at in 1..1_000 {
            path.tick(ms(at * 100), Load::Busy);
        }
        assert_eq!(path.cold.rate_bps(), ReadOptions::default().bandwidth_first / 10, "the floor");
        for at in 1_000..2_000 {
            path.tick(ms(at * 100), Load::Calm);
        }
        assert_eq!(path.cold.rate_bps(), UNLIMITED);
    }
}
