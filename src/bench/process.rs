//! What a process has used, from `/proc/PID`: processor time, memory, bytes sent to the device.

use serde::{Deserialize, Serialize};

use super::machine::proc_text;

/// A reading of one process. Counters grow; take two and subtract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes, mapped log pages included.
    pub rss_bytes: u64,
    /// Anonymous resident memory in bytes: what the process itself holds.
    pub rss_anon_bytes: u64,
    /// Bytes the process caused to be sent to the device.
    pub device_write_bytes: u64,
    /// Page faults that needed no device.
    pub minor_faults: u64,
}

/// Clock ticks per second in `/proc/PID/stat`; the kernel's user interface fixes it at 100.
const TICKS_PER_SECOND: f64 = 100.0;

impl Usage {
    /// Reads a process; `None` when it is gone.
    pub fn of(pid: u32) -> Option<Usage> {
        let stat = proc_text(&format!("/proc/{pid}/stat"))?;
        // The second field is the name in parentheses and may hold blanks: count from its end.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let status = proc_text(&format!("/proc/{pid}/status"))?;
        let io = proc_text(&format!("/proc/{pid}/io")).unwrap_or_default();
        Some(Usage {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS_PER_SECOND,
            rss_bytes: number_after(&status, "VmRSS:").unwrap_or(0) * 1024,
            rss_anon_bytes: number_after(&status, "RssAnon:").unwrap_or(0) * 1024,
            device_write_bytes: number_after(&io, "write_bytes:").unwrap_or(0),
            minor_faults: field(10)?,
        })
    }

    /// What was used between `earlier` and this reading; memory is this reading's.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            device_write_bytes: self.device_write_bytes.saturating_sub(earlier.device_write_bytes),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
            ..*self
        }
    }
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let usage = Usage::of(std::process::id()).expect("own /proc entry");
        assert!(usage.rss_bytes >= usage.rss_anon_bytes && usage.rss_anon_bytes > 0);
        assert_eq!(Usage::of(u32::MAX), None);
    }

    #[test]
    fn numbers_stand_behind_their_key() {
        assert_eq!(number_after("a: 1\nVmRSS:\t 42 kB\n", "VmRSS:"), Some(42));
        assert_eq!(number_after("a: 1", "b:"), None);
    }
}
