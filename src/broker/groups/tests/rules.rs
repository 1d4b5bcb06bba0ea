//! Single rules.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Op, World, group_id};
use crate::broker::groups::{
    Commit, CommitOffset, EPOCH_JOIN, EPOCH_LEAVE, EPOCH_LEAVE_STATIC, FetchCommitted, GroupError,
    GroupRecord, Heartbeat, Mode, Reset, TopicCatalog,
};
use crate::types::{
    Assignor, GroupState, LeaderEpoch, Offset, OffsetReset, PartitionId, Timestamp, TopicName,
    TopicPartition,
};

fn orders() -> TopicName {
    "t0".parse().expect("valid")
}

fn heartbeat(member: &str, epoch: i32) -> Heartbeat {
    Heartbeat {
        group: group_id(),
        member_id: member.into(),
        member_epoch: epoch,
        instance_id: None,
        client_id: "test".into(),
        client_host: "127.0.0.1".into(),
        rebalance_timeout_ms: 4_000,
        topics: (epoch == EPOCH_JOIN).then(|| vec![orders()]),
        assignor: None,
        owned: None,
    }
}

fn join(world: &mut World, member: &str, instance: Option<&str>) -> (i32, Vec<TopicPartition>) {
    let request = Heartbeat {
        instance_id: instance.map(Arc::from),
        owned: Some(Vec::new()),
        ..heartbeat(member, EPOCH_JOIN)
    };
    let answer = world.round(true, |round| round.heartbeat(&request)).expect("joins");
    let parts = answer.assignment.unwrap_or_default().into_iter().map(|(part, _)| part);
    (answer.member_epoch, parts.collect())
}

fn part(world: &World, number: u32) -> TopicPartition {
    let shape = world.topics.topic(&orders()).expect("there");
    TopicPartition { topic: shape.id, partition: PartitionId(number) }
}

