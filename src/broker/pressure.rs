//! Who is limited, and how groups keep up, as the tick of flow control looks at it.

use std::sync::PoisonError;
use std::time::Duration;

use super::core::{Core, Phase};
use super::flow::{GroupPace, ReadTopic};
use super::topic::Topic;
use crate::types::GroupId;

impl Core {
    /// Turns what limits now into causes and events.
    pub(super) fn tell_pressure(&self, now: Duration) {
        let states = self.flow.states(self.phase() != Phase::Running, now);
        self.flow.pressure.tick(&states, self.env.clock.now(), now);
    }

    /// Notes how far groups are behind, in time, and how fast they read.
    pub(super) fn look_at_groups(&self, now: Duration) {
        let topics = self.topics.now().sorted();
        let read: Vec<ReadTopic> = topics.iter().filter_map(|topic| read(self, topic)).collect();
        self.paces.lock().unwrap_or_else(PoisonError::into_inner).look(&read, now);
    }

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
