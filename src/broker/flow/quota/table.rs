//! Which quotas apply to whom.
//!
//! # Rules
//! - All levels apply at once, general before specific: broker, address, principal, client id (or
//!   client id of the principal, which replaces it); prefix of topics, topic, principal x topic;
//!   prefix of groups, group. An address, a principal and a client id have a prefix level too.
//! - A prefix is one limit for all its names together; of several the longest applies.
//! - Connections of an address, and their rate, are counted as they come: before anything is said,
//!   so that silence is no way in.
//! - Otherwise the record of the name applies, else `<default>`, to each name by itself.
//! - Pairs have one level: the record that is most specific in the principal, then in the rest.

use std::collections::HashMap;
use std::mem::discriminant;
use std::net::IpAddr;
use std::sync::Arc;

use crate::types::{GroupId, Match, QUOTA_WEIGHT_DEFAULT, QuotaEntity, QuotaLimits, TopicName};

/// Who does something, and what with.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The principal; `anonymous` without authentication.
    pub principal: &'a str,
    /// What the client calls itself.
    pub client: &'a str,
    /// Where it connects from.
    pub ip: IpAddr,
    /// Which levels are asked for.
    pub scope: Scope<'a>,
}

/// Levels that are charged together. No limit is in two scopes.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// What is known of a connection before it says anything: its address.
    Address,
    /// What the header of a request tells: broker, address, principal, client id.
    Connection,
    /// What its body tells: the topic.
    Topic(&'a TopicName),
    /// The group that is read for.
    Group(&'a GroupId),
}

/// All quotas; immutable, made anew with each edit.
#[derive(Debug, Default)]
pub struct QuotaTable {
    records: HashMap<QuotaEntity, Arc<QuotaLimits>>,
    /// Those of `records` that a name is not simply looked up for: prefixes and pairs with
    /// something else than two names. Few: people write them.
    patterns: Vec<QuotaEntity>,
}

/// One level that applies.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Whose limit it is: names where the record has names or `<default>`, else its prefixes.
    pub(super) key: QuotaEntity,
    /// The record that applies.
    pub(super) record: QuotaEntity,
    pub(super) limits: Arc<QuotaLimits>,
    /// Among whom the limit is divided: the name of this one, and its weight.
    pub(super) member: Option<(String, u32)>,
}

