//! See `storage_slot` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_slot");
