//! Small files are replaced as a whole: write `<name>.tmp`, `fdatasync`, rename, sync the directory.
//! After a crash the old or the new content is there, never a mixture, never nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::{Disk, OpenMode, read_full_at, write_all_at};

use super::fault::Fault;
use super::layout::TMP_SUFFIX;

/// Replaces the file at `path`. When it returns `Ok`, the new content is durable.
pub fn write_small_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let tmp = tmp_path(path);
    let file = disk.open(&tmp, OpenMode::Truncate)?;
    write_all_at(file.as_ref(), bytes, 0)?;
    file.sync().map_err(Fault::Sync)?;
    drop(file);
    disk.rename(&tmp, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(""))).map_err(Fault::Sync)
}

/// The content of the file at `path`, or `None` when there is no such file. A file over `bytes_max`
/// is `InvalidData`: no small file of ours is that large.
pub fn read_small_file(
    disk: &dyn Disk,
    path: &Path,
    bytes_max: u64,
) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.len()?;
    if len > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {len} bytes, at most {bytes_max} are possible", path.display()),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::InvalidData)?];
    let read = read_full_at(file.as_ref(), &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

fn tmp_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TMP_SUFFIX);
    PathBuf::from(name)
}
