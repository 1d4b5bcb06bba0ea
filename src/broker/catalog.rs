//! The catalog: which topics and quotas there are. One record makes a topic; a deleted one leaves a tombstone
//! until its directories are gone.
//!
//! Settings are stored as the text that people write, so that a later version with more settings
//! reads the records of this one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::internal_log::Machine;
use crate::types::{
    ConfigError, PartitionId, QuotaEntity, QuotaError, QuotaLimits, TopicConfig, TopicId,
    TopicName, TopicPartition,
};

/// One change of the catalog. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogRecord {
    /// A topic exists from now on.
    TopicCreated {
        /// Its identity.
        id: TopicId,
        /// Its name.
        name: TopicName,
        /// Number of its partitions.
        partitions: u32,
        /// Its settings.
        config: StoredConfig,
    },
    /// It has other settings.
    TopicAltered {
        /// Which.
        id: TopicId,
        /// All its settings.
        config: StoredConfig,
    },
    /// It has more partitions.
    PartitionsAdded {
        /// Which.
        id: TopicId,
        /// Number of its partitions from now on.
        partitions: u32,
    },
    /// It is gone; directories may remain.
    TopicDeleted {
        /// Which.
        id: TopicId,
    },
    /// The directories of a deleted topic are gone too.
    TopicPurged {
        /// Which.
        id: TopicId,
    },
    /// These partitions have files: should their directories be missing, data is missing.
    Materialised {
        /// Which.
        partitions: Vec<TopicPartition>,
    },
    /// Somebody has these limits from now on, and no others.
    QuotaSet {
        /// Who, as `QuotaEntity` writes it.
        entity: String,
        /// All its settings.
        settings: StoredConfig,
    },
    /// Somebody has no limits of its own any more.
    QuotaDeleted {
        /// Who.
        entity: String,
    },
}

/// Settings as `entries` gives and `set` takes them, of a topic or a quota.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConfig(Vec<(String, String)>);

/// One topic of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTopic {
    /// Its name.
    pub name: TopicName,
    /// Number of its partitions.
    pub partitions: u32,
    /// Its settings.
    pub config: StoredConfig,
    /// Partitions that have files.
    pub materialised: BTreeSet<PartitionId>,
}

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    topics: BTreeMap<TopicId, CatalogTopic>,
    names: BTreeMap<TopicName, TopicId>,
    /// Deleted topics whose directories may remain, with their number of partitions.
    tombstones: BTreeMap<TopicId, u32>,
    partitions: u64,
    quotas: BTreeMap<String, StoredConfig>,
}

