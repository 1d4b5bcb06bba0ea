//! Rules of the tick, over topics that are nothing but numbers.

use std::cell::RefCell;

use super::*;
use crate::broker::flow::TopicFlow;
use crate::broker::flow::backlog::Side;
use crate::broker::groups::{Committed, GroupRecord, MemberFacts};
use crate::types::{LeaderEpoch, PartitionId, PushbackCode};

struct Topic {
    id: TopicId,
    flow: TopicFlow,
    config: RefCell<Arc<TopicConfig>>,
    end: RefCell<i64>,
}

impl Topic {
    fn new(backlog: &str) -> Topic {
        let topic = Topic {
            id: TopicId::from_bytes([1; 16]),
            flow: TopicFlow::new("orders".parse().expect("a topic")),
            config: RefCell::default(),
            end: RefCell::new(0),
        };
        topic.limit(backlog);
        topic
    }

    fn limit(&self, backlog: &str) {
        let mut config = TopicConfig::default();
        config.set("backlog", backlog).expect("a limit");
        *self.config.borrow_mut() = Arc::new(config);
    }

    fn part(&self) -> TopicPartition {
        TopicPartition { topic: self.id, partition: PartitionId(0) }
    }

    fn admit(&self, records: u64) -> Result<(), PushbackCode> {
        let admitted = self.flow.backlog.admit(records * 10, &|| records, |_| Side::Outside);
        admitted.map(drop).map_err(|told| told.code)
    }
}

impl Backlogged for Topic {
    fn id(&self) -> TopicId {
        self.id
    }

    fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.borrow())
    }

    fn flow(&self) -> &TopicFlow {
        &self.flow
    }

    fn partitions(&self) -> Vec<PartitionSeen> {
        let (part, end) = (self.part(), *self.end.borrow());
        vec![PartitionSeen { part, start: Offset(0), end: Offset(end), bytes: end as u64 * 10 }]
    }

    fn history(&self, _part: TopicPartition, _time: Timestamp) -> Vec<Past> {
        Vec::new()
    }
}

fn commit(board: &Board, topic: &Topic, offset: i64) {
    let (offset, leader_epoch) = (Offset(offset), LeaderEpoch(-1));
    let offsets = vec![(topic.part(), Committed { offset, leader_epoch, metadata: None })];
    let group = "email".parse().expect("a group");
    board.applied(&GroupRecord::OffsetsAt { group, at: Timestamp(0), offsets }, Duration::ZERO);
}

fn join(board: &Board) {
    let group = "email".parse().expect("a group");
    let member = MemberFacts { member_id: "m".into(), ..MemberFacts::default() };
    board.applied(&GroupRecord::Member { group, member }, Duration::ZERO);
}

fn world(backlog: &str) -> (Topic, Board, BacklogWatch) {
    let (topic, board) = (Topic::new(backlog), Board::default());
    let mut watch = BacklogWatch::new(BacklogOptions::default(), Arc::default());
    watch.tick::<Topic>([], &board, Duration::ZERO, Timestamp(0));
    join(&board);
    commit(&board, &topic, 0);
    (topic, board, watch)
}

#[test]
fn a_limit_binds_at_the_tick_that_sees_the_lag_and_says_so_once() {
    let (topic, board, mut watch) = world("email:records=100");
    let mut tick = |ms| watch.tick([&topic], &board, Duration::from_millis(ms), Timestamp(0));
    assert_eq!(tick(0).first().map(|edge| edge.to), Some(Phase::Armed));
    *topic.end.borrow_mut() = 100;
    let edges = tick(100);
    let told = edges.first().map(|edge| (edge.from, edge.to, edge.progress.lag.records));
    assert_eq!(told, Some((Phase::Armed, Phase::Binding, 100)));
    let limited = || topic.flow.party.meter().current().0.cause();
    assert_eq!(limited(), Some(Cause::Backlog), "nobody was refused yet");
    assert_eq!(topic.admit(1), Err(PushbackCode::BacklogLimit));
    assert_eq!(tick(200), []);
    commit(&board, &topic, 50);
    assert_eq!(tick(300).first().map(|edge| edge.to), Some(Phase::Armed));
    assert_eq!(limited(), None);
    assert_eq!((topic.admit(50), topic.flow.backlog.room_bytes()), (Ok(()), Some(500)));
}

#[test]
fn an_edit_keeps_the_machine_and_a_removed_limit_opens() {
    let (topic, board, mut watch) = world("email:records=100");
    let mut tick = |ms| watch.tick([&topic], &board, Duration::from_millis(ms), Timestamp(0));
    tick(0);
    *topic.end.borrow_mut() = 60;
    tick(100);
    topic.limit("email:records=50;fraud:bytes=1GiB");
    tick(200);
    assert_eq!(topic.admit(1), Err(PushbackCode::BacklogLimit), "armed before, so at once");
    topic.limit("none");
    tick(300);
    assert_eq!((topic.admit(1_000), topic.flow.backlog.room_bytes()), (Ok(()), None));
    topic.limit("email:records=50");
    tick(400);
    assert_eq!(topic.admit(1_000), Ok(()), "a new limit, and the group is behind it");
}

#[test]
fn what_was_limited_before_the_start_is_limited_at_once() {
    let (topic, board, _) = world("email:records=100");
    *topic.end.borrow_mut() = 100;
    commit(&board, &topic, 1);
    let mut watch = BacklogWatch::new(BacklogOptions::default(), Arc::default());
    watch.tick([&topic], &board, Duration::ZERO, Timestamp(0));
    assert_eq!((topic.admit(1), topic.admit(2)), (Ok(()), Err(PushbackCode::BacklogLimit)));
}