impl QuotaTable {
    /// A table of these records; of two for one entity the later one counts.
    pub fn new(records: impl IntoIterator<Item = (QuotaEntity, QuotaLimits)>) -> QuotaTable {
        let records: HashMap<_, _> =
            records.into_iter().map(|(entity, limits)| (entity, Arc::new(limits))).collect();
        let mut patterns: Vec<_> = records.keys().filter(|e| is_pattern(e)).cloned().collect();
        patterns.sort_unstable();
        QuotaTable { records, patterns }
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = (&QuotaEntity, &QuotaLimits)> {
        self.records.iter().map(|(entity, limits)| (entity, limits.as_ref()))
    }

    /// The levels that apply, general before specific.
    pub(super) fn path(&self, subject: &Subject<'_>) -> Vec<Step> {
        let mut path = Vec::new();
        let client = || (subject.client.to_owned(), self.client_weight(subject));
        match subject.scope {
            Scope::Address => {
                let ip = subject.ip.to_canonical().to_string();
                self.named(QuotaEntity::Ip, &ip, None, &mut path);
            }
            Scope::Connection => {
                path.extend(self.step(QuotaEntity::Broker, QuotaEntity::Broker, Some(client())));
                let ip = subject.ip.to_canonical().to_string();
                self.named(QuotaEntity::Ip, &ip, Some(client()), &mut path);
                self.named(QuotaEntity::Principal, subject.principal, Some(client()), &mut path);
                self.client(subject, &mut path);
            }
            Scope::Topic(topic) => {
                path.extend(self.step(QuotaEntity::Broker, QuotaEntity::Broker, None));
                self.named(QuotaEntity::Topic, topic.as_str(), Some(client()), &mut path);
                path.extend(self.pair(
                    |principal, topic| QuotaEntity::PrincipalTopic { principal, topic },
                    (subject.principal, topic.as_str()),
                    Some(client()),
                ));
            }
            Scope::Group(group) => {
                self.named(QuotaEntity::Group, group.as_str(), Some(client()), &mut path);
            }
        }
        path
    }

    /// The record that rules a limit made for `key`, after an edit.
    pub(super) fn governing(&self, key: &QuotaEntity) -> Option<(QuotaEntity, &QuotaLimits)> {
        let or_default = |part: &Match| match part {
            Match::Exact(_) => vec![part.clone(), Match::Default],
            _ => vec![part.clone()],
        };
        let candidates = match names(key) {
            (None, _) => vec![key.clone()],
            (Some(one), None) => or_default(one).iter().map(|m| rebuild(key, m, None)).collect(),
            (Some(one), Some(other)) => {
                let others = or_default(other);
                let pairs = |one: Match| others.iter().map(move |other| (one.clone(), other));
                let pairs = or_default(one).into_iter().flat_map(pairs);
                pairs.map(|(one, other)| rebuild(key, &one, Some(other))).collect()
            }
        };
        let found = |record: QuotaEntity| {
            let limits = self.records.get(&record)?;
            Some((record, limits.as_ref()))
        };
        candidates.into_iter().find_map(found)
    }

    /// Prefix and name of the client, where a quota of the principal's client comes first.
    fn client(&self, subject: &Subject<'_>, path: &mut Vec<Step>) {
        let together = (subject.client.to_owned(), self.client_weight(subject));
        path.extend(self.prefix(QuotaEntity::Client, subject.client, together.clone()));
        path.extend(self.client_leaf(subject).map(|step| {
            let group = matches!(names(&step.key), (_, Some(Match::Prefix(_))));
            Step { member: group.then_some(together), ..step }
        }));
    }

    fn client_leaf(&self, subject: &Subject<'_>) -> Option<Step> {
        let user = self.pair(
            |principal, client| QuotaEntity::User { principal, client },
            (subject.principal, subject.client),
            None,
        );
        user.or_else(|| self.leaf(QuotaEntity::Client, subject.client, None))
    }

    fn client_weight(&self, subject: &Subject<'_>) -> u32 {
        self.client_leaf(subject).map_or(QUOTA_WEIGHT_DEFAULT, |step| step.limits.weight)
    }

    /// Prefix and name of one kind; the prefix is divided among names, the name as `member` says.
    fn named(
        &self,
        kind: fn(Match) -> QuotaEntity,
        name: &str,
        member: Option<(String, u32)>,
        path: &mut Vec<Step>,
    ) {
        let leaf = self.leaf(kind, name, member);
        let weight = leaf.as_ref().map_or(QUOTA_WEIGHT_DEFAULT, |step| step.limits.weight);
        path.extend(self.prefix(kind, name, (name.to_owned(), weight)));
        path.extend(leaf);
    }

    fn prefix(
        &self,
        kind: fn(Match) -> QuotaEntity,
        name: &str,
        member: (String, u32),
    ) -> Option<Step> {
        let same = discriminant(&kind(Match::Default));
        let covering = self.patterns.iter().filter(|e| discriminant(*e) == same);
        let covering = covering.filter(|e| names(e).0.is_some_and(|part| part.covers(name)));
        let longest = covering.max_by_key(|e| names(e).0.map(rank))?;
        self.step(longest.clone(), longest.clone(), Some(member))
    }

    fn leaf(
        &self,
        kind: fn(Match) -> QuotaEntity,
        name: &str,
        member: Option<(String, u32)>,
    ) -> Option<Step> {
        let key = kind(Match::Exact(name.to_owned()));
        let (record, _) = self.governing(&key)?;
        self.step(key, record, member)
    }

    fn pair(
        &self,
        kind: fn(Match, Match) -> QuotaEntity,
        (one, other): (&str, &str),
        member: Option<(String, u32)>,
    ) -> Option<Step> {
        let exact = |name: &str| Match::Exact(name.to_owned());
        let named = kind(exact(one), exact(other));
        if self.records.contains_key(&named) {
            return self.step(named.clone(), named, member);
        }
        let same = discriminant(&named);
        let covering = self.patterns.iter().filter(|e| discriminant(*e) == same).filter(|e| {
            let (first, second) = names(e);
            first.is_some_and(|m| m.covers(one)) && second.is_some_and(|m| m.covers(other))
        });
        let best = covering.max_by_key(|e| (names(e).0.map(rank), names(e).1.map(rank)))?;
        let own = |part: Option<&Match>, name: &str| match part {
            Some(Match::Prefix(prefix)) => Match::Prefix(prefix.clone()),
            _ => exact(name),
        };
        let (first, second) = names(best);
        self.step(kind(own(first, one), own(second, other)), best.clone(), member)
    }

    fn step(
        &self,
        key: QuotaEntity,
        record: QuotaEntity,
        member: Option<(String, u32)>,
    ) -> Option<Step> {
        let limits = Arc::clone(self.records.get(&record)?);
        Some(Step { key, record, limits, member })
    }
}

/// How specific a part is.
fn rank(part: &Match) -> (u8, usize) {
    match part {
        Match::Default => (0, 0),
        Match::Prefix(prefix) => (1, prefix.len()),
        Match::Exact(_) => (2, 0),
    }
}

fn is_pattern(entity: &QuotaEntity) -> bool {
    match names(entity) {
        (Some(Match::Prefix(_)), None) => true,
        (Some(one), Some(other)) => !matches!((one, other), (Match::Exact(_), Match::Exact(_))),
        _ => false,
    }
}

fn names(entity: &QuotaEntity) -> (Option<&Match>, Option<&Match>) {
    match entity {
        QuotaEntity::Broker => (None, None),
        QuotaEntity::Ip(name)
        | QuotaEntity::Principal(name)
        | QuotaEntity::Client(name)
        | QuotaEntity::Topic(name)
        | QuotaEntity::Group(name) => (Some(name), None),
        QuotaEntity::User { principal, client } => (Some(principal), Some(client)),
        QuotaEntity::PrincipalTopic { principal, topic } => (Some(principal), Some(topic)),
    }
}

/// An entity of the same kind with other names.
fn rebuild(entity: &QuotaEntity, one: &Match, other: Option<&Match>) -> QuotaEntity {
    let (one, other) = (one.clone(), other.cloned().unwrap_or(Match::Default));
    match entity {
        QuotaEntity::Broker => QuotaEntity::Broker,
        QuotaEntity::Ip(_) => QuotaEntity::Ip(one),
        QuotaEntity::Principal(_) => QuotaEntity::Principal(one),
        QuotaEntity::Client(_) => QuotaEntity::Client(one),
        QuotaEntity::Topic(_) => QuotaEntity::Topic(one),
        QuotaEntity::Group(_) => QuotaEntity::Group(one),
        QuotaEntity::User { .. } => QuotaEntity::User { principal: one, client: other },
        QuotaEntity::PrincipalTopic { .. } => {
            QuotaEntity::PrincipalTopic { principal: one, topic: other }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(entities: &[&str]) -> QuotaTable {
        let parse = |text: &&str| (text.parse().expect("an entity"), QuotaLimits::default());
        QuotaTable::new(entities.iter().map(parse))
    }

    fn subject(scope: Scope<'_>) -> Subject<'_> {
        Subject { principal: "alice", client: "shop-1", ip: [10, 0, 0, 7].into(), scope }
    }

    /// `key<record` of each level.
    fn path(table: &QuotaTable, scope: Scope<'_>) -> Vec<String> {
        let text = |step: &Step| match step.key == step.record {
            true => step.key.to_string(),
            false => format!("{} by {}", step.key, step.record),
        };
        table.path(&subject(scope)).iter().map(text).collect()
    }

    #[test]
    fn all_levels_apply_general_before_specific() {
        let table = table(&[
            "client/shop-1",
            "client/shop*",
            "principal/alice",
            "ip/10.0.*",
            "broker",
            "topic/orders",
            "group/email",
            "ip/10.0.0.7",
            "client/<default>",
        ]);
        assert_eq!(
            path(&table, Scope::Connection),
            [
                "broker",
                "ip/10.0.*",
                "ip/10.0.0.7",
                "principal/alice",
                "client/shop*",
                "client/shop-1"
            ]
        );
        let email = "email".parse().expect("a group");
        assert_eq!(path(&table, Scope::Group(&email)), ["group/email"]);
    }

    #[test]
    fn a_name_replaces_the_default_and_the_longest_prefix_the_others() {
        let table = table(&["client/<default>", "client/s*", "client/shop*", "client/other"]);
        assert_eq!(
            path(&table, Scope::Connection),
            ["client/shop*", "client/shop-1 by client/<default>"]
        );
    }

    #[test]
    fn a_quota_of_the_principals_client_replaces_the_clients() {
        let both = ["client/shop-1", "user/<default>/client/<default>"];
        assert_eq!(
            path(&table(&both), Scope::Connection),
            ["user/alice/client/shop-1 by user/<default>/client/<default>"]
        );
        let more = [both[0], both[1], "user/alice/client/shop*", "user/a*/client/shop-1"];
        assert_eq!(path(&table(&more), Scope::Connection), ["user/alice/client/shop*"]);
        let exact = [more[2], "user/alice/client/shop-1"];
        assert_eq!(path(&table(&exact), Scope::Connection), ["user/alice/client/shop-1"]);
    }

    #[test]
    fn a_topic_has_its_prefix_its_own_and_the_principals() {
        let table = table(&[
            "broker",
            "topic/o*",
            "topic/<default>",
            "principal/alice/topic/*",
            "principal/<default>/topic/orders",
            "client/shop-1",
        ]);
        let orders = "orders".parse().expect("a topic");
        assert_eq!(
            path(&table, Scope::Topic(&orders)),
            ["broker", "topic/o*", "topic/orders by topic/<default>", "principal/alice/topic/*"]
        );
    }

    #[test]
    fn prefixes_are_divided_among_names_and_names_among_clients() {
        let mut heavy = QuotaLimits::default();
        heavy.set("weight", "300").expect("a key");
        let records = [("client/shop*", 100), ("client/shop-1", 300), ("ip/10.0.0.7", 100)];
        let table = QuotaTable::new(records.map(|(text, weight)| {
            let limits = QuotaLimits { weight, ..heavy.clone() };
            (text.parse().expect("an entity"), limits)
        }));
        let path = table.path(&subject(Scope::Connection));
        let members: Vec<_> = path.iter().map(|step| step.member.clone()).collect();
        let shop = Some(("shop-1".to_owned(), 300));
        assert_eq!(members, [shop.clone(), shop, None], "a client is not divided further");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn every_level_of_a_path_covers_its_subject_and_governs_its_key(
            entities in prop::collection::vec(
                "(client|principal)/(s|sh|shop|al|a|alice|shop-1)[*]?|client/<default>|user/(a[*]|alice|<default>)/client/(s[*]|shop-1|<default>)|broker", 0..12),
        ) {
            let entities: Vec<&str> = entities.iter().map(String::as_str).collect();
            let table = table(&entities);
            let subject = subject(Scope::Connection);
            for step in table.path(&subject) {
                prop_assert_eq!(table.governing(&step.key).map(|found| found.0).is_some(), true);
                let covers = |part: Option<&Match>| {
                    part.is_none_or(|m| m.covers(subject.principal) || m.covers(subject.client))
                };
                prop_assert!(covers(names(&step.record).0) && covers(names(&step.record).1));
            }
        }
    }
}
