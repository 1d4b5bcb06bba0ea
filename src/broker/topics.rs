//! Making, changing and deleting topics: one durable record each, then the handles, in the order
//! of the records.
//!
//! Every change runs in a task of its own: a caller that goes away cannot leave a record committed
//! and not applied.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::MutexGuard;
use tracing::{info, warn};
use uuid::Uuid;

use super::catalog::{Catalog, CatalogRecord, StoredConfig};
use super::core::{Core, check_share};
use super::error::{
    AlterTopicError, CommitError, CreateTopicError, DeleteTopicError, refuse_reserved,
};
use super::facade::Broker;
use super::internal_log::InternalLog;
use super::request::NewTopic;
use super::topic::Topic;
use crate::env::Env;
use crate::storage::PartitionOptions;
use crate::types::{
    PartitionId, TopicConfig, TopicDescription, TopicId, TopicName, TopicPartition,
};

impl Broker {
    /// Makes a topic. Its one record is durable when this returns; files come with the first
    /// append to a partition.
    pub async fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, CreateTopicError> {
        refuse_reserved(&new.name)?;
        let core = Arc::clone(self.core());
        let made = uncancelled(async move { create(&core, new).await }).await;
        made.unwrap_or(Err(CreateTopicError::Commit(CommitError::Closed)))
    }

    /// Changes settings, given as text (see [`TopicConfig::set`]).
    pub async fn alter_topic(
        &self,
        name: &TopicName,
        changes: Vec<(String, String)>,
    ) -> Result<Arc<Topic>, AlterTopicError> {
        refuse_reserved(name)?;
        let (core, name) = (Arc::clone(self.core()), name.clone());
        let altered = uncancelled(async move { alter(&core, &name, &changes).await }).await;
        altered.unwrap_or(Err(AlterTopicError::Commit(CommitError::Closed)))
    }

    /// Gives a topic more partitions; `partitions` is how many it has afterwards.
    pub async fn add_partitions(
        &self,
        name: &TopicName,
        partitions: u32,
    ) -> Result<Arc<Topic>, AlterTopicError> {
        refuse_reserved(name)?;
        let (core, name) = (Arc::clone(self.core()), name.clone());
        let grown = uncancelled(async move { grow(&core, &name, partitions).await }).await;
        grown.unwrap_or(Err(AlterTopicError::Commit(CommitError::Closed)))
    }

    /// Deletes a topic. Nobody finds it any more when this returns, whatever crashes; its files go
    /// in the background.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), DeleteTopicError> {
        refuse_reserved(name)?;
        let (core, name) = (Arc::clone(self.core()), name.clone());
        let deleted = uncancelled(async move { delete(&core, &name).await }).await;
        deleted.unwrap_or(Err(DeleteTopicError::Commit(CommitError::Closed)))
    }

    /// A topic, by name.
    pub fn topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.core().topics.by_name(name)
    }

    /// A topic, by id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.core().topics.by_id(id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.core().topics.now().sorted()
    }

    /// Whether a topic of so many partitions can have these settings; if not, why.
    pub fn check_topic(&self, config: &TopicConfig, partitions: u32) -> Result<(), String> {
        check_config(self.core(), config, partitions)
    }

    /// Everything that can be said of a topic now.
    pub fn describe_topic(&self, name: &TopicName) -> Option<TopicDescription> {
        Some(self.topic(name)?.describe())
    }
}

fn check_config(core: &Core, config: &TopicConfig, partitions: u32) -> Result<(), String> {
    config.check(partitions).and_then(|()| check_share(&core.flow, config))
}

impl Topic {
    /// Everything that can be said of it now.
    pub fn describe(&self) -> TopicDescription {
        TopicDescription {
            name: self.name().clone(),
            id: self.id(),
            config: TopicConfig::clone(&self.config()),
            partitions: self.partitions().iter().map(|partition| partition.describe()).collect(),
        }
    }
}

/// Runs to the end even when the caller does not wait for it; `None` when the task died.
pub(super) async fn uncancelled<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let ended = tokio::spawn(work).await;
    ended.map_err(|e| tracing::error!("a change of the broker's state died: {e}")).ok()
}

/// Makes a topic, whatever its name.
pub(super) async fn create(
    core: &Arc<Core>,
    new: NewTopic,
) -> Result<Arc<Topic>, CreateTopicError> {
    let NewTopic { name, partitions, config } = new;
    if partitions == 0 {
        return Err(CreateTopicError::NoPartitions);
    }
    check_config(core, &config, partitions).map_err(CreateTopicError::Config)?;
    let mut catalog = core.catalog.lock().await;
    core.admit_change()?;
    if catalog.machine().id_of(&name).is_some() {
        return Err(CreateTopicError::Exists(name));
    }
    let (topics, all) = catalog.machine().counts();
    let limits = &core.options.limits;
    let within = |what, wanted, limit: u32| {
        let limit = u64::from(limit);
        if wanted <= limit { Ok(()) } else { Err(CreateTopicError::Limit { what, wanted, limit }) }
    };
    within("topics", topics + 1, limits.topics_max)?;
    within("partitions", all + u64::from(partitions), limits.partitions_max)?;
    let id = new_topic_id(&core.env);
    let record = CatalogRecord::TopicCreated {
        id,
        name: name.clone(),
        partitions,
        config: StoredConfig::of(&config),
    };
    catalog.commit(&[record]).await?;
    let handles = core.open_new(id, 0..partitions, &config);
    let limits = core.flow.topic(name, core.env.clock.monotonic());
    let topic = Arc::new(Topic::new(limits, id, config, handles));
    core.topics.insert([Arc::clone(&topic)]);
    core.topics_changed.notify_one();
    core.limits_changed.notify_one();
    core.flow.over_limit.notify_one();
    info!("topic {} ({id}) was created with {partitions} partitions", topic.name());
    Ok(topic)
}

