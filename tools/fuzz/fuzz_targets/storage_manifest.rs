//! See `storage_manifest` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("storage_manifest");
