//! `stoplog consume TOPIC`: records to stdout. With a group, offsets are committed only after what
//! was read has left the process.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures_util::future::poll_immediate;
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, Stop, runtime};
use super::failure::{CommandResult, Exit, Failure};
use super::now;
use super::output::Output;
use super::position::{Position, Span};
use super::record_format::{RecordFields, RecordFormat};
use crate::client::{
    Client, ClientError, ClientOptions, CommitMode, ConsumedRecord, Consumer, ConsumerOptions,
    Reading, StartAt, StopAt,
};
use crate::types::{ErrorCode, GroupId, Offset, PartitionId, TopicName, parse_duration};

/// While records keep coming, a signal is looked for this often.
const STOP_CHECK_RECORDS: u64 = 256;

/// So many partitions are named that do not have the offset that was asked for: what people read.
const OUT_OF_RANGE_SAID_MAX: usize = 8;

/// A broker that is away for so long is told: a restart takes less.
const AWAY_TOLD_AFTER: Duration = Duration::from_secs(2);
/// A broker that stays away longer ends the command.
const TROUBLE_MAX: Duration = Duration::from_secs(60);
/// No error for so long, and it is over: it is told anew after two pauses of 2 s and the 5 s of an attempt.
const TROUBLE_OVER: Duration = Duration::from_secs(15);
/// Pause between two tries.
const TROUBLE_PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topic.
    topic: TopicName,
    /// Read as a member of this group, from its committed offsets (from the start without any).
    #[arg(short, long, conflicts_with_all = ["offset", "partition"])]
    group: Option<GroupId>,
    /// Static name in the group: a restart under it takes its predecessor's partitions at once.
    #[arg(long, requires = "group", value_name = "NAME")]
    instance: Option<String>,
    /// Where to start: start, end, OFFSET, +N, -N, @TIME; or a range FROM:TO. Counts are per
    /// partition. Default: start.
    #[arg(short, long, allow_hyphen_values = true, value_name = "POSITION")]
    offset: Option<Span>,
    /// Only this partition. May be repeated.
    #[arg(short, long)]
    partition: Vec<u32>,
    /// Stop after so many records in total.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Exactly so many records: stop after them, and let the broker send as few more as can be (what
    /// their batches hold). -n alone stops at the same record, but a window more may have been sent by
    /// then. With -n, so many of a partition at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    credit: Option<u64>,
    /// Stop at the ends as they were at the start.
    #[arg(short, long)]
    exit_at_end: bool,
    /// How to print a record: %t topic, %p partition, %o offset, %k key, %v value, %h headers, %d
    /// time, with {hex}, {base64}, {json} or {strftime[...]} behind, and \n \t \xNN.
    #[arg(short, long, conflicts_with = "json", value_name = "FORMAT")]
    format: Option<RecordFormat>,
    /// At most so many records a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// With a group: longest time between commits.
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    commit_every: Duration,
    #[command(flatten)]
    connection: Connection,
}

impl ConsumeArgs {
    /// Everything in a topic up to now, as `dump` reads it.
    pub fn dump(
        topic: TopicName,
        partition: Vec<u32>,
        offset: Option<Span>,
        connection: Connection,
    ) -> ConsumeArgs {
        ConsumeArgs {
            topic,
            group: None,
            instance: None,
            offset,
            partition,
            count: None,
            credit: None,
            exit_at_end: true,
            format: None,
            rate: None,
            commit_every: Duration::from_secs(1),
            connection,
        }
    }
}

