//! The listener: binds, accepts within the limits, and ends gracefully or at once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::ServerOptions;
use super::admission::Admission;
use super::native::{self, Shared};
use super::phase::{Phase, PhaseSetter, PhaseWatch, running};
use crate::broker::{Broker, ShutdownMode};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be understood or found.
    #[error("listen address {address:?}: {cause}")]
    Address {
        /// What was asked for.
        address: String,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// Another process listens there.
    #[error("{address} is in use")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not loopback and nobody said `insecure`.
    #[error("{address} is reachable from other machines and nobody is authenticated")]
    Insecure {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it said.
        cause: io::Error,
    },
}

/// The server: a listener of the native protocol in front of a broker.
#[derive(Debug)]
pub struct Server;

/// A server that runs. Dropping it ends it at once.
pub struct RunningServer {
    local_addr: SocketAddr,
    phase: Arc<PhaseSetter>,
    drain: Duration,
    accepting: Option<JoinHandle<JoinSet<()>>>,
    admission: Admission,
}

/// The kernel's queue of connections that nobody accepted yet.
const BACKLOG: i32 = 1_024;
/// How long accepting pauses when the system has no more files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refused connections that are told so at once; more are dropped without a word.
const REFUSALS_AT_ONCE: usize = 64;

impl Server {
    /// Listens and serves until the answer is shut down or dropped. Needs a tokio runtime.
    ///
    /// # Errors
    /// Nothing listens then.
    pub async fn start(
        broker: Broker,
        options: ServerOptions,
    ) -> Result<RunningServer, StartError> {
        let address = resolve(&options).await?;
        let listener = listen(address, &options).map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
            _ => StartError::Listen { address, cause },
        })?;
        let local_addr =
            listener.local_addr().map_err(|cause| StartError::Listen { address, cause })?;
        let (setter, watch) = running();
        let admission = Admission::new(&options);
        let drain = Duration::from_millis(options.drain_ms);
        let shared = Arc::new(Shared::new(broker, options, local_addr));
        info!(address = %local_addr, "listening");
        let accepting = tokio::spawn(accept(listener, shared, admission.clone(), watch));
        Ok(RunningServer {
            local_addr,
            phase: Arc::new(setter),
            drain,
            accepting: Some(accepting),
            admission,
        })
    }
}

impl RunningServer {
    /// Where it listens; the real port when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.admission.total()
    }

    /// Something that can cut a graceful shutdown short, from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.phase))
    }

    /// Takes no more connections and requests; gracefully: answers what is under way, at most for
    /// `drain_ms`; then closes all connections. The broker stays open.
    pub async fn shutdown(mut self, mode: ShutdownMode) {
        let Some(accepting) = self.accepting.take() else { return };
        self.phase.reach(match mode {
            ShutdownMode::Graceful => Phase::Draining,
            ShutdownMode::AtOnce => Phase::Ending,
        });
        let Ok(mut connections) = accepting.await else { return };
        let mut ending = self.phase.watch();
        let drained = async {
            tokio::select! {
                () = async { while connections.join_next().await.is_some() {} } => {}
                () = ending.reached(Phase::Ending) => {}
            }
        };
        if timeout(self.drain, drained).await.is_err() {
            warn!(connections = self.admission.total(), "not all requests were answered in time");
        }
        self.phase.reach(Phase::Ending);
        connections.shutdown().await;
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.phase.reach(Phase::Ending);
        if let Some(accepting) = self.accepting.take() {
            accepting.abort(); // its connections end with it
        }
    }
}

/// Ends a server at once, also while its graceful shutdown runs.
#[derive(Clone)]
pub struct Stopper(Arc<PhaseSetter>);

impl Stopper {
    /// Closes everything now.
    pub fn stop(&self) {
        self.0.reach(Phase::Ending);
    }
}

async fn resolve(options: &ServerOptions) -> Result<SocketAddr, StartError> {
    let refuse = |cause| StartError::Address { address: options.listen.clone(), cause };
    let mut found = tokio::net::lookup_host(&options.listen).await.map_err(refuse)?;
    let address = found.next().ok_or_else(|| refuse(io::ErrorKind::NotFound.into()))?;
    if !address.ip().is_loopback() && !options.insecure {
        return Err(StartError::Insecure { address });
    }
    Ok(address)
}

fn listen(address: SocketAddr, options: &ServerOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if let Some(bytes) = options.socket_buffer_bytes {
        // Accepted sockets inherit both.
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the server drains; answers its open connections.
async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    admission: Admission,
    mut phase: PhaseWatch,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let refusals = Arc::new(tokio::sync::Semaphore::new(REFUSALS_AT_ONCE));
    let watch = phase.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = phase.reached(Phase::Draining) => return connections,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => match admission.admit(peer.ip(), |ip| shared.arrive(ip)) {
                Ok(seat) => {
                    let (shared, watch) = (Arc::clone(&shared), watch.clone());
                    connections.spawn(native::serve(socket, peer, seat, shared, watch));
                }
                Err(pushback) => {
                    debug!(%peer, %pushback, "connection refused");
                    if let Ok(turn) = Arc::clone(&refusals).try_acquire_owned() {
                        connections.spawn(async move {
                            native::refuse(socket, pushback).await;
                            drop(turn);
                        });
                    }
                }
            },
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "accepting pauses");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a defect; others are not affected");
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::Interrupted)
}
