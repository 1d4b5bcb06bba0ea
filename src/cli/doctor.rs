//! `stoplog doctor`: is this host fit for a broker? Reads only; the speed of `fdatasync` is measured
//! on a file without a name.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::config::{Sources, load};
use super::failure::{CommandResult, Exit, Failure};
use super::output::{Output, Table};
use crate::types::format_bytes;

/// Open files a broker with some hundred busy partitions and a thousand clients needs.
const FILES_WANTED: u64 = 4_096;
/// Free space below which a broker refuses writes on a large disk (DESIGN section 3).
const FREE_WANTED: u64 = 512 << 20;
/// `fdatasync` slower than this makes every durable acknowledgement slow.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// Before this year the clock was never set.
const YEAR_MIN_SECONDS: u64 = 1_700_000_000;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The data directory to look at.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    sources: Sources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    help: &'static str,
}

impl Check {
    fn new(check: &'static str, fit: bool, detail: String, help: &'static str) -> Check {
        let verdict = if fit { Verdict::Ok } else { Verdict::Warn };
        Check { check, verdict, detail, help: if fit { "" } else { help } }
    }

    fn fail(check: &'static str, detail: String, help: &'static str) -> Check {
        Check { check, verdict: Verdict::Fail, detail, help }
    }
}

/// Runs all checks; exit 1 when one fails.
pub fn run(args: &DoctorArgs, out: &mut Output) -> CommandResult {
    let mut checks = Vec::new();
    let config = match load(&args.sources) {
        Ok(config) => {
            let strange = config.unknown_env.join(", ");
            let fit = strange.is_empty();
            let detail = if fit { "valid".to_owned() } else { format!("ignored: {strange}") };
            checks.push(Check::new(
                "settings",
                fit,
                detail,
                "Unset variables that are no settings.",
            ));
            Some(config)
        }
        Err(failure) => {
            let text = failure.text().unwrap_or_default();
            let line = text.lines().next().unwrap_or_default().to_owned();
            checks.push(Check::fail("settings", line, "stoplog config options lists them."));
            None
        }
    };
    checks.extend([check_files(), check_memory(), check_clock()]);
    let configured = config.map(|c| PathBuf::from(c.text("data.dir")));
    let data = args.data.clone().or(configured.filter(|dir| !dir.as_os_str().is_empty()));
    if let Some(dir) = data {
        check_data(&dir, &mut checks);
    }
    report(&checks, out)
}

fn report(checks: &[Check], out: &mut Output) -> CommandResult {
    let mut table = Table::new(&["CHECK", "VERDICT", "FOUND"]);
    for check in checks {
        let verdict = format!("{:?}", check.verdict).to_lowercase();
        let help = if check.help.is_empty() { "" } else { "  -> " };
        let found = format!("{}{help}{}", check.detail, check.help);
        table.row([check.check.to_owned(), verdict, found]);
        out.json(check)?;
    }
    out.table(&table)?;
    if checks.iter().any(|c| c.verdict == Verdict::Fail) {
        return Err(Failure::quiet(Exit::Other));
    }
    Ok(())
}

fn check_files() -> Check {
    let limit = getrlimit(Resource::Nofile).current;
    let detail = limit.map_or("no limit".to_owned(), |n| format!("{n} open files"));
    let fit = limit.is_none_or(|n| n >= FILES_WANTED);
    Check::new("open files", fit, detail, "Raise it: ulimit -n 65536, or LimitNOFILE in systemd.")
}

fn check_memory() -> Check {
    let host = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
    });
    let group: Option<u64> =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|t| t.trim().parse().ok());
    match [host, group].into_iter().flatten().min() {
        Some(bytes) => Check::new(
            "memory",
            bytes >= 512 << 20,
            format!("{} available", format_bytes(bytes)),
            "A broker is happy with 512 MiB; the page cache takes the rest.",
        ),
        None => Check::new("memory", false, "unknown".to_owned(), "Is /proc mounted?"),
    }
}

fn check_clock() -> Check {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = crate::types::Timestamp(i64::try_from(seconds.as_millis()).unwrap_or(i64::MAX));
    let detail = super::position::rfc3339(now);
    let fit = seconds.as_secs() >= YEAR_MIN_SECONDS;
    Check::new("clock", fit, detail, "Set it: retention by time goes by the wall clock.")
}

