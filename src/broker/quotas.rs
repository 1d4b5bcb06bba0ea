//! Setting, removing and listing quotas: one durable record each, then in force at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;

use super::catalog::{CatalogRecord, StoredConfig};
use super::core::Core;
use super::error::{CommitError, QuotaChangeError};
use super::facade::Broker;
use super::flow::QuotaTable;
use super::topics::uncancelled;
use crate::types::{QuotaDescription, QuotaEntity, QuotaLimits};

/// Changes of one quota, as text.
type Changes = Vec<(String, String)>;

impl Broker {
    /// Changes settings of an entity's quota, given as text (see [`QuotaLimits::set`]), and makes
    /// it when there is none. Returns all its settings. With `dry_run` nothing changes.
    pub async fn set_quota(
        &self,
        entity: QuotaEntity,
        changes: Vec<(String, String)>,
        dry_run: bool,
    ) -> Result<QuotaLimits, QuotaChangeError> {
        let core = Arc::clone(self.core());
        let set = uncancelled(async move { set(&core, entity, changes, dry_run).await }).await;
        set.unwrap_or(Err(QuotaChangeError::Commit(CommitError::Closed)))
    }

    /// Removes an entity's quota. With `dry_run` nothing changes.
    pub async fn delete_quota(
        &self,
        entity: QuotaEntity,
        dry_run: bool,
    ) -> Result<(), QuotaChangeError> {
        let core = Arc::clone(self.core());
        let deleted = uncancelled(async move { delete(&core, entity, dry_run).await }).await;
        deleted.unwrap_or(Err(QuotaChangeError::Commit(CommitError::Closed)))
    }

    /// All quotas, by entity, or that of one, with what is used of them now.
    pub fn quotas(&self, entity: Option<&QuotaEntity>) -> Vec<QuotaDescription> {
        self.core().flow.quotas.describe(entity)
    }

    /// That an entity has no quota of its own, and which one it is under.
    pub fn no_quota(&self, entity: QuotaEntity) -> QuotaChangeError {
        no_quota(self.core(), entity)
    }
}

fn no_quota(core: &Core, entity: QuotaEntity) -> QuotaChangeError {
    let by = core.flow.quotas.governing(&entity);
    QuotaChangeError::NotFound { entity, by }
}

async fn set(
    core: &Arc<Core>,
    entity: QuotaEntity,
    changes: Changes,
    dry_run: bool,
) -> Result<QuotaLimits, QuotaChangeError> {
    let mut catalog = core.catalog.lock().await;
    core.admit_change()?;
    let mut quotas = catalog.machine().quotas()?;
    let most = core.options.limits.quotas_max;
    if !quotas.contains_key(&entity) && quotas.len() >= most as usize {
        return Err(QuotaChangeError::Limit { limit: most });
    }
    let mut limits = quotas.get(&entity).cloned().unwrap_or_default();
    for (key, value) in &changes {
        limits.set(key, value)?;
    }
    entity.check(&limits)?;
    if dry_run {
        return Ok(limits);
    }
    let settings = StoredConfig::of_quota(&limits);
    catalog.commit(&[CatalogRecord::QuotaSet { entity: entity.to_string(), settings }]).await?;
    info!("quota of {entity}: {:?}", limits.entries());
    quotas.insert(entity, limits.clone());
    put_in_force(core, quotas);
    Ok(limits)
}

async fn delete(
    core: &Arc<Core>,
    entity: QuotaEntity,
    dry_run: bool,
) -> Result<(), QuotaChangeError> {
    let mut catalog = core.catalog.lock().await;
    core.admit_change()?;
    let mut quotas = catalog.machine().quotas()?;
    if quotas.remove(&entity).is_none() {
        return Err(no_quota(core, entity));
    }
    if dry_run {
        return Ok(());
    }
    catalog.commit(&[CatalogRecord::QuotaDeleted { entity: entity.to_string() }]).await?;
    info!("quota of {entity}: none any more");
    put_in_force(core, quotas);
    Ok(())
}

fn put_in_force(core: &Core, quotas: BTreeMap<QuotaEntity, QuotaLimits>) {
    core.flow.quotas.replace(QuotaTable::new(quotas), core.env.clock.monotonic());
}
