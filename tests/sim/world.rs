//! A data directory on the simulated disk with everything around it: producers, readers, the writer
//! stepped by hand, and one model per partition.
//!
//! Nothing here decides at random but through `World::rng`, so that a seed is a run.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoplog::env::sim::{SimClock, SimDisk, env_on};
use stoplog::env::{Clock, SeededRng};
use stoplog::record::{BatchLimits, CheckedBatch, batches};
use stoplog::storage::{
    AdminTicket, Append, AppendError, Appended, Drive, LogDir, Materialised, OpenError, Partition,
    PartitionOptions, ReadRequest, Stepper, StorageOptions, SyncJob,
};
use stoplog::types::{Acks, Durability, Offset, PartitionId, TopicId, TopicPartition};

use crate::model::{Cut, Found, Model, Outcome, Recovered};

/// Steps without progress after which a run counts as stuck.
const STEPS_MAX: usize = 2_000;
/// Rounds without a job after which the writer is at rest.
const IDLE_ROUNDS: usize = 3;

type Answer = (usize, usize, Result<Appended, AppendError>);

/// An idempotent producer of one partition.
#[derive(Clone, Debug)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub next_sequence: i32,
    /// A batch failed: it goes on under its next epoch, as the client does.
    pub broken: bool,
}

/// One partition and what is known about it.
pub struct Part {
    pub id: TopicPartition,
    pub options: Arc<PartitionOptions>,
    pub handle: Partition,
    pub model: Model,
    pub producers: Vec<Producer>,
    pub known: Materialised,
    /// It is to go: the broker has that on record, and asks again at every start.
    pub deleted: bool,
    /// Where the reader of the run stands.
    read_to: i64,
    trims: Vec<(i64, AdminTicket<Offset>)>,
}

/// What a world is made of before anything is opened.
#[derive(Clone, Debug)]
pub struct Plan {
    pub storage: StorageOptions,
    pub parts: Vec<Arc<PartitionOptions>>,
}

/// A running data directory.
pub struct World {
    pub seed: u64,
    pub rng: SeededRng,
    pub disk: SimDisk,
    pub clock: SimClock,
    pub plan: Plan,
    pub parts: Vec<Part>,
    pub dir: Option<LogDir>,
    pub stepper: Option<Stepper>,
    pub jobs: Vec<SyncJob>,
    /// Syncs take long: many appends and rolls happen meanwhile.
    pub slow_syncs: bool,
    /// Faults are planted: a read may fail, and is then tried again later.
    pub tolerates_read_errors: bool,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// Starts so far: randomness of each start is its own.
    starts: u64,
}

/// Storage that is small enough to cross every border in a run of a hundred steps.
pub fn small_storage() -> StorageOptions {
    StorageOptions {
        drive: Drive::Stepped,
        writers: 1,
        lease_records: 40,
        seal_delay_max: Duration::from_millis(400),
        slot_flush: Duration::from_millis(50),
        index_flush_bytes: 6_000,
        checkpoint_idle: Duration::from_secs(5),
        housekeeping: Duration::from_secs(1),
        reserve_bytes_max: 4096,
        ..StorageOptions::default()
    }
}

pub fn small_partition(durability: Durability) -> PartitionOptions {
    PartitionOptions {
        durability,
        segment_bytes: 16_384 + 4096,
        retention: None,
        retention_bytes: None,
        ..PartitionOptions::default()
    }
}

pub fn partition_id(number: u32) -> TopicPartition {
    let topic = TopicId::from_bytes([number as u8 + 1; 16]);
    TopicPartition { topic, partition: PartitionId(number) }
}

impl World {
    /// An empty data directory, opened.
    pub fn new(seed: u64, plan: Plan) -> Result<World, String> {
        World::on(SimDisk::new(seed), SimClock::new(), seed, plan)
    }

