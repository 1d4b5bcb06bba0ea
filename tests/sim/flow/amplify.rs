//! How much work refusals make: a thousand producers of one process want five times what there is, then
//! the broker is busy, then its disk is full.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use stoplog::broker::flow::{
    Chain, Cost, Names, QuotaOptions, QuotaTable, QuotaTree, Scope, Subject,
};
use stoplog::client::flow::{RatePace, Retry, RetryBudget, RetryContract, Told};
use stoplog::env::SeededRng;
use stoplog::types::{Pushback, PushbackCode, PushbackScope, QuotaLimits};

const CLIENTS: usize = 1_000;
/// Each wants so much: a batch of this size on average, once a second.
const BATCH_BYTES: u64 = 16 << 10;
const QUOTA_BYTES: u64 = CLIENTS as u64 * BATCH_BYTES / 5;
const ROUND_TRIP: Duration = Duration::from_millis(5);
const RETRY_WAIT: Duration = Duration::from_millis(50);
/// As a producer has.
const UNANSWERED_MAX: usize = 5;

const BUSY: std::ops::Range<u64> = 240..270;
const FULL: std::ops::Range<u64> = 330..390;
const END: u64 = 480;

struct Batch {
    bytes: u64,
    deadline: Duration,
    tried: bool,
    refused: bool,
    /// Not to be sent before.
    told: Duration,
}

/// A producer of one partition, by the rules of the client's.
struct Producer {
    chain: Arc<Chain>,
    queue: VecDeque<Batch>,
    /// With its answer, and when that is heard.
    under_way: VecDeque<(Duration, Batch, Result<(), Pushback>)>,
    /// Refused; they go first once nothing is under way.
    failed: Vec<Batch>,
    contract: RetryContract,
    pace: RatePace,
    hold_until: Duration,
    unanswered_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(usize),
    Look(usize),
}

#[derive(Default)]
struct Counts {
    sent: u64,
    sent_bytes: u64,
    distinct: u64,
    distinct_bytes: u64,
    admitted_bytes: u64,
}

struct World {
    rng: SeededRng,
    quotas: QuotaTree,
    budget: RetryBudget,
    producers: Vec<Producer>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> World {
        let mut limits = QuotaLimits::default();
        limits.set("produce_bytes", &QUOTA_BYTES.to_string()).unwrap();
        let table = QuotaTable::new([("broker".parse().unwrap(), limits)]);
        let quotas = QuotaTree::new(QuotaOptions::default(), Arc::new(Names::default()), table);
        let mut world = World {
            rng: SeededRng::new(seed),
            quotas,
            budget: RetryBudget::default(),
            producers: Vec::new(),
            events: BinaryHeap::new(),
            counts: Counts::default(),
        };
        for number in 0..CLIENTS {
            let client = format!("client-{number}");
            let (principal, ip) = ("anonymous", [10, 0, 0, 7].into());
            let subject = Subject { principal, client: &client, ip, scope: Scope::Connection };
            world.producers.push(Producer {
                chain: world.quotas.chain(&subject, Duration::ZERO),
                queue: VecDeque::new(),
                contract: RetryContract::new(RETRY_WAIT),
                pace: RatePace::default(),
                hold_until: Duration::ZERO,
                under_way: VecDeque::new(),
                failed: Vec::new(),
                unanswered_max: usize::MAX,
            });
            let first = Duration::from_micros(world.rng.below(1_000_000));
            world.events.push(Reverse((first, Event::Arrival(number))));
        }
        world
    }

    fn run(&mut self) {
        let mut tick = Duration::ZERO;
        while let Some(Reverse((now, event))) = self.events.pop()
            && now < Duration::from_secs(END)
        {
            while tick <= now {
                self.quotas.tick(tick);
                tick += Duration::from_millis(100);
            }
            let number = match event {
                Event::Arrival(number) => {
                    self.arrive(number, now);
                    number
                }
                Event::Look(number) => number,
            };
            self.pump(number, now);
        }
    }

    fn arrive(&mut self, number: usize, now: Duration) {
        let bytes = 1 + self.rng.below(2 * BATCH_BYTES);
        let deadline = now + Duration::from_millis(5_000 + self.rng.below(115_000));
        let batch = Batch { bytes, deadline, tried: false, refused: false, told: Duration::ZERO };
        self.producers[number].queue.push_back(batch);
        let next = now + Duration::from_secs(1);
        self.events.push(Reverse((next, Event::Arrival(number))));
    }

