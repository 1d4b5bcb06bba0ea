//! A round of the floor server: the batches of one read are written, one call a partition, and
//! answered in one send. It is done by the connection's own thread; or, to know what the broker's
//! design costs at best, checked there and handed to the thread of a log writer.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;

use super::lock;
use super::topics::{Topic, Topics};
use crate::protocol::native::{encode_answer, produce};
use crate::record::{BatchLimits, CheckedBatch};
use crate::types::{DurabilityLevel, Offset, PartitionId, Timestamp, TopicId};

/// Rounds that wait for the log writer's thread; more hold up their connection.
const ROUNDS_MAX: usize = 64;

/// A batch that was received and is not written yet.
pub(super) struct Pending {
    pub(super) correlation: u64,
    pub(super) topic: TopicId,
    pub(super) partition: PartitionId,
    /// Where it stands in the receive buffer.
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What came with one read, and where its answers go.
pub(super) struct Round {
    pub(super) buffer: BytesMut,
    pub(super) pending: Vec<Pending>,
    pub(super) replies: Vec<u8>,
    pub(super) out: Arc<Mutex<TcpStream>>,
}

impl Round {
    /// Writes the batches and sends all answers.
    pub(super) fn finish(&mut self, topics: &Topics) -> io::Result<()> {
        self.write(topics)?;
        if !self.replies.is_empty() {
            lock(&self.out).write_all(&self.replies)?;
            self.replies.clear();
        }
        Ok(())
    }

    /// The checks of the broker: header and CRC-32C of each batch.
    fn check(&mut self) -> io::Result<()> {
        let limits = BatchLimits::client(usize::MAX);
        let bytes = std::mem::take(&mut self.buffer).freeze();
        for batch in &self.pending {
            CheckedBatch::check(bytes.slice(batch.from..batch.to), &limits)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        }
        self.buffer = bytes.try_into_mut().map_err(|_| io::ErrorKind::Other)?;
        Ok(())
    }

    fn write(&mut self, topics: &Topics) -> io::Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        let mut written: Vec<(Pending, Offset, Arc<Topic>)> = Vec::with_capacity(pending.len());
        while let Some(first) = pending.first() {
            let key = (first.topic, first.partition);
            let topic = topics.by_id(key.0).ok_or(io::ErrorKind::NotFound)?;
            let (group, others): (Vec<_>, Vec<_>) =
                pending.into_iter().partition(|p| (p.topic, p.partition) == key);
            pending = others;
            let mut rest = &mut *self.buffer;
            let mut cut = 0;
            let mut slices = Vec::with_capacity(group.len());
            for batch in &group {
                let (_, tail) = rest.split_at_mut(batch.from - cut);
                let (slice, tail) = tail.split_at_mut(batch.to - batch.from);
                slices.push(slice);
                (rest, cut) = (tail, batch.to);
            }
            let partition = topic.partition(key.1).ok_or(io::ErrorKind::NotFound)?;
            let bases = partition.append(&mut slices)?;
            if topic.synced {
                partition.sync()?;
            }
            written.extend(
                group.into_iter().zip(bases).map(|(p, base)| (p, base, Arc::clone(&topic))),
            );
        }
        for (batch, base, topic) in written {
            let level = if topic.synced { DurabilityLevel::Durable } else { DurabilityLevel::Os };
            let answer = produce::Response {
                base_offset: Some(base),
                append_time: Timestamp::NONE,
                level,
                duplicate: false,
            };
            encode_answer::<produce::Request>(&mut self.replies, batch.correlation, &answer);
        }
        Ok(())
    }
}

/// Who finishes rounds.
#[derive(Clone)]
pub(super) enum Finisher {
    /// The thread that received them, without a look at what is in them.
    Same(Arc<Topics>),
    /// The thread of a log writer, after the checks.
    Writer(SyncSender<(Round, Sender<BytesMut>)>),
}

impl Finisher {
    /// Starts the log writer's thread.
    pub(super) fn writer(topics: Arc<Topics>) -> Finisher {
        let (rounds, todo) = sync_channel::<(Round, Sender<BytesMut>)>(ROUNDS_MAX);
        std::thread::spawn(move || {
            for (mut round, back) in todo {
                match round.finish(&topics) {
                    // The connection may have ended.
                    Ok(()) => drop(back.send(round.buffer)),
                    Err(error) => {
                        tracing::debug!(%error, "a connection of the floor server ended");
                        drop(lock(&round.out).shutdown(Shutdown::Both));
                    }
                }
            }
        });
        Finisher::Writer(rounds)
    }
}

/// Finishes the rounds of one connection, and gives a buffer for the next.
pub(super) struct Rounds {
    finisher: Finisher,
    back: Receiver<BytesMut>,
    returns: Sender<BytesMut>,
}

impl Rounds {
    pub(super) fn new(finisher: Finisher) -> Rounds {
        let (returns, back) = channel();
        Rounds { finisher, back, returns }
    }

    /// Finishes a round, or has it finished. The buffer it gives back begins with what is behind
    /// `at` in the round's, `kept` bytes.
    pub(super) fn finish(&self, mut round: Round, at: usize, kept: usize) -> io::Result<Round> {
        let out = Arc::clone(&round.out);
        match &self.finisher {
            Finisher::Same(topics) => {
                round.finish(topics)?;
                round.buffer.copy_within(at..at + kept, 0);
                Ok(round)
            }
            Finisher::Writer(_) if round.pending.is_empty() => {
                lock(&out).write_all(&round.replies)?;
                round.replies.clear();
                round.buffer.copy_within(at..at + kept, 0);
                Ok(round)
            }
            Finisher::Writer(writer) => {
                round.check()?;
                let mut buffer = self.back.try_recv().unwrap_or_default();
                buffer.resize(round.buffer.len(), 0);
                let rest = round.buffer.get(at..at + kept).unwrap_or_default();
                buffer.get_mut(..kept).unwrap_or_default().copy_from_slice(rest);
                let sent = writer.send((round, self.returns.clone()));
                sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
                Ok(Round { buffer, pending: Vec::new(), replies: Vec::new(), out })
            }
        }
    }
}
