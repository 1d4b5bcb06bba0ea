//! Topics, offsets, groups and limits, for people and programs that manage a broker.

use std::sync::Arc;

use super::core::Core;
use super::{ClientError, StartAt};
use crate::protocol::native::list_offsets::{self, Found, OffsetSpec, Query};
use crate::protocol::native::{
    ErrorAnswer, cluster_info, group_committed, group_delete, group_describe, group_list,
    group_reset, partitions_add, pressure, quota_delete, quota_list, quota_set, topic_alter,
    topic_create, topic_delete, topic_describe, topic_list, trim, why,
};
use crate::types::{
    ClusterInfo, Entity, GroupDescription, GroupId, GroupListing, Offset, OffsetReset, PartitionId,
    PressureQuery, PressureReport, QuotaDescription, QuotaEntity, QuotaError, QuotaLimits,
    TopicDescription, TopicId, TopicName, TopicPartition, WhyReport,
};

pub use crate::protocol::native::group_reset::Move;
pub use crate::protocol::native::topic_list::Listing;

/// Whether something is done, or only checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// It is done.
    #[default]
    Really,
    /// The broker says what it would do.
    Dry,
}

/// The administrative side of a client. Requests that change something are sent once: when the
/// connection breaks under way, `ConnectionLost` says that they may have had an effect.
#[derive(Clone)]
pub struct Admin {
    core: Arc<Core>,
}

impl Admin {
    pub(super) fn new(core: Arc<Core>) -> Admin {
        Admin { core }
    }
}

fn dry(run: Run) -> bool {
    run == Run::Dry
}

fn by_name(name: &TopicName) -> topic_delete::TopicRef {
    topic_delete::TopicRef::Name { name: name.clone() }
}

/// Topics.
impl Admin {
    /// Creates a topic. `settings` are names and values as `TopicConfig::set` takes them.
    pub async fn create_topic(
        &self,
        name: &TopicName,
        partitions: u32,
        settings: &[(String, String)],
        run: Run,
    ) -> Result<topic_create::Response, ClientError> {
        let settings = settings.to_vec();
        let name = name.clone();
        let request = topic_create::Request { name, partitions, settings, dry_run: dry(run) };
        self.core.call(&request).await
    }

    /// Deletes a topic and its records.
    pub async fn delete_topic(&self, name: &TopicName, run: Run) -> Result<TopicId, ClientError> {
        let request = topic_delete::Request { topic: by_name(name), dry_run: dry(run) };
        Ok(self.core.call(&request).await?.id)
    }

    /// Changes settings.
    pub async fn alter_topic(
        &self,
        name: &TopicName,
        settings: &[(String, String)],
        run: Run,
    ) -> Result<topic_alter::Response, ClientError> {
        let settings = settings.to_vec();
        let request = topic_alter::Request { topic: by_name(name), settings, dry_run: dry(run) };
        self.core.call(&request).await
    }

    /// Raises the number of partitions to `partitions`.
    pub async fn add_partitions(
        &self,
        name: &TopicName,
        partitions: u32,
        run: Run,
    ) -> Result<u32, ClientError> {
        let request =
            partitions_add::Request { topic: by_name(name), partitions, dry_run: dry(run) };
        Ok(self.core.call(&request).await?.partitions)
    }

    /// Everything about one topic.
    pub async fn describe_topic(&self, name: &TopicName) -> Result<TopicDescription, ClientError> {
        let topics =
            crate::protocol::native::metadata::TopicSelector::Names { names: vec![name.clone()] };
        let answer = self.core.call_again(&topic_describe::Request { topics }).await?;
        Ok(first(answer.topics)??)
    }

    /// Everything about every topic.
    pub async fn describe_topics(&self) -> Result<Vec<TopicDescription>, ClientError> {
        let topics = crate::protocol::native::metadata::TopicSelector::All;
        let answer = self.core.call_again(&topic_describe::Request { topics }).await?;
        // A topic that was deleted meanwhile is not one of "every".
        Ok(answer.topics.into_iter().filter_map(Result::ok).collect())
    }

