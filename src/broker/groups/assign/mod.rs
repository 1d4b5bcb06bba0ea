//! Who is to own which partition: pure functions of members, topics and the targets before.

mod range;
mod uniform;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::state::Roster;
use super::{PartitionSet, TopicShape};
use crate::types::{Assignor, PartitionId, TopicId, TopicPartition};

/// A topic's partitions, for as many as it has.
fn partitions(shape: TopicShape) -> impl Iterator<Item = TopicPartition> {
    (0..shape.partitions)
        .map(move |number| TopicPartition { topic: shape.id, partition: PartitionId(number) })
}

/// What an assignor looks at.
#[derive(Debug, Default)]
struct Problem {
    /// Topics, by id.
    topics: BTreeMap<TopicId, TopicShape>,
    /// Members in the order in which they are served, with what they want and what they had.
    members: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    id: Arc<str>,
    wants: std::collections::BTreeSet<TopicId>,
    had: PartitionSet,
}

/// The target of every member, for the roster's topics and assignor. Every partition that anybody
/// subscribes to gets exactly one owner.
pub(super) fn assign(roster: &Roster) -> BTreeMap<Arc<str>, PartitionSet> {
    let mut problem = Problem {
        topics: roster.topics.values().map(|shape| (shape.id, *shape)).collect(),
        members: Vec::with_capacity(roster.members.len()),
    };
    for (id, member) in &roster.members {
        let wants = member.facts.topics.iter().filter_map(|name| roster.topics.get(name));
        problem.members.push(Candidate {
            id: id.clone(),
            wants: wants.map(|shape| shape.id).collect(),
            had: member.target.clone(),
        });
    }
    match roster.assignor {
        Assignor::Uniform => uniform::assign(&problem),
        Assignor::Range => {
            // A static name outlives member ids: sorted by it, a restart changes nothing.
            let name = |candidate: &Candidate| {
                let member = roster.members.get(&candidate.id);
                member.and_then(|member| member.facts.instance_id.clone())
            };
            problem.members.sort_by_cached_key(|candidate| match name(candidate) {
                Some(name) => (0, name),
                None => (1, candidate.id.clone()),
            });
            range::assign(&problem)
        }
    }
}
