//! The limits in force: made when somebody first comes under them, kept as long as anybody is.
//!
//! Charges never come here: they hold their limits through a [`Chain`]. The lock is taken to
//! resolve one, to edit, to tick and to report.
//!
//! # Invariants
//! - One limit per entity and resource, so that all chains charge the same one.
//! - An edit keeps debts and what is held; limits that were taken away stop limiting at once.
//! - At most `limits_max` limits and `members_max` members each. Who comes later is under the
//!   limit of `<default>` itself, all together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::chain::Link;
use super::limit::Limit;
use super::places::Places;
use super::table::Step;
use super::{Chain, QuotaTable, Scope, Subject};
use crate::broker::flow::{Cause, Enforcement, Names, UNLIMITED};
use crate::types::{
    Class, QuotaDescription, QuotaEntity, QuotaLimits, QuotaMode, QuotaUse, Resource, TopicName,
};

/// Sizes of quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaOptions {
    /// Limits in force at a time: about 600 bytes each.
    pub limits_max: usize,
    /// Members one limit is divided among: about 300 bytes each.
    pub members_max: usize,
    /// Smallest burst of a rate of bytes: a batch of the usual largest size passes without debt.
    pub burst_bytes_min: u64,
    /// Whether they refuse, only count what they would refuse, or are not asked.
    pub enforcement: Enforcement,
}

impl Default for QuotaOptions {
    fn default() -> QuotaOptions {
        QuotaOptions {
            limits_max: 10_000,
            members_max: 10_000,
            burst_bytes_min: 1 << 20,
            enforcement: Enforcement::On,
        }
    }
}

/// All quotas of a broker.
#[derive(Debug)]
pub struct QuotaTree {
    options: QuotaOptions,
    names: Arc<Names>,
    generation: AtomicU64,
    /// Whether there is any record that is asked.
    used: AtomicBool,
    /// Locked before `state`.
    pub(super) places: Mutex<Places>,
    state: Mutex<State>,
}

type Key = (QuotaEntity, Resource);

#[derive(Debug, Default)]
struct State {
    table: QuotaTable,
    limits: HashMap<Key, Arc<Limit>>,
    /// Refusals, and refusals of dry runs, of limits that were forgotten, by their record.
    forgotten: HashMap<Key, (u64, u64)>,
}

impl QuotaTree {
    /// Quotas as they are at the start.
    pub fn new(options: QuotaOptions, names: Arc<Names>, table: QuotaTable) -> QuotaTree {
        let used = AtomicBool::new(is_used(&options, &table));
        let state = Mutex::new(State { table, ..State::default() });
        QuotaTree {
            options,
            names,
            generation: AtomicU64::new(0),
            used,
            places: Mutex::default(),
            state,
        }
    }

    /// Puts an edited table in force.
    pub fn replace(&self, table: QuotaTable, now: Duration) {
        let mut state = self.state();
        self.used.store(is_used(&self.options, &table), Ordering::Release);
        state.table = table;
        let State { table, limits, forgotten } = &mut *state;
        for ((entity, resource), limit) in limits.iter() {
            let found = table.governing(entity).map(|(_, limits)| limits);
            let most = found.and_then(|limits| limits.limits.get(resource)).copied();
            let mode = found.map_or(QuotaMode::Enforce, |limits| limits.mode);
            self.set(limit, most.unwrap_or(UNLIMITED), mode, now);
        }
        let records = |key: &Key| table.records().any(|(entity, _)| *entity == key.0);
        forgotten.retain(|key, _| records(key));
        self.generation.fetch_add(1, Ordering::Release);
        drop(state);
        self.recount(now);
    }

