//! Quotas as text: whom one belongs to, what it limits, and by how much. Every front end, the
//! catalog and the command line write and read these forms and no others.
//!
//! | entity | applies to |
//! |---|---|
//! | `broker` | everybody together |
//! | `principal/NAME` | an authenticated principal; `anonymous` until there is authentication |
//! | `user/NAME/client/NAME` | a client id of a principal, instead of `client/NAME` |
//! | `client/NAME` | a client id |
//! | `topic/NAME` | a topic |
//! | `principal/NAME/topic/NAME` | what a principal does to a topic |
//! | `group/NAME` | a consumer group |
//! | `ip/ADDRESS` | an address |
//!
//! A NAME is one name, `shop*` for all that begin so *together*, or `<default>` for every single
//! one that has no quota of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Class, GroupId, TopicName, parse_bytes};

/// Which names a quota is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// Each name that has no quota of its own.
    Default,
    /// All names that begin so, together.
    Prefix(String),
    /// This name.
    Exact(String),
}

impl Match {
    /// Whether a name is meant.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Match::Default => true,
            Match::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Match::Exact(exact) => name == exact,
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Default => f.write_str(DEFAULT),
            Match::Prefix(prefix) => write!(f, "{prefix}*"),
            Match::Exact(exact) => f.write_str(exact),
        }
    }
}

const DEFAULT: &str = "<default>";

/// Whom a quota belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaEntity {
    /// The whole broker.
    Broker,
    /// An address.
    Ip(Match),
    /// A principal.
    Principal(Match),
    /// A client id.
    Client(Match),
    /// A client id of a principal.
    User {
        /// The principal.
        principal: Match,
        /// The client id.
        client: Match,
    },
    /// A topic.
    Topic(Match),
    /// A principal's use of a topic.
    PrincipalTopic {
        /// The principal.
        principal: Match,
        /// The topic.
        topic: Match,
    },
    /// A consumer group.
    Group(Match),
}

impl fmt::Display for QuotaEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaEntity::Broker => f.write_str("broker"),
            QuotaEntity::Ip(ip) => write!(f, "ip/{ip}"),
            QuotaEntity::Principal(principal) => write!(f, "principal/{principal}"),
            QuotaEntity::Client(client) => write!(f, "client/{client}"),
            QuotaEntity::User { principal, client } => {
                write!(f, "user/{principal}/client/{client}")
            }
            QuotaEntity::Topic(topic) => write!(f, "topic/{topic}"),
            QuotaEntity::PrincipalTopic { principal, topic } => {
                write!(f, "principal/{principal}/topic/{topic}")
            }
            QuotaEntity::Group(group) => write!(f, "group/{group}"),
        }
    }
}

/// Why a quota was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// The text names no entity.
    #[error(
        "{text:?} names nothing that can have a quota: {reason}; write broker, ip/ADDRESS, \
         principal/NAME, client/NAME, user/NAME/client/NAME, topic/NAME, \
         principal/NAME/topic/NAME or group/NAME, where NAME may end in * or be <default>"
    )]
    Entity {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No setting has this name.
    #[error("no quota setting is called {key:?}; they are {}", QuotaLimits::KEYS.join(", "))]
    UnknownKey {
        /// The name that was given.
        key: String,
    },
    /// The value does not fit the setting.
    #[error("{key} = {value:?}: {reason}")]
    Value {
        /// The setting.
        key: String,
        /// What was given.
        value: String,
        /// What would fit.
        reason: String,
    },
    /// Nobody of this kind uses such a thing.
    #[error("{entity} cannot be limited in {key}")]
    Meaningless {
        /// Whose quota it is.
        entity: String,
        /// The setting.
        key: &'static str,
    },
}

impl FromStr for QuotaEntity {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<QuotaEntity, QuotaError> {
        let parsed = match text.split_once('/') {
            None if text == "broker" => Ok(QuotaEntity::Broker),
            Some(("ip", name)) => matching(name, address).map(QuotaEntity::Ip),
            Some(("client", name)) => matching(name, free).map(QuotaEntity::Client),
            Some(("group", name)) => matching(name, free).map(QuotaEntity::Group),
            Some(("topic", name)) => matching(name, topic).map(QuotaEntity::Topic),
            Some(("user", names)) => user(names),
            Some(("principal", names)) => match names.rsplit_once("/topic/") {
                Some(names) => principal_topic(names),
                None => matching(names, free).map(QuotaEntity::Principal),
            },
            _ => Err("no such kind".to_owned()),
        };
        parsed.map_err(|reason| QuotaError::Entity { text: text.to_owned(), reason })
    }
}

fn user(names: &str) -> Result<QuotaEntity, String> {
    let (principal, client) =
        names.split_once("/client/").ok_or("a user is named together with a client")?;
    Ok(QuotaEntity::User { principal: matching(principal, free)?, client: matching(client, free)? })
}

fn principal_topic((principal, name): (&str, &str)) -> Result<QuotaEntity, String> {
    let (principal, topic) = (matching(principal, free)?, matching(name, topic)?);
    Ok(QuotaEntity::PrincipalTopic { principal, topic })
}

