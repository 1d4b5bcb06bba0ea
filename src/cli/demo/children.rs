//! The processes of the demo: a broker and its subscribers, each this same binary.
//!
//! A broker drains when its stdin closes, a subscriber ends when its stdout does: whatever happens to
//! the demo, no child stays behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::ledger::{Delivery, Ledger};
use crate::cli::failure::Failure;
use crate::types::ErrorCode;

/// A broker on an empty or a killed directory is ready long before.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// A drain may take 10 s; then the process is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);

fn this_binary() -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.kill_on_drop(true);
    // The demo says where its broker is; a variable of the caller's shell must not.
    command.env_remove("STOPLOG_SERVER").env_remove("STOPLOG_CONFIG");
    Ok(command)
}

fn defect(what: String) -> Failure {
    Failure::new(ErrorCode::Internal, what)
}

async fn signal_and_wait(child: &mut Child, signal: Signal) -> Result<(), Failure> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = id {
        // It may have ended already; then there is nothing to signal.
        let _ = kill_process(pid, signal);
    }
    if timeout(STOP_WITHIN, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

/// The broker.
#[derive(Debug)]
pub struct BrokerChild {
    child: Child,
    /// Kept open: the broker writes nothing more, but a closed pipe could end it.
    _stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: String,
    data: PathBuf,
    log: PathBuf,
    settings: Vec<String>,
}

impl BrokerChild {
    /// Starts a broker with these settings, `key=value`, and waits until it is ready. Its events go
    /// to the file `log`.
    pub async fn start(
        data: &Path,
        listen: &str,
        log: &Path,
        settings: &[String],
    ) -> Result<BrokerChild, Failure> {
        let events = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = this_binary()?;
        command.args(["serve", "--stop-with-stdin", "--listen", listen, "--data"]).arg(data);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(events);
        let mut child = command.spawn()?;
        let stdout =
            child.stdout.take().ok_or_else(|| defect("the broker has no stdout".into()))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = timeout(READY_WITHIN, stdout.read_line(&mut line)).await;
        let address = line
            .strip_prefix("ready native=")
            .and_then(|rest| rest.split_whitespace().next())
            .map(str::to_owned);
        match (read, address) {
            (Ok(Ok(_)), Some(address)) => Ok(BrokerChild {
                child,
                _stdout: stdout,
                address,
                data: data.to_owned(),
                log: log.to_owned(),
                settings: settings.to_vec(),
            }),
            _ => {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                Err(defect(format!("the broker did not start:\n{}", last.join("\n"))))
            }
        }
    }

    /// SIGKILL: no drain, no clean mark. Returns once the process is gone.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again after [`Self::kill`], on the same directory and address.
    pub async fn restart(&mut self) -> Result<(), Failure> {
        let (data, address, log) = (self.data.clone(), self.address.clone(), self.log.clone());
        let settings = std::mem::take(&mut self.settings);
        *self = BrokerChild::start(&data, &address, &log, &settings).await?;
        Ok(())
    }

    /// Closes its stdin, so that it drains; an error when it did not end by itself with exit 0. (A
    /// signal as well would be the second word to stop: at once.)
    pub async fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        if timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        let status = self.child.wait().await?;
        if status.success() {
            Ok(())
        } else {
            Err(defect(format!("the broker ended with {status}")))
        }
    }
}

/// What a subscriber is started with.
#[derive(Clone, Copy, Debug)]
pub struct SubscriberOptions {
    /// Name of its group.
    pub group: &'static str,
    /// Records a second it takes at most; `None` = as fast as they come.
    pub rate: Option<u64>,
}

/// One subscriber: an ordinary `stoplog consume -g GROUP --json`, its lines taken into a ledger.
#[derive(Debug)]
pub struct Subscriber {
    options: SubscriberOptions,
    ledger: Arc<Mutex<Ledger>>,
    running: Option<(Child, JoinHandle<Result<(), Failure>>)>,
}

impl Subscriber {
    /// A subscriber that is not running yet.
    pub fn new(options: SubscriberOptions) -> Subscriber {
        Subscriber { options, ledger: Arc::default(), running: None }
    }

    /// Name of its group.
    pub fn group(&self) -> &'static str {
        self.options.group
    }

    /// From its next start on it takes records as fast as they come.
    pub fn hurry(&mut self) {
        self.options.rate = None;
    }

    /// Starts the process; it goes on at the group's committed offset.
    pub fn start(&mut self, server: &str, topic: &str) -> Result<(), Failure> {
        let mut command = this_binary()?;
        let instance = format!("{}-1", self.options.group);
        command.args(["consume", topic, "--json", "--server", server]);
        command.args(["--group", self.options.group, "--instance", &instance]);
        if let Some(rate) = self.options.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| defect("a child has no stdout".into()))?;
        let task = tokio::spawn(take_lines(stdout, Arc::clone(&self.ledger)));
        self.running = Some((child, task));
        Ok(())
    }

    /// SIGKILL: what it printed stays, what it did not commit will come again.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        if let Some((mut child, task)) = self.running.take() {
            child.kill().await?;
            finished(task).await?;
        }
        Ok(())
    }

    /// SIGTERM: it commits what it printed and leaves its group.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        if let Some((mut child, task)) = self.running.take() {
            signal_and_wait(&mut child, Signal::TERM).await?;
            finished(task).await?;
        }
        Ok(())
    }

    /// An error when the process ended although nobody ended it.
    pub fn check(&mut self) -> Result<(), Failure> {
        let Some((child, _)) = &mut self.running else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(defect(format!("{} ended with {status}", self.options.group))),
        }
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Looks at the ledger.
    pub fn with_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn finished(task: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    task.await.map_err(|e| defect(format!("reading a subscriber: {e}")))?
}

/// Everything that is in the topic now, read by a consumer without a group.
pub async fn read_log(server: &str, topic: &str) -> Result<Ledger, Failure> {
    let mut command = this_binary()?;
    command.args(["consume", topic, "--json", "--server", server, "--exit-at-end"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| defect("a child has no stdout".into()))?;
    let ledger = Arc::default();
    take_lines(stdout, Arc::clone(&ledger)).await?;
    let status = child.wait().await?;
    if !status.success() {
        return Err(defect(format!("reading the log ended with {status}")));
    }
    let ledger = Arc::into_inner(ledger).unwrap_or_default();
    Ok(ledger.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A line of `stoplog consume --json`, as far as the demo reads it.
#[derive(Debug, Deserialize)]
struct Line {
    partition: u32,
    offset: i64,
    value: String,
}

async fn take_lines(stdout: ChildStdout, ledger: Arc<Mutex<Ledger>>) -> Result<(), Failure> {
    let mut stdout = BufReader::with_capacity(64 << 10, stdout);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        stdout.read_until(b'\n', &mut bytes).await?;
        // A killed process may leave half a line: it was not delivered, and not committed.
        if bytes.last() != Some(&b'\n') {
            return Ok(());
        }
        let line: Line = serde_json::from_slice(&bytes)
            .map_err(|e| defect(format!("a subscriber printed something else: {e}")))?;
        let delivery = Delivery {
            partition: line.partition,
            offset: line.offset,
            event: line.value.as_bytes(),
        };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.take(delivery).map_err(|e| defect(format!("not what was published: {e}")))?;
    }
}
