//! When a refused caller is to come back, computed from how fast bytes leave.

use super::{DrainRate, FlowOptions};
use crate::types::{Effects, Pushback, PushbackCode, PushbackScope, Severity};

/// Twice the time in which `excess_bytes` leave, within the options' bounds. Before any rate is
/// known, the lower bound.
pub fn retry_after_ms(excess_bytes: u64, drain: &DrainRate, options: &FlowOptions) -> u32 {
    let (low, high) = (options.retry_after_ms_min, options.retry_after_ms_max);
    let Some(time) = drain.time_for(excess_bytes.saturating_mul(2)) else { return low };
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(low).min(high.max(low))
}

/// SERVER_BUSY without effects: a limit on bytes is used up and empties by itself.
pub fn busy(scope: PushbackScope, observed: u64, limit: u64, retry_after_ms: u32) -> Pushback {
    Pushback {
        code: PushbackCode::ServerBusy,
        scope,
        severity: Severity::Hold,
        effects: Effects::None,
        retry_after_ms,
        observed,
        limit,
        unit: "bytes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retry_after_follows_the_drain_rate_within_bounds() {
        let (drain, options) = (DrainRate::new(), FlowOptions::default());
        assert_eq!(retry_after_ms(1 << 30, &drain, &options), 50);
        for step in 0..200 {
            drain.record(10_000, Duration::from_millis(1_000 + step * 10));
        }
        let after = retry_after_ms(500_000, &drain, &options);
        assert!((900..=1_200).contains(&after), "{after}");
        assert_eq!(retry_after_ms(1, &drain, &options), 50);
        assert_eq!(retry_after_ms(u64::MAX, &drain, &options), 5_000);
    }
}
