//! `stoplog bench`: load against a broker that runs, or broker against floor in one run.

mod children;
mod floor;
mod matrix;
mod pressure;
mod workload;

use clap::{Args, Subcommand};

use super::failure::{CommandResult, Failure};
use super::output::Output;
use crate::bench::BenchError;
use crate::types::ErrorCode;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Send batches or records; latency counts from the moment each was due.
    Produce(workload::WorkloadArgs),
    /// Write a topic full, then measure reading it.
    Consume(workload::WorkloadArgs),
    /// Measure from the moment a record is due until a subscriber has it.
    E2e(workload::WorkloadArgs),
    /// Measure what this machine can do at best, part by part.
    Floor(floor::FloorArgs),
    /// Measure broker and floor in pairs and print the broker's share.
    Matrix(matrix::MatrixArgs),
    /// Measure what back pressure is held to and say whether it holds.
    Pressure(pressure::PressureArgs),
}

/// Runs the load generator.
pub fn run(args: &BenchArgs, out: &mut Output) -> CommandResult {
    match &args.command {
        BenchCommand::Produce(args) => workload::run(workload::Workload::Produce, args, out),
        BenchCommand::Consume(args) => workload::run(workload::Workload::Consume, args, out),
        BenchCommand::E2e(args) => workload::run(workload::Workload::E2e, args, out),
        BenchCommand::Floor(args) => floor::run(args, out),
        BenchCommand::Matrix(args) => matrix::run(args, out),
        BenchCommand::Pressure(args) => pressure::run(args, out),
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Failure {
        match error {
            BenchError::Client(error) => error.into(),
            BenchError::Name(error) => error.into(),
            BenchError::Options(_) | BenchError::Record { .. } => Failure::usage(error.to_string()),
            BenchError::Missing { .. } => {
                Failure::new(ErrorCode::ResultMismatch, error.to_string())
            }
            BenchError::Task(_) => Failure::new(ErrorCode::Internal, error.to_string()),
        }
    }
}
