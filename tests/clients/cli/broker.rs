//! A broker process for the tests of the command line, and how they run commands against it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The binary under test.
const STOPLOG: &str = env!("CARGO_BIN_EXE_stoplog");

/// A running `stoplog serve`; it is killed when the test ends.
pub struct Broker {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Broker {
    /// Starts one on a free port and waits for its ready line.
    pub fn start(data: &Path) -> Broker {
        let mut command = Command::new(STOPLOG);
        command.args(["serve", "--listen", "127.0.0.1:0", "--set", "log.level=warn"]);
        // How full the disk of the machine is does not matter.
        let levels = ["disk.low=3MiB", "disk.high=2MiB", "disk.full=1MiB"];
        for level in levels {
            command.args(["--set", level]);
        }
        command.arg("--data");
        let mut child = command.arg(data).stdout(Stdio::piped()).spawn().expect("serve starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the ready line");
        let address = line.trim_end().strip_prefix("ready native=").expect("the ready line");
        let address = address.split(' ').next().expect("an address").to_owned();
        Broker { child, address }
    }

    /// Runs a command against it.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.feed(args, b"")
    }

    /// Runs a command against it with this stdin.
    pub fn feed(&self, args: &[&str], stdin: &[u8]) -> Ran {
        run_with(&[("STOPLOG_SERVER", &self.address)], args, stdin)
    }

    /// Sends SIGTERM and returns its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
        self.child.wait().expect("it ends").code()
    }

    /// Sends SIGKILL and waits.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl Ran {
    /// Its stdout, when it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Its stdout as JSON lines, when it succeeded.
    #[track_caller]
    pub fn json(self) -> Vec<serde_json::Value> {
        self.ok().lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// Asserts how it failed: its exit code, and words that stderr must have.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(words), "{words:?} in {self:?}");
    }
}

/// Runs a command that needs no broker.
pub fn run(args: &[&str]) -> Ran {
    run_with(&[], args, b"")
}

/// Runs a command with these variables and this stdin.
pub fn run_with(env: &[(&str, &str)], args: &[&str], stdin: &[u8]) -> Ran {
    let mut command = Command::new(STOPLOG);
    command.args(args).envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut input = child.stdin.take().expect("a pipe");
    let bytes = stdin.to_vec();
    // A command that does not read its stdin closes the pipe early: fine.
    let feeding = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    feeding.join().expect("fed");
    Ran {
        code: status.code(),
        out: String::from_utf8(stdout).expect("UTF-8"),
        err: String::from_utf8(stderr).expect("UTF-8"),
    }
}
