//! Tokio's instants as durations since one moment that is the same for all clients of the process: so
//! the rules of `flow` can be told the time, and share a budget.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// How long after the common moment.
pub(super) fn moment(at: Instant) -> Duration {
    at.saturating_duration_since(*START.get_or_init(|| at))
}

/// Back from a moment.
pub(super) fn instant(at: Duration) -> Instant {
    *START.get_or_init(Instant::now) + at
}
