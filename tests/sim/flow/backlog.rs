//! A topic that a slow group reads, in simulated time, through the one way in: how far the group
//! falls behind, and who its producer is told to wait for.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};
use std::time::Duration;

use proptest::prelude::*;
use stoplog::broker::flow::{
    Ask, BacklogClaim, BacklogOptions, BacklogWatch, Backlogged, Board, Cause, Flow, FlowOptions,
    Level, NoWake, Offer, Opening, Outcome, PartitionFlow, PartitionSeen, Past, PressureOptions,
    PublisherGrant, Scratch, Standing, Surroundings, Ticket, TopicFlow, Wake,
};
use stoplog::broker::groups::{Committed, GroupRecord, MemberFacts};
use stoplog::env::sim::SimClock;
use stoplog::env::{Clock, Rng, SeededRng};
use stoplog::types::{
    Class, GroupId, LeaderEpoch, Offset, PartitionId, Pushback, Timestamp, TopicConfig, TopicId,
    TopicPartition,
};

const STEP: Duration = Duration::from_millis(10);
/// Steps between two ticks, and until a batch is durable.
const TICK_STEPS: u64 = 10;
const WRITE_STEPS: u64 = 1;
const RECORD_BYTES: u64 = 100;

fn email() -> GroupId {
    "email".parse().expect("a group")
}

/// The topic as its limits see it.
struct Log {
    flow: Arc<TopicFlow>,
    partition: PartitionFlow,
    config: RefCell<Arc<TopicConfig>>,
    end: Cell<u64>,
}

impl Log {
    fn part() -> TopicPartition {
        TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId(0) }
    }
}

impl Backlogged for Log {
    fn id(&self) -> TopicId {
        Log::part().topic
    }

    fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.borrow())
    }

    fn flow(&self) -> &TopicFlow {
        &self.flow
    }

    fn partitions(&self) -> Vec<PartitionSeen> {
        let end = self.end.get();
        let (start, bytes) = (Offset(0), end * RECORD_BYTES);
        vec![PartitionSeen { part: Log::part(), start, end: Offset(end as i64), bytes }]
    }

    fn history(&self, _part: TopicPartition, _time: Timestamp) -> Vec<Past> {
        Vec::new()
    }
}

/// A producer that obeys: what is granted, or one batch at a time; and waits as it is told.
struct Producer {
    grant: PublisherGrant,
    claim: BacklogClaim,
    batch: u64,
    /// Batches that wait in its buffer.
    queued: u64,
    granted_to: u64,
    sent: u64,
    hold_until: Duration,
    limited_by: Option<String>,
    want_at: Duration,
}

impl Producer {
    fn poll(&mut self, now: Duration) {
        let offer = Offer { bytes: self.grant.seat().share_bytes(), cause: Cause::Pool };
        let offer = self.claim.limit(offer, self.grant.outstanding());
        if let Some(grant) = self.grant.poll(now, offer) {
            self.granted_to = grant.bytes_to;
        }
        self.claim.promise(self.grant.unspent());
    }
}

struct World {
    clock: SimClock,
    rng: SeededRng,
    flow: Arc<Flow>,
    log: Log,
    board: Board,
    watch: BacklogWatch,
    scratch: Scratch,
    producers: Vec<Producer>,
    under_way: Vec<(u64, usize, u64, Ticket)>,
    read: u64,
    committed: u64,
    step: u64,
    limit_bytes: u64,
}

