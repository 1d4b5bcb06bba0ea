//! What the broker says about itself: cluster info, pressure, metrics.

use std::collections::BTreeMap;

use super::facade::Broker;
use super::flow::{Cause, DiskLevel, limited_totals};
use super::metric_values::values;
use crate::metrics::{Counter, Histogram, Reading, Sheet};
use crate::types::{
    ClusterInfo, Entity, EntityKind, GroupId, LimitUse, PressureQuery, PressureReport,
    PushbackCode, PushbackScope, Timestamp, WhyReport, WouldRefuse,
};

/// Numbers the broker itself counts.
#[derive(Debug, Default)]
pub(super) struct BrokerMetrics {
    pub(super) produce_requests: Counter,
    pub(super) produce_bytes: Counter,
    pub(super) produce_refused: Counter,
    pub(super) produce_failed: Counter,
    pub(super) produce_time_us: Histogram,
    pub(super) fetch_requests: Counter,
    pub(super) fetch_bytes: Counter,
    pub(super) dropped_bytes: Counter,
    pub(super) pressure_events_missed: Counter,
}

/// Most entries of who is limited in one report: bounds the answer's bytes.
const LIMITED_MAX: u32 = 1_000;
/// Most events in one report.
const EVENTS_MAX: usize = 1_000;
/// Clients of which metrics tell: those that were limited longest.
const CLIENTS_MAX: usize = 100;

impl Broker {
    /// Identity, addresses and state of the broker.
    pub fn cluster_info(&self) -> ClusterInfo {
        let core = self.core();
        ClusterInfo {
            cluster_id: core.storage.cluster_id().to_string(),
            node_id: core.options.node_id,
            writer_id: core.storage.writer_id().to_string(),
            advertised: core.options.advertised.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            latched: self.fault(),
            uptime_ms: core.uptime_ms(),
        }
    }

    /// Why no more is written until a restart, when that is so.
    pub fn fault(&self) -> Option<String> {
        let core = self.core();
        core.fault.cause().map(str::to_owned).or_else(|| core.storage.latched())
    }

    /// What limits whom, as far as nobody asks for more: see [`Broker::pressure_of`].
    pub fn pressure(&self) -> PressureReport {
        self.pressure_of(PressureQuery::default())
    }

    /// What limits whom, right now.
    pub fn pressure_of(&self, query: PressureQuery) -> PressureReport {
        let core = self.core();
        let now = core.env.clock.monotonic();
        let mut limits = self.pool_limits();
        limits.push(self.disk_limit());
        limits.extend(self.topic_limits());
        limits.sort_by_key(|limit| limit.action.is_none());
        let limited_max = query.limited_max.min(LIMITED_MAX) as usize;
        let (limited, limited_left_off) = core.flow.pressure.graph(now).limited(limited_max);
        let events = match query.history_ms {
            0 => Vec::new(),
            ms => {
                let from = Timestamp(core.env.clock.now().0.saturating_sub(i64::from(ms)));
                core.flow.pressure.events().since(from, EVENTS_MAX)
            }
        };
        let metrics = if query.metrics { values(&self.metrics()) } else { Vec::new() };
        let disk = core.flow.disk_pressure();
        let enforcement = core.options.flow.enforcement.name().to_owned();
        let would_refuse = core.flow.would_refuse().to_vec();
        PressureReport {
            enforcement,
            would_refuse,
            limits,
            limited,
            limited_left_off,
            disk,
            events,
            metrics,
        }
    }

    /// Who makes `target` wait; `None` when there is no such thing.
    pub async fn why(&self, target: &Entity) -> Option<WhyReport> {
        let now = self.monotonic();
        let pressure = &self.core().flow.pressure;
        let is_known = pressure.graph(now).node(target).is_some();
        if !is_known && !self.is_group(target).await {
            return None;
        }
        Some(pressure.why(target, now))
    }

    /// Whether it is a group that has offsets, though nobody reads for it now.
    async fn is_group(&self, target: &Entity) -> bool {
        match target.name.parse() {
            Ok(group) if target.kind == EntityKind::Group => {
                self.groups().describe(group).await.is_ok()
            }
            _ => false,
        }
    }

