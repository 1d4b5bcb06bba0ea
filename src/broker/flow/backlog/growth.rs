//! What was ever written to a partition, from what it stores: retention takes nothing away.

use std::time::Duration;

use super::lag::LagRing;
use super::watch::{PartitionSeen, Past};
use crate::types::Offset;

/// One partition since somebody looks at it.
#[derive(Debug)]
pub(super) struct Growth {
    ring: LagRing,
    /// Bytes ever written, counted from where the log began at the first look.
    written: u64,
    /// What was seen last.
    last: Option<PartitionSeen>,
}

impl Growth {
    /// A partition with a history, oldest first.
    pub(super) fn begin(history: &[Past], now: Duration) -> Growth {
        let mut ring = LagRing::new();
        for past in history {
            ring.seed(past.age, past.end, past.bytes, now);
        }
        Growth { ring, written: 0, last: None }
    }

    /// It is like this now.
    pub(super) fn note(&mut self, seen: &PartitionSeen, now: Duration) {
        let Some(last) = self.last else {
            self.written = seen.bytes;
            // Where the log begins, unless the history says it.
            self.ring.seed_start(seen.start, now);
            self.ring.note(now, seen.end, self.written);
            self.last = Some(*seen);
            return;
        };
        let trimmed = seen.start != last.start || seen.bytes < last.bytes;
        self.written += match trimmed {
            false => seen.bytes - last.bytes,
            // What went with the old records is not known: the new ones count as the mean.
            true => records(last.end, seen.end).saturating_mul(mean(seen)),
        };
        self.ring.note(now, seen.end, self.written);
        self.last = Some(*seen);
    }

    pub(super) fn ring(&self) -> &LagRing {
        &self.ring
    }
}

fn records(from: Offset, to: Offset) -> u64 {
    u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0)
}

fn mean(seen: &PartitionSeen) -> u64 {
    seen.bytes / records(seen.start, seen.end).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionId, TopicId, TopicPartition};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen(start: i64, end: i64, bytes: u64) -> PartitionSeen {
        let part =
            TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId(0) };
        PartitionSeen { part, start: Offset(start), end: Offset(end), bytes }
    }

    #[test]
    fn retention_takes_nothing_of_the_lag_in_bytes() {
        let mut growth = Growth::begin(&[], s(0));
        growth.note(&seen(0, 100, 1_000), s(0));
        growth.note(&seen(0, 200, 2_000), s(10));
        growth.note(&seen(150, 210, 600), s(20));
        growth.note(&seen(150, 220, 700), s(30));
        assert_eq!(growth.ring().lag(Offset(200), s(30)).bytes, 200);
        assert_eq!(growth.ring().lag(Offset(100), s(30)).bytes, 1_200);
    }

    #[test]
    fn what_was_there_at_the_start_counts_with_its_bytes_and_its_age() {
        let mut plain = Growth::begin(&[], s(0));
        plain.note(&seen(0, 100, 1_000), s(5));
        assert_eq!(plain.ring().lag(Offset(40), s(5)).bytes, 600);
        let past = [
            Past { age: s(100), end: Offset(0), bytes: 0 },
            Past { age: s(50), end: Offset(50), bytes: 500 },
        ];
        let mut old = Growth::begin(&past, s(5));
        old.note(&seen(0, 100, 1_000), s(5));
        let lag = old.ring().lag(Offset(50), s(5));
        assert_eq!((lag.records, lag.bytes, lag.age), (50, 500, s(50)));
    }
}
