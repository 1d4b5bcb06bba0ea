//! The window of one log writer: how many bytes may be under way to it (DESIGN section 4, the
//! controller).
//!
//! The gauge is what the hot path touches: a few atomics per batch. The controller is what decides,
//! ten times a second, from the *shortest* time a batch took in the interval: a single slow sync
//! never moves it far, a queue that stands does.
//!
//! # Invariants
//! `window_min <= window <= window_max`. One interval alone never makes a writer busy. A writer with
//! nothing under way takes any batch.

mod controller;
mod gauge;
pub(super) mod minute;

pub use controller::{Controller, ControllerOptions, Demand, Interval, Verdict};
pub use gauge::{Full, Level, Seen, Within, WriterGauge};

/// How loaded a writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Load {
    /// Batches take no longer than the target.
    #[default]
    Calm = 0,
    /// They take longer, and the window shrinks.
    Slow = 1,
    /// They took far too long for a while, or the pool is nearly full: the lower classes are shed.
    Busy = 2,
}

impl Load {
    /// Back from the number an atomic holds.
    fn from_u8(number: u8) -> Load {
        match number {
            0 => Load::Calm,
            1 => Load::Slow,
            _ => Load::Busy,
        }
    }
}
