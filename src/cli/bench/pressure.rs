//! `bench pressure`: what back pressure is held to, case by case, against brokers that are processes of this
//! binary.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::children::{Server, Setup};
use crate::bench::pressure::{
    Bound, Case, CaseReport, GREEDY_POOL_BYTES, PressureOptions, run_case,
};
use crate::bench::{Spread, WorkloadOptions, produce};
use crate::cli::connection::block_on;
use crate::cli::failure::{CommandResult, Failure};
use crate::cli::output::Output;
use crate::types::{ErrorCode, parse_duration};

/// Arguments of `bench pressure`.
#[derive(Debug, Args)]
pub struct PressureArgs {
    /// What to measure.
    #[arg(value_enum)]
    case: CaseArg,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured time of one run.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Not measured, before it.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Setting of the broker, as `serve --set` takes it.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CaseArg {
    /// Five times the load there is room for: goodput and delay of what is admitted.
    Overload,
    /// A quota on one of eight topics of a connection: what the others lose.
    Isolation,
    /// A paced reader under a storm of 64 connections of producers: what it still gets.
    Storm,
    /// A full disk of 1 GiB: what was acknowledged, and how soon it goes on.
    Disk,
    /// 1,000 connections with ten publishers each: the broker's memory.
    Greedy,
    /// Instructions and bytes on the wire with and without flow.enforcement; needs valgrind.
    Cost,
}

/// Runs one case.
pub fn run(args: &PressureArgs, out: &mut Output) -> CommandResult {
    let dir = tempfile::tempdir()?;
    let report = match args.case.case() {
        Case::Cost => cost(args, dir.path())?,
        case => {
            let mut settings = settings(case);
            settings.extend(args.set.iter().cloned());
            let setup = Setup { settings: &settings, ..Setup::default() };
            let broker = Server::start_with("broker", &dir.path().join("broker"), &setup)?;
            let floor = Server::start("floor", &dir.path().join("floor"))?;
            let (sides, options) = ((&floor.target, &broker.target), args.options());
            let tell = |line: String| eprintln!("{line}");
            let mut report = None;
            block_on(async {
                report = Some(run_case(case, sides, &options, tell).await?);
                Ok(())
            })?;
            report.ok_or_else(|| Failure::new(ErrorCode::Internal, "no report"))?
        }
    };
    print(&report, out)
}

fn print(report: &CaseReport, out: &mut Output) -> CommandResult {
    for bound in &report.bounds {
        out.say(bound.line())?;
    }
    for (name, figure) in &report.figures {
        let Spread { median, min, max, .. } = figure;
        out.say(format_args!("  {name} {median:.3} ({min:.3} to {max:.3})"))?;
    }
    out.json(report)
}

/// Topics come and go: that is no news here.
const QUIET: &str = "log.level=warn";

/// What its broker is started with.
fn settings(case: Case) -> Vec<String> {
    let settings: &[&str] = match case {
        Case::Disk => &["disk.capacity_bytes=1GiB"],
        _ => &[],
    };
    let mut settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    settings.push(QUIET.to_owned());
    if case == Case::Greedy {
        settings.push(format!("memory.inflight_bytes_max={GREEDY_POOL_BYTES}"));
        settings.push("limits.connections_per_ip_max=2000".to_owned());
    }
    settings
}

impl PressureArgs {
    fn options(&self) -> PressureOptions {
        PressureOptions { rounds: self.rounds, duration: self.duration, warm_up: self.warm_up }
    }
}

impl CaseArg {
    fn case(self) -> Case {
        match self {
            CaseArg::Overload => Case::Overload,
            CaseArg::Isolation => Case::Isolation,
            CaseArg::Storm => Case::Storm,
            CaseArg::Disk => Case::Disk,
            CaseArg::Greedy => Case::Greedy,
            CaseArg::Cost => Case::Cost,
        }
    }
}

/// Sizes whose difference is measured: what start and stop cost falls out.
const COST_BYTES: [u64; 2] = [128 << 20, 256 << 20];
const COST_RECORD_BYTES: usize = 1 << 10;
const COST_MAX: f64 = 1.02;
const COST_WIRE_MAX: f64 = 1.01;

/// One run under callgrind.
#[derive(Clone, Copy)]
struct Cost {
    instructions: f64,
    wire_bytes: f64,
}

fn cost(args: &PressureArgs, dir: &Path) -> Result<CaseReport, Failure> {
    let valgrind = Command::new("valgrind").arg("--version").output();
    if !valgrind.is_ok_and(|output| output.status.success()) {
        let failure = Failure::new(ErrorCode::Unsupported, "valgrind is not installed");
        return Err(
            failure.help("Hardware counters are not used: they are missing in most machines.")
        );
    }
    let mut figures: [[Vec<f64>; 2]; 2] = Default::default();
    let mib = (COST_BYTES[1] - COST_BYTES[0]) as f64 / f64::from(1 << 20);
    for round in 1..=args.rounds.max(1) {
        for (side, enforcement) in ["on", "off"].into_iter().enumerate() {
            let [small, large] = COST_BYTES.map(|bytes| cost_of(args, enforcement, bytes, dir));
            let (small, large) = (small?, large?);
            let instructions = (large.instructions - small.instructions) / mib;
            eprintln!(
                "round {round}: enforcement {enforcement}: {instructions:.0} instructions per MiB"
            );
            figures[side][0].push(instructions);
            figures[side][1].push((large.wire_bytes - small.wire_bytes) / mib);
        }
    }
    let ratio = |figure: usize| {
        let pairs = figures[0][figure].iter().zip(&figures[1][figure]);
        Spread::of(pairs.map(|(on, off)| on / off))
    };
    let bounds = vec![
        Bound::at_most("instructions per MiB, on through off", COST_MAX, ratio(0)),
        Bound::at_most("bytes on the wire, on through off", COST_WIRE_MAX, ratio(1)),
    ];
    let spread = |side: usize, figure: usize| Spread::of(figures[side][figure].iter().copied());
    let figures = vec![
        ("instructions_per_mib_on", spread(0, 0)),
        ("instructions_per_mib_off", spread(1, 0)),
        ("wire_bytes_per_mib_on", spread(0, 1)),
        ("wire_bytes_per_mib_off", spread(1, 1)),
    ];
    Ok(CaseReport::new(Case::Cost, bounds, figures))
}

fn cost_of(
    args: &PressureArgs,
    enforcement: &str,
    bytes: u64,
    dir: &Path,
) -> Result<Cost, Failure> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut settings = vec![format!("flow.enforcement={enforcement}"), QUIET.to_owned()];
    settings.extend(args.set.iter().cloned());
    let counts = dir.path().join("callgrind.out");
    let under = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={}", counts.display()),
    ];
    let setup = Setup { settings: &settings, under: &under };
    let broker = Server::start_with("broker", &dir.path().join("broker"), &setup)?;
    let options = WorkloadOptions {
        topic: "cost".to_owned(),
        count: Some(bytes / COST_RECORD_BYTES as u64),
        record_bytes: COST_RECORD_BYTES,
        warm_up: Duration::ZERO,
        ..WorkloadOptions::default()
    };
    let mut wire_bytes = 0;
    block_on(async {
        broker.target.create_topic(&options, &[]).await?;
        let report = produce(&broker.target, &options).await?;
        wire_bytes = report.wire_bytes;
        Ok(())
    })?;
    broker.stop()?;
    let said = std::fs::read_to_string(&counts)?;
    let total = said.lines().find_map(|line| {
        let total = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))?;
        total.split_whitespace().next()?.parse().ok()
    });
    let unread = || Failure::new(ErrorCode::Internal, "callgrind wrote no totals");
    Ok(Cost { instructions: total.ok_or_else(unread)?, wire_bytes: wire_bytes as f64 })
}