    /// Names, ids and sizes of all topics.
    pub async fn list_topics(&self) -> Result<Vec<Listing>, ClientError> {
        Ok(self.core.call_again(&topic_list::Request {}).await?.topics)
    }

    /// Deletes a partition's records before an offset; says what is the first one now.
    pub async fn trim(
        &self,
        name: &TopicName,
        partition: PartitionId,
        before: Offset,
        run: Run,
    ) -> Result<Offset, ClientError> {
        let topic = self.core.topic(name).await?.id;
        let request = trim::Request { topic, partition, before, dry_run: dry(run) };
        Ok(self.core.call(&request).await?.start)
    }
}

/// Offsets.
impl Admin {
    /// Where reading from `at` would begin, for these partitions or all of the topic.
    pub async fn offsets(
        &self,
        name: &TopicName,
        partitions: Option<&[PartitionId]>,
        at: StartAt,
    ) -> Result<Vec<(PartitionId, Offset)>, ClientError> {
        let (topic, partitions) = self.core.partitions(name, partitions).await?;
        let parts: Vec<_> =
            partitions.iter().map(|p| TopicPartition { topic, partition: *p }).collect();
        let offsets = self.core.offsets(&parts, at).await?;
        Ok(partitions.into_iter().zip(offsets).collect())
    }
}

impl Core {
    /// Where reading from `at` begins, partition by partition.
    pub(super) async fn offsets(
        &self,
        parts: &[TopicPartition],
        at: StartAt,
    ) -> Result<Vec<Offset>, ClientError> {
        let time = match at {
            StartAt::Time(time) => Some(time),
            _ => None,
        };
        let starts = self.list_offsets(parts, &OffsetSpec::Earliest).await?;
        let ends = self.list_offsets(parts, &OffsetSpec::Latest).await?;
        let found = match time {
            Some(time) => self.list_offsets(parts, &OffsetSpec::AtTime { time }).await?,
            None => Vec::new(),
        };
        let mut offsets = Vec::with_capacity(parts.len());
        for (index, (start, end)) in starts.iter().zip(&ends).enumerate() {
            let start = start.offset.unwrap_or(Offset::ZERO);
            let end = end.offset.unwrap_or(start).max(start);
            let offset = match at {
                StartAt::Start => start,
                StartAt::End => end,
                StartAt::Offset(offset) => offset,
                StartAt::Time(_) => found.get(index).and_then(|f| f.offset).unwrap_or(end),
                StartAt::Last(records) => {
                    Offset(end.0.saturating_sub(i64::try_from(records).unwrap_or(i64::MAX)))
                }
            };
            offsets.push(offset.clamp(start, end));
        }
        Ok(offsets)
    }

    async fn list_offsets(
        &self,
        parts: &[TopicPartition],
        at: &OffsetSpec,
    ) -> Result<Vec<Found>, ClientError> {
        let query = |part: &TopicPartition| Query {
            topic: part.topic,
            partition: part.partition,
            at: at.clone(),
        };
        let partitions = parts.iter().map(query).collect();
        let answer = self.call_again(&list_offsets::Request { partitions }).await?;
        if answer.offsets.len() != parts.len() {
            return Err(ClientError::Protocol("offsets of other partitions".to_owned()));
        }
        answer.offsets.into_iter().map(|found| found.map_err(ClientError::from)).collect()
    }
}

