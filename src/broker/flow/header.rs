//! What a batch takes as soon as its header came, before its body is read: for a large one, whose body
//! is not wanted when a limit refuses it.
//!
//! # Invariants
//! - What a ticket took is given back exactly once: when it is dropped, or by the batch it becomes.
//!   Nothing is charged twice.
//! - The pool's bytes are those of memory that is really held, whatever length a header claims.

use std::time::Duration;

use super::{Charged, ConnectionFlow, Flow, Reserved};
use crate::types::{Pushback, PushbackCode, PushbackScope};

/// A batch between its header and its admission.
#[must_use = "dropping a ticket undoes what its header took"]
pub struct HeaderTicket {
    pub(super) reserved: Reserved,
    /// What quotas were charged, when there are any.
    pub(super) charged: Option<Box<Charged>>,
}

impl Flow {
    /// Takes what a batch of `bytes` costs its connection, but for its records, which nobody knows
    /// yet.
    pub fn admit_header(
        &self,
        connection: &ConnectionFlow,
        bytes: u64,
        now: Duration,
    ) -> Result<HeaderTicket, Pushback> {
        let most = self.pool.batch_bytes_max();
        if bytes > most {
            let never = Pushback::reject(PushbackCode::ServerBusy, PushbackScope::Broker, "pool");
            return Err(never.met(bytes, most, "bytes"));
        }
        let reserved = self.pool.reserve(connection.share());
        let charged = connection.charge_header(bytes, now).map_err(|refusal| refusal.pushback())?;
        Ok(HeaderTicket { reserved, charged })
    }
}

impl HeaderTicket {
    /// Takes what is held in memory for the batch now.
    pub fn hold(&mut self, bytes: u64, now: Duration) -> Result<(), Pushback> {
        self.reserved.resize(bytes, now)
    }
}

impl std::fmt::Debug for HeaderTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderTicket")
            .field("bytes", &self.reserved.bytes())
            .finish_non_exhaustive()
    }
}
