//! Credit of a subscription: what the broker may have sent in total, so that at most a window waits
//! here. The window sizes itself.
//!
//! - It doubles when, within a second, the broker was out of credit for more than `STALL_MAX` while
//!   less than half of the window waited here: the reader is fast, the way is long.
//! - It is halved after `QUIET_SECONDS` in which less than a quarter of it waited or came in any second,
//!   down to the first window: less saves nothing.
//! - While nothing waits here the last frame is repeated: each second when the broker may be without
//!   credit, seldom when it surely has some. So no lost frame stalls for ever.
//!
//! # Invariants
//! - `taken <= sent`; granted totals never shrink within an epoch.
//! - `granted <= taken + window` when a frame leaves, so at most a window and one batch wait here.
//! - `known <= granted`: what is taken for arrived was sent.

use std::collections::VecDeque;
use std::time::Duration;

/// Credit of a new subscription: enough for a few large batches.
const WINDOW_BYTES_FIRST: u64 = 1 << 20;
/// Most credit of one subscription: what the broker takes of a claim.
const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// Least credit, when very many partitions share the memory: one small batch, as any other would do.
const WINDOW_BYTES_MIN: u64 = 4 << 10;
/// Most credit of all subscriptions of a connection: what the broker takes of their claims.
pub const CREDIT_BYTES_MAX: u64 = 64 << 20;
/// How often the credit is repeated that the broker may lack.
const REPEAT_STARVED: Duration = Duration::from_secs(1);
/// How often the credit is repeated that surely arrived: the broker may take less of a claim than was
/// claimed, and then it waits for the next.
const REPEAT_IDLE: Duration = Duration::from_secs(30);
/// Stall within a second that shows a window too small.
const STALL_MAX: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
/// Seconds of little use after which a window is too large.
const QUIET_SECONDS: u64 = 10;
/// Frames whose arrival is watched for; each is half a window, so a few are on their way at most.
const FRAMES_WATCHED: usize = 16;

/// What may have been sent in total since the epoch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreditTotals {
    /// Bytes.
    pub bytes_to: u64,
    /// Records.
    pub records_to: u64,
}

/// One subscription's part of what a consumer has for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes that may wait here.
    pub bytes: u64,
    /// Records that may come before more are handed out; `u64::MAX` = bytes alone decide.
    pub records: u64,
}

/// What a push says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// All bytes of this epoch, these included.
    pub sent_bytes: u64,
    /// All records of this epoch, these included.
    pub sent_records: u64,
    /// Whether the broker had more to send.
    pub more: bool,
}

/// The receiving side of one subscription.
#[derive(Clone, Debug)]
pub struct CreditWindow {
    window_bytes: u64,
    prefetch_records: Option<u64>,
    sent: Push,
    taken_bytes: u64,
    taken_records: u64,
    granted: CreditTotals,
    /// What surely arrived, and what may have.
    known: CreditTotals,
    on_the_way: VecDeque<CreditTotals>,
    last_frame: Duration,
    stalled_since: Option<Duration>,
    second: Second,
}

/// What was seen since a second began.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    began: Duration,
    stalled: Duration,
    /// The most that waited, and what came.
    waited_bytes: u64,
    came_bytes: u64,
    /// Seconds of little use before it.
    quiet: u64,
}

impl CreditWindow {
    /// A subscription to be. With `prefetch_records`, no more than so many (and the rest of one batch)
    /// wait here.
    pub fn new(prefetch_records: Option<u64>) -> CreditWindow {
        CreditWindow {
            window_bytes: WINDOW_BYTES_FIRST,
            prefetch_records: prefetch_records.map(|records| records.max(1)),
            sent: Push { sent_bytes: 0, sent_records: 0, more: false },
            taken_bytes: 0,
            taken_records: 0,
            granted: CreditTotals::default(),
            known: CreditTotals::default(),
            on_the_way: VecDeque::new(),
            last_frame: Duration::ZERO,
            stalled_since: None,
            second: Second::default(),
        }
    }

