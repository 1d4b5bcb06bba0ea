//! When a refused caller is to come back, computed from how fast bytes leave.

use std::time::Duration;

use super::FlowOptions;
use crate::types::{Pushback, PushbackCode, PushbackScope};

/// Twice the time in which what is too much leaves, within the options' bounds. While no rate is
/// known, the lower bound.
pub fn retry_after_ms(leaves_in: Option<Duration>, options: &FlowOptions) -> u32 {
    let (low, high) = (options.retry_after_ms_min, options.retry_after_ms_max);
    let Some(time) = leaves_in.map(|time| time.saturating_mul(2)) else { return low };
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(low).min(high.max(low))
}

/// SERVER_BUSY without effects: a limit on bytes is used up and empties by itself.
pub fn busy(
    scope: PushbackScope,
    limit_id: impl Into<String>,
    observed: u64,
    limit: u64,
    retry_after_ms: u32,
) -> Pushback {
    Pushback::hold(PushbackCode::ServerBusy, scope, limit_id)
        .met(observed, limit, "bytes")
        .after_ms(retry_after_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_follows_the_drain_rate_within_bounds() {
        let after = |leaves_in| retry_after_ms(leaves_in, &FlowOptions::default());
        assert_eq!(after(None), 50);
        assert_eq!(after(Some(Duration::from_millis(500))), 1_000);
        assert_eq!(after(Some(Duration::from_micros(1))), 50);
        assert_eq!(after(Some(Duration::MAX)), 5_000);
    }
}
