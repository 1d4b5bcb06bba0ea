//! The partition log against a model: random runs over tiny segments, with every kind of restart.
//!
//! The model is the list of batches that were acknowledged, and of those that may or may not have
//! survived a crash. After each step that can be looked at, the log is read back from the start and
//! from random offsets.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use stoplog::env::sim::{Bias, Crash};
use stoplog::types::{Acks, Durability, Offset, PartitionHealth, Timestamp};

use crate::world::{World, batch, tiny};

#[derive(Clone, Debug)]
enum Op {
    /// Queue a batch of records of this many bytes, dated this many ms from now.
    Append {
        records: u8,
        bytes: u16,
        skew_ms: i16,
    },
    /// One round; jobs are executed at once or kept for later.
    Round {
        keep_jobs: bool,
    },
    /// Everything that can be done now.
    Settle,
    Roll,
    /// Trim to this part of the log (in 1/256).
    Trim(u8),
    Wait {
        ms: u32,
    },
    Read {
        at: u8,
        max_bytes: u16,
    },
    FindTime {
        ago_ms: u32,
    },
    Checkpoint,
    Reopen(Restart),
}

#[derive(Clone, Copy, Debug)]
enum Restart {
    Clean,
    Killed,
    Power { bias: u8, seed: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (1..6u8, 0..900u16, -50..50i16)
            .prop_map(|(records, bytes, skew_ms)| Op::Append { records, bytes, skew_ms }),
        5 => any::<bool>().prop_map(|keep_jobs| Op::Round { keep_jobs }),
        4 => Just(Op::Settle),
        1 => Just(Op::Roll),
        2 => any::<u8>().prop_map(Op::Trim),
        3 => (0..40_000u32).prop_map(|ms| Op::Wait { ms }),
        4 => (any::<u8>(), 0..6000u16).prop_map(|(at, max_bytes)| Op::Read { at, max_bytes }),
        2 => (0..80_000u32).prop_map(|ago_ms| Op::FindTime { ago_ms }),
        1 => Just(Op::Checkpoint),
        2 => restart().prop_map(Op::Reopen),
    ]
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![
        Just(Restart::Clean),
        Just(Restart::Killed),
        (0..4u8, any::<u64>()).prop_map(|(bias, seed)| Restart::Power { bias, seed }),
    ]
}

/// A batch the log was given.
#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    values: Vec<Vec<u8>>,
    timestamp: Timestamp,
}

/// A batch that is in the log.
#[derive(Clone, Debug)]
struct Stored {
    base: i64,
    sent: Sent,
}

impl Stored {
    fn next(&self) -> i64 {
        self.base + self.sent.values.len() as i64
    }
}

struct Run {
    world: Option<World>,
    /// Acknowledged, by offset.
    stored: Vec<Stored>,
    /// In flight, in order.
    sent: VecDeque<Sent>,
    jobs: Vec<stoplog::storage::SyncJob>,
    next_number: u64,
    start: i64,
    durability: Durability,
}

