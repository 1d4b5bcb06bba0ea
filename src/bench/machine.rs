//! What a result was measured on, so that a number never travels without its machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// The machine and the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor, as the kernel names it.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// File system below the data directory, as `/proc/mounts` names it.
    pub filesystem: String,
    /// Version of this binary.
    pub version: String,
    /// Commit it was built from, where the build knew it.
    pub commit: String,
}

impl Machine {
    /// Reads what `/proc` says; unknown parts are `"unknown"`.
    pub fn describe(data_dir: &Path) -> Machine {
        let line = |file: &str, key: &str| {
            let text = proc_text(file)?;
            let line = text.lines().find(|l| l.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let unknown = || "unknown".to_owned();
        let memory_kib = line("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next().and_then(|n| n.parse::<u64>().ok()));
        Machine {
            cpu: line("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_kib.unwrap_or(0) * 1024,
            kernel: proc_text("/proc/sys/kernel/osrelease")
                .map_or_else(unknown, |t| t.trim().to_owned()),
            filesystem: filesystem(data_dir).unwrap_or_else(unknown),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: crate::types::COMMIT.to_owned(),
        }
    }
}

/// The type of the mount with the longest path above `dir`.
fn filesystem(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = proc_text("/proc/mounts")?;
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = fields.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// A text of `/proc`. These are not files of a disk, so they do not come through `env::Disk`.
#[allow(clippy::disallowed_methods)]
pub(crate) fn proc_text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
