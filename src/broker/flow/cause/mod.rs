//! What limits somebody: one binding cause at a time (DESIGN section 4, `limited_by`), its name,
//! and for which part of the last minute it was binding.
//!
//! A [`Cause`] is a kind; a [`CauseId`] is a kind with the name it concerns, `backlog:email`, small
//! enough for an atomic.

mod meter;
mod names;
mod told;

pub use meter::{CauseMeter, Change};
pub use names::{CauseId, Names};

pub use crate::types::Cause;
