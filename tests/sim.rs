//! Everything that runs on the simulated disk: its own conformance, then crashes, faults and rot.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sim/conformance.rs"]
mod conformance;
#[path = "sim/corruption.rs"]
mod corruption;
#[path = "sim/disk_model.rs"]
mod disk_model;
#[path = "sim/exhaustive.rs"]
mod exhaustive;
#[path = "sim/explorer.rs"]
mod explorer;
#[path = "sim/flow/mod.rs"]
mod flow;
#[path = "sim/flow/amplify.rs"]
mod flow_amplify;
#[path = "sim/flow/backlog.rs"]
mod flow_backlog;
#[path = "sim/flow/lossy.rs"]
mod flow_lossy;
#[path = "sim/history.rs"]
mod history;
#[path = "sim/model.rs"]
mod model;
#[path = "sim/nth_fault.rs"]
mod nth_fault;
#[path = "sim/world.rs"]
mod world;
