//! What limits one connection: its share of the pool and its quotas.
//!
//! # Invariants
//! Without any quota no request takes a lock here or more than one load; only a connection that
//! opens does, so that a quota that comes later finds it. Chains are resolved anew after an edit,
//! when they are next asked for.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::{
    Chain, ConnectionShare, Cost, Direction, LevelHold, OnTheWay, Parties, QuotaRefusal, QuotaTree,
    Scope, Seat, Subject,
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
    on_the_way: OnTheWay,
    /// Of what it sends without a publisher.
    seat: OnceLock<Arc<Seat>>,
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
        let (chains, joined, on_the_way, seat) = Default::default();
        let state = State { identity, share, quotas, parties, chains, joined, on_the_way, seat };
        ConnectionFlow(Arc::new(state))
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

    /// What was read for it and is not sent yet.
    pub fn on_the_way(&self) -> &OnTheWay {
        &self.0.on_the_way
    }

    /// The place among publishers of what it sends without one; `open` makes it at the first batch.
    pub(super) fn seat(&self, open: impl FnOnce() -> Arc<Seat>) -> &Arc<Seat> {
        self.0.seat.get_or_init(open)
    }

    /// The class that quotas leave it of the one it asks for.
    pub fn class(&self, asked: Class, now: Duration) -> Class {
        asked.max(self.class_max(now))
    }

    /// Takes what the header of a batch tells from the quotas of the connection, or nothing.
    /// `None` = there is none.
    pub fn charge_header(
        &self,
        bytes: u64,
        now: Duration,
    ) -> Result<Option<Box<Charged>>, QuotaRefusal> {
        if self.0.quotas.is_unused() {
            return Ok(None);
        }
        let chain = self.chain(now);
        if chain.is_unlimited() {
            return Ok(None);
        }
        let mut charged = Box::<Charged>::default();
        charged.in_flight = chain.hold(Resource::InflightBytes, bytes)?;
        charged.take(chain, Cost { bytes, requests: 1, ..Cost::default() }, now)?;
        Ok(Some(charged))
    }

    /// Takes what the batch itself tells, or nothing; `header` is what was taken before.
    pub fn charge_batch(
        &self,
        header: Option<Box<Charged>>,
        topic: &TopicName,
        bytes: u64,
        records: impl FnOnce() -> u64,
        now: Duration,
    ) -> Result<Option<Box<Charged>>, QuotaRefusal> {
        if self.0.quotas.is_unused() {
            return Ok(header);
        }
        let (connection, of_topic) = (self.chain(now), self.topic(topic, now));
        if connection.is_unlimited() && of_topic.is_unlimited() {
            return Ok(header);
        }
        let mut charged = header.unwrap_or_default();
        let records = records();
        charged.stored = of_topic.hold(Resource::StorageBytes, bytes)?;
        charged.take(connection, Cost { records, ..Cost::default() }, now)?;
        charged.take(of_topic, Cost { bytes, records, ..Cost::default() }, now)?;
        Ok(Some(charged))
    }

    /// Bytes that may be delivered now, or which quota lets nothing through.
    pub fn fetch_allowed(
        &self,
        topic: &TopicName,
        group: Option<&GroupId>,
        now: Duration,
    ) -> Result<u64, QuotaRefusal> {
        let probe = Cost { direction: Direction::Fetch, bytes: 1, records: 1, ..Cost::default() };
        let chains = self.fetch_chains(topic, group, now);
        for chain in &chains {
            chain.charge(&probe, now)?;
            chain.refund(&probe);
        }
        let allowed = chains.iter().map(|chain| chain.allowance_bytes(Direction::Fetch, now));
        Ok(allowed.min().unwrap_or(u64::MAX).max(1))
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

    /// Takes what a request costs beside its bytes: requests, partitions.
    pub fn charge(&self, cost: &Cost, now: Duration) -> Result<(), QuotaRefusal> {
        if self.0.quotas.is_unused() {
            return Ok(());
        }
        self.chain(now).charge(cost, now)
    }

    /// The most important class its publishers may ask for.
    fn class_max(&self, now: Duration) -> Class {
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

/// What one batch took. Dropping it gives everything back but its request: nothing was written.
#[derive(Debug, Default)]
#[must_use = "dropping it says that nothing was written"]
pub struct Charged {
    costs: Vec<(Arc<Chain>, Cost)>,
    in_flight: LevelHold,
    stored: LevelHold,
}

impl Charged {
    fn take(&mut self, chain: Arc<Chain>, cost: Cost, now: Duration) -> Result<(), QuotaRefusal> {
        chain.charge(&cost, now)?;
        self.costs.push((chain, cost));
        Ok(())
    }

    /// The batch was written: rates and stored bytes stay, bytes in flight are given back.
    pub fn written(mut self) {
        self.costs.clear();
        std::mem::take(&mut self.stored).keep();
        drop(std::mem::take(&mut self.in_flight));
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.costs.iter().for_each(|(chain, cost)| chain.refund(cost));
    }
}