impl World {
    fn new(seed: u64, backlog: &str, producers: usize, batch: u64, limit: u64) -> World {
        let clock = SimClock::new();
        let disk = Default::default();
        let now = Duration::ZERO;
        let pressure = PressureOptions::default();
        let surroundings = Surroundings { machine_bytes: None, disk, writers: 0, pressure, now };
        let options = FlowOptions::default();
        let flow = Flow::new(options, surroundings, Default::default());
        let flow = Arc::new(flow);
        flow.note_space(1 << 40, 1 << 40, Duration::ZERO);
        let topic = Arc::new(TopicFlow::new("orders".parse().expect("a topic")));
        let mut config = TopicConfig::default();
        config.set("backlog", backlog).expect("a limit");
        let producer = |_| Producer {
            grant: flow.open_publisher(
                Opening::to(Class::Normal, [0]),
                Weak::<NoWake>::new() as Weak<dyn Wake>,
            ),
            claim: BacklogClaim::new(Arc::clone(&topic)),
            batch,
            queued: 0,
            granted_to: 0,
            sent: 0,
            hold_until: Duration::ZERO,
            limited_by: None,
            want_at: Duration::ZERO,
        };
        let producers = (0..producers).map(producer).collect();
        let partition = flow.partition(0);
        let (config, end) = (RefCell::new(Arc::new(config)), Cell::new(0));
        let mut world = World {
            rng: SeededRng::new(seed),
            log: Log { flow: topic, partition, config, end },
            board: Board::default(),
            watch: BacklogWatch::new(BacklogOptions::default(), Arc::clone(flow.pressure.names())),
            scratch: Scratch::default(),
            producers,
            under_way: Vec::new(),
            read: 0,
            committed: 0,
            step: 0,
            limit_bytes: limit * RECORD_BYTES,
            flow,
            clock,
        };
        let member = MemberFacts { member_id: "m".into(), ..MemberFacts::default() };
        world.board.applied(&GroupRecord::Member { group: email(), member }, Duration::ZERO);
        world.commit();
        world
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    fn commit(&mut self) {
        self.committed = self.read;
        let (offset, leader_epoch) = (Offset(self.committed as i64), LeaderEpoch(-1));
        let offsets = vec![(Log::part(), Committed { offset, leader_epoch, metadata: None })];
        let record = GroupRecord::OffsetsAt { group: email(), at: Timestamp(0), offsets };
        self.board.applied(&record, self.now());
    }

    fn lag(&self) -> u64 {
        self.log.end.get() - self.committed
    }

    /// 10 ms: what is due becomes durable, the group reads and perhaps commits, producers send.
    fn step(&mut self, produced_per_s: u64, drained_per_s: u64, commit_steps: u64) {
        self.clock.advance(STEP);
        self.step += 1;
        self.write();
        self.read = (self.read + drained_per_s / 100).min(self.log.end.get());
        if self.step.is_multiple_of(commit_steps) {
            self.commit();
        }
        if self.step.is_multiple_of(TICK_STEPS) {
            let now = self.now();
            self.watch.tick([&self.log], &self.board, now, Timestamp(0));
            self.flow.seats.tick(now, &[self.flow.pool.limit()], &mut self.scratch);
        }
        let each = produced_per_s / 100 / self.producers.len() as u64;
        for number in 0..self.producers.len() {
            self.produce(number, each);
        }
        self.check_promises();
    }

    fn write(&mut self) {
        let due = |write: &(u64, usize, u64, Ticket)| write.0 <= self.step;
        let (done, rest) = std::mem::take(&mut self.under_way).into_iter().partition(due);
        self.under_way = rest;
        let done: Vec<(u64, usize, u64, Ticket)> = done;
        let now = self.now();
        for (_, number, records, ticket) in done {
            self.log.end.set(self.log.end.get() + records);
            drop(ticket.settle(Outcome::Written, now));
            let producer = &mut self.producers[number];
            producer.grant.answered(records * RECORD_BYTES);
            producer.poll(now);
        }
    }

    fn produce(&mut self, number: usize, records: u64) {
        let now = self.now();
        let producer = &mut self.producers[number];
        // A buffer of a hundred batches; what does not fit, its caller keeps.
        producer.queued = (producer.queued + records).min(producer.batch * 100);
        loop {
            let producer = &mut self.producers[number];
            let (records, bytes) = (producer.batch, producer.batch * RECORD_BYTES);
            if producer.queued < records || now < producer.hold_until {
                return;
            }
            let alone = producer.grant.outstanding() == 0;
            if producer.sent + bytes > producer.granted_to && !alone {
                if now >= producer.want_at {
                    producer.want_at = now + Duration::from_secs(1);
                    producer.grant.wants(now);
                    producer.poll(now);
                }
                return;
            }
            producer.grant.received(bytes, now).expect("an obeying client");
            producer.claim.promise(producer.grant.unspent());
            producer.sent += bytes;
            match self.admit(records, now) {
                Ok(ticket) => {
                    let producer = &mut self.producers[number];
                    producer.queued -= records;
                    producer.limited_by = None;
                    let due = self.step + WRITE_STEPS;
                    self.under_way.push((due, number, records, ticket));
                }
                Err(told) => {
                    let jitter = 1_000 + self.rng.next_u64() % 300;
                    let wait = u64::from(told.retry_after_ms) * jitter / 1_000;
                    let producer = &mut self.producers[number];
                    producer.hold_until = now + Duration::from_millis(wait);
                    producer.limited_by = Some(told.limit_id);
                    producer.grant.answered(bytes);
                    producer.poll(now);
                }
            }
        }
    }

    fn admit(&self, records: u64, now: Duration) -> Result<Ticket, Pushback> {
        let ask = Ask {
            header: None,
            bytes: records * RECORD_BYTES,
            records: &|| records,
            connection: None,
            topic: &self.log.flow,
            rules: None,
            partition: &self.log.partition,
            class: Class::Normal,
            standing: Some(Standing::Allowance),
            level: Level::Topic,
            deadline: None,
        };
        self.flow.admit_batch(ask, now)
    }

    /// What is granted and was not sent is what the limit leaves, but for a batch of each that may
    /// always come and for what a tick counts twice: a tenth of the limit together.
    fn check_promises(&self) {
        let Some(room) = self.log.flow.backlog.room_bytes() else { return };
        let unspent: u64 = self.producers.iter().map(|p| p.grant.unspent()).sum();
        let most = room + self.limit_bytes / 10;
        if self.step > 500 {
            assert!(unspent <= most, "{unspent} granted of {room} at step {}", self.step);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_group_ten_times_slower_stays_within_its_limit_and_is_named(
        seed in 0u64..1_000, drain in 5u64..20, commits in 10u64..20, producers in 1usize..4,
        batch in 1u64..40, in_bytes in any::<bool>(),
    ) {
        let drain = drain * 100;
        let limit = drain * commits;
        let backlog = match in_bytes {
            false => format!("email:records={limit}"),
            true => format!("email:bytes={}", limit * RECORD_BYTES),
        };
        let mut world = World::new(seed, &backlog, producers, batch, limit);
        let (mut limited, mut steady) = (0, 0);
        for step in 0..12_000 {
            world.step(drain * 10, drain, 100);
            prop_assert!(world.lag() * 10 <= limit * 11, "{} of {limit} at {step}", world.lag());
            if step >= 6_000 {
                prop_assert!(world.lag() * 10 >= limit * 8, "{} of {limit} at {step}", world.lag());
                steady += world.producers.len();
                let named = |p: &&Producer| p.limited_by.as_deref() == Some("backlog:email");
                limited += world.producers.iter().filter(named).count();
            }
        }
        prop_assert!(limited * 10 >= steady * 8, "named in {limited} of {steady} looks");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed, "email:records=5000", 2, 10, 5_000);
        (0..3_000).for_each(|_| world.step(5_000, 500, 100));
        (world.log.end.get(), world.producers.iter().map(|p| p.sent).collect::<Vec<_>>())
    };
    assert_eq!(run(3), run(3));
}
