//! Appending: check, assign offsets, stamp, one write for as many batches as fit, publish.
//!
//! Batches are staged until a write is full, the backlog is empty, or the next one must wait. What
//! a write that failed half-way brought to the file in whole batches is published: after a crash it
//! would be found, so it must not have been refused.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::{Active, Blocked, PartitionLog, Round};
use crate::env::{File, OpenMode};
use crate::record::{BATCH_HEADER_BYTES, BatchHeader};
use crate::storage::append::{Append, Appended};
use crate::storage::commit::{WaitFor, wait_for};
use crate::storage::dir::OnFull;
use crate::storage::error::AppendError;
use crate::storage::footer::FOOTER_BYTES;
use crate::storage::job::{Extend, Work};
use crate::storage::layout::DATA_START;
use crate::storage::producer_state::{ProducerCheck, Undo};
use crate::storage::reserve::is_no_space;
use crate::storage::segment::Border;
use crate::types::{Durability, DurabilityLevel, Offset, Timestamp, TimestampType};

/// Batches of one write.
#[derive(Default)]
pub(super) struct Staging {
    batches: Vec<Staged>,
    bytes: usize,
}

struct Staged {
    append: Append,
    /// As it will be stored.
    header: BatchHeader,
    head: [u8; BATCH_HEADER_BYTES],
    /// Takes the producer's state back.
    undo: Option<Undo>,
}

/// Each batch takes two buffers of a vectored write, which takes 1,024.
const BATCHES_PER_WRITE: usize = 512;

/// What the first batch of the backlog can do now.
enum Gate {
    /// Be staged.
    Stage,
    /// Wait.
    Wait(Blocked),
    /// Nothing: it is answered so.
    Refuse(AppendError),
    /// Nothing ever again: the device failed.
    Stop(io::Error),
}

impl PartitionLog {
    /// Appends from the backlog until it is empty or its first batch has to wait.
    pub(super) fn append_backlog(&mut self, round: &mut Round<'_>) {
        self.blocked = None;
        while let Some(front) = self.backlog.front().filter(|_| self.stopped.is_none()) {
            let (header, size) = (*front.batch.header(), front.size_bytes());
            let verdict = self.producers.check(&header, round.wall);
            if !matches!(verdict, ProducerCheck::Accept) {
                // Decided on batches that must be in the log before it is answered.
                if !self.write_staged(round) {
                    continue;
                }
                self.answer_verdict(verdict);
                continue;
            }
            match self.gate(&header, size, round) {
                Gate::Stage => self.stage(round),
                Gate::Refuse(error) => {
                    if let Some(append) = self.pop_backlog() {
                        append.done.done(Err(error));
                    }
                }
                Gate::Wait(blocked) => {
                    if self.write_staged(round) {
                        self.blocked = Some(blocked);
                        return;
                    }
                }
                Gate::Stop(error) => {
                    self.write_staged(round);
                    self.stop(&error);
                }
            }
            let full = self.staging.bytes >= self.dir.options.write_bytes_max;
            if full || self.staging.batches.len() >= BATCHES_PER_WRITE {
                self.write_staged(round);
            }
        }
        self.write_staged(round);
    }

    fn gate(&mut self, header: &BatchHeader, size: usize, round: &Round<'_>) -> Gate {
        let max = self.options.max_message_bytes as usize;
        if size > max {
            return Gate::Refuse(AppendError::TooLarge { found: size, max });
        }
        let last = self.next + i64::from(header.last_offset_delta);
        let staged = self.staging.bytes as u64;
        let Some(active) = self.active.as_ref() else { return Gate::Wait(Blocked::Segment) };
        let end = active.tail.position + staged + size as u64;
        if self.checkpointing {
            return Gate::Wait(Blocked::Lease);
        }
        if self.is_roll_due(active, end, last, round) {
            return Gate::Wait(Blocked::Segment);
        }
        if active.slot.clean || last >= active.lease() {
            return Gate::Wait(Blocked::Lease);
        }
        match self.make_room(end) {
            Ok(None) => Gate::Stage,
            Ok(Some(blocked)) => Gate::Wait(blocked),
            Err(e) if is_no_space(&e) => Gate::Refuse(self.disk_full(size)),
            Err(e) => Gate::Stop(e),
        }
    }

