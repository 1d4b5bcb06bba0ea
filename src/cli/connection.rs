//! Which broker a command talks to.

use clap::Args;

/// The broker.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Address of the broker.
    #[arg(
        long,
        env = "STOPLOG_SERVER",
        default_value = "127.0.0.1:7600",
        value_name = "HOST:PORT"
    )]
    pub server: String,
}
