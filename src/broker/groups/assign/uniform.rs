//! Even counts with as few moves as possible (sticky).
//!
//! Everybody keeps what it had and still wants. What nobody has goes to the least loaded
//! subscriber. Then, while a chain of members exists along which one partition each can be handed
//! on from a member to one with at least two less, it is: such cost-reducing paths lead to the most
//! even spread that the subscriptions allow (optimal semi-matchings: Harvey, Ladner, Lovász and
//! Tamir 2003). With equal subscriptions every chain is one direct move from a most loaded to a
//! least loaded member, so that counts differ by one at most and each move is necessary.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{PartitionSet, Problem, partitions};
use crate::types::{TopicId, TopicPartition};

pub(super) fn assign(problem: &Problem) -> BTreeMap<Arc<str>, PartitionSet> {
    let mut spread = Spread::keep_what_fits(problem);
    spread.place_the_rest(problem);
    spread.even_out();
    let ids = problem.members.iter().map(|member| member.id.clone());
    ids.zip(spread.held).collect()
}

/// Members are their indices in the problem.
struct Spread {
    held: Vec<PartitionSet>,
    load: Vec<usize>,
    /// Members by topic they want, in order.
    takers: BTreeMap<TopicId, Vec<usize>>,
    /// Members by load, so that the least and the most loaded are at hand.
    by_load: BTreeSet<(usize, usize)>,
}

impl Spread {
    fn keep_what_fits(problem: &Problem) -> Spread {
        let mut takers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        let mut held = Vec::with_capacity(problem.members.len());
        let mut taken = PartitionSet::new();
        for (index, member) in problem.members.iter().enumerate() {
            for topic in &member.wants {
                takers.entry(*topic).or_default().push(index);
            }
            let fits = |part: &TopicPartition| {
                let shape = problem.topics.get(&part.topic);
                member.wants.contains(&part.topic)
                    && shape.is_some_and(|shape| part.partition.0 < shape.partitions)
            };
            let kept: PartitionSet =
                member.had.iter().filter(fits).filter(|part| !taken.contains(*part)).collect();
            taken.extend(kept.iter());
            held.push(kept);
        }
        let load: Vec<usize> = held.iter().map(PartitionSet::len).collect();
        let by_load = load.iter().enumerate().map(|(index, load)| (*load, index)).collect();
        Spread { held, load, takers, by_load }
    }

    /// Topics with the fewest takers first: they have the least choice.
    fn place_the_rest(&mut self, problem: &Problem) {
        let taken: PartitionSet = self.held.iter().flat_map(PartitionSet::iter).collect();
        let mut topics: Vec<(usize, TopicId)> =
            self.takers.iter().map(|(topic, takers)| (takers.len(), *topic)).collect();
        topics.sort_unstable();
        for (_, topic) in topics {
            let Some(shape) = problem.topics.get(&topic) else { continue };
            for part in partitions(*shape).filter(|part| !taken.contains(*part)) {
                if let Some(taker) = self.least_loaded_taker(topic) {
                    self.give(taker, part);
                }
            }
        }
    }

    fn least_loaded_taker(&self, topic: TopicId) -> Option<usize> {
        let takers = self.takers.get(&topic)?;
        if takers.len() == self.held.len() {
            return self.by_load.first().map(|(_, member)| *member);
        }
        takers.iter().copied().min_by_key(|member| (self.load[*member], *member))
    }

    /// From the most loaded member down. One without a chain stays without one: everybody whom it
    /// can reach has at most one less, so no chain from a lesser load ends or goes on there.
    fn even_out(&mut self) {
        let mut bound = (usize::MAX, 0);
        while let Some(most) = self.by_load.range(..bound).next_back().copied() {
            if self.by_load.first().is_none_or(|(least, _)| least + 2 > most.0) {
                return;
            }
            match self.chain(most.1) {
                Some(chain) => self.hand_on(&chain),
                None => bound = most,
            }
        }
    }

    /// The shortest chain of hand-overs from `from` to a member with at least two less.
    fn chain(&self, from: usize) -> Option<Vec<(usize, TopicPartition, usize)>> {
        let enough = self.load[from].checked_sub(2)?;
        let mut came_by: Vec<Option<(usize, TopicPartition)>> = vec![None; self.held.len()];
        let mut seen_topics = BTreeSet::new();
        let mut queue = VecDeque::from([from]);
        while let Some(giver) = queue.pop_front() {
            for topic in self.held[giver].topics() {
                if !seen_topics.insert(topic) {
                    continue;
                }
                let Some(part) = self.held[giver].last_of(topic) else { continue };
                let takers = self.takers.get(&topic).map_or(&[][..], Vec::as_slice);
                let mut best: Option<usize> = None;
                for taker in takers.iter().copied() {
                    if taker == from || came_by[taker].is_some() {
                        continue;
                    }
                    came_by[taker] = Some((giver, part));
                    queue.push_back(taker);
                    if self.load[taker] <= enough
                        && best.is_none_or(|best| self.load[taker] < self.load[best])
                    {
                        best = Some(taker);
                    }
                }
                if let Some(end) = best {
                    return Some(trace(&came_by, from, end));
                }
            }
        }
        None
    }

    fn hand_on(&mut self, chain: &[(usize, TopicPartition, usize)]) {
        for (giver, part, taker) in chain {
            self.held[*giver].remove(*part);
            self.change_load(*giver, |load| load - 1);
            self.give(*taker, *part);
        }
    }

    fn give(&mut self, taker: usize, part: TopicPartition) {
        self.held[taker].insert(part);
        self.change_load(taker, |load| load + 1);
    }

    fn change_load(&mut self, member: usize, change: impl Fn(usize) -> usize) {
        self.by_load.remove(&(self.load[member], member));
        self.load[member] = change(self.load[member]);
        self.by_load.insert((self.load[member], member));
    }
}

fn trace(
    came_by: &[Option<(usize, TopicPartition)>],
    from: usize,
    end: usize,
) -> Vec<(usize, TopicPartition, usize)> {
    let mut chain = Vec::new();
    let mut at = end;
    while at != from {
        let Some((giver, part)) = came_by[at] else { break };
        chain.push((giver, part, at));
        at = giver;
    }
    chain
}
