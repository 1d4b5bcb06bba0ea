//! What is limited, and by how much.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::QuotaError;
use crate::types::{Class, parse_bytes};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Bytes of produce requests per second.
    ProduceBytes,
    /// Bytes of records delivered per second.
    FetchBytes,
    /// Records produced per second.
    ProduceRecords,
    /// Records delivered per second.
    FetchRecords,
    /// Requests per second, but those that take load away.
    Requests,
    /// New connections per second.
    ConnectionRate,
    /// Partitions created or deleted per second.
    PartitionMutations,
    /// Connections at a time.
    Connections,
    /// Bytes of produce requests that are not answered yet.
    InflightBytes,
    /// Bytes stored.
    StorageBytes,
}

impl Resource {
    /// All resources: first the rates, then the levels.
    pub const ALL: [Resource; 10] = [
        Resource::ProduceBytes,
        Resource::FetchBytes,
        Resource::ProduceRecords,
        Resource::FetchRecords,
        Resource::Requests,
        Resource::ConnectionRate,
        Resource::PartitionMutations,
        Resource::Connections,
        Resource::InflightBytes,
        Resource::StorageBytes,
    ];

    /// The name as settings and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Resource::ProduceBytes => "produce_bytes",
            Resource::FetchBytes => "fetch_bytes",
            Resource::ProduceRecords => "produce_records",
            Resource::FetchRecords => "fetch_records",
            Resource::Requests => "requests",
            Resource::ConnectionRate => "connection_rate",
            Resource::PartitionMutations => "partition_mutations",
            Resource::Connections => "connections",
            Resource::InflightBytes => "inflight_bytes",
            Resource::StorageBytes => "storage_bytes",
        }
    }

    /// Whether it is counted per second rather than held at a time.
    pub fn is_rate(self) -> bool {
        !matches!(self, Resource::Connections | Resource::InflightBytes | Resource::StorageBytes)
    }

    /// Unit of its limit.
    pub fn unit(self) -> &'static str {
        match self {
            Resource::ProduceBytes | Resource::FetchBytes => "bytes/s",
            Resource::ProduceRecords | Resource::FetchRecords => "records/s",
            Resource::Requests => "requests/s",
            Resource::ConnectionRate => "connections/s",
            Resource::PartitionMutations => "partitions/s",
            Resource::Connections => "connections",
            Resource::InflightBytes | Resource::StorageBytes => "bytes",
        }
    }

    fn is_bytes(self) -> bool {
        matches!(self.unit(), "bytes" | "bytes/s")
    }
}

impl FromStr for Resource {
    type Err = QuotaError;

    fn from_str(name: &str) -> Result<Resource, QuotaError> {
        let known = Resource::ALL.into_iter().find(|resource| resource.name() == name);
        known.ok_or_else(|| QuotaError::UnknownKey { key: name.to_owned() })
    }
}

/// What a quota does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QuotaMode {
    /// It limits.
    #[default]
    Enforce,
    /// It only counts what it would have refused.
    DryRun,
}

/// Limits of one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaLimits {
    /// The limits; what is not in it is not limited.
    pub limits: BTreeMap<Resource, u64>,
    /// Share of what is not enough, beside the others' weights.
    pub weight: u32,
    /// The most important class it may ask for.
    pub class_max: Option<Class>,
    /// Whether it limits or counts.
    pub mode: QuotaMode,
}

/// Weight of whoever has none of its own.
pub const QUOTA_WEIGHT_DEFAULT: u32 = 100;
const WEIGHT_MAX: u32 = 1_000;

impl Default for QuotaLimits {
    fn default() -> QuotaLimits {
        QuotaLimits {
            limits: BTreeMap::new(),
            weight: QUOTA_WEIGHT_DEFAULT,
            class_max: None,
            mode: QuotaMode::Enforce,
        }
    }
}

impl QuotaLimits {
    /// Names of all settings, in the order they are shown.
    pub const KEYS: [&'static str; 13] = [
        "produce_bytes",
        "fetch_bytes",
        "produce_records",
        "fetch_records",
        "requests",
        "connection_rate",
        "partition_mutations",
        "connections",
        "inflight_bytes",
        "storage_bytes",
        "weight",
        "class_max",
        "mode",
    ];

