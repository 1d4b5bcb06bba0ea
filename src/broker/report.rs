//! What the broker says about itself: cluster info, pressure, metrics.

use super::facade::Broker;
use super::flow::DiskLevel;
use crate::metrics::{Counter, Histogram, Reading, Sheet};
use crate::types::{ClusterInfo, LimitUse, PressureReport, PushbackCode, PushbackScope};

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
}

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

    /// Every limit with its use, the binding ones first.
    pub fn pressure(&self) -> PressureReport {
        let mut limits = self.pool_limits();
        limits.push(self.disk_limit());
        limits.extend(self.topic_limits());
        limits.sort_by_key(|limit| limit.action.is_none());
        PressureReport { limits }
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
                core.flow.fetch_pool.used(),
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
        sheet
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
            used: core.flow.fetch_pool.used(),
            of: core.flow.fetch_pool.limit(),
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
