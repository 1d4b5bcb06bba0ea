//! The durable state of all groups and the one function that changes it: `apply(record)`, pure and
//! total. Deliberately absent: clocks, sessions, decisions.
//!
//! # Invariants
//! - A partition is assigned to, or being revoked from, at most one member of a group; `owners`
//!   says which.
//! - `target_epoch <= epoch`; a member's `epoch <= epoch`.
//! - A record that names a group or member which is not there changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{Committed, GroupRecord, MemberFacts};
use super::{PartitionSet, TopicShape};
use crate::types::{
    Assignor, GroupId, GroupState, PartitionId, Timestamp, TopicId, TopicName, TopicPartition,
};

/// Every group of the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    groups: BTreeMap<GroupId, Group>,
    offsets_total: usize,
}

impl Groups {
    /// Applies one committed record.
    pub fn apply(&mut self, record: &GroupRecord) {
        let id = record.group();
        let mut slot = self.groups.remove(id);
        let before = slot.as_ref().map_or(0, Group::offset_count);
        apply_to(&mut slot, record);
        let after = slot.as_ref().map_or(0, Group::offset_count);
        self.offsets_total = self.offsets_total - before + after;
        if let Some(group) = slot {
            self.groups.insert(id.clone(), group);
        }
    }

    /// The state as records: applied to an empty `Groups` they give this one.
    pub fn snapshot(&self) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (id, group) in &self.groups {
            group.snapshot(id, &mut records);
        }
        records
    }

    /// Back from a snapshot.
    pub fn restore(records: &[GroupRecord]) -> Groups {
        let mut groups = Groups::default();
        for record in records {
            groups.apply(record);
        }
        groups
    }

    /// One group.
    pub fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// All groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupId, &Group)> {
        self.groups.iter()
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Committed offsets of all groups together.
    pub fn offsets_total(&self) -> usize {
        self.offsets_total
    }
}

/// Offsets of one topic.
type TopicOffsets = BTreeMap<PartitionId, Committed>;

/// One group. Cloning is cheap and copies on write: a round of requests works on clones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    roster: Arc<Roster>,
    offsets: BTreeMap<TopicId, Arc<TopicOffsets>>,
    /// When some of `offsets` were last stored; `None` = not known.
    committed_at: Option<Timestamp>,
}

impl Group {
    /// Its members and what they own.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The committed offset of one partition.
    pub fn committed(&self, part: TopicPartition) -> Option<&Committed> {
        self.offsets.get(&part.topic)?.get(&part.partition)
    }

    /// All committed offsets, by topic id and partition.
    pub fn offsets(&self) -> impl Iterator<Item = (TopicPartition, &Committed)> {
        self.offsets.iter().flat_map(|(topic, offsets)| {
            offsets.iter().map(|(partition, committed)| {
                (TopicPartition { topic: *topic, partition: *partition }, committed)
            })
        })
    }

    /// How many offsets are committed.
    pub fn offset_count(&self) -> usize {
        self.offsets.values().map(|offsets| offsets.len()).sum()
    }

