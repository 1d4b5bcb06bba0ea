//! Places of connections: every open one has one, whether its quota is older or younger than it.
//!
//! # Invariants
//! A connection is counted by every limit on connections it is under, and by no other. After an edit
//! there may be more than a limit allows: nobody is thrown out, and nobody comes in.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::{LevelHold, QuotaRefusal, QuotaTree, Scope, Subject};
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
    who: Identity,
    hold: LevelHold,
}

/// The place of one connection; given up by dropping it.
#[derive(Debug)]
#[must_use = "a dropped place is free again"]
pub struct Place {
    tree: Arc<QuotaTree>,
    number: u64,
}

impl QuotaTree {
    /// A place for a connection of `who`, unless a quota on connections is used up. Quotas that
    /// come later find it.
    pub fn connect(self: &Arc<Self>, who: &Identity, now: Duration) -> Result<Place, QuotaRefusal> {
        let mut places = self.places();
        let hold = match self.is_unused() {
            true => LevelHold::default(),
            false => self.chain(&subject(who), now).hold(Resource::Connections, 1)?,
        };
        let number = places.next;
        places.next += 1;
        places.open.insert(number, Taken { who: who.clone(), hold });
        Ok(Place { tree: Arc::clone(self), number })
    }

    /// Counts all open connections anew, after an edit.
    pub(super) fn recount(&self, now: Duration) {
        let limited = self.limits_connections();
        let mut places = self.places();
        places.open.values_mut().for_each(|taken| taken.hold = LevelHold::default());
        for taken in places.open.values_mut().filter(|_| limited) {
            taken.hold =
                self.chain(&subject(&taken.who), now).hold_anyway(Resource::Connections, 1);
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // An entry is whole at any moment.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn subject(Identity { principal, client, ip }: &Identity) -> Subject<'_> {
    Subject { principal, client, ip: *ip, scope: Scope::Connection }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tree.places().open.remove(&self.number);
    }
}
