//! Fetching: plan over many partitions, wait without polling until there is enough, then execute.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use super::core::{Core, Phase};
use super::error::FetchError;
use super::facade::Broker;
use super::flow::{
    Cause, CauseId, ConnectionFlow, FetchPermit, Numbers, QuotaRefusal, Reading, Waits,
};
use super::read::{Reads, execute, reading};
use super::request::{FetchPartition, FetchRequest, FetchResponse, Fetched, FetchedPartition};
use super::topic::PartitionHandle;
use crate::types::Offset;

/// What one pass over the partitions decided.
struct Plans {
    /// By place in the request.
    results: Vec<Result<Reads, FetchError>>,
    bytes: usize,
    /// Whether to answer now: enough bytes, bytes that cannot be counted yet, or an error.
    ready: bool,
    limited_by: Option<Cause>,
    /// The quota that lets the first partition be read again that has something.
    quota: Option<QuotaRefusal>,
    permit: FetchPermit,
}

type Handles = Vec<Result<Arc<PartitionHandle>, FetchError>>;

impl Broker {
    /// Reads whole batches from many partitions: at once when `min_bytes` are there, else as soon
    /// as they are, at last after `max_wait` with what there is. An error of one partition is
    /// answered at once, beside what the others have.
    ///
    /// Which partition is filled first turns from request to request, so that a busy one cannot
    /// starve the others of the limit on bytes.
    pub async fn fetch(&self, request: FetchRequest) -> FetchResponse {
        let core = self.core();
        core.metrics.fetch_requests.increment();
        let limits = &core.options.limits;
        let count = request.partitions.len();
        if count > limits.fetch_partitions_max as usize {
            let limit = limits.fetch_partitions_max;
            return refuse(
                core,
                &request,
                FetchError::TooManyPartitions { partitions: count, limit },
            );
        }
        let handles = resolve(core, &request.partitions);
        let longest = Duration::from_millis(u64::from(limits.fetch_wait_ms_max));
        let deadline = Instant::now() + request.max_wait.min(longest);
        let mut phase = core.phase.subscribe();
        let on_the_way = reader(core, &request).on_the_way();
        let slice = u64::from(request.max_bytes.min(SLICE_BYTES));
        let reading = || reading_of(&request, &handles);
        let mut permit = first_bytes(core, &request, &reading);
        let plans = loop {
            let plans = plan(core, &request, &handles, permit);
            let waits = !plans.ready && Instant::now() < deadline;
            if !waits || *phase.borrow_and_update() != Phase::Running {
                break plans;
            }
            if plans.permit.bytes() == 0 && request.max_bytes > 0 {
                let _waits = waits_for_pool(core, &request);
                permit = tokio::select! {
                    first = core.flow.reads.pool.turn(slice, on_the_way, &reading) => first,
                    _ = phase.changed() => plans.permit,
                    () = sleep_until(deadline) => plans.permit,
                };
                continue;
            }
            let Plans { results, quota, permit: unused, .. } = plans;
            drop(unused);
            let _waits = quota.as_ref().map(|refusal| waits_for_quota(core, &request, refusal));
            let pause = quota.as_ref().map(QuotaRefusal::pause);
            let mut news = news(&handles, &results);
            tokio::select! {
                Some(_) = news.next() => {}
                _ = phase.changed() => {}
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                () = sleep_until(deadline) => {}
            }
            permit = first_bytes(core, &request, &reading);
        };
        answer(core, request, plans).await
    }
}

fn resolve(core: &Core, partitions: &[FetchPartition]) -> Handles {
    let handle = |at: &FetchPartition| {
        let topic = core.topics.by_id(at.topic).ok_or(FetchError::TopicNotFound)?;
        topic.partition(at.partition).ok_or(FetchError::PartitionNotFound(at.partition))
    };
    partitions.iter().map(handle).collect()
}

/// What a pass may read at once: something in any case for whoever has nothing on the way, and what
/// is kept for the tail for whoever reads that.
fn first_bytes(core: &Core, request: &FetchRequest, reading: &impl Fn() -> Reading) -> FetchPermit {
    let (pool, wanted) = (&core.flow.reads.pool, u64::from(request.max_bytes.min(SLICE_BYTES)));
    let permit = pool.take(wanted);
    if permit.bytes() > 0 || wanted == 0 {
        return permit;
    }
    match pool.alone(wanted, reader(core, request).on_the_way()) {
        Some(alone) => alone,
        None if reading() == Reading::Tail => pool.take_kept(wanted),
        None => permit,
    }
}

