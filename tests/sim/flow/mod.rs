//! Flow control as a whole: the real [`stoplog::broker::flow::Flow`] between simulated clients and
//! model log writers, by seed.

mod client;
mod consumer;
mod delivery;
mod fairness;
mod overload;
pub mod world;
mod writer;

pub use client::{Behaviour, Client, Plan};
pub use consumer::Habit;
pub use world::FlowSim;
pub use writer::{Fsync, ModelWriter};
