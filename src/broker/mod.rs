//! What a topic means: one facade, [`Broker`]; catalog, partitions, groups, and everything that
//! limits. Deliberately absent: sockets and wire bytes.
//!
//! A request goes facade -> topic table (no lock) -> flow control -> storage. Everything durable of
//! the broker itself goes through an internal log: a record is committed, then applied.

mod backlog;
mod catalog;
mod coordinator;
mod core;
pub mod encoding;
mod error;
mod facade;
mod fetch;
pub mod flow;
pub mod groups;
mod housekeeping;
mod internal_log;
mod lifecycle;
mod metric_values;
mod names;
mod offsets;
mod options;
mod pressure;
mod pressure_topic;
mod produce;
mod producer_ids;
mod quotas;
mod read;
mod report;
mod request;
mod space;
mod topic;
mod topics;

pub use crate::storage::RoundEnd;
pub use coordinator::GroupHandle;
pub use error::{
    AlterTopicError, CommitError, CreateTopicError, DeleteTopicError, FetchError,
    InitProducerError, OpenError, ProduceError, QuotaChangeError, ReservedTopic, TrimError,
};
pub use facade::Broker;
pub use internal_log::InternalId;
pub use names::topic_names;
pub use options::{BrokerOptions, HousekeepingOptions, LimitOptions};
pub use request::{
    FetchPartition, FetchRequest, FetchResponse, Fetched, FetchedPartition, FoundOffset, NewTopic,
    OffsetQuery, ProduceDone, ProduceRequest, Produced, ProducerIdentity, ReadMode, ShutdownMode,
};
pub use topic::{PartitionHandle, Topic};
