//! `bench matrix`: broker and floor as processes of this binary, measured in pairs.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::children::Server;
use crate::bench::{Cell, CellReport, Kind, LatencyPairs, Machine, Spread, cells, run_cell};
use crate::cli::connection::block_on;
use crate::cli::failure::CommandResult;
use crate::cli::output::{Output, Table};
use crate::types::{format_bytes, parse_bytes};

/// Arguments of `bench matrix`.
#[derive(Debug, Args)]
pub struct MatrixArgs {
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',')]
    #[arg(default_values = ["produce-os", "produce-fsync", "rolls", "consume", "e2e"])]
    kinds: Vec<KindArg>,
    /// Pairs a cell; the median counts.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Bytes moved in each run; the rolls cell always moves 1 GiB.
    #[arg(long, default_value = "512MiB", value_parser = parse_bytes)]
    bytes: u64,
    /// Whom to measure against the floor: the broker, or the floor with the work that the broker's
    /// design asks for (checks, and a log writer's thread); produce only.
    #[arg(long, value_enum, default_value = "broker")]
    subject: Subject,
    /// Only cells with this many connections.
    #[arg(long)]
    connections: Option<usize>,
    /// Only cells with this many partitions.
    #[arg(long)]
    partitions: Option<u32>,
    /// Only cells with this record size.
    #[arg(long, value_parser = super::workload::size)]
    record_size: Option<usize>,
    /// Only cells with this batch size.
    #[arg(long, value_parser = super::workload::size)]
    batch_bytes: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    Broker,
    Required,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArg {
    ProduceOs,
    ProduceFsync,
    ProduceClient,
    Rolls,
    Consume,
    E2e,
}

#[derive(Serialize)]
struct MatrixReport<'a> {
    machine: &'a Machine,
    #[serde(flatten)]
    report: &'a CellReport,
}

/// Runs every cell and prints one row for each.
pub fn run(args: &MatrixArgs, out: &mut Output) -> CommandResult {
    let dir = tempfile::tempdir()?;
    let machine = Machine::describe(dir.path());
    let floor = Server::start("floor", &dir.path().join("floor"))?;
    let subject = match args.subject {
        Subject::Broker => "broker",
        Subject::Required => "required",
    };
    let broker = Server::start(subject, &dir.path().join(subject))?;
    let columns = [
        "kind",
        "record",
        "batch",
        "conns",
        "parts",
        "floor MB/s",
        "ours MB/s",
        "share",
        "min",
        "max",
        "floor CPU",
        "CPU s/GiB",
        "CPU s/M rec",
        "RssAnon",
        "write amp",
    ];
    let mut table = Table::new(&columns);
    let mut latencies = Table::new(&[
        "end to end",
        "rate",
        "floor p50",
        "ours p50",
        "times",
        "floor p99",
        "ours p99",
        "times",
    ]);
    block_on(async {
        for cell in args.cells() {
            let sides = (&floor.target, &broker.target);
            let name = describe(&cell);
            let progress = |pair, share| eprintln!("{name}: pair {}: {share:.2}", pair + 1);
            let report = run_cell(&cell, args.pairs, sides, progress).await?;
            out.json(&MatrixReport { machine: &machine, report: &report })?;
            out.flush()?;
            match &report.latency {
                Some(latency) => latencies.row(latency_row(&report.cell, latency)),
                None => table.row(row(&report)),
            }
        }
        out.table(&table)?;
        if args.kinds.contains(&KindArg::E2e) { out.table(&latencies) } else { Ok(()) }
    })
}

impl MatrixArgs {
    fn cells(&self) -> Vec<Cell> {
        let kinds: Vec<Kind> = self.kinds.iter().map(|kind| kind.kind()).collect();
        let wanted = |cell: &Cell| {
            let o = &cell.options;
            self.connections.is_none_or(|n| n == o.connections)
                && self.partitions.is_none_or(|n| n == o.partitions)
                && self.record_size.is_none_or(|n| n == o.record_bytes)
                && self.batch_bytes.is_none_or(|n| n == o.batch_bytes)
        };
        cells(&kinds, self.bytes).into_iter().filter(wanted).collect()
    }
}

impl KindArg {
    fn kind(self) -> Kind {
        match self {
            KindArg::ProduceOs => Kind::ProduceOs,
            KindArg::ProduceFsync => Kind::ProduceFsync,
            KindArg::ProduceClient => Kind::ProduceClient,
            KindArg::Rolls => Kind::Rolls,
            KindArg::Consume => Kind::Consume,
            KindArg::E2e => Kind::E2e,
        }
    }
}

fn describe(cell: &Cell) -> String {
    let o = &cell.options;
    format!(
        "{:?} records {} batches {} connections {} partitions {}",
        cell.kind,
        format_bytes(o.record_bytes as u64),
        format_bytes(o.batch_bytes as u64),
        o.connections,
        o.partitions
    )
}

fn row(report: &CellReport) -> [String; 15] {
    let options = &report.cell.options;
    let two = |figure: f64| format!("{figure:.2}");
    [
        format!("{:?}", report.cell.kind),
        options.record_bytes.to_string(),
        format_bytes(options.batch_bytes as u64),
        options.connections.to_string(),
        options.partitions.to_string(),
        format!("{:.0}", report.floor_mb_per_s.median),
        format!("{:.0}", report.broker_mb_per_s.median),
        two(report.share.median),
        two(report.share.min),
        two(report.share.max),
        two(report.floor_cpu_s_per_gib.median),
        two(report.broker_cpu_s_per_gib.median),
        two(report.broker_cpu_s_per_million.median),
        format_bytes(report.broker_rss_anon_bytes.max as u64),
        two(report.write_amplification.median),
    ]
}

fn latency_row(cell: &Cell, latency: &LatencyPairs) -> [String; 8] {
    let ms = |figure: Spread| format!("{:.2} ms", figure.median);
    let times = |figure: Spread| format!("{:.1}", figure.median);
    [
        format_bytes(cell.options.record_bytes as u64),
        format!("{:.0}/s", cell.options.rate.unwrap_or_default()),
        ms(latency.floor_p50_ms),
        ms(latency.broker_p50_ms),
        times(latency.p50_times),
        ms(latency.floor_p99_ms),
        ms(latency.broker_p99_ms),
        times(latency.p99_times),
    ]
}
