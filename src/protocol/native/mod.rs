//! The native protocol, version 1 (`docs/protocol.md` describes it byte by byte).
//!
//! One file per frame type; each holds the structs of its request and answer. [`frame`] has the
//! fixed header, [`deframer`] turns received bytes into frames, [`wire`] the primitive encodings.
//! Deliberately absent: sockets, time, and any knowledge of what a request means.

#[macro_use]
mod macros;
mod pressure_report;
#[cfg(test)]
mod sample;
mod shared;
pub mod wire;

pub mod answer;
pub mod deframer;
pub mod frame;
pub mod pool;

pub mod batches;
pub mod cluster_info;
pub mod credit;
pub mod fetch;
pub mod goodbye;
pub mod grant;
pub mod group_commit;
pub mod group_committed;
pub mod group_delete;
pub mod group_describe;
pub mod group_heartbeat;
pub mod group_list;
pub mod group_reset;
pub mod hello;
pub mod list_offsets;
pub mod metadata;
pub mod partitions_add;
pub mod pause;
pub mod ping;
pub mod pressure;
pub mod produce;
pub mod producer_init;
pub mod publisher_close;
pub mod publisher_open;
pub mod pushback;
pub mod quota_delete;
pub mod quota_list;
pub mod quota_set;
pub mod resume;
pub mod seek;
pub mod subscribe;
pub mod subscription_end;
pub mod topic_alter;
pub mod topic_create;
pub mod topic_delete;
pub mod topic_describe;
pub mod topic_list;
pub mod trim;
pub mod unsubscribe;
pub mod want;
pub mod why;

pub use answer::{ErrorAnswer, ErrorDetail};
pub use deframer::{Deframer, Received, Refused, Skipped, fuzz_deframer};
pub use frame::{
    Call, Frame, FrameError, FrameFlags, FrameHeader, FrameLimits, FrameType, HEADER_BYTES, Notice,
    encode_answer, encode_call, encode_error, encode_notice, fuzz_frame,
};
pub use pool::BufferPool;
pub use wire::{DecodeError, Reader, Wire};

/// Lowest protocol version this build speaks.
pub const VERSION_MIN: u16 = 1;
/// Highest protocol version this build speaks.
pub const VERSION_MAX: u16 = 1;

/// Runs a macro over the modules of all calls and of all notices.
macro_rules! every_frame {
    ($run:ident) => {
        $run! {
            calls: [hello ping metadata topic_create topic_delete topic_alter partitions_add topic_describe topic_list producer_init publisher_open publisher_close produce fetch subscribe unsubscribe seek pause resume list_offsets trim group_heartbeat group_commit group_committed group_describe group_list group_delete group_reset pressure cluster_info quota_set quota_delete quota_list why];
            notices: [goodbye grant want pushback credit batches subscription_end];
        }
    };
}

macro_rules! fuzz_every_body {
    (calls: [$($call:ident)*]; notices: [$($notice:ident)*];) => {
        /// Decodes bytes as the control part of every frame; what decodes must encode back.
        fn fuzz_bodies(bytes: &[u8]) {
            fn one<T: Wire>(bytes: &[u8]) {
                if let Ok(value) = T::decode(bytes) {
                    let mut again = Vec::new();
                    value.put(&mut again);
                    assert!(again.len() == bytes.len(), "a layout has one encoding");
                }
            }
            $(one::<$call::Request>(bytes); one::<$call::Response>(bytes);)*
            $(one::<$notice::Request>(bytes);)*
            one::<ErrorAnswer>(bytes);
        }
    };
}

every_frame!(fuzz_every_body);

#[cfg(test)]
mod tests;
