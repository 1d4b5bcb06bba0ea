//! How far a group has read: commit, fetch, reset. Commits are never refused for lack of room for
//! records or because the group rebalances; only a member that lost its partition is refused.

use std::collections::BTreeSet;

use super::record::{Committed, GroupRecord};
use super::{
    Commit, CommitAnswer, CommitOffset, FetchCommitted, FetchedOffset, GroupError, Mode, Reset,
    ResetOffset, Round,
};
use crate::types::{
    GroupId, LeaderEpoch, Offset, OffsetReset, PartitionId, TopicName, TopicPartition,
};

impl Round<'_> {
    /// Stores offsets. A member may store offsets of what it holds, also backwards; anybody may
    /// store offsets of a group without members.
    pub fn commit(&mut self, request: &Commit) -> Result<CommitAnswer, GroupError> {
        let max = self.with.options.request_partitions_max;
        if request.offsets.len() > max as usize {
            return Err(GroupError::Limit { limit: "request_partitions_max", max });
        }
        self.check_committer(request)?;
        let mut answer = CommitAnswer::default();
        let mut accepted = Vec::with_capacity(request.offsets.len());
        for offset in &request.offsets {
            match self.check_offset(request, offset, accepted.len()) {
                Ok(()) => accepted.push((offset.partition, committed(offset))),
                Err(refusal) => answer.refused.push((offset.partition, refusal)),
            }
        }
        if accepted.is_empty() {
            return Ok(answer);
        }
        self.ensure_group(&request.group)?;
        self.store(&request.group, accepted);
        Ok(answer)
    }

    fn check_committer(&self, request: &Commit) -> Result<(), GroupError> {
        if request.member_id.is_empty() || request.member_epoch < 0 {
            return self.check_empty(&request.group);
        }
        self.check_member(&request.group, &request.member_id, request.member_epoch)
    }

    fn check_member(&self, group: &GroupId, member_id: &str, found: i32) -> Result<(), GroupError> {
        let expected = self.known_member(group, member_id, None)?.epoch;
        match found == expected {
            true => Ok(()),
            false => Err(GroupError::StaleMemberEpoch { expected, found }),
        }
    }

    fn check_empty(&self, group: &GroupId) -> Result<(), GroupError> {
        match self.group(group).map_or(0, |group| group.roster().members.len()) {
            0 => Ok(()),
            members => Err(GroupError::GroupNotEmpty { members }),
        }
    }

    fn check_offset(
        &self,
        request: &Commit,
        offset: &CommitOffset,
        accepted: usize,
    ) -> Result<(), GroupError> {
        let invalid =
            |field, reason: &str| Err(GroupError::Invalid { field, reason: reason.to_owned() });
        self.check_partition(offset.partition)?;
        if offset.offset < Offset::ZERO {
            return invalid("offset", "below 0");
        }
        let metadata_max = self.with.options.metadata_bytes_max as usize;
        if offset.metadata.as_ref().is_some_and(|text| text.len() > metadata_max) {
            return invalid("metadata", "longer than metadata_bytes_max");
        }
        let group = self.group(&request.group);
        if let Some(member) = group.and_then(|g| g.roster().members.get(&request.member_id))
            && !member.holds(offset.partition)
        {
            // Another member may hold it by now; this one learns so by its next heartbeat.
            return Err(GroupError::StaleMemberEpoch {
                expected: member.epoch,
                found: request.member_epoch,
            });
        }
        let is_new = group.and_then(|group| group.committed(offset.partition)).is_none();
        let max = self.with.options.offsets_max;
        let total = self.committed().offsets_total() + self.offsets_new + accepted;
        if is_new && total >= max as usize {
            return Err(GroupError::Limit { limit: "offsets_max", max });
        }
        Ok(())
    }

    fn check_partition(&self, part: TopicPartition) -> Result<TopicName, GroupError> {
        let topic = part.topic.to_string();
        match self.with.topics.topic_by_id(part.topic) {
            None => Err(GroupError::TopicNotFound { topic }),
            Some((_, partitions)) if part.partition.0 >= partitions => {
                Err(GroupError::PartitionNotFound { topic, partition: part.partition.0 })
            }
            Some((name, _)) => Ok(name),
        }
    }

    fn store(&mut self, group: &GroupId, offsets: Vec<(TopicPartition, Committed)>) {
        let known = self.group(group).map_or(0, |group| group.offset_count());
        let at = self.with.time;
        self.emit(GroupRecord::OffsetsAt { group: group.clone(), at, offsets });
        let now = self.group(group).map_or(0, |group| group.offset_count());
        self.offsets_new += now.saturating_sub(known);
    }

    /// Reads committed offsets.
    pub fn fetch_committed(
        &self,
        request: &FetchCommitted,
    ) -> Result<Vec<FetchedOffset>, GroupError> {
        if let Some((member_id, epoch)) = &request.member {
            self.check_member(&request.group, member_id, *epoch)?;
        }
        let group = self.group(&request.group);
        let fetched = |partition, committed: Option<&Committed>| FetchedOffset {
            partition,
            offset: committed.map(|committed| committed.offset),
            leader_epoch: committed.map_or(LeaderEpoch(-1), |committed| committed.leader_epoch),
            metadata: committed.and_then(|committed| committed.metadata.clone()),
        };
        let max = self.with.options.request_partitions_max;
        match &request.partitions {
            Some(partitions) if partitions.len() > max as usize => {
                Err(GroupError::Limit { limit: "request_partitions_max", max })
            }
            Some(partitions) => {
                let find = |part| group.and_then(|group| group.committed(part));
                Ok(partitions.iter().map(|part| fetched(*part, find(*part))).collect())
            }
            None => {
                let all = group.into_iter().flat_map(|group| group.offsets());
                Ok(all.map(|(part, committed)| fetched(part, Some(committed))).collect())
            }
        }
    }

    /// Moves the offsets of a group without members, or tells what it would do.
    pub fn reset(&mut self, request: &Reset) -> Result<Vec<ResetOffset>, GroupError> {
        self.check_empty(&request.group)?;
        let not_found = || GroupError::TopicNotFound { topic: request.topic.to_string() };
        let shape = self.with.topics.topic(&request.topic).ok_or_else(not_found)?;
        let numbers: BTreeSet<PartitionId> = match &request.partitions {
            Some(partitions) => partitions.iter().copied().collect(),
            None => (0..shape.partitions).map(PartitionId).collect(),
        };
        let mut moves = Vec::with_capacity(numbers.len());
        for partition in numbers {
            let part = TopicPartition { topic: shape.id, partition };
            moves.push(self.reset_one(request, part)?);
        }
        if request.mode == Mode::Store && !moves.is_empty() {
            let max = self.with.options.offsets_max;
            let total = self.committed().offsets_total() + self.offsets_new;
            let new = moves.iter().filter(|offset| offset.before.is_none()).count();
            if new > 0 && total + new > max as usize {
                return Err(GroupError::Limit { limit: "offsets_max", max });
            }
            self.ensure_group(&request.group)?;
            let offsets = moves.iter().map(|offset| (offset.partition, plain(offset.after)));
            self.store(&request.group, offsets.collect());
        }
        Ok(moves)
    }

    fn reset_one(
        &self,
        request: &Reset,
        partition: TopicPartition,
    ) -> Result<ResetOffset, GroupError> {
        let span = self.with.topics.span(partition);
        let span = span.ok_or_else(|| GroupError::PartitionNotFound {
            topic: request.topic.to_string(),
            partition: partition.partition.0,
        })?;
        let group = self.group(&request.group);
        let before = group.and_then(|group| group.committed(partition)).map(|c| c.offset);
        let wanted = match request.to {
            OffsetReset::Earliest => span.start,
            OffsetReset::Latest => span.end,
            OffsetReset::To(offset) => offset,
            OffsetReset::Shift(by) => Offset(before.unwrap_or(span.start).0.saturating_add(by)),
            OffsetReset::AtTime(_) => {
                let mut found = request.at_time.iter();
                let found = found.find(|(number, _)| *number == partition.partition);
                found.map_or(span.end, |(_, offset)| *offset)
            }
        };
        let after = wanted.max(span.start).min(span.end.max(span.start));
        Ok(ResetOffset { partition, before, after })
    }
}

fn committed(offset: &CommitOffset) -> Committed {
    Committed {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.clone(),
    }
}

fn plain(offset: Offset) -> Committed {
    Committed { offset, leader_epoch: LeaderEpoch(-1), metadata: None }
}
