//! The server over real sockets: every request, frames of every bad kind, limits, order, endings.

#![allow(clippy::disallowed_methods)] // tests measure and wait in the real world

#[path = "support/process.rs"]
#[expect(dead_code, reason = "each test binary uses its part")]
mod process;

mod server {
    mod endings;
    mod flow;
    mod full_disk;
    mod groups;
    mod hostile;
    mod kill;
    mod memory;
    mod order;
    mod peer;
    mod pressure;
    mod quotas;
    mod reads;
    mod requests;
    mod skips;
}
