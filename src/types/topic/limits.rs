//! What a topic does at its limits, and which groups hold it back: `on_full`, `protect`, `backlog`.
//!
//! Each is read from the text that people write and shown as text that reads back. A group whose
//! name holds a `,` cannot be named in `protect`, nor one with a `;` in `backlog`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::parse_bytes;
use crate::types::GroupId;

/// What happens to a produce request when the topic is at `max_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Refuse with TOPIC_FULL.
    #[default]
    Reject,
    /// Drop the oldest segments.
    DropOldest,
    /// From 90 % on let in what is reclaimed and a tenth of what is left, per second.
    Throttle,
    /// Withhold grants for up to 5 s, then refuse.
    Hold,
}

impl OnFull {
    const ALL: [(&'static str, OnFull); 4] = [
        ("reject", OnFull::Reject),
        ("drop_oldest", OnFull::DropOldest),
        ("throttle", OnFull::Throttle),
        ("hold", OnFull::Hold),
    ];

    pub(super) fn read(text: &str) -> Result<OnFull, String> {
        let known = OnFull::ALL.iter().find(|(name, _)| *name == text);
        known
            .map(|(_, on_full)| *on_full)
            .ok_or_else(|| "one of reject, drop_oldest, throttle, hold".to_owned())
    }
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = OnFull::ALL.iter().find(|(_, on_full)| on_full == self);
        f.write_str(name.map_or("reject", |(name, _)| name))
    }
}

/// Whose unread records no retention deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protect {
    /// Nobody's.
    #[default]
    None,
    /// Those of these groups.
    Groups {
        /// The groups, at most `GROUPS_MAX`.
        groups: Vec<GroupId>,
    },
    /// Those of every group that committed an offset of the topic.
    AllGroups,
}

/// Most groups that `protect` or `backlog` names: each is looked at several times a second.
pub const GROUPS_MAX: usize = 16;

impl Protect {
    pub(super) fn read(text: &str) -> Result<Protect, String> {
        match text {
            "none" => return Ok(Protect::None),
            "all_groups" => return Ok(Protect::AllGroups),
            _ => {}
        }
        let names = text.strip_prefix("groups(").and_then(|rest| rest.strip_suffix(')'));
        let names = names.ok_or("one of none, all_groups, groups(a,b)")?;
        let groups = names.split(',').map(read_group).collect::<Result<Vec<_>, _>>()?;
        check_groups(groups.iter())?;
        Ok(Protect::Groups { groups })
    }
}

impl fmt::Display for Protect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protect::None => f.write_str("none"),
            Protect::AllGroups => f.write_str("all_groups"),
            Protect::Groups { groups } => {
                let names: Vec<&str> = groups.iter().map(GroupId::as_str).collect();
                write!(f, "groups({})", names.join(","))
            }
        }
    }
}

/// What happens to the topic's producers when a group is at its backlog limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BacklogAction {
    /// They wait until the group has read on.
    #[default]
    Throttle,
    /// They are refused.
    Reject,
}

/// How far one group may fall behind before the topic's producers are held back. At least one of
/// the three limits is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogLimit {
    /// The group.
    pub group: GroupId,
    /// Records it has not committed.
    pub records: Option<u64>,
    /// Bytes of these.
    pub bytes: Option<u64>,
    /// Age of the first of these, in seconds.
    pub seconds: Option<u64>,
    /// What happens then.
    pub action: BacklogAction,
}

impl BacklogLimit {
    /// Reads `none` or `email:records=100000,seconds=60,action=reject;fraud:bytes=1GiB`.
    pub(super) fn read_all(text: &str) -> Result<Vec<BacklogLimit>, String> {
        if text == "none" {
            return Ok(Vec::new());
        }
        let limits = text.split(';').map(BacklogLimit::read).collect::<Result<Vec<_>, _>>()?;
        check_groups(limits.iter().map(|limit| &limit.group))?;
        Ok(limits)
    }

    /// The text that [`BacklogLimit::read_all`] reads.
    pub(super) fn show_all(limits: &[BacklogLimit]) -> String {
        if limits.is_empty() {
            return "none".to_owned();
        }
        limits.iter().map(BacklogLimit::to_string).collect::<Vec<_>>().join(";")
    }

