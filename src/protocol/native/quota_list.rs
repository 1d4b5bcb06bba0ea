//! QUOTA_LIST: quotas with what is used of them now.

use super::frame::{Call, FrameType};
use super::quota_set::{limits_of, settings_of};
use crate::types::{QuotaDescription, QuotaError, QuotaUse};

wire_struct! {
    /// One limit of a quota and what is used of it.
    pub struct QuotaUsed {
        /// Whose limit it is: a name of its own where the quota is of `<default>`.
        pub entity: String,
        /// What is limited: the name of the setting.
        pub resource: String,
        /// Used: units in the last second, or held now.
        pub used: u64,
        /// The limit; 2^64 - 1 = none any more.
        pub limit: u64,
        /// Refusals.
        pub refused: u64,
        /// Refusals that a dry run would have made.
        pub would_throttle: u64,
        /// Among how many it is divided.
        pub members: u32,
    }
}

wire_struct! {
    /// One quota.
    pub struct Quota {
        /// Whose it is.
        pub entity: String,
        /// Its settings, by name; defaults are left out.
        pub settings: Vec<(String, String)>,
        /// Use of its limits by those who were met so far: at most 1,000 entries, the most refused
        /// before the others.
        pub used: Vec<QuotaUsed>,
    }
}

wire_struct! {
    /// Asks for all quotas, or for one.
    pub struct Request {
        /// Whose quota; without it all are listed.
        pub entity: Option<String>,
    }
}

wire_struct! {
    /// The quotas, by entity.
    pub struct Response {
        /// The quotas.
        pub quotas: Vec<Quota>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::QuotaList;
    type Answer = Response;
}

impl From<&QuotaUse> for QuotaUsed {
    fn from(used: &QuotaUse) -> QuotaUsed {
        QuotaUsed {
            entity: used.entity.to_string(),
            resource: used.resource.name().to_owned(),
            used: used.used,
            limit: used.limit,
            refused: used.refused,
            would_throttle: used.would_throttle,
            members: used.members,
        }
    }
}

impl TryFrom<&QuotaUsed> for QuotaUse {
    type Error = QuotaError;

    fn try_from(used: &QuotaUsed) -> Result<QuotaUse, QuotaError> {
        Ok(QuotaUse {
            entity: used.entity.parse()?,
            resource: used.resource.parse()?,
            used: used.used,
            limit: used.limit,
            refused: used.refused,
            would_throttle: used.would_throttle,
            members: used.members,
        })
    }
}

impl From<&QuotaDescription> for Quota {
    fn from(quota: &QuotaDescription) -> Quota {
        Quota {
            entity: quota.entity.to_string(),
            settings: settings_of(&quota.limits),
            used: quota.used.iter().map(QuotaUsed::from).collect(),
        }
    }
}

impl TryFrom<&Quota> for QuotaDescription {
    type Error = QuotaError;

    fn try_from(quota: &Quota) -> Result<QuotaDescription, QuotaError> {
        Ok(QuotaDescription {
            entity: quota.entity.parse()?,
            limits: limits_of(&quota.settings)?,
            used: quota.used.iter().map(QuotaUse::try_from).collect::<Result<_, _>>()?,
        })
    }
}
