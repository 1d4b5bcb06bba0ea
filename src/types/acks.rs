//! What a producer asks for and what it got.

use std::fmt;

use serde::{Deserialize, Serialize};

/// When a produce request is to be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    /// As the topic's durability says (also Kafka's `acks=all`).
    #[default]
    Topic,
    /// Never: no answer is sent; nothing is promised.
    None,
    /// After the write call returned: survives a killed process, not a power cut.
    Os,
    /// After an `fdatasync` that covers the batch returned 0.
    Durable,
}

/// What an acknowledged batch survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityLevel {
    /// Nothing is promised (`acks=none`).
    None,
    /// In the page cache: survives a killed broker.
    Os,
    /// Covered by a successful `fdatasync`: survives a power cut.
    Durable,
}

impl fmt::Display for DurabilityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DurabilityLevel::None => "none",
            DurabilityLevel::Os => "os",
            DurabilityLevel::Durable => "durable",
        })
    }
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Acks::Topic => "topic",
            Acks::None => "none",
            Acks::Os => "os",
            Acks::Durable => "durable",
        })
    }
}

impl std::str::FromStr for Acks {
    type Err = String;
    fn from_str(text: &str) -> Result<Acks, String> {
        match text {
            "topic" => Ok(Acks::Topic),
            "none" => Ok(Acks::None),
            "os" => Ok(Acks::Os),
            "durable" => Ok(Acks::Durable),
            _ => Err(format!("{text:?} is not one of none, os, durable, topic")),
        }
    }
}