/// Groups.
impl Admin {
    /// All groups.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        Ok(self.core.call_again(&group_list::Request {}).await?.groups)
    }

    /// Members, assignment, offsets and lag of one group.
    pub async fn describe_group(&self, group: &GroupId) -> Result<GroupDescription, ClientError> {
        let request = group_describe::Request { groups: vec![group.clone()] };
        Ok(first(self.core.call_again(&request).await?.groups)??)
    }

    /// Deletes a group without members, and its offsets.
    pub async fn delete_group(&self, group: &GroupId, run: Run) -> Result<(), ClientError> {
        let request = group_delete::Request { group: group.clone(), dry_run: dry(run) };
        self.core.call(&request).await.map(|_| ())
    }

    /// Moves the offsets of a group without members.
    pub async fn reset_group(
        &self,
        group: &GroupId,
        topic: &TopicName,
        partitions: Option<Vec<PartitionId>>,
        to: OffsetReset,
        run: Run,
    ) -> Result<Vec<Move>, ClientError> {
        let (group, topic) = (group.clone(), topic.clone());
        let request = group_reset::Request { group, topic, partitions, to, dry_run: dry(run) };
        Ok(self.core.call(&request).await?.moves)
    }

    /// What a group has committed in one topic; partitions without a commit are left out.
    pub async fn committed(
        &self,
        group: &GroupId,
        topic: &TopicName,
    ) -> Result<Vec<(PartitionId, Offset)>, ClientError> {
        let (topic, partitions) = self.core.partitions(topic, None).await?;
        let parts = partitions.into_iter().map(|partition| TopicPartition { topic, partition });
        let request = group_committed::Request {
            group: group.clone(),
            member: None,
            partitions: Some(parts.collect()),
        };
        let answer = self.core.call_again(&request).await?;
        let known = |entry: group_committed::CommittedEntry| {
            entry.committed.map(|committed| (entry.partition, committed.offset))
        };
        Ok(answer.offsets.into_iter().filter_map(known).collect())
    }
}

/// Quotas.
impl Admin {
    /// Changes settings of an entity's quota and makes it when there is none; says what all its
    /// settings are then. `settings` are names and values as `QuotaLimits::set` takes them.
    pub async fn set_quota(
        &self,
        entity: &QuotaEntity,
        settings: &[(String, String)],
        run: Run,
    ) -> Result<QuotaLimits, ClientError> {
        let (entity, settings) = (entity.to_string(), settings.to_vec());
        let request = quota_set::Request { entity, settings, dry_run: dry(run) };
        let answer = self.core.call(&request).await?;
        quota_set::limits_of(&answer.settings).map_err(not_understood)
    }

    /// Removes an entity's quota.
    pub async fn delete_quota(&self, entity: &QuotaEntity, run: Run) -> Result<(), ClientError> {
        let request = quota_delete::Request { entity: entity.to_string(), dry_run: dry(run) };
        self.core.call(&request).await.map(|_| ())
    }

    /// All quotas, by entity, or that of one, with what is used of them now.
    pub async fn quotas(
        &self,
        entity: Option<&QuotaEntity>,
    ) -> Result<Vec<QuotaDescription>, ClientError> {
        let request = quota_list::Request { entity: entity.map(ToString::to_string) };
        let answer = self.core.call_again(&request).await?;
        let quotas = answer.quotas.iter().map(QuotaDescription::try_from);
        quotas.collect::<Result<_, _>>().map_err(not_understood)
    }
}

fn not_understood(error: QuotaError) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// The broker.
impl Admin {
    /// What limits whom, right now.
    pub async fn pressure(&self, query: PressureQuery) -> Result<PressureReport, ClientError> {
        Ok(self.core.call_again(&pressure::Request::from(query)).await?.report)
    }

    /// Who makes `target` wait, what to do about it, and until when.
    pub async fn why(&self, target: Entity) -> Result<WhyReport, ClientError> {
        let Entity { kind, name } = target;
        Ok(self.core.call_again(&why::Request { kind, name }).await?.report)
    }

    /// Ids, addresses and version.
    pub async fn cluster_info(&self) -> Result<ClusterInfo, ClientError> {
        Ok(self.core.call_again(&cluster_info::Request {}).await?.info)
    }
}

fn first<T>(entries: Vec<Result<T, ErrorAnswer>>) -> Result<Result<T, ErrorAnswer>, ClientError> {
    let missing = || ClientError::Protocol("an answer without an entry".to_owned());
    entries.into_iter().next().ok_or_else(missing)
}
