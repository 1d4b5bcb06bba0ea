//! The servers of a matrix run: processes of this binary, so that each one's processor time and
//! memory can be read from outside. They are ended with this process's interest in them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::bench::Target;
use crate::cli::failure::Failure;
use crate::types::ErrorCode;

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
        let mut command = Command::new(std::env::current_exe()?);
        match name {
            "floor" => command.args(["bench", "floor", "--serve", "127.0.0.1:0", "--data"]),
            "required" => {
                let floor = ["bench", "floor", "--serve", "127.0.0.1:0", "--required", "--data"];
                command.args(floor)
            }
            _ => command.args(["serve", "--listen", "127.0.0.1:0", "--data"]),
        };
        let mut child = command.arg(data).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
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

impl Drop for Server {
    fn drop(&mut self) {
        // Its data lies in a temporary directory: there is nothing to close in order.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
