//! The simulated data directory: the calls of [`Disk`], and crashes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::crash::{Crash, Unit, mix};
use super::faults::{Fault, FaultPlan, Op};
use super::file::SimFile;
use super::image::FileImage;
use super::state::{Body, State};
use super::tree::{Dir, Ino, NameChange};
use crate::env::{DirEntry, DirLock, Disk, File, OpenMode, Space};

/// A disk in memory. Clones are handles of the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk with room for 64 MiB.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::of(State::new(seed))
    }

    fn of(state: State) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock fails the test already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power: the disk as the next boot finds it. This one refuses every call from now on.
    pub fn crash(&self, crash: Crash) -> SimDisk {
        let after = self.image(crash);
        self.halt();
        after
    }

    /// What [`crash`](Self::crash) would leave; this disk goes on.
    pub fn image(&self, crash: Crash) -> SimDisk {
        self.image_by(|unit, versions| crash.choose(unit, versions))
    }

    /// A crash image by explicit choice: of each unit that is not yet durable, version 0 is the
    /// durable one and `versions - 1` the newest. Units come in a fixed order.
    pub fn image_by(&self, mut choose: impl FnMut(Unit, usize) -> usize) -> SimDisk {
        SimDisk::of(self.state().crash(&mut choose))
    }

    /// `kill -9`: the process's locks and handles die, memory and boot id survive. This disk
    /// refuses every call from now on.
    pub fn kill(&self) -> SimDisk {
        let after = self.fork();
        self.halt();
        after
    }

    /// An independent copy with the same things not yet durable, and no locks or faults.
    pub fn fork(&self) -> SimDisk {
        SimDisk::of(self.state().fork())
    }

    /// Lets every later call fail with EIO.
    pub fn halt(&self) {
        self.state().halted = true;
    }

    /// Keeps a copy of the disk after each change from now on.
    pub fn record_snapshots(&self) {
        self.state().recording = Some(Vec::new());
    }

    /// The copies since the last call, oldest first. Recording goes on.
    pub fn take_snapshots(&self) -> Vec<SimDisk> {
        let mut state = self.state();
        let taken = state.recording.as_mut().map(std::mem::take).unwrap_or_default();
        taken.into_iter().map(SimDisk::of).collect()
    }

    /// Lets the n-th operation (from 0) that `fault` can hit fail, once.
    pub fn fail_nth(&self, n: u64, fault: Fault) {
        self.state().plan = Some(FaultPlan::once(n, fault));
    }

    /// Lets the n-th operation (from 0) that `fault` can hit fail, and all such after it.
    pub fn fail_from(&self, n: u64, fault: Fault) {
        self.state().plan = Some(FaultPlan::from_then_on(n, fault));
    }

    /// Takes the planned fault back; whether it had struck.
    pub fn clear_fault(&self) -> bool {
        self.state().plan.take().is_some_and(|plan| plan.struck().is_some())
    }

    /// The first operation that the planned fault has hit.
    pub fn struck(&self) -> Option<Op> {
        self.state().plan.as_ref().and_then(FaultPlan::struck)
    }

    /// Sets the room on the disk, in bytes. It may be less than what is used already.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Sets what maps answer when asked whether pages are in memory.
    pub fn set_resident(&self, resident: bool) {
        self.state().resident = resident;
    }

    /// Operations so far: whatever a fault could hit.
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Syncs so far, of files and of directories.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Bytes read from files so far, maps left out.
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// A hash over every change so far, its bytes included: equal runs have equal traces.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }
}

fn trace_of(path: &Path) -> u64 {
    u64::from(crc32fast::hash(path.as_os_str().as_encoded_bytes()))
}

