//! The servers of a comparison: processes of this binary, so that each one's processor time and
//! memory can be read from outside. They are ended with this process's interest in them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::bench::Target;
use crate::cli::failure::Failure;
use crate::types::ErrorCode;

/// How a server is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// `KEY=VALUE` for a broker.
    pub settings: &'a [String],
    /// A program it runs under, with its arguments.
    pub under: &'a [String],
}

/// A running server.
pub struct Server {
    /// How to reach it.
    pub target: Target,
    child: Child,
    /// Kept open: it writes nothing more, but a closed pipe could end it.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts the floor, bare or with the required work, or a broker on a free port and waits until it is ready.
    pub fn start(name: &'static str, data: &Path) -> Result<Server, Failure> {
        Server::start_with(name, data, &Setup::default())
    }

    /// The same with settings, or under another program.
    pub fn start_with(
        name: &'static str,
        data: &Path,
        setup: &Setup<'_>,
    ) -> Result<Server, Failure> {
        let this = std::env::current_exe()?;
        let mut command = match setup.under {
            [] => Command::new(this),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(this).stderr(Stdio::null());
                command
            }
        };
        match name {
            "floor" => command.args(["bench", "floor", "--serve", "127.0.0.1:0"]),
            "required" => command.args(["bench", "floor", "--serve", "127.0.0.1:0", "--required"]),
            _ => command.args(["serve", "--listen", "127.0.0.1:0"]),
        };
        command.args(setup.settings.iter().flat_map(|setting| ["--set", setting]));
        // A shell's variable must not change what is compared.
        command.env_remove("STOPLOG_CONFIG").arg("--data").arg(data);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let pid = Some(child.id());
        let mut line = String::new();
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| Failure::new(ErrorCode::Internal, "no stdout"))?;
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("native="));
        match address {
            Some(address) => {
                let target = Target { name, address: address.to_owned(), pid };
                Ok(Server { target, child, _stdout: stdout })
            }
            None => {
                drop(child.kill());
                let message = format!("the {name} did not become ready: {}", line.trim_end());
                Err(Failure::new(ErrorCode::Unreachable, message))
            }
        }
    }
}

impl Server {
    /// Lets it drain, for what it writes at its end.
    pub fn stop(mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(ErrorCode::Internal, "no process"))?;
        kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data lies in a temporary directory: there is nothing to close in order.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
