//! Rules of backlog limits, and the bound they hold with a slow group.

use super::*;
use crate::broker::flow::backlog::{BacklogReservation, Side};
use crate::broker::flow::{Cause, CauseId};
use crate::types::{
    Effects, GroupId, Offset, PartitionId, PushbackCode, PushbackScope, Severity, TopicId,
};
use proptest::prelude::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn backlog(rules: BacklogRules, severity: Severity) -> Backlog {
    let group: GroupId = "email".parse().expect("a group");
    let gauge = BacklogGauge::new(group, CauseId::from(Cause::Backlog), severity);
    Backlog::new(rules, BacklogOptions::default(), gauge)
}

fn records(most: u64) -> BacklogRules {
    BacklogRules { records: Some(most), ..BacklogRules::default() }
}

fn progress(records: u64, members: u32) -> Progress {
    let lag = Lag { records, bytes: records * 10, age: ms(records) };
    Progress { lag, record_bytes: 10, members, ..Progress::default() }
}

fn tick(backlog: &mut Backlog, now: Duration, seen: Progress) -> Option<(Phase, Phase)> {
    let mark = backlog.gauge().mark();
    backlog.tick(now, mark, &seen)
}

#[test]
fn a_new_group_and_a_replay_bind_nobody_until_they_caught_up_once() {
    let mut backlog = backlog(records(100), Severity::Hold);
    assert_eq!(tick(&mut backlog, ms(0), progress(5_000, 1)), None);
    assert!(backlog.gauge().admit(1_000, 1, Side::Outside).is_ok());
    let armed = Some((Phase::CatchingUp, Phase::Armed));
    assert_eq!(tick(&mut backlog, ms(100), progress(99, 1)), armed);
    assert!(backlog.gauge().admit(1_000, 1, Side::Outside).is_err());
    let replay = Progress { rewinds: 1, ..progress(9_000, 1) };
    assert_eq!(tick(&mut backlog, ms(200), replay).map(|(_, to)| to), Some(Phase::CatchingUp));
    assert!(backlog.gauge().admit(1_000, 1, Side::Outside).is_ok());
}

#[test]
fn a_group_that_never_joined_never_binds() {
    let mut backlog = backlog(records(100), Severity::Hold);
    assert_eq!(tick(&mut backlog, ms(0), progress(0, 0)), None);
    assert_eq!(tick(&mut backlog, ms(100), progress(500, 0)), None);
    assert!(backlog.gauge().admit(1, 1, Side::Outside).is_ok());
}

#[test]
fn a_deploy_does_not_open_the_gate_and_a_dead_group_does() {
    let mut backlog = backlog(records(100), Severity::Hold);
    tick(&mut backlog, ms(0), progress(0, 1));
    tick(&mut backlog, ms(100), progress(100, 0));
    assert!(backlog.gauge().admit(1, 1, Side::Outside).is_err());
    tick(&mut backlog, ms(599_000), progress(100, 0));
    assert_eq!(backlog.phase(), Phase::Binding);
    let released = Some((Phase::Binding, Phase::Released));
    assert_eq!(tick(&mut backlog, ms(600_100), progress(100, 0)), released);
    assert!(backlog.gauge().admit(1_000, 1, Side::Outside).is_ok());
    let back = Some((Phase::Released, Phase::CatchingUp));
    assert_eq!(tick(&mut backlog, ms(700_000), progress(1_100, 1)), back);
}

#[test]
fn a_restart_opens_no_gate_and_arms_no_replay() {
    let resumed = |lag: Progress| {
        let mut backlog = backlog(records(100), Severity::Hold).resumed();
        tick(&mut backlog, ms(0), lag);
        backlog
    };
    let full = resumed(progress(110, 1));
    assert_eq!(full.phase(), Phase::Binding);
    assert!(full.gauge().admit(1, 1, Side::Outside).is_err());
    let was_reset = Progress { rewinds: 4, committed: 9, ..progress(50, 0) };
    assert_eq!(resumed(was_reset).phase(), Phase::Armed, "resets of an earlier life");
    assert_eq!(resumed(progress(0, 0)).phase(), Phase::CatchingUp, "a group nobody ever saw");
    let mut replay = resumed(progress(5_000, 1));
    assert_eq!(replay.phase(), Phase::CatchingUp);
    tick(&mut replay, ms(100), progress(110, 1));
    assert_eq!(replay.phase(), Phase::CatchingUp, "only the first look is lenient");
}

#[test]
fn an_edited_limit_counts_at_once() {
    let mut backlog = backlog(records(100), Severity::Hold);
    tick(&mut backlog, ms(0), progress(50, 1));
    backlog.set_rules(records(20), Severity::Reject);
    tick(&mut backlog, ms(100), progress(50, 1));
    let told = backlog.gauge().admit(1, 1, Side::Outside).expect_err("50 of 20");
    assert_eq!((told.severity, told.limit), (Severity::Reject, 20));
}

