//! Everything about bytes at rest: the partition log against its model, formats, damaged files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "storage/fuzz_seeds.rs"]
mod fuzz_seeds;