    fn read(text: &str) -> Result<BacklogLimit, String> {
        let (group, rules) = text.rsplit_once(':').ok_or_else(|| BACKLOG_EXAMPLE.to_owned())?;
        let action = BacklogAction::default();
        let mut limit = BacklogLimit {
            group: read_group(group)?,
            records: None,
            bytes: None,
            seconds: None,
            action,
        };
        for rule in rules.split(',') {
            let (key, value) = rule.split_once('=').ok_or_else(|| BACKLOG_EXAMPLE.to_owned())?;
            limit.set(key.trim(), value.trim())?;
        }
        match (limit.records, limit.bytes, limit.seconds) {
            (None, None, None) => Err(format!("{group} needs records, bytes or seconds")),
            _ => Ok(limit),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{key}={value}: not a number"));
        let some = |number: u64| match number {
            0 => Err(format!("{key}={value}: nothing would ever be let in")),
            _ => Ok(Some(number)),
        };
        match (key, value) {
            ("records", _) => self.records = some(number()?)?,
            ("bytes", _) => self.bytes = some(parse_bytes(value).map_err(|e| e.to_string())?)?,
            ("seconds", _) => self.seconds = some(number()?)?,
            ("action", "throttle") => self.action = BacklogAction::Throttle,
            ("action", "reject") => self.action = BacklogAction::Reject,
            ("action", _) => return Err("action is one of throttle, reject".to_owned()),
            _ => return Err(format!("{key:?} is none of records, bytes, seconds, action")),
        }
        Ok(())
    }
}

impl fmt::Display for BacklogLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.group)?;
        let limits = [("records", self.records), ("bytes", self.bytes), ("seconds", self.seconds)];
        for (key, value) in limits {
            if let Some(value) = value {
                write!(f, "{key}={value},")?;
            }
        }
        f.write_str(match self.action {
            BacklogAction::Throttle => "action=throttle",
            BacklogAction::Reject => "action=reject",
        })
    }
}

const BACKLOG_EXAMPLE: &str =
    "write none, or for example email:records=100000,seconds=60,action=reject;fraud:bytes=1GiB";

fn read_group(text: &str) -> Result<GroupId, String> {
    text.trim().parse().map_err(|e| format!("{text:?} is no group's name: {e}"))
}

/// Not too many, and none twice.
fn check_groups<'a>(groups: impl Iterator<Item = &'a GroupId>) -> Result<(), String> {
    let mut names: Vec<&GroupId> = groups.collect();
    if names.len() > GROUPS_MAX {
        return Err(format!("at most {GROUPS_MAX} groups, not {}", names.len()));
    }
    names.sort_unstable();
    match names.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => Err(format!("{} is named twice", pair.first().map_or("", |g| g.as_str()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_reads_back() {
        for (name, on_full) in OnFull::ALL {
            assert_eq!((OnFull::read(name), on_full.to_string()), (Ok(on_full), name.to_owned()));
        }
        assert!(OnFull::read("explode").is_err());
    }

    #[test]
    fn protecting_groups_are_named_once_and_not_too_many() {
        for text in ["none", "all_groups", "groups(email)", "groups(email,fraud,a b)"] {
            assert_eq!(Protect::read(text).expect(text).to_string(), text);
        }
        let many: Vec<String> = (0..17).map(|number| format!("group-{number}")).collect();
        for text in ["", "email", "groups()", "groups(a,a)", &format!("groups({})", many.join(","))]
        {
            assert!(Protect::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn backlog_limits_read_back_and_say_what_is_wrong() {
        let text = "email:records=100000,seconds=60,action=reject;fraud:bytes=1GiB";
        let limits = BacklogLimit::read_all(text).expect("the example");
        assert_eq!((limits[0].records, limits[0].seconds), (Some(100_000), Some(60)));
        assert_eq!((limits[1].bytes, limits[1].action), (Some(1 << 30), BacklogAction::Throttle));
        assert_eq!(BacklogLimit::read_all(&BacklogLimit::show_all(&limits)), Ok(limits));
        assert_eq!(BacklogLimit::read_all("none"), Ok(Vec::new()));
        assert_eq!(BacklogLimit::show_all(&[]), "none");
        let colons = BacklogLimit::read_all("a:b:records=1").expect("a name with a colon");
        assert_eq!(colons[0].group.as_str(), "a:b");
        for (text, reason) in [
            ("email", "example"),
            ("email:", "example"),
            ("email:records", "example"),
            ("email:action=reject", "needs records"),
            ("email:records=0", "ever"),
            ("email:records=many", "not a number"),
            ("email:days=3", "none of"),
            ("email:records=1,action=drop", "throttle, reject"),
            ("email:records=1;email:bytes=1", "twice"),
        ] {
            let refused = BacklogLimit::read_all(text).expect_err(text);
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
