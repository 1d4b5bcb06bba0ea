//! Sizes of flow control, each with its reason (DESIGN D11, section 4).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of flow control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowOptions {
    /// Hard limit on bytes of produce requests between admission and answer. `None` = a quarter of
    /// `memory_bytes`, at most 256 MiB: rivals pin 1 to 48 GiB under 1,000 greedy producers.
    pub inflight_bytes_max: Option<u64>,
    /// What the process may use, for the default above. `None` = what the machine has.
    pub memory_bytes: Option<u64>,
    /// One partition may use one `partition_share`-th of the pool, so that a slow one cannot
    /// starve the others.
    pub partition_share: u32,
    /// One connection may use one `connection_share`-th of the pool.
    pub connection_share: u32,
    /// One partition may use one `lane_share`-th of its connection's share.
    pub lane_share: u32,
    /// What is enforced.
    pub enforcement: Enforcement,
    /// Bounds of what a batch is to take from queue to acknowledgement: below, noise of the disk
    /// decides; above, a person notices.
    pub sojourn_ms_min: u64,
    /// See `sojourn_ms_min`.
    pub sojourn_ms_max: u64,
    /// Smallest window of a log writer: one large batch always fits.
    pub window_bytes_min: u64,
    /// Hard limit on bytes of fetch answers between planning and sending. Mapped pages are the
    /// kernel's, so this bounds pinned maps and, in owned mode, memory.
    pub fetch_bytes_max: u64,
    /// Largest window of one publisher: more in flight no longer adds throughput.
    pub grant_bytes_max: u64,
    /// First window of a publisher, doubled with each window that was answered.
    pub grant_bytes_first: u64,
    /// Life of a grant in milliseconds; an active one is renewed at half of it.
    pub grant_ttl_ms: u32,
    /// Shortest `retry_after` of a busy broker: below it, retries cost more than they carry.
    pub retry_after_ms_min: u32,
    /// Longest `retry_after` of a busy broker.
    pub retry_after_ms_max: u32,
    /// A group without members limits nobody after this long: a deploy must not open the gate, a
    /// dead group must.
    pub absent_after_ms: u64,
    /// A group without members protects its topics this long after its last commit: a forgotten
    /// one must not hold the disk for ever.
    pub protect_idle_ms: u64,
    /// How much more a producer inside the group that limits it may write, in percent of the
    /// limit: it would wait for itself.
    pub insider_percent: u32,
}

/// How much of flow control is in force. Whatever it is, these hold: the pool and its shares, the
/// disk's levels and a sender's own deadline, which are safety; and what somebody set for a topic,
/// its own limits and those on the backlog of its groups. Readers are paced as ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// All of it.
    #[default]
    On,
    /// Quotas, the windows of log writers and publishers' shares of them decide and count what
    /// they would refuse, and refuse nothing.
    DryRun,
    /// They are not asked.
    Off,
}

impl Enforcement {
    /// All of them, as options write them.
    pub const NAMES: [&'static str; 3] = ["on", "dry_run", "off"];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Enforcement::On => "on",
            Enforcement::DryRun => "dry_run",
            Enforcement::Off => "off",
        }
    }

    /// Back from its name.
    pub fn from_name(name: &str) -> Option<Enforcement> {
        let all = [Enforcement::On, Enforcement::DryRun, Enforcement::Off];
        all.into_iter().find(|known| known.name() == name)
    }
}

impl Default for FlowOptions {
    fn default() -> FlowOptions {
        FlowOptions {
            inflight_bytes_max: None,
            memory_bytes: None,
            partition_share: 4,
            connection_share: 8,
            lane_share: 4,
            enforcement: Enforcement::On,
            sojourn_ms_min: 5,
            sojourn_ms_max: 50,
            window_bytes_min: 1 << 20,
            fetch_bytes_max: 256 << 20,
            grant_bytes_max: 32 << 20,
            grant_bytes_first: 64 << 10,
            grant_ttl_ms: 10_000,
            retry_after_ms_min: 50,
            retry_after_ms_max: 5_000,
            absent_after_ms: 600_000,
            protect_idle_ms: 7 * 24 * 3_600_000,
            insider_percent: 10,
        }
    }
}

/// Where no memory size is known.
const INFLIGHT_BYTES_DEFAULT: u64 = 256 << 20;

impl FlowOptions {
    /// `protect_idle_ms` as a duration.
    pub fn protect_idle(&self) -> Duration {
        Duration::from_millis(self.protect_idle_ms)
    }

    /// Size of the pool for bytes in flight. `machine_bytes` is the machine's memory, when known.
    pub fn pool_bytes(&self, machine_bytes: Option<u64>) -> u64 {
        let budget = self.memory_bytes.or(machine_bytes);
        let quarter = budget.map_or(INFLIGHT_BYTES_DEFAULT, |bytes| bytes / 4);
        self.inflight_bytes_max.unwrap_or(quarter.min(INFLIGHT_BYTES_DEFAULT)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_a_quarter_of_the_budget_and_at_most_256_mib() {
        let options = FlowOptions::default();
        assert_eq!(options.pool_bytes(Some(64 << 30)), 256 << 20);
        assert_eq!(options.pool_bytes(Some(512 << 20)), 128 << 20);
        assert_eq!(options.pool_bytes(None), 256 << 20);
        let fixed = FlowOptions { inflight_bytes_max: Some(7), ..options };
        assert_eq!(fixed.pool_bytes(Some(1 << 40)), 7);
    }
}
