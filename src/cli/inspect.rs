//! `stoplog inspect segment|index|manifest FILE`: one file as data. Reads only.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::failure::{CommandResult, Failure};
use super::output::Output;
use crate::env::RealDisk;
use crate::storage::{inspect_index, inspect_manifest, inspect_segment};
use crate::types::ErrorCode;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A segment: identity, watermark slots, batches, footer.
    Segment {
        /// The .log file.
        file: PathBuf,
        /// List at most so many batches.
        #[arg(short = 'n', long, default_value_t = 1_000)]
        batches: usize,
    },
    /// An index: where offsets and times stand in a segment.
    Index {
        /// The .idx file.
        file: PathBuf,
    },
    /// A manifest: the segments of a partition and what is intended with them.
    Manifest {
        /// The partition.manifest file.
        file: PathBuf,
    },
}

/// Runs `inspect`.
pub fn run(args: &InspectArgs, out: &mut Output) -> CommandResult {
    match &args.what {
        What::Segment { file, batches } => {
            let (disk, name) = open(file)?;
            show(file, inspect_segment(&disk, &name, *batches), out)
        }
        What::Index { file } => {
            let (disk, name) = open(file)?;
            show(file, inspect_index(&disk, &name), out)
        }
        What::Manifest { file } => {
            let (disk, name) = open(file)?;
            show(file, inspect_manifest(&disk, &name), out)
        }
    }
}

/// The file's directory, and its name within.
fn open(file: &Path) -> Result<(RealDisk, PathBuf), Failure> {
    let name = file.file_name().map(PathBuf::from);
    let name = name.ok_or_else(|| Failure::usage(format!("{} is no file", file.display())))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((RealDisk::new(folder.unwrap_or(Path::new(".")).to_owned()), name))
}

fn show(file: &Path, view: io::Result<impl Serialize>, out: &mut Output) -> CommandResult {
    let view = view.map_err(|e| {
        let code = match e.kind() {
            io::ErrorKind::InvalidData => ErrorCode::VerifyFailed,
            _ => ErrorCode::InvalidInput,
        };
        Failure::new(code, format!("{}: {e}", file.display()))
            .help("The path names a file below topics/<id>/<partition> of a data directory.")
    })?;
    out.json(&view)?;
    let view = serde_json::to_value(&view).map_err(io::Error::from)?;
    let mut text = Vec::new();
    outline(&view, 0, &mut text);
    text.iter().try_for_each(|line| out.say(line))
}

/// JSON as an indented outline; a list of flat objects is one line each.
fn outline(value: &serde_json::Value, depth: usize, text: &mut Vec<String>) {
    let pad = "  ".repeat(depth);
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                if value.is_object() || value.is_array() {
                    text.push(format!("{pad}{name}"));
                    outline(value, depth + 1, text);
                } else {
                    text.push(format!("{pad}{name} = {}", plain(value)));
                }
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                match item.as_object() {
                    Some(fields) if fields.values().all(|v| !v.is_object() && !v.is_array()) => {
                        let pairs = fields.iter().map(|(k, v)| format!("{k}={}", plain(v)));
                        text.push(format!("{pad}{}", pairs.collect::<Vec<_>>().join(" ")));
                    }
                    Some(_) => outline(item, depth, text),
                    None => text.push(format!("{pad}{}", plain(item))),
                }
            }
        }
        other => text.push(format!("{pad}{}", plain(other))),
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
