//! The tick of all backlog limits: looks at the topics that have any, and moves their machines.
//!
//! # Invariants
//! - What was written is marked before ends and commits are looked at (see [`BacklogGauge::mark`]).
//! - A limit keeps its machine while its group is named: an edit opens no gate.
//! - While a limit binds, its topic is limited by it, whether or not anybody is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::board::Board;
use super::gauge::BacklogGauge;
use super::growth::Growth;
use super::machine::{Backlog, BacklogOptions, BacklogRules, Phase, Progress};
use crate::broker::flow::{Cause, Names, TopicFlow};
use crate::types::{
    BacklogAction, BacklogLimit, GroupId, Offset, Severity, Timestamp, TopicConfig, TopicId,
    TopicPartition,
};

/// A topic as its limits need to see it.
pub trait Backlogged {
    /// Which one.
    fn id(&self) -> TopicId;
    /// Its settings now.
    fn config(&self) -> Arc<TopicConfig>;
    /// Where its producers ask, and who is told of when they wait.
    fn flow(&self) -> &TopicFlow;
    /// Its partitions now, by number.
    fn partitions(&self) -> Vec<PartitionSeen>;
    /// What one of them held before anybody looked, at `time` of the wall clock: see
    /// [`super::LagRing::seed`].
    fn history(&self, part: TopicPartition, time: Timestamp) -> Vec<Past>;
}

/// One partition, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSeen {
    /// Which one.
    pub part: TopicPartition,
    /// Its first offset.
    pub start: Offset,
    /// The offset behind the last record that can be read.
    pub end: Offset,
    /// Bytes it stores.
    pub bytes: u64,
}

/// Where a partition ended some time ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// How long ago.
    pub age: Duration,
    /// Its end then.
    pub end: Offset,
    /// Bytes of the records before it that are still there.
    pub bytes: u64,
}

/// A change of what a limit does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogEdge {
    /// The topic.
    pub topic: TopicId,
    /// The group.
    pub group: GroupId,
    /// Before.
    pub from: Phase,
    /// After.
    pub to: Phase,
    /// What the group had not committed.
    pub progress: Progress,
}

/// The machines of all topics.
#[derive(Debug)]
pub struct BacklogWatch {
    options: BacklogOptions,
    names: Arc<Names>,
    topics: HashMap<TopicId, Watched>,
    /// Nothing was looked at yet: what there is was there before the start.
    starting: bool,
    period_ends: Duration,
}

#[derive(Debug, Default)]
struct Watched {
    partitions: HashMap<TopicPartition, Growth>,
    limits: Vec<(BacklogLimit, Backlog)>,
}

/// How long publishers count as asking.
const PERIOD: Duration = Duration::from_secs(1);

impl BacklogWatch {
    /// No topics yet. Those of the first tick were there before the start.
    pub fn new(options: BacklogOptions, names: Arc<Names>) -> BacklogWatch {
        let (topics, period_ends) = (HashMap::new(), Duration::ZERO);
        BacklogWatch { options, names, topics, starting: true, period_ends }
    }

    /// Looks at these topics; others, and those without limits, are forgotten.
    pub fn tick<'a, T: Backlogged + 'a>(
        &mut self,
        topics: impl IntoIterator<Item = &'a T>,
        board: &Board,
        now: Duration,
        time: Timestamp,
    ) -> Vec<BacklogEdge> {
        let mut known = std::mem::take(&mut self.topics);
        let new_period = now >= self.period_ends;
        if new_period {
            self.period_ends = now + PERIOD;
        }
        let mut edges = Vec::new();
        for topic in topics {
            let mut watched = known.remove(&topic.id()).unwrap_or_default();
            self.obey(&mut watched, topic);
            if watched.limits.is_empty() {
                watched.tell(topic.flow(), now);
                continue;
            }
            if new_period {
                topic.flow().backlog.begin_period();
            }
            edges.extend(watched.tick(topic, board, now, time));
            self.topics.insert(topic.id(), watched);
        }
        self.starting = false;
        edges
    }

    /// Brings the machines in line with the topic's settings.
    fn obey(&self, watched: &mut Watched, topic: &impl Backlogged) {
        let config = topic.config();
        let same = watched.limits.iter().map(|(limit, _)| limit).eq(&config.backlog);
        if same {
            return;
        }
        let mut old = std::mem::take(&mut watched.limits);
        for limit in &config.backlog {
            let kept = old.iter().position(|(known, _)| known.group == limit.group);
            let machine = match kept {
                Some(at) => {
                    let mut machine = old.swap_remove(at).1;
                    machine.set_rules(rules(limit), severity(limit));
                    machine
                }
                None => self.machine(limit),
            };
            watched.limits.push((limit.clone(), machine));
        }
        let gauges = watched.limits.iter().map(|(_, machine)| Arc::clone(machine.gauge()));
        topic.flow().backlog.set(gauges.collect());
    }

    fn machine(&self, limit: &BacklogLimit) -> Backlog {
        let cause = self.names.id(Cause::Backlog, limit.group.as_str());
        let gauge = BacklogGauge::new(limit.group.clone(), cause, severity(limit));
        let machine = Backlog::new(rules(limit), self.options, gauge);
        if self.starting { machine.resumed() } else { machine }
    }
}

impl Watched {
    fn tick(
        &mut self,
        topic: &impl Backlogged,
        board: &Board,
        now: Duration,
        time: Timestamp,
    ) -> Vec<BacklogEdge> {
        let marks: Vec<_> = self.limits.iter().map(|(_, limit)| limit.gauge().mark()).collect();
        let seen = topic.partitions();
        for partition in &seen {
            let growth = self.partitions.entry(partition.part);
            let growth =
                growth.or_insert_with(|| Growth::begin(&topic.history(partition.part, time), now));
            growth.note(partition, now);
        }
        let mut edges = Vec::new();
        for ((limit, machine), mark) in self.limits.iter_mut().zip(marks) {
            let group = board.seen(&limit.group, topic.id());
            let partitions = seen.iter().filter_map(|partition| {
                let growth = self.partitions.get(&partition.part)?;
                Some((partition.part, partition.start, growth.ring()))
            });
            let progress = Progress::of(&group, partitions, now);
            if let Some((from, to)) = machine.tick(now, mark, &progress) {
                let (topic, group) = (topic.id(), limit.group.clone());
                edges.push(BacklogEdge { topic, group, from, to, progress });
            }
        }
        self.tell(topic.flow(), now);
        edges
    }

    /// The topic is limited by the group that leaves it least room while any leaves none.
    fn tell(&self, topic: &TopicFlow, now: Duration) {
        let binding = self.limits.iter().filter(|(_, limit)| limit.phase() == Phase::Binding);
        let gauges = binding.map(|(_, limit)| limit.gauge());
        match gauges.min_by_key(|gauge| gauge.room_bytes()) {
            Some(gauge) => topic.party.held(gauge.cause(), gauge.numbers(now), now),
            None if topic.party.is_state() => topic.party.free_of(Cause::Backlog, now),
            None => {} // a refusal ends by an admission
        }
    }
}

fn rules(limit: &BacklogLimit) -> BacklogRules {
    let age = limit.seconds.map(Duration::from_secs);
    BacklogRules { records: limit.records, bytes: limit.bytes, age }
}

fn severity(limit: &BacklogLimit) -> Severity {
    match limit.action {
        BacklogAction::Throttle => Severity::Hold,
        BacklogAction::Reject => Severity::Reject,
    }
}

#[cfg(test)]
mod tests;
