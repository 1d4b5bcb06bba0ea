//! See `storage_meta` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_meta");
