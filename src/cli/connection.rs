//! Which broker a command talks to, and the runtime it does so on.

use std::future::Future;

use clap::Args;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::{CommandResult, Failure};
use crate::client::{Admin, Client, ClientError, ClientOptions};
use crate::types::ErrorCode;

/// Where `stoplog serve` listens unless it is told otherwise.
const SERVER_DEFAULT: &str = "127.0.0.1:7600";

/// An empty variable is one that is not set.
fn parse_server(text: &str) -> Result<String, String> {
    Ok(if text.is_empty() { SERVER_DEFAULT } else { text }.to_owned())
}

/// The broker.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Address of the broker.
    #[arg(long, global = true, env = "STOPLOG_SERVER", default_value = SERVER_DEFAULT)]
    #[arg(value_name = "HOST:PORT", hide_env_values = true, value_parser = parse_server)]
    pub server: String,
}

impl Connection {
    /// Connects with the client's own limits.
    pub async fn open(&self) -> Result<Client, Failure> {
        self.open_with(ClientOptions::default()).await
    }

    /// Connects and runs what an operator asks of the broker; a signal breaks it off at any point.
    pub fn administer(&self, ask: impl AsyncFnOnce(Admin) -> CommandResult) -> CommandResult {
        block_on(async { ask(self.open().await?.admin()).await })
    }

    /// Connects.
    pub async fn open_with(&self, options: ClientOptions) -> Result<Client, Failure> {
        Ok(Client::connect(&self.server, options).await?)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        if let Some(pushback) = error.pushback() {
            return Failure::from(pushback.clone());
        }
        // The code stands in front already.
        let message = match &error {
            ClientError::Refused(answer) => answer.message.clone(),
            other => other.to_string(),
        };
        Failure::new(error.code(), message).retry_after(error.retry_after())
    }
}

/// A runtime for one command.
pub fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Runs a command that a signal may break off at any point.
pub fn block_on(command: impl Future<Output = CommandResult>) -> CommandResult {
    runtime()?.block_on(async {
        let mut stop = Stop::listen()?;
        tokio::select! {
            result = command => result,
            failure = stop.asked() => Err(failure),
        }
    })
}

/// SIGINT and SIGTERM.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Listens from now on; the signals no longer kill the process.
    pub fn listen() -> Result<Stop, Failure> {
        let (interrupt, terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Stop { interrupt, terminate })
    }

    /// Returns when one came, with the failure of a command that ends for it. Cancel safe.
    pub async fn asked(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
        Failure::new(ErrorCode::Interrupted, ErrorCode::Interrupted.title())
    }
}
