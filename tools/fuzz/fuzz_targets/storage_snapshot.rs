//! See `storage_snapshot` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_snapshot");
