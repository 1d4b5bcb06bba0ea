//! How groups keep up: how far behind they are in time, and how many consumers they would need.
//!
//! A look every few seconds at what groups committed and where partitions end; nothing of it is on
//! the way of a batch.
//!
//! # Invariants
//! At most [`PARTITIONS_MAX`] partitions and [`GROUPS_MAX`] groups of a topic are followed: what
//! comes later is not told of.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::backlog::{GroupSeen, LagRing};
use super::report::desired_consumers;
use crate::types::{GroupId, Offset, TopicName, TopicPartition};

/// Partitions whose ends are remembered: 6 KiB each.
const PARTITIONS_MAX: usize = 2_048;
/// Groups, counted once for each topic they read: 300 bytes each.
const GROUPS_MAX: usize = 1_000;
/// Looks that rates are made of: a minute.
const LOOKS: usize = 13;

/// A topic that groups read, at one moment.
#[derive(Clone, Debug)]
pub struct ReadTopic {
    /// Its name.
    pub name: TopicName,
    /// Its partitions: where they end, and bytes in them.
    pub ends: Vec<(TopicPartition, Offset, u64)>,
    /// Groups that committed in it.
    pub readers: Vec<(GroupId, GroupSeen)>,
}

/// How one group keeps up with one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPace {
    /// The group.
    pub group: GroupId,
    /// The topic.
    pub topic: TopicName,
    /// Age of the first record it has not committed.
    pub lag: Duration,
    /// How many consumers it would need to keep up; `None` while nobody knows how fast they are.
    pub desired: Option<u64>,
}

/// Follows all groups.
#[derive(Debug, Default)]
pub struct Paces {
    ends: HashMap<TopicPartition, LagRing>,
    reads: HashMap<(GroupId, TopicName), VecDeque<Read>>,
    told: Vec<GroupPace>,
}

/// Sums over a topic's partitions at one look.
#[derive(Clone, Copy, Debug)]
struct Read {
    at: Duration,
    end: i64,
    committed: i64,
}

impl Paces {
    /// How often [`Paces::look`] is to be called.
    pub const LOOK_EVERY: Duration = Duration::from_secs(5);

    /// Takes what is so at `now`; what is not named any more is forgotten.
    pub fn look(&mut self, topics: &[ReadTopic], now: Duration) {
        let known: HashMap<_, _> =
            topics.iter().flat_map(|topic| &topic.ends).map(|(part, ..)| (*part, ())).collect();
        self.ends.retain(|part, _| known.contains_key(part));
        let mut told = Vec::new();
        let mut reads = HashMap::new();
        for topic in topics {
            for (part, end, bytes) in &topic.ends {
                if self.ends.len() < PARTITIONS_MAX || self.ends.contains_key(part) {
                    self.ends.entry(*part).or_default().note(now, *end, *bytes);
                }
            }
            for (group, seen) in &topic.readers {
                if reads.len() >= GROUPS_MAX {
                    break;
                }
                let key = (group.clone(), topic.name.clone());
                let mut looks = self.reads.remove(&key).unwrap_or_default();
                looks.push_back(sums(topic, seen, now));
                if looks.len() > LOOKS {
                    looks.pop_front();
                }
                told.push(GroupPace {
                    group: group.clone(),
                    topic: topic.name.clone(),
                    lag: self.lag(topic, seen, now),
                    desired: desired(&looks, seen.members),
                });
                reads.insert(key, looks);
            }
        }
        self.reads = reads;
        self.told = told;
    }

    /// What the last look found.
    pub fn told(&self) -> &[GroupPace] {
        &self.told
    }

    fn lag(&self, topic: &ReadTopic, seen: &GroupSeen, now: Duration) -> Duration {
        let age = |(part, ..): &(TopicPartition, Offset, u64)| {
            let committed = seen.offsets.get(part)?;
            Some(self.ends.get(part)?.lag(*committed, now).age)
        };
        topic.ends.iter().filter_map(age).max().unwrap_or_default()
    }
}

fn sums(topic: &ReadTopic, seen: &GroupSeen, at: Duration) -> Read {
    let mut read = Read { at, end: 0, committed: 0 };
    for (part, end, _) in &topic.ends {
        if let Some(committed) = seen.offsets.get(part) {
            read.end = read.end.saturating_add(end.0);
            read.committed = read.committed.saturating_add(committed.0);
        }
    }
    read
}

fn desired(looks: &VecDeque<Read>, members: u32) -> Option<u64> {
    let (first, last) = (looks.front()?, looks.back()?);
    let per_second = |from: i64, to: i64| {
        let ms = last.at.saturating_sub(first.at).as_millis().max(1);
        let moved = u128::try_from(to.saturating_sub(from)).unwrap_or(0);
        u64::try_from(moved * 1_000 / ms).unwrap_or(u64::MAX)
    };
    let ingest = per_second(first.end, last.end);
    let drained = per_second(first.committed, last.committed);
    let desired = desired_consumers(ingest, Some(drained), members)?;
    // Nothing comes in while the group itself holds producers back.
    let least = if last.committed < last.end { u64::from(members) } else { 0 };
    Some(desired.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionId, TopicId};

    fn part() -> TopicPartition {
        TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId(0) }
    }

    fn at(end: i64, committed: i64) -> Vec<ReadTopic> {
        let offsets = [(part(), Offset(committed))].into();
        let seen = GroupSeen { members: 2, offsets, rewinds: 0 };
        vec![ReadTopic {
            name: "orders".parse().expect("a name"),
            ends: vec![(part(), Offset(end), 0)],
            readers: vec![("email".parse().expect("a name"), seen)],
        }]
    }

    #[test]
    fn a_group_that_reads_a_fifth_lags_and_needs_five_times_its_members() {
        let mut paces = Paces::default();
        for look in 0..20 {
            let now = Duration::from_secs(5 * look);
            paces.look(&at(1_000 * look as i64, 200 * look as i64), now);
        }
        let told = &paces.told()[0];
        assert_eq!(told.desired, Some(10));
        // 19,000 records came, 3,800 are read: those of the first 19 seconds.
        assert_eq!(told.lag, Duration::from_secs(95 - 19));
        for look in 20..40 {
            paces.look(&at(19_000, 200 * look as i64), Duration::from_secs(5 * look));
        }
        assert_eq!(paces.told()[0].desired, Some(2), "nothing comes: perhaps it is held back");
        paces.look(&at(19_000, 19_000), Duration::from_secs(200));
        assert_eq!(paces.told()[0].lag, Duration::ZERO);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_stands_still_is_not_guessed() {
        let mut paces = Paces::default();
        paces.look(&at(10, 0), Duration::from_secs(0));
        paces.look(&at(20, 0), Duration::from_secs(5));
        assert_eq!(paces.told()[0].desired, None, "nobody knows how fast it would be");
        paces.look(&[], Duration::from_secs(10));
        assert!(paces.told().is_empty() && paces.ends.is_empty() && paces.reads.is_empty());
    }
}
