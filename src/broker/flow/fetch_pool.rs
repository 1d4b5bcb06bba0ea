//! The pool for bytes that are read: from the plan until they are sent.
//!
//! Who finds it empty waits in line, and the first of the line gets what comes back: nobody overtakes
//! and nobody is woken in vain. As every reader asks for one slice at a time, the line is a round robin
//! over readers.
//!
//! A tenth is kept for reads of the tail: whoever only has to follow what is written is not behind
//! those that catch up, however many they are and however slowly they take what they asked for.
//!
//! # Invariants
//! `used <= limit`, and `used <= limit - kept` without reads of the tail, but for what was overdrawn: a
//! first batch may be larger than what was asked for, and a connection that has nothing on its way is
//! not kept waiting by those that do not read. What is overdrawn is paid back before anybody gets more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};

/// The pool counts in units of so many bytes.
const UNIT_BYTES: u64 = 1 << 10;
/// Of so many parts one is kept for reads of the tail: they are small, and their readers many.
const KEPT_PART: usize = 10;

/// The pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FetchPool(Arc<State>);

#[derive(Debug)]
struct State {
    /// Units of `room` and of `kept`.
    room_units: usize,
    kept_units: usize,
    room: Semaphore,
    /// For reads of the tail.
    kept: Semaphore,
    /// Units that are held and were not there.
    overdrawn: AtomicUsize,
}

/// Bytes of the fetch pool, held until it is dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives its bytes back at once"]
pub struct FetchPermit {
    pool: FetchPool,
    units: usize,
    /// Of what is kept for reads of the tail.
    kept: usize,
    bytes: u64,
    /// Dropped with it.
    entered: Option<Entered>,
}

/// What somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not much more than what was written last: what is kept for that is open to it.
    Tail,
    /// What was written before.
    Earlier,
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
        let kept_units = units / KEPT_PART;
        let room_units = units - kept_units;
        let (room, kept) = (Semaphore::new(room_units), Semaphore::new(kept_units));
        let overdrawn = AtomicUsize::new(0);
        FetchPool(Arc::new(State { room_units, kept_units, room, kept, overdrawn }))
    }

    /// Takes up to `wanted` bytes; fewer, perhaps 0, when the pool is short.
    pub fn take(&self, wanted: u64) -> FetchPermit {
        self.permit(try_take(&self.0.room, units(wanted)), wanted)
    }

    /// Takes up to `wanted` bytes of what is kept for reads of the tail; fewer, perhaps 0, when that
    /// is short.
    pub fn take_kept(&self, wanted: u64) -> FetchPermit {
        self.kept_permit(try_take(&self.0.kept, units(wanted)), wanted)
    }

    /// Takes `wanted` bytes, all there are for everybody at most, once everybody who asked before has got his.
    pub async fn wait(&self, wanted: u64) -> FetchPermit {
        let units = units(wanted).clamp(1, self.0.room_units);
        if let Ok(permit) = self.0.room.acquire_many(narrow(units)).await {
            permit.forget();
        } // else: never closed
        self.permit(units, wanted)
    }

    /// The same of what is kept for reads of the tail; never when nothing is.
    async fn wait_kept(&self, wanted: u64) -> FetchPermit {
        let units = units(wanted).clamp(1, self.0.kept_units.max(1));
        if let Ok(permit) = self.0.kept.acquire_many(narrow(units)).await {
            permit.forget();
        } // else: never closed
        self.kept_permit(units, wanted)
    }

    /// Takes `wanted` bytes for a connection: in its turn, or as soon as it has nothing on the way.
    /// So those that do not read what they asked for hold up nobody but themselves. Who has to wait is
    /// asked what it reads: there may be fewer bytes for the tail, at once.
    pub async fn turn(
        &self,
        wanted: u64,
        on_the_way: &OnTheWay,
        reading: impl Fn() -> Reading,
    ) -> FetchPermit {
        let mut line = std::pin::pin!(self.wait(wanted));
        let mut kept = std::pin::pin!(self.wait_kept(wanted));
        let mut asked = None;
        let mut permit = loop {
            if let Some(permit) = self.alone(wanted, on_the_way) {
                return permit;
            }
            tokio::select! {
                biased;
                permit = &mut line => break permit,
                permit = &mut kept, if asked == Some(Reading::Tail) => break permit,
                () = on_the_way.0.none.notified() => {}
                () = std::future::ready(()), if asked.is_none() => asked = Some(reading()),
            }
        };
        permit.entered = Some(on_the_way.enter());
        permit
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
        let State { room_units, kept_units, room, kept, overdrawn } = self.0.as_ref();
        let free = room.available_permits().min(*room_units);
        let free_kept = kept.available_permits().min(*kept_units);
        let taken = (room_units - free) + (kept_units - free_kept);
        bytes(taken + overdrawn.load(Ordering::Relaxed))
    }

    /// Bytes there are.
    pub fn limit(&self) -> u64 {
        bytes(self.0.room_units + self.0.kept_units)
    }

    fn permit(&self, units: usize, wanted: u64) -> FetchPermit {
        let bytes = wanted.min(bytes(units));
        FetchPermit { pool: self.clone(), units, kept: 0, bytes, entered: None }
    }

    fn kept_permit(&self, kept: usize, wanted: u64) -> FetchPermit {
        let bytes = wanted.min(bytes(kept));
        FetchPermit { pool: self.clone(), units: 0, kept, bytes, entered: None }
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
        let missing = units(wanted).saturating_sub(self.units + self.kept);
        self.units += try_take(&self.pool.0.room, missing);
        self.bytes = self.bytes.max(wanted.min(bytes(self.units + self.kept)));
    }

    /// Keeps what is really used. A first batch may be larger than what was taken; the excess is
    /// overdrawn.
    pub fn resize(&mut self, bytes: u64) {
        let wanted = units(bytes);
        let excess = (self.units + self.kept).saturating_sub(wanted);
        if excess > 0 {
            self.give(excess);
        } else {
            let missing = wanted - self.units - self.kept;
            let owed = missing - try_take(&self.pool.0.room, missing);
            self.pool.0.overdrawn.fetch_add(owed, Ordering::AcqRel);
            self.units += missing;
        }
        self.bytes = bytes;
    }

    /// Gives units back, those that are everybody's first.
    fn give(&mut self, units: usize) {
        let of_all = units.min(self.units);
        let kept = (units - of_all).min(self.kept);
        (self.units, self.kept) = (self.units - of_all, self.kept - kept);
        if of_all > 0 {
            self.pool.give(of_all);
        }
        if kept > 0 {
            self.pool.0.kept.add_permits(kept);
        }
    }
}