    /// All numbers under their names.
    pub fn metrics(&self) -> Sheet {
        let core = self.core();
        let metrics = &core.metrics;
        let mut sheet = Sheet::new();
        let counters = [
            ("stoplog_produce_requests_total", "Produce requests.", &metrics.produce_requests),
            (
                "stoplog_produce_bytes_total",
                "Bytes of acknowledged batches.",
                &metrics.produce_bytes,
            ),
            ("stoplog_produce_refused_total", "Batches refused at once.", &metrics.produce_refused),
            (
                "stoplog_produce_failed_total",
                "Admitted batches that failed.",
                &metrics.produce_failed,
            ),
            ("stoplog_fetch_requests_total", "Fetch requests.", &metrics.fetch_requests),
            ("stoplog_fetch_bytes_total", "Bytes of fetched batches.", &metrics.fetch_bytes),
            (
                "stoplog_dropped_bytes_total",
                "Bytes dropped by drop_oldest.",
                &metrics.dropped_bytes,
            ),
            (
                "stoplog_pressure_events_missed_total",
                "Events that __pressure never got.",
                &metrics.pressure_events_missed,
            ),
        ];
        for (name, help, counter) in counters {
            sheet.counter(name, help, counter);
        }
        sheet.histogram(
            "stoplog_produce_microseconds",
            "Time from admission to answer.",
            &metrics.produce_time_us,
        );
        let (free, mark) = core.flow.disk.free_and_mark();
        let (topics, partitions) = core.topics.now().counts();
        let gauges = [
            (
                "stoplog_inflight_bytes",
                "Bytes of produce requests in flight.",
                core.flow.pool.used(),
            ),
            ("stoplog_inflight_bytes_max", "Most bytes in flight.", core.flow.pool.limit()),
            (
                "stoplog_fetch_inflight_bytes",
                "Bytes of fetch answers.",
                core.flow.reads.pool.used(),
            ),
            ("stoplog_publishers", "Open publishers.", core.flow.seats.publishers()),
            ("stoplog_disk_free_bytes", "Free disk space.", free),
            ("stoplog_disk_full_bytes", "Free space that counts as full.", mark),
            ("stoplog_topics", "Topics.", topics),
            ("stoplog_partitions", "Partitions.", partitions),
        ];
        for (name, help, value) in gauges {
            sheet.push(name, help, Reading::Gauge(value));
        }
        self.pressure_metrics(&mut sheet);
        sheet
    }

    /// Who was limited for how long, and what callers were told.
    fn pressure_metrics(&self, sheet: &mut Sheet) {
        let core = self.core();
        let now = core.env.clock.monotonic();
        let totals = limited_totals(core.flow.pressure.registry(), CLIENTS_MAX, now);
        for (entity, cause, ms) in totals {
            let labels = vec![("entity", entity.to_string()), ("cause", Cause::name(cause).into())];
            let seconds = Reading::Counter(ms / 1_000);
            let help = "Seconds in which a cause limited an entity.";
            sheet.push_of("stoplog_limited_seconds_total", help, labels, seconds);
        }
        sheet.push(
            "stoplog_retry_after_ms",
            "How long refused callers were told to wait.",
            Reading::Histogram(core.flow.pressure.retry_after_ms()),
        );
        if let Some(seconds) = core.flow.disk_pressure().seconds_to_full {
            let help = "When the disk will be full if it goes on so.";
            sheet.push("stoplog_disk_seconds_to_full", help, Reading::Gauge(seconds));
        }
        for (writer, verdict) in core.flow.verdicts().iter().enumerate() {
            let labels = vec![("writer", writer.to_string())];
            let help = "Bytes a log writer may have under way, as decided last.";
            let window = Reading::Gauge(verdict.window);
            sheet.push_of("stoplog_writer_window_bytes", help, labels, window);
        }
        self.group_metrics(sheet);
        for WouldRefuse { limit, refusals } in core.flow.would_refuse() {
            let help = "Refusals that a dry run, of everything or of a quota, did not make.";
            let labels = vec![("limit", limit)];
            sheet.push_of("stoplog_would_refuse_total", help, labels, Reading::Counter(refusals));
        }
        for quota in self.quotas(None) {
            let would: u64 = quota.used.iter().map(|used| used.would_throttle).sum();
            let labels = vec![("quota", quota.entity.to_string())];
            let help = "Refusals that a dry run of a quota would have made.";
            let reading = Reading::Counter(would);
            sheet.push_of("stoplog_quota_would_throttle_total", help, labels, reading);
        }
    }