    /// A new epoch begins with the credit that is returned; the request that carries it is answered, so
    /// that it is not lost unnoticed.
    pub fn restart(&mut self, share: Share, now: Duration) -> CreditTotals {
        let mut fresh = CreditWindow::new(self.prefetch_records);
        fresh.window_bytes = self.window_bytes;
        fresh.fit(share.bytes);
        fresh.granted = fresh.claim(fresh.ahead(share));
        (fresh.known, fresh.last_frame, fresh.second.began) = (fresh.granted, now, now);
        *self = fresh;
        self.granted
    }

    /// What was told the broker last.
    pub fn granted(&self) -> CreditTotals {
        self.granted
    }

    /// Records that came and were not handed out.
    pub fn waiting_records(&self) -> u64 {
        self.sent.sent_records.saturating_sub(self.taken_records)
    }

    /// Bytes that may wait here.
    pub fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// Something was pushed.
    pub fn received(&mut self, push: Push, now: Duration) {
        self.roll(now);
        if let Some(since) = self.stalled_since.take() {
            self.second.stalled += now.saturating_sub(since);
        }
        // It was sent, so there was credit beyond what had been sent before.
        while self.is_spent()
            && let Some(arrived) = self.on_the_way.pop_front()
        {
            self.known = arrived;
        }
        let came = push.sent_bytes.saturating_sub(self.sent.sent_bytes);
        self.sent = push;
        self.second.came_bytes += came;
        self.second.waited_bytes = self.second.waited_bytes.max(self.waiting_bytes());
        self.watch_stall(now);
    }

    /// Bytes were handed out, of a push that said `sent_records`.
    pub fn taken(&mut self, bytes: u64, sent_records: u64) {
        self.taken_bytes += bytes;
        self.taken_records = self.taken_records.max(sent_records);
        debug_assert!(self.taken_bytes <= self.sent.sent_bytes, "more was taken than sent");
    }

    /// What to tell the broker now: when half a window was handed out, and again while it may lack it.
    pub fn poll(&mut self, share: Share, now: Duration) -> Option<CreditTotals> {
        self.watch_stall(now);
        self.roll(now);
        if self.second.stalled > STALL_MAX {
            self.window_bytes = self.window_bytes.saturating_mul(2);
            self.second.stalled = Duration::ZERO;
        }
        self.fit(share.bytes);
        let ahead = self.ahead(share);
        let claim = self.claim(ahead);
        let more_bytes = claim.bytes_to.saturating_sub(self.granted.bytes_to);
        let more_records = claim.records_to.saturating_sub(self.granted.records_to);
        let half = ahead.div_ceil(2).max(1);
        let repeat = self.repeat_at().is_some_and(|at| at <= now);
        if more_bytes < self.window_bytes.div_ceil(2) && more_records < half && !repeat {
            return None;
        }
        self.grant(claim, now);
        Some(self.granted)
    }

    /// When to call [`CreditWindow::poll`] again though nothing happens.
    pub fn repeat_at(&self) -> Option<Duration> {
        if self.waiting_bytes() > 0 {
            return None;
        }
        let starved = self.is_spent() || self.sent.more;
        Some(self.last_frame + if starved { REPEAT_STARVED } else { REPEAT_IDLE })
    }

    fn grant(&mut self, claim: CreditTotals, now: Duration) {
        let before = self.granted;
        self.granted.bytes_to = before.bytes_to.max(claim.bytes_to);
        self.granted.records_to = before.records_to.max(claim.records_to);
        self.last_frame = now;
        if self.granted != before && self.on_the_way.len() < FRAMES_WATCHED {
            self.on_the_way.push_back(self.granted);
        }
    }

    /// Records that may wait here.
    fn ahead(&self, share: Share) -> u64 {
        share.records.min(self.prefetch_records.unwrap_or(u64::MAX))
    }

