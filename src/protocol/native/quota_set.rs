//! QUOTA_SET: changes settings of a quota, or makes it.

use super::frame::{Call, FrameType};
use crate::types::{QuotaError, QuotaLimits};

wire_struct! {
    /// Changes settings of an entity's quota and makes it when there is none; settings that are
    /// not named stay.
    pub struct Request {
        /// Whose quota: `client/shop`, `topic/orders-*`, `user/anonymous/client/<default>`, ...
        pub entity: String,
        /// Settings by name, as `QuotaLimits` spells them; `none` takes a limit away.
        pub settings: Vec<(String, String)>,
        /// Check only.
        pub dry_run: bool,
    }
}

wire_struct! {
    /// The change is durable and in force (not with `dry_run`).
    pub struct Response {
        /// All settings after the change, by name; defaults are left out.
        pub settings: Vec<(String, String)>,
    }
}

impl Call for Request {
    const TYPE: FrameType = FrameType::QuotaSet;
    type Answer = Response;
}

/// A quota's settings as the wire carries them.
pub fn settings_of(limits: &QuotaLimits) -> Vec<(String, String)> {
    limits.entries().into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Settings that came over the wire.
pub fn limits_of(settings: &[(String, String)]) -> Result<QuotaLimits, QuotaError> {
    let mut limits = QuotaLimits::default();
    for (key, value) in settings {
        limits.set(key, value)?;
    }
    Ok(limits)
}
