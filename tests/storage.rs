//! Everything about bytes at rest: the partition log against its model, formats, damaged files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "storage/engine.rs"]
mod engine;
#[path = "storage/fuzz_seeds.rs"]
mod fuzz_seeds;
#[path = "storage/model.rs"]
mod model;
#[path = "storage/world.rs"]
mod world;
