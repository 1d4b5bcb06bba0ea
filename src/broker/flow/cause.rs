//! What limits somebody: one binding cause per stalled party (DESIGN section 4, `limited_by`).

use serde::{Deserialize, Serialize};

/// A cause. The later controller adds quotas, backlog and worker limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The consumer gave no more credit.
    CreditConsumer,
    /// The publisher used up its grant.
    Grant,
    /// The pool for bytes in flight.
    Pool,
    /// The partition's share of the pool, or its queue.
    Partition,
    /// The connection's share of the pool.
    Connection,
    /// The pool for fetched bytes.
    FetchPool,
    /// The limit on bytes per fetch.
    FetchBytes,
    /// No disk space for user data.
    DiskFull,
    /// The topic's `max_bytes`.
    TopicFull,
    /// The broker is shutting down.
    Draining,
}

impl Cause {
    /// The name as JSON and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::CreditConsumer => "credit_consumer",
            Cause::Grant => "grant",
            Cause::Pool => "pool",
            Cause::Partition => "partition",
            Cause::Connection => "connection",
            Cause::FetchPool => "fetch_pool",
            Cause::FetchBytes => "fetch_bytes",
            Cause::DiskFull => "disk_full",
            Cause::TopicFull => "topic_full",
            Cause::Draining => "draining",
        }
    }
}