#[test]
fn a_refusal_names_the_group_and_when_there_will_be_room() {
    let mut backlog = backlog(records(100), Severity::Hold);
    for second in 0..4u64 {
        let seen = Progress { committed: second * 20, ..progress(90, 1) };
        tick(&mut backlog, ms(second * 1_000), seen);
    }
    let told = backlog.gauge().admit(50, 1, Side::Outside).expect_err("10 fit");
    assert_eq!((told.code, told.scope), (PushbackCode::BacklogLimit, PushbackScope::Group));
    assert_eq!((told.severity, told.effects), (Severity::Hold, Effects::None));
    assert_eq!((told.observed, told.limit, told.unit.as_str()), (90, 100, "records"));
    assert_eq!((told.retry_after_ms, told.limit_id.as_str()), (2_000, "backlog:email"));
    let far = backlog.gauge().admit(5_000, 1, Side::Outside).expect_err("more than 30 s");
    assert_eq!(far.retry_after_ms, 30_000);
}

#[test]
fn reject_refuses_and_an_insider_gets_a_tenth_more_and_is_never_told_to_wait() {
    let mut refusing = backlog(records(100), Severity::Reject);
    tick(&mut refusing, ms(0), progress(95, 1));
    let told = refusing.gauge().admit(6, 1, Side::Outside).expect_err("101");
    assert_eq!(told.severity, Severity::Reject);
    let mut throttling = backlog(records(100), Severity::Hold);
    tick(&mut throttling, ms(0), progress(95, 1));
    let _kept = throttling.gauge().admit(15, 1, Side::Inside).expect("110");
    let told = throttling.gauge().admit(1, 1, Side::Inside).expect_err("111");
    assert_eq!(told.severity, Severity::Reject);
}

#[test]
fn room_is_taken_by_reservations_until_they_are_seen_in_the_log() {
    let mut backlog = backlog(records(100), Severity::Hold);
    tick(&mut backlog, ms(0), progress(40, 1));
    let admit = |backlog: &Backlog, n| backlog.gauge().admit(n, n * 10, Side::Outside);
    let written = admit(&backlog, 50).expect("90");
    assert!(admit(&backlog, 11).is_err());
    drop(admit(&backlog, 10).expect("100; then not written"));
    written.written();
    assert!(admit(&backlog, 11).is_err(), "written, and not seen yet");
    tick(&mut backlog, ms(100), progress(90, 1));
    assert_eq!(backlog.gauge().room_bytes(), 100);
    tick(&mut backlog, ms(200), progress(50, 1));
    assert!(admit(&backlog, 50).is_ok());
}

#[test]
fn a_batch_above_the_limit_passes_when_all_is_read_and_nothing_is_under_way() {
    let mut backlog = backlog(records(10), Severity::Hold);
    tick(&mut backlog, ms(0), progress(0, 1));
    let large = backlog.gauge().admit(50, 1, Side::Outside).expect("alone");
    assert!(backlog.gauge().admit(50, 1, Side::Outside).is_err());
    large.written();
    assert!(backlog.gauge().admit(50, 1, Side::Outside).is_err(), "not seen yet");
    tick(&mut backlog, ms(100), progress(50, 1));
    assert!(backlog.gauge().admit(50, 1, Side::Outside).is_err());
    tick(&mut backlog, ms(200), progress(0, 1));
    assert!(backlog.gauge().admit(50, 1, Side::Outside).is_ok());
}

#[test]
fn progress_adds_up_partitions_from_what_was_committed_or_where_they_begin() {
    let topic = TopicId::from_bytes([7; 16]);
    let part = |number| TopicPartition { topic, partition: PartitionId(number) };
    let ring = |end: i64| {
        let mut ring = LagRing::new();
        ring.note(ms(0), Offset(0), 0);
        ring.note(ms(1_000), Offset(end), end as u64 * 10);
        ring
    };
    let rings = [ring(100), ring(50), ring(9_999)];
    let starts = [Offset(10), Offset(20), Offset(0)];
    let partitions =
        (0u32..).zip(starts).zip(&rings).map(|((n, start), ring)| (part(n), start, ring));
    let seen = GroupSeen {
        members: 3,
        offsets: [(part(0), Offset(80)), (part(1), Offset(0))].into(),
        ..GroupSeen::default()
    };
    let progress = Progress::of(&seen, partitions, ms(2_000));
    assert_eq!((progress.lag.records, progress.lag.bytes), (50 + 9_999, 500 + 99_990));
    assert_eq!((progress.lag.age, progress.committed, progress.members), (ms(2_000), 80, 3));
    assert_eq!(progress.record_bytes, 10);
}

