//! A round: decides what a handful of requests leads to. Works on copies of the groups it touches,
//! so that each request sees what those before it in the round decided, while the durable state
//! changes only when the round's records are committed and applied. A round whose records could
//! not be stored is simply forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::assign::assign;
use super::record::GroupRecord;
use super::sessions::{Key, Sessions};
use super::state::{Group, Groups, Member, Roster, apply_to};
use super::{GroupError, GroupOptions, TopicCatalog, TopicShape};
use crate::env::Rng;
use crate::types::{Assignor, GroupId, Timestamp, TopicName};

/// What a round needs besides the requests.
pub struct Surroundings<'a> {
    /// Limits.
    pub options: &'a GroupOptions,
    /// Topics as they are now.
    pub topics: &'a dyn TopicCatalog,
    /// For member ids.
    pub rng: &'a dyn Rng,
    /// Monotonic time.
    pub now: Duration,
    /// Wall clock, for what is told and kept; nothing is decided by it.
    pub time: Timestamp,
}

/// One round over the committed `groups`.
pub struct Round<'a> {
    pub(super) with: Surroundings<'a>,
    pub(super) sessions: &'a mut Sessions,
    committed: &'a Groups,
    staged: BTreeMap<GroupId, Option<Group>>,
    groups_new: usize,
    pub(super) offsets_new: usize,
    records: Vec<GroupRecord>,
}

impl<'a> Round<'a> {
    /// Begins a round.
    pub fn begin(
        committed: &'a Groups,
        sessions: &'a mut Sessions,
        with: Surroundings<'a>,
    ) -> Round<'a> {
        Round {
            with,
            sessions,
            committed,
            staged: BTreeMap::new(),
            groups_new: 0,
            offsets_new: 0,
            records: Vec::new(),
        }
    }

    /// What has to be committed, then applied, before any request of this round is answered.
    pub fn finish(self) -> Vec<GroupRecord> {
        self.records
    }

    /// Expels members whose deadline has come.
    pub fn expire(&mut self) {
        let again = self.with.now + self.with.options.session_timeout();
        let due = self.sessions.due(self.with.now, again);
        let mut touched = Vec::new();
        for key in due {
            if self.member(&key.0, &key.1).is_none() {
                self.sessions.drop_session(&key);
                continue;
            }
            let (group, member_id) = key;
            self.emit(GroupRecord::MemberLeft { group: group.clone(), member_id });
            if touched.last() != Some(&group) {
                touched.push(group);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for group in touched {
            self.roster_changed(&group);
        }
    }

    /// Looks at every group after a change of topics (and once after a start, when the catalog is
    /// complete): offsets of topics that are gone go too, subscribers get new targets.
    pub fn topics_changed(&mut self) {
        let mut groups: Vec<GroupId> = self.committed.iter().map(|(id, _)| id.clone()).collect();
        groups.extend(self.staged.keys().cloned());
        groups.sort_unstable();
        groups.dedup();
        for id in groups {
            let Some(group) = self.group(&id) else { continue };
            let topics: Vec<_> = group.offset_topics().collect();
            let stale = !group.roster().members.is_empty() && self.topics_moved(group.roster());
            for topic in topics {
                if self.with.topics.topic_by_id(topic).is_none() {
                    self.emit(GroupRecord::TopicForgotten { group: id.clone(), topic });
                }
            }
            if stale {
                self.roster_changed(&id);
            } else if self.group(&id).is_some_and(Group::is_void) {
                self.emit(GroupRecord::GroupDeleted { group: id });
            }
        }
    }

    pub(super) fn committed(&self) -> &'a Groups {
        self.committed
    }

    pub(super) fn group(&self, id: &GroupId) -> Option<&Group> {
        match self.staged.get(id) {
            Some(staged) => staged.as_ref(),
            None => self.committed.group(id),
        }
    }

    pub(super) fn member(&self, id: &GroupId, member_id: &str) -> Option<&Arc<Member>> {
        self.group(id)?.roster().members.get(member_id)
    }

    /// Adds a record and applies it to the round's copy of the group.
    pub(super) fn emit(&mut self, record: GroupRecord) {
        let id = record.group().clone();
        let committed = self.committed;
        let slot = self.staged.entry(id).or_insert_with_key(|id| committed.group(id).cloned());
        let was_there = slot.is_some();
        apply_to(slot, &record);
        self.groups_new += usize::from(!was_there && slot.is_some());
        self.records.push(record);
    }

    /// The group exists after this, be it as an empty one.
    pub(super) fn ensure_group(&mut self, id: &GroupId) -> Result<(), GroupError> {
        if self.group(id).is_some() {
            return Ok(());
        }
        let max = self.with.options.groups_max;
        if self.committed.len() + self.groups_new >= max as usize {
            return Err(GroupError::Limit { limit: "groups_max", max });
        }
        self.emit(GroupRecord::Epoch {
            group: id.clone(),
            epoch: 0,
            assignor: Assignor::default(),
            topics: Vec::new(),
        });
        Ok(())
    }

    /// Members, subscriptions or topics changed: a new epoch with new targets, or the end of a
    /// group of which nothing is left.
    pub(super) fn roster_changed(&mut self, id: &GroupId) {
        let Some(group) = self.group(id) else { return };
        if group.is_void() {
            self.emit(GroupRecord::GroupDeleted { group: id.clone() });
            return;
        }
        let roster = group.roster();
        let epoch = roster.epoch.saturating_add(1);
        let topics = self.shapes(roster);
        let assignor = majority(roster);
        self.emit(GroupRecord::Epoch { group: id.clone(), epoch, assignor, topics });
        let Some(group) = self.group(id) else { return };
        let roster = group.roster();
        let targets = assign(roster);
        let changed: Vec<_> = targets
            .into_iter()
            .filter(|(member, target)| {
                roster.members.get(member).is_some_and(|member| member.target != *target)
            })
            .collect();
        for (member_id, partitions) in changed {
            self.emit(GroupRecord::Target { group: id.clone(), member_id, partitions });
        }
        self.emit(GroupRecord::TargetEpoch { group: id.clone(), epoch });
    }

    /// Whether a subscribed topic came, went or grew since the epoch began.
    fn topics_moved(&self, roster: &Roster) -> bool {
        roster.members.values().any(|member| self.wants_moved(roster, &member.facts.topics))
    }

    pub(super) fn wants_moved(&self, roster: &Roster, topics: &[TopicName]) -> bool {
        topics.iter().any(|name| self.with.topics.topic(name) != roster.topics.get(name).copied())
    }

    fn shapes(&self, roster: &Roster) -> Vec<(TopicName, TopicShape)> {
        let mut shapes = BTreeMap::new();
        for name in roster.members.values().flat_map(|member| &member.facts.topics) {
            if !shapes.contains_key(name)
                && let Some(shape) = self.with.topics.topic(name)
            {
                shapes.insert(name.clone(), shape);
            }
        }
        shapes.into_iter().collect()
    }

    pub(super) fn touch(&mut self, key: &Key) {
        let silent_until = self.with.now + self.with.options.session_timeout();
        self.sessions.touch(key.clone(), silent_until);
    }
}

/// The assignor most members ask for; `Uniform` when nobody asks or it is a draw.
fn majority(roster: &Roster) -> Assignor {
    let wanted = roster.members.values().filter_map(|member| member.facts.assignor);
    let (mut uniform, mut range) = (0, 0);
    for assignor in wanted {
        match assignor {
            Assignor::Uniform => uniform += 1,
            Assignor::Range => range += 1,
        }
    }
    if range > uniform { Assignor::Range } else { Assignor::Uniform }
}
