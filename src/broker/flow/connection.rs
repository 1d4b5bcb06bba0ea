//! What limits one connection: its share of the pool and its quotas.
//!
//! # Invariants
//! Without any quota no request takes a lock here or more than one load; only a connection that
//! opens does, so that a quota that comes later finds it. Chains are resolved anew after an edit,
//! when they are next asked for.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{
    Chain, ConnectionShare, Cost, Direction, LevelHold, Parties, Place, QuotaRefusal, QuotaTree,
    Scope, Subject,
};
use crate::types::{Class, GroupId, Resource, TopicName};

/// Who is on the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The principal; `anonymous` without authentication.
    pub principal: Arc<str>,
    /// What the client calls itself.
    pub client: Arc<str>,
    /// Where it connects from.
    pub ip: IpAddr,
}

impl Identity {
    /// A client that nobody has authenticated.
    pub fn anonymous(client: &str, ip: IpAddr) -> Identity {
        Identity { principal: "anonymous".into(), client: client.into(), ip }
    }

    /// A caller in this process.
    pub fn embedded() -> Identity {
        Identity::anonymous("embedded", IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// Groups of one connection that are known: a client has a consumer or two, and what is forgotten
/// counts as outside.
const JOINED_MAX: usize = 64;

/// One connection's limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectionFlow(Arc<State>);

#[derive(Debug)]
struct State {
    identity: Identity,
    share: ConnectionShare,
    quotas: Arc<QuotaTree>,
    parties: Parties,
    chains: Mutex<Chains>,
    /// Groups it has a member in.
    joined: Mutex<Vec<GroupId>>,
}

/// Resolved so far.
#[derive(Debug, Default)]
struct Chains {
    connection: Option<Arc<Chain>>,
    topics: HashMap<TopicName, Arc<Chain>>,
    groups: HashMap<GroupId, Arc<Chain>>,
}

/// Topics, and groups, whose chains one connection keeps; with more it resolves again.
const CHAINS_MAX: usize = 1_024;

impl ConnectionFlow {
    /// A connection of `identity`.
    pub fn new(
        identity: Identity,
        share: ConnectionShare,
        quotas: Arc<QuotaTree>,
        parties: Parties,
    ) -> Self {
        let chains = Mutex::default();
        let joined = Mutex::default();
        ConnectionFlow(Arc::new(State { identity, share, quotas, parties, chains, joined }))
    }

    /// It has a member in the group: it said so by a heartbeat.
    pub fn join(&self, group: &GroupId) {
        let mut joined = self.joined();
        if joined.contains(group) {
            return;
        }
        if joined.len() >= JOINED_MAX {
            joined.remove(0);
        }
        joined.push(group.clone());
    }

    /// Its member left the group.
    pub fn leave(&self, group: &GroupId) {
        self.joined().retain(|joined| joined != group);
    }

    /// Whether it has a member in the group.
    pub fn has_joined(&self, group: &GroupId) -> bool {
        self.joined().contains(group)
    }

    fn joined(&self) -> std::sync::MutexGuard<'_, Vec<GroupId>> {
        self.0.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is told of when it, its publishers or its subscriptions are limited.
    pub fn parties(&self) -> &Parties {
        &self.0.parties
    }

    /// Its share of the pool for bytes in flight.
    pub fn share(&self) -> &ConnectionShare {
        &self.0.share
    }

    /// Takes what a batch costs from every quota it is under, or nothing. `None` = there is none.
    pub fn charge_produce(
        &self,
        topic: &TopicName,
        bytes: u64,
        records: impl FnOnce() -> u64,
        now: Duration,
    ) -> Result<Option<Box<Charged>>, QuotaRefusal> {
        if self.0.quotas.is_unused() {
            return Ok(None);
        }
        let (connection, of_topic) = (self.chain(now), self.topic(topic, now));
        if connection.is_unlimited() && of_topic.is_unlimited() {
            return Ok(None);
        }
        let cost = Cost { bytes, records: records(), requests: 1, ..Cost::default() };
        let mut charged = Charged {
            chains: Vec::new(),
            cost,
            in_flight: connection.hold(Resource::InflightBytes, bytes)?,
            stored: of_topic.hold(Resource::StorageBytes, bytes)?,
        };
        for chain in [connection, of_topic] {
            chain.charge(&cost, now)?; // dropping `charged` refunds those before
            charged.chains.push(chain);
        }
        Ok(Some(Box::new(charged)))
    }

    /// When records may be delivered again, or `None` when they may now.
    pub fn fetch_wait(
        &self,
        topic: &TopicName,
        group: Option<&GroupId>,
        now: Duration,
    ) -> Option<QuotaRefusal> {
        let probe = Cost { direction: Direction::Fetch, bytes: 1, records: 1, ..Cost::default() };
        for chain in self.fetch_chains(topic, group, now) {
            match chain.charge(&probe, now) {
                Ok(()) => chain.refund(&probe),
                Err(refusal) => return Some(refusal),
            }
        }
        None
    }

    /// Bytes that may be delivered now.
    pub fn fetch_allowance(
        &self,
        topic: &TopicName,
        group: Option<&GroupId>,
        now: Duration,
    ) -> u64 {
        let chains = self.fetch_chains(topic, group, now);
        let allowed = chains.iter().map(|chain| chain.allowance_bytes(Direction::Fetch, now));
        allowed.min().unwrap_or(u64::MAX)
    }

    /// Counts what was delivered. What is more than was allowed, by a batch at most, is owed.
    pub fn charge_fetch(
        &self,
        topic: &TopicName,
        group: Option<&GroupId>,
        bytes: u64,
        records: u64,
        now: Duration,
    ) {
        let cost = Cost { direction: Direction::Fetch, bytes, records, ..Cost::default() };
        for chain in self.fetch_chains(topic, group, now) {
            // Asked before: only a race of two readers of one quota is refused here, and passes.
            let _ = chain.charge(&cost, now);
        }
    }

    /// Takes what a request costs beside its bytes: requests, connections, partitions.
    pub fn charge(&self, cost: &Cost, now: Duration) -> Result<(), QuotaRefusal> {
        if self.0.quotas.is_unused() {
            return Ok(());
        }
        self.chain(now).charge(cost, now)
    }

    /// Takes a place among its client's connections.
    pub fn hold_connection(&self, now: Duration) -> Result<Place, QuotaRefusal> {
        self.0.quotas.connect(&self.0.identity, now)
    }

    /// The most important class its publishers may ask for.
    pub fn class_max(&self, now: Duration) -> Class {
        if self.0.quotas.is_unused() {
            return Class::Critical;
        }
        self.chain(now).class_max()
    }

    fn fetch_chains(
        &self,
        topic: &TopicName,
        group: Option<&GroupId>,
        now: Duration,
    ) -> Vec<Arc<Chain>> {
        if self.0.quotas.is_unused() {
            return Vec::new();
        }
        let mut chains = vec![self.chain(now), self.topic(topic, now)];
        chains.extend(group.map(|group| self.group(group, now)));
        chains.retain(|chain| !chain.is_unlimited());
        chains
    }

    fn chain(&self, now: Duration) -> Arc<Chain> {
        let mut chains = self.0.chains.lock().unwrap_or_else(PoisonError::into_inner);
        self.current(&mut chains.connection, Scope::Connection, now)
    }

    fn topic(&self, topic: &TopicName, now: Duration) -> Arc<Chain> {
        self.named(|chains| &mut chains.topics, topic, Scope::Topic(topic), now)
    }

    fn group(&self, group: &GroupId, now: Duration) -> Arc<Chain> {
        self.named(|chains| &mut chains.groups, group, Scope::Group(group), now)
    }

    fn named<K: Clone + Eq + Hash>(
        &self,
        kind: fn(&mut Chains) -> &mut HashMap<K, Arc<Chain>>,
        name: &K,
        scope: Scope<'_>,
        now: Duration,
    ) -> Arc<Chain> {
        let mut chains = self.0.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kind(&mut chains);
        if known.len() >= CHAINS_MAX && !known.contains_key(name) {
            known.clear();
        }
        let mut found = known.remove(name);
        let chain = self.current(&mut found, scope, now);
        known.insert(name.clone(), Arc::clone(&chain));
        chain
    }

    fn current(
        &self,
        known: &mut Option<Arc<Chain>>,
        scope: Scope<'_>,
        now: Duration,
    ) -> Arc<Chain> {
        let quotas = &self.0.quotas;
        if let Some(chain) = known.as_ref().filter(|chain| quotas.is_current(chain)) {
            return Arc::clone(chain);
        }
        let Identity { principal, client, ip } = &self.0.identity;
        let chain = quotas.chain(&Subject { principal, client, ip: *ip, scope }, now);
        *known = Some(Arc::clone(&chain));
        chain
    }
}

/// What one batch took. Dropping it gives everything back: nothing was written.
#[derive(Debug)]
#[must_use = "dropping it says that nothing was written"]
pub struct Charged {
    chains: Vec<Arc<Chain>>,
    cost: Cost,
    in_flight: LevelHold,
    stored: LevelHold,
}

impl Charged {
    /// The batch was written: rates and stored bytes stay, bytes in flight are given back.
    pub fn written(mut self) {
        self.chains.clear();
        std::mem::take(&mut self.stored).keep();
        drop(std::mem::take(&mut self.in_flight));
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.chains.iter().for_each(|chain| chain.refund(&self.cost));
    }
}
