//! The superblock of a thin pool's metadata.

use crate::volume::field::{le32, le64};
use crate::volume::persistent::{BLOCK, Roots, set};
use crate::{Error, Result};
use landfall_image::{Bytes, Sectors};

const MAGIC: u64 = 27_022_010;
const NEEDS_CHECK: u32 = 1;
/// The kernel's bounds for a data block.
const LEAST: Bytes = Bytes::kib(64);
const MOST: Bytes = Bytes::gib(1);

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Goes up with each snapshot: 24 bits.
    pub time: u32,
    /// What LVM counts changes of the pool by.
    pub transaction: u64,
    /// Space map of data.
    pub data: Roots,
    /// Space map of metadata.
    pub metadata: Roots,
    /// Root of the tree of mappings.
    pub mappings: u64,
    /// Root of the tree of devices.
    pub devices: u64,
    /// Bytes of a data block.
    pub block_size: Bytes,
}

/// Parses a block with the right checksum.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt), and [`Kind::Unsupported`](crate::Kind::Unsupported) for metadata that the
/// kernel would not write to either, each with a hint.
pub fn parse(block: &[u8]) -> Result<Superblock> {
    let wrong = |says: String| Error::corrupt(format!("thin pool superblock: {says}"));
    let cut = || wrong("cut off".into());
    let word = |at: usize| le32(block, at).ok_or_else(cut);
    let long = |at: usize| le64(block, at).ok_or_else(cut);
    if long(32)? != MAGIC {
        return Err(wrong(format!("its magic is {:#x}, not {MAGIC:#x}", long(32)?)));
    }
    let unsupported = |says: String, hint: &str| Error::unsupported(says).hint(hint);
    let version = word(40)?;
    if !(1..=2).contains(&version) {
        return Err(unsupported(
            format!("thin pool metadata of version {version}; 1 and 2 are known"),
            "install the target's drivers in the running guest, then use landfall disk convert",
        ));
    }
    let features = [word(356)?, word(360)?];
    if features != [0, 0] {
        return Err(unsupported(
            format!(
                "thin pool metadata with features that are not known ({:#x} and {:#x})",
                features[0], features[1]
            ),
            "install the target's drivers in the running guest, then use landfall disk convert",
        ));
    }
    if word(4)? & NEEDS_CHECK != 0 {
        return Err(unsupported(
            "its metadata are marked to be checked: an error was met in the guest".into(),
            "repair the pool in the source machine with lvconvert --repair, then convert again",
        ));
    }
    if long(56)? != 0 {
        return Err(unsupported(
            "a program holds a snapshot of its metadata, as backup tools do while they read them".into(),
            "let the tool finish in the source machine, or use dmsetup message POOL-tpool 0 release_metadata_snap, then convert again",
        ));
    }
    let metadata_block = Sectors(u64::from(word(340)?)).to_bytes();
    if metadata_block != Some(Bytes(BLOCK as u64)) {
        return Err(wrong(format!("blocks of metadata of {} sectors; all have 8", word(340)?)));
    }
    let sectors = Sectors(u64::from(word(336)?));
    let block_size =
        sectors.to_bytes().filter(|size| (LEAST..=MOST).contains(size) && size.0.is_multiple_of(LEAST.0));
    let block_size = block_size.ok_or_else(|| {
        wrong(format!("blocks of data of {} sectors; multiples of 128 up to 2097152 are possible", sectors.0))
    })?;
    Ok(Superblock {
        time: word(44)?,
        transaction: long(48)?,
        data: Roots::parse(block, 64),
        metadata: Roots::parse(block, 192),
        mappings: long(320)?,
        devices: long(328)?,
        block_size,
    })
}

impl Superblock {
    /// Writes the roots into the block that was parsed.
    pub fn update(&self, block: &mut [u8]) {
        self.data.store(block, 64);
        self.metadata.store(block, 192);
        set(block, 320, &self.mappings.to_le_bytes());
        set(block, 328, &self.devices.to_le_bytes());
    }
}
