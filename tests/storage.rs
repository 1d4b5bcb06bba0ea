//! Everything about bytes at rest: the partition log against its model, formats, damaged files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "storage/engine.rs"]
mod engine;
#[path = "storage/format_doc.rs"]
mod format_doc;
#[path = "storage/fuzz_seeds.rs"]
mod fuzz_seeds;
#[path = "storage/golden_dir.rs"]
mod golden_dir;
#[path = "storage/model.rs"]
mod model;
#[path = "storage/reclaim.rs"]
mod reclaim;
#[path = "storage/removal.rs"]
mod removal;
#[path = "storage/rolls.rs"]
mod rolls;
#[path = "storage/starts.rs"]
mod starts;
#[path = "storage/world.rs"]
mod world;
