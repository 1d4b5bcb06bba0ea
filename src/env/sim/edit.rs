//! Looking at a simulated disk from outside and damaging it: no faults, no trace, durable at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::SimDisk;
use super::image::FileImage;
use super::state::{Body, State};
use super::tree::{Ino, ROOT};

impl SimDisk {
    /// Every file with its length, sorted by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let mut found = Vec::new();
        state.walk(ROOT, &PathBuf::new(), &mut |path, body| {
            if let Body::File(image) = body {
                found.push((path.to_path_buf(), image.len()));
            }
        });
        found
    }

    /// The bytes of a file as a process would read them.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.state();
        let ino = state.look_up(path.as_ref()).ok()?;
        match &state.node(ino).body {
            Body::File(image) => Some(image.contents()),
            Body::Dir(_) => None,
        }
    }

    /// Replaces the bytes of a file, or makes it in an existing directory. Whether that was
    /// possible.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let len = bytes.len() as u64;
        let body = Body::File(Arc::new(FileImage::durable(bytes.to_vec(), len, len)));
        match state.look_up(path.as_ref()) {
            Ok(ino) if state.dir(ino).is_err() => state.node_mut(ino).body = body,
            Ok(_) => return false,
            Err(_) => {
                let Ok((dir, name)) = state.split(path.as_ref()) else { return false };
                state.create(dir, name, body);
                state.sync_dir(dir);
            }
        }
        true
    }

    /// Takes a file away. Whether it was there.
    pub fn delete_file(&self, path: impl AsRef<Path>) -> bool {
        let mut state = self.state();
        state.delete(path.as_ref()).is_some()
    }

    /// Flips bit `bit` (0 = lowest) of byte `byte`, in memory and on the device. Whether the file
    /// has that byte.
    pub fn flip_bit(&self, path: impl AsRef<Path>, byte: u64, bit: u32) -> bool {
        let mut state = self.state();
        let Ok(ino) = state.look_up(path.as_ref()) else { return false };
        if state.dir(ino).is_ok() || byte >= state.file(ino).len() {
            return false;
        }
        state.file_mut(ino).flip(byte, 1 << (bit % 8));
        true
    }

    /// A hash over all names, lengths and bytes: equal means equal byte for byte.
    pub fn digest(&self) -> u64 {
        let state = self.state();
        let mut hasher = crc32fast::Hasher::new();
        let mut second = 0_u64;
        state.walk(ROOT, &PathBuf::new(), &mut |path, body| {
            hasher.update(path.as_os_str().as_encoded_bytes());
            if let Body::File(image) = body {
                hasher.update(&image.len().to_le_bytes());
                image.hash(&mut hasher);
            }
            second = super::crash::mix(second ^ u64::from(hasher.clone().finalize()));
        });
        second
    }
}

impl State {
    fn walk(&self, ino: Ino, path: &Path, visit: &mut dyn FnMut(&Path, &Body)) {
        let Ok(dir) = self.dir(ino) else { return };
        for (name, child) in &dir.names {
            let path = path.join(&**name);
            visit(&path, &self.node(*child).body);
            self.walk(*child, &path, visit);
        }
    }

    fn delete(&mut self, path: &Path) -> Option<()> {
        let (dir, name) = self.split(path).ok()?;
        let ino = *self.dir(dir).ok()?.names.get(name)?;
        self.dir(ino).err()?;
        self.unlink(dir, name, ino);
        self.sync_dir(dir);
        Some(())
    }
}
