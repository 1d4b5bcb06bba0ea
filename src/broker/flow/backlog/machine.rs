//! Whether a group's lag counts, and how much room is left: one machine per topic and group.
//!
//! | phase | what counts | left when |
//! |---|---|---|
//! | catching up | nothing | it has members and is below every limit |
//! | armed | its lag | there is no room: binding; an offset went back: catching up |
//! | binding | its lag | it is below nine tenths of every limit: armed |
//! | released | nothing | somebody joins: catching up |
//!
//! A group that stays without members is released. Until then it binds, so that a deploy does not
//! open the gate; a group that never joined never binds.
//!
//! A limit in seconds is kept as one in records: what the group reads in that time. Waiting until
//! the first unread record is so old would be too late, for the records behind it wait longer.

use std::sync::Arc;
use std::time::Duration;

use super::board::GroupSeen;
use super::drain::CommitRate;
use super::gauge::{BacklogGauge, Found, Mark};
use super::lag::{Lag, LagRing};
use crate::broker::flow::{FlowOptions, UNLIMITED};
use crate::types::{Offset, Severity, TopicPartition};

/// A record that was read waits for the commit too, so a little less than the time is handed out.
const AGE_PERCENT: u128 = 95;

/// How far a group may fall behind; `None` = as far as it will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogRules {
    /// Records.
    pub records: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
    /// Time.
    pub age: Option<Duration>,
}

/// Sizes of backlog limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogOptions {
    /// A group without members is released after this long: a dead group must not close a topic.
    pub absent_after: Duration,
    /// How much more a producer inside the group may write, in percent of the limit.
    pub insider_percent: u32,
}

impl From<&FlowOptions> for BacklogOptions {
    fn from(options: &FlowOptions) -> BacklogOptions {
        BacklogOptions {
            absent_after: Duration::from_millis(options.absent_after_ms),
            insider_percent: options.insider_percent,
        }
    }
}

impl Default for BacklogOptions {
    fn default() -> BacklogOptions {
        BacklogOptions::from(&FlowOptions::default())
    }
}

/// Where a group stands with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has not been below its limit since it joined or was reset.
    CatchingUp,
    /// Its lag counts and there is room.
    Armed,
    /// There is no room.
    Binding,
    /// It has been without members for too long.
    Released,
}

/// What one look at a group and a topic found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of all partitions together.
    pub lag: Lag,
    /// Bytes of a record, on average.
    pub record_bytes: u64,
    /// Sum of committed offsets.
    pub committed: u64,
    /// Members.
    pub members: u32,
    /// How often an offset went back.
    pub rewinds: u64,
}

impl Progress {
    /// What a group has made of a topic whose partitions begin here and have these rings. What is
    /// deleted is no lag. Of a partition it never committed it has read nothing: where it starts to
    /// read is known to nobody but itself, and a group that does not say it catches up for ever.
    pub fn of<'a>(
        seen: &GroupSeen,
        partitions: impl IntoIterator<Item = (TopicPartition, Offset, &'a LagRing)>,
        now: Duration,
    ) -> Progress {
        let mut progress =
            Progress { members: seen.members, rewinds: seen.rewinds, ..Progress::default() };
        let mut written = (0u64, 0u64);
        for (part, start, ring) in partitions {
            let (records, bytes) = ring.span();
            written = (written.0.saturating_add(records), written.1.saturating_add(bytes));
            let committed = seen.offsets.get(&part);
            let from = committed.map_or(start, |committed| start.max(*committed));
            progress.lag = progress.lag.and(ring.lag(from, now));
            let offset = committed.map_or(0, |committed| u64::try_from(committed.0).unwrap_or(0));
            progress.committed = progress.committed.saturating_add(offset);
        }
        progress.record_bytes = written.1.div_ceil(written.0.max(1));
        progress
    }
}

/// The machine of one topic and group.
#[derive(Debug)]
pub struct Backlog {
    rules: BacklogRules,
    options: BacklogOptions,
    phase: Phase,
    /// Not looked at since the start of the broker.
    resumed: bool,
    rewinds: u64,
    absent_since: Option<Duration>,
    rate: CommitRate,
    gauge: Arc<BacklogGauge>,
}

impl Backlog {
    /// A limit that was just set.
    pub fn new(rules: BacklogRules, options: BacklogOptions, gauge: Arc<BacklogGauge>) -> Backlog {
        Backlog {
            rules,
            options,
            phase: Phase::CatchingUp,
            resumed: false,
            rewinds: 0,
            absent_since: None,
            rate: CommitRate::default(),
            gauge,
        }
    }