    /// Whether the batch that would end at `end` belongs into another segment.
    fn is_roll_due(&self, active: &Active, end: u64, last: Offset, round: &Round<'_>) -> bool {
        let staged = self.staging.batches.len() as u64;
        if active.tail.batches + staged == 0 {
            return false;
        }
        let age_ms = round.wall.0.saturating_sub(active.segment.created.0);
        let too_old =
            u128::try_from(age_ms).is_ok_and(|ms| ms > self.options.segment_age.as_millis());
        end > self.segment_end()
            || last - active.segment.base_offset > i64::from(u32::MAX)
            || self.is_index_full(active)
            || active.epoch != self.epoch
            || (too_old && staged == 0)
            || self.orders.wants_roll()
    }

    /// Position that the data of a segment does not pass, unless it is a single batch.
    pub(super) fn segment_end(&self) -> u64 {
        DATA_START + self.options.segment_bytes
    }

    fn is_index_full(&self, active: &Active) -> bool {
        let state = active.segment.read();
        state.index.as_ref().is_some_and(|index| index.is_full(&active.tail))
    }

    /// Allocates up to `end` at least. On the append path only when nothing was ahead.
    fn make_room(&mut self, end: u64) -> io::Result<Option<Blocked>> {
        let target = self.segment_end() + FOOTER_BYTES as u64;
        let on_full = self.on_full();
        let Some(active) = self.active.as_mut() else { return Ok(Some(Blocked::Segment)) };
        let file = active.open_file(&self.dir)?;
        if end <= active.allocated {
            return Ok(None);
        }
        if self.extending {
            return Ok(Some(Blocked::Extend));
        }
        let from = active.allocated;
        let step = self.dir.allocate_step(from, end - from, target);
        self.dir.on_full(on_full, || file.allocate(from, step))?;
        active.allocated = from + step;
        active.segment.set_file_bytes(active.allocated);
        Ok(None)
    }

    pub(super) fn on_full(&self) -> OnFull {
        if self.options.internal { OnFull::SpendReserve } else { OnFull::Fail }
    }

    pub(super) fn disk_full(&self, needed: usize) -> AppendError {
        let free = self.dir.env.disk.space().map_or(0, |space| space.free);
        AppendError::DiskFull { free, needed: needed as u64 }
    }

    /// Moves the first batch of the backlog into the next write.
    fn stage(&mut self, round: &Round<'_>) {
        let Some(append) = self.pop_backlog() else { return };
        let append_time =
            (self.options.timestamp_type == TimestampType::Append).then_some(round.wall);
        let header = append.batch.stamped(self.next, self.epoch, append_time);
        let mut head = [0; BATCH_HEADER_BYTES];
        header.write(&mut head);
        let undo = self.producers.record(&header, round.wall);
        self.next = header.next_offset();
        self.staging.bytes += append.size_bytes();
        self.staging.batches.push(Staged { append, header, head, undo });
    }

    fn pop_backlog(&mut self) -> Option<Append> {
        let append = self.backlog.pop_front()?;
        self.shared.queue.release(append.size_bytes(), 1);
        Some(append)
    }

    /// Writes what is staged and publishes it. `false` when some of it was refused.
    fn write_staged(&mut self, round: &Round<'_>) -> bool {
        if self.staging.batches.is_empty() {
            return true;
        }
        let mut staged = std::mem::take(&mut self.staging);
        let written = match &self.active {
            Some(Active { file: Some(file), tail, .. }) => {
                write_batches(file.as_ref(), &staged.batches, tail.position)
            }
            _ => (0, Some(io::ErrorKind::NotFound.into())),
        };
        let (whole, failure) = whole_batches(&staged.batches, written);
        let refused = staged.batches.split_off(whole);
        self.publish(&mut staged, round);
        staged.bytes = 0;
        self.staging = staged;
        let Some(error) = failure else { return true };
        self.take_back(refused, &error);
        if !is_no_space(&error) {
            self.stop(&error);
        }
        false
    }

