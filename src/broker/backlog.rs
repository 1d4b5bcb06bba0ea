//! What groups do to the topics they read: backlog limits hold producers back, `protect`
//! keeps retention from what is unread.
//!
//! # Promises
//! Both are in force before the broker is opened.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::core::Core;
use super::flow::{
    BacklogEdge, BacklogOptions, BacklogWatch, Backlogged, Cause, PartitionSeen, Past, Phase,
    TopicFlow,
};
use super::topic::Topic;
use crate::types::{Protect, Timestamp, TopicConfig, TopicId, TopicPartition};

/// The limits of all topics, and the topics that have any.
pub(super) struct Backlogs {
    core: Arc<Core>,
    watch: BacklogWatch,
    topics: Vec<Arc<Topic>>,
}

impl Backlogs {
    /// Puts everything in force.
    pub(super) fn begin(core: &Arc<Core>) -> Backlogs {
        let options = BacklogOptions::from(&core.options.flow);
        let watch = BacklogWatch::new(options, Arc::clone(core.flow.pressure.names()));
        let mut begun = Backlogs { core: Arc::clone(core), watch, topics: Vec::new() };
        begun.scan();
        begun.tick();
        begun
    }

    /// Looks at all of them. To be called every 100 ms: so late a limit follows what a group commits.
    pub(super) fn tick(&mut self) {
        let now = self.core.env.clock.monotonic();
        let topics = self.topics.iter().map(Arc::as_ref);
        let time = self.core.env.clock.now();
        for edge in self.watch.tick(topics, &self.core.board, now, time) {
            self.tell(&edge, time, now);
        }
        self.topics.iter().for_each(|topic| self.protect(topic, now));
    }

    /// Lets retention go as far as the slowest group that protects the topic.
    fn protect(&self, topic: &Topic, now: Duration) {
        let (board, idle_max) = (&self.core.board, self.core.options.flow.protect_idle());
        let groups = board.protecting(topic.id(), &topic.config_now().protect);
        for partition in topic.partitions().iter() {
            partition.protect(board.protected(partition.id(), &groups, idle_max, now));
        }
    }

    /// Finds topics with limits or protection. One that lost its last is looked at once more. To be
    /// called when settings or topics change.
    pub(super) fn scan(&mut self) {
        let known = std::mem::take(&mut self.topics);
        let is_limited = |topic: &Topic| {
            let config = topic.config_now();
            !config.backlog.is_empty() || config.protect != Protect::None
        };
        let was_limited = |topic: &Topic| known.iter().any(|other| other.id() == topic.id());
        let all = self.core.topics.now();
        let watched = all.iter().filter(|topic| is_limited(topic) || was_limited(topic));
        self.topics = watched.cloned().collect();
    }

    fn tell(&self, edge: &BacklogEdge, time: Timestamp, now: Duration) {
        let Some(topic) = self.core.topics.by_id(edge.topic) else { return };
        let (pressure, party, topic) = (&self.core.flow.pressure, &topic.flow.party, topic.name());
        let (group, lag) = (&edge.group, edge.progress.lag);
        let behind = format!("{} records, {} bytes, {:?}", lag.records, lag.bytes, lag.age);
        match (edge.from, edge.to) {
            (_, Phase::Binding) => {
                info!("group {group} is {behind} behind in {topic}: its producers wait for it");
            }
            (Phase::Armed | Phase::Binding, Phase::Released) => {
                let note = format!(
                    "group {group} has had no member for too long, {behind} behind: nobody waits for it any more"
                );
                warn!("{topic}: {note}");
                let cause = pressure.names().id(Cause::Backlog, group.as_str());
                pressure.released(party, cause, note, time, now);
            }
            (Phase::Binding, _) => info!("group {group} holds nobody back in {topic} any more"),
            _ => {}
        }
    }
}

impl Backlogged for Topic {
    fn id(&self) -> TopicId {
        Topic::id(self)
    }

    fn config(&self) -> Arc<TopicConfig> {
        Topic::config(self)
    }

    fn flow(&self) -> &TopicFlow {
        &self.flow
    }

    fn partitions(&self) -> Vec<PartitionSeen> {
        let partitions = Topic::partitions(self);
        let seen = partitions.iter().map(|partition| {
            let (start, end) = partition.span();
            PartitionSeen { part: partition.id(), start, end, bytes: partition.bytes() }
        });
        seen.collect()
    }

    fn history(&self, part: TopicPartition, time: Timestamp) -> Vec<Past> {
        let partition = self.partition(part.partition);
        partition.map(|partition| partition.past(time)).unwrap_or_default()
    }
}
