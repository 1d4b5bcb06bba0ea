//! The native protocol in front of the broker: the only place that sees both.

mod acks;
mod connection;
mod error;
mod fetch;
mod groups;
mod info;
mod kinds;
mod link;
mod publish;
mod quotas;
mod session;
mod subscription;
mod topics;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(super) use connection::{refuse, serve};

use self::acks::AckLine;
use super::ServerOptions;
use crate::broker::Broker;
use crate::broker::flow::{Place, Serving};
use crate::protocol::native::{BufferPool, FrameLimits};
use crate::types::Pushback;

/// What all connections share.
pub(super) struct Shared {
    broker: Broker,
    options: ServerOptions,
    pool: Arc<BufferPool>,
    /// The time of the threads that serve connections.
    serving: Serving,
    /// Connections with acks that leave at the end of a log writer's round.
    acks: Arc<AckLine>,
    /// Where clients find the broker when nobody set another address.
    address: SocketAddr,
}

impl Shared {
    pub(super) fn new(broker: Broker, options: ServerOptions, address: SocketAddr) -> Shared {
        let pool = BufferPool::new(options.receive_pool_bytes);
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        let serving = Serving::new(threads as u64, options.delivery_percent);
        let acks = AckLine::behind(&broker);
        Shared { broker, options, pool, serving, acks, address }
    }

    /// A place for a connection, of the quotas of its address.
    pub(super) fn arrive(&self, ip: IpAddr) -> Result<Place, Pushback> {
        self.broker.arrive(ip)
    }

    fn frame_limits(&self) -> FrameLimits {
        FrameLimits {
            frame_bytes_max: self.options.frame_bytes_max,
            control_bytes_max: self.options.control_bytes_max,
        }
    }
}

/// Name and version as HELLO tells them.
const SOFTWARE: &str = concat!("stoplog ", env!("CARGO_PKG_VERSION"));
