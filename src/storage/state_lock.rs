//! The lock around what readers know of a segment.
//!
//! # Invariants
//! A thread holds at most one of these locks, once: a reader that locks again while a writer waits
//! would wait for that writer, which waits for the reader. Checked wherever assertions are on.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A value that many read and one changes, for moments.
pub(crate) struct StateLock<T>(RwLock<T>);

/// The right to read.
pub(crate) struct Reading<'a, T> {
    value: RwLockReadGuard<'a, T>,
    _turn: Turn,
}

/// The right to change.
pub(crate) struct Changing<'a, T> {
    value: RwLockWriteGuard<'a, T>,
    _turn: Turn,
}

impl<T> StateLock<T> {
    pub(crate) fn new(value: T) -> StateLock<T> {
        StateLock(RwLock::new(value))
    }

    pub(crate) fn read(&self) -> Reading<'_, T> {
        let _turn = Turn::take();
        Reading { value: self.0.read().unwrap_or_else(PoisonError::into_inner), _turn }
    }

    pub(crate) fn write(&self) -> Changing<'_, T> {
        let _turn = Turn::take();
        Changing { value: self.0.write().unwrap_or_else(PoisonError::into_inner), _turn }
    }
}

impl<T> Deref for Reading<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Deref for Changing<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Changing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// This thread's one turn.
struct Turn;

impl Turn {
    fn take() -> Turn {
        if cfg!(debug_assertions) {
            assert!(!HELD.replace(true), "a segment's state was locked twice by one thread");
        }
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            HELD.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_is_the_rule() {
        let lock = StateLock::new(1);
        *lock.write() += 1;
        assert_eq!(*lock.read(), 2);
        assert_eq!(*lock.read(), 2);
    }

    #[test]
    #[should_panic(expected = "locked twice")]
    fn a_second_lock_is_a_defect_even_where_it_would_pass() {
        let lock = StateLock::new(1);
        let first = lock.read();
        assert_eq!(*first, *lock.read());
    }
}