impl State {
    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Ino> {
        let (dir, name) = self.split(path)?;
        let found = self.dir(dir)?.names.get(name).copied();
        let creates = matches!(mode, OpenMode::CreateNew | OpenMode::Truncate);
        self.begin(if creates && found.is_none() { Op::Create } else { Op::Open })?;
        let ino = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(Errno::EXIST.into()),
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(Errno::NOENT.into()),
            (Some(ino), _) if self.dir(ino).is_ok() => return Err(Errno::ISDIR.into()),
            (Some(ino), OpenMode::Truncate) => {
                let moment = self.next_moment();
                self.file_mut(ino).set_len(moment, 0);
                self.changed(Op::SetLen, &[u64::from(ino), 0]);
                ino
            }
            (Some(ino), _) => ino,
            (None, _) => {
                let ino = self.create(dir, name, Body::File(Arc::new(FileImage::new())));
                self.changed(Op::Create, &[u64::from(ino), trace_of(path)]);
                ino
            }
        };
        self.node_mut(ino).handles += 1;
        Ok(ino)
    }

    fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut made = PathBuf::new();
        for component in path.components() {
            made.push(component);
            let (dir, name) = self.split(&made)?;
            match self.dir(dir)?.names.get(name) {
                Some(ino) if self.dir(*ino).is_err() && made == path => {
                    return Err(Errno::EXIST.into());
                }
                Some(_) => {}
                None => {
                    self.begin(Op::Create)?;
                    let ino = self.create(dir, name, Body::Dir(Arc::default()));
                    self.changed(Op::Create, &[u64::from(ino), trace_of(&made)]);
                }
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(Op::Rename)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (self.split(from)?, self.split(to)?);
        let ino = *self.dir(from_dir)?.names.get(from_name).ok_or(Errno::NOENT)?;
        let moves_dir = self.dir(ino).is_ok();
        if moves_dir && to != from && to.starts_with(from) {
            return Err(Errno::INVAL.into());
        }
        if let Some(replaced) = self.dir(to_dir)?.names.get(to_name).copied() {
            if replaced == ino {
                return Ok(());
            }
            match (moves_dir, self.dir(replaced)) {
                (true, Ok(dir)) if dir.names.is_empty() => {}
                (true, Ok(_)) => return Err(Errno::NOTEMPTY.into()),
                (true, Err(e)) => return Err(e),
                (false, Ok(_)) => return Err(Errno::ISDIR.into()),
                (false, Err(_)) => {}
            }
            self.node_mut(replaced).linked = false;
        }
        let change = |dir, name: &str, to| NameChange { dir, name: name.into(), to };
        self.change_names(
            ino,
            vec![change(from_dir, from_name, None), change(to_dir, to_name, Some(ino))],
        );
        self.changed(Op::Rename, &[u64::from(ino), trace_of(to)]);
        Ok(())
    }

    fn remove(
        &mut self,
        path: &Path,
        removable: fn(io::Result<&Dir>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.begin(Op::Remove)?;
        let (dir, name) = self.split(path)?;
        let ino = *self.dir(dir)?.names.get(name).ok_or(Errno::NOENT)?;
        removable(self.dir(ino))?;
        self.unlink(dir, name, ino);
        self.changed(Op::Remove, &[u64::from(ino)]);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let ino = self.state().open(path, mode)?;
        Ok(Arc::new(SimFile::new(self.clone(), ino, mode != OpenMode::Read)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state().create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.begin(Op::ReadDir)?;
        let ino = state.look_up(path)?;
        let entry = |(name, ino): (&Arc<str>, &Ino)| {
            let (is_dir, len) = match &state.node(*ino).body {
                Body::File(image) => (false, image.len()),
                Body::Dir(_) => (true, 0),
            };
            DirEntry { name: name.to_string(), is_dir, len }
        };
        Ok(state.dir(ino)?.names.iter().map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        if state.halted {
            return Err(Errno::IO.into());
        }
        match state.look_up(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(e),
            Err(_) => Ok(false),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state().remove(path, |found| match found {
            Ok(_) => Err(Errno::ISDIR.into()),
            Err(_) => Ok(()),
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.state().remove(path, |found| match found {
            Ok(dir) if dir.names.is_empty() => Ok(()),
            Ok(_) => Err(Errno::NOTEMPTY.into()),
            Err(e) => Err(e),
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::SyncDir)?;
        let ino = state.look_up(path)?;
        state.dir(ino)?;
        state.sync_dir(ino);
        state.changed(Op::SyncDir, &[u64::from(ino)]);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        // The lock file is made as `open(2)` with O_CREAT makes it.
        let mode = if self.exists(path)? { OpenMode::ReadWrite } else { OpenMode::CreateNew };
        self.open(path, mode)?;
        if !self.state().locks.insert(path.to_path_buf()) {
            return Err(Errno::WOULDBLOCK.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf() }))
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state();
        if state.halted {
            return Err(Errno::IO.into());
        }
        let free = state.capacity.saturating_sub(state.used());
        Ok(Space { capacity: state.capacity, free })
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        let boot = self.state().boot;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&boot.to_le_bytes());
        id[8..].copy_from_slice(&mix(boot).to_le_bytes());
        Ok(id)
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}