/// A request reads the tail when it does so in every partition.
fn reading_of(request: &FetchRequest, handles: &Handles) -> Reading {
    let tail = |(at, handle): (&FetchPartition, &Result<Arc<PartitionHandle>, FetchError>)| {
        let log = handle.as_ref().ok().and_then(|handle| handle.log().ok());
        log.is_none_or(|log| reading(log, at.from) == Reading::Tail)
    };
    let all = request.partitions.iter().zip(handles).all(tail);
    if all { Reading::Tail } else { Reading::Earlier }
}

/// Bytes that are read for whoever has nothing on the way, however much others have.
const SLICE_BYTES: u32 = 256 << 10;

/// Whom a request reads for.
fn reader<'a>(core: &'a Core, request: &'a FetchRequest) -> &'a ConnectionFlow {
    request.connection.as_ref().unwrap_or(&core.flow.embedded)
}

/// One pass: memory only, no waiting. `permit` is what it has of the pool already.
fn plan(core: &Core, request: &FetchRequest, handles: &Handles, mut permit: FetchPermit) -> Plans {
    let allowed = request.max_bytes.min(core.options.limits.fetch_bytes_max);
    permit.top_up(u64::from(allowed));
    let budget = usize::try_from(permit.bytes()).unwrap_or(usize::MAX);
    let short = permit.bytes() < u64::from(allowed);
    let count = handles.len();
    let mut results: Vec<Option<Result<Reads, FetchError>>> = Vec::new();
    results.resize_with(count, || None);
    let (mut bytes, mut ready, mut cut) = (0, false, false);
    let mut quota: Option<QuotaRefusal> = None;
    let turn = core.next_turn(count);
    for at in (0..count).map(|step| (turn + step) % count) {
        let (Some(handle), Some(asked), Some(result)) =
            (handles.get(at), request.partitions.get(at), results.get_mut(at))
        else {
            continue;
        };
        let room = budget.saturating_sub(bytes);
        let allowance = allowance(core, request, asked);
        let limit = room.min(asked.max_bytes as usize).min(*allowance.as_ref().unwrap_or(&0));
        let planned = match handle {
            Ok(handle) => {
                let first = bytes == 0 && budget > 0 && allowance.is_ok();
                plan_one(handle, asked.from, limit, first)
            }
            Err(error) => Err(error.clone()),
        };
        match &planned {
            Ok(reads) => {
                bytes += reads.bytes();
                ready |= reads.is_cold();
                let more = asked.from < reads.high();
                cut |= room == 0 && more;
                if let Err(refusal) = allowance
                    && more
                    && quota.as_ref().is_none_or(|first| refusal.pause() < first.pause())
                {
                    quota = Some(refusal);
                }
            }
            Err(_) => ready = true,
        }
        *result = Some(planned);
    }
    let results = results.into_iter().flatten().collect();
    let enough = bytes > 0 && bytes >= request.min_bytes as usize;
    let limited_by = match (cut || (budget == 0 && short), short) {
        (false, _) => quota.as_ref().map(|_| Cause::Quota),
        (true, true) => Some(Cause::FetchPool),
        (true, false) => Some(Cause::FetchBytes),
    };
    let ready = ready || enough || (cut && bytes > 0) || count == 0 || request.min_bytes == 0;
    Plans { results, bytes, ready, limited_by, quota, permit }
}

/// Bytes that quotas let through now, or the one that lets nothing through.
fn allowance(
    core: &Core,
    request: &FetchRequest,
    asked: &FetchPartition,
) -> Result<usize, QuotaRefusal> {
    if core.flow.quotas.is_unused() {
        return Ok(usize::MAX);
    }
    let Some(topic) = core.topics.by_id(asked.topic) else { return Ok(usize::MAX) };
    let now = core.env.clock.monotonic();
    let reader = reader(core, request);
    let allowed = reader.fetch_allowed(topic.name(), request.group.as_ref(), now)?;
    Ok(usize::try_from(allowed).unwrap_or(usize::MAX))
}

/// Its reader is limited until the answer is dropped.
fn waits(core: &Core, request: &FetchRequest, cause: CauseId, numbers: Numbers) -> Waits {
    let (clock, group) = (&core.env.clock, request.group.as_ref());
    let party = reader(core, request).parties().reader(group, clock.monotonic());
    Waits::begin(party, cause, numbers, clock)
}

