//! Frames that say what may be sent are lost, repeated and late. Whatever happens to them, neither side
//! goes too far and neither waits for ever.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use stoplog::broker::flow::{
    Cause, Credit, Grant, GrantOptions, Offer, PublisherGrant, Scratch, Seats, SubscriptionCredit,
    Wake,
};
use stoplog::client::flow::{CreditTotals, CreditWindow, PublisherWindow, Push, Share, WANT_EVERY};
use stoplog::env::SeededRng;
use stoplog::protocol::native::{grant, publisher_open};
use stoplog::types::Class;

const SEEDS: u64 = 48;
const RUN: Duration = Duration::from_secs(60);
/// How long after the last loss something must move.
const PROGRESS_WITHIN: Duration = Duration::from_secs(3);
const LATEST_MS: u64 = 200;
const LOSSES: u32 = 40;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What happens to frames.
struct Weather {
    rng: SeededRng,
    losses_left: u32,
    last_loss: Duration,
}

impl Weather {
    fn new(seed: u64) -> Weather {
        Weather { rng: SeededRng::new(seed), losses_left: LOSSES, last_loss: Duration::ZERO }
    }

    fn percent(&self, chance: u64) -> bool {
        self.rng.below(100) < chance
    }

    /// Loses it, or lets it arrive some time, perhaps twice.
    fn send<T: Copy>(&mut self, line: &mut Vec<(Duration, T)>, frame: T, now: Duration) {
        if self.losses_left > 0 && self.percent(40) {
            self.losses_left -= 1;
            self.last_loss = now;
            return;
        }
        for _ in 0..if self.percent(10) { 2 } else { 1 } {
            line.push((now + ms(self.rng.below(LATEST_MS)), frame));
        }
    }
}

fn arrived<T>(line: &mut Vec<(Duration, T)>, now: Duration) -> Vec<T> {
    line.extract_if(.., |(at, _)| *at <= now).map(|(_, frame)| frame).collect()
}

/// Frames that are neither lost nor overtaken.
struct Ordered<T>(VecDeque<(Duration, T)>);

impl<T> Ordered<T> {
    fn send(&mut self, frame: T, at: Duration) {
        let behind = self.0.back().map_or(at, |(last, _)| at.max(*last));
        self.0.push_back((behind, frame));
    }

    fn next(&mut self, now: Duration) -> Option<T> {
        self.0.front().filter(|(at, _)| *at <= now)?;
        self.0.pop_front().map(|(_, frame)| frame)
    }
}

/// A subscription: what a consumer tells, and what it is sent.
struct Subscription {
    weather: Weather,
    log: VecDeque<(u64, u64)>,
    server: SubscriptionCredit,
    /// Most that the consumer claimed in the server's epoch.
    claimed: Vec<u64>,
    client: CreditWindow,
    epoch: u32,
    waiting: VecDeque<(u64, u64)>,
    reading: bool,
    credits: Vec<(Duration, Credit)>,
    seeks: Ordered<Credit>,
    pushes: Ordered<(u32, u64, Push)>,
    stuck_since: Option<Duration>,
}

const SHARE_BYTES: u64 = 4 << 20;
const SHARE: Share = Share { bytes: SHARE_BYTES, records: u64::MAX };
const BATCH_MAX: u64 = 3 << 20;

impl Subscription {
    fn new(seed: u64) -> Subscription {
        let mut client = CreditWindow::new(seed.is_multiple_of(3).then_some(50));
        let first = client.restart(SHARE, Duration::ZERO);
        Subscription {
            weather: Weather::new(seed),
            log: VecDeque::new(),
            server: SubscriptionCredit::new(credit(0, first)),
            claimed: vec![first.bytes_to],
            client,
            epoch: 0,
            waiting: VecDeque::new(),
            reading: true,
            credits: Vec::new(),
            seeks: Ordered(VecDeque::new()),
            pushes: Ordered(VecDeque::new()),
            stuck_since: None,
        }
    }

    fn step(&mut self, now: Duration) {
        self.write();
        while let Some(seek) = self.seeks.next(now) {
            self.server.apply(seek);
        }
        for frame in arrived(&mut self.credits, now) {
            self.server.apply(frame);
        }
        self.push(now);
        self.read(now);
        self.check(now);
    }

    fn write(&mut self) {
        let rng = &self.weather.rng;
        if self.log.len() < 50 && rng.below(100) < 5 {
            let bytes = match rng.below(50) {
                0 => rng.below(BATCH_MAX),
                _ => rng.below(100_000),
            };
            self.log.push_back((bytes + 1, 1 + rng.below(40)));
        }
    }

