//! How many connections there are, in total and from one address; and by the quotas of the address,
//! which the broker keeps.
//!
//! Beyond every limit on connections some places are left for whoever takes load away or looks why
//! there is any: without them nobody could come in to lift the limit. A connection on such a place
//! says nothing else, or it ends.
//!
//! # Invariants
//! Of ordinary connections there are at most `connections_max`, and `connections_per_ip_max` from
//! one address; of the others at most `system_connections`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::ServerOptions;
use crate::broker::flow::Place;
use crate::types::{Pushback, PushbackCode, PushbackScope};

/// Counts connections; cheap to clone.
#[derive(Clone)]
pub(super) struct Admission(Arc<State>);

struct State {
    counts: Mutex<Counts>,
    total_max: usize,
    per_ip_max: usize,
    system_max: usize,
}

#[derive(Default)]
struct Counts {
    ordinary: usize,
    by_ip: HashMap<IpAddr, usize>,
    system: usize,
}

/// One connection's place; given up by dropping it.
#[must_use = "a dropped seat is free again"]
pub(super) struct Seat {
    admission: Admission,
    ip: IpAddr,
    /// What the quotas of its address count; none beyond their limit.
    place: Option<Place>,
    /// Why it is one of those beyond the limits.
    refusal: OnceLock<Pushback>,
}

/// When a refused client is to try again: long enough that it is no load.
const RETRY_AFTER_MS: u32 = 1_000;

impl Admission {
    pub(super) fn new(options: &ServerOptions) -> Admission {
        Admission(Arc::new(State {
            counts: Mutex::default(),
            total_max: options.connections_max,
            per_ip_max: options.connections_per_ip_max,
            system_max: options.system_connections,
        }))
    }

    /// A place for a connection, or which limit refuses it; `arrive` asks the quotas, unless it was
    /// refused before.
    pub(super) fn admit(
        &self,
        ip: IpAddr,
        arrive: impl FnOnce(IpAddr) -> Result<Place, Pushback>,
    ) -> Result<Seat, Pushback> {
        let mut counts = self.lock();
        let (place, refusal) = match self.refusal(&counts, ip).map_or_else(|| arrive(ip), Err) {
            Ok(place) => (Some(place), None),
            Err(refusal) => (None, Some(refusal)),
        };
        match &refusal {
            None => counts.seat(ip),
            Some(_) if counts.system < self.0.system_max => counts.system += 1,
            Some(refusal) => return Err(refusal.clone()),
        }
        let refusal = refusal.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Seat { admission: self.clone(), ip, place, refusal })
    }

    /// Connections that are open.
    pub(super) fn total(&self) -> usize {
        let counts = self.lock();
        counts.ordinary + counts.system
    }

    fn refusal(&self, counts: &Counts, ip: IpAddr) -> Option<Pushback> {
        let from_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if counts.ordinary >= self.0.total_max {
            return Some(refusal(PushbackScope::Broker, counts.ordinary, self.0.total_max));
        }
        let full = from_ip >= self.0.per_ip_max;
        full.then(|| refusal(PushbackScope::Principal, from_ip, self.0.per_ip_max))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // The counts change together under the lock; a panic cannot part them.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn seat(&mut self, ip: IpAddr) {
        self.ordinary += 1;
        *self.by_ip.entry(ip).or_default() += 1;
    }

    fn unseat(&mut self, ip: IpAddr) {
        self.ordinary -= 1;
        if let Some(count) = self.by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.by_ip.remove(&ip);
            }
        }
    }
}

fn refusal(scope: PushbackScope, observed: usize, limit: usize) -> Pushback {
    Pushback::hold(PushbackCode::ConnLimit, scope, "connections")
        .met(observed as u64 + 1, limit as u64, "connections")
        .after_ms(RETRY_AFTER_MS)
}

impl Seat {
    /// A limit that was not known before refuses the connection: it goes to one of the places
    /// beyond the limits, or has to leave when none is free.
    pub(super) fn refuse(&self, refusal: Pushback) -> Result<(), Pushback> {
        let mut counts = self.admission.lock();
        if self.refusal.get().is_some() {
            return Ok(());
        }
        if counts.system >= self.admission.0.system_max {
            return Err(refusal);
        }
        counts.unseat(self.ip);
        counts.system += 1;
        // Empty, as was seen under the lock.
        let _ = self.refusal.set(refusal);
        Ok(())
    }

