//! The server under load.

use super::{BenchError, Usage, WorkloadOptions};
use crate::client::{Client, ClientError, ClientOptions, Run};
use crate::types::{ErrorCode, TopicName};

/// A server that speaks the native protocol.
#[derive(Clone, Debug)]
pub struct Target {
    /// `broker` or `floor`, for the report.
    pub name: &'static str,
    /// HOST:PORT.
    pub address: String,
    /// Its process, when it is on this machine and known.
    pub pid: Option<u32>,
}

impl Target {
    /// A connection of its own.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        let options =
            ClientOptions { client_id: "stoplog-bench".to_owned(), ..ClientOptions::default() };
        Client::connect(&self.address, options).await
    }

    /// What its process has used so far.
    pub fn usage(&self) -> Option<Usage> {
        self.pid.and_then(Usage::of)
    }

    /// Makes the topic of a workload unless it exists.
    pub async fn create_topic(
        &self,
        options: &WorkloadOptions,
        settings: &[(String, String)],
    ) -> Result<(), BenchError> {
        let name: TopicName = options.topic.parse()?;
        let client = self.connect().await?;
        match client.admin().create_topic(&name, options.partitions, settings, Run::Really).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == ErrorCode::TopicExists => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the topic of a workload.
    pub async fn delete_topic(&self, options: &WorkloadOptions) -> Result<(), BenchError> {
        let client = self.connect().await?;
        client.admin().delete_topic(&options.topic.parse()?, Run::Really).await?;
        Ok(())
    }
}