    /// The same on a given disk.
    pub fn on(disk: SimDisk, clock: SimClock, seed: u64, plan: Plan) -> Result<World, String> {
        let mut world = World {
            seed,
            rng: SeededRng::new(seed),
            disk,
            clock,
            plan,
            parts: Vec::new(),
            dir: None,
            stepper: None,
            jobs: Vec::new(),
            slow_syncs: false,
            tolerates_read_errors: false,
            answers: Arc::default(),
            starts: 0,
        };
        let dir = world.start()?;
        for (number, options) in world.plan.parts.clone().into_iter().enumerate() {
            let id = partition_id(u32::try_from(number).unwrap());
            let handle = dir
                .partition(id, Arc::clone(&options), Materialised::Unknown)
                .map_err(|e| format!("open of {id}: {e}"))?;
            let mut model = Model::new(options.durability);
            model.retention = options.retention.is_some() || options.retention_bytes.is_some();
            world.parts.push(Part {
                id,
                options,
                handle,
                model,
                producers: Vec::new(),
                known: Materialised::Unknown,
                deleted: false,
                read_to: 0,
                trims: Vec::new(),
            });
        }
        world.dir = Some(dir);
        Ok(world)
    }

    fn start(&mut self) -> Result<LogDir, String> {
        self.starts += 1;
        let env = env_on(&self.disk, &self.clock, self.seed ^ (self.starts << 32));
        let dir = LogDir::open(self.plan.storage.clone(), env).map_err(|e| format!("open: {e}"))?;
        self.stepper = dir.stepper();
        self.jobs.clear();
        self.answers = Arc::default();
        Ok(dir)
    }

