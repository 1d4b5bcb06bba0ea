//! Seats alone, and greedy publishers at one log writer that answers in the order of arrival.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::broker::flow::{Cause, Grant, GrantOptions, Offer, PublisherGrant};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn no_wake() -> Weak<dyn Wake> {
    Weak::<NoWake>::new()
}

fn tick(seats: &Seats, now: Duration, windows: &[u64]) -> usize {
    seats.tick(now, windows, &mut Scratch::default())
}

#[test]
fn first_windows_of_many_fit_the_pool_together() {
    let seats = Seats::new(MIB, 64 * KIB);
    let open: Vec<_> = (0..20).map(|_| seats.open(Class::Normal, 1, no_wake())).collect();
    let shares: Vec<_> = open.iter().map(|seat| seat.first_bytes()).collect();
    assert_eq!(shares[0], 64 * KIB);
    assert_eq!(shares[19], MIB / 80);
    assert!(shares.iter().sum::<u64>() <= MIB);
}

#[test]
fn an_idle_seat_takes_nothing_from_the_others() {
    let seats = Seats::new(MIB, 64 * KIB);
    let (one, other) =
        (seats.open(Class::Normal, 1, no_wake()), seats.open(Class::Normal, 1, no_wake()));
    one.received(1_000, ms(10_000));
    other.wants(ms(10_000));
    assert_eq!(tick(&seats, ms(10_100), &[MIB]), 2);
    assert!(one.share_bytes() > MIB / 1_000 && other.share_bytes() > MIB / 2);
    one.answered(1_000);
    other.wants(ms(12_000));
    assert_eq!(tick(&seats, ms(12_100), &[MIB]), 1);
    assert_eq!((one.share_bytes(), other.share_bytes()), (MIB / 2, MIB));
    assert!(seats.anyone_waits(1, ms(12_100)) && !seats.anyone_waits(0b10, ms(12_100)));
    assert!(!seats.anyone_waits(1, ms(14_001)), "it would have said so again");
    drop(other);
    assert_eq!((tick(&seats, ms(20_000), &[MIB]), seats.publishers()), (0, 1));
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn offer_changed(&self, _now: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_is_woken_when_its_share_grew_and_once_a_second() {
    let seats = Seats::new(MIB, 64 * KIB);
    let woken = Arc::new(Woken::default());
    let wake: Weak<Woken> = Arc::downgrade(&woken);
    let seat = seats.open(Class::Normal, 1, wake);
    let mut scratch = Scratch::default();
    let mut after = |at: u64, window: u64| {
        seats.tick(ms(at), &[window], &mut scratch);
        scratch.woken.drain(..).for_each(|wake| wake.offer_changed(ms(at)));
        woken.0.load(Ordering::Relaxed)
    };
    assert_eq!(after(100, MIB / 4), 0, "nobody waits");
    seat.wants(ms(100));
    assert_eq!(after(200, MIB), 1);
    assert_eq!(after(300, MIB / 2), 1, "less than before");
    assert_eq!(after(400, MIB), 2);
    let calls: Vec<_> = (5..15)
        .map(|n| {
            seat.wants(ms(n * 100));
            after(n * 100, MIB)
        })
        .collect();
    assert_eq!(calls.last(), Some(&3), "its turn comes once in ten ticks");
    seat.served();
    assert_eq!(after(1_500, 2 * MIB), 3, "it waits no more");
}

#[test]
fn a_sender_without_grants_stays_within_its_share_but_for_one_batch() {
    let seats = Seats::new(MIB, 64 * KIB);
    let seat = seats.open(Class::Normal, 1, no_wake());
    assert_eq!(seat.take(MIB, ms(0)), Ok(()));
    assert_eq!(seat.take(1, ms(0)), Err((MIB, MIB)));
    assert!(seat.waits(ms(0)));
    tick(&seats, ms(100), &[2 * MIB]);
    assert_eq!(seat.take(MIB, ms(100)), Ok(()));
    assert!(!seat.waits(ms(100)));
}

/// A publisher that always has more to send, in batches of 64 KiB.
struct Greedy {
    grant: PublisherGrant,
    seat: Arc<Seat>,
    bytes_to: u64,
    sent: u64,
    answered: u64,
    done: u64,
}

const BATCH: u64 = 64 * KIB;

impl Greedy {
    fn new(seats: &Seats, class: Class) -> Greedy {
        let options = GrantOptions { first: 64 * KIB, max: 32 * MIB, ttl: ms(10_000) };
        let seat = seats.open(class, 1, no_wake());
        let grant = PublisherGrant::new(options, Arc::clone(&seat));
        Greedy { grant, seat, bytes_to: 0, sent: 0, answered: 0, done: 0 }
    }

    fn poll(&mut self, now: Duration) {
        let offer = Offer { bytes: self.seat.share_bytes(), cause: Cause::Pool };
        if let Some(Grant { bytes_to, .. }) = self.grant.poll(now, offer) {
            self.bytes_to = bytes_to;
        }
    }

    /// Sends what it may; says that it waits when that was not all.
    fn send(&mut self, now: Duration) -> u64 {
        let mut batches = 0;
        while self.sent == self.answered || self.sent + BATCH <= self.bytes_to {
            self.grant.received(BATCH, now).expect("within its grant");
            self.sent += BATCH;
            batches += 1;
        }
        self.grant.wants(now);
        batches
    }
}

/// How a race of publishers begins.
#[derive(Clone, Copy, Debug)]
enum Start {
    Together,
    /// The first one has 64 MiB for itself for 3 s.
    FirstAlone,
    /// The first one comes 3 s after the others.
    FirstLate,
}

/// Runs greedy publishers for 15 s at a writer of 100 MiB/s with a window of 8 MiB; what each wrote
/// in the last 10.
fn greedy(classes: &[Class], start: Start) -> Vec<u64> {
    let seats = Seats::new(64 * MIB, 64 * KIB);
    let mut publishers: Vec<_> = classes.iter().map(|class| Greedy::new(&seats, *class)).collect();
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut scratch = Scratch::default();
    let mut room = 0;
    for at in 0..15_000 {
        let (now, early) = (ms(at), at < 3_000);
        let window = if early && matches!(start, Start::FirstAlone) { 64 * MIB } else { 8 * MIB };
        if at % 100 == 0 {
            seats.tick(now, &[window], &mut scratch);
        }
        for (number, publisher) in publishers.iter_mut().enumerate() {
            let absent = match start {
                Start::Together => false,
                Start::FirstAlone => number > 0,
                Start::FirstLate => number == 0,
            };
            if !(early && absent) {
                publisher.poll(now);
                let batches = publisher.send(now);
                queue.extend((0..batches).map(|_| number));
            }
        }
        room += 100 * MIB / 1_000;
        while room >= BATCH
            && let Some(number) = queue.pop_front()
        {
            room -= BATCH;
            let publisher = &mut publishers[number];
            publisher.grant.answered(BATCH);
            publisher.answered += BATCH;
            publisher.done += if at >= 5_000 { BATCH } else { 0 };
        }
        room = room.min(BATCH);
    }
    publishers.iter().map(|publisher| publisher.done).collect()
}

/// (sum of x)^2 / (n x sum of x^2), in thousandths: Jain, Chiu and Hawe, 1984.
fn jain_per_mille(shares: &[u64]) -> u128 {
    let sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
    let squares: u128 = shares.iter().map(|share| u128::from(*share).pow(2)).sum();
    sum * sum * 1_000 / (shares.len() as u128 * squares.max(1))
}

#[test]
fn equal_publishers_get_equal_rates_from_any_start() {
    for count in [2, 10, 200] {
        let classes = vec![Class::Normal; count];
        for start in [Start::Together, Start::FirstAlone, Start::FirstLate] {
            let done = greedy(&classes, start);
            let fair = jain_per_mille(&done);
            assert!(fair >= 950, "{fair} of {count} publishers, {start:?}");
            let sum = done.iter().sum::<u64>();
            assert!(sum >= 950 * MIB, "{sum} of 1,000 MiB");
        }
    }
}

#[test]
fn classes_get_rates_by_their_weight() {
    let classes = [Class::Critical, Class::Normal, Class::Bulk].repeat(3);
    let done = greedy(&classes, Start::Together);
    for three in done.chunks(3) {
        let [critical, normal, bulk] = three else { panic!("three classes") };
        let per_mille = |one: &u64, other: &u64| one * 1_000 / other;
        assert!((7_200..=8_800).contains(&per_mille(critical, bulk)), "{three:?}");
        assert!((3_600..=4_400).contains(&per_mille(normal, bulk)), "{three:?}");
    }
}
