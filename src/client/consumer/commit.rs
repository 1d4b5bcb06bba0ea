//! Committing what is processed, and finding what was committed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Consumer;
use super::membership::Membership;
use crate::client::{ClientError, CommitMode};
use crate::protocol::native::{group_commit, group_committed};
use crate::types::{ErrorCode, LeaderEpoch, Offset, TopicPartition};

/// Attempts while a heartbeat is about to bring the new epoch.
const STALE_ATTEMPTS: u32 = 40;
const STALE_WAIT: Duration = Duration::from_millis(50);

impl Consumer {
    /// Commits what is processed and not committed yet; nothing without a group.
    pub(super) async fn commit_processed(&mut self) -> Result<(), ClientError> {
        let Some(membership) = self.membership.clone() else { return Ok(()) };
        if let CommitMode::Auto { every } = self.options.commit {
            self.next_commit = Instant::now() + every;
        }
        let offsets: Vec<(TopicPartition, Offset)> = self
            .lanes
            .values()
            .filter(|lane| lane.committed.is_none_or(|committed| committed != lane.processed))
            .map(|lane| (lane.part, lane.processed))
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        for (part, offset) in self.send_commit(&membership, &offsets).await? {
            if let Some(lane) = self.lanes.get_mut(&part) {
                lane.committed = Some(offset);
            }
        }
        Ok(())
    }

    /// What of it was stored. A member that is none any more stores nothing, and learns it.
    async fn send_commit(
        &self,
        membership: &Arc<Membership>,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<Vec<(TopicPartition, Offset)>, ClientError> {
        let mut attempts = 0;
        loop {
            let (member_id, member_epoch) = membership.identity();
            let entry = |(part, offset): &(TopicPartition, Offset)| group_commit::CommitOffset {
                topic: part.topic,
                partition: part.partition,
                offset: *offset,
                leader_epoch: LeaderEpoch(-1),
                metadata: None,
            };
            let request = group_commit::Request {
                group: membership.group().clone(),
                member_id,
                member_epoch,
                offsets: offsets.iter().map(entry).collect(),
            };
            match self.core.call_again(&request).await {
                Ok(answer) => {
                    let stored = offsets.iter().zip(answer.results);
                    return Ok(stored.filter(|(_, r)| r.is_ok()).map(|(o, _)| *o).collect());
                }
                Err(error) if error.code() == ErrorCode::StaleMemberEpoch => {
                    attempts += 1;
                    if attempts >= STALE_ATTEMPTS {
                        return Err(error);
                    }
                    tokio::time::sleep(STALE_WAIT).await;
                }
                Err(error) if error.code() == ErrorCode::UnknownMember => {
                    membership.expelled();
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The group's offsets, partition by partition.
    pub(super) async fn committed(
        &self,
        membership: &Membership,
        parts: &[TopicPartition],
    ) -> Result<Vec<Option<Offset>>, ClientError> {
        let request = group_committed::Request {
            group: membership.group().clone(),
            member: None,
            partitions: Some(parts.to_vec()),
        };
        let answer = self.core.call_again(&request).await?;
        if answer.offsets.len() != parts.len() {
            return Err(ClientError::Protocol("offsets of other partitions".to_owned()));
        }
        Ok(answer.offsets.into_iter().map(|entry| entry.committed.map(|at| at.offset)).collect())
    }
}