impl Run {
    fn world(&self) -> &World {
        self.world.as_ref().expect("open")
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append { records, bytes, skew_ms } => self.append(records, bytes, skew_ms),
            Op::Round { keep_jobs } => {
                let jobs = self.world().step.round();
                self.jobs.extend(jobs);
                if !keep_jobs {
                    self.run_jobs();
                }
            }
            Op::Settle => self.settle(),
            Op::Roll => drop(self.world().partition.roll()),
            Op::Trim(part) => self.trim(part),
            Op::Wait { ms } => {
                self.world().clock.advance(Duration::from_millis(ms.into()));
                self.settle();
            }
            Op::Read { at, max_bytes } => self.read(at, max_bytes.into()),
            Op::FindTime { ago_ms } => self.find_time(ago_ms),
            Op::Checkpoint => {
                let _ticket = self.world().partition.checkpoint();
            }
            Op::Reopen(restart) => self.reopen(restart),
        }
        self.note_answers();
    }

    fn append(&mut self, records: u8, bytes: u16, skew_ms: i16) {
        let number = self.next_number;
        self.next_number += 1;
        let value = |n: u8| {
            let mut value = format!("{number}/{n}:").into_bytes();
            value.resize(value.len() + usize::from(bytes), n);
            value
        };
        let values: Vec<_> = (0..records).map(value).collect();
        let timestamp = Timestamp(self.world().env.clock.now().0 + i64::from(skew_ms));
        self.world().send(number, batch(&values, timestamp, None), Acks::Topic);
        self.sent.push_back(Sent { number, values, timestamp });
    }

    fn run_jobs(&mut self) {
        for job in std::mem::take(&mut self.jobs) {
            self.world().step.sync_done(job.execute());
        }
    }

    fn settle(&mut self) {
        self.run_jobs();
        self.world().step.run_until_idle();
        self.note_answers();
        assert!(self.sent.is_empty(), "everything is answered: {:?}", self.sent);
    }

    fn note_answers(&mut self) {
        for (number, answer) in self.world().answers.drain() {
            let sent = self.sent.pop_front().expect("answers come in order");
            assert_eq!(sent.number, number, "answers come in order");
            let appended = answer.expect("nothing is refused in this run");
            let base = appended.base_offset.0;
            assert!(self.stored.last().is_none_or(|last| last.next() <= base), "offsets ascend");
            assert_eq!(appended.last_offset.0 + 1 - base, sent.values.len() as i64);
            self.stored.push(Stored { base, sent });
        }
    }

    fn trim(&mut self, part: u8) {
        self.settle();
        let end = self.world().partition.offsets().visible_end.0;
        let before = self.start + (end - self.start) * i64::from(part) / 256;
        let mut ticket = self.world().partition.trim(Offset(before));
        self.world().step.run_until_idle();
        assert_eq!(ticket.try_take(), Some(Ok(Offset(before))));
        self.start = before;
        self.check_all();
    }

    /// What readers may see now: the records of acknowledged batches, as far as they are visible.
    fn expected(&self, from: i64) -> Vec<(Offset, Vec<u8>)> {
        let records = self.stored.iter().flat_map(|stored| {
            let values = stored.sent.values.iter().enumerate();
            values.map(|(n, value)| (Offset(stored.base + n as i64), value.clone()))
        });
        records.filter(|(offset, _)| offset.0 >= from.max(self.start)).collect()
    }

    fn check_all(&mut self) {
        self.note_answers();
        let found = self.world().read_all(Offset(self.start));
        let expected = self.expected(self.start);
        assert_eq!(found.get(..expected.len()), Some(expected.as_slice()));
        if self.durability == Durability::Fsync {
            assert_eq!(found.len(), expected.len(), "nothing unacknowledged is visible");
        }
    }

    fn read(&mut self, at: u8, max_bytes: usize) {
        self.note_answers();
        let end = self.world().partition.offsets().visible_end.0;
        let from = self.start + (end - self.start) * i64::from(at) / 255;
        let read = self.world().read(Offset(from), max_bytes).expect("readable");
        let expected = self.expected(from);
        let known = read.records.len().min(expected.len());
        assert_eq!(read.records.get(..known), expected.get(..known), "from {from}");
        if known < read.records.len() {
            assert_ne!(self.durability, Durability::Fsync);
        }
        if from < end && !expected.is_empty() {
            assert!(!read.records.is_empty(), "a reader below the end always gets on");
        }
        assert!(read.records.is_empty() || read.next.0 > from);
        let one_batch = 1 << 20;
        assert!(read.bytes <= max_bytes.max(one_batch));
    }

    fn find_time(&mut self, ago_ms: u32) {
        self.settle();
        let at = self.world().env.clock.now().0 - i64::from(ago_ms);
        let found = self.world().partition.offset_at(Timestamp(at)).expect("looks");
        let expected = self
            .stored
            .iter()
            .find(|stored| stored.next() > self.start && stored.sent.timestamp.0 >= at)
            .map(|stored| (Offset(stored.base.max(self.start)), stored.sent.timestamp));
        assert_eq!(found, expected, "at {at}");
    }

    fn reopen(&mut self, restart: Restart) {
        let world = self.world.take().expect("open");
        if matches!(restart, Restart::Clean) {
            for job in std::mem::take(&mut self.jobs) {
                world.step.sync_done(job.execute());
            }
        }
        self.jobs.clear();
        let (answers, lost_power) =
            (world.answers.clone(), matches!(restart, Restart::Power { .. }));
        let world = match restart {
            Restart::Clean => world.reopen_clean(),
            Restart::Killed => world.reopen_killed(),
            Restart::Power { bias, seed } => {
                let bias = match bias {
                    0 => Bias::Nothing,
                    1 => Bias::Everything,
                    2 => Bias::Random,
                    _ => Crash::from_seed(seed).bias,
                };
                world.reopen_crashed(Crash { bias, seed })
            }
        };
        // Answers given before the end count; what was refused may or may not be there.
        for (number, answer) in answers.drain() {
            let Ok(appended) = answer else { continue };
            let at = self.sent.iter().position(|sent| sent.number == number).expect("sent");
            let sent = self.sent.remove(at).expect("there");
            self.stored.push(Stored { base: appended.base_offset.0, sent });
        }
        self.stored.sort_by_key(|stored| stored.base);
        self.world = Some(world);
        self.adopt_survivors(lost_power);
    }

    /// What the log holds now is the model from here on, after a check that it may hold it.
    fn adopt_survivors(&mut self, lost_power: bool) {
        assert_eq!(self.world().partition.health(), PartitionHealth::Writable);
        let start = self.world().partition.offsets().start.0;
        assert_eq!(start, self.start, "the log start is durable");
        let found = self.world().read_all(Offset(start));
        let may_lose = lost_power && self.durability != Durability::Fsync;
        let expected = self.expected(start);
        let kept = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        if !may_lose {
            assert_eq!(kept, expected.len(), "an acknowledged record is lost or changed");
        }
        let lost: Vec<Offset> = expected.iter().skip(kept).map(|(offset, _)| *offset).collect();
        self.stored.retain(|stored| !lost.contains(&Offset(stored.base)));
        let mut more = found.into_iter().skip(kept).peekable();
        while let Some((offset, value)) = more.next() {
            let at = self.sent.iter().position(|sent| sent.values.first() == Some(&value));
            let Some(sent) = at.and_then(|at| self.sent.remove(at)) else {
                panic!("offset {offset} was never sent, or is there twice");
            };
            for expected in sent.values.iter().skip(1) {
                assert_eq!(more.next().map(|(_, v)| v).as_ref(), Some(expected));
            }
            self.stored.push(Stored { base: offset.0, sent });
        }
        self.sent.clear();
    }
}

