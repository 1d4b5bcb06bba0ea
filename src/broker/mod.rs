//! What a topic means: catalog, partition handles, groups, flow. No sockets, no wire bytes.

pub mod groups;
