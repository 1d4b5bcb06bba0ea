//! How much of one connection's share each of its partitions holds, so that a partition that is
//! slow leaves the rest to the others.
//!
//! There are places for sixteen partitions at a time; a partition keeps its place while it has bytes
//! under way. With more of them at once none can hold much anyhow: those without a place are not
//! counted.
//!
//! # Invariants
//! A partition with a place holds at most the limit, or exactly one request.

use std::sync::atomic::{AtomicU64, Ordering};

const PLACES: usize = 16;
/// Of a place: the bytes; above them is the number of the partition.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

/// The lanes of one connection.
#[derive(Debug)]
pub(super) struct Lanes {
    limit: u64,
    places: [AtomicU64; PLACES],
}

/// A place in which bytes were taken, to be given back to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane(Option<usize>);

impl Lanes {
    pub(super) fn new(limit: u64) -> Lanes {
        Lanes { limit: limit.clamp(1, BYTES_MASK), places: Default::default() }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `bytes` for the partition of this number.
    ///
    /// # Errors
    /// What it holds.
    pub(super) fn take(&self, number: u32, bytes: u64) -> Result<Lane, u64> {
        let name = (u64::from(number) + 1) << BYTES_BITS & !BYTES_MASK;
        let home = number as usize;
        // Another thread may take the place that was found: then a last look decides.
        for _ in 0..2 {
            let Some((at, place)) = self.find(name, home) else { break };
            let fits = |was: u64| {
                let used = was & BYTES_MASK;
                let owner = was & !BYTES_MASK;
                let sum = used.saturating_add(bytes).min(BYTES_MASK);
                let room = used == 0 || (owner == name && sum <= self.limit);
                room.then_some(name | sum)
            };
            match place.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
                Ok(_) => return Ok(Lane(Some(at))),
                Err(was) if was & !BYTES_MASK == name => return Err(was & BYTES_MASK),
                Err(_) => {}
            }
        }
        Ok(Lane(None))
    }

    pub(super) fn give(&self, lane: Lane, bytes: u64) {
        if let Some(place) = lane.0.and_then(|at| self.places.get(at)) {
            place.fetch_sub(bytes.min(BYTES_MASK), Ordering::AcqRel);
        }
    }

    /// Its own place, or else an empty one.
    fn find(&self, name: u64, home: usize) -> Option<(usize, &AtomicU64)> {
        let mut empty = None;
        for step in 0..PLACES {
            let at = (home + step) % PLACES;
            let place = self.places.get(at)?;
            let now = place.load(Ordering::Relaxed);
            if now & !BYTES_MASK == name {
                return Some((at, place));
            }
            if now & BYTES_MASK == 0 && empty.is_none() {
                empty = Some((at, place));
            }
        }
        empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_holds_its_limit_or_one_request() {
        let lanes = Lanes::new(100);
        let large = lanes.take(7, 500).expect("alone");
        assert_eq!(lanes.take(7, 1).expect_err("it holds more than its limit"), 500);
        let other = lanes.take(23, 60).expect("another partition, though its home is the same");
        assert_eq!(lanes.take(23, 60).expect_err("beyond the limit"), 60);
        lanes.give(large, 500);
        let again = [lanes.take(7, 60), lanes.take(7, 40)].map(|lane| lane.expect("free again"));
        lanes.give(again[0], 60);
        lanes.give(again[1], 40);
        lanes.give(other, 60);
        assert!(lanes.places.iter().all(|place| place.load(Ordering::Relaxed) & BYTES_MASK == 0));
    }

    #[test]
    fn with_more_partitions_than_places_the_others_are_not_counted() {
        let lanes = Lanes::new(100);
        let held: Vec<_> =
            (0..20).map(|number| lanes.take(number, 90).expect("a first request")).collect();
        assert_eq!(held.iter().filter(|lane| lane.0.is_none()).count(), 4);
        let more = lanes.take(19, 90).expect("not counted");
        lanes.give(more, 90);
        assert_eq!(lanes.take(3, 90).expect_err("counted"), 90);
    }
}
