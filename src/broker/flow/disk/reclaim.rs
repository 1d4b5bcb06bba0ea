//! What goes when a disk is at HIGH: the oldest data of topics that said so themselves.
//!
//! Only topics with `on_full = drop_oldest` lose anything, the largest first; of a topic the
//! partition that holds most, its oldest sealed segment; nothing a protecting group has not read.
//! Decides only; whoever trims carries it out.
//!
//! # Invariants
//! No order reaches past what is protected, or past the last sealed segment. The plan frees what is
//! needed, or all that may go.

use std::collections::BinaryHeap;

use crate::types::{Offset, TopicPartition};

/// A topic that drops its oldest data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSpace {
    /// Its partitions.
    pub partitions: Vec<PartitionSpace>,
}

/// One partition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSpace {
    /// Which one.
    pub id: TopicPartition,
    /// All its bytes.
    pub bytes: u64,
    /// Its sealed segments, oldest first.
    pub sealed: Vec<Sealed>,
    /// From here on a group has not read; `None` = nobody protects it.
    pub protected: Option<Offset>,
}

/// A sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The offset after its last.
    pub next: Offset,
    /// Its bytes.
    pub bytes: u64,
}

/// One order: everything before `to` may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimOrder {
    /// The partition.
    pub id: TopicPartition,
    /// Its new first offset.
    pub to: Offset,
    /// What that frees.
    pub bytes: u64,
}

/// What has to go so that `need` bytes are freed: at most one order per partition, in the order of
/// `topics`.
pub fn plan(topics: &[TopicSpace], need: u64) -> Vec<TrimOrder> {
    let mut states: Vec<_> = topics.iter().map(Progress::of).collect();
    let mut largest: BinaryHeap<(u64, std::cmp::Reverse<usize>)> = states
        .iter()
        .enumerate()
        .map(|(index, topic)| (topic.bytes, std::cmp::Reverse(index)))
        .collect();
    let mut freed = 0;
    while freed < need {
        let Some((_, std::cmp::Reverse(index))) = largest.pop() else { break };
        let Some(topic) = states.get_mut(index) else { break };
        if let Some(bytes) = topic.drop_one() {
            freed += bytes;
            largest.push((topic.bytes, std::cmp::Reverse(index)));
        }
    }
    states.iter().flat_map(Progress::orders).collect()
}

/// A topic of which some segments are already to go.
struct Progress<'a> {
    bytes: u64,
    partitions: Vec<Part<'a>>,
}

struct Part<'a> {
    space: &'a PartitionSpace,
    bytes: u64,
    dropped: usize,
}

impl Progress<'_> {
    fn of(topic: &TopicSpace) -> Progress<'_> {
        let part = |space| Part { space, bytes: space.bytes, dropped: 0 };
        Progress {
            bytes: topic.partitions.iter().map(|partition| partition.bytes).sum(),
            partitions: topic.partitions.iter().map(part).collect(),
        }
    }

    /// Lets one segment go; its bytes, or `None` when none may.
    fn drop_one(&mut self) -> Option<u64> {
        let may_go = self.partitions.iter_mut().filter(|part| part.next().is_some());
        let part = may_go.max_by_key(|part| part.bytes)?;
        let segment = part.next()?;
        part.dropped += 1;
        part.bytes = part.bytes.saturating_sub(segment.bytes);
        self.bytes = self.bytes.saturating_sub(segment.bytes);
        Some(segment.bytes)
    }

    fn orders(&self) -> impl Iterator<Item = TrimOrder> + '_ {
        self.partitions.iter().filter_map(|part| {
            let gone = part.space.sealed.get(..part.dropped)?;
            let bytes = gone.iter().map(|segment| segment.bytes).sum();
            Some(TrimOrder { id: part.space.id, to: gone.last()?.next, bytes })
        })
    }
}

