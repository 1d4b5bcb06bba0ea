//! See `record_compress` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("record_compress");
