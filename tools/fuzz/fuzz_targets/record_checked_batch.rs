//! See `record_checked_batch` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("record_checked_batch");
