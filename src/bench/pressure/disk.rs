//! A disk that is full: nothing acknowledged is lost, reads and commits go on, and once there is room again so
//! do writes, without a hand.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::flood::fresh_topic;
use super::{Bound, Case, CaseReport};
use crate::bench::produce::{batch_of, value};
use crate::bench::{BenchError, Spread, Target};
use crate::client::{BatchSender, CommitMode, ConsumerOptions, Reading, Run, StopAt};
use crate::env::{Clock, SystemClock};
use crate::types::{Acks, Class, Effects, GroupId, PartitionId, Pushback, PushbackCode, TopicName};

const WINDOW: usize = 4;
/// It is full when nothing was taken for so long.
const FULL_AFTER: Duration = Duration::from_secs(2);
const AGAIN_WITHIN_S: f64 = 10.0;
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(
    target: &Target,
    progress: &mut dyn FnMut(String),
) -> Result<CaseReport, BenchError> {
    let filler = fresh_topic(target, "filler", 1, &[]).await?;
    let after = fresh_topic(target, "after", 1, &[]).await?;
    let client = target.connect().await?;
    let clock = SystemClock::new();
    let filled = fill(&client.batch_sender(&filler, Class::Normal).await?, &clock).await?;
    progress(format!(
        "full after {} MB acknowledged and {} refusals ({})",
        filled.bytes / 1_000_000,
        filled.refused,
        filled.last.as_ref().map_or_else(String::new, ToString::to_string)
    ));
    let (read, commits) = read_and_commit(target, &filler).await?;
    let missing = filled.records.abs_diff(read);
    progress(format!("{read} of {} records read, committed: {commits}", filled.records));
    let start = clock.monotonic();
    client.admin().delete_topic(&filler, Run::Really).await?;
    let sender = client.batch_sender(&after, Class::Normal).await?;
    let (batch, _) = batch_of(&value(1 << 10), 64 << 10)?;
    while let Err(error) = sender.produce_batch(PartitionId(0), batch.clone(), Acks::Durable).await
    {
        let waited = clock.monotonic() - start;
        if error.pushback().is_none() || waited > 6 * Duration::from_secs_f64(AGAIN_WITHIN_S) {
            return Err(error.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    let again = (clock.monotonic() - start).as_secs_f64();
    let one = |figure: f64| Spread::of([figure]);
    let bounds = vec![
        Bound::at_most("acknowledged records that are missing", 0.0, one(missing as f64)),
        Bound::at_least("reads and commits on the full disk", 1.0, one(f64::from(commits))),
        Bound::at_most("refusals without a proper reason", 0.0, one(filled.odd as f64)),
        Bound::at_most("seconds until it writes again", AGAIN_WITHIN_S, one(again)),
    ];
    let figures = vec![
        ("acknowledged_mb", one(filled.bytes as f64 / 1e6)),
        ("refused", one(filled.refused as f64)),
    ];
    Ok(CaseReport::new(Case::Disk, bounds, figures))
}

/// What filling it showed.
#[derive(Default)]
struct Filled {
    records: u64,
    bytes: u64,
    refused: u64,
    /// Refusals that are not the disk's, or not free of effects.
    odd: u64,
    last: Option<Pushback>,
}

async fn fill(sender: &BatchSender, clock: &SystemClock) -> Result<Filled, BenchError> {
    let (batch, records) = batch_of(&value(1 << 10), 64 << 10)?;
    let mut filled = Filled::default();
    let mut moved = clock.monotonic();
    let send = || sender.produce_batch(PartitionId(0), batch.clone(), Acks::Durable);
    let mut waiting: FuturesUnordered<_> = (0..WINDOW).map(|_| send()).collect();
    while let Some(answer) = waiting.next().await {
        match answer {
            Ok(_) => {
                filled.records += records;
                filled.bytes += batch.len() as u64;
                moved = clock.monotonic();
            }
            Err(error) => {
                let Some(pushback) = error.pushback().cloned() else { return Err(error.into()) };
                filled.refused += 1;
                let proper = matches!(
                    pushback.code,
                    PushbackCode::DiskLow | PushbackCode::DiskFull | PushbackCode::ServerBusy
                );
                filled.odd += u64::from(!proper || pushback.effects != Effects::None);
                filled.last = Some(pushback);
                tokio::time::sleep(PAUSE).await;
            }
        }
        if clock.monotonic() - moved < FULL_AFTER {
            waiting.push(send());
        }
    }
    Ok(filled)
}

/// Records that can be read, and whether a group could commit them.
async fn read_and_commit(target: &Target, topic: &TopicName) -> Result<(u64, bool), BenchError> {
    let group: GroupId = "auditor".parse()?;
    let reading =
        Reading::Group { group, topics: vec![topic.clone()], instance_id: None, assignor: None };
    let options = ConsumerOptions {
        stop: StopAt::End,
        commit: CommitMode::Manual,
        ..ConsumerOptions::new(reading)
    };
    let mut consumer = target.connect().await?.consumer(options).await?;
    let mut records = 0;
    while let Some(record) = consumer.next().await {
        record?;
        records += 1;
    }
    let committed = consumer.commit().await.is_ok();
    consumer.close().await?;
    Ok((records, committed))
}