    /// Whether nobody is limited: one load.
    pub fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Acquire)
    }

    /// All quotas, by entity, or that of one, with the limits made for them.
    pub fn describe(&self, entity: Option<&QuotaEntity>) -> Vec<QuotaDescription> {
        let uses = self.report();
        let state = self.state();
        let wanted = |record: &QuotaEntity| entity.is_none_or(|entity| entity == record);
        let records = state.table.records().filter(|(record, _)| wanted(record));
        let describe = |(record, limits): (&QuotaEntity, &QuotaLimits)| {
            let governs = |key: &QuotaEntity| {
                state.table.governing(key).is_some_and(|(governing, _)| governing == *record)
            };
            let used = uses.iter().filter(|used| governs(&used.entity)).cloned().collect();
            QuotaDescription { entity: record.clone(), limits: limits.clone(), used }
        };
        let mut described: Vec<_> = records.map(describe).collect();
        described.sort_by(|a, b| a.entity.cmp(&b.entity));
        described
    }

    /// The record that an entity is under: its own, or that of `<default>`.
    pub fn governing(&self, entity: &QuotaEntity) -> Option<QuotaEntity> {
        self.state().table.governing(entity).map(|(record, _)| record)
    }

    /// All limits of a subject. For connections, topics and groups when they are first met and
    /// when [`QuotaTree::is_current`] says no.
    pub fn chain(&self, subject: &Subject<'_>, now: Duration) -> Arc<Chain> {
        let mut state = self.state();
        let generation = self.generation.load(Ordering::Acquire);
        let path = state.table.path(subject);
        let class_max = path.iter().filter_map(|step| step.limits.class_max).max();
        let mut links = Vec::new();
        for step in &path {
            let resources = step.limits.limits.keys();
            for resource in resources.filter(|r| is_in_scope(&step.key, **r, subject.scope)) {
                let limit = self.limit(&mut state, step, *resource, now);
                let member = step.member.as_ref().filter(|_| resource.is_rate());
                let member = member.map(|(name, weight)| {
                    limit.members().member(name, *weight, self.options.members_max, now)
                });
                links.push(Link { limit, member });
            }
        }
        Arc::new(Chain {
            generation,
            links: links.into_boxed_slice(),
            class_max: class_max.unwrap_or(Class::Critical),
        })
    }

    /// Whether no edit came after the chain was resolved: one load.
    pub fn is_current(&self, chain: &Chain) -> bool {
        self.generation.load(Ordering::Acquire) == chain.generation
    }

    /// Divides rates among members and forgets limits nobody is under. To be called every 100 ms.
    pub fn tick(&self, now: Duration) {
        let mut state = self.state();
        for limit in state.limits.values() {
            limit.tick(self.burst(limit.resource(), limit.most()), now);
        }
        let State { table, limits, forgotten } = &mut *state;
        limits.retain(|(entity, resource), limit| {
            if !limit.is_idle(now) {
                return true;
            }
            let Some((record, _)) = table.governing(entity) else { return false };
            let keep = record == *entity;
            if !keep {
                let sums = forgotten.entry((record, *resource)).or_default();
                let (refused, would_throttle) = limit.counts();
                *sums = (sums.0 + refused, sums.1 + would_throttle);
            }
            keep
        });
    }

    /// Takes what every topic stores, so that quotas of stored bytes know. What is written
    /// meanwhile is counted by the holds that are kept.
    pub fn measure_storage<'a>(&self, topics: impl IntoIterator<Item = (&'a TopicName, u64)>) {
        let state = self.state();
        let storage = |(_, resource): &&Key| *resource == Resource::StorageBytes;
        let mut sums: HashMap<&Key, u64> =
            state.limits.keys().filter(storage).map(|key| (key, 0)).collect();
        if sums.is_empty() {
            return;
        }
        for (topic, bytes) in topics {
            let covered = sums.iter_mut().filter(|((entity, _), _)| match entity {
                QuotaEntity::Topic(name) => name.covers(topic.as_str()),
                entity => *entity == QuotaEntity::Broker,
            });
            covered.for_each(|(_, sum)| *sum = sum.saturating_add(bytes));
        }
        for (key, sum) in sums {
            if let Some(limit) = state.limits.get(key) {
                limit.measured(sum);
            }
        }
    }

    /// Every limit in force with its use, by entity and resource; and for each record what limits
    /// made for it and forgotten since had refused.
    pub fn report(&self) -> Vec<QuotaUse> {
        let state = self.state();
        let mut uses: Vec<QuotaUse> = state.limits.values().map(|limit| limit.report()).collect();
        uses.extend(state.forgotten.iter().map(|((entity, resource), sums)| QuotaUse {
            entity: entity.clone(),
            resource: *resource,
            used: 0,
            limit: UNLIMITED,
            refused: sums.0,
            would_throttle: sums.1,
            members: 0,
        }));
        uses.sort_by(|a, b| (&a.entity, a.resource).cmp(&(&b.entity, b.resource)));
        uses
    }

    /// Whether any record limits connections.
    pub(super) fn limits_connections(&self) -> bool {
        let state = self.state();
        let mut records = state.table.records();
        records.any(|(_, limits)| limits.limits.contains_key(&Resource::Connections))
    }

    /// All records in force.
    pub fn records(&self) -> Vec<QuotaEntity> {
        self.state().table.records().map(|(entity, _)| entity.clone()).collect()
    }

    fn limit(
        &self,
        state: &mut State,
        step: &Step,
        resource: Resource,
        now: Duration,
    ) -> Arc<Limit> {
        let mut key = (step.key.clone(), resource);
        if !state.limits.contains_key(&key) && state.limits.len() >= self.options.limits_max {
            key.0 = step.record.clone();
        }
        if let Some(limit) = state.limits.get(&key) {
            return Arc::clone(limit);
        }
        let cause = self.names.id(Cause::Quota, &key.0.to_string());
        let limit = Arc::new(Limit::new(key.0.clone(), resource, cause));
        let most = step.limits.limits.get(&resource).copied().unwrap_or(UNLIMITED);
        self.set(&limit, most, step.limits.mode, now);
        state.limits.insert(key, Arc::clone(&limit));
        limit
    }

    fn set(&self, limit: &Limit, most: u64, mode: QuotaMode, now: Duration) {
        let mode = match self.options.enforcement {
            Enforcement::DryRun => QuotaMode::DryRun,
            Enforcement::On | Enforcement::Off => mode,
        };
        limit.set(most, self.burst(limit.resource(), most), mode, now);
    }

    /// One second's worth, and not less than a batch.
    fn burst(&self, resource: Resource, rate_per_s: u64) -> u64 {
        match resource {
            Resource::ProduceBytes | Resource::FetchBytes => {
                rate_per_s.max(self.options.burst_bytes_min)
            }
            _ => rate_per_s.max(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_used(options: &QuotaOptions, table: &QuotaTable) -> bool {
    options.enforcement != Enforcement::Off && table.records().next().is_some()
}

/// Stored bytes are the topic's to hold, whoever's limit they are; everything else of the broker's
/// was charged with the connection. Of an address, connections were charged as they came.
fn is_in_scope(entity: &QuotaEntity, resource: Resource, scope: Scope<'_>) -> bool {
    let comes = matches!(resource, Resource::Connections | Resource::ConnectionRate);
    match (entity, scope) {
        (QuotaEntity::Ip(_), Scope::Address) => comes,
        (QuotaEntity::Ip(_), _) => !comes,
        (QuotaEntity::Broker, Scope::Topic(_)) => resource == Resource::StorageBytes,
        (QuotaEntity::Broker, _) => resource != Resource::StorageBytes,
        _ => true,
    }
}
