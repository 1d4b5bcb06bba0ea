//! Producer ids, handed out from durable blocks: one record per thousand ids, and an id is never
//! given out twice, whatever crashes.

use serde::{Deserialize, Serialize};

use super::error::InitProducerError;
use super::internal_log::{InternalLog, Machine};
use super::request::ProducerIdentity;
use crate::types::{ProducerEpoch, ProducerId};

/// Ids per record.
const BLOCK: i64 = 1_000;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProducerIdRecord {
    /// Ids below this may have been given out.
    BlockTaken {
        /// The first id of the next block.
        next: i64,
    },
}

/// The state: where the next block begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerBlocks {
    next: i64,
}

/// Hands out ids.
pub struct ProducerIds {
    log: InternalLog<ProducerBlocks>,
    /// The next id of the current block; the block ends at the log's `next`.
    next: i64,
}

impl Machine for ProducerBlocks {
    type Record = ProducerIdRecord;

    fn apply(&mut self, record: &ProducerIdRecord) {
        let ProducerIdRecord::BlockTaken { next } = record;
        self.next = self.next.max(*next);
    }

    fn snapshot(&self) -> Vec<ProducerIdRecord> {
        vec![ProducerIdRecord::BlockTaken { next: self.next }]
    }
}

impl ProducerIds {
    /// Goes on after everything that may have been given out before.
    pub fn new(log: InternalLog<ProducerBlocks>) -> ProducerIds {
        let next = log.machine().next;
        ProducerIds { log, next }
    }

    /// A new id with epoch 0, or for a `known` identity the next epoch, which fences the last.
    pub async fn init(
        &mut self,
        known: Option<ProducerIdentity>,
    ) -> Result<ProducerIdentity, InitProducerError> {
        if let Some(ProducerIdentity { id, epoch }) = known {
            if !(0..self.next).contains(&id.0) || epoch.0 < 0 {
                return Err(InitProducerError::UnknownProducer(id.0));
            }
            if let Some(epoch) = epoch.0.checked_add(1) {
                return Ok(ProducerIdentity { id, epoch: ProducerEpoch(epoch) });
            }
            // Epochs are used up: a new id has new ones.
        }
        if self.next >= self.log.machine().next {
            let next = self.log.machine().next + BLOCK;
            self.log.commit(&[ProducerIdRecord::BlockTaken { next }]).await?;
        }
        let id = ProducerId(self.next);
        self.next += 1;
        Ok(ProducerIdentity { id, epoch: ProducerEpoch(0) })
    }
}
