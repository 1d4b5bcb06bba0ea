//! The pool for bytes that are read: from the plan until they are sent.
//!
//! Who finds it empty waits in line, and the first of the line gets what comes back: nobody overtakes
//! and nobody is woken in vain. As every reader asks for one slice at a time, the line is a round robin
//! over readers.
//!
//! # Invariants
//! `used <= limit`, but for what was overdrawn: a first batch may be larger than what was asked for,
//! and a connection that has nothing on its way is not kept waiting by those that do not read. What is
//! overdrawn is paid back before anybody gets more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};

/// The pool counts in units of so many bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// The pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FetchPool(Arc<State>);

#[derive(Debug)]
struct State {
    units: usize,
    room: Semaphore,
    /// Units that are held and were not there.
    overdrawn: AtomicUsize,
}

/// Bytes of the fetch pool, held until it is dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives its bytes back at once"]
pub struct FetchPermit {
    pool: FetchPool,
    units: usize,
    bytes: u64,
    /// Dropped with it.
    entered: Option<Entered>,
}

/// What was read for one connection and is not sent yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OnTheWay(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    permits: AtomicUsize,
    /// There are none any more.
    none: Notify,
}

/// Counts one permit.
#[derive(Debug)]
struct Entered(OnTheWay);

impl OnTheWay {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.permits.load(Ordering::Acquire) == 0
    }

    fn enter(&self) -> Entered {
        self.0.permits.fetch_add(1, Ordering::AcqRel);
        Entered(self.clone())
    }

    fn enter_alone(&self) -> Option<Entered> {
        let first = self.0.permits.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
        first.is_ok().then(|| Entered(self.clone()))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.0.permits.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.none.notify_one();
        }
    }
}

impl FetchPool {
    /// A pool of `limit` bytes.
    pub fn new(limit: u64) -> FetchPool {
        let units = units(limit).clamp(1, Semaphore::MAX_PERMITS);
        let (room, overdrawn) = (Semaphore::new(units), AtomicUsize::new(0));
        FetchPool(Arc::new(State { units, room, overdrawn }))
    }

    /// Takes up to `wanted` bytes; fewer, perhaps 0, when the pool is short.
    pub fn take(&self, wanted: u64) -> FetchPermit {
        self.permit(self.try_take(units(wanted)), wanted)
    }

    /// Takes `wanted` bytes, all of the pool at most, once everybody who asked before has got his.
    pub async fn wait(&self, wanted: u64) -> FetchPermit {
        let units = units(wanted).clamp(1, self.0.units);
        if let Ok(permit) = self.0.room.acquire_many(narrow(units)).await {
            permit.forget();
        } // else: never closed
        self.permit(units, wanted)
    }

    /// Takes `wanted` bytes for a connection: in its turn, or as soon as it has nothing on the way.
    /// So those that do not read what they asked for hold up nobody but themselves.
    pub async fn turn(&self, wanted: u64, on_the_way: &OnTheWay) -> FetchPermit {
        let mut line = std::pin::pin!(self.wait(wanted));
        loop {
            if let Some(permit) = self.alone(wanted, on_the_way) {
                return permit;
            }
            tokio::select! {
                biased;
                mut permit = &mut line => {
                    permit.entered = Some(on_the_way.enter());
                    return permit;
                }
                () = on_the_way.0.none.notified() => {}
            }
        }
    }

    /// Takes `wanted` bytes at once when a connection has nothing on the way.
    pub fn alone(&self, wanted: u64, on_the_way: &OnTheWay) -> Option<FetchPermit> {
        let entered = on_the_way.enter_alone()?;
        let mut permit = self.overdraw(wanted);
        permit.entered = Some(entered);
        Some(permit)
    }

    /// Takes `wanted` bytes whatever there is.
    pub fn overdraw(&self, wanted: u64) -> FetchPermit {
        let mut permit = self.take(wanted);
        permit.resize(wanted);
        permit
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        let free = self.0.room.available_permits().min(self.0.units);
        bytes(self.0.units - free + self.0.overdrawn.load(Ordering::Relaxed))
    }

    /// Bytes there are.
    pub fn limit(&self) -> u64 {
        bytes(self.0.units)
    }

    fn permit(&self, units: usize, wanted: u64) -> FetchPermit {
        let bytes = wanted.min(bytes(units));
        FetchPermit { pool: self.clone(), units, bytes, entered: None }
    }

    fn try_take(&self, wanted: usize) -> usize {
        loop {
            let units = wanted.min(self.0.room.available_permits());
            if units == 0 {
                return 0;
            }
            if let Ok(permit) = self.0.room.try_acquire_many(narrow(units)) {
                permit.forget();
                return units;
            } // somebody else was faster: what is left now?
        }
    }

    fn give(&self, units: usize) {
        let mut back = units;
        let pay = |owed: usize| {
            back = units.saturating_sub(owed);
            Some(owed.saturating_sub(units))
        };
        let _ = self.0.overdrawn.fetch_update(Ordering::AcqRel, Ordering::Acquire, pay);
        self.0.room.add_permits(back);
    }
}

impl FetchPermit {
    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts it among what is on the way to a connection, unless it is counted.
    pub fn count_for(&mut self, on_the_way: &OnTheWay) {
        self.entered.get_or_insert_with(|| on_the_way.enter());
    }

    /// Takes more, up to `wanted` in all, as far as there is.
    pub fn top_up(&mut self, wanted: u64) {
        let missing = units(wanted).saturating_sub(self.units);
        self.units += self.pool.try_take(missing);
        self.bytes = self.bytes.max(wanted.min(bytes(self.units)));
    }

