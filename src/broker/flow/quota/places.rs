//! Places of connections: every open one has one, whether its quota is older or younger than it. Its
//! address is counted when it comes, its client once it said who it is.
//!
//! # Invariants
//! A connection is counted by every limit on connections it is under, and by no other. After an edit
//! there may be more than a limit allows: nobody is thrown out, and nobody comes in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Chain, Cost, LevelHold, QuotaRefusal, QuotaTree, Scope, Subject};
use crate::broker::flow::Identity;
use crate::types::Resource;

/// All open connections.
#[derive(Debug, Default)]
pub(super) struct Places {
    next: u64,
    open: HashMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    ip: IpAddr,
    /// Who it is, when it said so.
    who: Option<Identity>,
    of_address: LevelHold,
    of_client: LevelHold,
}

/// The place of one connection; given up by dropping it.
#[derive(Debug)]
#[must_use = "a dropped place is free again"]
pub struct Place {
    tree: Arc<QuotaTree>,
    number: u64,
}

/// A connection that comes, or that says who it is.
const ONE: Cost = Cost { connections: 1, ..Cost::NONE };

impl QuotaTree {
    /// A place for a connection from `ip`, unless a quota of its address is used up: it has said
    /// nothing yet. Quotas that come later find it.
    pub fn arrive(self: &Arc<Self>, ip: IpAddr, now: Duration) -> Result<Place, QuotaRefusal> {
        let mut places = self.places();
        let of_address = match self.is_unused() {
            true => LevelHold::default(),
            false => take(&self.chain(&at(ip), now), now)?,
        };
        let number = places.next;
        places.next += 1;
        let taken = Taken { ip, who: None, of_address, of_client: LevelHold::default() };
        places.open.insert(number, taken);
        Ok(Place { tree: Arc::clone(self), number })
    }

    /// Counts all open connections anew, after an edit.
    pub(super) fn recount(&self, now: Duration) {
        let limited = self.limits_connections();
        let mut places = self.places();
        for taken in places.open.values_mut() {
            (taken.of_address, taken.of_client) = Default::default();
        }
        let hold =
            |subject: &Subject<'_>| self.chain(subject, now).hold_anyway(Resource::Connections, 1);
        for taken in places.open.values_mut().filter(|_| limited) {
            taken.of_address = hold(&at(taken.ip));
            taken.of_client = taken.who.as_ref().map(|who| hold(&subject(who))).unwrap_or_default();
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // An entry is whole at any moment.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts it among its client's connections too, unless a quota on them is used up.
    pub fn greet(&self, who: &Identity, now: Duration) -> Result<(), QuotaRefusal> {
        let mut places = self.tree.places();
        let of_client = match self.tree.is_unused() {
            true => LevelHold::default(),
            false => take(&self.tree.chain(&subject(who), now), now)?,
        };
        if let Some(taken) = places.open.get_mut(&self.number) {
            (taken.who, taken.of_client) = (Some(who.clone()), of_client);
        }
        Ok(())
    }
}

fn take(chain: &Chain, now: Duration) -> Result<LevelHold, QuotaRefusal> {
    let hold = chain.hold(Resource::Connections, 1)?;
    chain.charge(&ONE, now)?;
    Ok(hold)
}

fn at(ip: IpAddr) -> Subject<'static> {
    Subject { principal: "", client: "", ip, scope: Scope::Address }
}

fn subject(Identity { principal, client, ip }: &Identity) -> Subject<'_> {
    Subject { principal, client, ip: *ip, scope: Scope::Connection }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tree.places().open.remove(&self.number);
    }
}
