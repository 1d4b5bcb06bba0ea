//! What one subscriber got, by partition and offset: at-least-once deliveries become exactly-once
//! totals, because an offset that was seen before is set aside and counted.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher as _};

use super::tally::{Tally, TallyError};

/// One delivery.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
    /// The event's bytes.
    pub event: &'a [u8],
}

/// What came in a partition so far.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// CRC-32 of the event at each offset from 0 on; its length is the next offset expected.
    digests: Vec<Option<u32>>,
}

/// The deliveries of one subscriber.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    partitions: BTreeMap<u32, Seen>,
    tally: Tally,
    /// How often each event (by a 64-bit hash of its bytes) came at an offset of its own.
    copies: HashMap<u64, u64>,
    delivered: u64,
    redelivered: u64,
    gaps: u64,
    changed: u64,
}

/// Most offsets one delivery may skip before the ledger refuses to keep book of them.
const SKIP_MAX: usize = 10_000_000;

impl Ledger {
    /// Takes a delivery in; the same offset again changes no total.
    pub fn take(&mut self, delivery: Delivery<'_>) -> Result<(), TallyError> {
        self.delivered += 1;
        let seen = self.partitions.entry(delivery.partition).or_default();
        let at = usize::try_from(delivery.offset).unwrap_or(usize::MAX);
        let digest = crc32fast::hash(delivery.event);
        match seen.digests.get(at).copied() {
            Some(Some(before)) => {
                self.redelivered += 1;
                self.changed += u64::from(before != digest);
                return Ok(());
            }
            // Late, into a gap: the order within the partition was broken; the gap stays counted.
            Some(None) => {}
            None => {
                let skipped = at - seen.digests.len();
                self.gaps += skipped as u64;
                if skipped < SKIP_MAX {
                    seen.digests.resize(at, None);
                }
                seen.digests.push(Some(digest));
            }
        }
        self.tally.add(delivery.event)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(delivery.event);
        *self.copies.entry(hasher.finish()).or_default() += 1;
        Ok(())
    }

    /// Totals without what came again.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Deliveries, those that came again included.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Deliveries of an offset that had come before.
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// Offsets that were skipped.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Events that are here more often than in `published`, counted once per extra copy.
    pub fn duplicates(&self, published: &Ledger) -> u64 {
        let extra = |(event, copies): (&u64, &u64)| {
            copies.saturating_sub(published.copies.get(event).copied().unwrap_or(0))
        };
        self.copies.iter().map(extra).sum()
    }

    /// Deliveries that came again with other bytes.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// Next offset of each partition that had a delivery.
    pub fn positions(&self) -> BTreeMap<u32, i64> {
        let next = |seen: &Seen| i64::try_from(seen.digests.len()).unwrap_or(i64::MAX);
        self.partitions.iter().map(|(partition, seen)| (*partition, next(seen))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::generator::Generator;

    fn events() -> Vec<Vec<u8>> {
        Generator::new(5).take(100).map(|o| serde_json::to_vec(&o).expect("JSON")).collect()
    }

    fn take(ledger: &mut Ledger, offset: i64, event: &[u8]) {
        ledger.take(Delivery { partition: 0, offset, event }).expect("an order");
    }

    #[test]
    fn what_comes_again_changes_no_total() {
        let events = events();
        let (mut once, mut twice) = (Ledger::default(), Ledger::default());
        for (offset, event) in (0..).zip(&events) {
            take(&mut once, offset, event);
            take(&mut twice, offset, event);
        }
        for (offset, event) in (60..).zip(&events[60..]) {
            take(&mut twice, offset, event);
        }
        assert_eq!(twice.tally(), once.tally());
        assert_eq!((twice.delivered(), twice.redelivered(), twice.gaps()), (140, 40, 0));
        take(&mut twice, 0, &events[1]);
        assert_eq!(twice.changed(), 1);
        assert_eq!(twice.positions(), BTreeMap::from([(0, 100)]));
    }

    #[test]
    fn a_second_copy_at_another_offset_is_a_duplicate() {
        let events = events();
        let (mut published, mut log) = (Ledger::default(), Ledger::default());
        for (offset, event) in (0..).zip(&events) {
            take(&mut published, offset, event);
            take(&mut log, offset, event);
        }
        assert_eq!(log.duplicates(&published), 0);
        take(&mut log, 100, &events[7]);
        assert_eq!((log.duplicates(&published), published.duplicates(&log)), (1, 0));
    }

    #[test]
    fn a_skipped_offset_is_a_gap() {
        let events = events();
        let mut ledger = Ledger::default();
        take(&mut ledger, 0, &events[0]);
        take(&mut ledger, 3, &events[3]);
        assert_eq!(ledger.gaps(), 2);
    }
}