    /// Hears what was answered, and sends what may be sent.
    fn pump(&mut self, number: usize, now: Duration) {
        let producer = &mut self.producers[number];
        while producer.under_way.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, batch, answer)) = producer.under_way.pop_front()
        {
            match answer {
                Ok(()) => {
                    producer.contract.worked();
                    producer.unanswered_max = producer.unanswered_max.saturating_mul(2);
                }
                Err(pushback) => {
                    let until = producer.refused(&self.rng, batch, &pushback, now);
                    self.events.push(Reverse((until, Event::Look(number))));
                }
            }
        }
        loop {
            let producer = &mut self.producers[number];
            if producer.under_way.is_empty() {
                producer.failed.drain(..).rev().for_each(|batch| producer.queue.push_front(batch));
            }
            while producer.queue.front().is_some_and(|batch| batch.deadline <= now) {
                producer.queue.pop_front();
            }
            let room = UNANSWERED_MAX.min(producer.unanswered_max);
            let waits = producer.hold_until > now || !producer.failed.is_empty();
            if producer.queue.is_empty() || waits || producer.under_way.len() >= room {
                return;
            }
            let mut until = producer.pace.wait_until(now);
            let refused = producer.queue.front().is_some_and(|batch| batch.refused);
            if until.is_none() && (refused || producer.unanswered_max == 1) {
                until = self.budget.take(now).err().map(|wait| now + wait);
            } else if until.is_none() {
                self.budget.requested();
            }
            if let Some(until) = until {
                producer.hold_until = until;
                self.events.push(Reverse((until, Event::Look(number))));
                return;
            }
            self.send(number, now);
        }
    }

    fn send(&mut self, number: usize, now: Duration) {
        let producer = &mut self.producers[number];
        let Some(mut batch) = producer.queue.pop_front() else { return };
        assert!(now >= batch.told, "sent before it was told");
        assert!(now < batch.deadline, "sent after its deadline");
        self.counts.sent += 1;
        self.counts.sent_bytes += batch.bytes;
        if !std::mem::replace(&mut batch.tried, true) {
            self.counts.distinct += 1;
            self.counts.distinct_bytes += batch.bytes;
        }
        producer.pace.sent(batch.bytes, 1, now);
        let answer = broker(&producer.chain, batch.bytes, now);
        if answer.is_ok() {
            self.counts.admitted_bytes += batch.bytes;
        }
        let heard = now + ROUND_TRIP;
        producer.under_way.push_back((heard, batch, answer));
        self.events.push(Reverse((heard, Event::Look(number))));
    }
}

impl Producer {
    /// When to look again.
    fn refused(
        &mut self,
        rng: &SeededRng,
        mut batch: Batch,
        pushback: &Pushback,
        now: Duration,
    ) -> Duration {
        self.unanswered_max = 1;
        let wait = Duration::from_millis(u64::from(pushback.retry_after_ms));
        if self.hold_until <= now {
            let retry = self.contract.next(rng, Told::by(pushback), now, batch.deadline);
            let Retry::At(at) = retry else {
                self.hold_until = now + wait;
                return self.hold_until;
            };
            self.hold_until = at;
            batch.told = now + wait;
        }
        self.pace.refused(pushback, self.hold_until);
        batch.refused = true;
        self.failed.push(batch);
        self.hold_until
    }
}

fn broker(chain: &Chain, bytes: u64, now: Duration) -> Result<(), Pushback> {
    let second = now.as_secs();
    if BUSY.contains(&second) {
        let busy = Pushback::hold(PushbackCode::ServerBusy, PushbackScope::Broker, "pool");
        return Err(busy.after_ms(1_000));
    }
    if FULL.contains(&second) {
        let full = Pushback::hold(PushbackCode::DiskFull, PushbackScope::DataDir, "disk:full");
        return Err(full.after_ms(5_000));
    }
    let cost = Cost { bytes, records: 1, requests: 1, ..Cost::default() };
    chain.charge(&cost, now).map_err(|refusal| refusal.pushback())
}

#[test]
fn retries_add_at_most_a_tenth_to_the_work() {
    for seed in 0..1 {
        let mut world = World::new(seed);
        world.run();
        let Counts { sent, sent_bytes, distinct, distinct_bytes, admitted_bytes } = world.counts;
        let batches = sent as f64 / distinct as f64;
        let bytes = sent_bytes as f64 / distinct_bytes as f64;
        let open = END - (BUSY.end - BUSY.start) - (FULL.end - FULL.start);
        let used = admitted_bytes as f64 / (QUOTA_BYTES * open) as f64;
        println!("seed {seed}: x {batches:.3} batches, x {bytes:.3} bytes, {used:.2} of the quota");
        assert!(batches <= 1.1 && bytes <= 1.1, "seed {seed}: {batches} {bytes}");
        assert!(used >= 0.75, "seed {seed}: {used} of the quota was used");
    }
}