    /// Its place of the quotas of its address.
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// What refused the connection, when its place is one beyond the limits.
    pub(super) fn refusal(&self) -> Option<&Pushback> {
        self.refusal.get()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.admission.lock();
        match self.refusal.get() {
            None => counts.unseat(self.ip),
            Some(_) => counts.system -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::flow::{QuotaOptions, QuotaTable, QuotaTree};
    use crate::types::QuotaLimits;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    struct World {
        admission: Admission,
        quotas: Arc<QuotaTree>,
    }

    fn world(system_connections: usize, quotas: &[(&str, &str)]) -> World {
        let admission = Admission::new(&ServerOptions {
            connections_max: 3,
            connections_per_ip_max: 2,
            system_connections,
            ..ServerOptions::default()
        });
        let records = quotas.iter().map(|(entity, connections)| {
            let mut limits = QuotaLimits::default();
            limits.set("connections", connections).expect("a limit");
            (entity.parse().expect("an entity"), limits)
        });
        let (names, table) = (Arc::default(), QuotaTable::new(records));
        let quotas = Arc::new(QuotaTree::new(QuotaOptions::default(), names, table));
        World { admission, quotas }
    }

    impl World {
        fn admit(&self, ip: IpAddr) -> Result<Seat, Pushback> {
            let arrive = |ip| self.quotas.arrive(ip, Duration::ZERO);
            self.admission.admit(ip, |ip| arrive(ip).map_err(|refusal| refusal.pushback()))
        }
    }

    #[test]
    fn quotas_of_an_address_are_asked_before_anything_is_read() {
        let admission = world(1, &[("ip/127.0.0.1", "1")]);
        let first = admission.admit(ONE).expect("free");
        let beyond = admission.admit(ONE).expect("a place beyond the limits");
        assert_eq!(beyond.refusal().map(|told| told.limit_id.as_str()), Some("quota:ip/127.0.0.1"));
        assert!(first.place().is_some() && beyond.place().is_none());
        let refused = admission.admit(ONE).map(drop).expect_err("no place is left");
        assert_eq!((refused.code, refused.limit), (PushbackCode::ConnLimit, 1));
        drop(first);
        let _again = admission.admit(ONE).expect("free again");
    }

    #[test]
    fn places_are_limited_in_total_and_by_address() {
        let admission = world(0, &[]);
        let first = admission.admit(ONE).expect("free");
        let _second = admission.admit(ONE).expect("free");
        let refused = admission.admit(ONE).map(drop).expect_err("two from one address");
        assert_eq!((refused.scope, refused.limit), (PushbackScope::Principal, 2));
        let _third = admission.admit(TWO).expect("free");
        let refused = admission.admit(TWO).map(drop).expect_err("three in total");
        assert_eq!((refused.scope, refused.limit), (PushbackScope::Broker, 3));
        drop(first);
        assert_eq!(admission.admission.total(), 2);
        let _again = admission.admit(ONE).expect("free again");
    }

    #[test]
    fn some_places_are_left_beyond_every_limit() {
        let admission = world(2, &[]);
        let first = admission.admit(ONE).expect("free");
        let _second = admission.admit(ONE).expect("free");
        assert!(first.refusal().is_none());
        let beyond = admission.admit(ONE).expect("beyond the limit");
        assert_eq!(beyond.refusal().map(|refusal| refusal.limit), Some(2));
        first.refuse(refusal(PushbackScope::Principal, 9, 7)).expect("the last place beyond");
        assert_eq!(first.refusal().map(|refusal| refusal.limit), Some(7));
        let third = admission.admit(ONE).expect("the place of the first");
        assert!(third.refusal().is_none());
        third.refuse(refusal(PushbackScope::Principal, 9, 7)).expect_err("no place is left");
        let _fourth = admission.admit(TWO).expect("free");
        admission.admit(TWO).map(drop).expect_err("no place is left");
        drop((first, beyond));
        assert_eq!(admission.admission.total(), 3);
        let again = admission.admit(TWO).expect("beyond the limit");
        assert_eq!(again.refusal().map(|refusal| refusal.limit), Some(3));
    }
}