    /// Sets one setting from text: a size as `10MiB` (or `10MiB/s`), a count as `500`, a weight of
    /// 1 to 1000, a class as `p1`, a mode as `enforce` or `dry_run`; `none` takes a limit away.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), QuotaError> {
        let refuse = |reason: String| QuotaError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            reason,
        };
        match key {
            "weight" => {
                let weight = value.parse().ok().filter(|w| (1..=WEIGHT_MAX).contains(w));
                self.weight = weight.ok_or_else(|| refuse("1 to 1000 are allowed".to_owned()))?;
            }
            "class_max" => {
                self.class_max = match value {
                    "none" => None,
                    _ => Some(value.parse::<Class>().map_err(|e| refuse(e.to_string()))?),
                };
            }
            "mode" => {
                self.mode = match value {
                    "enforce" => QuotaMode::Enforce,
                    "dry_run" => QuotaMode::DryRun,
                    _ => return Err(refuse("one of enforce, dry_run".to_owned())),
                };
            }
            _ => {
                let resource: Resource = key.parse()?;
                match amount(resource, value).map_err(refuse)? {
                    Some(limit) => self.limits.insert(resource, limit),
                    None => self.limits.remove(&resource),
                };
            }
        }
        Ok(())
    }

    /// What is set, as text that `set` reads back, by name.
    pub fn entries(&self) -> BTreeMap<&'static str, String> {
        let limits = self.limits.iter().map(|(r, limit)| (r.name(), limit.to_string()));
        let mut entries: BTreeMap<&'static str, String> = limits.collect();
        if self.weight != QUOTA_WEIGHT_DEFAULT {
            entries.insert("weight", self.weight.to_string());
        }
        if let Some(class) = self.class_max {
            entries.insert("class_max", class.to_string());
        }
        if self.mode == QuotaMode::DryRun {
            entries.insert("mode", "dry_run".to_owned());
        }
        entries
    }
}

fn amount(resource: Resource, value: &str) -> Result<Option<u64>, String> {
    if value == "none" {
        return Ok(None);
    }
    let number = if resource.is_rate() { value.strip_suffix("/s").unwrap_or(value) } else { value };
    let parsed = if resource.is_bytes() {
        parse_bytes(number).map_err(|e| e.to_string())
    } else {
        number.replace('_', "").parse().map_err(|_| format!("a count of {}", resource.unit()))
    };
    // The largest number stands for "no limit" where limits are enforced.
    match parsed? {
        u64::MAX => Err("write none for no limit".to_owned()),
        limit => Ok(Some(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_and_none_takes_a_limit_away() {
        let mut limits = QuotaLimits::default();
        for (key, value) in [
            ("produce_bytes", "10MiB/s"),
            ("requests", "1_000/s"),
            ("connections", "50"),
            ("storage_bytes", "1GiB"),
            ("weight", "300"),
            ("class_max", "p2"),
            ("mode", "dry_run"),
        ] {
            limits.set(key, value).expect(key);
        }
        let mut copy = QuotaLimits::default();
        for (key, value) in limits.entries() {
            copy.set(key, &value).expect(key);
        }
        assert_eq!(copy, limits);
        assert_eq!(copy.limits[&Resource::ProduceBytes], 10 << 20);
        copy.set("produce_bytes", "none").expect("a key");
        assert!(!copy.entries().contains_key("produce_bytes"));
    }

    #[test]
    fn values_that_do_not_fit_are_refused_and_change_nothing() {
        let mut limits = QuotaLimits::default();
        for (key, value) in [
            ("produce_bytes", "fast"),
            ("requests", "1KiB"),
            ("connections", "5/s"),
            ("weight", "0"),
            ("weight", "1001"),
            ("class_max", "p0"),
            ("mode", "on"),
            ("requests", "18446744073709551615"),
        ] {
            let refused = limits.set(key, value).expect_err(value);
            assert!(matches!(refused, QuotaError::Value { .. }), "{refused}");
        }
        let unknown = limits.set("bytes", "1").expect_err("no such key");
        assert!(unknown.to_string().contains("produce_bytes"), "{unknown}");
        assert_eq!(limits, QuotaLimits::default());
    }

    #[test]
    fn keys_are_the_resources_and_three_more() {
        let names: Vec<_> = Resource::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(QuotaLimits::KEYS[..10], names[..]);
    }
}
