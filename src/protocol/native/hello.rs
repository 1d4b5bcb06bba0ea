//! HELLO: the first frame of a connection, both ways.

use super::frame::{Call, FrameType};

wire_struct! {
    /// What the client speaks and takes. Bytes of this layout never change, so that any two
    /// versions can agree or refuse each other.
    pub struct Request {
        /// Lowest protocol version the client speaks.
        pub version_min: u16,
        /// Highest protocol version the client speaks.
        pub version_max: u16,
        /// Feature bits the client wants; bits the broker does not know are left out of its answer.
        pub features: u64,
        /// Name of the client, for logs, quotas and `stoplog why`; at most 249 bytes.
        pub client_id: String,
        /// Name and version of the client library.
        pub software: String,
        /// Largest frame the client takes; at least 64 KiB.
        pub frame_bytes_max: u32,
    }
}

wire_struct! {
    /// What the two have agreed on.
    pub struct Response {
        /// The version of all frames after this one.
        pub version: u16,
        /// Feature bits that are on.
        pub features: u64,
        /// Identity of the data directory.
        pub cluster_id: String,
        /// Number of the node.
        pub node_id: i32,
        /// Changes with every start of the broker process.
        pub writer_id: String,
        /// Name and version of the broker.
        pub software: String,
        /// Largest frame the broker takes from now on.
        pub frame_bytes_max: u32,
        /// Requests that may run at once: PRODUCE and those answered at once (SUBSCRIBE to RESUME,
        /// publishers, PING) do not count.
        pub requests_max: u32,
        /// Publishers that may be open at once.
        pub publishers_max: u32,
        /// Subscriptions that may be open at once.
        pub subscriptions_max: u32,
        /// A connection without any frame for so long is closed; send PING before.
        pub idle_timeout_ms: u32,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::Hello;
    type Answer = Response;
}
