//! What a topic is told: one table of settings, whatever front end sets them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::quantity::{InvalidQuantity, parse_bytes, parse_duration};

mod limits;

pub use limits::{BacklogAction, BacklogLimit, OnFull, Protect};

/// When an append counts as visible and is acknowledged by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// After an `fdatasync` that covers it.
    #[default]
    Fsync,
    /// After the write; a background sync at most this many milliseconds later.
    Interval {
        /// Largest age of an unsynced write in milliseconds.
        ms: u32,
    },
    /// After the write; the kernel decides when it reaches the disk.
    Os,
}

/// Who writes a record's timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampType {
    /// The producer.
    #[default]
    Create,
    /// The broker, at append.
    Append,
}

/// What producers are advised to use; the broker never re-encodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompressionHint {
    /// No advice.
    #[default]
    Producer,
    /// No compression.
    None,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// Settings of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// When an append is visible and acknowledged by default.
    pub durability: Durability,
    /// A segment is rolled before it grows past this many bytes.
    pub segment_bytes: u64,
    /// Sealed segments older than this many milliseconds are deleted; `None` = kept.
    pub retention_ms: Option<u64>,
    /// Oldest sealed segments are deleted while a *partition* holds more bytes; `None` = kept.
    pub retention_bytes: Option<u64>,
    /// Limit of the whole *topic* in bytes; `None` = no limit.
    pub max_bytes: Option<u64>,
    /// Limit of the whole topic in segments, the active ones counted; `None` = no limit.
    pub max_segments: Option<u32>,
    /// Limit of the age of its records in milliseconds; `None` = no limit.
    pub max_age_ms: Option<u64>,
    /// What happens at `max_bytes`.
    pub on_full: OnFull,
    /// Whose unread records no retention deletes.
    pub protect: Protect,
    /// How far which groups may fall behind.
    pub backlog: Vec<BacklogLimit>,
    /// Largest record batch in bytes.
    pub max_message_bytes: u32,
    /// Who writes timestamps.
    pub timestamp_type: TimestampType,
    /// Advice to producers.
    pub compression: CompressionHint,
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            durability: Durability::Fsync,
            segment_bytes: 128 << 20,
            retention_ms: Some(7 * 86_400_000),
            retention_bytes: None,
            max_bytes: None,
            max_segments: None,
            max_age_ms: None,
            on_full: OnFull::Reject,
            protect: Protect::None,
            backlog: Vec::new(),
            max_message_bytes: 1 << 20,
            timestamp_type: TimestampType::Create,
            compression: CompressionHint::Producer,
        }
    }
}

/// Smallest `segment_bytes`: one header region and some batches; tests use it to cross borders.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Largest `segment_bytes`: positions are u32 and maps are made at this size.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Largest `max_message_bytes`: half of the largest native frame.
pub const MESSAGE_BYTES_MAX: u32 = 8 << 20;

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("no topic setting is called {key:?}; the settings are {}", TopicConfig::KEYS.join(", "))]
    UnknownKey {
        /// The name that was given.
        key: String,
    },
    /// The value does not fit the setting.
    #[error("{key} = {value:?}: {reason}")]
    Value {
        /// The setting.
        key: String,
        /// The value that was given.
        value: String,
        /// What would fit.
        reason: String,
    },
}

impl TopicConfig {
    /// Names of all settings, in the order they are shown.
    pub const KEYS: [&'static str; 13] = [
        "durability",
        "segment_bytes",
        "retention_ms",
        "retention_bytes",
        "max_bytes",
        "max_segments",
        "max_age_ms",
        "on_full",
        "protect",
        "backlog",
        "max_message_bytes",
        "timestamp_type",
        "compression",
    ];

