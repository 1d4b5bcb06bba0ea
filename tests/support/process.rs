//! The real binary as a process of its own: a broker that can be killed and started again at the same
//! address.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The binary under test.
pub const STOPLOG: &str = env!("CARGO_BIN_EXE_stoplog");

/// With these how full the disk of the machine is does not matter.
const ROOMY: [&str; 3] = ["disk.low=3MiB", "disk.high=2MiB", "disk.full=1MiB"];

/// A running `stoplog serve`; it is killed when the test ends.
pub struct Broker {
    /// What runs the binary: a program and its first arguments, or nothing.
    inside: Vec<String>,
    data: PathBuf,
    settings: Vec<String>,
    running: Option<(Child, BufReader<ChildStdout>)>,
    /// Where it listens.
    pub address: String,
}

impl Broker {
    /// Starts one on a free port and waits for its ready line.
    pub fn start(data: &Path) -> Broker {
        Broker::with(data, &[])
    }

    /// The same with these settings.
    pub fn with(data: &Path, settings: &[&str]) -> Broker {
        Broker::inside(&[], data, &[&ROOMY, settings].concat())
    }

    /// With these settings alone, and run by a program that changes what it sees of the machine and
    /// becomes it.
    pub fn inside(inside: &[String], data: &Path, settings: &[&str]) -> Broker {
        let mut broker = Broker {
            inside: inside.to_vec(),
            data: data.to_owned(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            running: None,
            address: "127.0.0.1:0".to_owned(),
        };
        broker.run_serve();
        broker
    }

    fn run_serve(&mut self) {
        let mut words = self.inside.iter().map(String::as_str).chain([STOPLOG]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).args(["serve", "--listen", &self.address, "--set", "log.level=warn"]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.arg("--data").arg(&self.data).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is readable");
        let address = line.trim_end().strip_prefix("ready native=").expect("the ready line");
        self.address = address.split(' ').next().expect("an address").to_owned();
        self.running = Some((child, stdout));
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").0.id()
    }

    /// SIGKILL, and a start on the same directory at the same address.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.run_serve();
    }

    /// SIGTERM, and a start on the same directory at the same address.
    pub fn restart(&mut self) {
        assert_eq!(self.stop(), Some(0), "it drains");
        self.run_serve();
    }

    /// Sends SIGTERM and returns its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.stop()
    }

    fn stop(&mut self) -> Option<i32> {
        let pid = i32::try_from(self.pid()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
        let (mut child, _) = self.running.take().expect("it runs");
        child.wait().expect("it ends").code()
    }

    /// SIGKILL, when it runs.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().expect("it ends");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
