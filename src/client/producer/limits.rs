//! What limits a producer now, and what it does not take because of that.

use tokio::time::Instant;

use super::shared::{Shared, State};
use super::{NewRecord, TrySendError};
use crate::client::flow::PublisherWindow;
use crate::client::moment::moment;
use crate::types::{Cause, Pushback, PushbackCode, PushbackScope, Severity};

/// Sealed batches of a partition that may wait while something limits it: one is the next to go.
const WAITING_MAX: usize = 1;

impl Shared {
    /// What the broker refused last while that holds, else the grant that is waited for.
    pub(super) fn limited_by(&self) -> Option<Pushback> {
        self.lock().limited_by(Instant::now())
    }

    /// Tells whoever watches, when it is something else than before.
    pub(super) fn tell_limit(&self, limit: Option<Pushback>) {
        self.limit.send_if_modified(|told| {
            let is_news = *told != limit;
            if is_news {
                *told = limit;
            }
            is_news
        });
    }

    /// Whether a record would only wait; then why.
    pub(super) fn would_wait(&self, record: &NewRecord<'_>) -> Result<(), TrySendError> {
        let state = self.lock();
        let lane = &state.lanes[state.choose(record)?];
        let held = lane.hold_until.is_some_and(|until| until > Instant::now());
        if !held && lane.ready.len() <= WAITING_MAX {
            return Ok(());
        }
        let limited = state.limited_by(Instant::now());
        match limited.filter(|pushback| pushback.severity != Severity::Slow) {
            Some(pushback) => Err(TrySendError::Pushback(pushback)),
            None => Ok(()),
        }
    }

    /// This producer's own limit.
    pub(super) fn buffer_full(&self) -> Pushback {
        let limit = self.options.buffer_bytes;
        let observed = limit.saturating_sub(self.room.available_permits());
        Pushback::hold(PushbackCode::ServerBusy, PushbackScope::Publisher, "buffer").met(
            observed as u64,
            limit as u64,
            "bytes",
        )
    }
}

impl State {
    pub(super) fn limited_by(&self, now: Instant) -> Option<Pushback> {
        if let Some((pushback, until)) = &self.pressure
            && *until > now
        {
            return Some(pushback.clone());
        }
        let wanted = self.wanted_bytes?;
        let window = self.link.as_ref()?.window.as_ref();
        let left = window.map_or(0, |window| window.left(moment(now)));
        let withheld = window.map_or_else(|| Cause::Grant.withholds(""), PublisherWindow::withheld);
        Some(withheld.met(wanted, left, "bytes"))
    }
}