impl Part<'_> {
    /// The oldest segment that is left, when it may go.
    fn next(&self) -> Option<Sealed> {
        let segment = *self.space.sealed.get(self.dropped)?;
        let free = self.space.protected.is_none_or(|protected| segment.next <= protected);
        free.then_some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionId, TopicId};
    use proptest::prelude::*;

    /// A topic of partitions with segments of ten records each and these sizes; one more byte each
    /// is active.
    fn topic(number: u128, partitions: &[(&[u64], Option<i64>)]) -> TopicSpace {
        let partition = |(index, (sizes, protected)): (u32, &(&[u64], Option<i64>))| {
            let segment = |(n, bytes): (i64, &u64)| Sealed { next: Offset(n * 10), bytes: *bytes };
            PartitionSpace {
                id: id(number, index),
                bytes: sizes.iter().sum::<u64>() + 1,
                sealed: (1..).zip(*sizes).map(segment).collect(),
                protected: protected.map(Offset),
            }
        };
        TopicSpace { partitions: (0..).zip(partitions).map(partition).collect() }
    }

    fn id(topic: u128, partition: u32) -> TopicPartition {
        let topic = TopicId(uuid::Uuid::from_u128(topic));
        TopicPartition { topic, partition: PartitionId(partition) }
    }

    fn order(topic: u128, partition: u32, to: i64, bytes: u64) -> TrimOrder {
        TrimOrder { id: id(topic, partition), to: Offset(to), bytes }
    }

    #[test]
    fn the_largest_topic_gives_until_it_is_no_longer() {
        let topics = [topic(1, &[(&[10, 10, 10], None)]), topic(2, &[(&[20, 20, 20], None)])];
        assert_eq!(plan(&topics, 20), [order(2, 0, 10, 20)]);
        assert_eq!(plan(&topics, 60), [order(1, 0, 20, 20), order(2, 0, 20, 40)]);
        assert_eq!(plan(&topics, 0), []);
    }

    #[test]
    fn of_a_topic_the_fullest_partition_goes_first_and_its_oldest_segment() {
        let topics = [topic(1, &[(&[10, 10], None), (&[15, 10], None)])];
        assert_eq!(plan(&topics, 1), [order(1, 1, 10, 15)]);
        assert_eq!(plan(&topics, 25), [order(1, 0, 10, 10), order(1, 1, 10, 15)]);
    }

    #[test]
    fn protected_data_stays_even_when_it_is_all_there_is() {
        let topics = [topic(1, &[(&[10, 10, 10], Some(20)), (&[10], Some(9))])];
        assert_eq!(plan(&topics, 1_000), [order(1, 0, 20, 20)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_plan_frees_what_is_needed_or_all_that_may_go(
            sizes in prop::collection::vec(
                prop::collection::vec((prop::collection::vec(1u64..50, 0..6), prop::option::of(0i64..70)), 1..4),
                0..5,
            ),
            need in 0u64..500,
        ) {
            let topics: Vec<_> = (0u128..).zip(&sizes).map(|(number, partitions)| {
                let parts: Vec<_> = partitions.iter().map(|(s, p)| (s.as_slice(), *p)).collect();
                topic(number, &parts)
            }).collect();
            let orders = plan(&topics, need);
            let freed: u64 = orders.iter().map(|order| order.bytes).sum();
            let parts = || topics.iter().flat_map(|topic| &topic.partitions);
            let may_go: u64 = parts()
                .flat_map(|p| p.sealed.iter().filter(|s| p.protected.is_none_or(|at| s.next <= at)))
                .map(|segment| segment.bytes)
                .sum();
            prop_assert!(freed >= need.min(may_go));
            prop_assert!(freed < need + 50, "not one segment too many");
            for order in orders {
                let part = parts().find(|part| part.id == order.id).expect("a known partition");
                prop_assert!(part.protected.is_none_or(|protected| order.to <= protected));
                prop_assert!(part.sealed.iter().any(|segment| segment.next == order.to));
            }
        }
    }
}
