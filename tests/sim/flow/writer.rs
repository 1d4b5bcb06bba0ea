//! A log writer as flow control sees it: it takes what waits, writes it, syncs once, answers all of it.

use std::time::Duration;

use stoplog::broker::flow::Ticket;
use stoplog::env::Rng;

/// How long a sync takes beside the writing.
#[derive(Clone, Copy, Debug)]
pub enum Fsync {
    Always(Duration),
    Between(Duration, Duration),
}

/// A batch on its way.
pub struct Queued {
    pub client: usize,
    pub bytes: u64,
    pub ticket: Ticket,
}

/// One writer.
pub struct ModelWriter {
    pub bytes_per_second: u64,
    pub fsync: Fsync,
    /// Syncs that end after this hang until then.
    pub hangs: Option<(Duration, Duration)>,
    pub waiting: Vec<Queued>,
    pub syncing: Vec<Queued>,
    started: Duration,
    done_at: Duration,
}

impl ModelWriter {
    pub fn new(bytes_per_second: u64, fsync: Fsync) -> ModelWriter {
        ModelWriter {
            bytes_per_second,
            fsync,
            hangs: None,
            waiting: Vec::new(),
            syncing: Vec::new(),
            started: Duration::ZERO,
            done_at: Duration::ZERO,
        }
    }

    /// What ended at `now`, and how long it took; then begins with what waits.
    pub fn step(&mut self, now: Duration, rng: &dyn Rng) -> (Vec<Queued>, Option<Duration>) {
        let mut done = (Vec::new(), None);
        if !self.syncing.is_empty() && now >= self.done_at {
            done = (std::mem::take(&mut self.syncing), Some(now - self.started));
        }
        if self.syncing.is_empty() && !self.waiting.is_empty() {
            self.syncing = std::mem::take(&mut self.waiting);
            let bytes: u64 = self.syncing.iter().map(|batch| batch.bytes).sum();
            let writing = Duration::from_nanos(bytes * 1_000_000_000 / self.bytes_per_second);
            self.started = now;
            self.done_at = now + writing + self.fsync.sample(rng);
            if let Some((_, until)) =
                self.hangs.filter(|(from, until)| self.done_at >= *from && now < *until)
            {
                self.done_at = self.done_at.max(until);
            }
        }
        done
    }

    pub fn in_flight(&self) -> u64 {
        self.waiting.iter().chain(&self.syncing).map(|batch| batch.bytes).sum()
    }
}

impl Fsync {
    fn sample(self, rng: &dyn Rng) -> Duration {
        match self {
            Fsync::Always(time) => time,
            Fsync::Between(low, high) => {
                let span = u64::try_from((high - low).as_nanos()).unwrap().max(1);
                low + Duration::from_nanos(rng.next_u64() % span)
            }
        }
    }
}
