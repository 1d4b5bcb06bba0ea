//! See `storage_footer` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_footer");
