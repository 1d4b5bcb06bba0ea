//! What a topic means: one facade, `Broker`; catalog, partitions, groups, and everything that
//! limits. Deliberately absent: sockets and wire bytes.

pub mod encoding;
mod error;
pub mod flow;
pub mod groups;
mod request;

pub use error::{
    AlterTopicError, CommitError, CreateTopicError, DeleteTopicError, FetchError,
    InitProducerError, OpenError, ProduceError, TrimError,
};
pub use request::{
    FetchPartition, FetchRequest, FetchResponse, Fetched, FetchedPartition, FoundOffset, NewTopic,
    OffsetQuery, ProduceDone, ProduceRequest, Produced, ProducerIdentity, ReadMode, ShutdownMode,
};
