//! See `record_batch_header` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("record_batch_header");
