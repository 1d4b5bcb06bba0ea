//! Looks at who is limited, and at how groups keep up, until the broker ends.

use std::sync::{Arc, PoisonError};

use tokio::time::MissedTickBehavior;

use super::core::{Core, Phase};
use super::flow::{GroupPace, Paces, Pressure, ReadTopic};
use super::topic::Topic;
use crate::types::GroupId;

/// Turns what limits now into causes and events.
pub(super) async fn follow_pressure(core: Arc<Core>) {
    let mut tick = tokio::time::interval(Pressure::TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (time, now) = (core.env.clock.now(), core.env.clock.monotonic());
        let states = core.flow.states(core.phase() != Phase::Running, now);
        core.flow.pressure.tick(&states, time, now);
    }
}

/// Notes how far groups are behind, in time, and how fast they read.
pub(super) async fn follow_groups(core: Arc<Core>) {
    loop {
        tokio::time::sleep(Paces::LOOK_EVERY).await;
        let topics = core.topics.now().sorted();
        let read: Vec<ReadTopic> = topics.iter().filter_map(|topic| read(&core, topic)).collect();
        let now = core.env.clock.monotonic();
        core.paces.lock().unwrap_or_else(PoisonError::into_inner).look(&read, now);
    }
}

impl Core {
    /// How groups kept up at the last look.
    pub(super) fn group_paces(&self) -> Vec<GroupPace> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner).told().to_vec()
    }
}

/// The topic as its groups see it; `None` when nobody commits in it.
fn read(core: &Core, topic: &Topic) -> Option<ReadTopic> {
    let readers = core.board.readers(topic.id());
    if readers.is_empty() {
        return None;
    }
    let seen = |group: GroupId| {
        let seen = core.board.seen(&group, topic.id());
        (group, seen)
    };
    let partitions = topic.partitions();
    let ends = partitions.iter().map(|part| (part.id(), part.span().1, part.bytes()));
    Some(ReadTopic {
        name: topic.name().clone(),
        ends: ends.collect(),
        readers: readers.into_iter().map(seen).collect(),
    })
}
