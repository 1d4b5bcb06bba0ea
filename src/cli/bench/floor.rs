//! `bench floor`: the parts of the floor, or the floor server for other benches.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::bench::Machine;
use crate::bench::floor::{Part, PartsOptions, Work, measure, serve};
use crate::cli::failure::CommandResult;
use crate::cli::output::{Output, Table};
use crate::env::Env;
use crate::types::parse_bytes;

/// Arguments of `bench floor`.
#[derive(Debug, Args)]
pub struct FloorArgs {
    /// Directory for the files; a temporary one when it is left out.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Bytes moved for each part.
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    bytes: u64,
    /// Bytes of one write, send or checksum.
    #[arg(long, default_value = "64KiB", value_parser = super::workload::size)]
    piece_bytes: usize,
    /// Pieces covered by one fdatasync.
    #[arg(long, default_value_t = 8)]
    pieces_per_sync: u64,
    /// Serve as the floor on this address instead of measuring parts.
    #[arg(long, value_name = "HOST:PORT")]
    serve: Option<String>,
    /// Serve with what the broker's design asks for: check each batch, and hand it to the thread
    /// of a log writer.
    #[arg(long, requires = "serve")]
    required: bool,
}

#[derive(Serialize)]
struct FloorReport {
    machine: Machine,
    parts: Vec<Part>,
}

/// Measures the parts, or serves until the process ends.
pub fn run(args: &FloorArgs, out: &mut Output) -> CommandResult {
    let temporary = match &args.data {
        Some(_) => None,
        None => Some(tempfile::tempdir()?),
    };
    let temporary = temporary.as_ref().map(tempfile::TempDir::path);
    let dir = args.data.as_deref().or(temporary).unwrap_or(Path::new(".")).to_owned();
    let env = Env::real(dir.clone());
    env.disk.create_dir_all(Path::new(""))?;
    if let Some(address) = &args.serve {
        let listener = TcpListener::bind(address)?;
        out.say(format_args!("ready native={}", listener.local_addr()?))?;
        out.flush()?;
        let work = if args.required { Work::Required } else { Work::Bare };
        return Ok(serve(&listener, &env, work)?);
    }
    let options = PartsOptions {
        bytes: args.bytes,
        piece_bytes: args.piece_bytes,
        pieces_per_sync: args.pieces_per_sync,
    };
    let parts = measure(options, &*env.disk, &*env.clock, Path::new(""))?;
    let mut table = Table::new(&["part", "MB/s", "seconds"]);
    for part in &parts {
        let (speed, seconds) = (format!("{:.0}", part.mb_per_s), format!("{:.3}", part.seconds));
        table.row([part.part.clone(), speed, seconds]);
    }
    out.table(&table)?;
    out.json(&FloorReport { machine: Machine::describe(&dir), parts })
}
