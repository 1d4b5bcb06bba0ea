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
    /// The same time as `cpu_seconds` to the nanosecond, of the threads that live.
    #[serde(skip)]
    threads_seconds: f64,
}

/// Clock ticks per second in `/proc/PID/stat`; the kernel's user interface fixes it at 100.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time are cut to whole ticks, at either end.
const TICKS_OFF_MAX: f64 = 4.0 / TICKS_PER_SECOND;

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
            threads_seconds: threads_seconds(pid).unwrap_or(0.0),
        })
    }

    /// What was used between `earlier` and this reading; memory is this reading's. Processor time
    /// is exact, unless threads ended in between: then it is good to a clock tick.
    pub fn since(&self, earlier: &Usage) -> Usage {
        let ticks = self.cpu_seconds - earlier.cpu_seconds;
        let threads = self.threads_seconds - earlier.threads_seconds;
        Usage {
            cpu_seconds: if (threads - ticks).abs() <= TICKS_OFF_MAX { threads } else { ticks },
            threads_seconds: threads,
            device_write_bytes: self.device_write_bytes.saturating_sub(earlier.device_write_bytes),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
            ..*self
        }
    }
}

/// Time on a processor of the threads that live.
fn threads_seconds(pid: u32) -> Option<f64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanoseconds = |thread: std::io::Result<std::fs::DirEntry>| {
        // One that has just ended has no more time to tell.
        let text = proc_text(thread.ok()?.path().join("schedstat").to_str()?)?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(threads.filter_map(nanoseconds).sum::<u64>() as f64 / 1e9)
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

    fn reading(cpu_seconds: f64, threads_seconds: f64) -> Usage {
        Usage { cpu_seconds, threads_seconds, ..Usage::default() }
    }

    #[test]
    fn time_is_told_finer_than_a_tick_while_no_thread_ends() {
        let earlier = reading(1.00, 0.9999);
        assert!((reading(1.03, 1.0333).since(&earlier).cpu_seconds - 0.0334).abs() < 1e-9);
        let a_thread_ended = reading(2.00, 0.2);
        assert!((a_thread_ended.since(&earlier).cpu_seconds - 1.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_stand_behind_their_key() {
        assert_eq!(number_after("a: 1\nVmRSS:\t 42 kB\n", "VmRSS:"), Some(42));
        assert_eq!(number_after("a: 1", "b:"), None);
    }
}
