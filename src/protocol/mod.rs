//! Bytes to requests and responses. Pure: no I/O, no async, no broker. Every length and every
//! count is checked against the bytes that are left before anything is allocated (DESIGN D9).

#![deny(clippy::indexing_slicing)]

pub mod native;
