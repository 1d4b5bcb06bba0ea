//! A set of partitions, kept by topic: four bytes a partition in a record instead of twenty.
//!
//! # Invariants
//! No topic is kept with an empty set, so that equal sets are equal values.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::types::{PartitionId, TopicId, TopicPartition};

/// Partitions of any number of topics, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionSet(BTreeMap<TopicId, BTreeSet<PartitionId>>);

impl PartitionSet {
    /// The empty set.
    pub fn new() -> PartitionSet {
        PartitionSet::default()
    }

    /// Adds one; false when it was there.
    pub fn insert(&mut self, part: TopicPartition) -> bool {
        self.0.entry(part.topic).or_default().insert(part.partition)
    }

    /// Takes one out; false when it was not there.
    pub fn remove(&mut self, part: TopicPartition) -> bool {
        let Some(parts) = self.0.get_mut(&part.topic) else { return false };
        let was_there = parts.remove(&part.partition);
        if parts.is_empty() {
            self.0.remove(&part.topic);
        }
        was_there
    }

    /// Whether it is in.
    pub fn contains(&self, part: TopicPartition) -> bool {
        self.0.get(&part.topic).is_some_and(|parts| parts.contains(&part.partition))
    }

    /// All of them, by topic id and partition.
    pub fn iter(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.0.iter().flat_map(|(topic, parts)| {
            parts.iter().map(|partition| TopicPartition { topic: *topic, partition: *partition })
        })
    }

    /// Topics of which at least one partition is in.
    pub fn topics(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.0.keys().copied()
    }

    /// The last partition of a topic.
    pub fn last_of(&self, topic: TopicId) -> Option<TopicPartition> {
        let partition = *self.0.get(&topic)?.last()?;
        Some(TopicPartition { topic, partition })
    }

    /// How many partitions.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are not in `other`.
    pub fn minus(&self, other: &PartitionSet) -> PartitionSet {
        self.iter().filter(|part| !other.contains(*part)).collect()
    }

    /// Those that are in both.
    pub fn and(&self, other: &PartitionSet) -> PartitionSet {
        self.iter().filter(|part| other.contains(*part)).collect()
    }

    /// Whether no partition is in both.
    pub fn is_disjoint(&self, other: &PartitionSet) -> bool {
        !self.iter().any(|part| other.contains(part))
    }
}

impl FromIterator<TopicPartition> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = TopicPartition>>(parts: I) -> PartitionSet {
        let mut set = PartitionSet::new();
        set.extend(parts);
        set
    }
}

impl Extend<TopicPartition> for PartitionSet {
    fn extend<I: IntoIterator<Item = TopicPartition>>(&mut self, parts: I) {
        for part in parts {
            self.insert(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(topic: u8, partition: u32) -> TopicPartition {
        TopicPartition {
            topic: TopicId::from_bytes([topic; 16]),
            partition: PartitionId(partition),
        }
    }

    #[test]
    fn an_emptied_topic_leaves_no_trace() {
        let mut set: PartitionSet = [part(1, 0), part(2, 7)].into_iter().collect();
        assert!(set.remove(part(2, 7)));
        assert!(!set.remove(part(2, 7)));
        assert_eq!(set, [part(1, 0)].into_iter().collect());
        assert_eq!(set.topics().count(), 1);
    }

    #[test]
    fn set_algebra() {
        let a: PartitionSet = [part(1, 0), part(1, 1), part(2, 0)].into_iter().collect();
        let b: PartitionSet = [part(1, 1), part(3, 0)].into_iter().collect();
        assert_eq!(a.and(&b), [part(1, 1)].into_iter().collect());
        assert_eq!(a.minus(&b), [part(1, 0), part(2, 0)].into_iter().collect());
        assert!(!a.is_disjoint(&b));
        assert!(a.minus(&b).is_disjoint(&b));
        assert_eq!((a.len(), PartitionSet::new().is_empty()), (3, true));
    }
}