impl Drop for FetchPermit {
    fn drop(&mut self) {
        self.give(self.units + self.kept);
    }
}

fn try_take(room: &Semaphore, wanted: usize) -> usize {
    loop {
        let units = wanted.min(room.available_permits());
        if units == 0 {
            return 0;
        }
        if let Ok(permit) = room.try_acquire_many(narrow(units)) {
            permit.forget();
            return units;
        } // somebody else was faster: what is left now?
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

    /// A pool with 100 KiB for everybody and 11 KiB for the tail.
    fn pool() -> FetchPool {
        FetchPool::new(111 * KIB)
    }

    fn earlier() -> Reading {
        Reading::Earlier
    }

    #[test]
    fn a_short_pool_gives_what_it_has() {
        let pool = pool();
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
        let pool = pool();
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
        let (pool, one, other) = (pool(), OnTheWay::default(), OnTheWay::default());
        let turn = |on_the_way| pool.turn(60 * KIB, on_the_way, earlier);
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

    #[test]
    fn a_replay_does_not_starve_a_reader_of_the_tail() {
        let (pool, connection) = (pool(), OnTheWay::default());
        let turn = |wanted, what| Wait::new(pool.turn(wanted, &connection, move || what));
        // Nothing of the replay is taken by its connection; and more of it is in line.
        let mut replay = Vec::new();
        while let Poll::Ready(permit) = turn(25 * KIB, Reading::Earlier).poll() {
            replay.push(permit);
        }
        let mut line: Vec<_> = (0..9).map(|_| turn(25 * KIB, Reading::Earlier)).collect();
        assert!(line.iter_mut().all(|wait| wait.poll().is_pending()));
        for _ in 0..100 {
            let Poll::Ready(tail) = turn(4 * KIB, Reading::Tail).poll() else { panic!("starved") };
            assert_eq!(tail.bytes(), 4 * KIB);
        }
        // It gets no more than is kept; what comes back goes to the tail again.
        let Poll::Ready(mut most) = turn(25 * KIB, Reading::Tail).poll() else { panic!("kept") };
        assert_eq!((most.bytes(), pool.used()), (11 * KIB, 111 * KIB));
        let mut next = turn(4 * KIB, Reading::Tail);
        assert!(next.poll().is_pending());
        most.resize(5 * KIB);
        assert!(next.woken() && matches!(next.poll(), Poll::Ready(_)));
        assert!(line.iter_mut().all(|wait| wait.poll().is_pending()), "not for the replay");
        drop((most, replay));
        assert!(line[0].woken());
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
                    2 if size % 2 == 0 => held.push(pool.take_kept(size)),
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
