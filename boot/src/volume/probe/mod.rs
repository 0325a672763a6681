//! What lies in a volume, by its superblock: kind, UUID and label, as util-linux's `blkid -p` tells them.
//!
//! Containers go before what seems to lie in them: a RAID 1 member with its superblock at the end looks like the
//! file system that it mirrors, and writing to that would tear the mirror. Two file systems that both seem to be
//! there are reported as such and neither is chosen, for a stale superblock must not be mounted.
//!
//! Deliberately absent: partition tables (see `landfall_image::partition`), checksums that `blkid` does not check
//! either, and file systems that no guest of ours starts from beyond their name.

mod container;
mod fat;
mod fs;

use super::Content;
use super::field;
use crate::Result;
use landfall_image::{Bytes, Disk, GuestOffset};
use std::borrow::Cow;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it is.
    pub content: Content,
    /// UUID as `blkid` prints it.
    pub uuid: Option<String>,
    /// Label.
    pub label: Option<String>,
    /// Free space as the superblock counts it.
    pub free: Option<Bytes>,
    /// Names of all that claim the volume, where there are several. The content is then unknown.
    pub claims: Vec<String>,
}

impl Probe {
    fn new(content: Content) -> Probe {
        Probe { content, uuid: None, label: None, free: None, claims: Vec::new() }
    }
    fn file_system(name: &str) -> Probe {
        Probe::new(Content::FileSystem { name: name.into() })
    }
    /// Part of something.
    pub fn member(of: &str) -> Probe {
        Probe::new(Content::Member { of: of.into() })
    }
    fn encrypted(scheme: &str) -> Probe {
        Probe::new(Content::Encrypted { scheme: scheme.into() })
    }
    fn uuid(self, uuid: Option<String>) -> Probe {
        Probe { uuid, ..self }
    }
    fn label(self, label: Option<String>) -> Probe {
        Probe { label, ..self }
    }
    fn free(self, free: Option<u64>) -> Probe {
        Probe { free: free.map(Bytes), ..self }
    }

    fn name(&self) -> String {
        match &self.content {
            Content::FileSystem { name } => name.clone(),
            Content::Swap { .. } => "swap".into(),
            Content::LvmPhysical { .. } => "LVM".into(),
            Content::Encrypted { scheme } => scheme.clone(),
            Content::Member { of } => of.clone(),
            Content::Unknown => "unknown".into(),
        }
    }
}

/// Where most superblocks lie: btrfs's ends here.
const HEAD_BYTES: usize = (64 << 10) + 4096;

/// The beginning of a volume, and the rest of it on demand.
struct Reader<'a> {
    disk: &'a dyn Disk,
    head: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(disk: &'a dyn Disk) -> Result<Self> {
        let len = disk.size().to_usize().unwrap_or(usize::MAX).min(HEAD_BYTES);
        let mut head = vec![0; len];
        disk.read_at(GuestOffset(0), &mut head)?;
        Ok(Reader { disk, head })
    }

    fn size(&self) -> u64 {
        self.disk.size().0
    }

    /// `len` bytes at `at`, or `None` past the end.
    fn bytes(&self, at: u64, len: usize) -> Result<Option<Cow<'_, [u8]>>> {
        if let Some(found) = usize::try_from(at).ok().and_then(|at| field::bytes(&self.head, at, len)) {
            return Ok(Some(Cow::Borrowed(found)));
        }
        if at.checked_add(len as u64).is_none_or(|end| end > self.size()) {
            return Ok(None);
        }
        let mut buf = vec![0; len];
        self.disk.read_at(GuestOffset(at), &mut buf)?;
        Ok(Some(Cow::Owned(buf)))
    }

    fn has(&self, at: u64, magic: &[u8]) -> Result<bool> {
        Ok(self.bytes(at, magic.len())?.is_some_and(|found| *found == *magic))
    }
}

type Prober = fn(&Reader<'_>) -> Result<Option<Probe>>;

/// Arrays, pools and encryption, in `blkid`'s order: the first one found is the answer.
const CONTAINERS: &[Prober] = &[
    container::md,
    container::firmware_raid,
    container::bcache,
    container::bcachefs,
    container::drbd,
    container::lvm,
    container::luks,
    container::bitlocker,
    container::zfs,
    container::vmfs,
];

/// File systems and swap. Two at once contradict each other.
const FILE_SYSTEMS: &[Prober] =
    &[fat::vfat, fs::swap, fs::xfs, fs::ext, fs::btrfs, fs::ntfs, fs::exfat, fs::named];

/// What lies in `disk`, which is one volume.
pub fn probe(disk: &dyn Disk) -> Result<Probe> {
    let reader = Reader::new(disk)?;
    for prober in CONTAINERS {
        if let Some(found) = prober(&reader)? {
            return Ok(found);
        }
    }
    let mut found = Vec::new();
    for prober in FILE_SYSTEMS {
        found.extend(prober(&reader)?);
    }
    if found.len() > 1 {
        let claims = found.iter().map(Probe::name).collect();
        return Ok(Probe { claims, ..Probe::new(Content::Unknown) });
    }
    // An ISO image may carry another file system's superblock on purpose; alone it is an ISO.
    match found.pop() {
        Some(found) => Ok(found),
        None => Ok(fs::iso9660(&reader)?.unwrap_or_else(|| Probe::new(Content::Unknown))),
    }
}

/// The array that a whole disk is a member of, in spite of the partition table that it has: the table is the array's.
/// `is_covered` tells whether a partition lies over a byte of the disk.
pub fn array(disk: &dyn Disk, is_covered: &dyn Fn(u64) -> bool) -> Result<Option<Probe>> {
    container::whole_disk_array(&Reader::new(disk)?, is_covered)
}

/// True where a run of `len` bytes fits a volume of `size`.
fn fits(size: u64, len: Bytes) -> bool {
    len.0 <= size
}

#[cfg(test)]
mod tests;
