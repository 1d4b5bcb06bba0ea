//! Segments behind the last one that the manifest names.
//!
//! A roll waits for no sync: it makes the file of the next segment, and a manifest names it later. So
//! a file there is no stranger. Nothing of it was durable, but a killed process may have answered for
//! it (`os`): with a header it is taken as what it is, and the segment before it as full. Without one,
//! after a power cut, nobody can tell what it held; it is set aside, and no offset is used again that
//! the last slot promised, for all of its offsets were below that.

use std::io;

use crate::env::{Disk, OpenMode};
use crate::storage::identity::IDENTITY_BYTES;
use crate::storage::layout::{DATA_START, IDENTITY_POSITION, PartitionPaths};
use crate::storage::manifest::Manifest;
use crate::types::Offset;

use super::examine::{classify, drop_cache};
use super::files::{is_blank, remove};
use super::finish::Recovery;
use super::open::lease_of;
use super::sealed::{read_at, read_identity, read_slots};
use super::table::Slots;
use super::{Finding, RecoverError};

/// What a segment file is that the manifest does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// It holds nothing.
    Blank,
    /// It has a header: it follows.
    Follows,
    /// It holds something without a header.
    Headless,
}

/// Looks at the file at `base`. Does not believe what memory alone holds of its header.
pub(crate) fn look_at_unnamed(
    disk: &dyn Disk,
    paths: &PartitionPaths,
    cluster_id: uuid::Uuid,
    base: Offset,
) -> io::Result<Unnamed> {
    let file = disk.open(&paths.log(base), OpenMode::Read)?;
    if is_blank(disk, &paths.log(base))? {
        let head = read_at(file.as_ref(), IDENTITY_POSITION, IDENTITY_BYTES)?;
        let identity = read_identity(file.as_ref(), paths, cluster_id, base)?.identity;
        let is_ours = identity.is_ok() || head.iter().all(|byte| *byte == 0);
        return Ok(if is_ours { Unnamed::Blank } else { Unnamed::Headless });
    }
    drop_cache(&file, base, 0..DATA_START);
    let identity = read_identity(file.as_ref(), paths, cluster_id, base)?;
    let pair = read_slots(file.as_ref(), identity.tag)?;
    Ok(match classify(&identity, &pair) {
        Slots::NoneValid => Unnamed::Headless,
        Slots::Clean | Slots::Unclean | Slots::OneDamaged => Unnamed::Follows,
    })
}

impl Recovery<'_> {
    /// Those of `bases` that go on where the manifest ends.
    pub(super) fn adopt_unnamed(
        &mut self,
        manifest: &mut Manifest,
        bases: &[Offset],
    ) -> Result<Vec<Offset>, RecoverError> {
        let mut adopted: Vec<Offset> = Vec::new();
        for base in bases {
            match look_at_unnamed(self.disk, self.paths, self.context.cluster_id, *base)? {
                Unnamed::Follows => adopted.push(*base),
                Unnamed::Blank if self.may_write() => {
                    remove(self.disk, self.paths, &self.paths.log(*base))?;
                    self.findings.push(Finding::CreationTakenBack { segment: *base });
                }
                Unnamed::Blank => self.refuse_write("an empty segment waits to be removed"),
                Unnamed::Headless => {
                    let last = manifest.segments.last().map(|entry| entry.base_offset);
                    self.give_up_promised(manifest, adopted.last().copied().or(last))?;
                    break;
                }
            }
        }
        Ok(adopted)
    }

    /// No offset below the lease of the segment at `base` is used again, whatever the boot.
    fn give_up_promised(
        &mut self,
        manifest: &mut Manifest,
        base: Option<Offset>,
    ) -> Result<(), RecoverError> {
        let Some(base) = base else { return Ok(()) };
        let file = match self.disk.open(&self.paths.log(base), OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        drop_cache(&file, base, 0..DATA_START);
        let identity = read_identity(file.as_ref(), self.paths, self.context.cluster_id, base)?;
        let pair = read_slots(file.as_ref(), identity.tag)?;
        let Some((_, slot)) = pair.newest() else { return Ok(()) };
        manifest.offset_floor =
            manifest.offset_floor.max(lease_of(&slot, classify(&identity, &pair)));
        match self.may_write() {
            true => self.write_manifest(manifest),
            false => {
                self.refuse_write("a segment without a header waits to be set aside");
                Ok(())
            }
        }
    }
}
