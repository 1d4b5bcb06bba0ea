//! See `storage_epochs` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_epochs");
