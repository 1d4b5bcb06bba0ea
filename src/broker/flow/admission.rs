//! The one way in for a batch: every limit in turn, and a ticket that undoes what they took.
//!
//! # Invariants
//! A refusal leaves every limit as it was. What a ticket took is given back exactly once, whatever
//! becomes of it; the pool's bytes last, after the answer.

use std::sync::Arc;
use std::time::Duration;

use super::{
    BacklogHold, Charged, ConnectionFlow, Enforcement, Flow, Full, HeaderTicket, Level,
    PartitionFlow, Permit, Room, Seat, Settled, Side, Standing, TopicFlow, TopicRoom, TopicRules,
    Within, WriterGauge, busy, in_time, retry_after_ms,
};
use crate::types::{Class, Pushback, PushbackCode, PushbackScope};

/// A batch that wants in.
pub struct Ask<'a> {
    /// What its header took before.
    pub header: Option<HeaderTicket>,
    /// Its bytes.
    pub bytes: u64,
    /// Its records; asked for when a quota counts them.
    pub records: &'a dyn Fn() -> u64,
    /// Whose it is; `None` = a caller in this process, without a share of the pool.
    pub connection: Option<&'a ConnectionFlow>,
    /// Where it goes.
    pub topic: &'a Arc<TopicFlow>,
    /// The rules of a topic with a limit.
    pub rules: Option<TopicRules>,
    /// Where it goes.
    pub partition: &'a PartitionFlow,
    /// Its class.
    pub class: Class,
    /// By what right it comes; `None` = it has no publisher, and its connection's seat counts it.
    pub standing: Option<Standing>,
    /// At which level it is to be acknowledged.
    pub level: Level,
    /// How long its sender waits for the answer.
    pub deadline: Option<Duration>,
}

/// What became of an admitted batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log.
    Written,
    /// Nothing of it is.
    NothingWritten,
    /// Nobody can say: it counts as written.
    Unknown,
}

/// An admitted batch, until it is settled. Dropped, nothing was written.
#[must_use = "dropping a ticket undoes the admission"]
pub struct Ticket {
    flow: Arc<Flow>,
    topic: Arc<TopicFlow>,
    /// `None` once it was settled.
    permit: Option<Permit>,
    bytes: u64,
    since: Duration,
    level: Level,
    /// The seat of a connection that sends without a publisher.
    seat: Option<Arc<Seat>>,
    /// The log writer in whose window it has its place.
    writer: Option<usize>,
    /// What quotas were charged, when there are any.
    charged: Option<Box<Charged>>,
    /// Bytes reserved under the topic's limit.
    reserved: u64,
    /// Room taken of the topic's backlog limits.
    backlog: BacklogHold,
    /// Bytes taken of the disk.
    on_disk: u64,
}

/// What quotas were charged when the header came, where there are any.
type HeaderCharge = Option<Box<Charged>>;

impl Flow {
    /// Takes what a batch needs from every limit, cheapest and refusing most first, or says which
    /// one refuses it.
    pub fn admit_batch(
        self: &Arc<Self>,
        mut ask: Ask<'_>,
        now: Duration,
    ) -> Result<Ticket, Pushback> {
        self.check_deadline(&ask)?;
        let (permit, header) = self.take_pool(&mut ask, now)?;
        let mut ticket = Ticket {
            flow: Arc::clone(self),
            topic: Arc::clone(ask.topic),
            permit: Some(permit),
            bytes: ask.bytes,
            since: now,
            level: ask.level,
            seat: None,
            writer: None,
            charged: None,
            reserved: 0,
            backlog: BacklogHold::default(),
            on_disk: 0,
        };
        if self.options.enforcement != Enforcement::Off {
            ticket.seat = self.take_seat(&ask, now)?;
            ticket.writer = self.take_window(&ask, now)?;
        }
        ticket.charged = self.charge_quotas(header, &ask, now)?;
        ticket.reserved = self.reserve_topic(&ask, now)?;
        ticket.backlog = hold_backlog(&ask)?;
        ticket.on_disk = self.take_disk(&ask, now)?;
        Ok(ticket)
    }

