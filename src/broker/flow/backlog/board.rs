//! What groups committed, for those who may not ask the coordinator: a copy of the few facts that
//! back pressure and retention need, changed by the same records.
//!
//! # Invariants
//! An offset is on the board only after its record is durable, so that nothing is ever protected
//! or admitted by a commit that a crash takes back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::broker::groups::{Group, GroupRecord, Groups};
use crate::types::{GroupId, Offset, Protect, Timestamp, TopicId, TopicPartition};

/// Facts about all groups.
#[derive(Debug, Default)]
pub struct Board(Mutex<HashMap<GroupId, Facts>>);

#[derive(Debug, Default)]
struct Facts {
    members: HashSet<Arc<str>>,
    topics: HashMap<TopicId, TopicFacts>,
    /// When it last committed or joined, in milliseconds of the monotonic clock; before its zero
    /// for what was committed in an earlier life.
    active_ms: i64,
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
}

impl Board {
    /// The board at a start: `now` is `time` of the wall clock. A group of which nobody knows when
    /// it committed counts as if it did now.
    pub fn of(groups: &Groups, time: Timestamp, now: Duration) -> Board {
        let board = Board::default();
        for (id, group) in groups.iter() {
            let at = group.committed_at().unwrap_or(time);
            let age_ms = time.0.saturating_sub(at.0).max(0);
            board.copy(id, Some(group), millis(now).saturating_sub(age_ms));
        }
        board
    }

    /// Nobody knows how many of the group's last records were applied: its state says it.
    pub fn reread(&self, id: &GroupId, group: Option<&Group>, now: Duration) {
        self.copy(id, group, millis(now));
    }

