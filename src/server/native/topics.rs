//! Topics and partitions: metadata, administration, offsets.

use std::sync::Arc;

use super::error::{ToAnswer, no_topic};
use super::link::Link;
use crate::broker::flow::Cost;
use crate::broker::{
    AlterTopicError, CreateTopicError, FetchError, NewTopic, OffsetQuery, ReservedTopic, Topic,
    TrimError,
};
use crate::protocol::native::list_offsets::{self, OffsetSpec};
use crate::protocol::native::metadata::{self, Entry, TopicMetadata, TopicSelector};
use crate::protocol::native::topic_delete::{self, TopicRef};
use crate::protocol::native::{
    ErrorAnswer, partitions_add, topic_alter, topic_create, topic_describe, topic_list, trim,
};
use crate::types::{TopicConfig, TopicDescription, TopicId, TopicName};

pub(super) async fn metadata(
    link: Arc<Link>,
    request: metadata::Request,
) -> Result<metadata::Response, ErrorAnswer> {
    let node = link.broker().cluster_info();
    let entries = selected(&link, request.topics);
    let topics = entries
        .into_iter()
        .map(|(name, id, topic)| Entry {
            name,
            id,
            topic: topic.map(|topic| describe_for_clients(&topic, node.node_id)),
        })
        .collect();
    let address = node.advertised.iter().find(|(protocol, _)| protocol == "native");
    let address =
        address.map_or_else(|| link.shared.address.to_string(), |(_, address)| address.clone());
    let nodes = vec![metadata::Node { node_id: node.node_id, address }];
    Ok(metadata::Response { nodes, topics })
}

fn describe_for_clients(topic: &Topic, node: i32) -> TopicMetadata {
    let config = topic.config();
    let partitions = topic.partitions();
    let partitions = partitions.iter().map(|partition| metadata::PartitionMetadata {
        partition: partition.id().partition,
        leader: node,
        leader_epoch: partition.leader_epoch(),
    });
    TopicMetadata {
        partitions: partitions.collect(),
        max_message_bytes: config.max_message_bytes,
        timestamp_type: config.timestamp_type,
        compression: config.compression,
    }
}

type Selected = (Option<TopicName>, Option<TopicId>, Result<Arc<Topic>, ErrorAnswer>);

fn selected(link: &Link, selector: TopicSelector) -> Vec<Selected> {
    let broker = link.broker();
    let found = |topic: Arc<Topic>| (Some(topic.name().clone()), Some(topic.id()), Ok(topic));
    match selector {
        TopicSelector::All => broker.topics().into_iter().map(found).collect(),
        TopicSelector::Names { names } => {
            let find = |name: TopicName| match broker.topic(&name) {
                Some(topic) => found(topic),
                None => {
                    let error = no_topic(&name);
                    (Some(name), None, Err(error))
                }
            };
            names.into_iter().map(find).collect()
        }
        TopicSelector::Ids { ids } => {
            let find = |id: TopicId| match broker.topic_by_id(id) {
                Some(topic) => found(topic),
                None => (None, Some(id), Err(no_topic(id))),
            };
            ids.into_iter().map(find).collect()
        }
    }
}

fn referred(link: &Link, topic: &TopicRef) -> Result<Arc<Topic>, ErrorAnswer> {
    match topic {
        TopicRef::Name { name } => link.broker().topic(name).ok_or_else(|| no_topic(name)),
        TopicRef::Id { id } => link.broker().topic_by_id(*id).ok_or_else(|| no_topic(id)),
    }
}

/// The topic, unless it is the broker's own.
fn changeable(link: &Link, topic: &TopicRef) -> Result<Arc<Topic>, ErrorAnswer> {
    let topic = referred(link, topic)?;
    if topic.name().is_reserved() {
        return Err(AlterTopicError::from(ReservedTopic(topic.name().clone())).to_answer());
    }
    Ok(topic)
}

fn changed(
    mut config: TopicConfig,
    settings: &[(String, String)],
) -> Result<TopicConfig, ErrorAnswer> {
    for (key, value) in settings {
        config.set(key, value).map_err(|error| error.to_answer())?;
    }
    Ok(config)
}

pub(super) async fn create(
    link: Arc<Link>,
    request: topic_create::Request,
) -> Result<topic_create::Response, ErrorAnswer> {
    let config = changed(TopicConfig::default(), &request.settings)?;
    if request.dry_run {
        let taken = link.broker().topic(&request.name).is_some();
        let refusal = match (request.partitions, taken) {
            (0, _) => Some(CreateTopicError::NoPartitions),
            (_, true) => Some(CreateTopicError::Exists(request.name)),
            (partitions, false) => {
                let fits = link.broker().check_topic(&config, partitions);
                fits.err().map(CreateTopicError::Config)
            }
        };
        return match refusal {
            Some(error) => Err(error.to_answer()),
            None => Ok(topic_create::Response { id: TopicId::from_bytes([0; 16]), config }),
        };
    }
    let new = NewTopic { name: request.name, partitions: request.partitions, config };
    link.charge(&Cost { partitions: u64::from(request.partitions), ..Cost::default() })?;
    let topic = link.broker().create_topic(new).await.map_err(|error| error.to_answer())?;
    Ok(topic_create::Response { id: topic.id(), config: (*topic.config()).clone() })
}

