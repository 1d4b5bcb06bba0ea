//! What groups committed, for those who may not ask the coordinator: a copy of the few facts that
//! back pressure and retention need, changed by the same records.
//!
//! # Invariants
//! An offset is on the board only after its record is durable, so that nothing is ever protected
//! or admitted by a commit that a crash takes back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::broker::groups::GroupRecord;
use crate::types::{GroupId, Offset, TopicId, TopicPartition};

/// Facts about all groups.
#[derive(Debug, Default)]
pub struct Board(Mutex<HashMap<GroupId, Facts>>);

#[derive(Debug, Default)]
struct Facts {
    members: HashSet<Arc<str>>,
    topics: HashMap<TopicId, TopicFacts>,
    /// When it last committed or joined.
    active: Duration,
}

#[derive(Debug, Default)]
struct TopicFacts {
    offsets: BTreeMap<TopicPartition, Offset>,
    rewinds: u64,
}

/// One group and one topic, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSeen {
    /// Members it has.
    pub members: u32,
    /// Committed offsets.
    pub offsets: BTreeMap<TopicPartition, Offset>,
    /// How often an offset went back: resets and replays.
    pub rewinds: u64,
    /// When it last committed or joined; monotonic time.
    pub active: Duration,
}

impl Board {
    /// A durable record was applied; or, at the start, replayed, with `now` the time it was made
    /// as far as that is known.
    pub fn applied(&self, record: &GroupRecord, now: Duration) {
        match record {
            GroupRecord::Member { group, member } => {
                self.join(group, Arc::clone(&member.member_id), now);
            }
            GroupRecord::MemberReplaced { group, predecessor, member } => {
                self.leave(group, predecessor);
                self.join(group, Arc::clone(&member.member_id), now);
            }
            GroupRecord::MemberAway { group, member_id }
            | GroupRecord::MemberLeft { group, member_id } => self.leave(group, member_id),
            GroupRecord::Offsets { group, offsets } => {
                let offsets = offsets.iter().map(|(part, committed)| (*part, committed.offset));
                self.commit(group, offsets, now);
            }
            GroupRecord::TopicForgotten { group, topic } => {
                if let Some(facts) = self.groups().get_mut(group) {
                    facts.topics.remove(topic);
                }
            }
            GroupRecord::GroupDeleted { group } => {
                self.groups().remove(group);
            }
            GroupRecord::Epoch { .. }
            | GroupRecord::Target { .. }
            | GroupRecord::TargetEpoch { .. }
            | GroupRecord::Current { .. } => {}
        }
    }

    /// The group committed these offsets.
    pub fn commit(
        &self,
        group: &GroupId,
        offsets: impl IntoIterator<Item = (TopicPartition, Offset)>,
        now: Duration,
    ) {
        let mut groups = self.groups();
        let facts = groups.entry(group.clone()).or_default();
        facts.active = facts.active.max(now);
        for (part, offset) in offsets {
            let topic = facts.topics.entry(part.topic).or_default();
            if topic.offsets.insert(part, offset).is_some_and(|before| offset < before) {
                topic.rewinds += 1;
            }
        }
    }

    /// What is known of a group and a topic; nothing of both is nobody and no offsets.
    pub fn seen(&self, group: &GroupId, topic: TopicId) -> GroupSeen {
        let groups = self.groups();
        let Some(facts) = groups.get(group) else { return GroupSeen::default() };
        let of_topic = facts.topics.get(&topic);
        GroupSeen {
            members: u32::try_from(facts.members.len()).unwrap_or(u32::MAX),
            offsets: of_topic.map(|of| of.offsets.clone()).unwrap_or_default(),
            rewinds: of_topic.map_or(0, |of| of.rewinds),
            active: facts.active,
        }
    }

    /// Groups that committed something of a topic, by name.
    pub fn readers(&self, topic: TopicId) -> Vec<GroupId> {
        let groups = self.groups();
        let reads =
            |facts: &Facts| facts.topics.get(&topic).is_some_and(|of| !of.offsets.is_empty());
        let mut readers: Vec<_> =
            groups.iter().filter(|(_, facts)| reads(facts)).map(|(id, _)| id.clone()).collect();
        readers.sort();
        readers
    }

