//! The async Rust client: `Client::connect`, then `producer`, `consumer`, `admin`.
//!
//! One connection carries everything, multiplexed; when it breaks it is made anew and what may be
//! sent again is. Every future may be dropped at any point without harm. Errors say what to do
//! (`kind()`), when (`retry_after()`), and by which limit (`pushback()`).

mod admin;
mod connection;
mod consumer;
mod core;
mod error;
pub mod flow;
mod moment;
mod options;
mod partitioner;
mod producer;

pub use self::core::{Client, Topic};
pub use admin::{Admin, Listing, Move, Run};
pub use consumer::{ConsumedRecord, Consumer, RawBatches, Rebalance, RecordStream};
pub use error::ClientError;
pub use options::{
    ClientOptions, CommitMode, ConsumerOptions, Idempotence, ProducerOptions, Reading, StartAt,
    StopAt,
};
pub use partitioner::{murmur2, partition_for_key};
pub use producer::{
    BatchDelivery, BatchSender, Delivered, DeliveredBatch, Delivery, LostRange, NewRecord,
    Producer, TrySendError,
};
