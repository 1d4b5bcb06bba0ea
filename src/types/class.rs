//! Classes of traffic, most important first: who gives way when there is not enough for all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A class. The numbers are the wire's and never change.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Class {
    /// P0: what the broker needs to get out of trouble (commits, heartbeats, deletes, its own logs).
    /// Not to be asked for.
    #[serde(rename = "p0")]
    System = 0,
    /// P1: last of the users' to be refused.
    #[serde(rename = "p1")]
    Critical = 1,
    /// P2: whoever says nothing.
    #[default]
    #[serde(rename = "p2")]
    Normal = 2,
    /// P3: first to be refused: loads, replays, catching up.
    #[serde(rename = "p3")]
    Bulk = 3,
}

impl Class {
    /// All classes, most important first.
    pub const ALL: [Class; 4] = [Class::System, Class::Critical, Class::Normal, Class::Bulk];

    /// Its share beside the others': 8 : 4 : 1 for P1, P2, P3.
    pub fn weight(self) -> u32 {
        match self {
            Class::System | Class::Critical => 8,
            Class::Normal => 4,
            Class::Bulk => 1,
        }
    }

    /// The name in options, JSON and reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::System => "p0",
            Class::Critical => "p1",
            Class::Normal => "p2",
            Class::Bulk => "p3",
        }
    }

    /// The wire's number.
    pub fn as_u8(self) -> u8 {
        self as u8
    }

    /// Back from the wire's number.
    pub fn from_u8(number: u8) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.as_u8() == number)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no class which may be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("class {0:?}: p1 (critical), p2 (normal) or p3 (bulk)")]
pub struct ClassError(String);

impl FromStr for Class {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Class, ClassError> {
        let asked = [Class::Critical, Class::Normal, Class::Bulk];
        let found = asked.into_iter().find(|class| class.name() == text);
        found.ok_or_else(|| ClassError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip_and_p0_is_nobodys() {
        for class in Class::ALL {
            assert_eq!(Class::from_u8(class.as_u8()), Some(class));
            assert_eq!(class.name().parse::<Class>().is_ok(), class != Class::System);
        }
        assert_eq!(Class::from_u8(4), None);
    }
}
