//! FETCH: a long poll whose answer is a header and slices of the mapped log.

use std::time::Duration;

use bytes::Bytes;

use super::error::ToAnswer;
use super::link::Link;
use crate::broker::{
    FetchPartition, FetchRequest, FetchResponse, Fetched, FetchedPartition, ReadMode,
};
use crate::protocol::native::{ErrorAnswer, FrameType, fetch};
use crate::server::phase::Phase;
use crate::types::Pushback;

/// Room for a frame's header and control part within the largest frame the client takes.
const CONTROL_BYTES: u32 = 16 << 10;
/// Control bytes of one partition's answer, with a message if it is an error.
const PARTITION_BYTES: u32 = 256;

/// Waits for records; ends early when the server drains.
pub(super) async fn read(
    link: &Link,
    request: fetch::Request,
) -> Result<FetchResponse, ErrorAnswer> {
    let partitions: Vec<FetchPartition> = request
        .partitions
        .iter()
        .map(|wanted| FetchPartition {
            topic: wanted.topic,
            partition: wanted.partition,
            from: wanted.from,
            max_bytes: wanted.max_bytes,
        })
        .collect();
    let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
    let overhead = CONTROL_BYTES.saturating_add(count.saturating_mul(PARTITION_BYTES));
    let room = link.frame_bytes_max().saturating_sub(overhead).max(1);
    let request = FetchRequest {
        partitions,
        max_bytes: request.max_bytes.min(room),
        min_bytes: request.min_bytes,
        max_wait: Duration::from_millis(u64::from(request.max_wait_ms)),
        mode: ReadMode::Mapped,
        connection: link.flow().cloned(),
        group: request.group,
    };
    let mut phase = link.phase.clone();
    tokio::select! {
        response = link.broker().fetch(request) => Ok(response),
        () = phase.reached(Phase::Draining) => Err(Pushback::draining().into()),
    }
}

/// Answers with what was read.
pub(super) fn answer(link: &Link, correlation: u64, read: Result<FetchResponse, ErrorAnswer>) {
    let response = match read {
        Ok(response) => response,
        Err(error) => return link.refuse(FrameType::Fetch, correlation, &error),
    };
    let mut data = Vec::new();
    let partitions =
        response.partitions.into_iter().map(|read| partition(read, &mut data)).collect();
    let limited_by = response.limited_by.map(|cause| cause.name().to_owned());
    let answer = fetch::Response { partitions, limited_by };
    let data_bytes = data.iter().map(Bytes::len).sum::<usize>();
    let mut frame = Vec::with_capacity(128);
    let data_bytes = u32::try_from(data_bytes).unwrap_or(u32::MAX);
    fetch::encode_response(&mut frame, correlation, &answer, data_bytes);
    if let Err(error) = link.batches(frame, data, Box::new(response.permit)) {
        link.refuse(FrameType::Fetch, correlation, &error);
    }
}

fn partition(read: FetchedPartition, data: &mut Vec<Bytes>) -> fetch::PartitionAnswer {
    let FetchedPartition { topic, partition, result } = read;
    let read = result.map_err(|error| error.to_answer()).map(|fetched| {
        let data_bytes = u32::try_from(fetched.size_bytes()).unwrap_or(u32::MAX);
        let Fetched { data: batches, next_offset, start, visible_end } = fetched;
        data.extend(batches);
        fetch::PartitionRead { start, visible_end, next_offset, data_bytes }
    });
    fetch::PartitionAnswer { topic, partition, read }
}
