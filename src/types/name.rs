//! Names that people give. Parsed once at the edge, valid for ever after; they never become paths.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Shorter than 1 or longer than 249 bytes.
    #[error("name has {len} bytes; 1 to 249 are allowed")]
    Length {
        /// Bytes in the refused name.
        len: usize,
    },
    /// `.` and `..` are not names.
    #[error("\".\" and \"..\" are not allowed as names")]
    Dots,
    /// A byte outside `[a-zA-Z0-9._-]`.
    #[error("character {found:?} at byte {at} is not one of a-z A-Z 0-9 . _ -")]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// Its byte index.
        at: usize,
    },
}

/// Longest name in bytes: Kafka's limit for topics.
pub const NAME_BYTES_MAX: usize = 249;

/// Name of a topic: `[a-zA-Z0-9._-]{1,249}`, not `.` or `..` (Kafka's rule).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the name of a topic of the broker's own: those begin with `__`. Users read
    /// them and change nothing.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with("__")
    }
}

fn check(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(InvalidName::Length { len: text.len() });
    }
    if text == "." || text == ".." {
        return Err(InvalidName::Dots);
    }
    let bad = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    match text.char_indices().find(|(_, c)| bad(*c)) {
        Some((at, found)) => Err(InvalidName::Character { found, at }),
        None => Ok(()),
    }
}

impl FromStr for TopicName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<TopicName, InvalidName> {
        check(text)?;
        Ok(TopicName(text.into()))
    }
}

impl TryFrom<String> for TopicName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<TopicName, InvalidName> {
        text.parse()
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Name of a consumer group: 1 to 249 bytes of UTF-8 without control characters. Kafka allows
/// almost anything here, so clients that move over keep their group names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupId(Arc<str>);

impl GroupId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<GroupId, InvalidName> {
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return Err(InvalidName::Length { len: text.len() });
        }
        match text.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, found)) => Err(InvalidName::Character { found, at }),
            None => Ok(GroupId(text.into())),
        }
    }
}

impl TryFrom<String> for GroupId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<GroupId, InvalidName> {
        text.parse()
    }
}

impl From<GroupId> for String {
    fn from(id: GroupId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_kafkas_rule() {
        for good in ["orders", "a", "A.b_c-9", &"x".repeat(249)] {
            assert_eq!(good.parse::<TopicName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("".parse::<TopicName>(), Err(InvalidName::Length { len: 0 }));
        assert_eq!("x".repeat(250).parse::<TopicName>(), Err(InvalidName::Length { len: 250 }));
        assert_eq!("..".parse::<TopicName>(), Err(InvalidName::Dots));
        assert_eq!("a/b".parse::<TopicName>(), Err(InvalidName::Character { found: '/', at: 1 }));
        assert!("ü".parse::<TopicName>().is_err());
    }

    #[test]
    fn groups_refuse_control_characters() {
        assert!("my group/ü".parse::<GroupId>().is_ok());
        assert!("a\nb".parse::<GroupId>().is_err());
    }
}
