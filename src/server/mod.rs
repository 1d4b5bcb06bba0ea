//! Listeners, connections, shutdown: what stands between a socket and the broker. `native/`
//! translates between `protocol::native` and `broker`; nothing else sees both.
//!
//! A connection is two tasks: one reads, decodes and hands requests over, one writes answers.
//! Requests that wait run beside them, so nothing on a connection waits for anything else on it.
//!
//! # Promises
//! Whatever speaks to the port, memory grows by bytes received, and every connection, request,
//! subscription and queue is counted against a limit in [`ServerOptions`]. A defect in one
//! connection's task ends that connection alone.
//!
//! Deliberately absent: TLS and authentication; so a listener beyond loopback has to be asked for
//! with `insecure`.

mod admission;
mod in_flight;
mod listener;
mod native;
mod options;
mod outbox;
mod phase;
mod writer;

pub use listener::{RunningServer, Server, StartError, Stopper};
pub use options::ServerOptions;
