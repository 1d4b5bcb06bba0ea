//! Clients, the real flow control and model writers in steps of half a millisecond; each topic is read
//! by two consumers at least.
//!
//! Whatever happens, after every step: what the pool and the writers count is what is under way;
//! every refusal is typed, without effects, and says when to come back; what is within a grant is no
//! violation; who has something to send and is not told to wait hears of it within 3 seconds of the last
//! lost frame, unless the disk hangs; where there is credit and something to deliver, it is on its way.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use stoplog::broker::flow::{
    Ask, Credit, DiskOptions, Facts, Flow, FlowOptions, Grant, Identity, Level, Opening, Outcome,
    PartitionFlow, PressureOptions, QuotaTable, Surroundings, TopicFlow, Wake,
};
use stoplog::env::{Rng, SeededRng};
use stoplog::types::{Class, Effects, Pushback, Severity};

use super::client::{Behaviour, Client, Plan};
use super::consumer::{Consumer, Habit};
use super::writer::{ModelWriter, Queued};

pub const STEP: Duration = Duration::from_micros(500);
const TICK: Duration = Duration::from_millis(100);
const PROGRESS: Duration = Duration::from_secs(3);
/// What the pool counts beside a batch's bytes.
const REQUEST_BYTES: u64 = 512;

/// A frame that may be lost.
#[derive(Clone, Copy, Debug)]
pub enum Frame {
    Grant(Grant),
    Want,
    Credit(Credit),
}

/// When the copies of a frame arrive, from now on: none, one, or several.
pub type Net = Box<dyn FnMut(&dyn Rng, Frame) -> Vec<Duration>>;

/// A topic: its partitions are spread over the writers.
pub struct SimTopic {
    pub flow: Arc<TopicFlow>,
    pub partitions: Vec<PartitionFlow>,
    /// Bytes of the batches that were written.
    pub log: Vec<u64>,
}

/// The whole.
pub struct FlowSim {
    pub flow: Arc<Flow>,
    pub now: Duration,
    pub topics: Vec<SimTopic>,
    pub writers: Vec<ModelWriter>,
    pub clients: Vec<Client>,
    pub consumers: Vec<Consumer>,
    pub net: Net,
    pub rng: SeededRng,
    syncs: Syncs,
    next_tick: Duration,
    last_loss: Duration,
    /// Largest batch of any client.
    batch_max: u64,
    /// Frames on their way: when, to which client or consumer or from it.
    frames: Vec<(Duration, usize, Frame)>,
    trace: u64,
}

struct Syncs(RefCell<Vec<Vec<Duration>>>);

impl Facts for Syncs {
    fn sync_times(&self, writer: usize, into: &mut Vec<Duration>) {
        into.append(&mut self.0.borrow_mut()[writer]);
    }
}

