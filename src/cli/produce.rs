//! `stoplog produce TOPIC [FILE...]`: one record a line.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;

use super::failure::{CommandResult, Failure};
use super::keys::{KeyRule, parse_delimiter};
use super::lines::Lines;
use super::output::Output;
use super::publish::{Outgoing, PublishArgs, publish};
use crate::record::RecordHeader;
use crate::types::{PartitionId, TopicName};

/// Arguments of `produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic; it must exist.
    topic: TopicName,
    /// Files with one record a line; .gz and .zst are unpacked, - or none is stdin.
    files: Vec<PathBuf>,
    /// Take the key from this field of each line's JSON object; the line stays the value.
    #[arg(long, value_name = "FIELD", conflicts_with = "key_delimiter")]
    key_json: Option<String>,
    /// Split each line into key and value here; a line without it has no key.
    #[arg(short = 'K', long, value_name = "DELIM", value_parser = parse_key_delimiter)]
    key_delimiter: Option<Delimiter>,
    /// Send everything to this partition.
    #[arg(short, long)]
    partition: Option<u32>,
    /// A header for every record. May be repeated.
    #[arg(short = 'H', long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    #[command(flatten)]
    publish: PublishArgs,
}

/// A delimiter of `-K`.
#[derive(Clone, Debug)]
struct Delimiter(Vec<u8>);

fn parse_key_delimiter(text: &str) -> Result<Delimiter, String> {
    parse_delimiter(text).map(Delimiter)
}

/// Runs `produce`.
pub fn run(args: &ProduceArgs, out: &mut Output) -> CommandResult {
    let rule = match (&args.key_json, &args.key_delimiter) {
        (Some(field), _) => KeyRule::JsonField(field.clone()),
        (None, Some(delimiter)) => KeyRule::Delimiter(delimiter.0.clone()),
        (None, None) => KeyRule::None,
    };
    let headers = args.header.iter().map(|h| parse_header(h)).collect::<Result<Vec<_>, _>>()?;
    let partition = args.partition.map(PartitionId);
    let mut lines = Lines::open(&args.files)?;
    let mut line = Vec::new();
    let next = move || {
        if !lines.next_into(&mut line)? {
            return Ok(None);
        }
        let keyed = rule.split(&line).map_err(|e| lines.invalid(e))?;
        Ok(Some(Outgoing {
            key: keyed.key.map(|key| Bytes::copy_from_slice(&key)),
            value: Some(Bytes::copy_from_slice(keyed.value)),
            headers: headers.clone(),
            partition,
            ..Outgoing::default()
        }))
    };
    publish(&args.topic, &args.publish, next, out)
}

fn parse_header(text: &str) -> Result<RecordHeader, Failure> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("--header {text:?}: write NAME=VALUE")))?;
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    Ok(RecordHeader { key: Bytes::copy_from_slice(key.as_bytes()), value })
}