    /// How groups keep up.
    fn group_metrics(&self, sheet: &mut Sheet) {
        let mut wanted: BTreeMap<GroupId, u64> = BTreeMap::new();
        for pace in self.core().group_paces() {
            let labels = vec![("group", pace.group.to_string()), ("topic", pace.topic.to_string())];
            let seconds = Reading::Gauge(pace.lag.as_secs());
            let help = "Age of the first record that a group has not committed.";
            sheet.push_of("stoplog_group_lag_seconds", help, labels, seconds);
            if let Some(desired) = pace.desired {
                let most = wanted.entry(pace.group).or_default();
                *most = desired.max(*most);
            }
        }
        for (group, desired) in wanted {
            let labels = vec![("group", group.to_string())];
            let help = "Consumers a group needs to keep up, by what comes in and what one reads.";
            let reading = Reading::Gauge(desired);
            sheet.push_of("stoplog_group_desired_consumers", help, labels, reading);
        }
    }

    fn pool_limits(&self) -> Vec<LimitUse> {
        let core = self.core();
        let now = core.env.clock.monotonic();
        let pool = core.flow.pool.refusals(now).map(|(scope, refused, since_ms)| LimitUse {
            limit: match scope {
                PushbackScope::Partition => "memory.inflight.partition",
                PushbackScope::Connection => "memory.inflight.connection",
                _ => "memory.inflight",
            }
            .to_owned(),
            scope: "broker".to_owned(),
            used: if scope == PushbackScope::Broker { core.flow.pool.used() } else { 0 },
            of: core.flow.pool.limit_of(scope),
            unit: "bytes".to_owned(),
            action: since_ms.map(|_| PushbackCode::ServerBusy),
            since_ms,
            refused,
        });
        let mut limits = Vec::from(pool);
        limits.push(LimitUse {
            limit: "memory.fetch".to_owned(),
            scope: "broker".to_owned(),
            used: core.flow.reads.pool.used(),
            of: core.flow.reads.pool.limit(),
            unit: "bytes".to_owned(),
            action: None,
            since_ms: None,
            refused: 0,
        });
        limits
    }

    fn disk_limit(&self) -> LimitUse {
        let core = self.core();
        let (refused, since_ms) = core.flow.disk.refusals(core.env.clock.monotonic());
        let (free, mark) = core.flow.disk.free_and_mark();
        let full = core.flow.disk.level() >= DiskLevel::Full || since_ms.is_some();
        LimitUse {
            limit: "disk.free".to_owned(),
            scope: "data dir".to_owned(),
            used: free,
            of: mark,
            unit: "bytes free".to_owned(),
            action: full.then_some(PushbackCode::DiskFull),
            since_ms,
            refused,
        }
    }

    fn topic_limits(&self) -> Vec<LimitUse> {
        let now = self.core().env.clock.monotonic();
        let limit = |topic: &super::Topic| {
            let of = topic.config().max_bytes?;
            let (refused, since_ms) = topic.flow.limit.refusals(now);
            Some(LimitUse {
                limit: "max_bytes".to_owned(),
                scope: format!("topic {}", topic.name()),
                used: topic.flow.limit.stored(),
                of,
                unit: "bytes".to_owned(),
                action: since_ms.map(|_| PushbackCode::TopicFull),
                since_ms,
                refused,
            })
        };
        self.topics().iter().filter_map(|topic| limit(topic)).collect()
    }
}
