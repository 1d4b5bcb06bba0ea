//! The simulated world: a disk in memory that forgets like a real one, and a clock one sets.
//!
//! The disk keeps every unsynced version of every 512-byte sector, every unsynced length and every
//! unsynced change of a directory, so that a crash can leave any combination the promises in
//! [`super::Disk`] allow: [`SimDisk::image`] by seed, [`SimDisk::image_by`] by exhaustive choice.
//! Forking is cheap (contents are shared until written), so a test can crash a run at each of its
//! operations. Deliberately absent: threads, time that passes by itself, partial directory blocks.
//!
//! # Example
//! ```
//! use std::path::Path;
//! use stoplog::env::sim::{Bias, Crash, sim_env};
//! use stoplog::env::{Disk, OpenMode, write_all_at};
//!
//! # fn main() -> std::io::Result<()> {
//! let (env, disk, _clock) = sim_env(7);
//! let file = env.disk.open(Path::new("f"), OpenMode::CreateNew)?;
//! env.disk.sync_dir(Path::new(""))?;
//! write_all_at(&*file, b"never synced", 0)?;
//! let after = disk.crash(Crash { bias: Bias::Nothing, seed: 1 });
//! assert_eq!(after.read_file("f").as_deref(), Some(&b""[..]));
//! # Ok(())
//! # }
//! ```

mod clock;
mod crash;
mod disk;
mod edit;
mod faults;
mod file;
mod image;
mod state;
mod tree;

pub use clock::SimClock;
pub use crash::{Bias, Crash, Unit};
pub use disk::SimDisk;
pub use faults::{Fault, Op};

use std::sync::Arc;

use super::{Env, SeededRng};

/// A world of its own: an empty disk, a clock at a fixed moment, reproducible randomness.
pub fn sim_env(seed: u64) -> (Env, SimDisk, SimClock) {
    let disk = SimDisk::new(seed);
    let clock = SimClock::new();
    (env_on(&disk, &clock, seed), disk, clock)
}

/// The world around an existing disk and clock: what a process started after a crash sees.
pub fn env_on(disk: &SimDisk, clock: &SimClock, seed: u64) -> Env {
    Env {
        clock: Arc::new(clock.clone()),
        rng: Arc::new(SeededRng::new(seed)),
        disk: Arc::new(disk.clone()),
    }
}
