//! What groups look like, and the end of one.

use std::collections::BTreeMap;

use super::record::GroupRecord;
use super::state::{Group, Member};
use super::{GroupError, Mode, Round};
use crate::types::{
    CommittedOffset, GroupDescription, GroupId, GroupListing, MemberDescription, PartitionId,
    TopicName, TopicPartition,
};

impl Round<'_> {
    /// All groups, by name, as they are committed.
    pub fn list(&self) -> Vec<GroupListing> {
        let listing = |(id, group): (&GroupId, &Group)| GroupListing {
            group: id.clone(),
            state: group.roster().state(),
            members: u32::try_from(group.roster().members.len()).unwrap_or(u32::MAX),
        };
        self.committed().iter().map(listing).collect()
    }

    /// One group with its members, its offsets and its lag.
    pub fn describe(&self, id: &GroupId) -> Result<GroupDescription, GroupError> {
        let group = self.found(id)?;
        let roster = group.roster();
        Ok(GroupDescription {
            group: id.clone(),
            state: roster.state(),
            epoch: roster.epoch,
            assignment_epoch: roster.target_epoch,
            assignor: roster.assignor,
            members: roster.members.values().map(|member| describe_member(member)).collect(),
            offsets: self.offsets_of(group),
        })
    }

    /// Forgets a group without members, and its offsets; or only says whether it would.
    pub fn delete(&mut self, id: &GroupId, mode: Mode) -> Result<(), GroupError> {
        let members = self.found(id)?.roster().members.len();
        if members > 0 {
            return Err(GroupError::GroupNotEmpty { members });
        }
        if mode == Mode::Store {
            self.emit(GroupRecord::GroupDeleted { group: id.clone() });
        }
        Ok(())
    }

    fn found(&self, id: &GroupId) -> Result<&Group, GroupError> {
        self.group(id).ok_or_else(|| GroupError::GroupNotFound { group: id.to_string() })
    }

    /// Committed partitions, and subscribed ones that never were.
    fn offsets_of(&self, group: &Group) -> Vec<CommittedOffset> {
        let mut offsets: BTreeMap<(TopicName, PartitionId), CommittedOffset> = BTreeMap::new();
        let subscribed = group.roster().topics.values().flat_map(|shape| {
            (0..shape.partitions)
                .map(|number| TopicPartition { topic: shape.id, partition: PartitionId(number) })
        });
        for part in subscribed.chain(group.offsets().map(|(part, _)| part)) {
            let Some((topic, _)) = self.with.topics.topic_by_id(part.topic) else { continue };
            let Some(span) = self.with.topics.span(part) else { continue };
            let committed = group.committed(part).map(|committed| committed.offset);
            let from = committed.map_or(span.start, |committed| committed.max(span.start));
            offsets.insert(
                (topic.clone(), part.partition),
                CommittedOffset {
                    topic,
                    partition: part.partition,
                    committed,
                    end: span.end,
                    lag: (span.end - from).max(0),
                },
            );
        }
        offsets.into_values().collect()
    }
}

fn describe_member(member: &Member) -> MemberDescription {
    let facts = &member.facts;
    MemberDescription {
        member_id: facts.member_id.to_string(),
        instance_id: facts.instance_id.as_ref().map(ToString::to_string),
        client_id: facts.client_id.to_string(),
        client_host: facts.client_host.to_string(),
        epoch: member.epoch,
        topics: facts.topics.clone(),
        owned: member.assigned.iter().chain(member.revoking.iter()).collect(),
        target: member.target.iter().collect(),
    }
}
