//! How many connections there are, in total and from one address.
//!
//! # Invariants
//! `total <= connections_max` and, for every address, `count <= connections_per_ip_max`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::ServerOptions;
use crate::types::{Pushback, PushbackCode, PushbackScope};

/// Counts connections; cheap to clone.
#[derive(Clone)]
pub(super) struct Admission(Arc<State>);

struct State {
    counts: Mutex<Counts>,
    total_max: usize,
    per_ip_max: usize,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// One connection's place; given up by dropping it.
#[must_use = "a dropped seat is free again"]
pub(super) struct Seat {
    admission: Admission,
    ip: IpAddr,
}

/// When a refused client is to try again: long enough that it is no load.
const RETRY_AFTER_MS: u32 = 1_000;

impl Admission {
    pub(super) fn new(options: &ServerOptions) -> Admission {
        Admission(Arc::new(State {
            counts: Mutex::default(),
            total_max: options.connections_max,
            per_ip_max: options.connections_per_ip_max,
        }))
    }

    /// A place for a connection, or which limit refuses it.
    pub(super) fn admit(&self, ip: IpAddr) -> Result<Seat, Pushback> {
        let mut counts = self.lock();
        let from_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if counts.total >= self.0.total_max {
            return Err(refusal(PushbackScope::Broker, counts.total, self.0.total_max));
        }
        if from_ip >= self.0.per_ip_max {
            return Err(refusal(PushbackScope::Principal, from_ip, self.0.per_ip_max));
        }
        counts.total += 1;
        counts.by_ip.insert(ip, from_ip + 1);
        Ok(Seat { admission: self.clone(), ip })
    }

    /// Connections that are open.
    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // Both counts change together under the lock; a panic cannot part them.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(scope: PushbackScope, observed: usize, limit: usize) -> Pushback {
    Pushback::hold(PushbackCode::ConnLimit, scope, "connections")
        .met(observed as u64 + 1, limit as u64, "connections")
        .after_ms(RETRY_AFTER_MS)
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.admission.lock();
        counts.total -= 1;
        if let Some(count) = counts.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_total_and_by_address() {
        let options = ServerOptions {
            connections_max: 3,
            connections_per_ip_max: 2,
            ..ServerOptions::default()
        };
        let admission = Admission::new(&options);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = admission.admit(one).expect("free");
        let _second = admission.admit(one).expect("free");
        let refused = admission.admit(one).map(drop).expect_err("two from one address");
        assert_eq!((refused.scope, refused.limit), (PushbackScope::Principal, 2));
        let _third = admission.admit(two).expect("free");
        let refused = admission.admit(two).map(drop).expect_err("three in total");
        assert_eq!((refused.scope, refused.limit), (PushbackScope::Broker, 3));
        drop(first);
        assert_eq!(admission.total(), 2);
        let _again = admission.admit(one).expect("free again");
    }
}