    pub fn below(&self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap()
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    /// Sends batch `index` of a partition (again).
    pub fn submit(&mut self, part: usize, index: usize, acks: Acks) {
        let answers = Arc::clone(&self.answers);
        let target = &mut self.parts[part];
        let sent = &mut target.model.sent[index];
        if sent.outcome == Outcome::NotWritten {
            sent.outcome = Outcome::Waiting;
        }
        let limits = BatchLimits::client(1 << 20);
        let batch = CheckedBatch::check(sent.bytes.clone(), &limits).unwrap();
        let done = move |result| answers.lock().unwrap().push((part, index, result));
        let append = Append::new(batch, acks, Box::new(done));
        if let Err(refused) = target.handle.append(append) {
            refused.done.done(Err(AppendError::DiskFull { free: 0, needed: 0 }));
        }
    }

    /// Makes a new batch and sends it; its number.
    pub fn append(
        &mut self,
        part: usize,
        producer: Option<usize>,
        records: u32,
        value_bytes: usize,
        acks: Acks,
    ) -> usize {
        let now = self.clock.now();
        let target = &mut self.parts[part];
        let stamp = producer.map(|number| {
            let producer = &mut target.producers[number];
            if std::mem::take(&mut producer.broken) {
                producer.epoch += 1;
                producer.next_sequence = 0;
            }
            let sequence = producer.next_sequence;
            producer.next_sequence += i32::try_from(records).unwrap();
            (producer.id, producer.epoch, sequence)
        });
        let index = target.model.send(stamp, records, value_bytes, now);
        self.submit(part, index, acks);
        index
    }

    pub fn add_producer(&mut self, part: usize) {
        let id = 1000 + self.parts[part].producers.len() as i64;
        let producer = Producer { id, epoch: 0, next_sequence: 0, broken: false };
        self.parts[part].producers.push(producer);
    }

    pub fn trim(&mut self, part: usize, before: i64) {
        let target = &mut self.parts[part];
        target.model.trim_requested = target.model.trim_requested.max(before);
        target.trims.push((before, target.handle.trim(Offset(before))));
    }

    /// One round of the writer; its jobs wait to be executed.
    pub fn round(&mut self) {
        let jobs = self.stepper.as_ref().map(Stepper::round).unwrap_or_default();
        self.jobs.extend(jobs);
    }

    /// Executes one waiting job and brings it back.
    pub fn execute(&mut self, number: usize) {
        let done = self.jobs.remove(number).execute();
        self.stepper.as_ref().unwrap().sync_done(done);
    }

    /// Rounds and jobs until nothing is left to do.
    pub fn settle(&mut self) -> Result<(), String> {
        self.settle_without(&[])
    }

    /// The same while jobs of some kinds wait.
    pub fn settle_without(&mut self, held: &[&str]) -> Result<(), String> {
        let mut idle = 0;
        for _ in 0..STEPS_MAX {
            self.round();
            if let Some(job) = self.jobs.iter().position(|job| !held.contains(&job.name())) {
                self.execute(job);
                idle = 0;
            } else if idle == IDLE_ROUNDS {
                return self.absorb();
            } else {
                idle += 1;
            }
        }
        Err("the writer never comes to rest".to_owned())
    }

    /// Most segments of a partition that are full and not sealed.
    pub fn sealing(&self) -> usize {
        let of = |part: &Part| {
            let open = part.handle.segment_count() - part.handle.sealed_segments().len();
            open.saturating_sub(1)
        };
        self.parts.iter().map(of).max().unwrap_or(0)
    }

    /// Takes in answers, and reads what became visible.
    pub fn absorb(&mut self) -> Result<(), String> {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap());
        for (part, index, result) in answers {
            let target = &mut self.parts[part];
            let failed = result.is_err();
            target.model.answered(index, result)?;
            let stamp = target.model.sent[index].producer.filter(|_| failed);
            let owner =
                |p: &&mut Producer| stamp.is_some_and(|s| s.id.0 == p.id && s.epoch.0 == p.epoch);
            if let Some(producer) = target.producers.iter_mut().find(owner) {
                producer.broken = true;
            }
        }
        let materialised = self.dir.as_ref().map(LogDir::take_materialised).unwrap_or_default();
        for part in &mut self.parts {
            if materialised.contains(&part.id) {
                part.known = Materialised::Yes;
            }
            part.absorb_trims();
            if part.deleted {
                continue;
            }
            match part.read_on() {
                Err(_) if self.tolerates_read_errors => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Starts again on `disk`, as after `cut`, and checks everything that is known.
    pub fn restart(&mut self, disk: SimDisk, cut: Cut) -> Result<(), String> {
        self.stop();
        self.disk = disk;
        let dir = self.start()?;
        for part in &mut self.parts {
            let known = part.known;
            part.handle = dir
                .partition(part.id, Arc::clone(&part.options), known)
                .map_err(|e| format!("open of {}: {e}", part.id))?;
            let after = recovered(&part.handle)?;
            let told = |e: String| format!("after {cut:?}, {}: {e}; {}", part.id, after.summary());
            part.model.check(&after, cut).map_err(told)?;
            part.model.restart(&after, cut);
            part.read_to = after.start;
            part.trims.clear();
            for producer in &mut part.producers {
                producer.broken = true;
            }
        }
        self.dir = Some(dir);
        Ok(())
    }

    /// Ends the process without any order.
    pub fn stop(&mut self) {
        self.disk.halt();
        self.jobs.clear();
        self.stepper = None;
        self.dir = None;
    }

    /// What a process started on this disk shows, against the models.
    pub fn check_image(&self, disk: &SimDisk, cut: Cut) -> Result<Opened, String> {
        let opened = Opened::start(self, disk)?;
        for (part, handle) in self.parts.iter().zip(&opened.handles) {
            let Some(handle) = handle else { continue };
            let after = recovered(handle)?;
            let told = |e: String| format!("{}: {e}; {}", part.id, after.summary());
            part.model.check(&after, cut).map_err(told)?;
        }
        Ok(opened)
    }
}

/// A data directory opened on a crash image.
pub struct Opened {
    pub dir: LogDir,
    /// `None` of one that was deleted.
    pub handles: Vec<Option<Partition>>,
}

impl Opened {
    pub fn start(world: &World, disk: &SimDisk) -> Result<Opened, String> {
        let env = env_on(disk, &world.clock, world.seed);
        let dir =
            LogDir::open(world.plan.storage.clone(), env).map_err(|e| format!("open: {e}"))?;
        let mut handles = Vec::with_capacity(world.parts.len());
        for part in &world.parts {
            let told = |e: OpenError| format!("open of {}: {e}", part.id);
            if part.deleted {
                dir.delete_partition(part.id).map_err(told)?;
                handles.push(None);
                continue;
            }
            let handle = dir.partition(part.id, Arc::clone(&part.options), part.known);
            handles.push(Some(handle.map_err(told)?));
        }
        Ok(Opened { dir, handles })
    }

    /// The partition at `part`, which was not deleted.
    pub fn handle(&self, part: usize) -> &Partition {
        self.handles[part].as_ref().unwrap()
    }

    /// Appends one batch and waits for it; its first offset.
    pub fn probe(&self, part: usize, model: &Model) -> Result<i64, String> {
        let mut scratch = Model::new(model.durability);
        scratch.payloads = model.payloads;
        let index = scratch.send(None, 2, 40, stoplog::types::Timestamp(1));
        let answer: Arc<Mutex<Option<Result<Appended, AppendError>>>> = Arc::default();
        let slot = Arc::clone(&answer);
        let batch =
            CheckedBatch::check(scratch.sent[index].bytes.clone(), &BatchLimits::client(1 << 20));
        let append = Append::new(
            batch.unwrap(),
            Acks::Durable,
            Box::new(move |result| *slot.lock().unwrap() = Some(result)),
        );
        self.handle(part).append(append).map_err(|_| "queue full".to_owned())?;
        let stepper = self.dir.stepper().unwrap();
        for _ in 0..STEPS_MAX {
            for job in stepper.round() {
                let done = job.execute();
                stepper.sync_done(done);
            }
            if let Some(result) = answer.lock().unwrap().take() {
                let appended = result.map_err(|e| format!("append after recovery: {e}"))?;
                return Ok(appended.base_offset.0);
            }
        }
        Err("an append after recovery is never answered".to_owned())
    }
}

impl Part {
    /// Trims that were not answered yet.
    pub fn trims_waiting(&self) -> usize {
        self.trims.len()
    }

    fn absorb_trims(&mut self) {
        let model = &mut self.model;
        self.trims.retain_mut(|(_, ticket)| match ticket.try_take() {
            Some(Ok(start)) => {
                model.trim_acked = model.trim_acked.max(start.0);
                false
            }
            Some(Err(_)) => false,
            None => true,
        });
    }

    /// Reads from where the reader stands to the visible end.
    fn read_on(&mut self) -> Result<(), String> {
        let ends = self.handle.offsets();
        self.read_to = self.read_to.max(ends.start.0);
        let mut found = Vec::new();
        let next = read(&self.handle, self.read_to, ends.visible_end.0, &mut found)?;
        for batch in &found {
            self.model.saw(batch)?;
        }
        self.read_to = next;
        Ok(())
    }
}

/// All batches of `[from, end)`; where it ended.
fn read(partition: &Partition, from: i64, end: i64, found: &mut Vec<Found>) -> Result<i64, String> {
    let mut at = from;
    while at < end {
        let request = ReadRequest { from: Offset(at), max_bytes: 3000 };
        let mut plan =
            partition.plan_read(request).map_err(|e| format!("read at {at} below {end}: {e}"))?;
        plan.populate().map_err(|e| format!("populate at {at}: {e}"))?;
        let owned = plan.owned().map_err(|e| format!("read at {at}: {e}"))?;
        if at % 3 == 0 {
            let mapped = plan.mapped().map_err(|e| format!("mapped read at {at}: {e}"))?;
            if mapped.concat() != owned.concat() {
                return Err(format!("at {at} the map shows other bytes than the file"));
            }
        }
        let before = found.len();
        for bytes in &owned {
            for batch in batches(bytes) {
                let batch = batch.map_err(|e| format!("read at {at}: {e}"))?;
                found.push(Found::read(batch.bytes())?);
            }
        }
        let next = plan.extent().map_or(at, |(next, _)| next.0);
        if found.len() == before {
            // Only a declared gap at the end reads as nothing below the end.
            return Ok(end);
        }
        if next <= at {
            return Err(format!("a read at {at} goes on at {next}"));
        }
        at = next;
    }
    Ok(at)
}

/// The batch at `at`, if a reader gets it.
pub fn read_one(partition: &Partition, at: i64) -> Result<Found, String> {
    let request = ReadRequest { from: Offset(at), max_bytes: 1 };
    let mut plan = partition.plan_read(request).map_err(|e| e.to_string())?;
    let owned = plan.owned().map_err(|e| e.to_string())?;
    let first = owned.iter().flat_map(|bytes| batches(bytes)).next();
    let batch = first.ok_or("nothing there")?.map_err(|e| e.to_string())?;
    Found::read(batch.bytes())
}

/// Everything a reader can get.
pub fn recovered(partition: &Partition) -> Result<Recovered, String> {
    let ends = partition.offsets();
    let mut batches = Vec::new();
    read(partition, ends.start.0, ends.visible_end.0, &mut batches)?;
    Ok(Recovered {
        health: partition.health(),
        start: ends.start.0,
        visible_end: ends.visible_end.0,
        log_end: ends.log_end.0,
        batches,
        findings: partition.findings().iter().map(ToString::to_string).collect(),
    })
}

/// Whether a file with these bytes is somewhere on the disk, whatever it is called.
pub fn holds_file(disk: &SimDisk, bytes: &[u8]) -> bool {
    let is_it = |path: &Path| disk.read_file(path).as_deref() == Some(bytes);
    disk.files().iter().any(|(path, len)| *len == bytes.len() as u64 && is_it(path))
}