    /// The first offset that retention must keep for these groups, or `None` when none of them
    /// protects the partition. A group protects from its committed offset, while it has a member
    /// or was active within `idle_max`.
    pub fn protected(
        &self,
        part: TopicPartition,
        groups: &[GroupId],
        idle_max: Duration,
        now: Duration,
    ) -> Option<Offset> {
        let known = self.groups();
        let protecting = groups.iter().filter_map(|id| known.get(id)).filter(|facts| {
            !facts.members.is_empty() || now.saturating_sub(facts.active) <= idle_max
        });
        protecting
            .filter_map(|facts| facts.topics.get(&part.topic)?.offsets.get(&part))
            .min()
            .copied()
    }

    fn join(&self, group: &GroupId, member: Arc<str>, now: Duration) {
        let mut groups = self.groups();
        let facts = groups.entry(group.clone()).or_default();
        facts.members.insert(member);
        facts.active = facts.active.max(now);
    }

    fn leave(&self, group: &GroupId, member: &Arc<str>) {
        if let Some(facts) = self.groups().get_mut(group) {
            facts.members.remove(member);
        }
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<GroupId, Facts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::groups::{Committed, MemberFacts};
    use crate::types::{LeaderEpoch, PartitionId};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn group(name: &str) -> GroupId {
        name.parse().expect("a group")
    }

    fn part(topic: u8, partition: u32) -> TopicPartition {
        TopicPartition {
            topic: TopicId::from_bytes([topic; 16]),
            partition: PartitionId(partition),
        }
    }

    fn offsets(name: &str, part: TopicPartition, offset: i64) -> GroupRecord {
        let committed =
            Committed { offset: Offset(offset), leader_epoch: LeaderEpoch(-1), metadata: None };
        GroupRecord::Offsets { group: group(name), offsets: vec![(part, committed)] }
    }

    fn member(name: &str, member_id: &str) -> GroupRecord {
        let member = MemberFacts { member_id: member_id.into(), ..MemberFacts::default() };
        GroupRecord::Member { group: group(name), member }
    }

    #[test]
    fn members_and_offsets_follow_the_records() {
        let (board, email) = (Board::default(), group("email"));
        board.applied(&member("email", "a"), s(1));
        board.applied(&member("email", "a"), s(1));
        board.applied(&member("email", "b"), s(1));
        let left = GroupRecord::MemberLeft { group: email.clone(), member_id: "a".into() };
        board.applied(&left, s(2));
        board.applied(&offsets("email", part(1, 0), 10), s(3));
        let seen = board.seen(&email, part(1, 0).topic);
        assert_eq!((seen.members, seen.active, seen.rewinds), (1, s(3), 0));
        assert_eq!(seen.offsets, BTreeMap::from([(part(1, 0), Offset(10))]));
        assert_eq!(board.readers(part(1, 0).topic), std::slice::from_ref(&email));
        assert_eq!(board.readers(part(2, 0).topic), []);
        board.applied(&GroupRecord::GroupDeleted { group: email.clone() }, s(4));
        assert_eq!(board.seen(&email, part(1, 0).topic), GroupSeen::default());
    }

    #[test]
    fn an_offset_that_goes_back_is_a_rewind_of_that_topic_alone() {
        let (board, email) = (Board::default(), group("email"));
        for (topic, offset) in [(1, 10), (1, 20), (1, 5), (2, 7)] {
            board.applied(&offsets("email", part(topic, 0), offset), s(1));
        }
        let rewinds = |topic| board.seen(&email, part(topic, 0).topic).rewinds;
        assert_eq!((rewinds(1), rewinds(2)), (1, 0));
    }

    #[test]
    fn a_group_protects_while_it_has_a_member_or_was_active_lately() {
        let board = Board::default();
        let (slow, fast, gone) = (group("slow"), group("fast"), group("gone"));
        board.applied(&offsets("gone", part(1, 0), 1), s(0));
        board.applied(&offsets("slow", part(1, 0), 5), s(0));
        board.applied(&member("slow", "m"), s(0));
        board.applied(&offsets("fast", part(1, 0), 90), s(1_000));
        let all = [slow.clone(), fast.clone(), gone, group("never seen")];
        let protected = |groups: &[GroupId], now| board.protected(part(1, 0), groups, s(100), now);
        assert_eq!(protected(&all, s(50)), Some(Offset(1)));
        assert_eq!(protected(&all, s(1_050)), Some(Offset(5)));
        assert_eq!(protected(std::slice::from_ref(&fast), s(1_050)), Some(Offset(90)));
        assert_eq!(protected(std::slice::from_ref(&fast), s(2_000)), None);
        assert_eq!(board.protected(part(1, 7), &all, s(100), s(0)), None, "nothing committed");
    }
}
