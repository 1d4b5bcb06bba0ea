//! Consecutive ranges per topic (Kafka's range assignor): member k gets the k-th slice of every
//! topic, so that topics with the same number of partitions meet in the same member key by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{PartitionSet, Problem, partitions};

pub(super) fn assign(problem: &Problem) -> BTreeMap<Arc<str>, PartitionSet> {
    let mut targets: BTreeMap<Arc<str>, PartitionSet> =
        problem.members.iter().map(|member| (member.id.clone(), PartitionSet::new())).collect();
    for shape in problem.topics.values() {
        let takers: Vec<_> =
            problem.members.iter().filter(|member| member.wants.contains(&shape.id)).collect();
        let mut parts = partitions(*shape);
        let total = shape.partitions as usize;
        for (place, taker) in takers.iter().enumerate() {
            let share = total / takers.len() + usize::from(place < total % takers.len());
            if let Some(target) = targets.get_mut(&taker.id) {
                target.extend(parts.by_ref().take(share));
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::groups::TopicShape;
    use crate::broker::groups::assign::Candidate;
    use crate::types::TopicId;

    #[test]
    fn equal_topics_are_cut_alike() {
        let ids = [TopicId::from_bytes([1; 16]), TopicId::from_bytes([2; 16])];
        let problem = Problem {
            topics: ids.iter().map(|id| (*id, TopicShape { id: *id, partitions: 5 })).collect(),
            members: ["a", "b"]
                .iter()
                .map(|id| Candidate {
                    id: Arc::from(*id),
                    wants: ids.into_iter().collect(),
                    had: PartitionSet::new(),
                })
                .collect(),
        };
        let targets = assign(&problem);
        let numbers = |id: &str, topic| -> Vec<u32> {
            let mine = targets[id].iter().filter(|part| part.topic == topic);
            mine.map(|part| part.partition.0).collect()
        };
        for topic in ids {
            assert_eq!(numbers("a", topic), [0, 1, 2]);
            assert_eq!(numbers("b", topic), [3, 4]);
        }
    }
}
