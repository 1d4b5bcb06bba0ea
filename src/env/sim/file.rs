//! Open files and maps of the simulated disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::crash::mix;
use super::disk::SimDisk;
use super::faults::{Fault, Op};
use super::tree::Ino;
use crate::env::{File, Region};

/// A handle: keeps the file's bytes after its name is gone.
#[derive(Debug)]
struct Handle {
    disk: SimDisk,
    ino: Ino,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.state().node_mut(self.ino).handles -= 1;
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct SimFile {
    handle: Handle,
    writable: bool,
}

impl SimFile {
    /// The handle was counted when the file was opened.
    pub(super) fn new(disk: SimDisk, ino: Ino, writable: bool) -> SimFile {
        SimFile { handle: Handle { disk, ino }, writable }
    }

    fn check_writable(&self, otherwise: Errno) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(otherwise.into()) }
    }
}

impl File for SimFile {
    fn pwritev(&self, buffers: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.check_writable(Errno::BADF)?;
        let mut state = self.handle.disk.state();
        let fault = state.begin(Op::Write)?;
        let wanted: usize = buffers.iter().map(|b| b.len()).sum();
        let end = offset.checked_add(wanted as u64).ok_or(Errno::FBIG)?;
        let room_end = state.room_to(self.handle.ino, end);
        let mut taken = usize::try_from(room_end.saturating_sub(offset)).unwrap_or(wanted);
        if taken == 0 && wanted > 0 {
            return Err(Errno::NOSPC.into());
        }
        let roll = mix(state.seed ^ state.ops);
        let part = |of: usize| usize::try_from(roll % (of as u64).max(1)).unwrap_or(0);
        match fault {
            Some(Fault::ShortWrite) if taken > 1 => taken = 1 + part(taken - 1),
            // Nobody says how much of a failed write reached the file.
            Some(Fault::Eio) => taken = part(taken + 1),
            _ => {}
        }
        let moment = state.next_moment();
        let parts: Vec<&[u8]> = buffers.iter().map(|b| &**b).collect();
        state.file_mut(self.handle.ino).write(moment, &parts, offset, taken);
        let sum = parts.iter().map(|p| u64::from(crc32fast::hash(p))).fold(0, |a, b| mix(a ^ b));
        state.changed(Op::Write, &[u64::from(self.handle.ino), offset, taken as u64, sum]);
        match fault {
            Some(Fault::Eio) => Err(Fault::Eio.error()),
            _ => Ok(taken),
        }
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.handle.disk.state();
        state.begin(Op::Read)?;
        let read = state.file(self.handle.ino).read(buffer, offset);
        state.bytes_read += read as u64;
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.handle.disk.state();
        let fault = state.begin(Op::Sync)?;
        let ino = u64::from(self.handle.ino);
        if let Some(fault) = fault {
            let (seed, ops) = (state.seed, state.ops);
            let mut draws = 0;
            state.file_mut(self.handle.ino).sync_failed(|versions| {
                draws += 1;
                let roll = mix(seed ^ mix(ops ^ (draws << 32)));
                usize::try_from(roll % versions as u64).unwrap_or(0)
            });
            state.changed(Op::Sync, &[ino, 1]);
            return Err(fault.error());
        }
        state.file_mut(self.handle.ino).sync();
        state.changed(Op::Sync, &[ino]);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable(Errno::BADF)?;
        let mut state = self.handle.disk.state();
        state.begin(Op::Allocate)?;
        if len == 0 {
            return Err(Errno::INVAL.into());
        }
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        if state.room_to(self.handle.ino, end) < end {
            return Err(Errno::NOSPC.into());
        }
        let moment = state.next_moment();
        state.file_mut(self.handle.ino).allocate(moment, end);
        state.changed(Op::Allocate, &[u64::from(self.handle.ino), end]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable(Errno::INVAL)?;
        let mut state = self.handle.disk.state();
        state.begin(Op::SetLen)?;
        let moment = state.next_moment();
        state.file_mut(self.handle.ino).set_len(moment, len);
        state.changed(Op::SetLen, &[u64::from(self.handle.ino), len]);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.handle.disk.state();
        if state.halted { Err(Errno::IO.into()) } else { Ok(state.file(self.handle.ino).len()) }
    }

    fn allocated(&self) -> io::Result<u64> {
        let state = self.handle.disk.state();
        Ok(state.file(self.handle.ino).allocated_end().next_multiple_of(512))
    }

    fn drop_cache(&self, range: Range<u64>) -> io::Result<()> {
        self.handle.disk.state().file_mut(self.handle.ino).drop_cache(range);
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Region>> {
        let disk = self.handle.disk.clone();
        disk.state().node_mut(self.handle.ino).handles += 1;
        Ok(Arc::new(SimRegion { handle: Handle { disk, ino: self.handle.ino }, len }))
    }
}

/// A map; slices are copies of what memory holds when they are taken.
#[derive(Debug)]
struct SimRegion {
    handle: Handle,
    len: u64,
}

impl Region for SimRegion {
    /// # Panics
    /// When the range lies beyond the end of the file: on the machine its touch would be SIGBUS.
    fn slice(self: Arc<Self>, range: Range<u64>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        let state = self.handle.disk.state();
        let file = state.file(self.handle.ino);
        assert!(
            range.end <= file.len() || range.is_empty(),
            "map touched at {range:?}, beyond the end of its file at {}",
            file.len()
        );
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        file.read(&mut bytes, range.start);
        Some(Bytes::from(bytes))
    }

    fn is_resident(&self, range: Range<u64>) -> bool {
        let state = self.handle.disk.state();
        state.resident && range.end <= state.file(self.handle.ino).len()
    }

    fn populate(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.handle.disk.state();
        state.begin(Op::Populate)?;
        if range.end > self.len {
            return Err(Errno::INVAL.into());
        }
        if range.end > state.file(self.handle.ino).len() && range.start < range.end {
            return Err(Errno::FAULT.into());
        }
        Ok(())
    }
}