    /// Keeps what is really used. A first batch may be larger than what was taken; the excess is
    /// overdrawn.
    pub fn resize(&mut self, bytes: u64) {
        let wanted = units(bytes);
        if wanted < self.units {
            self.pool.give(self.units - wanted);
        } else {
            let missing = wanted - self.units;
            let owed = missing - self.pool.try_take(missing);
            self.pool.0.overdrawn.fetch_add(owed, Ordering::AcqRel);
        }
        (self.units, self.bytes) = (wanted, bytes);
    }
}

impl Drop for FetchPermit {
    fn drop(&mut self) {
        if self.units > 0 {
            self.pool.give(self.units);
        }
    }
}

fn units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX)
}

fn bytes(units: usize) -> u64 {
    (units as u64).saturating_mul(UNIT_BYTES)
}

fn narrow(units: usize) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use proptest::prelude::*;

    use super::*;
    use by_hand::Wait;

    const KIB: u64 = 1 << 10;

    #[test]
    fn a_short_pool_gives_what_it_has() {
        let pool = FetchPool::new(100 * KIB);
        let mut first = pool.take(80 * KIB);
        let second = pool.take(80 * KIB);
        assert_eq!((second.bytes(), pool.used()), (20 * KIB, 100 * KIB));
        first.resize(130 * KIB);
        assert_eq!((pool.take(1).bytes(), pool.used()), (0, 150 * KIB));
        drop(second);
        assert_eq!(pool.take(1).bytes(), 0, "what was overdrawn comes first");
        first.resize(10);
        assert_eq!((first.bytes(), pool.used()), (10, KIB));
        first.top_up(200 * KIB);
        assert_eq!(first.bytes(), 100 * KIB);
        drop(first);
        assert_eq!(pool.used(), 0);
    }

    /// Waits of readers in the order they began, polled by hand.
    #[test]
    fn the_first_in_line_is_served_first_and_alone() {
        let pool = FetchPool::new(100 * KIB);
        let all = pool.take(100 * KIB);
        let mut waits: Vec<_> = (0..3).map(|_| Wait::new(pool.wait(60 * KIB))).collect();
        assert!(waits.iter_mut().all(|wait| wait.poll().is_pending()));
        drop(all);
        assert!(waits.iter().map(|wait| wait.woken()).eq([true, false, false]));
        let Poll::Ready(first) = waits[0].poll() else { panic!("its turn") };
        assert_eq!(pool.take(KIB).bytes(), 0, "nobody overtakes the second");
        assert!(waits[1].poll().is_pending());
        drop(first);
        assert!(waits[1].woken() && !waits[2].woken());
        assert!(matches!(waits[1].poll(), Poll::Ready(_)));
    }

    #[test]
    fn whoever_has_nothing_on_the_way_is_not_kept_waiting() {
        let (pool, one, other) =
            (FetchPool::new(100 * KIB), OnTheWay::default(), OnTheWay::default());
        let turn = |on_the_way| pool.turn(60 * KIB, on_the_way);
        let Poll::Ready(stalled) = Wait::new(turn(&one)).poll() else { panic!("it is free") };
        let mut second = Wait::new(turn(&one));
        assert!(second.poll().is_pending(), "40 KiB are left, and it has something on the way");
        let Poll::Ready(first) = Wait::new(turn(&other)).poll() else { panic!("nothing is") };
        assert!(pool.used() >= 120 * KIB && !other.is_empty());
        let mut next = Wait::new(turn(&other));
        assert!(next.poll().is_pending(), "behind the second");
        drop(first);
        assert!(next.woken() && !second.woken());
        let Poll::Ready(next) = next.poll() else { panic!("nothing of it is on the way") };
        drop((next, stalled));
        let Poll::Ready(second) = second.poll() else { panic!("its turn") };
        drop(second);
        assert_eq!((pool.used(), one.is_empty(), other.is_empty()), (0, true, true));
    }

    /// A future that is polled by hand and says whether it was woken.
    mod by_hand {
        use std::pin::Pin;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::task::{Context, Poll, Wake};

        use super::FetchPermit;

        struct Flag(AtomicBool);

        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::SeqCst);
            }
        }

        pub(super) struct Wait<'a> {
            future: Pin<Box<dyn Future<Output = FetchPermit> + 'a>>,
            flag: Arc<Flag>,
        }

        impl<'a> Wait<'a> {
            pub(super) fn new(future: impl Future<Output = FetchPermit> + 'a) -> Wait<'a> {
                let flag = Arc::new(Flag(AtomicBool::new(false)));
                Wait { future: Box::pin(future), flag }
            }

            pub(super) fn poll(&mut self) -> Poll<FetchPermit> {
                let waker = Arc::clone(&self.flag).into();
                self.future.as_mut().poll(&mut Context::from_waker(&waker))
            }

            pub(super) fn woken(&self) -> bool {
                self.flag.0.load(Ordering::SeqCst)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_used_is_what_is_held(
            steps in prop::collection::vec((0u8..5, 0u64..200_000, any::<prop::sample::Index>()), 1..200)
        ) {
            let pool = FetchPool::new(128 * KIB);
            let mut held: Vec<FetchPermit> = Vec::new();
            for (step, size, pick) in steps {
                match step {
                    0 => held.push(pool.take(size)),
                    1 => held.push(pool.overdraw(size)),
                    _ if held.is_empty() => {}
                    2 => drop(held.swap_remove(pick.index(held.len()))),
                    3 => { let at = pick.index(held.len()); held[at].resize(size); }
                    _ => { let at = pick.index(held.len()); held[at].top_up(size); }
                }
                let sum: u64 = held.iter().map(|permit| permit.bytes().div_ceil(KIB) * KIB).sum();
                prop_assert!(pool.used() >= sum && pool.used() <= sum + held.len() as u64 * KIB);
            }
            held.clear();
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
