//! See `record_records` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("record_records");
