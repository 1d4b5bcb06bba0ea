//! When what was refused may be tried again.
//!
//! - Never before the broker said, and up to 1.3 times as late, so that those who were refused together
//!   do not come back together.
//! - An exact time (a debt over its rate) is taken as told. A guess (a busy broker, a lost connection)
//!   doubles with each repeat, up to half a minute.
//! - All requests of a process share a budget: those that were refused before, and those that come after a
//!   refused one, are a tenth of the others, or three a second when that is more.
//! - What cannot be tried before its deadline is given up at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::env::Rng;
use crate::types::{Pushback, PushbackCode};

/// Longest wait that doubling comes to.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Jitter: up to so much of the wait is added.
const JITTER: f64 = 0.3;

/// What the other side said about when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Then it is let in, if nobody else comes before.
    Exactly(Duration),
    /// Perhaps then.
    About(Duration),
    /// Nothing.
    Nothing,
}

impl Told {
    /// What a refusal says.
    pub fn by(pushback: &Pushback) -> Told {
        let wait = Duration::from_millis(u64::from(pushback.retry_after_ms));
        match pushback.code {
            _ if wait.is_zero() => Told::Nothing,
            PushbackCode::ThrottledRate
            | PushbackCode::DiskLow
            | PushbackCode::DiskFull
            | PushbackCode::TopicFull
            | PushbackCode::BacklogLimit
            | PushbackCode::MetadataRate => Told::Exactly(wait),
            PushbackCode::ServerBusy
            | PushbackCode::DeadlineUnmeetable
            | PushbackCode::CreditViolation
            | PushbackCode::ConnLimit
            | PushbackCode::Draining => Told::About(wait),
        }
    }
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Try again then.
    At(Duration),
    /// Its time is over before that.
    GiveUp,
}

/// The waits of one sequence of attempts.
#[derive(Clone, Copy, Debug)]
pub struct RetryContract {
    first: Duration,
    failures: u32,
}

impl RetryContract {
    /// Waits that begin at `first` where nothing is told.
    pub fn new(first: Duration) -> RetryContract {
        RetryContract { first, failures: 0 }
    }

    /// It worked: the next failure is the first again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after another failure.
    pub fn wait(&mut self, rng: &dyn Rng, told: Told) -> Duration {
        let doubled = |base: Duration| {
            let doubled = base.saturating_mul(1 << self.failures.min(12));
            doubled.min(WAIT_MAX.max(base))
        };
        let wait = match told {
            Told::Exactly(wait) => wait,
            Told::About(wait) => doubled(wait),
            Told::Nothing => doubled(self.first),
        };
        self.failures += 1;
        let part = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        wait + wait.mul_f64(JITTER * part)
    }

    /// The same for something that is of no use after `deadline`.
    pub fn next(&mut self, rng: &dyn Rng, told: Told, now: Duration, deadline: Duration) -> Retry {
        let at = now + self.wait(rng, told);
        if at < deadline { Retry::At(at) } else { Retry::GiveUp }
    }
}

/// How many retries a process may make.
///
/// # Invariants
/// Retries let through in any time are at most a tenth of the requests of it, plus three for each second of
/// it, plus `BURST`.
#[derive(Debug)]
pub struct RetryBudget {
    requests: AtomicU64,
    state: Mutex<Balance>,
}

#[derive(Debug)]
struct Balance {
    /// Millionths of a retry.
    left: i64,
    seen_requests: u64,
    at: Duration,
}

/// Millionths of a retry.
const RETRY: i64 = 1_000_000;
/// What a request earns.
const PER_REQUEST: i64 = RETRY / 10;
/// What a microsecond earns.
const PER_MICROSECOND: i64 = 3;
/// One more comes at least this often. The next of very many that wait is not asked for sooner: they
/// would do nothing but ask.
const ASK_AGAIN: Duration = Duration::from_millis(334);
/// Most that is saved up: each of a hundred partitions may be refused at once.
const BURST: i64 = 100 * RETRY;

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        let balance = Balance { left: BURST, seen_requests: 0, at: Duration::ZERO };
        RetryBudget { requests: AtomicU64::new(0), state: Mutex::new(balance) }
    }
}