fn waits_for_pool(core: &Core, request: &FetchRequest) -> Waits {
    let pool = &core.flow.reads.pool;
    let numbers =
        Numbers { observed: pool.used(), limit: pool.limit(), unit: "bytes", until: None };
    waits(core, request, Cause::FetchPool.into(), numbers)
}

fn waits_for_quota(core: &Core, request: &FetchRequest, refusal: &QuotaRefusal) -> Waits {
    let numbers = Numbers::of(&refusal.pushback(), core.env.clock.monotonic());
    waits(core, request, refusal.cause(), numbers)
}

/// Counts what is delivered against the quotas.
fn charge(core: &Core, request: &FetchRequest, at: &FetchPartition, fetched: &Fetched) {
    if core.flow.quotas.is_unused() || fetched.data.is_empty() {
        return;
    }
    let Some(topic) = core.topics.by_id(at.topic) else { return };
    let records = u64::try_from(fetched.next_offset - at.from).unwrap_or(0);
    let (bytes, now) = (fetched.size_bytes() as u64, core.env.clock.monotonic());
    reader(core, request).charge_fetch(topic.name(), request.group.as_ref(), bytes, records, now);
}

/// Plans one partition. Only the first of an answer may exceed its limit by one batch.
fn plan_one(
    handle: &PartitionHandle,
    from: Offset,
    limit: usize,
    first: bool,
) -> Result<Reads, FetchError> {
    let log = handle.log()?;
    let ends = log.offsets();
    if from < ends.start || from > ends.visible_end {
        return Err(FetchError::OffsetOutOfRange { start: ends.start, end: ends.visible_end });
    }
    let mut reads = Reads::new(log, from);
    if first || limit > 0 {
        reads.plan(limit)?;
        if !first && reads.bytes() > limit {
            reads = Reads::new(log, from);
        }
    }
    Ok(reads)
}

/// Completes when any partition has more than the pass saw, or was closed.
fn news<'a>(
    handles: &'a Handles,
    results: &[Result<Reads, FetchError>],
) -> FuturesUnordered<impl Future<Output = Option<Offset>> + use<'a>> {
    let seen = |result: &Result<Reads, FetchError>| result.as_ref().ok().map(Reads::high);
    handles
        .iter()
        .zip(results)
        .filter_map(|(handle, result)| Some((handle.as_ref().ok()?, seen(result)?)))
        .map(|(handle, seen)| handle.wait_visible(seen))
        .collect()
}

async fn answer(core: &Core, request: FetchRequest, plans: Plans) -> FetchResponse {
    let Plans { results, mut permit, limited_by, bytes, .. } = plans;
    permit.resize(bytes as u64);
    let mut reads = Vec::new();
    let mut answered: Vec<Option<Result<Fetched, FetchError>>> = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(read) if read.has_data() => {
                reads.push(read);
                answered.push(None);
            }
            Ok(read) => answered.push(Some(Ok(read.nothing()))),
            Err(error) => answered.push(Some(Err(error))),
        }
    }
    let told = |numbers| Some(waits(core, &request, Cause::ColdReads.into(), numbers));
    let mut executed =
        execute(reads, request.mode, &core.flow.reads, &mut permit, told).await.into_iter();
    let mut total = 0;
    let one = |(at, result): (FetchPartition, Option<Result<Fetched, FetchError>>)| {
        let result = result.or_else(|| executed.next()).unwrap_or(Err(FetchError::Closed));
        if let Ok(fetched) = &result {
            charge(core, &request, &at, fetched);
        }
        total += result.as_ref().map_or(0, Fetched::size_bytes);
        FetchedPartition { topic: at.topic, partition: at.partition, result }
    };
    let partitions: Vec<_> = request.partitions.iter().copied().zip(answered).map(one).collect();
    if total > 0 {
        permit.count_for(reader(core, &request).on_the_way());
    }
    core.metrics.fetch_bytes.add(total as u64);
    FetchResponse { partitions, limited_by, permit }
}

fn refuse(core: &Core, request: &FetchRequest, error: FetchError) -> FetchResponse {
    let one = |at: &FetchPartition| FetchedPartition {
        topic: at.topic,
        partition: at.partition,
        result: Err(error.clone()),
    };
    FetchResponse {
        partitions: request.partitions.iter().map(one).collect(),
        limited_by: None,
        permit: core.flow.reads.pool.take(0),
    }
}