pub(super) async fn delete(
    link: Arc<Link>,
    request: topic_delete::Request,
) -> Result<topic_delete::Response, ErrorAnswer> {
    let topic = changeable(&link, &request.topic)?;
    if !request.dry_run {
        let deleted = link.broker().delete_topic(topic.name()).await;
        deleted.map_err(|error| error.to_answer())?;
    }
    Ok(topic_delete::Response { id: topic.id() })
}

pub(super) async fn alter(
    link: Arc<Link>,
    request: topic_alter::Request,
) -> Result<topic_alter::Response, ErrorAnswer> {
    let topic = changeable(&link, &request.topic)?;
    if request.dry_run {
        let config = changed((*topic.config()).clone(), &request.settings)?;
        let fits = link.broker().check_topic(&config, topic.partition_count());
        fits.map_err(|cause| AlterTopicError::Config(cause).to_answer())?;
        return Ok(topic_alter::Response { id: topic.id(), config });
    }
    let altered = link.broker().alter_topic(topic.name(), request.settings).await;
    let topic = altered.map_err(|error| error.to_answer())?;
    Ok(topic_alter::Response { id: topic.id(), config: (*topic.config()).clone() })
}

pub(super) async fn add_partitions(
    link: Arc<Link>,
    request: partitions_add::Request,
) -> Result<partitions_add::Response, ErrorAnswer> {
    let topic = changeable(&link, &request.topic)?;
    if request.dry_run {
        let (has, asked) = (topic.partition_count(), request.partitions);
        if asked < has {
            return Err(AlterTopicError::FewerPartitions { has, asked }.to_answer());
        }
        return Ok(partitions_add::Response { id: topic.id(), partitions: asked });
    }
    let more = request.partitions.saturating_sub(topic.partition_count());
    link.charge(&Cost { partitions: u64::from(more), ..Cost::default() })?;
    let grown = link.broker().add_partitions(topic.name(), request.partitions).await;
    let topic = grown.map_err(|error| error.to_answer())?;
    Ok(partitions_add::Response { id: topic.id(), partitions: topic.partition_count() })
}

pub(super) async fn describe(
    link: Arc<Link>,
    request: topic_describe::Request,
) -> Result<topic_describe::Response, ErrorAnswer> {
    let topics = selected(&link, request.topics);
    let describe = |(_, _, topic): Selected| topic.map(|topic| topic.describe());
    let topics: Vec<Result<TopicDescription, ErrorAnswer>> =
        topics.into_iter().map(describe).collect();
    Ok(topic_describe::Response { topics })
}

pub(super) async fn list(
    link: Arc<Link>,
    _request: topic_list::Request,
) -> Result<topic_list::Response, ErrorAnswer> {
    let topics = link.broker().topics();
    let topics = topics.iter().map(|topic| topic_list::Listing {
        name: topic.name().clone(),
        id: topic.id(),
        partitions: topic.partition_count(),
    });
    Ok(topic_list::Response { topics: topics.collect() })
}

pub(super) async fn list_offsets(
    link: Arc<Link>,
    request: list_offsets::Request,
) -> Result<list_offsets::Response, ErrorAnswer> {
    let mut offsets = Vec::with_capacity(request.partitions.len());
    for query in &request.partitions {
        offsets.push(find(&link, query).await.map_err(|error| error.to_answer()));
    }
    Ok(list_offsets::Response { offsets })
}

async fn find(link: &Link, query: &list_offsets::Query) -> Result<list_offsets::Found, FetchError> {
    let topic = link.broker().topic_by_id(query.topic).ok_or(FetchError::TopicNotFound)?;
    let partition =
        topic.partition(query.partition).ok_or(FetchError::PartitionNotFound(query.partition))?;
    let at = match query.at {
        OffsetSpec::Earliest => OffsetQuery::Earliest,
        OffsetSpec::Latest => OffsetQuery::Latest,
        OffsetSpec::AtTime { time } => OffsetQuery::AtTime(time),
    };
    let found = partition.find(at).await?;
    let missed = matches!(at, OffsetQuery::AtTime(_)) && found.timestamp.is_none();
    Ok(list_offsets::Found {
        offset: (!missed).then_some(found.offset),
        timestamp: found.timestamp,
        leader_epoch: partition.leader_epoch(),
    })
}

pub(super) async fn trim(
    link: Arc<Link>,
    request: trim::Request,
) -> Result<trim::Response, ErrorAnswer> {
    let trim::Request { topic, partition, before, dry_run } = request;
    if dry_run {
        let start = dry_trim(&link, &request).map_err(|error| error.to_answer())?;
        return Ok(trim::Response { start });
    }
    let trimmed = link.broker().trim(topic, partition, before).await;
    trimmed.map(|start| trim::Response { start }).map_err(|error| error.to_answer())
}

fn dry_trim(link: &Link, request: &trim::Request) -> Result<crate::types::Offset, TrimError> {
    let topic = link.broker().topic_by_id(request.topic).ok_or(TrimError::TopicNotFound)?;
    let partition = topic
        .partition(request.partition)
        .ok_or(TrimError::PartitionNotFound(request.partition))?;
    let (start, end) = partition.span();
    if request.before > end {
        return Err(TrimError::OffsetOutOfRange { end });
    }
    Ok(request.before.max(start))
}
