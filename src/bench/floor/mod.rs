//! The floor: what this machine can do at best, as parts and as a bare server that the ordinary
//! client drives.

mod answers;
mod parts;
mod pusher;
mod round;
mod server;
mod topics;

pub use parts::{Part, PartsOptions, measure};
pub use server::{Work, serve};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic under one of these locks ends the measurement anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
