//! Causes with the name they concern, as one number: `backlog:email`, `quota:client/shop`.
//!
//! # Invariants
//! A name is given one number for the life of the process; at most [`NAMES_MAX`] names are kept.
//! What comes later is the bare cause: still true, only less exact.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Cause;

/// Names that are kept: more than the topics, groups and quotas of one broker, and about 4 MiB.
pub const NAMES_MAX: usize = 65_536;

const NAME_BITS: u32 = 24;

/// A cause and the number of its name; fits an atomic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CauseId(u32);

impl CauseId {
    /// Nothing limits.
    pub const NONE: CauseId = CauseId(0);

    /// The cause, or `None` when nothing limits.
    pub fn cause(self) -> Option<Cause> {
        u8::try_from(self.0 >> NAME_BITS).ok().and_then(Cause::from_u8)
    }

    /// As an atomic keeps it.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Back from [`CauseId::bits`].
    pub(super) fn from_bits(bits: u32) -> CauseId {
        CauseId(bits)
    }

    fn with_name(cause: Cause, number: usize) -> CauseId {
        let number = u32::try_from(number).ok().filter(|n| *n < 1 << NAME_BITS).unwrap_or(0);
        CauseId(u32::from(cause.as_u8()) << NAME_BITS | number)
    }

    /// Number of the name, counted from 1; 0 = none.
    fn name(self) -> usize {
        (self.0 & ((1 << NAME_BITS) - 1)) as usize
    }
}

impl From<Cause> for CauseId {
    fn from(cause: Cause) -> CauseId {
        CauseId::with_name(cause, 0)
    }
}

impl fmt::Debug for CauseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.cause().map_or("none", Cause::name), self.name())
    }
}

/// The table of names.
#[derive(Debug, Default)]
pub struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<Arc<str>, usize>,
    names: Vec<Arc<str>>,
}

impl Names {
    /// The cause with this name. Takes a lock: made once per limit, not per batch.
    pub fn id(&self, cause: Cause, name: &str) -> CauseId {
        let mut table = self.table();
        if let Some(number) = table.numbers.get(name) {
            return CauseId::with_name(cause, *number);
        }
        if table.names.len() >= NAMES_MAX {
            return cause.into();
        }
        let name: Arc<str> = name.into();
        table.names.push(Arc::clone(&name));
        let number = table.names.len();
        table.numbers.insert(name, number);
        CauseId::with_name(cause, number)
    }

    /// As reports write it: `none`, `fsync`, `backlog:email`.
    pub fn text(&self, id: CauseId) -> String {
        let Some(cause) = id.cause() else { return "none".to_owned() };
        match self.name(id) {
            Some(name) => format!("{}:{name}", cause.name()),
            None => cause.name().to_owned(),
        }
    }

    /// The name alone: `email` of `backlog:email`.
    pub fn name(&self, id: CauseId) -> Option<Arc<str>> {
        id.name().checked_sub(1).and_then(|at| self.table().names.get(at).cloned())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_number_whatever_the_cause() {
        let names = Names::default();
        let backlog = names.id(Cause::Backlog, "email");
        assert_eq!(names.id(Cause::Backlog, "email"), backlog);
        assert_eq!(names.text(backlog), "backlog:email");
        assert_eq!(names.text(names.id(Cause::Quota, "email")), "quota:email");
        assert_eq!(names.text(Cause::Fsync.into()), "fsync");
        assert_eq!(names.text(CauseId::NONE), "none");
        assert_eq!(CauseId::from_bits(backlog.bits()), backlog);
        assert_eq!((backlog.cause(), CauseId::NONE.cause()), (Some(Cause::Backlog), None));
    }

    #[test]
    fn a_full_table_gives_the_bare_cause() {
        let names = Names::default();
        for number in 0..NAMES_MAX {
            names.id(Cause::Quota, &number.to_string());
        }
        assert_eq!(names.id(Cause::Quota, "one more"), Cause::Quota.into());
        assert_eq!(names.text(names.id(Cause::Backlog, "65535")), "backlog:65535");
    }
}
