//! The broker as a library, on the simulated disk: topics, produce and fetch, limits, restarts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "broker/backlog.rs"]
mod backlog;
#[path = "broker/enforcement.rs"]
mod enforcement;
#[path = "broker/groups.rs"]
mod groups;
#[path = "broker/limits.rs"]
mod limits;
#[path = "broker/pressure.rs"]
mod pressure;
#[path = "broker/produce_fetch.rs"]
mod produce_fetch;
#[path = "broker/quotas.rs"]
mod quotas;
#[path = "broker/reclaim.rs"]
mod reclaim;
#[path = "broker/restart.rs"]
mod restart;
#[path = "broker/topics.rs"]
mod topics;
#[path = "broker/world.rs"]
mod world;
