//! Reading one partition over segment borders: plan from memory, then execute where it may wait.

use super::error::FetchError;
use super::request::{Fetched, ReadMode};
use crate::storage::{Partition, ReadError, ReadPlan, ReadRequest};
use crate::types::Offset;

/// Consecutive plans in one partition, one per segment that is touched.
pub(super) struct Reads {
    log: Partition,
    next: Offset,
    /// The visible end when planning began: what a long poll waits to be passed.
    high: Offset,
    bytes: usize,
    /// Whether the last plan cannot be measured without reading: its bytes are not counted.
    cold: bool,
    plans: Vec<ReadPlan>,
}

impl Reads {
    /// Nothing yet, from `from` on.
    pub(super) fn new(log: &Partition, from: Offset) -> Reads {
        let high = log.offsets().visible_end;
        Reads { log: log.clone(), next: from, high, bytes: 0, cold: false, plans: Vec::new() }
    }

    /// Plans up to `max_bytes`, but at least one batch when there is one.
    pub(super) fn plan(&mut self, max_bytes: usize) -> Result<(), FetchError> {
        loop {
            let request =
                ReadRequest { from: self.next, max_bytes: max_bytes.saturating_sub(self.bytes) };
            let plan = match self.log.plan_read(request) {
                Ok(plan) => plan,
                // What was planned before a damaged range is good to read.
                Err(_) if !self.plans.is_empty() => return Ok(()),
                Err(error) => return Err(fetch_error(error)),
            };
            if plan.is_empty() {
                return Ok(());
            }
            match plan.extent() {
                Some((next, bytes)) => {
                    let first = self.plans.is_empty();
                    if bytes == 0 || (!first && self.bytes + bytes > max_bytes) {
                        return Ok(());
                    }
                    self.next = next;
                    self.bytes += bytes;
                }
                None => self.cold = true,
            }
            self.plans.push(plan);
            if self.cold || self.bytes >= max_bytes {
                return Ok(());
            }
        }
    }

    /// The visible end when planning began.
    pub(super) fn high(&self) -> Offset {
        self.high
    }

    /// Bytes that are known to be read; a cold plan has some more.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether executing gives anything.
    pub(super) fn has_data(&self) -> bool {
        !self.plans.is_empty()
    }

    /// Whether the bytes are not known because they would have to be read.
    pub(super) fn is_cold(&self) -> bool {
        self.cold
    }

    /// The answer of a read that has no data.
    pub(super) fn nothing(&self) -> Fetched {
        let ends = self.log.offsets();
        let (start, visible_end) = (ends.start, ends.visible_end);
        Fetched { data: Vec::new(), next_offset: self.next, start, visible_end }
    }

    fn is_resident(&self) -> bool {
        !self.cold && self.plans.iter().all(ReadPlan::is_resident)
    }

    /// The bytes. Waits for the device when they are not in memory.
    fn fetch(mut self, mode: ReadMode) -> Result<Fetched, FetchError> {
        let mut data = Vec::with_capacity(self.plans.len());
        for plan in &mut self.plans {
            let pieces = match mode {
                ReadMode::Mapped => plan.mapped(),
                ReadMode::Owned => plan.owned(),
            };
            data.extend(pieces.map_err(fetch_error)?);
            if let Some((next, _)) = plan.extent() {
                self.next = self.next.max(next);
            }
        }
        Ok(Fetched { data, ..self.nothing() })
    }

    fn fetch_cold(mut self, mode: ReadMode) -> Result<Fetched, FetchError> {
        for plan in &mut self.plans {
            plan.populate().map_err(fetch_error)?;
        }
        self.fetch(mode)
    }
}

/// The bytes of many reads: those in memory on this thread, the others on one that may wait.
pub(super) async fn execute(reads: Vec<Reads>, mode: ReadMode) -> Vec<Result<Fetched, FetchError>> {
    if reads.iter().all(Reads::is_resident) {
        return reads.into_iter().map(|read| read.fetch(mode)).collect();
    }
    let count = reads.len();
    let cold = move || reads.into_iter().map(|read| read.fetch_cold(mode)).collect();
    let died = |e: tokio::task::JoinError| {
        vec![Err(FetchError::Disk { cause: format!("the reading thread died: {e}") }); count]
    };
    tokio::task::spawn_blocking(cold).await.unwrap_or_else(died)
}

pub(super) fn fetch_error(error: ReadError) -> FetchError {
    match error {
        ReadError::OffsetOutOfRange { start, end, .. } => {
            FetchError::OffsetOutOfRange { start, end }
        }
        ReadError::Corrupt { first_bad, next_good } => FetchError::Corrupt { first_bad, next_good },
        ReadError::Io { cause } => FetchError::Disk { cause },
        ReadError::Closed => FetchError::Closed,
    }
}