impl StoredConfig {
    /// The stored form of settings.
    pub fn of(config: &TopicConfig) -> StoredConfig {
        StoredConfig(config.entries().into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    /// The settings.
    ///
    /// # Errors
    /// A setting that this version does not know: the record was written by a newer one.
    pub fn read(&self) -> Result<TopicConfig, ConfigError> {
        let mut config = TopicConfig::default();
        for (key, value) in &self.0 {
            config.set(key, value)?;
        }
        Ok(config)
    }
}

impl StoredConfig {
    /// The stored form of a quota.
    pub fn of_quota(limits: &QuotaLimits) -> StoredConfig {
        StoredConfig(limits.entries().into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    /// The quota.
    ///
    /// # Errors
    /// A setting that this version does not know: the record was written by a newer one.
    pub fn read_quota(&self) -> Result<QuotaLimits, QuotaError> {
        let mut limits = QuotaLimits::default();
        for (key, value) in &self.0 {
            limits.set(key, value)?;
        }
        Ok(limits)
    }
}

impl Catalog {
    /// All quotas.
    ///
    /// # Errors
    /// A record that this version cannot read: it was written by a newer one.
    pub fn quotas(&self) -> Result<BTreeMap<QuotaEntity, QuotaLimits>, QuotaError> {
        let read = |(entity, settings): (&String, &StoredConfig)| {
            Ok((entity.parse()?, settings.read_quota()?))
        };
        self.quotas.iter().map(read).collect()
    }

    /// All topics, by id.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &CatalogTopic)> {
        self.topics.iter().map(|(id, topic)| (*id, topic))
    }

    /// The topic with this id.
    pub fn topic(&self, id: TopicId) -> Option<&CatalogTopic> {
        self.topics.get(&id)
    }

    /// The id of this name.
    pub fn id_of(&self, name: &TopicName) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    /// Deleted topics whose directories may remain, with their number of partitions.
    pub fn tombstones(&self) -> impl Iterator<Item = (TopicId, u32)> {
        self.tombstones.iter().map(|(id, partitions)| (*id, *partitions))
    }

    /// Whether the id was ever given to a topic that still leaves a trace.
    pub fn knows(&self, id: TopicId) -> bool {
        self.topics.contains_key(&id) || self.tombstones.contains_key(&id)
    }

    /// Number of topics and of their partitions.
    pub fn counts(&self) -> (u64, u64) {
        (self.topics.len() as u64, self.partitions)
    }
}

impl Machine for Catalog {
    type Record = CatalogRecord;

    fn apply(&mut self, record: &CatalogRecord) {
        match record {
            CatalogRecord::TopicCreated { id, name, partitions, config } => {
                self.create(*id, name, *partitions, config);
            }
            CatalogRecord::TopicAltered { id, config } => {
                if let Some(topic) = self.topics.get_mut(id) {
                    topic.config = config.clone();
                }
            }
            CatalogRecord::PartitionsAdded { id, partitions } => {
                if let Some(topic) = self.topics.get_mut(id) {
                    let more = partitions.saturating_sub(topic.partitions);
                    topic.partitions += more;
                    self.partitions += u64::from(more);
                }
            }
            CatalogRecord::TopicDeleted { id } => {
                if let Some(topic) = self.topics.remove(id) {
                    self.names.remove(&topic.name);
                    self.partitions -= u64::from(topic.partitions);
                    self.tombstones.insert(*id, topic.partitions);
                }
            }
            CatalogRecord::TopicPurged { id } => {
                self.tombstones.remove(id);
            }
            CatalogRecord::Materialised { partitions } => {
                for at in partitions {
                    if let Some(topic) = self.topics.get_mut(&at.topic) {
                        topic.materialised.insert(at.partition);
                    }
                }
            }
            CatalogRecord::QuotaSet { entity, settings } => {
                self.quotas.insert(entity.clone(), settings.clone());
            }
            CatalogRecord::QuotaDeleted { entity } => {
                self.quotas.remove(entity);
            }
        }
    }

    fn snapshot(&self) -> Vec<CatalogRecord> {
        let mut records = Vec::with_capacity(self.topics.len() + 2 * self.tombstones.len());
        for (id, partitions) in &self.tombstones {
            // A tombstone is the trace of a topic that was made and deleted.
            let name = "tombstone".parse().expect("a valid name");
            let (id, partitions, config) = (*id, *partitions, StoredConfig::default());
            records.push(CatalogRecord::TopicCreated { id, name, partitions, config });
            records.push(CatalogRecord::TopicDeleted { id });
        }
        for (id, topic) in &self.topics {
            let CatalogTopic { name, partitions, config, materialised } = topic.clone();
            let partition = |partition| TopicPartition { topic: *id, partition };
            records.push(CatalogRecord::TopicCreated { id: *id, name, partitions, config });
            if !materialised.is_empty() {
                let partitions = materialised.into_iter().map(partition).collect();
                records.push(CatalogRecord::Materialised { partitions });
            }
        }
        for (entity, settings) in self.quotas.clone() {
            records.push(CatalogRecord::QuotaSet { entity, settings });
        }
        records
    }
}

impl Catalog {
    /// A second topic of the same name or id cannot come from this code: it is not made.
    fn create(&mut self, id: TopicId, name: &TopicName, partitions: u32, config: &StoredConfig) {
        if self.knows(id) || self.names.contains_key(name) {
            return;
        }
        let topic = CatalogTopic {
            name: name.clone(),
            partitions,
            config: config.clone(),
            materialised: BTreeSet::new(),
        };
        self.names.insert(name.clone(), id);
        self.topics.insert(id, topic);
        self.partitions += u64::from(partitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u8) -> TopicId {
        TopicId::from_bytes([number; 16])
    }

    fn record() -> impl Strategy<Value = CatalogRecord> {
        let topic = || (0u8..4).prop_map(id);
        prop_oneof![
            (0u8..4, 0u8..3, 1u32..5).prop_map(|(number, name, partitions)| {
                CatalogRecord::TopicCreated {
                    id: id(number),
                    name: format!("topic-{name}").parse().expect("a name"),
                    partitions,
                    config: StoredConfig::of(&TopicConfig::default()),
                }
            }),
            topic()
                .prop_map(|id| CatalogRecord::TopicAltered { id, config: StoredConfig::default() }),
            (topic(), 1u32..9)
                .prop_map(|(id, partitions)| CatalogRecord::PartitionsAdded { id, partitions }),
            topic().prop_map(|id| CatalogRecord::TopicDeleted { id }),
            topic().prop_map(|id| CatalogRecord::TopicPurged { id }),
            (topic(), 0u32..4).prop_map(|(topic, partition)| CatalogRecord::Materialised {
                partitions: vec![TopicPartition { topic, partition: PartitionId(partition) }],
            }),
            (0u8..4, 1u64..3).prop_map(|(client, rate)| {
                let settings = vec![("produce_bytes".to_owned(), rate.to_string())];
                CatalogRecord::QuotaSet {
                    entity: format!("client/{client}"),
                    settings: StoredConfig(settings),
                }
            }),
            (0u8..4).prop_map(|client| CatalogRecord::QuotaDeleted {
                entity: format!("client/{client}"),
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_snapshot_makes_the_same_state(records in prop::collection::vec(record(), 0..60)) {
            let mut catalog = Catalog::default();
            for record in &records {
                catalog.apply(record);
                let names: BTreeSet<_> = catalog.topics().map(|(_, t)| t.name.clone()).collect();
                prop_assert_eq!(names.len(), catalog.topics.len(), "names are unique");
                let sum: u64 = catalog.topics().map(|(_, t)| u64::from(t.partitions)).sum();
                prop_assert_eq!(catalog.counts().1, sum);
            }
            let mut again = Catalog::default();
            catalog.snapshot().iter().for_each(|record| again.apply(record));
            prop_assert_eq!(again, catalog);
        }
    }

    #[test]
    fn settings_survive_as_text() {
        let mut config = TopicConfig::default();
        config.set("durability", "interval:250ms").expect("a setting");
        config.set("max_bytes", "1GiB").expect("a setting");
        assert_eq!(StoredConfig::of(&config).read(), Ok(config));
        let newer = StoredConfig(vec![("shiny".to_owned(), "1".to_owned())]);
        assert!(newer.read().is_err());
    }
}
