//! `bench produce`, `bench consume`, `bench e2e`: one workload against a broker that runs.

use std::time::Duration;

use clap::Args;

use crate::bench::{self, Batching, Report, Target, WorkloadOptions};
use crate::cli::connection::{Connection, block_on};
use crate::cli::failure::{CommandResult, Failure};
use crate::cli::output::Output;
use crate::types::{Acks, parse_bytes, parse_duration};

/// Which workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Produce,
    Consume,
    E2e,
}

/// What every workload takes.
#[derive(Debug, Args)]
pub struct WorkloadArgs {
    #[command(flatten)]
    connection: Connection,
    /// Topic; made when it does not exist.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Records a second over all connections, whether or not answers come; as fast as they come
    /// when it is left out.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long to measure.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Records to move instead of a duration.
    #[arg(long)]
    count: Option<u64>,
    /// Not measured, at the start.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Bytes of a record's value.
    #[arg(long, default_value = "1KiB", value_parser = size)]
    record_size: usize,
    /// Largest record batch.
    #[arg(long, default_value = "64KiB", value_parser = size)]
    batch_bytes: usize,
    /// Connections.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Partitions of a topic that is made.
    #[arg(long, short, default_value_t = 1)]
    partitions: u32,
    /// Batches in flight on a connection.
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// When the broker answers: none, os, durable, or as the topic says.
    #[arg(long, default_value = "topic")]
    acks: Acks,
    /// How long the client's producer waits for more records.
    #[arg(long, default_value = "0ms", value_parser = parse_duration)]
    linger: Duration,
    /// Let the client's producer make the batches, record by record, as an application does.
    #[arg(long)]
    client_batching: bool,
    /// Setting of a topic that is made, as `topic create --set` takes it.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Process id of the broker on this machine: adds its processor time and memory.
    #[arg(long)]
    broker_pid: Option<u32>,
}

/// Runs one workload.
pub fn run(workload: Workload, args: &WorkloadArgs, out: &mut Output) -> CommandResult {
    block_on(async {
        let report = measure(workload, args).await?;
        out.say(report.line())?;
        out.json(&report)
    })
}

async fn measure(workload: Workload, args: &WorkloadArgs) -> Result<Report, Failure> {
    let target =
        Target { name: "broker", address: args.connection.server.clone(), pid: args.broker_pid };
    let mut options = args.options();
    target.create_topic(&options, &args.set).await?;
    let report = match workload {
        Workload::Produce => bench::produce(&target, &options).await?,
        Workload::E2e => bench::e2e(&target, &options).await?,
        Workload::Consume => {
            options.rate = None;
            bench::produce(&target, &options).await?;
            bench::consume(&target, &options).await?
        }
    };
    Ok(report)
}

impl WorkloadArgs {
    fn options(&self) -> WorkloadOptions {
        WorkloadOptions {
            topic: self.topic.clone(),
            rate: self.rate,
            duration: self.duration,
            count: self.count,
            warm_up: if self.count.is_some() { Duration::ZERO } else { self.warm_up },
            record_bytes: self.record_size,
            batch_bytes: self.batch_bytes,
            connections: self.connections,
            partitions: self.partitions,
            window: self.window,
            acks: self.acks,
            linger: self.linger,
            batching: if self.client_batching { Batching::Client } else { Batching::Prebuilt },
        }
    }
}

/// A size that fits into memory.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    usize::try_from(bytes).map_err(|error| error.to_string())
}

/// `5000`, `100k`, `1.5M`, with or without `/s`.
fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches("/s");
    let (number, scale) = match number.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => number.strip_suffix('M').map_or((number, 1.0), |number| (number, 1e6)),
    };
    let rate = number.parse::<f64>().map(|n| n * scale).ok().filter(|r| r.is_finite() && *r > 0.0);
    rate.ok_or_else(|| format!("{text:?} is not a rate; write for example 5000 or 100k/s"))
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        assert_eq!(parse_rate("5000"), Ok(5_000.0));
        assert_eq!(parse_rate("100k/s"), Ok(100_000.0));
        assert_eq!(parse_rate("1.5M"), Ok(1_500_000.0));
        assert!(parse_rate("0").is_err() && parse_rate("fast").is_err());
    }
}
