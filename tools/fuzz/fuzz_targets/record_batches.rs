//! See `record_batches` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("record_batches");
