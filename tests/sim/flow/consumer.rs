//! A consumer: the client's window and the broker's credit, with a fetch pool between them.

use std::collections::VecDeque;
use std::time::Duration;

use stoplog::broker::flow::{ConnectionFlow, Credit, FetchPermit, FetchPool, SubscriptionCredit};
use stoplog::client::flow::{CreditTotals, CreditWindow, Push, Share};

/// Most that one push holds.
const PUSH_BYTES: u64 = 256 << 10;
/// What one consumer may have waiting.
pub const SHARE: Share = Share { bytes: 4 << 20, records: u64::MAX };
/// How long a push is on its way.
const LINK: Duration = Duration::from_millis(1);

/// What it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habit {
    pub topic: usize,
    /// Bytes it takes each second; `None` = all that come, 0 = it does not even receive.
    pub bytes_per_second: Option<u64>,
    /// It asks for no more than so many records at a time.
    pub prefetch_records: Option<u64>,
    /// It takes nothing for this part of each second.
    pub rests: Duration,
}

/// Batches that were pushed together.
struct Parcel {
    bytes: u64,
    push: Push,
    epoch: u32,
    /// Held until it arrived.
    permit: FetchPermit,
}

/// One consumer, and the server's side of its subscription.
pub struct Consumer {
    pub habit: Habit,
    connection: ConnectionFlow,
    /// The server's side.
    credit: SubscriptionCredit,
    /// The next batch to be pushed.
    position: usize,
    on_the_way: VecDeque<(Duration, Parcel)>,
    /// The consumer's side.
    window: CreditWindow,
    waiting: VecDeque<(u64, u64)>,
    may_take: u64,
    pub taken_bytes: u64,
    /// When the server last could not push though it had credit and something to push.
    short_since: Option<Duration>,
    /// Since when the consumer reads and gets nothing though there is something.
    starves_since: Option<Duration>,
}

impl Consumer {
    pub fn new(habit: Habit, connection: ConnectionFlow) -> Consumer {
        let mut window = CreditWindow::new(habit.prefetch_records);
        let first = window.restart(SHARE, Duration::ZERO);
        Consumer {
            habit,
            connection,
            credit: SubscriptionCredit::new(frame(first)),
            position: 0,
            on_the_way: VecDeque::new(),
            window,
            waiting: VecDeque::new(),
            may_take: 0,
            taken_bytes: 0,
            short_since: None,
            starves_since: None,
        }
    }

    /// A CREDIT frame came.
    pub fn credited(&mut self, credit: Credit) {
        self.credit.apply(credit);
    }

    /// Pushes what it may of a topic's batches.
    pub fn push(&mut self, log: &[u64], pool: &FetchPool, now: Duration) {
        while let Some(budget) = self.credit.budget()
            && self.position < log.len()
        {
            let most = budget.bytes.min(PUSH_BYTES);
            let Some(mut permit) = self.permit(pool, most) else {
                self.short_since.get_or_insert(now);
                return;
            };
            self.short_since = None;
            let (mut bytes, mut records) = (0, 0);
            for batch in &log[self.position..] {
                if records > 0 && (bytes + batch > most || records >= budget.records) {
                    break;
                }
                (bytes, records) = (bytes + batch, records + 1);
            }
            permit.resize(bytes);
            self.position += usize::try_from(records).unwrap();
            self.credit.sent(bytes, records);
            let (sent_bytes, sent_records) = self.credit.sent_totals();
            let push = Push { sent_bytes, sent_records, more: self.position < log.len() };
            let parcel = Parcel { bytes, push, epoch: self.credit.epoch(), permit };
            self.on_the_way.push_back((now + LINK, parcel));
        }
        self.short_since = None;
    }

    fn permit(&self, pool: &FetchPool, most: u64) -> Option<FetchPermit> {
        let on_the_way = self.connection.on_the_way();
        let mut permit = pool.take(most);
        if permit.bytes() < most {
            permit = pool.alone(most, on_the_way)?;
        }
        permit.count_for(on_the_way);
        Some(permit)
    }

    /// Takes what came, as its habit is; what it tells the server then.
    pub fn read(&mut self, now: Duration, step: Duration) -> Option<Credit> {
        while !self.is_deaf()
            && self.on_the_way.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, Parcel { bytes, push, epoch, permit })) = self.on_the_way.pop_front()
        {
            drop(permit);
            assert_eq!(epoch, self.credit.epoch());
            self.window.received(push, now);
            self.waiting.push_back((bytes, push.sent_records));
        }
        if !self.is_reading(now) {
            return None;
        }
        let micros = u64::try_from(step.as_micros()).unwrap();
        let more = self.habit.bytes_per_second.map_or(u64::MAX, |rate| rate * micros / 1_000_000);
        self.may_take = self.may_take.saturating_add(more).min(more.max(PUSH_BYTES));
        let mut took = false;
        while let Some((bytes, sent_records)) = self.waiting.front().copied()
            && bytes.min(PUSH_BYTES) <= self.may_take
        {
            self.waiting.pop_front();
            self.may_take = self.may_take.saturating_sub(bytes);
            self.taken_bytes += bytes;
            self.window.taken(bytes, sent_records);
            took = true;
        }
        let again = self.window.repeat_at().is_some_and(|at| at <= now);
        (took || again).then(|| self.window.poll(SHARE, now)).flatten().map(frame)
    }

    /// Nothing is even taken off its socket.
    fn is_deaf(&self) -> bool {
        self.habit.bytes_per_second == Some(0)
    }

    fn is_reading(&self, now: Duration) -> bool {
        let millis = u128::from(now.subsec_millis());
        !self.is_deaf() && millis >= self.habit.rests.as_millis()
    }

    /// What holds after every step.
    pub fn check(
        &mut self,
        log: &[u64],
        batch_max: u64,
        now: Duration,
        stands: impl Fn(Duration) -> bool,
    ) {
        let waiting: u64 = self.waiting.iter().map(|(bytes, _)| bytes).sum();
        assert!(waiting <= SHARE.bytes + batch_max, "{waiting} bytes wait");
        let may = self.credit.budget().is_some() && self.position < log.len();
        assert!(!may || self.short_since.is_some(), "credit and data, and nothing was pushed");
        if self.is_deaf() {
            return; // it keeps what it asked for from nobody but itself
        }
        assert!(!self.short_since.is_some_and(&stands), "no room since {:?}", self.short_since);
        let idle = self.waiting.is_empty() && self.on_the_way.is_empty();
        if !(idle && self.is_reading(now) && self.position < log.len()) {
            self.starves_since = None;
            return;
        }
        let since = *self.starves_since.get_or_insert(now);
        assert!(!stands(since), "a reader got nothing since {since:?}");
    }
}

fn frame(CreditTotals { bytes_to, records_to }: CreditTotals) -> Credit {
    Credit { epoch: 0, bytes_to, records_to }
}