    /// Topics with committed offsets.
    pub fn offset_topics(&self) -> impl Iterator<Item = TopicId> + '_ {
        self.offsets.keys().copied()
    }

    /// When it last committed; `None` = never, or nobody knows.
    pub fn committed_at(&self) -> Option<Timestamp> {
        self.committed_at
    }

    /// Neither members nor offsets: nothing would be lost with it.
    pub fn is_void(&self) -> bool {
        self.roster.members.is_empty() && self.offsets.is_empty()
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Committed)]) {
        for (part, committed) in offsets {
            let topic = Arc::make_mut(self.offsets.entry(part.topic).or_default());
            topic.insert(part.partition, committed.clone());
        }
    }

    fn snapshot(&self, id: &GroupId, records: &mut Vec<GroupRecord>) {
        let roster = &self.roster;
        records.push(GroupRecord::Epoch {
            group: id.clone(),
            epoch: roster.epoch,
            assignor: roster.assignor,
            topics: roster.topics.iter().map(|(name, shape)| (name.clone(), *shape)).collect(),
        });
        for member in roster.members.values() {
            member.snapshot(id, records);
        }
        records.push(GroupRecord::TargetEpoch { group: id.clone(), epoch: roster.target_epoch });
        for (topic, offsets) in &self.offsets {
            let offsets = offsets.iter().map(|(partition, committed)| {
                (TopicPartition { topic: *topic, partition: *partition }, committed.clone())
            });
            let (group, offsets) = (id.clone(), offsets.collect());
            records.push(match self.committed_at {
                Some(at) => GroupRecord::OffsetsAt { group, at, offsets },
                None => GroupRecord::Offsets { group, offsets },
            });
        }
    }
}

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Bumped at every change of members, subscriptions or topics.
    pub epoch: i32,
    /// The group epoch the targets were made for.
    pub target_epoch: i32,
    /// How partitions are spread.
    pub assignor: Assignor,
    /// Subscribed topics that exist, as they were when the epoch began.
    pub topics: BTreeMap<TopicName, TopicShape>,
    /// By id.
    pub members: BTreeMap<Arc<str>, Arc<Member>>,
    /// Static names and who has them.
    pub instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Who holds, or still has to give up, a partition.
    pub owners: BTreeMap<TopicPartition, Arc<str>>,
}

impl Roster {
    /// The group's state, by KIP-848's names.
    pub fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.members.values().all(|member| member.is_settled(self.epoch)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    fn release(&mut self, id: &str) {
        let Some(member) = self.members.get(id) else { return };
        for part in member.assigned.iter().chain(member.revoking.iter()) {
            self.owners.remove(&part);
        }
    }

    fn take(&mut self, id: &Arc<str>, parts: &PartitionSet) {
        for part in parts.iter() {
            self.owners.insert(part, id.clone());
        }
    }

    fn enrol(&mut self, facts: &MemberFacts) {
        let id = &facts.member_id;
        let old = self.members.get(id);
        if let Some(name) = old.and_then(|old| old.facts.instance_id.clone()) {
            self.instances.remove(&name);
        }
        if let Some(name) = &facts.instance_id {
            self.instances.insert(name.clone(), id.clone());
        }
        let member = self.members.entry(id.clone()).or_default();
        let member = Arc::make_mut(member);
        member.facts = facts.clone();
        member.away = false;
    }

    fn strike(&mut self, id: &str) {
        self.release(id);
        let Some(member) = self.members.remove(id) else { return };
        if let Some(name) = &member.facts.instance_id
            && self.instances.get(name).is_some_and(|holder| &**holder == id)
        {
            self.instances.remove(name);
        }
    }

    fn replace(&mut self, predecessor: &str, facts: &MemberFacts) {
        let Some(old) = self.members.get(predecessor).cloned() else { return };
        self.strike(predecessor);
        self.enrol(facts);
        let id = facts.member_id.clone();
        self.take(&id, &old.assigned);
        self.take(&id, &old.revoking);
        if let Some(member) = self.members.get_mut(&id) {
            let facts = facts.clone();
            *Arc::make_mut(member) = Member { facts, away: false, ..(*old).clone() };
        }
    }

    fn settle(&mut self, id: &str, change: impl FnOnce(&mut Member)) {
        let Some((id, _)) = self.members.get_key_value(id) else { return };
        let id = id.clone();
        self.release(&id);
        if let Some(member) = self.members.get_mut(&id) {
            change(Arc::make_mut(member));
            let member = member.clone();
            self.take(&id, &member.assigned);
            self.take(&id, &member.revoking);
        }
    }
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// What it said about itself.
    pub facts: MemberFacts,
    /// A static member that left and is waited for.
    pub away: bool,
    /// The epoch it reached.
    pub epoch: i32,
    /// The one before.
    pub previous_epoch: i32,
    /// What it is to own.
    pub target: PartitionSet,
    /// What it may hold.
    pub assigned: PartitionSet,
    /// What it still holds and has to give up first.
    pub revoking: PartitionSet,
}

impl Member {
    /// Whether it owns exactly its target, in this epoch.
    pub fn is_settled(&self, group_epoch: i32) -> bool {
        self.epoch == group_epoch && self.revoking.is_empty() && self.assigned == self.target
    }

