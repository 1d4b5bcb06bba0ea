//! The client against a real broker and server in this process, over TCP, with a relay between
//! them that can cut the line; and the command line, as the real binary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "clients/cli/mod.rs"]
mod cli;
#[path = "clients/consume.rs"]
mod consume;
#[path = "clients/examples.rs"]
mod examples;
#[path = "clients/groups.rs"]
mod groups;
#[path = "clients/power.rs"]
mod power;
#[path = "support/process.rs"]
#[expect(dead_code, reason = "each test binary uses its part")]
mod process;
#[path = "clients/produce.rs"]
mod produce;
#[path = "clients/relay.rs"]
mod relay;
#[path = "clients/world.rs"]
mod world;
