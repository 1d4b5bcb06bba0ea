//! Joining, staying and leaving.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::reconcile::{Report, step};
use super::record::{GroupRecord, MemberFacts};
use super::sessions::Key;
use super::state::Member;
use super::{
    EPOCH_JOIN, EPOCH_LEAVE, EPOCH_LEAVE_STATIC, GroupError, Heartbeat, HeartbeatAnswer,
    PartitionSet, Round,
};
use crate::types::{GroupId, TopicName, TopicPartition};

/// Longest text a member may say about itself: as the longest name.
const TEXT_BYTES_MAX: usize = 249;

impl Round<'_> {
    /// One heartbeat.
    pub fn heartbeat(&mut self, request: &Heartbeat) -> Result<HeartbeatAnswer, GroupError> {
        self.check(request)?;
        match request.member_epoch {
            EPOCH_JOIN => self.join(request),
            EPOCH_LEAVE => self.leave(request),
            EPOCH_LEAVE_STATIC => self.go_away(request),
            _ => self.stay(request),
        }
    }

    fn check(&self, request: &Heartbeat) -> Result<(), GroupError> {
        let invalid =
            |field, reason: &str| GroupError::Invalid { field, reason: reason.to_owned() };
        let options = self.with.options;
        let texts = [
            ("member_id", Some(&request.member_id)),
            ("instance_id", request.instance_id.as_ref()),
            ("client_id", Some(&request.client_id)),
            ("client_host", Some(&request.client_host)),
        ];
        for (field, text) in texts {
            if text.is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
                return Err(invalid(field, "longer than 249 bytes"));
            }
        }
        if request.instance_id.as_ref().is_some_and(|name| name.is_empty()) {
            return Err(invalid("instance_id", "empty"));
        }
        if request.topics.as_ref().is_some_and(|t| t.len() > options.member_topics_max as usize) {
            let max = options.member_topics_max;
            return Err(GroupError::Limit { limit: "member_topics_max", max });
        }
        let max = options.request_partitions_max;
        if request.owned.as_ref().is_some_and(|owned| owned.len() > max as usize) {
            return Err(GroupError::Limit { limit: "request_partitions_max", max });
        }
        match request.member_epoch {
            EPOCH_JOIN if request.topics.is_none() => Err(invalid("topics", "needed to join")),
            epoch if epoch < EPOCH_LEAVE_STATIC => Err(invalid("member_epoch", "below -2")),
            epoch if epoch != EPOCH_JOIN && request.member_id.is_empty() => {
                Err(invalid("member_id", "empty"))
            }
            _ => Ok(()),
        }
    }

    fn join(&mut self, request: &Heartbeat) -> Result<HeartbeatAnswer, GroupError> {
        let group = &request.group;
        let member_id = match &*request.member_id {
            "" => self.new_member_id(),
            _ => request.member_id.clone(),
        };
        let predecessor = self.holder(group, request).filter(|holder| **holder != *member_id);
        let known = self.member(group, &member_id).cloned();
        let mut facts = self.facts(request, known.as_deref());
        facts.member_id = member_id.clone();
        if let Some(predecessor) = predecessor {
            return self.take_over(request, &predecessor, facts);
        }
        if known.is_none() {
            self.check_room(group)?;
            self.ensure_group(group)?;
        }
        self.enrol(group, known.as_deref(), facts);
        // A member that is known already lost its answer or its memory; until it has confirmed
        // its epoch, what it may still hold is not given to others.
        self.settle(request, &member_id, Report::Unknown)
    }

    /// A static member's successor. Its predecessor is fenced from now on, and it holds nothing
    /// yet, so whatever had to be given up is.
    fn take_over(
        &mut self,
        request: &Heartbeat,
        predecessor: &Arc<str>,
        facts: MemberFacts,
    ) -> Result<HeartbeatAnswer, GroupError> {
        let group = &request.group;
        let member_id = facts.member_id.clone();
        if self.member(group, &member_id).is_some() {
            let reason = "in use by another member".to_owned();
            return Err(GroupError::Invalid { field: "member_id", reason });
        }
        let same_wants = self.member(group, predecessor).is_some_and(|old| {
            old.facts.topics == facts.topics && old.facts.assignor == facts.assignor
        });
        self.emit(GroupRecord::MemberReplaced {
            group: group.clone(),
            predecessor: predecessor.clone(),
            member: facts,
        });
        if !same_wants {
            self.roster_changed(group);
        }
        self.settle(request, &member_id, Report::Holds(&PartitionSet::new()))
    }

    fn stay(&mut self, request: &Heartbeat) -> Result<HeartbeatAnswer, GroupError> {
        let group = &request.group;
        let member =
            self.known_member(group, &request.member_id, request.instance_id.as_deref())?;
        let (epoch, previous) = (member.epoch, member.previous_epoch);
        let found = request.member_epoch;
        if found != epoch && found != previous {
            return Err(GroupError::StaleMemberEpoch { expected: epoch, found });
        }
        let facts = self.facts(request, Some(&member));
        self.enrol(group, Some(&member), facts);
        let owned = request.owned.as_ref().filter(|_| found == epoch);
        let owned: Option<PartitionSet> = owned.map(|parts| parts.iter().copied().collect());
        let report = owned.as_ref().map_or(Report::Unknown, Report::Holds);
        self.settle(request, &request.member_id, report)
    }

    fn leave(&mut self, request: &Heartbeat) -> Result<HeartbeatAnswer, GroupError> {
        let group = &request.group;
        self.known_member(group, &request.member_id, request.instance_id.as_deref())?;
        let member_id = request.member_id.clone();
        self.emit(GroupRecord::MemberLeft { group: group.clone(), member_id });
        self.roster_changed(group);
        Ok(self.farewell(request))
    }

    fn go_away(&mut self, request: &Heartbeat) -> Result<HeartbeatAnswer, GroupError> {
        let group = &request.group;
        let member =
            self.known_member(group, &request.member_id, request.instance_id.as_deref())?;
        if member.facts.instance_id.is_none() {
            let reason = "-2 is for members with an instance id".to_owned();
            return Err(GroupError::Invalid { field: "member_epoch", reason });
        }
        let member_id = request.member_id.clone();
        self.touch(&(group.clone(), member_id.clone()));
        self.emit(GroupRecord::MemberAway { group: group.clone(), member_id });
        Ok(self.farewell(request))
    }

    fn farewell(&self, request: &Heartbeat) -> HeartbeatAnswer {
        HeartbeatAnswer {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            session_timeout_ms: self.with.options.session_timeout_ms,
            assignment: None,
        }
    }

    /// The member of a request, which it must be, and still be.
    pub(super) fn known_member(
        &self,
        group: &GroupId,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<Arc<Member>, GroupError> {
        let roster = self.group(group).map(|group| group.roster());
        if let Some(name) = instance_id
            && let Some(holder) = roster.and_then(|roster| roster.instances.get(name))
            && **holder != *member_id
        {
            return Err(GroupError::InstanceFenced { instance_id: name.to_owned() });
        }
        let member = roster.and_then(|roster| roster.members.get(member_id)).cloned();
        member.ok_or_else(|| GroupError::UnknownMember { member_id: member_id.to_owned() })
    }

    fn holder(&self, group: &GroupId, request: &Heartbeat) -> Option<Arc<str>> {
        let name = request.instance_id.as_ref()?;
        self.group(group)?.roster().instances.get(name).cloned()
    }

    fn check_room(&self, group: &GroupId) -> Result<(), GroupError> {
        let max = self.with.options.group_members_max;
        match self.group(group) {
            Some(group) if group.roster().members.len() >= max as usize => {
                Err(GroupError::Limit { limit: "group_members_max", max })
            }
            _ => Ok(()),
        }
    }

    fn facts(&self, request: &Heartbeat, known: Option<&Member>) -> MemberFacts {
        let old = known.map(|member| &member.facts);
        let topics = match (&request.topics, old) {
            (Some(topics), _) => {
                let topics: BTreeSet<TopicName> = topics.iter().cloned().collect();
                topics.into_iter().collect()
            }
            (None, Some(old)) => old.topics.clone(),
            (None, None) => Vec::new(),
        };
        MemberFacts {
            member_id: request.member_id.clone(),
            instance_id: request
                .instance_id
                .clone()
                .or(old.and_then(|old| old.instance_id.clone())),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            rebalance_timeout_ms: self
                .with
                .options
                .rebalance_timeout_ms(request.rebalance_timeout_ms),
            topics,
            assignor: request.assignor.or(old.and_then(|old| old.assignor)),
        }
    }

    /// Records what is new about a member, and new targets where that or the topics call for them.
    fn enrol(&mut self, group: &GroupId, known: Option<&Member>, facts: MemberFacts) {
        let wants_same = known.is_some_and(|known| {
            known.facts.topics == facts.topics && known.facts.assignor == facts.assignor
        });
        // A round that was stored in part left an epoch without targets, or a member without an
        // epoch: made good here.
        let unfinished = known.is_some_and(|known| known.epoch == 0);
        let moved = self.group(group).map(|group| group.roster()).is_some_and(|roster| {
            roster.target_epoch != roster.epoch || self.wants_moved(roster, &facts.topics)
        });
        if known.is_none_or(|known| known.facts != facts || known.away) {
            self.emit(GroupRecord::Member { group: group.clone(), member: facts });
        }
        if !wants_same || moved || unfinished {
            self.roster_changed(group);
        }
    }

    /// Takes the member one step towards its target, and answers.
    fn settle(
        &mut self,
        request: &Heartbeat,
        member_id: &Arc<str>,
        report: Report<'_>,
    ) -> Result<HeartbeatAnswer, GroupError> {
        let group = &request.group;
        let missing = || GroupError::UnknownMember { member_id: member_id.to_string() };
        let roster = self.group(group).ok_or_else(missing)?.roster();
        let member = roster.members.get(member_id).ok_or_else(missing)?;
        if let Some(next) = step(member, report, roster.target_epoch, &roster.owners) {
            let same_epoch = next.epoch == member.epoch;
            self.emit(GroupRecord::Current {
                group: group.clone(),
                member_id: member_id.clone(),
                epoch: next.epoch,
                previous_epoch: if same_epoch { member.previous_epoch } else { member.epoch },
                assigned: next.assigned,
                revoking: next.revoking,
            });
        }
        self.arm(&(group.clone(), member_id.clone()));
        self.answer(request, member_id)
    }

    fn arm(&mut self, key: &Key) {
        self.touch(key);
        let Some(member) = self.member(&key.0, &key.1) else { return };
        if member.revoking.is_empty() {
            self.sessions.has_revoked(key);
        } else {
            let timeout = Duration::from_millis(member.facts.rebalance_timeout_ms.into());
            self.sessions.must_revoke(key, self.with.now + timeout);
        }
    }

    fn answer(
        &self,
        request: &Heartbeat,
        member_id: &Arc<str>,
    ) -> Result<HeartbeatAnswer, GroupError> {
        let missing = || GroupError::UnknownMember { member_id: member_id.to_string() };
        let roster = self.group(&request.group).ok_or_else(missing)?.roster();
        let member = roster.members.get(member_id).ok_or_else(missing)?;
        let told = request.member_epoch == member.epoch
            && request.owned.as_ref().is_some_and(|owned| holds_exactly(owned, &member.assigned));
        let options = self.with.options;
        let settled = member.is_settled(roster.epoch);
        Ok(HeartbeatAnswer {
            member_id: member_id.clone(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: match settled {
                true => options.heartbeat_interval_ms,
                false => options.reconcile_interval_ms,
            },
            session_timeout_ms: options.session_timeout_ms,
            assignment: (!told).then(|| self.named(&member.assigned)),
        })
    }

    fn named(&self, parts: &PartitionSet) -> Vec<(TopicPartition, TopicName)> {
        let names: BTreeMap<_, _> = parts
            .topics()
            .filter_map(|topic| Some((topic, self.with.topics.topic_by_id(topic)?.0)))
            .collect();
        let named = |part: TopicPartition| Some((part, names.get(&part.topic)?.clone()));
        parts.iter().filter_map(named).collect()
    }

    fn new_member_id(&self) -> Arc<str> {
        let (high, low) = (self.with.rng.next_u64(), self.with.rng.next_u64());
        format!("{high:016x}{low:016x}").into()
    }
}

fn holds_exactly(owned: &[TopicPartition], assigned: &PartitionSet) -> bool {
    owned.len() == assigned.len() && owned.iter().all(|part| assigned.contains(*part))
}