impl RetryBudget {
    /// The one that all clients of this process share unless they are given another.
    pub fn of_process() -> Arc<RetryBudget> {
        static BUDGET: OnceLock<Arc<RetryBudget>> = OnceLock::new();
        Arc::clone(BUDGET.get_or_init(Arc::default))
    }

    /// A request is made for the first time.
    pub fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry, to be made now.
    ///
    /// # Errors
    /// There is none left; how long to wait before asking again.
    pub fn take(&self, now: Duration) -> Result<(), Duration> {
        // Numbers; a panic between two of them is a defect that costs some retries.
        let mut balance = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        balance.earn(self.requests.load(Ordering::Relaxed), now);
        if balance.left < RETRY {
            return Err(ASK_AGAIN);
        }
        balance.left -= RETRY;
        Ok(())
    }
}

impl Balance {
    fn earn(&mut self, requests: u64, now: Duration) {
        let made = i64::try_from(requests.saturating_sub(self.seen_requests)).unwrap_or(i64::MAX);
        let passed = now.saturating_sub(self.at).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let earned = made.saturating_mul(PER_REQUEST).max(passed.saturating_mul(PER_MICROSECOND));
        self.left =
            self.left.saturating_add(earned).min(BURST.max(made.saturating_mul(PER_REQUEST)));
        (self.seen_requests, self.at) = (requests, self.at.max(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SeededRng;
    use crate::types::PushbackScope;

    const FIRST: Duration = Duration::from_millis(50);

    #[test]
    fn guesses_double_up_to_a_limit_and_start_over() {
        let rng = SeededRng::new(1);
        let mut contract = RetryContract::new(FIRST);
        for failures in 0..20 {
            let base = (FIRST * (1 << failures.min(12))).min(WAIT_MAX);
            let wait = contract.wait(&rng, Told::Nothing);
            assert!(wait >= base && wait <= base.mul_f64(1.3), "{failures} {wait:?}");
        }
        contract.worked();
        assert!(contract.wait(&rng, Told::Nothing) <= FIRST.mul_f64(1.3));
    }

    #[test]
    fn exact_times_are_taken_as_told_and_never_cut_short() {
        let rng = SeededRng::new(1);
        let mut contract = RetryContract::new(FIRST);
        for _ in 0..20 {
            let told = Duration::from_secs(90);
            let wait = contract.wait(&rng, Told::Exactly(told));
            assert!(wait >= told && wait <= told.mul_f64(1.3), "{wait:?}");
        }
    }

    #[test]
    fn debts_are_exact_and_predictions_are_not() {
        let told =
            |code| Told::by(&Pushback::hold(code, PushbackScope::Broker, "x").after_ms(7_000));
        let wait = Duration::from_secs(7);
        assert_eq!(told(PushbackCode::ThrottledRate), Told::Exactly(wait));
        assert_eq!(told(PushbackCode::ServerBusy), Told::About(wait));
        let silent = Pushback::hold(PushbackCode::DiskFull, PushbackScope::DataDir, "disk:full");
        assert_eq!(Told::by(&silent), Told::Nothing);
    }

    #[test]
    fn what_cannot_be_in_time_is_given_up_at_once() {
        let rng = SeededRng::new(1);
        let mut contract = RetryContract::new(FIRST);
        let (now, told) = (Duration::from_secs(10), Told::Exactly(Duration::from_secs(2)));
        assert_eq!(contract.next(&rng, told, now, Duration::from_secs(12)), Retry::GiveUp);
        let late = contract.next(&rng, told, now, Duration::from_secs(13));
        assert!(matches!(late, Retry::At(at) if at >= Duration::from_secs(12)), "{late:?}");
    }

    #[test]
    fn retries_are_a_tenth_of_the_requests_or_three_a_second() {
        let budget = RetryBudget::default();
        let taken = |now| (0..1_000).filter(|_| budget.take(now).is_ok()).count();
        let start = Duration::from_secs(5);
        assert_eq!(taken(start), 100, "what is saved up");
        let wait = budget.take(start).expect_err("nothing is left");
        assert_eq!(taken(start + wait), 1);
        assert_eq!(taken(start + wait + Duration::from_secs(10)), 30);
        for _ in 0..200 {
            budget.requested();
        }
        assert_eq!(taken(start + wait + Duration::from_secs(11)), 20);
    }
}