async fn alter(
    core: &Arc<Core>,
    name: &TopicName,
    changes: &[(String, String)],
) -> Result<Arc<Topic>, AlterTopicError> {
    let mut catalog = core.catalog.lock().await;
    core.admit_change()?;
    let topic = core.topics.by_name(name).ok_or(AlterTopicError::NotFound)?;
    let mut config = TopicConfig::clone(&topic.config());
    for (key, value) in changes {
        config.set(key, value)?;
    }
    check_config(core, &config, topic.partition_count()).map_err(AlterTopicError::Config)?;
    let record = CatalogRecord::TopicAltered { id: topic.id(), config: StoredConfig::of(&config) };
    catalog.commit(&[record]).await?;
    topic.set_config(config);
    core.limits_changed.notify_one();
    obey(&topic);
    topic.measure();
    core.flow.over_limit.notify_one();
    Ok(topic)
}

/// Tells the partitions what the topic's settings mean for them.
fn obey(topic: &Topic) {
    let options = PartitionOptions::of_topic(&topic.config(), topic.partition_count());
    let options = Arc::new(options);
    for partition in topic.partitions().iter() {
        if let Ok(log) = partition.log() {
            log.set_options(Arc::clone(&options));
        }
    }
}

async fn grow(
    core: &Arc<Core>,
    name: &TopicName,
    partitions: u32,
) -> Result<Arc<Topic>, AlterTopicError> {
    let mut catalog = core.catalog.lock().await;
    core.admit_change()?;
    let topic = core.topics.by_name(name).ok_or(AlterTopicError::NotFound)?;
    let has = topic.partition_count();
    let Some(more) = partitions.checked_sub(has) else {
        return Err(AlterTopicError::FewerPartitions { has, asked: partitions });
    };
    if more == 0 {
        return Ok(topic);
    }
    let wanted = catalog.machine().counts().1 + u64::from(more);
    let limit = u64::from(core.options.limits.partitions_max);
    if wanted > limit {
        return Err(AlterTopicError::Limit { wanted, limit });
    }
    topic.config().check(partitions).map_err(AlterTopicError::Config)?;
    let id = topic.id();
    catalog.commit(&[CatalogRecord::PartitionsAdded { id, partitions }]).await?;
    let mut handles = Vec::clone(&topic.partitions());
    handles.extend(core.open_new(id, has..partitions, &topic.config()));
    topic.set_partitions(handles);
    obey(&topic);
    core.topics_changed.notify_one();
    Ok(topic)
}

async fn delete(core: &Arc<Core>, name: &TopicName) -> Result<(), DeleteTopicError> {
    let mut catalog = core.catalog.lock().await;
    core.admit_change()?;
    let topic = core.topics.by_name(name).ok_or(DeleteTopicError::NotFound)?;
    let id = topic.id();
    catalog.commit(&[CatalogRecord::TopicDeleted { id }]).await?;
    core.topics.remove(&topic);
    core.topics_changed.notify_one();
    core.limits_changed.notify_one();
    info!("topic {name} ({id}) was deleted");
    drop(catalog);
    let core = Arc::clone(core);
    // Not waited for: the tombstone makes the next start finish what this does not.
    drop(tokio::spawn(async move { purge_open(&core, &topic).await }));
    Ok(())
}

/// Removes the files of a topic that was open until now.
async fn purge_open(core: &Arc<Core>, topic: &Topic) {
    let mut unopened = Vec::new();
    let mut tickets = Vec::new();
    for partition in topic.partitions().iter() {
        match partition.log() {
            Ok(log) => tickets.push((partition.id(), log.delete())),
            Err(_) => unopened.push(partition.id()),
        }
    }
    for (id, ticket) in tickets {
        if let Err(e) = ticket.await {
            warn!("the files of deleted partition {id} stay until the next start: {e}");
            return;
        }
    }
    purge(core, topic.id(), unopened).await;
}

/// Removes the files of partitions that are not open, then the topic's tombstone.
pub(super) async fn purge(core: &Arc<Core>, topic: TopicId, partitions: Vec<TopicPartition>) {
    let storage = core.storage.clone();
    let remove = move || partitions.into_iter().try_for_each(|id| storage.delete_partition(id));
    match tokio::task::spawn_blocking(remove).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => {
            return warn!("files of deleted topic {topic} stay until the next start: {e}");
        }
        Err(e) => return warn!("files of deleted topic {topic} stay until the next start: {e}"),
    }
    let mut catalog: MutexGuard<'_, InternalLog<Catalog>> = core.catalog.lock().await;
    if let Err(e) = catalog.commit(&[CatalogRecord::TopicPurged { id: topic }]).await {
        warn!("the tombstone of topic {topic} stays until the next start: {e}");
    }
}

/// Finishes the deletions that a crash or a fault left behind.
pub(super) async fn purge_tombstones(core: Arc<Core>, tombstones: Vec<(TopicId, u32)>) {
    for (topic, partitions) in tombstones {
        let id = |number| TopicPartition { topic, partition: PartitionId(number) };
        purge(&core, topic, (0..partitions).map(id).collect()).await;
    }
}

/// UUID version 7: sorts by creation.
fn new_topic_id(env: &Env) -> TopicId {
    let millis = u64::try_from(env.clock.now().0).unwrap_or(0);
    let (high, low) = (env.rng.next_u64().to_le_bytes(), env.rng.next_u64().to_le_bytes());
    let mut random = [0; 10];
    random.iter_mut().zip(high.iter().chain(&low)).for_each(|(to, from)| *to = *from);
    let uuid: Uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    TopicId(uuid)
}
