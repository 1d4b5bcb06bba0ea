//! Consumer groups through the facade: durable before they are answered, found again after a crash.

use std::sync::Arc;

use stoplog::broker::groups::{
    Commit, CommitOffset, EPOCH_JOIN, EPOCH_LEAVE, FetchCommitted, GroupError, Heartbeat,
    HeartbeatAnswer, Mode, Reset,
};
use stoplog::broker::{Broker, NewTopic, Topic};
use stoplog::env::sim::Fault;
use stoplog::types::{LeaderEpoch, Offset, OffsetReset, PartitionId, Timestamp, TopicPartition};

use crate::world::{World, batch, produce, run};

fn beat(member: &HeartbeatAnswer, owned: Option<Vec<TopicPartition>>) -> Heartbeat {
    Heartbeat {
        group: "email".parse().unwrap(),
        member_id: Arc::clone(&member.member_id),
        member_epoch: member.member_epoch,
        instance_id: None,
        client_id: "test".into(),
        client_host: "here".into(),
        rebalance_timeout_ms: 60_000,
        topics: Some(vec!["orders".parse().unwrap()]),
        assignor: None,
        owned,
    }
}

/// Joins and reports until the assignment has `partitions` partitions.
pub async fn join(broker: &Broker, partitions: usize) -> HeartbeatAnswer {
    let mut me = HeartbeatAnswer {
        member_id: "".into(),
        member_epoch: EPOCH_JOIN,
        heartbeat_interval_ms: 0,
        session_timeout_ms: 0,
        assignment: None,
    };
    let mut owned = Vec::new();
    for _ in 0..50 {
        me = broker.groups().heartbeat(beat(&me, Some(owned.clone()))).await.unwrap();
        if let Some(assignment) = &me.assignment {
            owned = assignment.iter().map(|(partition, _)| *partition).collect();
        }
        if owned.len() == partitions {
            return me;
        }
    }
    panic!("never assigned {partitions} partitions");
}

pub fn commit(topic: &Topic, member: Option<&HeartbeatAnswer>, offset: i64) -> Commit {
    Commit {
        group: "email".parse().unwrap(),
        member_id: member.map_or("".into(), |m| Arc::clone(&m.member_id)),
        member_epoch: member.map_or(-1, |m| m.member_epoch),
        offsets: vec![CommitOffset {
            partition: TopicPartition { topic: topic.id(), partition: PartitionId(0) },
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(-1),
            metadata: Some("note".into()),
        }],
    }
}

pub async fn leave(broker: &Broker, member: &HeartbeatAnswer) {
    let left = Heartbeat { member_epoch: EPOCH_LEAVE, ..beat(member, None) };
    broker.groups().heartbeat(left).await.unwrap();
}

async fn committed(broker: &Broker) -> Option<Offset> {
    let ask = FetchCommitted { group: "email".parse().unwrap(), member: None, partitions: None };
    broker.groups().fetch_committed(ask).await.unwrap().first().and_then(|found| found.offset)
}

async fn orders(broker: &Broker, partitions: u32) -> Arc<Topic> {
    let new = NewTopic::new("orders".parse().unwrap(), partitions);
    broker.create_topic(new).await.unwrap()
}

#[test]
fn a_commit_that_was_answered_survives_a_power_cut() {
    for seed in 0..8 {
        run(async {
            let world = World::new();
            let broker = world.open().await;
            let topic = orders(&broker, 2).await;
            let me = join(&broker, 2).await;
            for offset in 1..=20 {
                let answer = broker.groups().commit(commit(&topic, Some(&me), offset)).await;
                assert!(answer.unwrap().refused.is_empty());
            }
            let after = world.crash(seed);
            let broker = after.open().await;
            assert_eq!(committed(&broker).await, Some(Offset(20)));
            let group = broker.groups().describe("email".parse().unwrap()).await.unwrap();
            assert_eq!(group.members.len(), 1, "members get a full session to report again");
            let again = broker.groups().heartbeat(beat(&me, None)).await.unwrap();
            assert_eq!(again.member_id, me.member_id);
        });
    }
}

#[test]
fn a_commit_that_was_not_stored_is_not_seen() {
    run(async {
        let world = World::new();
        let broker = world.open().await;
        let topic = orders(&broker, 1).await;
        broker.groups().commit(commit(&topic, None, 5)).await.unwrap();
        world.disk.fail_from(0, Fault::SyncFailed);
        let refused = broker.groups().commit(commit(&topic, None, 6)).await.unwrap_err();
        assert!(matches!(refused, GroupError::NotStored { .. }), "{refused}");
        world.disk.clear_fault();
        assert_eq!(committed(&broker).await, Some(Offset(5)), "reads go on");
    });
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, 1).await;
        broker.groups().commit(commit(&topic, None, 5)).await.unwrap();
        broker.delete_topic(topic.name()).await.unwrap();
        for _ in 0..1_000 {
            if committed(&broker).await.is_none() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("the offsets stay");
    });
}

#[test]
fn a_reset_by_time_looks_into_the_log() {
    run(async {
        let broker = World::new().open().await;
        let topic = orders(&broker, 1).await;
        produce(&broker, &topic, 0, batch(&["a", "b", "c", "d"])).await.unwrap();
        broker.groups().commit(commit(&topic, None, 4)).await.unwrap();
        let mut reset = Reset {
            group: "email".parse().unwrap(),
            topic: topic.name().clone(),
            partitions: None,
            to: OffsetReset::AtTime(Timestamp(1_002)),
            at_time: Vec::new(),
            mode: Mode::DryRun,
        };
        let told = broker.groups().reset(reset.clone()).await.unwrap();
        assert_eq!((told[0].before, told[0].after), (Some(Offset(4)), Offset(2)));
        assert_eq!(committed(&broker).await, Some(Offset(4)), "a dry run only tells");
        reset.mode = Mode::Store;
        broker.groups().reset(reset).await.unwrap();
        assert_eq!(committed(&broker).await, Some(Offset(2)));
    });
}
