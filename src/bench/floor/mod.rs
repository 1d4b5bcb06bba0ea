//! The floor: what this machine can do at best, as parts and as a bare server that the ordinary
//! client drives.

mod parts;
mod server;
mod topics;

pub use parts::{Part, PartsOptions, measure};
pub use server::serve;
