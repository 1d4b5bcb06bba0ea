//! `stoplog load TOPIC [FILE...]`: reads what `stoplog dump` wrote.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::bytes_text::from_json;
use super::failure::CommandResult;
use super::lines::Lines;
use super::output::Output;
use super::publish::{Outgoing, PublishArgs, publish};
use crate::record::RecordHeader;
use crate::types::{PartitionId, Timestamp, TopicName};

/// Arguments of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The topic; it must exist.
    topic: TopicName,
    /// Files that dump wrote; .gz and .zst are unpacked, - or none is stdin.
    files: Vec<PathBuf>,
    /// Send each record to the partition it came from instead of the one its key chooses.
    #[arg(long)]
    keep_partitions: bool,
    #[command(flatten)]
    publish: PublishArgs,
}

/// A line of a dump; its topic and offset are not used.
#[derive(Debug, Deserialize)]
struct Line {
    partition: u32,
    timestamp: i64,
    #[serde(default)]
    key: Value,
    value: Value,
    #[serde(default)]
    headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
struct Header {
    key: Value,
    #[serde(default)]
    value: Value,
}

impl Line {
    fn record(self, keep_partitions: bool) -> Result<Outgoing, String> {
        let bytes = |value: &Value| from_json(value).map(|bytes| bytes.map(Bytes::from));
        let header = |header: &Header| {
            let key = bytes(&header.key)?.ok_or("a header needs a key")?;
            Ok(RecordHeader { key, value: bytes(&header.value)? })
        };
        Ok(Outgoing {
            key: bytes(&self.key)?,
            value: bytes(&self.value)?,
            headers: self.headers.iter().map(header).collect::<Result<_, String>>()?,
            timestamp: Some(Timestamp(self.timestamp)),
            partition: keep_partitions.then_some(PartitionId(self.partition)),
        })
    }
}

/// Runs `load`.
pub fn run(args: &LoadArgs, out: &mut Output) -> CommandResult {
    let mut lines = Lines::open(&args.files)?;
    let mut line = Vec::new();
    let keep_partitions = args.keep_partitions;
    let next = move || {
        if !lines.next_into(&mut line)? {
            return Ok(None);
        }
        let parsed = serde_json::from_slice::<Line>(&line)
            .map_err(|e| e.to_string())
            .and_then(|line| line.record(keep_partitions));
        Ok(Some(parsed.map_err(|e| lines.invalid(e))?))
    };
    publish(&args.topic, &args.publish, next, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dumped_line_is_the_record_again() {
        let text = r#"{"topic":"t","partition":3,"offset":7,"timestamp":12,"key":null,"value":{"base64":"/w=="},"headers":[{"key":"a","value":null}]}"#;
        let line: Line = serde_json::from_str(text).expect("valid");
        let record = line.record(true).expect("a record");
        assert_eq!(record.key, None);
        assert_eq!(record.value.as_deref(), Some(&b"\xff"[..]));
        assert_eq!(record.partition, Some(PartitionId(3)));
        assert_eq!(record.timestamp, Some(Timestamp(12)));
        assert_eq!(record.headers.len(), 1);
    }
}
