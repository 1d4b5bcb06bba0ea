//! Every request of groups is answered as `docs/protocol.md` says.

use stoplog::protocol::native::{
    group_commit, group_committed, group_delete, group_describe, group_heartbeat, group_list,
    group_reset,
};
use stoplog::types::{
    ErrorCode, GroupId, LeaderEpoch, Offset, OffsetReset, PartitionId, TopicId, TopicPartition,
};

use super::peer::{Peer, Site, batch};

fn group() -> GroupId {
    "email".parse().expect("a name")
}

fn join() -> group_heartbeat::Request {
    group_heartbeat::Request {
        group: group(),
        member_id: String::new(),
        member_epoch: 0,
        instance_id: None,
        client_id: String::new(),
        rebalance_timeout_ms: 10_000,
        topics: Some(vec!["orders".parse().expect("a name")]),
        assignor: None,
        owned: Some(Vec::new()),
    }
}

/// Heartbeats until the member owns this many partitions.
pub async fn settle(peer: &mut Peer, partitions: usize) -> group_heartbeat::Response {
    let mut told = peer.call(&join()).await.expect("joined");
    let mut owned = Vec::new();
    for _ in 0..100 {
        if let Some(assignment) = &told.assignment {
            owned = assignment
                .iter()
                .map(|a| TopicPartition { topic: a.topic, partition: a.partition })
                .collect();
        }
        let next = group_heartbeat::Request {
            member_id: told.member_id.clone(),
            member_epoch: told.member_epoch,
            topics: None,
            owned: Some(owned.clone()),
            ..join()
        };
        told = peer.call(&next).await.expect("alive");
        if owned.len() == partitions && told.assignment.is_none() {
            return told;
        }
    }
    panic!("the member owns {owned:?}, not {partitions} partitions: {told:?}")
}

fn commit_at(topic: TopicId, offset: i64) -> group_commit::Request {
    let offset = group_commit::CommitOffset {
        topic,
        partition: PartitionId(0),
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: Some("m".to_owned()),
    };
    group_commit::Request {
        group: group(),
        member_id: String::new(),
        member_epoch: -1,
        offsets: vec![offset],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_joins_commits_and_leaves() {
    let site = Site::start().await;
    let topic = site.topic("orders", 3).await;
    let mut peer = site.peer().await;
    peer.produced((topic, 0), &batch(&[b"a", b"b"])).await.expect("produced");
    let member = settle(&mut peer, 3).await;
    assert!(member.heartbeat_interval_ms > 0 && member.session_timeout_ms > 0);

    let outsider = peer.call(&commit_at(topic, 1)).await.expect_err("members alone commit");
    assert_eq!(outsider.code, ErrorCode::GroupNotEmpty);
    let commit = group_commit::Request {
        member_id: member.member_id.clone(),
        member_epoch: member.member_epoch,
        ..commit_at(topic, 1)
    };
    let results = peer.call(&commit).await.expect("committed").results;
    assert_eq!(results, [Ok(group_commit::Committed {})]);

    let describe = group_describe::Request { groups: vec![group()] };
    let told = peer.call(&describe).await.expect("told").groups.remove(0).expect("it exists");
    assert_eq!((told.members.len(), told.members[0].client_id.as_str()), (1, "peer"));
    let offset = told.offsets.iter().find(|o| o.partition == PartitionId(0)).expect("committed");
    assert_eq!((offset.committed, offset.end, offset.lag), (Some(Offset(1)), Offset(2), 1));
    let listed = peer.call(&group_list::Request {}).await.expect("listed").groups;
    assert_eq!((listed.len(), listed[0].members), (1, 1));

    let delete = group_delete::Request { group: group(), dry_run: false };
    let refused = peer.call(&delete).await.expect_err("it has a member");
    assert_eq!(refused.code, ErrorCode::GroupNotEmpty);
    let leave = group_heartbeat::Request {
        member_id: member.member_id,
        member_epoch: -1,
        topics: None,
        owned: None,
        ..join()
    };
    peer.call(&leave).await.expect("left");

    let fetch = group_committed::Request { group: group(), member: None, partitions: None };
    let offsets = peer.call(&fetch).await.expect("told").offsets;
    let committed = offsets[0].committed.as_ref().expect("it outlives the member");
    assert_eq!((committed.offset, committed.metadata.as_deref()), (Offset(1), Some("m")));
    peer.call(&delete).await.expect("deleted");
    let told = peer.call(&describe).await.expect("told").groups.remove(0);
    assert_eq!(told.expect_err("it is gone").code, ErrorCode::GroupNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_are_moved_after_a_dry_run() {
    let site = Site::start().await;
    let topic = site.topic("orders", 1).await;
    let mut peer = site.peer().await;
    for value in [b"a", b"b", b"c"] {
        peer.produced((topic, 0), &batch(&[value])).await.expect("produced");
    }
    peer.call(&commit_at(topic, 3)).await.expect("an empty group takes anybody's commit");
    let reset = group_reset::Request {
        group: group(),
        topic: "orders".parse().expect("a name"),
        partitions: None,
        to: OffsetReset::Shift(-2),
        dry_run: true,
    };
    let fetch = group_committed::Request { group: group(), member: None, partitions: None };
    for (dry_run, after) in [(true, 3), (false, 1)] {
        let reset = group_reset::Request { dry_run, ..reset.clone() };
        let moves = peer.call(&reset).await.expect("told").moves;
        assert_eq!((moves[0].from, moves[0].to), (Some(Offset(3)), Offset(1)));
        let offsets = peer.call(&fetch).await.expect("told").offsets;
        assert_eq!(offsets[0].committed.as_ref().map(|c| c.offset), Some(Offset(after)));
    }
}
