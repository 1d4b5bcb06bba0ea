//! Quotas as text: whom one belongs to, what it limits, and by how much. Every front end, the
//! catalog and the command line write and read these forms and no others.

mod entity;
mod limits;

pub use entity::{Match, QuotaEntity};
pub use limits::{QUOTA_WEIGHT_DEFAULT, QuotaLimits, QuotaMode, Resource};

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