    /// Refuses what could not be answered in time, so that nobody waits for nothing. So does a quota
    /// that refuses for longer.
    fn check_deadline(&self, ask: &Ask<'_>) -> Result<(), Pushback> {
        let Some(deadline) = ask.deadline else { return Ok(()) };
        let Some(gauge) = self.writers.get(ask.partition.writer) else { return Ok(()) };
        let expected = gauge.predicted();
        if expected < deadline {
            return Ok(());
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (code, scope) = (PushbackCode::DeadlineUnmeetable, PushbackScope::Broker);
        Err(Pushback::reject(code, scope, "deadline")
            .met(millis(expected), millis(deadline), "ms")
            .after_ms(self.retry_after_ms(gauge, gauge.in_flight())))
    }

    /// Counts what comes without a publisher against the seat of its connection.
    fn take_seat(&self, ask: &Ask<'_>, now: Duration) -> Result<Option<Arc<Seat>>, Pushback> {
        let (None, Some(connection)) = (ask.standing, ask.connection) else { return Ok(None) };
        let seat = connection.seat(|| self.open_seat(ask.class));
        let Err((observed, limit)) = seat.take(ask.bytes, now) else {
            return Ok(Some(Arc::clone(seat)));
        };
        if self.options.enforcement == Enforcement::DryRun {
            self.forgone.share.increment();
            return Ok(None);
        }
        let excess = observed.saturating_add(ask.bytes).saturating_sub(limit).max(ask.bytes);
        let after_ms = self.pool.retry_after_ms(excess);
        Err(busy(PushbackScope::Publisher, "share", observed, limit, after_ms))
    }

    /// A place in the window of its log writer.
    fn take_window(&self, ask: &Ask<'_>, now: Duration) -> Result<Option<usize>, Pushback> {
        let writer = ask.partition.writer;
        let Some(gauge) = self.writers.get(writer) else { return Ok(None) };
        let within = match ask.standing {
            Some(Standing::Granted) => Within::Grant,
            Some(Standing::Allowance) | None => Within::Window,
        };
        let Err(full) = gauge.start(ask.bytes, within, ask.class, now) else {
            return Ok(Some(writer));
        };
        if self.options.enforcement == Enforcement::DryRun {
            self.forgone.window.increment();
            gauge.force(ask.bytes);
            return Ok(Some(writer));
        }
        Err(self.refuse_window(writer, gauge, ask.bytes, &full))
    }

    fn refuse_window(
        &self,
        writer: usize,
        gauge: &WriterGauge,
        bytes: u64,
        full: &Full,
    ) -> Pushback {
        let Full { observed, limit, min_class, .. } = *full;
        let excess = observed.saturating_add(bytes).saturating_sub(limit).max(bytes);
        let after_ms = self.retry_after_ms(gauge, excess);
        let limit_id = format!("writer:{writer}");
        let told = busy(PushbackScope::Broker, limit_id, observed, limit, after_ms);
        Pushback { min_class, ..told }
    }

    fn retry_after_ms(&self, gauge: &WriterGauge, bytes: u64) -> u32 {
        retry_after_ms(gauge.time_for(bytes), &self.options)
    }

    /// Bytes of the pool, or those that were reserved when the header came.
    fn take_pool(
        &self,
        ask: &mut Ask<'_>,
        now: Duration,
    ) -> Result<(Permit, Option<HeaderCharge>), Pushback> {
        if let Some(HeaderTicket { reserved, charged }) = ask.header.take() {
            let partition = &ask.partition.share;
            let permit =
                self.pool.admit_reserved(reserved, ask.bytes, ask.class, partition, now)?;
            return Ok((permit, Some(charged)));
        }
        let share = ask.connection.map(ConnectionFlow::share);
        let permit = self.pool.admit(ask.bytes, ask.class, &ask.partition.share, share, now)?;
        Ok((permit, None))
    }

    fn charge_quotas(
        &self,
        header: Option<HeaderCharge>,
        ask: &Ask<'_>,
        now: Duration,
    ) -> Result<Option<Box<Charged>>, Pushback> {
        let connection = ask.connection.unwrap_or(&self.embedded);
        let charged = header.map_or_else(|| connection.charge_header(ask.bytes, now), Ok);
        let (topic, bytes) = (&ask.topic.name, ask.bytes);
        let charged = charged
            .and_then(|header| connection.charge_batch(header, topic, bytes, ask.records, now));
        charged.map_err(|refusal| in_time(refusal.pushback(), ask.deadline))
    }

    fn reserve_topic(&self, ask: &Ask<'_>, now: Duration) -> Result<u64, Pushback> {
        let Some(rules) = &ask.rules else { return Ok(0) };
        let admitted = ask.topic.limit.admit(ask.bytes, rules, now);
        if admitted != Ok(TopicRoom::Enough) {
            self.over_limit.notify_one();
        }
        admitted.map(|_| ask.bytes)
    }

    fn take_disk(&self, ask: &Ask<'_>, now: Duration) -> Result<u64, Pushback> {
        let admitted = self.disk.admit(ask.bytes, ask.class, now);
        if admitted != Ok(Room::Enough) {
            self.look_at_disk.notify_one();
        }
        admitted.map(|_| ask.bytes)
    }
}

/// Takes room for a batch under the topic's backlog limits.
fn hold_backlog(ask: &Ask<'_>) -> Result<BacklogHold, Pushback> {
    ask.topic.backlog.admit(ask.bytes, ask.records, |group| match ask.connection {
        Some(connection) if connection.has_joined(group) => Side::Inside,
        _ => Side::Outside,
    })
}

impl Ticket {
    /// When it was admitted.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Bytes of the batch.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what the outcome leaves over, but for the pool's bytes: they are held until the
    /// answer is given. Those of the partition are not, or the batch that the answer makes room for
    /// could find none.
    pub fn settle(mut self, outcome: Outcome, now: Duration) -> Permit {
        if let Some(gauge) = self.gauge().filter(|_| outcome == Outcome::Written) {
            gauge.finish(self.bytes, now.saturating_sub(self.since), self.level, now);
            self.writer = None;
        }
        self.undo(outcome);
        let mut permit = self.permit.take().expect("a ticket is settled once");
        permit.leave_partition();
        permit
    }

    fn gauge(&self) -> Option<&WriterGauge> {
        self.writer.and_then(|writer| self.flow.writers.get(writer))
    }

    fn undo(&mut self, outcome: Outcome) {
        if let Some(gauge) = self.gauge() {
            gauge.undo(self.bytes);
        }
        if let Some(seat) = self.seat.take() {
            seat.answered(self.bytes);
        }
        let settled = match outcome {
            Outcome::Written | Outcome::Unknown => Settled::Written,
            Outcome::NothingWritten => Settled::Nothing,
        };
        if let Some(charged) = self.charged.take().filter(|_| settled == Settled::Written) {
            charged.written();
        }
        let backlog = std::mem::take(&mut self.backlog);
        if settled == Settled::Written {
            backlog.written();
        }
        if self.reserved > 0 {
            self.topic.limit.settle(self.reserved, settled);
        }
        if self.on_disk > 0 {
            self.flow.disk.settle(self.on_disk, settled);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.undo(Outcome::NothingWritten);
        }
    }
}
