//! The machine's disk: one data directory, through system calls.
//!
//! Files are private (0600, directories 0700) and a symbolic link is never followed as the last
//! component. Interrupted calls are repeated, except a sync, whose every error is final.
//! Deliberately absent: retries, caching, any knowledge of what the files mean.

use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{
    Advice, AtFlags, CWD, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags,
};
use rustix::io::Errno;

use super::mmap::Map;
use super::{DirEntry, DirLock, Disk, Env, File, OpenMode, Region, Space, SystemClock, SystemRng};

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: Mode = Mode::RWXU;
/// Buffers per `pwritev` (Linux' IOV_MAX); more are left to the next call, as a short write.
const IOV_MAX: usize = 1024;
/// Zeros written per call where the file system cannot allocate.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A data directory on the machine's disk.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The data directory at `root`, which need not exist yet: `create_dir_all("")` makes it.
    pub fn new(root: PathBuf) -> RealDisk {
        RealDisk { root }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &Path) -> io::Result<PathBuf> {
        let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
        if !inside {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a path inside the data directory", path.display()),
            ));
        }
        // Joining nothing would append a slash.
        Ok(if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) })
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(CWD, self.at(path)?, flags, Mode::empty())?)
    }
}

impl Env {
    /// The machine's clock, randomness and disk, for the data directory at `root`.
    pub fn real(root: PathBuf) -> Env {
        Env {
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(SystemRng::new()),
            disk: Arc::new(RealDisk::new(root)),
        }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let access = match mode {
            OpenMode::Read => OFlags::RDONLY,
            OpenMode::ReadWrite => OFlags::RDWR,
            OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            OpenMode::Truncate => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
        };
        // NONBLOCK: a pipe put in our place must not hang us; regular files ignore it.
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(CWD, self.at(path)?, flags, FILE_MODE)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        match kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR.into()),
            _ => return Err(Errno::INVAL.into()),
        }
        Ok(Arc::new(RealFile { file: Arc::new(std::fs::File::from(fd)) }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(DIR_MODE.bits()).create(self.at(path)?)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.open_dir(path)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes() == b"." || name.to_bytes() == b".." {
                continue;
            }
            let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue, // removed meanwhile
                Err(e) => return Err(e.into()),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let len = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
            entries.push(DirEntry { name: name.to_string_lossy().into_owned(), is_dir, len });
        }
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match rustix::fs::statat(CWD, self.at(path)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(self.at(from)?, self.at(to)?)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlink(self.at(path)?)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::rmdir(self.at(path)?)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_dir(path)?)?)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(CWD, self.at(path)?, flags, FILE_MODE)?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock { _fd: fd }))
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(Space {
            capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let id = uuid::Uuid::parse_str(text.trim()).map_err(io::Error::other)?;
        Ok(id.into_bytes())
    }
}

/// The lock lives in the open file description: the kernel releases it with the descriptor.
#[derive(Debug)]
struct RealLock {
    _fd: OwnedFd,
}

impl DirLock for RealLock {}

#[derive(Debug)]
struct RealFile {
    file: Arc<std::fs::File>,
}

impl RealFile {
    /// What `fallocate` would do, by writing zeros beyond the old end.
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let mut position = from;
        while position < to {
            let step = (to - position).min(ZEROS.len() as u64);
            super::write_all_at(self, &ZEROS[..usize::try_from(step).unwrap_or(0)], position)?;
            position += step;
        }
        Ok(())
    }
}

impl File for RealFile {
    fn pwritev(&self, buffers: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let first = buffers.get(..IOV_MAX).unwrap_or(buffers);
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev(&*self.file, first, offset))?)
    }

    fn pread(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match rustix::io::pread(&*self.file, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&*self.file)?)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let before = self.len()?;
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        let answer = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&*self.file, FallocateFlags::empty(), offset, len)
        });
        let result = match answer {
            Err(Errno::OPNOTSUPP) => self.write_zeros(before.max(offset), end),
            answer => answer.map_err(io::Error::from),
        };
        if result.is_err() {
            // ext4 keeps what a failed call got; cutting back returns it and restores the length.
            rustix::fs::ftruncate(&*self.file, before)?;
        }
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&*self.file, len))?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocated(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&*self.file)?;
        Ok(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512))
    }

    fn drop_cache(&self, range: Range<u64>) -> io::Result<()> {
        const PAGE_BYTES: u64 = 4096;
        // The kernel leaves pages alone of which the range covers a part.
        let start = range.start / PAGE_BYTES * PAGE_BYTES;
        let end = range.end.checked_next_multiple_of(PAGE_BYTES);
        let len = end.and_then(|end| NonZeroU64::new(end.saturating_sub(start)));
        Ok(rustix::fs::fadvise(&*self.file, start, len, Advice::DontNeed)?)
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Region>> {
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        Ok(Arc::new(Map::new(Arc::clone(&self.file), len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn files_and_directories_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path().join("data"));
        disk.create_dir_all(Path::new("topics/a")).unwrap();
        disk.open(Path::new("topics/a/f"), OpenMode::CreateNew).unwrap();
        let mode = |p: &str| disk.root().join(p).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("topics"), mode("topics/a")), (0o700, 0o700, 0o700));
        assert_eq!(mode("topics/a/f"), 0o600);
    }

    #[test]
    fn links_pipes_and_paths_outside_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path().to_path_buf());
        disk.open(Path::new("real"), OpenMode::CreateNew).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        rustix::fs::mknodat(CWD, dir.path().join("pipe"), FileType::Fifo, FILE_MODE, 0).unwrap();
        for (path, mode) in [
            ("link", OpenMode::Read),
            ("link", OpenMode::Truncate),
            ("pipe", OpenMode::Read),
            ("pipe", OpenMode::ReadWrite),
            ("../x", OpenMode::CreateNew),
            ("/etc/passwd", OpenMode::Read),
            ("a/../../x", OpenMode::CreateNew),
            ("", OpenMode::Read),
        ] {
            assert!(disk.open(Path::new(path), mode).is_err(), "{path} {mode:?}");
        }
    }

    #[test]
    fn boot_id_is_stable() {
        let disk = RealDisk::new(PathBuf::from("/"));
        assert_eq!(disk.boot_id().unwrap(), disk.boot_id().unwrap());
        assert_ne!(disk.boot_id().unwrap(), [0; 16]);
    }

    #[test]
    fn zeros_stand_in_where_nothing_can_be_allocated() {
        let file = RealFile { file: Arc::new(tempfile::tempfile().unwrap()) };
        file.write_zeros(10, 200_000).unwrap();
        assert_eq!(file.len().unwrap(), 200_000);
    }

    #[test]
    fn a_failed_allocation_leaves_the_length() {
        let file = RealFile { file: Arc::new(tempfile::tempfile().unwrap()) };
        file.set_len(1234).unwrap();
        file.allocate(0, 1 << 62).unwrap_err();
        assert_eq!(file.len().unwrap(), 1234);
    }
}