    /// A durable record was applied.
    pub fn applied(&self, record: &GroupRecord, now: Duration) {
        let now = millis(now);
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
            GroupRecord::Offsets { group, offsets }
            | GroupRecord::OffsetsAt { group, offsets, .. } => {
                let offsets = offsets.iter().map(|(part, committed)| (*part, committed.offset));
                self.groups().entry(group.clone()).or_default().commit(offsets, now);
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

    /// What is known of a group and a topic; nothing of both is nobody and no offsets.
    pub fn seen(&self, group: &GroupId, topic: TopicId) -> GroupSeen {
        let groups = self.groups();
        let Some(facts) = groups.get(group) else { return GroupSeen::default() };
        let of_topic = facts.topics.get(&topic);
        GroupSeen {
            members: u32::try_from(facts.members.len()).unwrap_or(u32::MAX),
            offsets: of_topic.map(|of| of.offsets.clone()).unwrap_or_default(),
            rewinds: of_topic.map_or(0, |of| of.rewinds),
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

    /// The groups whose unread records a topic keeps.
    pub fn protecting(&self, topic: TopicId, protect: &Protect) -> Vec<GroupId> {
        match protect {
            Protect::None => Vec::new(),
            Protect::Groups { groups } => groups.clone(),
            Protect::AllGroups => self.readers(topic),
        }
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
        let since = millis(now).saturating_sub(millis(idle_max));
        let protecting = groups
            .iter()
            .filter_map(|id| known.get(id))
            .filter(|facts| !facts.members.is_empty() || facts.active_ms >= since);
        protecting
            .filter_map(|facts| facts.topics.get(&part.topic)?.offsets.get(&part))
            .min()
            .copied()
    }

    fn copy(&self, id: &GroupId, group: Option<&Group>, active_ms: i64) {
        let mut groups = self.groups();
        let Some(group) = group else {
            groups.remove(id);
            return;
        };
        let facts = groups.entry(id.clone()).or_default();
        let present = group.roster().members.iter().filter(|(_, member)| !member.away);
        facts.members = present.map(|(id, _)| Arc::clone(id)).collect();
        let topics: HashSet<TopicId> = group.offset_topics().collect();
        facts.topics.retain(|topic, _| topics.contains(topic));
        for topic in facts.topics.values_mut() {
            topic.offsets.retain(|part, _| group.committed(*part).is_some());
        }
        facts.active_ms = active_ms;
        facts.commit(group.offsets().map(|(part, at)| (part, at.offset)), active_ms);
    }

    fn join(&self, group: &GroupId, member: Arc<str>, now: i64) {
        let mut groups = self.groups();
        let facts = groups.entry(group.clone()).or_default();
        facts.members.insert(member);
        facts.active_ms = facts.active_ms.max(now);
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

impl Facts {
    fn commit(&mut self, offsets: impl IntoIterator<Item = (TopicPartition, Offset)>, now: i64) {
        self.active_ms = self.active_ms.max(now);
        for (part, offset) in offsets {
            let topic = self.topics.entry(part.topic).or_default();
            if topic.offsets.insert(part, offset).is_some_and(|before| offset < before) {
                topic.rewinds += 1;
            }
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::groups::{Committed, MemberFacts};
    use crate::types::{Assignor, LeaderEpoch, PartitionId};

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

    fn committed(part: TopicPartition, offset: i64) -> Vec<(TopicPartition, Committed)> {
        let (offset, leader_epoch) = (Offset(offset), LeaderEpoch(-1));
        vec![(part, Committed { offset, leader_epoch, metadata: None })]
    }

    fn offsets(name: &str, part: TopicPartition, offset: i64) -> GroupRecord {
        GroupRecord::OffsetsAt {
            group: group(name),
            at: Timestamp(0),
            offsets: committed(part, offset),
        }
    }

    fn at(record: GroupRecord, ms: i64) -> GroupRecord {
        match record {
            GroupRecord::OffsetsAt { group, offsets, .. } => {
                GroupRecord::OffsetsAt { group, at: Timestamp(ms), offsets }
            }
            other => other,
        }
    }

    fn epoch(name: &str) -> GroupRecord {
        let (group, assignor) = (group(name), Assignor::default());
        GroupRecord::Epoch { group, epoch: 1, assignor, topics: Vec::new() }
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
        assert_eq!((seen.members, seen.rewinds), (1, 0));
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

    #[test]
    fn a_start_knows_who_was_active_and_counts_the_unknown_as_now() {
        let groups = Groups::restore(&[
            epoch("old"),
            at(offsets("old", part(1, 0), 1), 1_000_000),
            epoch("late"),
            at(offsets("late", part(1, 0), 2), 9_000_000),
            epoch("unknown"),
            GroupRecord::Offsets { group: group("unknown"), offsets: committed(part(1, 0), 3) },
            epoch("joined"),
            at(offsets("joined", part(1, 0), 4), 0),
            member("joined", "m"),
        ]);
        let board = Board::of(&groups, Timestamp(10_000_000), s(5));
        let protects = |name| board.protected(part(1, 0), &[group(name)], s(1_000), s(5));
        assert_eq!(protects("old"), None, "9,000 seconds ago");
        assert_eq!(protects("late"), Some(Offset(2)), "1,000 seconds ago, before this process");
        assert_eq!((protects("unknown"), protects("joined")), (Some(Offset(3)), Some(Offset(4))));
        assert_eq!(board.seen(&group("joined"), part(1, 0).topic).members, 1);
    }

    #[test]
    fn a_group_that_is_reread_is_what_its_state_says() {
        let (board, email) = (Board::default(), group("email"));
        for (number, offset) in [(0, 10), (1, 20)] {
            board.applied(&offsets("email", part(1, number), offset), s(1));
        }
        board.applied(&offsets("email", part(2, 0), 5), s(1));
        board.applied(&member("email", "gone"), s(1));
        let records = [epoch("email"), offsets("email", part(1, 0), 7), member("email", "new")];
        let groups = Groups::restore(&records);
        board.reread(&email, groups.group(&email), s(2));
        let seen = board.seen(&email, part(1, 0).topic);
        assert_eq!((seen.members, seen.rewinds), (1, 1));
        assert_eq!(seen.offsets.get(&part(1, 0)), Some(&Offset(7)));
        assert_eq!(board.seen(&email, part(2, 0).topic).offsets, BTreeMap::new());
        board.reread(&email, None, s(3));
        assert_eq!(board.seen(&email, part(1, 0).topic), GroupSeen::default());
    }
}
