//! What a request uses of each rate.

use crate::types::Resource;

/// Which way records go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// To the broker.
    #[default]
    Produce,
    /// From the broker.
    Fetch,
}

impl Direction {
    /// The rate that counts its bytes.
    pub fn bytes(self) -> Resource {
        match self {
            Direction::Produce => Resource::ProduceBytes,
            Direction::Fetch => Resource::FetchBytes,
        }
    }
}

/// What is charged at once. A part that is 0 is not charged, so that what the header of a request
/// tells and what its body tells can be charged one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Which way bytes and records go.
    pub direction: Direction,
    /// Bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// Requests.
    pub requests: u64,
    /// Connections opened.
    pub connections: u64,
    /// Partitions created or deleted.
    pub partitions: u64,
}

impl Cost {
    /// Nothing at all.
    pub const NONE: Cost = Cost {
        direction: Direction::Produce,
        bytes: 0,
        records: 0,
        requests: 0,
        connections: 0,
        partitions: 0,
    };

    /// How much of `resource` this is; 0 for levels, which are held and not charged.
    pub fn of(&self, resource: Resource) -> u64 {
        use Direction::{Fetch, Produce};
        match (resource, self.direction) {
            (Resource::ProduceBytes, Produce) | (Resource::FetchBytes, Fetch) => self.bytes,
            (Resource::ProduceRecords, Produce) | (Resource::FetchRecords, Fetch) => self.records,
            (Resource::Requests, _) => self.requests,
            (Resource::ConnectionRate, _) => self.connections,
            (Resource::PartitionMutations, _) => self.partitions,
            _ => 0,
        }
    }

    /// The part that is given back when nothing had an effect: bytes and records. A request was
    /// still made.
    pub fn refundable(self) -> Cost {
        Cost { requests: 0, connections: 0, partitions: 0, ..self }
    }
}