    fn claim(&self, ahead: u64) -> CreditTotals {
        CreditTotals {
            bytes_to: self.taken_bytes.saturating_add(self.window_bytes),
            records_to: self.taken_records.saturating_add(ahead),
        }
    }

    /// Whether the broker may have used up what surely arrived.
    fn is_spent(&self) -> bool {
        self.sent.sent_bytes >= self.known.bytes_to
            || self.sent.sent_records >= self.known.records_to
    }

    fn waiting_bytes(&self) -> u64 {
        self.sent.sent_bytes.saturating_sub(self.taken_bytes)
    }

    fn fit(&mut self, share_bytes: u64) {
        let most = share_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        self.window_bytes = self.window_bytes.min(most);
    }

    /// A stall begins when the broker is out of bytes, has more, and the reader has used up half.
    fn watch_stall(&mut self, now: Duration) {
        let spent = self.sent.more && self.sent.sent_bytes >= self.known.bytes_to;
        if spent && self.waiting_bytes() < self.window_bytes / 2 {
            self.stalled_since.get_or_insert(now);
        }
    }

    /// Ends the second when it is over.
    fn roll(&mut self, now: Duration) {
        let over = now.saturating_sub(self.second.began).as_secs();
        if over == 0 {
            return;
        }
        let waiting = self.waiting_bytes();
        let little = |bytes: u64| bytes < self.window_bytes / 4;
        let mut quiet = match little(self.second.waited_bytes.max(self.second.came_bytes)) {
            true => self.second.quiet + 1,
            false => 0,
        };
        // Nothing came since: what waits now waited all the time.
        quiet = if little(waiting) { quiet + (over - 1) } else { 0 };
        if quiet >= QUIET_SECONDS && self.window_bytes > WINDOW_BYTES_FIRST {
            self.window_bytes = (self.window_bytes / 2).max(WINDOW_BYTES_FIRST);
            quiet = 0;
        }
        let began = self.second.began + SECOND * u32::try_from(over).unwrap_or(u32::MAX);
        self.second = Second { began, waited_bytes: waiting, quiet, ..Second::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share { bytes: 64 << 20, records: u64::MAX };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn window() -> CreditWindow {
        let mut window = CreditWindow::new(None);
        assert_eq!(window.restart(SHARE, ms(0)).bytes_to, WINDOW_BYTES_FIRST);
        window
    }

    fn push(window: &mut CreditWindow, sent_bytes: u64, more: bool, now: Duration) {
        window.received(Push { sent_bytes, sent_records: sent_bytes / 100, more }, now);
    }

    #[test]
    fn credit_follows_what_was_handed_out_by_halves() {
        let mut window = window();
        let half = WINDOW_BYTES_FIRST / 2;
        push(&mut window, half, true, ms(1));
        assert_eq!(window.poll(SHARE, ms(1)), None, "nothing was handed out yet");
        window.taken(half - 1, 0);
        assert_eq!(window.poll(SHARE, ms(1)), None);
        window.taken(1, 0);
        let told = window.poll(SHARE, ms(1)).expect("half is used");
        assert_eq!(told.bytes_to, half + WINDOW_BYTES_FIRST);
    }

    #[test]
    fn a_lost_credit_is_repeated_each_second_while_the_reader_starves() {
        let mut window = window();
        push(&mut window, WINDOW_BYTES_FIRST, true, ms(1));
        window.taken(WINDOW_BYTES_FIRST, 0);
        let lost = window.poll(SHARE, ms(2)).expect("all is used");
        for second in 1..5 {
            let at = ms(2) + SECOND * second;
            assert_eq!(window.repeat_at(), Some(at));
            assert_eq!(window.poll(SHARE, at - ms(1)), None);
            assert_eq!(window.poll(SHARE, at), Some(lost));
        }
        push(&mut window, WINDOW_BYTES_FIRST + 10, false, ms(5_000));
        assert_eq!(window.repeat_at(), None, "something waits to be handed out");
        window.taken(10, 0);
        assert_eq!(window.repeat_at(), Some(ms(4_002) + REPEAT_IDLE), "the credit arrived");
    }

    #[test]
    fn one_batch_of_overrun_proves_no_arrival() {
        let mut window = window();
        push(&mut window, WINDOW_BYTES_FIRST - 1, true, ms(1));
        window.taken(WINDOW_BYTES_FIRST - 1, 0);
        assert!(window.poll(SHARE, ms(1)).is_some());
        push(&mut window, WINDOW_BYTES_FIRST + 5_000, false, ms(2));
        window.taken(5_001, 0);
        assert_eq!(window.repeat_at(), Some(ms(1) + REPEAT_STARVED));
    }

    #[test]
    fn it_doubles_after_a_tenth_of_a_second_without_credit_up_to_its_share() {
        let mut window = window();
        let (mut sent, mut now) = (0, ms(0));
        for _ in 0..20 {
            sent = window.granted().bytes_to;
            push(&mut window, sent, true, now);
            window.taken(window.waiting_bytes(), 0);
            window.poll(Share { bytes: 6 << 20, ..SHARE }, now);
            now += ms(60);
        }
        assert_eq!(window.window_bytes(), 6 << 20);
        assert!(window.granted().bytes_to <= sent + (6 << 20));
    }

    #[test]
    fn a_reader_that_leaves_half_of_it_waiting_gets_no_more() {
        let mut window = window();
        for turn in 0..20 {
            let sent = window.granted().bytes_to;
            push(&mut window, sent, true, ms(100 * turn));
            window.poll(SHARE, ms(100 * turn + 90));
            window.taken(WINDOW_BYTES_FIRST / 2, 0);
            window.poll(SHARE, ms(100 * turn + 99));
        }
        assert_eq!(window.window_bytes(), WINDOW_BYTES_FIRST);
    }

    #[test]
    fn ten_seconds_of_little_use_halve_it_down_to_the_first() {
        let mut window = window();
        window.window_bytes = 4 << 20;
        let mut sent = 0;
        for second in 0..9 {
            sent += 1_000;
            push(&mut window, sent, false, SECOND * second);
            window.taken(1_000, 0);
        }
        assert_eq!(window.window_bytes(), 4 << 20);
        window.poll(SHARE, SECOND * 11);
        assert_eq!(window.window_bytes(), 2 << 20);
        window.poll(SHARE, SECOND * 60);
        window.poll(SHARE, SECOND * 120);
        assert_eq!(window.window_bytes(), WINDOW_BYTES_FIRST);
    }

    #[test]
    fn with_a_prefetch_no_more_records_are_asked_for() {
        let mut window = CreditWindow::new(Some(10));
        assert_eq!(window.restart(SHARE, ms(0)).records_to, 10);
        window.received(Push { sent_bytes: 900, sent_records: 10, more: true }, ms(1));
        assert_eq!(window.poll(SHARE, ms(1)), None);
        window.taken(900, 10);
        assert_eq!(window.poll(SHARE, ms(1)).map(|told| told.records_to), Some(20));
    }

    #[test]
    fn a_share_of_records_is_what_may_wait_and_none_is_none() {
        let share = |records| Share { records, ..SHARE };
        let mut window = CreditWindow::new(None);
        assert_eq!(window.restart(share(10), ms(0)).records_to, 10);
        window.received(Push { sent_bytes: 600, sent_records: 10, more: true }, ms(1));
        assert_eq!(window.waiting_records(), 10);
        window.taken(600, 10);
        assert_eq!(window.poll(share(0), ms(1)), None);
        assert_eq!(window.poll(share(4), ms(1)).map(|told| told.records_to), Some(14));
        assert_eq!(window.restart(share(4), ms(2)).records_to, 4);
    }
}
