//! Faults on demand: the n-th operation a fault can hit fails.

use std::io;

use rustix::io::Errno;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO from any operation. A write that meets it leaves some first part of its bytes, a sync
    /// behaves like [`Fault::SyncFailed`].
    Eio,
    /// ENOSPC from whatever needs room: write, allocate, create, rename.
    Enospc,
    /// A write that takes only part of its bytes and says so.
    ShortWrite,
    /// EIO from a sync. Afterwards the pages count as clean: memory keeps the new bytes, the
    /// device holds any version, and later syncs succeed without writing them.
    SyncFailed,
}

/// Kinds of operations, as far as faults tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A file that is there is opened.
    Open,
    /// A file or directory is made.
    Create,
    /// The names in a directory are read.
    ReadDir,
    /// A name changes.
    Rename,
    /// A file or directory is removed.
    Remove,
    /// Names are made durable.
    SyncDir,
    /// Bytes are written.
    Write,
    /// Bytes are read.
    Read,
    /// Bytes are made durable.
    Sync,
    /// Space is allocated.
    Allocate,
    /// A length is set.
    SetLen,
    /// A part of a map is brought into memory.
    Populate,
}

impl Fault {
    fn can_hit(self, op: Op) -> bool {
        match self {
            Fault::Eio => true,
            Fault::Enospc => matches!(op, Op::Write | Op::Allocate | Op::Create | Op::Rename),
            Fault::ShortWrite => op == Op::Write,
            Fault::SyncFailed => matches!(op, Op::Sync | Op::SyncDir),
        }
    }

    /// The errno an operation answers with.
    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::Enospc => Errno::NOSPC.into(),
            Fault::Eio | Fault::ShortWrite | Fault::SyncFailed => Errno::IO.into(),
        }
    }
}

/// A fault waiting for its turn.
#[derive(Clone, Debug)]
pub(super) struct FaultPlan {
    fault: Fault,
    /// Operations it could hit that still pass before it does.
    passes: u64,
    repeats: bool,
    /// The first operation it hit.
    struck: Option<Op>,
}

impl FaultPlan {
    pub(super) fn once(passes: u64, fault: Fault) -> FaultPlan {
        FaultPlan { fault, passes, repeats: false, struck: None }
    }

    pub(super) fn from_then_on(passes: u64, fault: Fault) -> FaultPlan {
        FaultPlan { fault, passes, repeats: true, struck: None }
    }

    pub(super) fn struck(&self) -> Option<Op> {
        self.struck
    }

    /// The fault that hits this operation, if one does.
    pub(super) fn strike(&mut self, op: Op) -> Option<Fault> {
        if !self.fault.can_hit(op) || (self.struck.is_some() && !self.repeats) {
            return None;
        }
        if self.passes > 0 {
            self.passes -= 1;
            return None;
        }
        self.struck.get_or_insert(op);
        Some(self.fault)
    }
}
