//! Names and numbers every room shares: newtypes, limits and the facts that travel between rooms
//! which may not see each other. Deliberately absent: behaviour with I/O, time or randomness.

mod acks;
mod cause;
mod class;
mod describe;
mod error_code;
mod group;
mod ids;
mod name;
mod pressure;
mod pushback;
mod quantity;
mod quota;
mod topic;

pub use acks::{Acks, DurabilityLevel};
pub use cause::Cause;
pub use class::{Class, ClassError};
pub use describe::{
    ClusterInfo, CommittedOffset, GroupDescription, GroupListing, LimitUse, MemberDescription,
    PartitionDescription, PartitionHealth, TopicDescription,
};
pub use error_code::{ErrorCode, ErrorKind};
pub use group::{Assignor, GroupState, OffsetReset};
pub use ids::{
    LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicPartition,
};
pub use name::{GroupId, InvalidName, TopicName};
pub use pressure::{
    CauseShare, DiskPressure, Entity, EntityKind, InvalidEntityKind, Limited, MetricValue,
    PressureEvent, PressureQuery, PressureReport, WhyReport, WhyStep, WouldRefuse,
};
pub use pushback::{Effects, Pushback, PushbackCode, PushbackScope, Severity};
pub use quantity::{InvalidQuantity, format_bytes, format_duration, parse_bytes, parse_duration};
pub use quota::{
    Match, QUOTA_WEIGHT_DEFAULT, QuotaDescription, QuotaEntity, QuotaError, QuotaLimits, QuotaMode,
    QuotaUse, Resource,
};
pub use topic::{
    BacklogAction, BacklogLimit, CompressionHint, ConfigError, Durability, OnFull, Protect,
    TimestampType, TopicConfig,
};

/// Commit this was built from; `"unknown"` in a build that was not told, such as a development one.
pub const COMMIT: &str = match option_env!("STOPLOG_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