/// Reads a NAME; `exact` gives a full name its one spelling, or says what is wrong.
fn matching(text: &str, exact: fn(&str) -> Result<String, String>) -> Result<Match, String> {
    if text == DEFAULT {
        return Ok(Match::Default);
    }
    let Some(prefix) = text.strip_suffix('*') else {
        return exact(text).map(Match::Exact);
    };
    if !prefix.is_empty() {
        free(prefix)?;
    }
    Ok(Match::Prefix(prefix.to_owned()))
}

/// Client ids, principals and groups: what a group may be called, and no `*`.
fn free(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return Err("* stands only at the end".to_owned());
    }
    text.parse::<GroupId>().map(String::from).map_err(|e| e.to_string())
}

fn topic(text: &str) -> Result<String, String> {
    text.parse::<TopicName>().map(String::from).map_err(|e| e.to_string())
}

fn address(text: &str) -> Result<String, String> {
    text.parse::<IpAddr>().map(|ip| ip.to_canonical().to_string()).map_err(|e| e.to_string())
}

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

impl QuotaEntity {
    /// Whether a limit of this resource means something here. Stored bytes belong to topics, not
    /// to whoever wrote them; nobody connects to a topic; a group only reads.
    pub fn allows(&self, resource: Resource) -> bool {
        use Resource::{FetchBytes, FetchRecords, ProduceBytes, ProduceRecords, StorageBytes};
        let carries = matches!(resource, ProduceBytes | FetchBytes | ProduceRecords | FetchRecords);
        match self {
            QuotaEntity::Broker => true,
            QuotaEntity::Ip(_)
            | QuotaEntity::Principal(_)
            | QuotaEntity::Client(_)
            | QuotaEntity::User { .. } => resource != StorageBytes,
            QuotaEntity::Topic(_) => carries || resource == StorageBytes,
            QuotaEntity::PrincipalTopic { .. } => carries,
            QuotaEntity::Group(_) => matches!(resource, FetchBytes | FetchRecords),
        }
    }

    /// Refuses limits that mean nothing here.
    pub fn check(&self, limits: &QuotaLimits) -> Result<(), QuotaError> {
        match limits.limits.keys().find(|resource| !self.allows(**resource)) {
            None => Ok(()),
            Some(resource) => {
                Err(QuotaError::Meaningless { entity: self.to_string(), key: resource.name() })
            }
        }
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

/// One limit and what is used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// Whose limit it is: a name of its own where the record has `<default>`.
    pub entity: QuotaEntity,
    /// What is limited.
    pub resource: Resource,
    /// What is used of it: units in the last second, or held now.
    pub used: u64,
    /// The limit; `u64::MAX` = none any more.
    pub limit: u64,
    /// Refusals.
    pub refused: u64,
    /// Refusals a dry run would have made.
    pub would_throttle: u64,
    /// Among how many it is divided.
    pub members: u32,
}

/// A quota and what is used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaDescription {
    /// Whose it is.
    pub entity: QuotaEntity,
    /// Its settings.
    pub limits: QuotaLimits,
    /// Use of its limits: several entries for `<default>` and for a prefix's siblings.
    pub used: Vec<QuotaUse>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entity(text: &str) -> QuotaEntity {
        text.parse().expect(text)
    }

    #[test]
    fn entities_read_back() {
        for text in [
            "broker",
            "ip/10.0.0.7",
            "ip/10.0.*",
            "principal/anonymous",
            "principal/<default>",
            "user/anonymous/client/shop*",
            "user/<default>/client/<default>",
            "client/shop/eu-1",
            "client/*",
            "topic/orders.v1",
            "topic/orders-*",
            "principal/alice/topic/orders",
            "group/my group",
        ] {
            assert_eq!(entity(text).to_string(), text);
        }
        assert_eq!(entity("ip/::ffff:10.0.0.7").to_string(), "ip/10.0.0.7");
    }

    #[test]
    fn names_that_could_never_match_are_refused() {
        for text in [
            "",
            "brokers",
            "broker/1",
            "client/",
            "client",
            "topic/a b",
            "topic/..",
            "ip/localhost",
            "client/a*b",
            "user/alice",
            "user//client/x",
            "group/a\nb",
            "principal/a/topic/",
        ] {
            assert!(text.parse::<QuotaEntity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_covers_all_that_begin_so_and_the_default_everybody() {
        assert!(Match::Prefix("shop".to_owned()).covers("shop-1"));
        assert!(!Match::Prefix("shop".to_owned()).covers("sho"));
        assert!(!Match::Exact("shop".to_owned()).covers("shop-1"));
        assert!(Match::Default.covers("anybody"));
    }

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

    #[test]
    fn stored_bytes_belong_to_topics_and_the_broker_alone() {
        let mut limits = QuotaLimits::default();
        limits.set("storage_bytes", "1GiB").expect("a key");
        for (text, allowed) in [
            ("broker", true),
            ("topic/orders", true),
            ("topic/o*", true),
            ("client/a", false),
            ("principal/a", false),
            ("principal/a/topic/b", false),
            ("group/g", false),
        ] {
            assert_eq!(entity(text).check(&limits).is_ok(), allowed, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_was_parsed_is_written_as_it_was_read(text in "(client|topic|group|ip|principal|user)/[a-z0-9*<>./]{0,20}") {
            if let Ok(parsed) = text.parse::<QuotaEntity>() {
                prop_assert_eq!(parsed.to_string().parse::<QuotaEntity>(), Ok(parsed));
            }
        }
    }
}