    /// Whether it holds the partition, be it to give it up.
    pub fn holds(&self, part: TopicPartition) -> bool {
        self.assigned.contains(part) || self.revoking.contains(part)
    }

    fn snapshot(&self, id: &GroupId, records: &mut Vec<GroupRecord>) {
        let member_id = self.facts.member_id.clone();
        records.push(GroupRecord::Member { group: id.clone(), member: self.facts.clone() });
        records.push(GroupRecord::Target {
            group: id.clone(),
            member_id: member_id.clone(),
            partitions: self.target.clone(),
        });
        records.push(GroupRecord::Current {
            group: id.clone(),
            member_id: member_id.clone(),
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            assigned: self.assigned.clone(),
            revoking: self.revoking.clone(),
        });
        if self.away {
            records.push(GroupRecord::MemberAway { group: id.clone(), member_id });
        }
    }
}

/// Applies a record to the group it names; `None` = there is no such group.
pub(super) fn apply_to(slot: &mut Option<Group>, record: &GroupRecord) {
    match record {
        GroupRecord::GroupDeleted { .. } => *slot = None,
        GroupRecord::Epoch { epoch, assignor, topics, .. } => {
            let roster = Arc::make_mut(&mut slot.get_or_insert_default().roster);
            roster.epoch = *epoch;
            roster.assignor = *assignor;
            roster.topics = topics.iter().cloned().collect();
        }
        record => {
            if let Some(group) = slot {
                apply_to_group(group, record);
            }
        }
    }
}

fn apply_to_group(group: &mut Group, record: &GroupRecord) {
    match record {
        GroupRecord::Offsets { offsets, .. } => group.commit(offsets),
        GroupRecord::OffsetsAt { at, offsets, .. } => {
            group.commit(offsets);
            group.committed_at = group.committed_at.max(Some(*at));
        }
        GroupRecord::TopicForgotten { topic, .. } => {
            group.offsets.remove(topic);
            group.committed_at = group.committed_at.filter(|_| !group.offsets.is_empty());
        }
        record => apply_to_roster(Arc::make_mut(&mut group.roster), record),
    }
}

fn apply_to_roster(roster: &mut Roster, record: &GroupRecord) {
    match record {
        GroupRecord::Member { member, .. } => roster.enrol(member),
        GroupRecord::MemberAway { member_id, .. } => {
            if let Some(member) = roster.members.get_mut(member_id) {
                Arc::make_mut(member).away = true;
            }
        }
        GroupRecord::MemberReplaced { predecessor, member, .. } => {
            roster.replace(predecessor, member);
        }
        GroupRecord::MemberLeft { member_id, .. } => roster.strike(member_id),
        GroupRecord::Target { member_id, partitions, .. } => {
            if let Some(member) = roster.members.get_mut(member_id) {
                Arc::make_mut(member).target = partitions.clone();
            }
        }
        GroupRecord::TargetEpoch { epoch, .. } => roster.target_epoch = *epoch,
        GroupRecord::Current { member_id, epoch, previous_epoch, assigned, revoking, .. } => {
            roster.settle(member_id, |member| {
                member.epoch = *epoch;
                member.previous_epoch = *previous_epoch;
                member.assigned = assigned.clone();
                member.revoking = revoking.clone();
            });
        }
        GroupRecord::Epoch { .. }
        | GroupRecord::Offsets { .. }
        | GroupRecord::OffsetsAt { .. }
        | GroupRecord::TopicForgotten { .. }
        | GroupRecord::GroupDeleted { .. } => {}
    }
}
