//! See `protocol_frame` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("protocol_frame");