    /// Nothing of these is in the log: offsets and producers are as before.
    fn take_back(&mut self, refused: Vec<Staged>, error: &io::Error) {
        if let Some(first) = refused.first() {
            self.next = first.header.base_offset;
        }
        for undo in refused.iter().rev().filter_map(|staged| staged.undo) {
            self.producers.undo(undo);
        }
        let answer = if is_no_space(error) {
            self.disk_full(refused.iter().map(|staged| staged.append.size_bytes()).sum())
        } else {
            AppendError::ReadOnly { cause: error.to_string() }
        };
        for staged in refused {
            staged.append.done.done(Err(answer.clone()));
        }
    }

    /// The batches are in the file: readers may see them as far as the topic allows.
    fn publish(&mut self, staged: &mut Staging, round: &Round<'_>) {
        let Some(first) = staged.batches.first() else { return };
        self.begin_epoch(first.header.base_offset);
        let Some(active) = self.active.as_mut() else { return };
        let visible_on_write = self.options.durability != Durability::Fsync;
        let before = active.tail.position;
        {
            let mut state = active.segment.write();
            for Staged { append, header, head, .. } in &staged.batches {
                if let Some(index) = state.index.as_mut().filter(|i| i.is_due(&active.tail)) {
                    index.push(&active.tail, header.base_offset);
                }
                active.tail.push(header, head, append.batch.payload());
            }
            state.written = Border::of(&active.tail);
            if visible_on_write {
                state.visible = state.written;
            }
        }
        active.max_append_time = active.max_append_time.max(round.wall);
        self.shared.set_active_age(active.age_from(self.dir.options.timestamp_skew_max));
        let (end, added) = (active.tail.next_offset, active.tail.position - before);
        self.unsynced_since.get_or_insert(round.now);
        self.last_append = round.now;
        self.shared.add_bytes(added);
        self.shared.set_log_end(end);
        if visible_on_write {
            self.shared.set_visible_end(end);
        }
        self.answer_written(staged, round.wall);
    }

    fn begin_epoch(&self, start: Offset) {
        let mut epochs = self.shared.epochs();
        if epochs.latest().is_none_or(|latest| latest.epoch != self.epoch) {
            epochs.begin(self.epoch, start);
        }
    }

    fn answer_written(&mut self, staged: &mut Staging, append_time: Timestamp) {
        let log_start = self.shared.offsets().start;
        for Staged { append, header, .. } in staged.batches.drain(..) {
            let appended = Appended {
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                append_time,
                level: DurabilityLevel::Os,
                duplicate: false,
                log_start,
            };
            match wait_for(append.acks, self.options.durability) {
                WaitFor::Sync => self.acks.push(header.next_offset(), Ok(appended), append.done),
                WaitFor::Write(level) => append.done.done(Ok(Appended { level, ..appended })),
            }
        }
    }

    /// A retry or a batch out of order. The answer speaks of what other batches did, so it waits
    /// until those are as durable as its sender asked for.
    fn answer_verdict(&mut self, verdict: ProducerCheck) {
        let log_start = self.shared.offsets().start;
        let result = match verdict {
            ProducerCheck::Accept => return,
            ProducerCheck::Duplicate(original) => Ok(Appended {
                base_offset: original.base_offset,
                last_offset: original.last_offset(),
                append_time: original.timestamp,
                level: DurabilityLevel::Os,
                duplicate: true,
                log_start,
            }),
            ProducerCheck::DuplicateUnknown => Err(AppendError::DuplicateUnknown),
            ProducerCheck::OutOfOrder { expected, found } => {
                Err(AppendError::OutOfOrderSequence { expected, found })
            }
            ProducerCheck::Fenced { current, found } => {
                Err(AppendError::ProducerFenced { current, found })
            }
        };
        self.answer_front(result);
    }

