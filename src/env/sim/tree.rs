//! Names of the simulated disk: directories as memory shows them, and as the device may hold them.
//!
//! Each change of a name waits until every directory it touches was synced. A crash keeps any
//! subset of the waiting changes, each whole (a rename never leaves neither name), and together
//! with a change all earlier ones of the same name or the same file.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of a file or directory; 0 is the root.
pub(super) type Ino = u32;
pub(super) const ROOT: Ino = 0;

pub(super) type Names = BTreeMap<Arc<str>, Ino>;

/// One directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) names: Names,
    pub(super) durable: Names,
}

/// A name that becomes (`Some`) or stops being (`None`) a file's.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) dir: Ino,
    pub(super) name: Arc<str>,
    pub(super) to: Option<Ino>,
}

/// A change of one or two names that survives a crash as a whole.
#[derive(Clone, Debug)]
pub(super) struct DirOp {
    /// What was created, moved or removed.
    ino: Ino,
    changes: Vec<NameChange>,
    /// Directories whose sync it still needs.
    waiting: Vec<Ino>,
}

impl DirOp {
    pub(super) fn new(ino: Ino, changes: Vec<NameChange>) -> DirOp {
        let mut waiting: Vec<Ino> = changes.iter().map(|c| c.dir).collect();
        waiting.dedup();
        DirOp { ino, changes, waiting }
    }

    pub(super) fn changes(&self) -> &[NameChange] {
        &self.changes
    }

    fn depends_on(&self, earlier: &DirOp) -> bool {
        self.ino == earlier.ino
            || self
                .changes
                .iter()
                .any(|c| earlier.changes.iter().any(|e| e.dir == c.dir && e.name == c.name))
    }
}

/// Adds to `chosen` whatever the chosen ones depend on.
pub(super) fn close_over(ops: &[DirOp], chosen: &mut [bool]) {
    for later in (0..ops.len()).rev() {
        if !chosen[later] {
            continue;
        }
        for earlier in 0..later {
            if ops[later].depends_on(&ops[earlier]) {
                chosen[earlier] = true;
            }
        }
    }
}

/// Notes that `dir` was synced; returns the operations that are durable now, in order.
pub(super) fn synced(pending: &mut Vec<DirOp>, dir: Ino) -> Vec<DirOp> {
    for op in pending.iter_mut() {
        op.waiting.retain(|d| *d != dir);
    }
    let mut done: Vec<bool> = pending.iter().map(|op| op.waiting.is_empty()).collect();
    close_over(pending, &mut done);
    let mut done = done.into_iter();
    pending.extract_if(.., |_| done.next().unwrap_or(false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(dir: Ino, name: &str, ino: Ino) -> NameChange {
        NameChange { dir, name: name.into(), to: Some(ino) }
    }

    fn unlink(dir: Ino, name: &str) -> NameChange {
        NameChange { dir, name: name.into(), to: None }
    }

    #[test]
    fn a_rename_across_directories_waits_for_both() {
        let mut pending = vec![DirOp::new(7, vec![unlink(1, "a"), link(2, "b", 7)])];
        assert!(synced(&mut pending, 2).is_empty());
        assert_eq!(synced(&mut pending, 1).len(), 1);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_durable_change_takes_earlier_ones_of_its_file_along() {
        let mut pending = vec![
            DirOp::new(7, vec![link(1, "a", 7)]),
            DirOp::new(8, vec![link(1, "other", 8)]),
            DirOp::new(7, vec![unlink(1, "a"), link(1, "b", 7)]),
        ];
        let mut chosen = vec![false, false, true];
        close_over(&pending, &mut chosen);
        assert_eq!(chosen, [true, false, true]);
        assert_eq!(synced(&mut pending, 1).len(), 3);
    }
}