impl FlowSim {
    pub fn new(seed: u64, options: FlowOptions, writers: Vec<ModelWriter>) -> FlowSim {
        let surroundings = Surroundings {
            pressure: PressureOptions::default(),
            machine_bytes: None,
            disk: DiskOptions::default(),
            writers: writers.len(),
            now: Duration::ZERO,
        };
        FlowSim {
            flow: Arc::new(Flow::new(options, surroundings, QuotaTable::default())),
            now: Duration::ZERO,
            topics: Vec::new(),
            syncs: Syncs(RefCell::new(vec![Vec::new(); writers.len()])),
            writers,
            clients: Vec::new(),
            consumers: Vec::new(),
            net: Box::new(|_, _| vec![Duration::ZERO]),
            rng: SeededRng::new(seed),
            next_tick: Duration::ZERO,
            last_loss: Duration::ZERO,
            batch_max: 0,
            frames: Vec::new(),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// A topic of so many partitions, with a consumer that takes all there is and one that does not.
    pub fn topic(&mut self, name: &str, partitions: usize) -> usize {
        let writers = self.writers.len();
        let partitions = (0..partitions).map(|at| self.flow.partition(at % writers)).collect();
        let flow = Arc::new(TopicFlow::new(name.parse().unwrap()));
        self.topics.push(SimTopic { flow, partitions, log: Vec::new() });
        let topic = self.topics.len() - 1;
        self.consumer(Habit { topic, ..Habit::default() });
        let rests = Duration::from_millis(700);
        self.consumer(Habit { topic, bytes_per_second: Some(20 << 20), rests, ..Habit::default() });
        topic
    }

    /// A consumer on a connection of its own.
    pub fn consumer(&mut self, habit: Habit) -> usize {
        let at = self.consumers.len();
        let who = Identity::anonymous(&format!("consumer-{at}"), [127, 0, 0, 1].into());
        self.consumers.push(Consumer::new(habit, self.flow.connect(who, self.now)));
        at
    }

    /// A client on a connection of its own.
    pub fn client(&mut self, plan: Plan) -> usize {
        let at = self.clients.len();
        let name = format!("client-{at}");
        let connection =
            self.flow.connect(Identity::anonymous(&name, [127, 0, 0, 1].into()), self.now);
        self.batch_max = self.batch_max.max(plan.batch_bytes);
        self.clients.push(Client::new(plan, connection));
        at
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// What happened so far, in a number.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn step(&mut self) {
        self.now += STEP;
        self.deliver();
        self.write();
        if self.now >= self.next_tick {
            self.next_tick = self.now + TICK;
            self.tick();
        }
        for at in 0..self.clients.len() {
            self.clients[at].arrive(STEP);
            if self.clients[at].grant.is_none() {
                self.open(at);
            }
            while self.clients[at].may_send(self.now) {
                self.send(at);
            }
            if self.clients[at].wants(self.now) {
                self.post(at, Frame::Want);
            }
        }
        self.push();
        self.check();
    }

    fn push(&mut self) {
        for at in 0..self.consumers.len() {
            let consumer = &mut self.consumers[at];
            let log = &self.topics[consumer.habit.topic].log;
            consumer.push(log, &self.flow.reads.pool, self.now);
            if let Some(credit) = consumer.read(self.now, STEP) {
                self.post(at, Frame::Credit(credit));
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        for wake in self.flow.tick(now, &self.syncs) {
            wake.offer_changed(now);
        }
        for at in 0..self.clients.len() {
            if self.clients[at].rings() {
                self.poll(at);
            }
        }
    }

    fn open(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if self.now < client.plan.starts || client.plan.behaviour == Behaviour::Ungranted {
            return;
        }
        let writers = self.topics[client.plan.topic].partitions.iter().map(|it| it.writer);
        let bell = Arc::clone(&client.bell);
        let wake: Arc<dyn Wake> = bell;
        let wake: Weak<dyn Wake> = Arc::downgrade(&wake);
        let opening = Opening::to(client.plan.class, writers);
        client.grant = Some(self.flow.open_publisher(opening, wake));
        self.poll(at);
    }

    /// The server offers what there is.
    fn poll(&mut self, at: usize) {
        let Some(grant) = self.clients[at].grant.as_mut() else { return };
        let offer = self.flow.offer(grant.seat());
        if let Some(frame) = grant.poll(self.now, offer) {
            self.post(at, Frame::Grant(frame));
        }
    }

    fn post(&mut self, at: usize, frame: Frame) {
        let arrives = (self.net)(&self.rng, frame);
        if arrives.is_empty() {
            self.last_loss = self.now;
        }
        for after in arrives {
            self.frames.push((self.now + after, at, frame));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            self.frames.drain(..).partition(|(when, ..)| *when <= now);
        self.frames = later;
        for (_, at, frame) in due {
            match frame {
                Frame::Grant(grant) => {
                    let until = now + Duration::from_millis(u64::from(grant.ttl_ms));
                    self.clients[at].granted(grant.bytes_to, until);
                }
                Frame::Want => {
                    if let Some(grant) = self.clients[at].grant.as_mut() {
                        grant.wants(now);
                    }
                    self.poll(at);
                }
                Frame::Credit(credit) => self.consumers[at].credited(credit),
            }
        }
    }

    fn send(&mut self, at: usize) {
        let now = self.now;
        let client = &mut self.clients[at];
        let bytes = client.plan.batch_bytes;
        let within = client.is_granted(bytes, now);
        client.backlog = client.backlog.saturating_sub(bytes);
        client.sent += bytes;
        client.unanswered += bytes;
        client.wants_at = None;
        let standing = client.grant.as_mut().map(|grant| grant.received(bytes, now));
        let standing = match standing.transpose() {
            Ok(standing) => standing,
            Err(violation) => {
                assert_eq!(client.plan.behaviour, Behaviour::Violates, "{violation:?}");
                assert!(!within, "{violation:?}");
                return self.refuse(at, violation.pushback);
            }
        };
        let topic = &self.topics[client.plan.topic];
        let partition = client.next_partition % topic.partitions.len();
        client.next_partition = partition + 1;
        let partition = &topic.partitions[partition];
        let ask = Ask {
            header: None,
            bytes,
            records: &|| 1,
            connection: Some(&client.connection),
            topic: &topic.flow,
            rules: None,
            partition,
            class: client.plan.class,
            standing,
            level: Level::Topic,
            deadline: client.plan.deadline,
        };
        match self.flow.admit_batch(ask, now) {
            Ok(ticket) => {
                let queued = Queued { client: at, bytes, ticket };
                self.writers[partition.writer].waiting.push(queued);
                self.note(at, 1, bytes);
            }
            Err(told) => self.refuse(at, told),
        }
    }

    fn refuse(&mut self, at: usize, told: Pushback) {
        assert_eq!(told.effects, Effects::None, "{told:?}");
        assert!(told.severity == Severity::Reject || told.retry_after_ms > 0, "{told:?}");
        assert!(!told.limit_id.is_empty() && !told.unit.is_empty(), "{told:?}");
        self.note(at, 2, u64::from(told.retry_after_ms));
        let bytes = self.clients[at].plan.batch_bytes;
        let jitter = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let now = self.now;
        self.clients[at].refused(told, now, jitter);
        self.answered(at, bytes);
    }

    fn answered(&mut self, at: usize, bytes: u64) {
        let client = &mut self.clients[at];
        client.unanswered -= bytes;
        client.last_answer = self.now;
        if let Some(grant) = client.grant.as_mut() {
            grant.answered(bytes);
        }
        self.poll(at);
    }

    fn write(&mut self) {
        for writer in 0..self.writers.len() {
            let (done, took) = self.writers[writer].step(self.now, &self.rng);
            self.syncs.0.borrow_mut()[writer].extend(took);
            for Queued { client, bytes, ticket } in done {
                let sojourn = self.now - ticket.since();
                drop(ticket.settle(Outcome::Written, self.now));
                self.topics[self.clients[client].plan.topic].log.push(bytes);
                self.clients[client].wrote(bytes, sojourn, self.now);
                self.note(client, 3, bytes);
                self.answered(client, bytes);
            }
        }
    }

    fn check(&mut self) {
        for consumer in &mut self.consumers {
            let log = &self.topics[consumer.habit.topic].log;
            let stands = |since: Duration| self.now > since.max(self.last_loss) + PROGRESS;
            consumer.check(log, self.batch_max, self.now, stands);
        }
        let mut pool = 0;
        for (model, gauge) in self.writers.iter().zip(&self.flow.writers) {
            assert_eq!(gauge.in_flight(), model.in_flight(), "at {:?}", self.now);
            let batches = (model.waiting.len() + model.syncing.len()) as u64;
            pool += model.in_flight() + batches * REQUEST_BYTES;
        }
        assert_eq!(self.flow.pool.used(), pool, "at {:?}", self.now);
        assert!(pool <= self.flow.pool.limit());
        let hangs = |writer: &ModelWriter| {
            writer
                .hangs
                .is_some_and(|(from, until)| self.now >= from && self.now < until + PROGRESS)
        };
        if self.writers.iter().any(hangs) {
            return;
        }
        for (at, client) in self.clients.iter().enumerate() {
            let since = client.last_answer.max(client.plan.starts).max(client.held_until);
            let since = since.max(self.last_loss);
            let idle = self.now < client.plan.starts || !client.has_data();
            assert!(
                idle || self.now <= since + PROGRESS,
                "client {at} stands since {since:?}: {:?}",
                client.last_refusal
            );
        }
    }

    fn note(&mut self, client: usize, kind: u64, number: u64) {
        let now = u64::try_from(self.now.as_micros()).unwrap();
        for word in [now, client as u64, kind, number] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Bytes written in the seconds `from..to`, by all.
    pub fn written_in(&self, from: usize, to: usize) -> u64 {
        self.clients.iter().map(|client| client.written_in(from, to)).sum()
    }

    /// The sojourn that so many per mille of all batches did not exceed.
    pub fn sojourn(&self, per_mille: usize) -> Duration {
        let all = self.clients.iter().flat_map(|client| client.sojourns.iter().copied());
        let mut all: Vec<Duration> = all.collect();
        all.sort_unstable();
        all.get(all.len() * per_mille / 1_000).copied().unwrap_or_default()
    }

    /// Forgets the sojourns of the time so far.
    pub fn forget_sojourns(&mut self) {
        self.clients.iter_mut().for_each(|client| client.sojourns.clear());
    }

    /// Clients of a class.
    pub fn of_class(&self, class: Class) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.plan.class == class)
    }
}
