//! The outside world: time, randomness, files and maps. Everything above takes them from here, so
//! that it can run on a simulated disk and clock. Deliberately absent: sockets and threads.

mod capped;
mod clock;
mod disk;
mod latch;
mod mmap;
mod real;
mod rng;
pub mod sim;

pub use capped::CappedDisk;
pub use clock::{Clock, SystemClock};
pub use disk::{
    DirEntry, DirLock, Disk, File, OpenMode, Region, Space, read_full_at, write_all_at,
};
pub use latch::Latch;
pub use real::RealDisk;
pub use rng::{Rng, SeededRng, SystemRng};

use std::sync::Arc;

/// Everything the rooms above need from outside, cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids and jitter only; never for correctness.
    pub rng: Arc<dyn Rng>,
    /// Files.
    pub disk: Arc<dyn Disk>,
}
