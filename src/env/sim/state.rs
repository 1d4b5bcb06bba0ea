//! Everything a simulated disk holds, behind its one lock. Cloning it shares file contents.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::crash::{Unit, mix};
use super::faults::{Fault, FaultPlan, Op};
use super::image::FileImage;
use super::tree::{self, Dir, DirOp, Ino, NameChange, Names, ROOT};

/// Room on a new disk: small, so that reserve files stay small too.
pub(super) const CAPACITY_BYTES: u64 = 64 << 20;

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Arc<FileImage>),
    Dir(Arc<Dir>),
}

/// A file or directory, whether or not it still has a name.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    pub(super) linked: bool,
    pub(super) handles: u32,
}

#[derive(Debug)]
pub(super) struct State {
    /// By number; `None` once nothing can reach it any more.
    pub(super) nodes: Vec<Option<Node>>,
    waiting: Vec<DirOp>,
    /// Moment of the last change, to order versions.
    moment: u64,
    pub(super) seed: u64,
    pub(super) boot: u64,
    pub(super) halted: bool,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) capacity: u64,
    pub(super) resident: bool,
    pub(super) plan: Option<FaultPlan>,
    pub(super) ops: u64,
    pub(super) syncs: u64,
    pub(super) bytes_read: u64,
    pub(super) trace: u64,
    /// States after each change, while they are recorded.
    pub(super) recording: Option<Vec<State>>,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        let root = Node { body: Body::Dir(Arc::new(Dir::default())), linked: true, handles: 0 };
        State {
            nodes: vec![Some(root)],
            waiting: Vec::new(),
            moment: 0,
            seed,
            boot: mix(seed),
            halted: false,
            locks: BTreeSet::new(),
            capacity: CAPACITY_BYTES,
            resident: true,
            plan: None,
            ops: 0,
            syncs: 0,
            bytes_read: 0,
            trace: 0,
            recording: None,
        }
    }

    /// The same disk for another process: no handles, locks, faults or recording.
    pub(super) fn fork(&self) -> State {
        let mut nodes = self.nodes.clone();
        for node in nodes.iter_mut().flatten() {
            node.handles = 0;
        }
        State {
            nodes,
            waiting: self.waiting.clone(),
            moment: self.moment,
            seed: self.seed,
            boot: self.boot,
            halted: false,
            locks: BTreeSet::new(),
            capacity: self.capacity,
            resident: self.resident,
            plan: None,
            ops: self.ops,
            syncs: self.syncs,
            bytes_read: self.bytes_read,
            trace: self.trace,
            recording: None,
        }
    }

    /// What the device holds after a crash, with a new boot id.
    pub(super) fn crash(&self, choose: &mut dyn FnMut(Unit, usize) -> usize) -> State {
        let mut chosen: Vec<bool> =
            (0..self.waiting.len()).map(|index| choose(Unit::DirOp { index }, 2) == 1).collect();
        tree::close_over(&self.waiting, &mut chosen);
        let kept = self.waiting.iter().zip(&chosen).filter(|(_, kept)| **kept).map(|(op, _)| op);
        let changes: Vec<&NameChange> = kept.flat_map(DirOp::changes).collect();
        let mut after = State::new(self.seed);
        after.nodes.clear();
        self.copy_reachable(ROOT, &changes, choose, &mut after.nodes);
        after.boot = mix(self.boot);
        after.capacity = self.capacity;
        after.resident = self.resident;
        after
    }

    fn copy_reachable(
        &self,
        ino: Ino,
        changes: &[&NameChange],
        choose: &mut dyn FnMut(Unit, usize) -> usize,
        nodes: &mut Vec<Option<Node>>,
    ) -> Ino {
        let number = Ino::try_from(nodes.len()).expect("few files");
        nodes.push(None);
        let body = match &self.node(ino).body {
            Body::File(image) => Body::File(match image.is_settled() {
                true => Arc::clone(image),
                false => Arc::new(image.crash(ino, choose)),
            }),
            Body::Dir(dir) => {
                let mut durable = dir.durable.clone();
                for change in changes.iter().filter(|c| c.dir == ino) {
                    apply(&mut durable, change);
                }
                let mut names = Names::new();
                for (name, child) in durable {
                    names.insert(name, self.copy_reachable(child, changes, choose, nodes));
                }
                Body::Dir(Arc::new(Dir { durable: names.clone(), names }))
            }
        };
        nodes[number as usize] = Some(Node { body, linked: true, handles: 0 });
        number
    }

    /// Counts an operation and lets a planned fault strike. `Ok(Some)` is one that leaves traces,
    /// which the caller makes: a write that did part of its work, a failed sync.
    pub(super) fn begin(&mut self, op: Op) -> io::Result<Option<Fault>> {
        if self.halted {
            return Err(Errno::IO.into());
        }
        self.ops += 1;
        self.syncs += u64::from(matches!(op, Op::Sync | Op::SyncDir));
        match self.plan.as_mut().and_then(|plan| plan.strike(op)) {
            None => Ok(None),
            Some(Fault::Enospc) => Err(Fault::Enospc.error()),
            Some(fault) if matches!(op, Op::Write | Op::Sync) => Ok(Some(fault)),
            Some(fault) => Err(fault.error()),
        }
    }

    /// Notes a change in the trace and in the recording.
    pub(super) fn changed(&mut self, op: Op, what: &[u64]) {
        self.trace = mix(self.trace ^ op as u64);
        for number in what {
            self.trace = mix(self.trace ^ number);
        }
        if let Some(mut recording) = self.recording.take() {
            recording.push(self.fork());
            self.recording = Some(recording);
        }
    }

    pub(super) fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub(super) fn node(&self, ino: Ino) -> &Node {
        self.nodes.get(ino as usize).and_then(Option::as_ref).expect("a number in use")
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(ino as usize).and_then(Option::as_mut).expect("a number in use")
    }

    pub(super) fn file(&self, ino: Ino) -> &FileImage {
        match &self.node(ino).body {
            Body::File(image) => image,
            Body::Dir(_) => panic!("handles are only given out for files"),
        }
    }

    pub(super) fn file_mut(&mut self, ino: Ino) -> &mut FileImage {
        match &mut self.node_mut(ino).body {
            Body::File(image) => Arc::make_mut(image),
            Body::Dir(_) => panic!("handles are only given out for files"),
        }
    }

    pub(super) fn dir(&self, ino: Ino) -> io::Result<&Dir> {
        match &self.node(ino).body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Errno::NOTDIR.into()),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> &mut Dir {
        match &mut self.node_mut(ino).body {
            Body::Dir(dir) => Arc::make_mut(dir),
            Body::File(_) => panic!("changes name directories"),
        }
    }

    /// What `path` names.
    pub(super) fn look_up(&self, path: &Path) -> io::Result<Ino> {
        let mut ino = Ok(ROOT);
        for component in path.components() {
            let name = name_of(component)?; // checked to the end, even of a missing path
            ino = ino.and_then(|dir| {
                Ok(*self.dir(dir)?.names.get(name).ok_or(io::Error::from(Errno::NOENT))?)
            });
        }
        ino
    }

    /// The directory that holds `path`, and its name there.
    pub(super) fn split<'a>(&self, path: &'a Path) -> io::Result<(Ino, &'a str)> {
        let last = path.components().next_back().ok_or(Errno::INVAL)?;
        let dir = self.look_up(path.parent().unwrap_or(Path::new("")))?;
        self.dir(dir)?;
        Ok((dir, name_of(last)?))
    }

    /// Makes a file or directory under a new name.
    pub(super) fn create(&mut self, dir: Ino, name: &str, body: Body) -> Ino {
        let ino = Ino::try_from(self.nodes.len()).expect("few files");
        self.nodes.push(Some(Node { body, linked: true, handles: 0 }));
        self.change_names(ino, vec![NameChange { dir, name: name.into(), to: Some(ino) }]);
        ino
    }

    /// Changes names in memory; the device learns of it by `sync_dir`.
    pub(super) fn change_names(&mut self, ino: Ino, changes: Vec<NameChange>) {
        for change in &changes {
            apply(&mut self.dir_mut(change.dir).names, change);
        }
        self.waiting.push(DirOp::new(ino, changes));
    }

    /// Takes the name of a file or directory away.
    pub(super) fn unlink(&mut self, dir: Ino, name: &str, ino: Ino) {
        self.node_mut(ino).linked = false;
        self.change_names(ino, vec![NameChange { dir, name: name.into(), to: None }]);
    }

    pub(super) fn sync_dir(&mut self, dir: Ino) {
        for op in tree::synced(&mut self.waiting, dir) {
            for change in op.changes() {
                apply(&mut self.dir_mut(change.dir).durable, change);
            }
        }
        if self.waiting.is_empty() {
            // Now no crash can bring back what has no name.
            for slot in &mut self.nodes {
                if slot.as_ref().is_some_and(|node| !node.linked && node.handles == 0) {
                    *slot = None;
                }
            }
        }
    }

    pub(super) fn used(&self) -> u64 {
        let held = |node: &&Node| node.linked || node.handles > 0;
        let bytes = |node: &Node| match &node.body {
            Body::File(image) => image.allocated_end().next_multiple_of(512),
            Body::Dir(_) => 0,
        };
        self.nodes.iter().flatten().filter(held).map(bytes).sum()
    }

    /// How far a file may be allocated, at most to `end`.
    pub(super) fn room_to(&self, ino: Ino, end: u64) -> u64 {
        let allocated = self.file(ino).allocated_end().next_multiple_of(512);
        if end <= allocated {
            return end;
        }
        end.min(allocated + self.capacity.saturating_sub(self.used()) / 512 * 512)
    }
}

fn apply(names: &mut Names, change: &NameChange) {
    match change.to {
        Some(ino) => names.insert(Arc::clone(&change.name), ino),
        None => names.remove(&change.name),
    };
}

fn name_of(component: Component<'_>) -> io::Result<&str> {
    match component {
        Component::Normal(name) => name.to_str().ok_or_else(|| Errno::INVAL.into()),
        _ => Err(Errno::INVAL.into()),
    }
}