    fn answer_front(&mut self, result: Result<Appended, AppendError>) {
        let Some(append) = self.pop_backlog() else { return };
        let decided_at =
            result.as_ref().map_or(self.log_end(), |original| original.last_offset + 1);
        match wait_for(append.acks, self.options.durability) {
            WaitFor::Sync if self.durable_end() < decided_at => {
                self.acks.push(decided_at, result, append.done);
            }
            WaitFor::Sync => {
                let durable = |a| Appended { level: DurabilityLevel::Durable, ..a };
                append.done.done(result.map(durable));
            }
            WaitFor::Write(level) => append.done.done(result.map(|a| Appended { level, ..a })),
        }
    }

    /// Asks for more space when half of the last step is used.
    pub(super) fn extend_ahead(&mut self, round: &mut Round<'_>) {
        // A segment about to be sealed gets its final length: space added after it would be damage.
        let over = self.stopped.is_some() || self.dir.latch.is_closed();
        if over
            || !self.dir.allocates_ahead()
            || self.extending
            || self.blocked == Some(Blocked::Segment)
        {
            return;
        }
        let Some(active) = self.active.as_ref() else { return };
        let rest = active.allocated.saturating_sub(active.tail.position);
        let target = self.segment_end() + FOOTER_BYTES as u64;
        let enough = (active.allocated / 4).min(self.dir.options.allocate_step_max / 2);
        let Some(file) = active.file.clone().filter(|_| rest < enough) else { return };
        let step = self.dir.allocate_step(active.allocated, 0, target);
        if step == 0 {
            return;
        }
        let (from, to) = (active.allocated, active.allocated + step);
        self.extending = true;
        self.send(Work::Extend(Extend { file, from, to }), round);
    }

    pub(super) fn finish_extend(&mut self, to: u64, result: io::Result<()>) {
        self.extending = false;
        match (result, self.active.as_mut()) {
            (Ok(()), Some(active)) => {
                active.allocated = active.allocated.max(to);
                active.segment.set_file_bytes(active.allocated);
            }
            // The append that needs the space says so to its sender.
            (Err(e), _) => tracing::debug!("{}: nothing allocated ahead: {e}", self.shared.id),
            (Ok(()), None) => {}
        }
    }
}

impl Active {
    /// The file, opened again when it was closed for lack of use.
    pub(super) fn open_file(&mut self, dir: &super::DirShared) -> io::Result<Arc<dyn File>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = dir.env.disk.open(&self.segment.path(), OpenMode::ReadWrite)?;
        self.file = Some(Arc::clone(&file));
        self.segment.lend_file(&file);
        Ok(file)
    }
}

/// Writes batches one after another; the bytes written, and what stopped it.
fn write_batches(
    file: &dyn File,
    batches: &[Staged],
    mut position: u64,
) -> (u64, Option<io::Error>) {
    let mut buffers = Vec::with_capacity(batches.len() * 2);
    for Staged { append, head, .. } in batches {
        buffers.push(IoSlice::new(head));
        buffers.push(IoSlice::new(append.batch.payload()));
    }
    let mut rest = buffers.as_mut_slice();
    let start = position;
    while !rest.is_empty() {
        match file.pwritev(rest, position) {
            Ok(0) => return (position - start, Some(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return (position - start, Some(e)),
        }
    }
    (position - start, None)
}

/// How many batches are wholly in the file.
fn whole_batches(
    batches: &[Staged],
    (mut written, failure): (u64, Option<io::Error>),
) -> (usize, Option<io::Error>) {
    let mut whole = 0;
    for staged in batches {
        let Some(rest) = written.checked_sub(staged.append.size_bytes() as u64) else { break };
        (written, whole) = (rest, whole + 1);
    }
    (whole, failure)
}
