//! Reading one partition over segment borders: plan from memory, then execute where it may wait.

use std::sync::Arc;
use std::time::Duration;

use super::error::FetchError;
use super::flow::{ColdReads, FetchPermit, Numbers, ReadPath, Reading, Waits};
use super::request::{Fetched, ReadMode};
use crate::storage::{Partition, ReadError, ReadPlan, ReadRequest};
use crate::types::Offset;

/// Most that is read from the disk before others get their turn at it.
const COLD_SLICE_BYTES: usize = 1 << 20;

/// No more than so many bytes before the end are its tail: two parts of a push, as a rule.
const TAIL_BYTES: usize = 256 << 10;

/// Whether somebody that reads from `from` on reads the tail: what is there is little, and known
/// without reading.
pub(super) fn reading(log: &Partition, from: Offset) -> Reading {
    let mut reads = Reads::new(log, from);
    let reaches = reads.plan(TAIL_BYTES).is_ok() && !reads.cold && reads.next >= reads.high;
    if reaches { Reading::Tail } else { Reading::Earlier }
}

/// Consecutive plans in one partition, one per segment that is touched.
pub(super) struct Reads {
    log: Partition,
    next: Offset,
    /// The visible end when planning began: what a long poll waits to be passed.
    high: Offset,
    bytes: usize,
    /// Whether the last plan cannot be measured without reading: its bytes are not counted.
    cold: bool,
    /// Bytes that were asked for: what a cold read is taken for.
    asked: usize,
    plans: Vec<ReadPlan>,
}

impl Reads {
    /// Nothing yet, from `from` on.
    pub(super) fn new(log: &Partition, from: Offset) -> Reads {
        let high = log.offsets().visible_end;
        Reads {
            log: log.clone(),
            next: from,
            high,
            bytes: 0,
            cold: false,
            asked: 0,
            plans: Vec::new(),
        }
    }

    /// Plans up to `max_bytes`, but at least one batch when there is one.
    pub(super) fn plan(&mut self, max_bytes: usize) -> Result<(), FetchError> {
        self.asked = max_bytes;
        loop {
            let request =
                ReadRequest { from: self.next, max_bytes: max_bytes.saturating_sub(self.bytes) };
            let plan = match self.log.plan_read(request).and_then(|plan| self.slice(plan, request))
            {
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

    /// A plan of unknown size that is no larger than one turn at the disk.
    fn slice(&mut self, plan: ReadPlan, request: ReadRequest) -> Result<ReadPlan, ReadError> {
        if plan.extent().is_some() || request.max_bytes <= COLD_SLICE_BYTES {
            return Ok(plan);
        }
        self.asked = self.bytes + COLD_SLICE_BYTES;
        self.log.plan_read(ReadRequest { max_bytes: COLD_SLICE_BYTES, ..request })
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

/// The bytes of many reads: those in memory on this thread, the others, when it is their turn, on
/// one that may wait. `permit` is kept as large as what is read; who waits for the disk keeps none
/// of the pool from those that do not, and is `told` of: limited by `cold_reads`.
pub(super) async fn execute(
    reads: Vec<Reads>,
    mode: ReadMode,
    path: &Arc<ReadPath>,
    permit: &mut FetchPermit,
    told: impl Fn(Numbers) -> Option<Waits>,
) -> Vec<Result<Fetched, FetchError>> {
    let read = fetch_all(reads, mode, path, permit, told).await;
    permit.resize(size_bytes(&read));
    read
}

async fn fetch_all(
    reads: Vec<Reads>,
    mode: ReadMode,
    path: &Arc<ReadPath>,
    permit: &mut FetchPermit,
    told: impl Fn(Numbers) -> Option<Waits>,
) -> Vec<Result<Fetched, FetchError>> {
    if reads.iter().all(Reads::is_resident) {
        return reads.into_iter().map(|read| read.fetch(mode)).collect();
    }
    let bytes = |read: &Reads| if read.is_cold() { read.asked.max(read.bytes) } else { read.bytes };
    let Some(clock) = reads.first().map(|read| Arc::clone(read.log.clock())) else {
        return Vec::new();
    };
    let bytes = reads.iter().map(bytes).sum::<usize>() as u64;
    let now = clock.monotonic();
    let mut place = Place::take(&path.cold, bytes, now);
    permit.resize(0);
    place.wait(told, now).await;
    permit.resize(place.bytes);
    let count = reads.len();
    let cold = move || {
        let began = clock.monotonic();
        let read: Vec<_> = reads.into_iter().map(|read| read.fetch_cold(mode)).collect();
        (read, clock.monotonic().saturating_sub(began))
    };
    match tokio::task::spawn_blocking(cold).await {
        Ok((read, took)) => {
            place.used(size_bytes(&read), took);
            read
        }
        Err(e) => {
            vec![Err(FetchError::Disk { cause: format!("the reading thread died: {e}") }); count]
        }
    }
}

fn size_bytes(read: &[Result<Fetched, FetchError>]) -> u64 {
    read.iter().flatten().map(Fetched::size_bytes).sum::<usize>() as u64
}

/// A place in the queue of cold reads; given up when nobody waits for it any more.
struct Place<'a> {
    reads: &'a ColdReads,
    bytes: u64,
    wait: Duration,
}

impl Place<'_> {
    fn take(reads: &ColdReads, bytes: u64, now: Duration) -> Place<'_> {
        Place { reads, bytes, wait: reads.reserve(bytes, now) }
    }

    async fn wait(&self, told: impl Fn(Numbers) -> Option<Waits>, now: Duration) {
        if self.wait.is_zero() {
            return;
        }
        let observed = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        let until = Some(now.saturating_add(self.wait));
        let _waits = told(Numbers { observed, limit: 0, unit: "ms", until });
        tokio::time::sleep(self.wait).await;
    }

    /// So much was read; what was reserved beyond is free again.
    fn used(&mut self, bytes: u64, took: Duration) {
        self.reads.done(bytes, took);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.reads.give_up(self.bytes);
    }
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