    /// A limit that was there before the broker started. A group that is not further behind than
    /// it could be while its lag counted is taken to have been below: a restart opens no gate. One
    /// that is further behind was catching up.
    #[must_use]
    pub fn resumed(self) -> Backlog {
        Backlog { resumed: true, ..self }
    }

    /// Changes the limit; whether the lag counts stays as it is.
    pub fn set_rules(&mut self, rules: BacklogRules, severity: Severity) {
        self.rules = rules;
        self.gauge.set_severity(severity);
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What admission asks.
    pub fn gauge(&self) -> &Arc<BacklogGauge> {
        &self.gauge
    }

    /// Records the group reads per second, as last measured.
    pub fn drained_per_s(&self) -> Option<u64> {
        self.rate.per_s()
    }

    /// Takes what was found after `mark` was made. Returns the change of phase, if there is one.
    pub fn tick(&mut self, now: Duration, mark: Mark, seen: &Progress) -> Option<(Phase, Phase)> {
        let before = self.phase;
        let resumed = std::mem::take(&mut self.resumed);
        if seen.rewinds != self.rewinds {
            self.rewinds = seen.rewinds;
            if !resumed {
                self.rate.forget();
                self.phase = Phase::CatchingUp;
            }
        }
        self.rate.note(seen.committed, seen.lag.records > 0, now);
        self.presence(now, seen.members);
        let percent = if resumed { 101 + u64::from(self.options.insider_percent) } else { 100 };
        let present = seen.members > 0 || (resumed && seen.committed > 0);
        if self.phase == Phase::CatchingUp && present && self.below(&seen.lag, percent) {
            self.phase = Phase::Armed;
        }
        match self.phase {
            Phase::CatchingUp | Phase::Released => self.gauge.open(),
            Phase::Armed | Phase::Binding => self.count(mark, seen),
        }
        (self.phase != before).then_some((before, self.phase))
    }

    fn presence(&mut self, now: Duration, members: u32) {
        if members > 0 {
            self.absent_since = None;
            if self.phase == Phase::Released {
                self.phase = Phase::CatchingUp;
            }
            return;
        }
        let since = *self.absent_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.options.absent_after {
            self.phase = Phase::Released;
        }
    }

    fn count(&mut self, mark: Mark, seen: &Progress) {
        let lag = &seen.lag;
        let per_s = self.rate.per_s().unwrap_or(0);
        let limit = self.records_max();
        let records = self.found(lag.records, limit, per_s);
        let bytes_per_s = scale(lag.bytes, per_s, lag.records);
        let bytes = self.found(lag.bytes, self.rules.bytes.unwrap_or(UNLIMITED), bytes_per_s);
        let late = self.rules.age.is_some_and(|most| lag.age >= most);
        self.gauge.publish(mark, records, bytes, seen.record_bytes, late);
        if self.gauge.is_binding() && lag.records > 0 {
            self.phase = Phase::Binding;
        } else if self.below(lag, 90) {
            self.phase = Phase::Armed;
        }
    }

    fn found(&self, lag: u64, limit: u64, drained_per_s: u64) -> Found {
        let insider_extra = scale(limit, u64::from(self.options.insider_percent), 100);
        Found { lag, limit, insider_extra, drained_per_s }
    }

    /// The limit in records, with what the limit in time is worth. While it is not known how fast
    /// the group reads, that is nothing: it gets one batch, and then more and more.
    fn records_max(&self) -> u64 {
        let records = self.rules.records.unwrap_or(UNLIMITED);
        let Some(age) = self.rules.age else { return records };
        let per_s = self.rate.per_s().unwrap_or(0);
        let in_time = u128::from(per_s) * age.as_millis() * AGE_PERCENT / 100_000;
        records.min(u64::try_from(in_time).unwrap_or(UNLIMITED))
    }

    fn below(&self, lag: &Lag, percent: u64) -> bool {
        let below = |value: u64, most: Option<u64>| {
            most.is_none_or(|most| value == 0 || value < scale(most, percent, 100))
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        below(lag.records, self.rules.records)
            && below(lag.bytes, self.rules.bytes)
            && below(ms(lag.age), self.rules.age.map(ms))
    }
}

/// `amount * by / of`, without overflow.
fn scale(amount: u64, by: u64, of: u64) -> u64 {
    let scaled = u128::from(amount) * u128::from(by) / u128::from(of.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
