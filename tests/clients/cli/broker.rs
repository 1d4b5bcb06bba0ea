//! How the tests of the command line run commands, against a broker process or alone.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

pub use crate::process::Broker;
use crate::process::STOPLOG;

impl Broker {
    /// Runs a command against it.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.feed(args, b"")
    }

    /// Runs a command against it with this stdin.
    pub fn feed(&self, args: &[&str], stdin: &[u8]) -> Ran {
        run_with(&[("STOPLOG_SERVER", &self.address)], args, stdin)
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