    /// Sets one setting from text: sizes as `64KiB`, durations as `7d`, `none` for no limit,
    /// `durability` = `fsync | os | interval | interval:250ms`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let refuse = |reason: String| ConfigError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            reason,
        };
        let quantity = |e: InvalidQuantity| refuse(e.to_string());
        match key {
            "durability" => self.durability = parse_durability(value).map_err(refuse)?,
            "segment_bytes" => {
                let bytes = parse_bytes(value).map_err(quantity)?;
                if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
                    return Err(refuse("4KiB to 1GiB are allowed".to_owned()));
                }
                self.segment_bytes = bytes;
            }
            "retention_ms" => self.retention_ms = limit(value, parse_ms).map_err(quantity)?,
            "retention_bytes" => {
                self.retention_bytes = limit(value, parse_bytes).map_err(quantity)?
            }
            "max_bytes" => self.max_bytes = limit(value, parse_bytes).map_err(quantity)?,
            "max_segments" => self.max_segments = parse_segments(value).map_err(refuse)?,
            "max_age_ms" => self.max_age_ms = limit(value, parse_ms).map_err(quantity)?,
            "on_full" => self.on_full = OnFull::read(value).map_err(refuse)?,
            "protect" => self.protect = Protect::read(value).map_err(refuse)?,
            "backlog" => self.backlog = BacklogLimit::read_all(value).map_err(refuse)?,
            "max_message_bytes" => {
                let bytes = parse_bytes(value).map_err(quantity)?;
                let fits =
                    u32::try_from(bytes).ok().filter(|b| (1024..=MESSAGE_BYTES_MAX).contains(b));
                self.max_message_bytes =
                    fits.ok_or_else(|| refuse("1KiB to 8MiB are allowed".to_owned()))?;
            }
            "timestamp_type" => {
                self.timestamp_type = parse_timestamp_type(value).map_err(refuse)?
            }
            "compression" => self.compression = parse_compression(value).map_err(refuse)?,
            _ => return Err(ConfigError::UnknownKey { key: key.to_owned() }),
        }
        Ok(())
    }

    /// Rules between settings, and with the number of partitions; each setting alone was checked
    /// when it was set.
    pub fn check(&self, partitions: u32) -> Result<(), String> {
        let message = u64::from(self.max_message_bytes);
        if let Some(bytes) = self.max_bytes.filter(|bytes| *bytes < message) {
            return Err(format!("max_bytes = {bytes} is less than max_message_bytes = {message}"));
        }
        if let Some(segments) = self.max_segments.filter(|segments| *segments < partitions) {
            return Err(format!(
                "max_segments = {segments} is less than one for each of {partitions} partitions"
            ));
        }
        let drops = [
            ("max_segments", self.max_segments.is_some()),
            ("max_age_ms", self.max_age_ms.is_some()),
        ];
        match drops.iter().find(|(_, set)| *set && self.on_full != OnFull::DropOldest) {
            Some((key, _)) => {
                Err(format!("{key} deletes data: it goes only with on_full = drop_oldest"))
            }
            None => Ok(()),
        }
    }

    /// All settings as text that `set` reads back, by name.
    pub fn entries(&self) -> BTreeMap<&'static str, String> {
        let optional = |value: Option<u64>| value.map_or("none".to_owned(), |v| v.to_string());
        BTreeMap::from([
            ("durability", self.durability.to_string()),
            ("segment_bytes", self.segment_bytes.to_string()),
            ("retention_ms", optional(self.retention_ms)),
            ("retention_bytes", optional(self.retention_bytes)),
            ("max_bytes", optional(self.max_bytes)),
            ("max_segments", optional(self.max_segments.map(u64::from))),
            ("max_age_ms", optional(self.max_age_ms)),
            ("on_full", self.on_full.to_string()),
            ("protect", self.protect.to_string()),
            ("backlog", BacklogLimit::show_all(&self.backlog)),
            ("max_message_bytes", self.max_message_bytes.to_string()),
            ("timestamp_type", self.timestamp_type.to_string()),
            ("compression", self.compression.to_string()),
        ])
    }
}