#[test]
fn binding_ends_at_nine_tenths() {
    let mut backlog = backlog(records(100), Severity::Hold);
    tick(&mut backlog, ms(0), progress(10, 1));
    tick(&mut backlog, ms(1), progress(100, 1));
    assert_eq!(backlog.phase(), Phase::Binding);
    assert_eq!(tick(&mut backlog, ms(2), progress(95, 1)), None);
    let free = Some((Phase::Binding, Phase::Armed));
    assert_eq!(tick(&mut backlog, ms(3), progress(89, 1)), free);
}

/// A topic of one partition, a producer as fast as it is let, a group that reads `drain` records a
/// second and commits every `commit_ms`. Writes take 5 ms. Steps of 10 ms, ticks of 100 ms.
struct World {
    backlog: Backlog,
    ring: LagRing,
    under_way: Vec<(Duration, u64, BacklogReservation)>,
    end: u64,
    read: u64,
    committed: u64,
    refused_until: Duration,
}

impl World {
    fn new(rules: BacklogRules) -> World {
        World {
            backlog: backlog(rules, Severity::Hold),
            ring: LagRing::new(),
            under_way: Vec::new(),
            end: 0,
            read: 0,
            committed: 0,
            refused_until: ms(0),
        }
    }

    fn lag(&self, now: Duration) -> Lag {
        self.ring.lag(Offset(self.committed as i64), now)
    }

    fn step(&mut self, step: u64, drain: u64, commit_ms: u64, batch: u64, batches: u64) {
        let now = ms(step * 10);
        let (done, rest) = self.under_way.drain(..).partition(|write| write.0 < now);
        self.under_way = rest;
        let done: Vec<(Duration, u64, BacklogReservation)> = done;
        for (_, records, reservation) in done {
            self.end += records;
            reservation.written();
        }
        self.read = (self.read + drain / 100).min(self.end);
        if (step * 10).is_multiple_of(commit_ms) {
            self.committed = self.read;
        }
        if step.is_multiple_of(10) {
            let mark = self.backlog.gauge().mark();
            self.ring.note(now, Offset(self.end as i64), self.end * 100);
            let lag = self.lag(now);
            let seen = Progress {
                lag,
                record_bytes: 100,
                committed: self.committed,
                members: 1,
                rewinds: 0,
            };
            self.backlog.tick(now, mark, &seen);
        }
        for _ in 0..batches {
            if now < self.refused_until {
                break;
            }
            match self.backlog.gauge().admit(batch, batch * 100, Side::Outside) {
                Ok(reservation) => self.under_way.push((now + ms(5), batch, reservation)),
                Err(told) => self.refused_until = now + ms(u64::from(told.retry_after_ms)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn committed_lag_stays_within_the_limit_and_uses_it(
        drain in 5u64..40, commit_ms in 2u64..10, commits in 10u64..20, unit in 0u8..2,
        batch in 1u64..20,
    ) {
        let (drain, commit_ms) = (drain * 100, commit_ms * 100);
        let limit = drain * commit_ms * commits / 1_000;
        let rules = match unit {
            0 => records(limit),
            _ => BacklogRules { bytes: Some(limit * 100), ..BacklogRules::default() },
        };
        let mut world = World::new(rules);
        for step in 0..6_000 {
            world.step(step, drain, commit_ms, batch, 10 * drain / 100 / batch + 1);
            let lag = world.end - world.committed;
            prop_assert!(lag * 10 <= limit * 11, "{lag} of {limit} at {step}");
            if step > 3_000 {
                prop_assert!(lag * 10 >= limit * 8, "only {lag} of {limit} at {step}");
            }
        }
        prop_assert_eq!(world.backlog.phase(), Phase::Binding);
    }

    #[test]
    fn a_limit_in_seconds_holds_the_age_and_does_not_starve_the_group(
        drain in 5u64..40, commit_ms in 5u64..10, seconds in 10u64..20, batch in 1u64..20,
    ) {
        holds_the_age(drain * 100, commit_ms * 100, seconds, batch);
    }
}

#[test]
fn a_group_whose_first_commit_came_early_is_not_taken_for_slow_at_its_second() {
    holds_the_age(800, 800, 13, 10);
}

fn holds_the_age(drain: u64, commit_ms: u64, seconds: u64, batch: u64) {
    let most = Duration::from_secs(seconds);
    let mut world = World::new(BacklogRules { age: Some(most), ..BacklogRules::default() });
    for step in 0..9_000 {
        world.step(step, drain, commit_ms, batch, 10 * drain / 100 / batch + 1);
        if step > 3_000 {
            let age = world.lag(ms(step * 10)).age;
            assert!(age * 10 <= most * 11, "{age:?} of {most:?} at {step}");
        }
        if step > 5_000 {
            assert!(world.end > world.read, "the group has nothing to read at {step}");
        }
    }
    let per_s = world.backlog.drained_per_s().expect("it reads");
    assert!(per_s * 10 >= drain * 9 && per_s * 10 <= drain * 11, "{per_s} of {drain}");
}
