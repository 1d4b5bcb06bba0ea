//! Where refusals and states of a broker's limits become causes. Publishers and subscriptions of
//! connections are told of by the server, which knows them.

use std::time::Duration;

use super::{BacklogClaim, Cause, CauseId, Flow, Seat, States, TopicFlow};
use crate::types::{Pushback, PushbackCode, PushbackScope};

impl Flow {
    /// A batch for `topic` was refused. `embedded` = it came from a caller in this process.
    pub fn note_refusal(&self, topic: &TopicFlow, embedded: bool, told: &Pushback, now: Duration) {
        self.pressure.count(told, now);
        if limits_the_topic(told) {
            self.pressure.refused(&topic.party, told, now);
        }
        if embedded {
            self.embedded.parties().refused_directly(topic.name.as_str(), told, now);
        }
    }

    /// A batch for `topic` was admitted. A load or two while nothing limits.
    pub fn note_admission(&self, topic: &TopicFlow, embedded: bool, now: Duration) {
        topic.party.admitted(now, now);
        if embedded {
            self.embedded.parties().admitted_directly(now, now);
        }
    }

    /// What limits everybody now.
    pub fn states(&self, draining: bool, now: Duration) -> States {
        let [(_, _, pool), ..] = self.pool.refusals(now);
        States {
            disk: self.disk.level(),
            disk_free: self.disk.free_and_mark(),
            pool: pool.map(|_| (self.pool.used(), self.pool.limit())),
            writers: self.verdicts(),
            draining,
        }
    }

    /// The cause that held a grant back, with the name of what it is.
    pub fn held_by(&self, seat: &Seat, backlog: &BacklogClaim, cause: Cause) -> CauseId {
        match cause {
            Cause::Backlog => backlog.cause().unwrap_or(cause.into()),
            Cause::Window | Cause::Fsync => {
                let writer = seat.writers().trailing_zeros();
                self.pressure.names().id(cause, &writer.to_string())
            }
            _ => cause.into(),
        }
    }
}

/// Whether everybody who writes the topic meets the limit, not only this caller.
fn limits_the_topic(told: &Pushback) -> bool {
    match told.code {
        PushbackCode::TopicFull | PushbackCode::BacklogLimit => true,
        PushbackCode::ThrottledRate => {
            told.scope == PushbackScope::Topic && told.limit_id.starts_with("quota:topic/")
        }
        _ => false,
    }
}