fn run(seed: u64, durability: Durability, ops: &[Op]) {
    let (storage, partition) = tiny();
    let partition = stoplog::storage::PartitionOptions { durability, ..partition };
    let mut run = Run {
        world: Some(World::with(seed, (storage, partition))),
        stored: Vec::new(),
        sent: VecDeque::new(),
        jobs: Vec::new(),
        next_number: 0,
        start: 0,
        durability,
    };
    for op in ops {
        run.apply(op);
    }
    run.settle();
    run.check_all();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_log_does_what_the_model_does(
        seed in any::<u64>(),
        fsync in any::<bool>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let durability = if fsync { Durability::Fsync } else { Durability::Os };
        run(seed, durability, &ops);
    }
}

/// A rival skips a million records at its first roll: here every record is read back in order,
/// through hundreds of rolls, trims and restarts, from the start and from any offset.
#[test]
fn every_record_is_read_back_through_rolls_trims_and_restarts() {
    let mut ops = Vec::new();
    for n in 0..2400_u32 {
        ops.push(Op::Append {
            records: 1 + (n % 5) as u8,
            bytes: (n % 7 * 90) as u16,
            skew_ms: (n % 11) as i16 - 5,
        });
        match n % 12 {
            3 => ops.push(Op::Round { keep_jobs: n % 24 == 3 }),
            7 => ops.push(Op::Settle),
            9 => ops.push(Op::Read { at: (n % 256) as u8, max_bytes: (n % 3000) as u16 }),
            _ => {}
        }
        if n % 151 == 150 {
            ops.push(Op::Trim(20));
        }
        if n % 83 == 82 {
            let seed = u64::from(n);
            let kinds = [Restart::Clean, Restart::Killed, Restart::Power { bias: 2, seed }];
            ops.push(Op::Reopen(kinds[n as usize % 3]));
        }
    }
    run(77, Durability::Fsync, &ops);
}
