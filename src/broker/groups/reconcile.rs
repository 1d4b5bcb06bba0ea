//! One step of one member towards its target (KIP-848, "member reconciliation"): it first gives up
//! what is not in its target, then moves to the target's epoch and gets whatever of its target
//! nobody else holds any more; the rest follows as the others let go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PartitionSet;
use super::state::Member;
use crate::types::TopicPartition;

/// What is known about what a member really holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Report<'a> {
    /// It said so, in its current epoch.
    Holds(&'a PartitionSet),
    /// It did not, or spoke from an older epoch: its list may be older than its assignment, so
    /// nothing follows from what is missing in it.
    Unknown,
}

impl Report<'_> {
    fn has_given_up(self, parts: &PartitionSet) -> bool {
        match self {
            Report::Holds(owned) => owned.is_disjoint(parts),
            Report::Unknown => parts.is_empty(),
        }
    }
}

/// A member's next state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) epoch: i32,
    pub(super) assigned: PartitionSet,
    pub(super) revoking: PartitionSet,
}

/// The step a member takes now; `None` = it stays as it is.
pub(super) fn step(
    member: &Member,
    report: Report<'_>,
    target_epoch: i32,
    owners: &BTreeMap<TopicPartition, Arc<str>>,
) -> Option<Step> {
    if member.is_settled(target_epoch) || !report.has_given_up(&member.revoking) {
        return None;
    }
    let surplus = member.assigned.minus(&member.target);
    let mut assigned = member.assigned.and(&member.target);
    let next = if report.has_given_up(&surplus) {
        let id = &member.facts.member_id;
        let free = |part: &TopicPartition| owners.get(part).is_none_or(|owner| owner == id);
        assigned.extend(member.target.iter().filter(free));
        Step { epoch: target_epoch, assigned, revoking: PartitionSet::new() }
    } else {
        Step { epoch: member.epoch, assigned, revoking: surplus }
    };
    let same = next.epoch == member.epoch
        && next.assigned == member.assigned
        && next.revoking == member.revoking;
    (!same).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionId, TopicId};

    fn set(numbers: &[u32]) -> PartitionSet {
        let topic = TopicId::from_bytes([1; 16]);
        numbers.iter().map(|n| TopicPartition { topic, partition: PartitionId(*n) }).collect()
    }

    fn member(epoch: i32, assigned: &[u32], revoking: &[u32], target: &[u32]) -> Member {
        let mut member = Member { epoch, ..Member::default() };
        member.facts.member_id = "me".into();
        (member.assigned, member.revoking) = (set(assigned), set(revoking));
        member.target = set(target);
        member
    }

    fn owned_by(other: &str, numbers: &[u32]) -> BTreeMap<TopicPartition, Arc<str>> {
        set(numbers).iter().map(|part| (part, Arc::from(other))).collect()
    }

    #[test]
    fn revokes_before_it_gets_anything_and_keeps_its_epoch_until_then() {
        let before = member(1, &[0, 1], &[], &[1, 2]);
        let holds = set(&[0, 1]);
        let next = step(&before, Report::Holds(&holds), 2, &BTreeMap::new());
        assert_eq!(next, Some(Step { epoch: 1, assigned: set(&[1]), revoking: set(&[0]) }));
    }

    #[test]
    fn stays_until_it_says_that_it_gave_up() {
        let before = member(1, &[1], &[0], &[1, 2]);
        let holds = set(&[0, 1]);
        assert_eq!(step(&before, Report::Holds(&holds), 2, &BTreeMap::new()), None);
        assert_eq!(step(&before, Report::Unknown, 2, &BTreeMap::new()), None);
        let holds = set(&[1]);
        let next = step(&before, Report::Holds(&holds), 2, &BTreeMap::new());
        assert_eq!(next, Some(Step { epoch: 2, assigned: set(&[1, 2]), revoking: set(&[]) }));
    }

    #[test]
    fn waits_for_partitions_that_others_hold() {
        let before = member(2, &[1], &[], &[1, 2, 3]);
        let holds = set(&[1]);
        let owners = owned_by("other", &[2]);
        let next = step(&before, Report::Holds(&holds), 2, &owners);
        assert_eq!(next, Some(Step { epoch: 2, assigned: set(&[1, 3]), revoking: set(&[]) }));
        assert_eq!(step(&member(2, &[1, 3], &[], &[1, 2, 3]), Report::Unknown, 2, &owners), None);
    }

    #[test]
    fn a_list_from_an_older_epoch_gives_nothing_up() {
        let before = member(2, &[1], &[], &[2]);
        let next = step(&before, Report::Unknown, 3, &BTreeMap::new());
        assert_eq!(next, Some(Step { epoch: 2, assigned: set(&[]), revoking: set(&[1]) }));
    }
}
