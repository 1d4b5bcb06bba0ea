//! See `protocol_deframer` in `targets.rs`.
#![no_main]

stoplog_fuzz::target!("protocol_deframer");
