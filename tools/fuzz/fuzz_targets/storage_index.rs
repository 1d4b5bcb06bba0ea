//! See `storage_index` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_index");
