//! Quotas: set, removed, listed.

use std::cmp::Reverse;
use std::sync::Arc;

use super::error::ToAnswer;
use super::link::Link;
use crate::broker::QuotaChangeError;
use crate::protocol::native::quota_set::settings_of;
use crate::protocol::native::{ErrorAnswer, quota_delete, quota_list, quota_set};
use crate::types::{QuotaDescription, QuotaEntity};

/// Most uses that are told of one quota: a `<default>` may have ten thousand members, and nobody
/// reads more than those it limits most.
const USES_MAX: usize = 1_000;

pub(super) async fn set(
    link: Arc<Link>,
    request: quota_set::Request,
) -> Result<quota_set::Response, ErrorAnswer> {
    let entity = entity(&request.entity)?;
    let set = link.broker().set_quota(entity, request.settings, request.dry_run).await;
    let limits = set.map_err(|error| error.to_answer())?;
    Ok(quota_set::Response { settings: settings_of(&limits) })
}

pub(super) async fn delete(
    link: Arc<Link>,
    request: quota_delete::Request,
) -> Result<quota_delete::Response, ErrorAnswer> {
    let entity = entity(&request.entity)?;
    let deleted = link.broker().delete_quota(entity, request.dry_run).await;
    deleted.map_err(|error| error.to_answer())?;
    Ok(quota_delete::Response {})
}

pub(super) async fn list(
    link: Arc<Link>,
    request: quota_list::Request,
) -> Result<quota_list::Response, ErrorAnswer> {
    let entity = request.entity.as_deref().map(entity).transpose()?;
    let mut quotas = link.broker().quotas(entity.as_ref());
    if let (true, Some(entity)) = (quotas.is_empty(), entity) {
        return Err(link.broker().no_quota(entity).to_answer());
    }
    quotas.iter_mut().for_each(leave_off);
    Ok(quota_list::Response { quotas: quotas.iter().map(quota_list::Quota::from).collect() })
}

fn entity(text: &str) -> Result<QuotaEntity, ErrorAnswer> {
    text.parse().map_err(|error| QuotaChangeError::Quota(error).to_answer())
}

fn leave_off(quota: &mut QuotaDescription) {
    if quota.used.len() > USES_MAX {
        quota.used.sort_by_key(|u| Reverse((u.refused.max(u.would_throttle), u.used)));
        quota.used.truncate(USES_MAX);
    }
}