/// Runs `consume`.
pub fn run(args: &ConsumeArgs, out: &mut Output) -> CommandResult {
    let runtime = runtime()?;
    let result = runtime.block_on(consume(args, out));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn consume(args: &ConsumeArgs, out: &mut Output) -> CommandResult {
    if args.count == Some(0) {
        return Ok(());
    }
    let mut stop = Stop::listen()?;
    let mut reader = tokio::select! {
        opened = open(args) => opened?,
        failure = stop.asked() => return Err(failure),
    };
    let ended = reader.run(args, &mut stop, out).await;
    // Whatever ended it: what has left the process is committed, and the group hears of it.
    let left = match out.flush() {
        Ok(()) if reader.in_group => reader.consumer.commit().await.map_err(Failure::from),
        Ok(()) => Ok(()),
        Err(failure) => Err(failure),
    };
    let closed = reader.consumer.close().await.map_err(Failure::from);
    // A signal is the ordinary way to end an endless read: nothing to say.
    let ended = ended.map_err(|failure| match failure.code() {
        ErrorCode::Interrupted => Failure::quiet(Exit::Interrupted),
        _ => failure,
    });
    ended.and(left).and(closed)
}

/// A consumer, perhaps in a group.
struct Reader {
    consumer: Consumer,
    in_group: bool,
}

async fn open(args: &ConsumeArgs) -> Result<Reader, Failure> {
    let options = ClientOptions { client_id: "stoplog-consume".to_owned(), ..Default::default() };
    let client = args.connection.open_with(options).await?;
    let span = args.offset.unwrap_or(Span { from: Position::Start, until: None });
    let stop = match span.until {
        Some(until) => StopAt::Offsets(resolve(&client, args, until).await?),
        None if args.exit_at_end => StopAt::End,
        None => StopAt::Never,
    };
    let mut consumer = client
        .consumer(ConsumerOptions {
            start: start_at(span.from),
            stop,
            commit: CommitMode::Manual,
            prefetch_records: args.credit,
            records_max: args.credit.filter(|_| args.count.is_none()),
            unreachable_after: Some(AWAY_TOLD_AFTER),
            ..ConsumerOptions::new(reading(args))
        })
        .await?;
    if matches!(span.from, Position::AfterStart(_)) {
        for (partition, offset) in resolve(&client, args, span.from).await? {
            consumer.seek(&args.topic, partition, offset)?;
        }
    }
    if let Position::At(offset) = span.from {
        say_out_of_range(&client, args, Offset(offset)).await?;
    }
    Ok(Reader { consumer, in_group: args.group.is_some() })
}

/// Says where reading begins instead, when there is no such offset: who waits for records that are
/// long gone, or that are far from being written, would not know why.
async fn say_out_of_range(client: &Client, args: &ConsumeArgs, asked: Offset) -> CommandResult {
    let starts = resolve(client, args, Position::Start).await?;
    let ends = resolve(client, args, Position::End).await?;
    let spans =
        starts.iter().zip(ends.values()).map(|((partition, start), end)| (partition, start, end));
    let without: Vec<_> =
        spans.filter(|(_, start, end)| !(**start..=**end).contains(&asked)).collect();
    for (partition, start, end) in without.iter().take(OUT_OF_RANGE_SAID_MAX) {
        eprintln!(
            "warning: {}/{partition}: offset {asked} is out of range: the first is {start}, the end {end}; \
             reading from {}",
            args.topic,
            asked.clamp(**start, **end)
        );
    }
    if let Some(more) = without.len().checked_sub(OUT_OF_RANGE_SAID_MAX).filter(|more| *more > 0) {
        eprintln!("warning: offset {asked} is out of range in {more} more partitions");
    }
    Ok(())
}

/// The offset of a position in each partition, within what can be read now.
async fn resolve(
    client: &Client,
    args: &ConsumeArgs,
    position: Position,
) -> Result<BTreeMap<PartitionId, Offset>, Failure> {
    let admin = client.admin();
    let partitions: Vec<PartitionId> = args.partition.iter().copied().map(PartitionId).collect();
    let wanted = (!partitions.is_empty()).then_some(partitions.as_slice());
    let found = admin.offsets(&args.topic, wanted, start_at(position)).await?;
    let Position::AfterStart(count) = position else { return Ok(found.into_iter().collect()) };
    let ends = admin.offsets(&args.topic, wanted, StartAt::End).await?;
    let after = |((partition, start), (_, end)): ((PartitionId, Offset), (_, Offset))| {
        (partition, Offset(start.0.saturating_add(count)).min(end))
    };
    Ok(found.into_iter().zip(ends).map(after).collect())
}

fn reading(args: &ConsumeArgs) -> Reading {
    match &args.group {
        Some(group) => Reading::Group {
            group: group.clone(),
            topics: vec![args.topic.clone()],
            instance_id: args.instance.clone(),
            assignor: None,
        },
        None => {
            let partitions: Vec<PartitionId> =
                args.partition.iter().copied().map(PartitionId).collect();
            let partitions = (!partitions.is_empty()).then_some(partitions);
            Reading::Partitions { topic: args.topic.clone(), partitions }
        }
    }
}

fn start_at(position: Position) -> StartAt {
    match position {
        // `+N` starts at the start and seeks.
        Position::Start | Position::AfterStart(_) => StartAt::Start,
        Position::End => StartAt::End,
        Position::At(offset) => StartAt::Offset(Offset(offset)),
        Position::BeforeEnd(count) => StartAt::Last(u64::try_from(count).unwrap_or(0)),
        Position::Time(time) => StartAt::Time(time.resolve(now())),
    }
}

impl Reader {
    async fn run(
        &mut self,
        args: &ConsumeArgs,
        stop: &mut Stop,
        out: &mut Output,
    ) -> CommandResult {
        let pace = args.rate.map(|rate| Pace { start: Instant::now(), rate });
        let mut printed = 0;
        let mut trouble = Trouble::default();
        let mut commit_at = Instant::now() + args.commit_every;
        loop {
            // People and pipes see records at once whenever there is a pause.
            let next = match poll_immediate(self.consumer.next()).await {
                Some(next) => next,
                None => {
                    out.flush()?;
                    tokio::select! {
                        next = self.consumer.next() => next,
                        () = sleep_until(commit_at), if self.in_group => {
                            self.commit().await?;
                            commit_at = Instant::now() + args.commit_every;
                            continue;
                        }
                        failure = stop.asked() => return Err(failure),
                    }
                }
            };
            let consumed = match next {
                None => return Ok(()),
                Some(Ok(consumed)) => consumed,
                Some(Err(error)) => {
                    out.flush()?;
                    trouble.wait(error).await?;
                    continue;
                }
            };
            trouble = Trouble::default();
            print(args, &consumed, out)?;
            printed += 1;
            if args.count == Some(printed) {
                return Ok(());
            }
            if let Some(pace) = &pace {
                tokio::select! {
                    () = pace.wait(printed, out) => (),
                    failure = stop.asked() => return Err(failure),
                }
            }
            if self.in_group && Instant::now() >= commit_at {
                out.flush()?;
                self.commit().await?;
                commit_at = Instant::now() + args.commit_every;
            }
            if printed.is_multiple_of(STOP_CHECK_RECORDS)
                && let Some(failure) = poll_immediate(stop.asked()).await
            {
                return Err(failure);
            }
        }
    }

    /// Commits what was printed. A broker that is away now gets it with the next commit.
    async fn commit(&mut self) -> CommandResult {
        match self.consumer.commit().await {
            Err(error) if !error.is_passing() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn print(args: &ConsumeArgs, consumed: &ConsumedRecord, out: &mut Output) -> CommandResult {
    let record = &consumed.record;
    let headers: Vec<(&[u8], Option<&[u8]>)> =
        record.headers.iter().map(|h| (h.key.as_ref(), h.value.as_deref())).collect();
    let fields = RecordFields {
        topic: consumed.topic.as_str(),
        partition: consumed.partition,
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
    };
    if out.is_json() {
        out.json(&fields)?;
    } else {
        let plain = RecordFormat::default();
        args.format.as_ref().unwrap_or(&plain).write(out.writer(), &fields)?;
    }
    Ok(())
}

/// Errors in a row that may pass by themselves: a broker that is restarted, a busy one.
#[derive(Default)]
struct Trouble {
    /// The first error and the last.
    span: Option<(Instant, Instant)>,
}

impl Trouble {
    /// Says so once, and waits a little; an error that cannot pass, or lasts, is returned.
    async fn wait(&mut self, error: ClientError) -> CommandResult {
        if !error.is_passing() {
            return Err(error.into());
        }
        let now = Instant::now();
        let (since, _) =
            self.span.filter(|(_, last)| now - *last < TROUBLE_OVER).unwrap_or_else(|| {
                eprintln!("warning: {error}; trying again");
                (now, now)
            });
        self.span = Some((since, now));
        if now - since > TROUBLE_MAX {
            return Err(error.into());
        }
        tokio::time::sleep(error.retry_after().unwrap_or(TROUBLE_PAUSE)).await;
        Ok(())
    }
}

/// Record number `n` is due `n / rate` seconds after the start.
struct Pace {
    start: Instant,
    rate: u64,
}

impl Pace {
    async fn wait(&self, records: u64, out: &mut Output) {
        let due = self.start + Duration::from_secs_f64(records as f64 / self.rate as f64);
        // Timers tick in milliseconds: several records share a tick at high rates.
        if due > Instant::now() + Duration::from_millis(2) {
            // A reader that is gone shows at the next write.
            let _ = out.flush();
            sleep_until(due).await;
        }
    }
}