fn commit(world: &World, member: &str, epoch: i32, offsets: &[(u32, i64)]) -> Commit {
    let offset = |(number, offset): &(u32, i64)| CommitOffset {
        partition: part(world, *number),
        offset: Offset(*offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: Some("".into()),
    };
    Commit {
        group: group_id(),
        member_id: member.into(),
        member_epoch: epoch,
        offsets: offsets.iter().map(offset).collect(),
    }
}

fn fetch(world: &mut World) -> Vec<(u32, i64)> {
    let request = FetchCommitted { group: group_id(), member: None, partitions: None };
    let offsets = world.round(true, |round| round.fetch_committed(&request)).expect("allowed");
    let pair = |found: &crate::broker::groups::FetchedOffset| {
        (found.partition.partition.0, found.offset.expect("committed").0)
    };
    offsets.iter().map(pair).collect()
}

#[test]
fn a_lone_member_gets_everything_at_once_and_an_id() {
    let mut world = World::new(1);
    let answer =
        world.round(true, |round| round.heartbeat(&heartbeat("", EPOCH_JOIN))).expect("joins");
    assert_eq!(answer.member_id.len(), 32);
    assert_eq!(answer.assignment.map(|parts| parts.len()), Some(6));
    let described = world.round(true, |round| round.describe(&group_id())).expect("there");
    assert_eq!(described.state, GroupState::Stable);
    assert_eq!((described.offsets.len(), described.offsets[0].lag), (6, 90));
}

#[test]
fn a_restarted_instance_replaces_its_predecessor_at_once_and_keeps_its_partitions() {
    let mut world = World::new(1);
    let (epoch, before) = join(&mut world, "a", Some("email-1"));
    let (epoch_after, after) = join(&mut world, "b", Some("email-1"));
    assert_eq!((epoch, &before), (epoch_after, &after));
    assert_eq!(before.len(), 6);
    let old = Heartbeat { instance_id: Some("email-1".into()), ..heartbeat("a", epoch) };
    let refused = world.round(true, |round| round.heartbeat(&old));
    assert_eq!(refused, Err(GroupError::InstanceFenced { instance_id: "email-1".into() }));
    let stale = commit(&world, "a", epoch, &[(0, 20)]);
    let refused = world.round(true, |round| round.commit(&stale));
    assert_eq!(refused, Err(GroupError::UnknownMember { member_id: "a".into() }));
}

#[test]
fn a_static_member_that_left_for_a_while_is_waited_for() {
    let mut world = World::new(1);
    let (_, mine) = join(&mut world, "a", Some("one"));
    let away = Heartbeat { instance_id: Some("one".into()), ..heartbeat("a", EPOCH_LEAVE_STATIC) };
    world.round(true, |round| round.heartbeat(&away)).expect("allowed");
    world.pass(Duration::from_secs(5));
    assert_eq!(join(&mut world, "b", Some("one")).1, mine);
    let away = Heartbeat { member_id: "b".into(), ..away };
    world.round(true, |round| round.heartbeat(&away)).expect("allowed");
    world.pass(Duration::from_secs(10));
    assert!(world.groups.is_empty());
}

#[test]
fn the_last_one_out_ends_a_group_without_offsets_and_keeps_one_with() {
    let mut world = World::new(1);
    let (epoch, _) = join(&mut world, "a", None);
    let request = commit(&world, "a", epoch, &[(0, 20)]);
    assert_eq!(world.round(true, |r| r.commit(&request)).map(|a| a.refused.len()), Ok(0));
    world.round(true, |r| r.heartbeat(&heartbeat("a", EPOCH_LEAVE))).expect("leaves");
    assert_eq!(fetch(&mut world), [(0, 20)]);
    assert_eq!(world.round(true, |round| round.delete(&group_id(), Mode::DryRun)), Ok(()));
    assert_eq!(world.groups.len(), 1);
    assert_eq!(world.round(true, |round| round.delete(&group_id(), Mode::Store)), Ok(()));
    assert_eq!((world.groups.len(), world.groups.offsets_total()), (0, 0));
    join(&mut world, "b", None);
    let refused = world.round(true, |round| round.delete(&group_id(), Mode::Store));
    assert_eq!(refused, Err(GroupError::GroupNotEmpty { members: 1 }));
    world.round(true, |r| r.heartbeat(&heartbeat("b", EPOCH_LEAVE))).expect("leaves");
    assert!(world.groups.is_empty());
}

#[test]
fn commits_need_the_current_epoch_and_the_partition() {
    let mut world = World::new(1);
    let (first, _) = join(&mut world, "a", None);
    let (second, _) = join(&mut world, "b", None);
    assert!(second > first);
    let early = commit(&world, "a", second, &[(0, 20)]);
    let refused = world.round(true, |round| round.commit(&early));
    assert_eq!(refused, Err(GroupError::StaleMemberEpoch { expected: first, found: second }));
    // `b` waits until `a` lets go of something: nothing is its yet.
    let foreign = commit(&world, "b", second, &[(0, 20)]);
    let answer = world.round(true, |round| round.commit(&foreign)).expect("a member");
    assert_eq!(answer.refused.len(), 1);
    // A member may go back.
    for offset in [30, 20] {
        let mine = commit(&world, "a", first, &[(0, offset)]);
        assert_eq!(world.round(true, |r| r.commit(&mine)).map(|a| a.refused), Ok(vec![]));
    }
    let admin = commit(&world, "", -1, &[(0, 50)]);
    let refused = world.round(true, |round| round.commit(&admin));
    assert_eq!(refused, Err(GroupError::GroupNotEmpty { members: 2 }));
    assert_eq!(fetch(&mut world), [(0, 20)]);
}

#[test]
fn what_does_not_exist_is_refused_by_partition() {
    let mut world = World::new(1);
    let mut request = commit(&world, "", -1, &[(0, 20), (6, 20), (1, -1)]);
    request.offsets[2].metadata = None;
    let answer = world.round(true, |round| round.commit(&request)).expect("an empty group");
    let refused: Vec<u32> = answer.refused.iter().map(|(part, _)| part.partition.0).collect();
    assert_eq!(refused, [6, 1]);
    assert_eq!(fetch(&mut world), [(0, 20)]);
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_expelled() {
    let mut world = World::new(1);
    let (epoch, mine) = join(&mut world, "a", None);
    join(&mut world, "b", None);
    let stubborn = Heartbeat { owned: Some(mine), ..heartbeat("a", epoch) };
    for _ in 0..4 {
        let answer = world.round(true, |round| round.heartbeat(&stubborn)).expect("a member");
        assert_eq!(answer.assignment.map(|parts| parts.len()), Some(3));
        world.pass(Duration::from_secs(1));
    }
    let refused = world.round(true, |round| round.heartbeat(&stubborn));
    assert_eq!(refused, Err(GroupError::UnknownMember { member_id: "a".into() }));
}

#[test]
fn a_deleted_topic_takes_its_offsets_and_assignments_along() {
    let mut world = World::new(1);
    let (epoch, _) = join(&mut world, "a", None);
    let request = commit(&world, "a", epoch, &[(0, 20)]);
    world.round(true, |round| round.commit(&request)).expect("a member");
    world.topics.0.clear();
    world.round(true, |round| round.topics_changed());
    assert_eq!(fetch(&mut world), []);
    let beat = Heartbeat { owned: Some(Vec::new()), ..heartbeat("a", epoch) };
    let answer = world.round(true, |round| round.heartbeat(&beat)).expect("a member");
    assert_eq!((answer.member_epoch, answer.assignment), (epoch + 1, Some(vec![])));
}

#[test]
fn a_reset_is_clamped_and_a_dry_run_changes_nothing() {
    let mut world = World::new(1);
    let request = |to, mode| Reset {
        group: group_id(),
        topic: orders(),
        partitions: Some(vec![PartitionId(0)]),
        to,
        at_time: vec![(PartitionId(0), Offset(42))],
        mode,
    };
    let mut reset = |to, mode| {
        let moves = world.round(true, |round| round.reset(&request(to, mode))).expect("empty");
        moves[0].after.0
    };
    assert_eq!(reset(OffsetReset::Latest, Mode::DryRun), 100);
    assert_eq!(reset(OffsetReset::Shift(5), Mode::Store), 15);
    assert_eq!(reset(OffsetReset::Shift(5), Mode::Store), 20);
    assert_eq!(reset(OffsetReset::To(Offset(5)), Mode::DryRun), 10);
    assert_eq!(reset(OffsetReset::AtTime(crate::types::Timestamp(1)), Mode::DryRun), 42);
    assert_eq!(reset(OffsetReset::Shift(i64::MAX), Mode::DryRun), 100);
    assert_eq!(fetch(&mut world), [(0, 20)]);
    join(&mut world, "a", None);
    let refused = world.round(true, |r| r.reset(&request(OffsetReset::Earliest, Mode::Store)));
    assert_eq!(refused, Err(GroupError::GroupNotEmpty { members: 1 }));
}

#[test]
fn the_majority_chooses_the_assignor() {
    let mut world = World::new(1);
    join(&mut world, "a", None);
    for member in ["b", "c"] {
        let request =
            Heartbeat { assignor: Some(Assignor::Range), ..heartbeat(member, EPOCH_JOIN) };
        world.round(true, |round| round.heartbeat(&request)).expect("joins");
    }
    let roster = world.groups.group(&group_id()).expect("there").roster();
    assert_eq!(roster.assignor, Assignor::Range);
    let target: Vec<u32> = roster.members["b"].target.iter().map(|p| p.partition.0).collect();
    assert_eq!(target, [2, 3]);
}

#[test]
fn joining_and_leaving_moves_as_little_as_possible() {
    let mut world = World::new(1);
    world.grow(0, 24);
    let targets = |world: &World| -> Vec<(TopicPartition, Arc<str>)> {
        let roster = world.groups.group(&group_id()).expect("there").roster();
        let parts = |(id, member): (&Arc<str>, &Arc<crate::broker::groups::Member>)| {
            member.target.iter().map(|part| (part, id.clone())).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = roster.members.iter().flat_map(parts).collect();
        all.sort();
        all
    };
    let moved = |before: &[(TopicPartition, Arc<str>)], after: &[(TopicPartition, Arc<str>)]| {
        before.iter().zip(after).filter(|(old, new)| old.1 != new.1).count()
    };
    let mut before = Vec::new();
    for (count, member) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        join(&mut world, member, None);
        let after = targets(&world);
        assert_eq!(after.len(), 24);
        if count > 0 {
            assert_eq!(moved(&before, &after), 24 / (count + 1), "{} members", count + 1);
        }
        before = after;
    }
    let left = before.iter().filter(|(_, owner)| &**owner == "c").count();
    world.round(true, |r| r.heartbeat(&heartbeat("c", EPOCH_LEAVE))).expect("leaves");
    assert_eq!(moved(&before, &targets(&world)), left);
}

#[test]
fn limits_hold() {
    let mut world = World::new(1);
    world.options_mut().group_members_max = 1;
    world.options_mut().groups_max = 1;
    join(&mut world, "a", None);
    let refused = world.round(true, |round| round.heartbeat(&heartbeat("b", EPOCH_JOIN)));
    assert_eq!(refused, Err(GroupError::Limit { limit: "group_members_max", max: 1 }));
    let other = Heartbeat { group: "other".parse().expect("valid"), ..heartbeat("b", EPOCH_JOIN) };
    let refused = world.round(true, |round| round.heartbeat(&other));
    assert_eq!(refused, Err(GroupError::Limit { limit: "groups_max", max: 1 }));
}

#[test]
fn the_time_of_the_last_commit_is_kept_with_the_offsets() {
    let mut world = World::new(1);
    let told =
        |world: &World| world.groups.group(&group_id()).and_then(|group| group.committed_at());
    for second in [2, 5] {
        world.pass(Duration::from_secs(second));
        let request = commit(&world, "", -1, &[(0, 20)]);
        world.round(true, |round| round.commit(&request)).expect("an empty group");
    }
    assert_eq!(told(&world), Some(Timestamp(8_000)), "the clock of this world begins at 1 s");
    world.check_replay();
    world.run(&Op::Delete { topic: 0 });
    assert_eq!(told(&world), None);
    let old = GroupRecord::Offsets { group: group_id(), offsets: Vec::new() };
    world.groups.apply(&old);
    assert_eq!(told(&world), None, "nobody knows when");
}