    fn push(&mut self, now: Duration) {
        while self.server.budget().is_some()
            && let Some((bytes, records)) = self.log.pop_front()
        {
            self.server.sent(bytes, records);
            let (sent_bytes, sent_records) = self.server.sent_totals();
            let epoch = self.server.epoch();
            let claimed = self.claimed[epoch as usize];
            assert!(sent_bytes < claimed + bytes, "{sent_bytes} sent, {claimed} claimed");
            let push = Push { sent_bytes, sent_records, more: !self.log.is_empty() };
            self.pushes.send((epoch, bytes, push), now + ms(1 + self.weather.rng.below(20)));
        }
    }

    fn read(&mut self, now: Duration) {
        while let Some((epoch, bytes, push)) = self.pushes.next(now) {
            if epoch == self.epoch {
                self.client.received(push, now);
                self.waiting.push_back((bytes, push.sent_records));
            }
        }
        let rng = &self.weather.rng;
        if rng.below(2_000) == 0 {
            self.reading = !self.reading;
        }
        if rng.below(10_000) == 0 {
            self.seek(now);
        }
        let taken = if self.reading { self.waiting.pop_front() } else { None };
        if let Some((bytes, sent_records)) = taken {
            self.client.taken(bytes, sent_records);
        }
        let again = self.reading && self.client.repeat_at().is_some_and(|at| at <= now);
        if (taken.is_some() || again)
            && let Some(totals) = self.client.poll(SHARE, now)
        {
            let claimed = &mut self.claimed[self.epoch as usize];
            *claimed = totals.bytes_to.max(*claimed);
            self.weather.send(&mut self.credits, credit(self.epoch, totals), now);
        }
    }

    fn seek(&mut self, now: Duration) {
        self.waiting.clear();
        self.epoch += 1;
        let first = self.client.restart(SHARE, now);
        self.claimed.push(first.bytes_to);
        self.seeks.send(credit(self.epoch, first), now + ms(5));
    }

    fn check(&mut self, now: Duration) {
        let waiting: u64 = self.waiting.iter().map(|(bytes, _)| bytes).sum();
        assert!(waiting <= SHARE_BYTES + BATCH_MAX, "{waiting} bytes wait");
        let idle = self.waiting.is_empty() && self.pushes.0.is_empty();
        if !(idle && self.reading && !self.log.is_empty()) {
            self.stuck_since = None;
            return;
        }
        let since = (*self.stuck_since.get_or_insert(now)).max(self.weather.last_loss);
        assert!(now - since <= PROGRESS_WITHIN, "nothing was pushed since {since:?}");
    }
}

fn credit(epoch: u32, totals: CreditTotals) -> Credit {
    Credit { epoch, bytes_to: totals.bytes_to, records_to: totals.records_to }
}

#[test]
fn lost_late_and_repeated_credit_neither_overruns_nor_stalls() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let mut subscription = Subscription::new(seed);
        for step in 0..RUN.as_millis() as u64 {
            subscription.step(ms(step));
        }
        lost += LOSSES - subscription.weather.losses_left;
        let sent = subscription.server.sent_totals().0;
        assert!(subscription.epoch > 0 || sent > 1 << 20, "seed {seed}: {sent} bytes");
    }
    assert!(u64::from(lost) > 10 * SEEDS, "{lost} frames were lost");
}

/// Told by the tick that it may perhaps send.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn offer_changed(&self, _now: Duration) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One publisher, both sides of it.
struct Publisher {
    bell: Arc<Bell>,
    server: PublisherGrant,
    client: PublisherWindow,
    /// Batches to be sent.
    queue: VecDeque<u64>,
    busy: bool,
    wants: Option<u64>,
    next_want: Duration,
    unanswered: u64,
    moved: Duration,
    grants: Vec<(Duration, Grant)>,
    want_frames: Vec<(Duration, u64)>,
    batches: Ordered<u64>,
    /// What the log writer has.
    writing: Ordered<u64>,
    answers: Ordered<u64>,
}

const GRANTS: GrantOptions =
    GrantOptions { first: 64 << 10, max: 8 << 20, ttl: Duration::from_secs(10) };

impl Publisher {
    fn new(seats: &Seats) -> Publisher {
        let bell = Arc::new(Bell::default());
        let wake: Weak<dyn Wake> = Arc::downgrade(&(Arc::clone(&bell) as Arc<dyn Wake>));
        let mut server = PublisherGrant::new(GRANTS, seats.open(Class::Normal, 1, wake));
        let offer = Offer { bytes: server.seat().share_bytes(), cause: Cause::Pool };
        let first = server.poll(Duration::ZERO, offer).expect("the first grant");
        let opened = publisher_open::Response { grant: frame(first), allowance_bytes: 1 << 20 };
        Publisher {
            bell,
            server,
            client: PublisherWindow::new(&opened, Duration::ZERO),
            queue: VecDeque::new(),
            busy: true,
            wants: None,
            next_want: Duration::ZERO,
            unanswered: 0,
            moved: Duration::ZERO,
            grants: Vec::new(),
            want_frames: Vec::new(),
            batches: Ordered(VecDeque::new()),
            writing: Ordered(VecDeque::new()),
            answers: Ordered(VecDeque::new()),
        }
    }

