//! See `record_decompress` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("record_decompress");