fn limit<T, E>(value: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<Option<T>, E> {
    if value == "none" { Ok(None) } else { parse(value).map(Some) }
}

fn parse_ms(text: &str) -> Result<u64, InvalidQuantity> {
    parse_duration(text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn parse_segments(value: &str) -> Result<Option<u32>, String> {
    let parse = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0).ok_or(());
    limit(value, parse).map_err(|()| "a number from 1 on, or none".to_owned())
}

fn parse_timestamp_type(value: &str) -> Result<TimestampType, String> {
    match value {
        "create" => Ok(TimestampType::Create),
        "append" => Ok(TimestampType::Append),
        _ => Err("one of create, append".to_owned()),
    }
}

fn parse_compression(value: &str) -> Result<CompressionHint, String> {
    match value {
        "producer" => Ok(CompressionHint::Producer),
        "none" => Ok(CompressionHint::None),
        "gzip" => Ok(CompressionHint::Gzip),
        "snappy" => Ok(CompressionHint::Snappy),
        "lz4" => Ok(CompressionHint::Lz4),
        "zstd" => Ok(CompressionHint::Zstd),
        _ => Err("one of producer, none, gzip, snappy, lz4, zstd".to_owned()),
    }
}

/// `interval` alone means this (DESIGN D6: bounded loss).
const INTERVAL_MS_DEFAULT: u32 = 100;

fn parse_durability(value: &str) -> Result<Durability, String> {
    match value.split_once(':') {
        None if value == "fsync" => Ok(Durability::Fsync),
        None if value == "os" => Ok(Durability::Os),
        None if value == "interval" => Ok(Durability::Interval { ms: INTERVAL_MS_DEFAULT }),
        Some(("interval", period)) => {
            let period = parse_duration(period).map_err(|e| e.to_string())?;
            let ms = u32::try_from(period.as_millis()).ok().filter(|ms| (1..=60_000).contains(ms));
            ms.map(|ms| Durability::Interval { ms }).ok_or("1ms to 60s are allowed".to_owned())
        }
        _ => Err("one of fsync, os, interval, interval:250ms".to_owned()),
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Fsync => f.write_str("fsync"),
            Durability::Interval { ms } => write!(f, "interval:{ms}ms"),
            Durability::Os => f.write_str("os"),
        }
    }
}

impl fmt::Display for TimestampType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimestampType::Create => "create",
            TimestampType::Append => "append",
        })
    }
}

impl fmt::Display for CompressionHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CompressionHint::Producer => "producer",
            CompressionHint::None => "none",
            CompressionHint::Gzip => "gzip",
            CompressionHint::Snappy => "snappy",
            CompressionHint::Lz4 => "lz4",
            CompressionHint::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back() {
        let mut config = TopicConfig::default();
        for (key, value) in [
            ("durability", "interval:250ms"),
            ("max_bytes", "10GiB"),
            ("max_segments", "40"),
            ("max_age_ms", "1h"),
            ("retention_ms", "none"),
            ("on_full", "drop_oldest"),
            ("protect", "groups(email,fraud)"),
            ("backlog", "email:records=100000,seconds=60,action=reject;fraud:bytes=1GiB"),
        ] {
            config.set(key, value).expect(key);
        }
        let mut copy = TopicConfig::default();
        for (key, value) in config.entries() {
            copy.set(key, &value).expect(key);
        }
        assert_eq!(copy, config);
        assert_eq!(config.entries().len(), TopicConfig::KEYS.len());
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let mut config = TopicConfig::default();
        for (key, value) in
            [("on_full", "explode"), ("max_segments", "0"), ("protect", "x"), ("backlog", "x")]
        {
            assert!(matches!(config.set(key, value), Err(ConfigError::Value { .. })), "{key}");
        }
        assert!(matches!(config.set("retention", "1d"), Err(ConfigError::UnknownKey { .. })));
        assert_eq!(config, TopicConfig::default());
    }

    #[test]
    fn what_deletes_goes_only_with_drop_oldest_and_a_limit_takes_one_batch() {
        let check = |partitions, settings: &[(&str, &str)]| {
            let mut config = TopicConfig::default();
            settings.iter().for_each(|(key, value)| config.set(key, value).expect(key));
            config.check(partitions)
        };
        assert_eq!(check(1, &[]), Ok(()));
        assert_eq!(check(1, &[("max_bytes", "1MiB")]), Ok(()));
        assert!(check(1, &[("max_bytes", "1000KiB")]).is_err());
        for key in ["max_segments", "max_age_ms"] {
            for policy in ["reject", "throttle", "hold"] {
                assert!(check(1, &[(key, "9"), ("on_full", policy)]).is_err(), "{key} {policy}");
            }
            assert_eq!(check(9, &[(key, "9"), ("on_full", "drop_oldest")]), Ok(()));
        }
        assert!(check(10, &[("max_segments", "9"), ("on_full", "drop_oldest")]).is_err());
    }
}
