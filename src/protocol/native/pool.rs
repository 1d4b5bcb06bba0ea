//! Receive buffers that are used again: a fresh one costs a page fault for every 4 KiB.
//!
//! # Invariants
//! `retained_bytes <= retain_bytes_max`; a buffer is either retained, being filled, or owned by
//! the `Bytes` of its frames.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Capacity of the smallest buffer: what a connection needs that sends little.
pub const FIRST_BYTES: usize = 16 << 10;
/// Capacity of the usual buffer. The slack lets a 64 KiB batch and its frame fit.
pub const CHUNK_BYTES: usize = (64 << 10) + SLACK_BYTES;
const SLACK_BYTES: usize = 4 << 10;
/// 16 KiB, then 64 KiB, 80 KiB, 96 KiB, 112 KiB, 128 KiB, ... 16 MiB, each with the slack: a large
/// frame fills four fifths of the buffer that is made for it.
const CLASSES: usize = 34;

/// Free buffers, by size. Shared by all connections.
#[derive(Debug)]
pub struct BufferPool {
    free: [Mutex<Vec<Vec<u8>>>; CLASSES],
    retained_bytes: AtomicUsize,
    retain_bytes_max: usize,
}

fn class_bytes(class: usize) -> usize {
    let Some(step) = class.checked_sub(1) else { return FIRST_BYTES };
    ((16 << 10) << (step / 4)) * (4 + step % 4) + SLACK_BYTES
}

impl BufferPool {
    /// A pool that keeps at most so many bytes of free buffers.
    pub fn new(retain_bytes_max: usize) -> Arc<BufferPool> {
        Arc::new(BufferPool {
            free: std::array::from_fn(|_| Mutex::new(Vec::new())),
            retained_bytes: AtomicUsize::new(0),
            retain_bytes_max,
        })
    }

    /// An empty buffer of at least this capacity.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let Some(class) = (0..CLASSES).find(|class| class_bytes(*class) >= capacity) else {
            return Vec::with_capacity(capacity);
        };
        let free = self.free.get(class).and_then(|free| lock(free).pop());
        match free {
            Some(buffer) => {
                self.retained_bytes.fetch_sub(buffer.capacity(), Ordering::Relaxed);
                buffer
            }
            None => Vec::with_capacity(class_bytes(class)),
        }
    }

    /// Takes a buffer back, or frees it when enough are kept or none of the sizes is its.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let Some(class) = (0..CLASSES).find(|class| class_bytes(*class) == capacity) else {
            return;
        };
        let retained = self.retained_bytes.fetch_add(capacity, Ordering::Relaxed);
        if retained + capacity > self.retain_bytes_max {
            self.retained_bytes.fetch_sub(capacity, Ordering::Relaxed);
            return;
        }
        buffer.clear();
        if let Some(free) = self.free.get(class) {
            lock(free).push(buffer);
        }
    }

    /// Bytes of free buffers kept now.
    pub fn retained_bytes(&self) -> usize {
        self.retained_bytes.load(Ordering::Relaxed)
    }

    /// Turns a filled buffer into shared bytes; it comes back when the last of them is dropped.
    pub fn share(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, pool: Arc::clone(self) })
    }
}

fn lock(free: &Mutex<Vec<Vec<u8>>>) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    // A list of free buffers is whole at any moment.
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Lent {
    buffer: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_buffer_comes_back_with_its_last_slice() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take(100_000);
        assert_eq!(buffer.capacity(), (96 << 10) + SLACK_BYTES);
        buffer.extend_from_slice(b"batch");
        let bytes = pool.share(buffer);
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert_eq!((&slice[..], pool.retained_bytes()), (&b"at"[..], 0));
        drop(slice);
        assert_eq!(pool.retained_bytes(), (96 << 10) + SLACK_BYTES);
        assert_eq!(pool.take(CHUNK_BYTES + (16 << 10) + 1).len(), 0);
        assert_eq!(pool.retained_bytes(), 0);
    }

    #[test]
    fn a_frame_fills_four_fifths_of_its_buffer() {
        let pool = BufferPool::new(0);
        assert_eq!(class_bytes(CLASSES - 1), (16 << 20) + SLACK_BYTES);
        for size in (CHUNK_BYTES..16 << 20).step_by(10_007) {
            let capacity = pool.take(size).capacity();
            assert!(size <= capacity && size * 5 >= (capacity - SLACK_BYTES) * 4, "{capacity}");
        }
        assert_eq!(pool.take(100).capacity(), FIRST_BYTES);
        assert_eq!(pool.take(FIRST_BYTES + 1).capacity(), CHUNK_BYTES);
    }

    #[test]
    fn no_more_than_the_limit_is_kept() {
        let pool = BufferPool::new(CHUNK_BYTES * 2);
        let taken: Vec<_> = (0..4).map(|_| pool.take(CHUNK_BYTES)).collect();
        taken.into_iter().for_each(|buffer| pool.give_back(buffer));
        assert_eq!(pool.retained_bytes(), CHUNK_BYTES * 2);
        pool.give_back(Vec::with_capacity(10)); // not one of ours
        assert_eq!(pool.retained_bytes(), CHUNK_BYTES * 2);
    }
}
