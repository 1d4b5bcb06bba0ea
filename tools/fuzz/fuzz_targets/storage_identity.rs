//! See `storage_identity` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_identity");
