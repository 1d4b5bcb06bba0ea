//! A wait in whoever's code it happens: its party is limited for as long as it lasts, however it ends.
//!
//! # Invariants
//! A party is limited while any wait of it lasts, by what the last to begin waits for. A refusal is
//! not hidden by a wait, nor ended by the end of one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cause::CauseId;
use super::party::{Numbers, Party};
use crate::env::Clock;

/// A wait that lasts until it is dropped.
#[must_use = "dropping it ends the wait"]
pub struct Waits {
    party: Arc<Party>,
    clock: Arc<dyn Clock>,
}

impl Waits {
    /// `party` waits from now on.
    pub fn begin(
        party: Arc<Party>,
        cause: CauseId,
        numbers: Numbers,
        clock: &Arc<dyn Clock>,
    ) -> Waits {
        party.waiting.fetch_add(1, Ordering::AcqRel);
        if party.meter().is_clear() || party.is_state() {
            party.limited(cause, numbers, clock.monotonic());
        }
        Waits { party, clock: Arc::clone(clock) }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let last = self.party.waiting.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && self.party.is_state() {
            self.party.free(self.clock.monotonic());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::flow::Cause;
    use crate::env::sim::SimClock;
    use crate::types::{Entity, EntityKind};

    #[test]
    fn a_party_is_limited_until_its_last_wait_ends_and_a_refusal_outlives_them() {
        let clock = SimClock::new();
        let time: Arc<dyn Clock> = Arc::new(clock.clone());
        let party = Arc::new(Party::alone(Entity::new(EntityKind::Subscription, "s")));
        let wait = |cause: Cause| {
            Waits::begin(Arc::clone(&party), cause.into(), Numbers::default(), &time)
        };
        let now = || party.meter().current().0.cause();
        let (quota, pool) = (wait(Cause::Quota), wait(Cause::FetchPool));
        assert_eq!(now(), Some(Cause::FetchPool));
        drop(pool);
        assert_eq!(now(), Some(Cause::FetchPool), "another goes on");
        drop(quota);
        assert_eq!(now(), None);
        clock.advance(Duration::from_secs(1));
        party.refused(Cause::Pool.into(), Numbers::default(), clock.monotonic());
        drop(wait(Cause::Serving));
        assert_eq!(now(), Some(Cause::Pool));
    }
}
