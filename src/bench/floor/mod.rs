//! The floor: what this machine can do at best.

mod parts;

pub use parts::{Part, PartsOptions, measure};
