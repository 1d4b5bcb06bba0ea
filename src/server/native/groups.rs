//! Consumer groups: the coordinator's words in the protocol's.

use std::sync::Arc;

use super::error::ToAnswer;
use super::link::Link;
use crate::broker::groups::{Commit, CommitOffset, FetchCommitted, Heartbeat, Mode, Reset};
use crate::protocol::native::{
    ErrorAnswer, group_commit, group_committed, group_delete, group_describe, group_heartbeat,
    group_list, group_reset,
};
use crate::types::TopicPartition;

pub(super) async fn heartbeat(
    link: Arc<Link>,
    request: group_heartbeat::Request,
) -> Result<group_heartbeat::Response, ErrorAnswer> {
    let client_id = match request.client_id.as_str() {
        "" => link.client_id(),
        name => name.into(),
    };
    let heartbeat = Heartbeat {
        group: request.group,
        member_id: request.member_id.into(),
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.map(Into::into),
        client_id,
        client_host: link.peer.ip().to_string().into(),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request.topics,
        assignor: request.assignor,
        owned: request.owned,
    };
    let group = heartbeat.group.clone();
    let answer = link.broker().groups().heartbeat(heartbeat).await;
    let answer = answer.map_err(|error| error.to_answer())?;
    if let Some(flow) = link.flow() {
        match answer.member_epoch < 0 {
            true => flow.leave(&group),
            false => flow.join(&group),
        }
    }
    let assigned = |(at, name): (TopicPartition, _)| group_heartbeat::Assigned {
        topic: at.topic,
        partition: at.partition,
        name,
    };
    Ok(group_heartbeat::Response {
        member_id: answer.member_id.to_string(),
        member_epoch: answer.member_epoch,
        heartbeat_interval_ms: answer.heartbeat_interval_ms,
        session_timeout_ms: answer.session_timeout_ms,
        assignment: answer.assignment.map(|list| list.into_iter().map(assigned).collect()),
    })
}

pub(super) async fn commit(
    link: Arc<Link>,
    request: group_commit::Request,
) -> Result<group_commit::Response, ErrorAnswer> {
    let asked: Vec<TopicPartition> = request.offsets.iter().map(partition).collect();
    let offsets = request.offsets.into_iter().map(|offset| CommitOffset {
        partition: partition(&offset),
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.map(Into::into),
    });
    let commit = Commit {
        group: request.group,
        member_id: request.member_id.into(),
        member_epoch: request.member_epoch,
        offsets: offsets.collect(),
    };
    let answer = link.broker().groups().commit(commit).await;
    let refused = answer.map_err(|error| error.to_answer())?.refused;
    let result = |at: TopicPartition| match refused.iter().find(|(which, _)| *which == at) {
        Some((_, error)) => Err(error.to_answer()),
        None => Ok(group_commit::Committed {}),
    };
    Ok(group_commit::Response { results: asked.into_iter().map(result).collect() })
}

fn partition(offset: &group_commit::CommitOffset) -> TopicPartition {
    TopicPartition { topic: offset.topic, partition: offset.partition }
}

pub(super) async fn committed(
    link: Arc<Link>,
    request: group_committed::Request,
) -> Result<group_committed::Response, ErrorAnswer> {
    let fetch = FetchCommitted {
        group: request.group,
        member: request.member.map(|(id, epoch)| (id.into(), epoch)),
        partitions: request.partitions,
    };
    let found = link.broker().groups().fetch_committed(fetch).await;
    let found = found.map_err(|error| error.to_answer())?;
    let entries = found.into_iter().map(|found| group_committed::CommittedEntry {
        topic: found.partition.topic,
        partition: found.partition.partition,
        committed: found.offset.map(|offset| group_committed::CommittedAt {
            offset,
            leader_epoch: found.leader_epoch,
            metadata: found.metadata.map(|text| text.to_string()),
        }),
    });
    Ok(group_committed::Response { offsets: entries.collect() })
}

pub(super) async fn describe(
    link: Arc<Link>,
    request: group_describe::Request,
) -> Result<group_describe::Response, ErrorAnswer> {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let described = link.broker().groups().describe(group).await;
        groups.push(described.map_err(|error| error.to_answer()));
    }
    Ok(group_describe::Response { groups })
}

pub(super) async fn list(
    link: Arc<Link>,
    _request: group_list::Request,
) -> Result<group_list::Response, ErrorAnswer> {
    let groups = link.broker().groups().list().await.map_err(|error| error.to_answer())?;
    Ok(group_list::Response { groups })
}

pub(super) async fn delete(
    link: Arc<Link>,
    request: group_delete::Request,
) -> Result<group_delete::Response, ErrorAnswer> {
    let deleted = link.broker().groups().delete(request.group, mode(request.dry_run)).await;
    deleted.map(|()| group_delete::Response {}).map_err(|error| error.to_answer())
}

pub(super) async fn reset(
    link: Arc<Link>,
    request: group_reset::Request,
) -> Result<group_reset::Response, ErrorAnswer> {
    let reset = Reset {
        group: request.group,
        topic: request.topic,
        partitions: request.partitions,
        to: request.to,
        at_time: Vec::new(), // the broker looks times up itself
        mode: mode(request.dry_run),
    };
    let moves = link.broker().groups().reset(reset).await.map_err(|error| error.to_answer())?;
    let moves = moves.into_iter().map(|moved| group_reset::Move {
        partition: moved.partition.partition,
        from: moved.before,
        to: moved.after,
    });
    Ok(group_reset::Response { moves: moves.collect() })
}

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Store }
}
