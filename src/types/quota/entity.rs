//! Whom a quota belongs to.
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

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{QuotaError, QuotaLimits, Resource};
use crate::types::{GroupId, TopicName};

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
