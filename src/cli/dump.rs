//! `stoplog dump TOPIC`: everything in a topic as JSON lines that `stoplog load` reads.

use clap::Args;

use super::connection::Connection;
use super::consume::{self, ConsumeArgs};
use super::failure::CommandResult;
use super::output::Output;
use super::position::Span;
use crate::types::TopicName;

/// Arguments of `dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// The topic.
    topic: TopicName,
    /// Only this partition. May be repeated.
    #[arg(short, long)]
    partition: Vec<u32>,
    /// Where to start, or a range, as with consume.
    #[arg(short, long, allow_hyphen_values = true, value_name = "POSITION")]
    offset: Option<Span>,
    #[command(flatten)]
    connection: Connection,
}

/// Prints JSON lines, whatever form was asked for: a dump is for programs.
pub fn run(args: &DumpArgs, out: &mut Output) -> CommandResult {
    out.use_json();
    let (topic, partition) = (args.topic.clone(), args.partition.clone());
    let consume = ConsumeArgs::dump(topic, partition, args.offset, args.connection.clone());
    consume::run(&consume, out)
}