fn check_data(dir: &Path, checks: &mut Vec<Check>) {
    let existing = dir.ancestors().find(|path| path.is_dir());
    let Some(place) = existing else {
        checks.push(Check::fail(
            "data dir",
            format!("{}", dir.display()),
            "Give a path that exists.",
        ));
        return;
    };
    checks.push(check_state(dir));
    checks.push(check_filesystem(place));
    if let Ok(space) = rustix::fs::statvfs(place) {
        let free = space.f_bavail * space.f_frsize;
        let total = space.f_blocks * space.f_frsize;
        let wanted = (total / 25).min(FREE_WANTED);
        let detail = format!("{} free of {}", format_bytes(free), format_bytes(total));
        checks.push(Check::new(
            "disk space",
            free > wanted,
            detail,
            "Free some: writes are refused.",
        ));
    }
    checks.push(check_sync(place));
}

fn check_state(dir: &Path) -> Check {
    let help_foreign = "Give an empty or new directory to --data.";
    let mut names = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|e| e.file_name()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Check::new("data dir", true, "does not exist yet: will be made".to_owned(), "");
        }
        Err(e) => {
            return Check::fail(
                "data dir",
                format!("{}: {e}", dir.display()),
                "Check its owner and mode.",
            );
        }
    };
    let meta = dir.join("meta.properties");
    if meta.is_file() {
        let future = fs::metadata(&meta)
            .and_then(|m| m.modified())
            .is_ok_and(|at| at > SystemTime::now() + Duration::from_secs(60));
        if future {
            let detail = "was written in the future".to_owned();
            return Check::new("data dir", false, detail, "The clock went back; check it.");
        }
        let state =
            if is_locked(&dir.join("LOCK")) { "in use by a broker" } else { "a log, not in use" };
        return Check::new("data dir", true, state.to_owned(), "");
    }
    if names.next().is_none() {
        return Check::new("data dir", true, "empty".to_owned(), "");
    }
    Check::fail("data dir", "holds files but no log".to_owned(), help_foreign)
}

/// Whether somebody holds a lock on `path`, by the kernel's list: asking for the lock ourselves
/// could make a broker fail that starts at this moment.
fn is_locked(path: &Path) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    let device = meta.st_dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let wanted = format!("{major:02x}:{minor:02x}:{}", meta.st_ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| line.split_whitespace().any(|word| word == wanted))
}

fn check_filesystem(place: &Path) -> Check {
    let Ok(stat) = rustix::fs::statfs(place) else {
        return Check::new("file system", false, "unknown".to_owned(), "");
    };
    // Magic numbers of statfs(2).
    let (name, fit, help) = match stat.f_type as u64 & 0xffff_ffff {
        0xef53 => ("ext4", true, ""),
        0x5846_5342 => ("xfs", true, ""),
        0x9123_683e => ("btrfs", true, ""),
        0x2fc1_2fc1 => ("zfs", true, ""),
        0xf2f5_2010 => ("f2fs", true, ""),
        0x0102_1994 => ("tmpfs", false, "Memory: nothing survives a reboot."),
        0x794c_7630 => ("overlayfs", false, "A container's layer: mount a volume for the data."),
        0x6969 => ("nfs", false, "Locks and fsync over a network are not to be trusted."),
        0xff53_4d42 | 0xfe53_4d42 => ("smb", false, "Locks and fsync are not to be trusted."),
        0x6573_5546 => ("fuse", false, "fsync is as good as the program behind it."),
        _ => ("of another kind", true, ""),
    };
    Check::new("file system", fit, name.to_owned(), help)
}

/// Median of a few small writes with `fdatasync`, on a file that never has a name.
fn check_sync(place: &Path) -> Check {
    const ROUNDS: usize = 9;
    let measure = || -> std::io::Result<Duration> {
        let mut file: File = tempfile::tempfile_in(place)?;
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            file.write_all(&[0x5a; 4096])?;
            let start = Instant::now();
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[ROUNDS / 2])
    };
    match measure() {
        Ok(median) => Check::new(
            "fdatasync",
            median < SYNC_SLOW,
            format!("{:.2} ms (median of {ROUNDS})", median.as_secs_f64() * 1e3),
            "Every durable acknowledgement waits that long.",
        ),
        Err(e) => Check::fail("fdatasync", e.to_string(), "The directory must be writable."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_judged_by_what_it_holds() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(check_state(folder.path()).detail, "empty");
        assert_eq!(check_state(&folder.path().join("new")).verdict, Verdict::Ok);
        fs::write(folder.path().join("letter.txt"), "x").expect("written");
        assert_eq!(check_state(folder.path()).verdict, Verdict::Fail);
        fs::write(folder.path().join("meta.properties"), "x").expect("written");
        assert_eq!(check_state(folder.path()).detail, "a log, not in use");
    }

    #[test]
    fn a_held_lock_is_seen_without_taking_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("LOCK");
        let file = File::create(&path).expect("file");
        assert!(!is_locked(&path));
        file.lock().expect("locked");
        assert!(is_locked(&path));
    }
}
