//! What an operator may set on the server. Every bound says why it has its size.

use serde::{Deserialize, Serialize};

/// Settings of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// HOST:PORT of the native listener; port 0 picks a free one.
    pub listen: String,
    /// Allows a listener beyond loopback though nobody is authenticated.
    pub insecure: bool,
    /// Connections at once. Each costs a file handle and some KiB while idle.
    pub connections_max: usize,
    /// Connections at once from one address, so that one machine cannot take all.
    pub connections_per_ip_max: usize,
    /// Connections beyond these and beyond quotas, for heartbeats, commits, deletes and questions
    /// what limits whom: operators get in when everybody is in.
    pub system_connections: usize,
    /// Time for HELLO after the connection was accepted.
    pub handshake_timeout_ms: u64,
    /// A connection without any frame for so long is closed.
    pub idle_timeout_ms: u64,
    /// A frame that was started may take this long ...
    pub frame_grace_ms: u64,
    /// ... and then has to have arrived at this rate on average: slower is an attack or dead.
    pub frame_bytes_per_s_min: u64,
    /// A connection that takes none of its answers for so long is closed: what is queued for it
    /// holds memory and segments.
    pub write_stall_ms: u64,
    /// Largest frame taken after HELLO: two of the largest batches a topic may allow.
    pub frame_bytes_max: u32,
    /// Largest control part taken; it is decoded into structs of several times its size.
    pub control_bytes_max: u32,
    /// Requests of one connection that may wait at once; produce is limited in bytes instead.
    pub requests_max: usize,
    /// Publishers of one connection.
    pub publishers_max: usize,
    /// Subscriptions of one connection; each is a task of about one KiB.
    pub subscriptions_max: usize,
    /// While this many bytes of answers are queued no further request is read: only a client that
    /// does not read its answers gets there.
    pub outbox_bytes_max: usize,
    /// Bytes of one BATCHES frame: other subscriptions of the connection get their turn after it.
    pub push_bytes: usize,
    /// Bytes of BATCHES queued for one connection at once: enough to keep a fast link busy.
    pub push_queue_bytes: usize,
    /// Part of the serving threads' time that deliveries keep while one waits, in per cent: what is
    /// stored drains first.
    pub delivery_percent: u64,
    /// Free receive buffers that are kept for reuse by all connections together.
    pub receive_pool_bytes: usize,
    /// Size of the kernel's socket buffers; `None` leaves it to the kernel, which adapts.
    pub socket_buffer_bytes: Option<usize>,
    /// Longest time a graceful shutdown waits for requests under way.
    pub drain_ms: u64,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            listen: "127.0.0.1:7600".to_owned(),
            insecure: false,
            connections_max: 10_000,
            connections_per_ip_max: 5_000,
            system_connections: 64,
            handshake_timeout_ms: 5_000,
            idle_timeout_ms: 600_000,
            frame_grace_ms: 10_000,
            frame_bytes_per_s_min: 1_024,
            write_stall_ms: 60_000,
            frame_bytes_max: 16 << 20,
            control_bytes_max: 4 << 20,
            requests_max: 256,
            publishers_max: 256,
            subscriptions_max: 4_096,
            outbox_bytes_max: 1 << 20,
            push_bytes: 256 << 10,
            push_queue_bytes: 2 << 20,
            delivery_percent: 50,
            receive_pool_bytes: 32 << 20,
            socket_buffer_bytes: None,
            drain_ms: 8_000,
        }
    }
}