    fn step(&mut self, weather: &mut Weather, hangs_until: Duration, now: Duration) {
        self.serve(weather, hangs_until, now);
        for grant in arrived(&mut self.grants, now) {
            self.client.grant(&frame(grant), now);
            self.wants = None;
        }
        while let Some(bytes) = self.answers.next(now) {
            self.client.answered(bytes);
            self.unanswered -= 1;
        }
        if weather.rng.below(6_000) == 0 {
            self.busy = !self.busy; // long enough for grants to expire
        }
        if self.busy && self.queue.len() < 8 {
            self.queue.push_back(1 + weather.rng.below(300_000));
        }
        self.send(weather, now);
        self.check(weather, hangs_until, now);
    }

    fn send(&mut self, weather: &mut Weather, now: Duration) {
        while let Some(bytes) = self.queue.front().copied() {
            if !self.client.admits(bytes, now) {
                self.wants = Some(bytes);
                break;
            }
            self.queue.pop_front();
            self.client.sent(bytes);
            self.unanswered += 1;
            self.moved = now;
            self.batches.send(bytes, now + ms(1 + weather.rng.below(20)));
        }
        if let Some(bytes) = self.wants.filter(|_| now >= self.next_want) {
            self.next_want = now + WANT_EVERY;
            weather.send(&mut self.want_frames, bytes, now);
        }
    }

    fn serve(&mut self, weather: &mut Weather, hangs_until: Duration, now: Duration) {
        while let Some(bytes) = self.batches.next(now) {
            let standing = self.server.received(bytes, now);
            assert!(standing.is_ok(), "an obeying client violates: {standing:?}");
            let written = (now + ms(1 + weather.rng.below(30))).max(hangs_until);
            self.writing.send(bytes, written);
        }
        let mut looks = self.bell.0.swap(false, Ordering::Relaxed);
        for _ in arrived(&mut self.want_frames, now) {
            self.server.wants(now);
            looks = true;
        }
        while hangs_until <= now
            && let Some(bytes) = self.writing.next(now)
        {
            self.server.answered(bytes);
            self.answers.send(bytes, now + ms(1 + weather.rng.below(20)));
            looks = true;
        }
        let offer = Offer { bytes: self.server.seat().share_bytes(), cause: Cause::Pool };
        if looks && let Some(grant) = self.server.poll(now, offer) {
            weather.send(&mut self.grants, grant, now);
        }
    }

    fn check(&mut self, weather: &Weather, hangs_until: Duration, now: Duration) {
        assert!(self.queue.is_empty() || self.unanswered > 0, "the allowance was not used");
        if self.queue.is_empty() {
            self.moved = now;
        }
        let since = self.moved.max(weather.last_loss).max(hangs_until);
        let late = now.saturating_sub(since);
        assert!(late <= PROGRESS_WITHIN, "nothing was sent since {since:?}");
    }
}

fn frame(grant: Grant) -> grant::Request {
    let Grant { bytes_to, ttl_ms, cause } = grant;
    grant::Request { publisher: 1, epoch: 0, bytes_to, ttl_ms, cause, name: String::new() }
}

#[test]
fn lost_late_and_repeated_grants_neither_violate_nor_stall() {
    for seed in 0..SEEDS {
        let mut weather = Weather::new(seed);
        let seats = Seats::new(64 << 20, GRANTS.first);
        let mut publishers: Vec<_> = (0..3).map(|_| Publisher::new(&seats)).collect();
        let (mut scratch, mut hangs_until) = (Scratch::default(), Duration::ZERO);
        for step in 0..RUN.as_millis() as u64 {
            let now = ms(step);
            if weather.rng.below(10_000) == 0 {
                hangs_until = now + ms(weather.rng.below(5_000)); // a hung fsync
            }
            if step % 100 == 0 {
                let window = 1 << (16 + weather.rng.below(10));
                seats.tick(now, &[window], &mut scratch);
                scratch.woken.drain(..).for_each(|wake| wake.offer_changed(now));
            }
            for publisher in &mut publishers {
                publisher.step(&mut weather, hangs_until, now);
            }
        }
        assert_eq!(weather.losses_left, 0, "seed {seed} lost too little");
    }
}
