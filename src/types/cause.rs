//! What limits somebody, as a kind: one is binding at a time (DESIGN section 4, `limited_by`).
//!
//! Deliberately absent: causes nothing can set yet (unacknowledged deliveries, lock keys, replicas,
//! object stores, CPU, network).

use serde::{Deserialize, Serialize};

use super::{Pushback, PushbackCode, PushbackScope};

/// A cause. The numbers are the wire's and never change; 0 is "nothing".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Cause {
    /// The consumer gave no more credit.
    CreditConsumer = 1,
    /// The publisher used up its grant.
    Grant = 2,
    /// The window of the log writer.
    Window = 3,
    /// The disk takes long to make writes durable.
    Fsync = 4,
    /// The pool for bytes in flight.
    Pool = 5,
    /// The partition's share of the pool, or its queue.
    Partition = 6,
    /// The connection's share of the pool.
    Connection = 7,
    /// The pool for fetched bytes.
    FetchPool = 8,
    /// The limit on bytes per fetch.
    FetchBytes = 9,
    /// The share of the disk that reads of old data have.
    ColdReads = 10,
    /// The serving threads' time, half of which is kept for deliveries.
    Serving = 11,
    /// A quota.
    Quota = 12,
    /// Little disk space is left.
    DiskLow = 13,
    /// Very little is left: ingest is slowed to what is reclaimed.
    DiskHigh = 14,
    /// No disk space for user data.
    DiskFull = 15,
    /// The topic's own limit.
    TopicFull = 16,
    /// A group that must not fall further behind.
    Backlog = 17,
    /// The broker is shutting down.
    Draining = 18,
}

impl Cause {
    /// All causes, in wire order.
    pub const ALL: [Cause; 18] = [
        Cause::CreditConsumer,
        Cause::Grant,
        Cause::Window,
        Cause::Fsync,
        Cause::Pool,
        Cause::Partition,
        Cause::Connection,
        Cause::FetchPool,
        Cause::FetchBytes,
        Cause::ColdReads,
        Cause::Serving,
        Cause::Quota,
        Cause::DiskLow,
        Cause::DiskHigh,
        Cause::DiskFull,
        Cause::TopicFull,
        Cause::Backlog,
        Cause::Draining,
    ];

    /// The name as JSON and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::CreditConsumer => "credit_consumer",
            Cause::Grant => "grant",
            Cause::Window => "window",
            Cause::Fsync => "fsync",
            Cause::Pool => "pool",
            Cause::Partition => "partition",
            Cause::Connection => "connection",
            Cause::FetchPool => "fetch_pool",
            Cause::FetchBytes => "fetch_bytes",
            Cause::ColdReads => "cold_reads",
            Cause::Serving => "serving",
            Cause::Quota => "quota",
            Cause::DiskLow => "disk_low",
            Cause::DiskHigh => "disk_high",
            Cause::DiskFull => "disk_full",
            Cause::TopicFull => "topic_full",
            Cause::Backlog => "backlog",
            Cause::Draining => "draining",
        }
    }

    /// The wire's number.
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.as_u8() == number)
    }

    /// What a publisher is told that may send nothing because of it. `name` is what it concerns, the
    /// group of a backlog; empty when the kind says it all.
    pub fn withholds(self, name: &str) -> Pushback {
        use {PushbackCode as Code, PushbackScope as Scope};
        let (code, scope, limit) = match self {
            Cause::Backlog => (Code::BacklogLimit, Scope::Group, "backlog"),
            Cause::TopicFull => (Code::TopicFull, Scope::Topic, "topic"),
            Cause::DiskLow => (Code::DiskLow, Scope::DataDir, "disk:low"),
            Cause::DiskHigh => (Code::DiskLow, Scope::DataDir, "disk:high"),
            Cause::DiskFull => (Code::DiskFull, Scope::DataDir, "disk:full"),
            Cause::Quota => (Code::ThrottledRate, Scope::Principal, "quota"),
            Cause::Draining => (Code::Draining, Scope::Broker, "draining"),
            Cause::Grant => (Code::ServerBusy, Scope::Publisher, "grant"),
            Cause::Partition => (Code::ServerBusy, Scope::Partition, "partition"),
            Cause::Connection => (Code::ServerBusy, Scope::Connection, "connection"),
            other => (Code::ServerBusy, Scope::Broker, other.name()),
        };
        let limit_id = if name.is_empty() { limit.to_owned() } else { format!("{limit}:{name}") };
        Pushback::hold(code, scope, limit_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_and_names_are_one_to_one() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_u8(cause.as_u8()), Some(cause));
            let same = Cause::ALL.into_iter().filter(|other| other.name() == cause.name());
            assert_eq!(same.count(), 1);
        }
        assert_eq!((Cause::from_u8(0), Cause::from_u8(19)), (None, None));
    }

    #[test]
    fn what_withholds_a_grant_is_named_as_its_refusals_name_it() {
        let told = Cause::Backlog.withholds("email");
        assert_eq!(
            (told.code, told.limit_id.as_str()),
            (PushbackCode::BacklogLimit, "backlog:email")
        );
        assert_eq!(Cause::TopicFull.withholds("").limit_id, "topic");
        assert_eq!(Cause::Fsync.withholds("").limit_id, "fsync");
    }
}
