//! What becomes of batches that wait too long, and when to look.
//!
//! A batch whose time is over is told failed wherever it is: with effects `None` where no attempt
//! can have written it, else with effects `Unknown`. One whose answer is still to come keeps its
//! place in the window, so that the broker never has more batches to remember than it does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::lane::{Batch, Body, Lane};
use super::shared::{Shared, State};
use crate::client::ClientError;

impl State {
    /// Fails what waited too long.
    pub(super) fn expire(&mut self, shared: &Arc<Shared>, now: Instant) {
        for number in 0..self.lanes.len() {
            self.lanes[number].expire(shared, now);
            self.settle(shared, number);
        }
    }

    /// When the driver has to look again, for the sake of lingers, holds and deadlines.
    pub(super) fn next_deadline(&self, linger: Duration, now: Instant) -> Option<Instant> {
        let lanes = self.lanes.iter().filter(|lane| !lane.is_idle());
        let deadlines = lanes.flat_map(|lane| {
            let lingers = lane.open.as_ref().map(|batch| batch.opened + linger);
            let expires = lane.unfinished().map(|batch| batch.deadline).min();
            [lingers, expires, lane.hold_until]
        });
        // What is past was acted upon; what it waits for now is an answer.
        deadlines.flatten().filter(|deadline| *deadline > now).min()
    }
}

impl Lane {
    fn expire(&mut self, shared: &Shared, now: Instant) {
        let is_over = |batch: &Batch| batch.deadline <= now;
        if self.open.as_ref().is_some_and(is_over) {
            self.seal();
        }
        let timed_out = || ClientError::TimedOut {
            what: "the delivery of a record",
            after: shared.options.delivery_timeout,
        };
        while self.ready.front().is_some_and(is_over)
            && let Some(batch) = self.ready.pop_front()
        {
            self.give_up(shared, batch, timed_out());
        }
        while let Some(first) = self.failed.first_entry().filter(|entry| is_over(entry.get())) {
            let batch = first.remove();
            self.give_up(shared, batch, timed_out());
        }
        let late = self.under_way.values_mut().filter(|batch| is_over(batch) && !batch.given_up);
        for batch in late {
            batch.is_in_doubt();
            let failure = batch.failure(timed_out());
            shared.tell(batch, Err(failure));
            (batch.given_up, batch.body) = (true, Body::Built(Bytes::new()));
        }
    }

    /// It is not tried again.
    pub(super) fn give_up(&mut self, shared: &Shared, batch: Batch, otherwise: ClientError) {
        self.gap_in_doubt |= batch.doubt.is_some();
        let failure = batch.failure(otherwise);
        shared.complete(batch, Err(failure));
    }
}
