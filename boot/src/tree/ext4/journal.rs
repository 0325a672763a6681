//! The journal of ext3 and ext4 (jbd2; kernel: `include/linux/jbd2.h`, `fs/jbd2/recovery.c`), replayed in memory: which
//! blocks of the file system are to be read from the journal instead. Big-endian.
//!
//! ```text
//! journal     superblock · descriptor data… [revoke] commit · descriptor data… commit · …      (a ring from `first`)
//! any block   0 magic C03B3998 · 4 kind · 8 sequence
//! superblock  0x0C block size · 0x10 blocks · 0x14 first · 0x18 sequence · 0x1C start · 0x28 features · 0x30 UUID
//! descriptor  12… tags: block · flags · checksum; a UUID behind the first · last 4 bytes: checksum
//! revoke      12 bytes in use · 16… blocks that earlier copies must not overwrite · last 4 bytes: checksum
//! commit      16 checksum
//! ```
//! What the kernel would have to judge (a wrong checksum, fast commits, asynchronous commits) is not judged here: it is
//! [`Unsupported`](crate::Kind::Unsupported), and the kernel reads the file system instead.

use super::layout::crc;
use crate::volume::field::{array, be16, be32, bytes};
use crate::{Error, Result, limits};
use std::collections::{BTreeMap, HashMap};

/// Of every block of the journal's own.
pub const MAGIC: u32 = 0xc03b_3998;

/// A block that comes from the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Block of the journal file.
    pub journal_block: u32,
    /// Its first four bytes are the magic, which was blanked in the journal.
    pub escaped: bool,
}

/// What the journal's superblock says.
struct Header {
    first: u32,
    last: u32,
    sequence: u32,
    start: u32,
    wide: bool,
    csum_v2: bool,
    csum_v3: bool,
    seed: u32,
}

fn not_here(says: String) -> Error {
    Error::unsupported(format!("the journal {says}"))
}

impl Header {
    fn parse(raw: &[u8], block_size: u32) -> Result<Header> {
        let cut = || not_here("is cut off".into());
        let field = |at: usize| be32(raw, at).ok_or_else(cut);
        let kind = field(4)?;
        if field(0)? != MAGIC || !(3..=4).contains(&kind) || field(0x0c)? != block_size {
            return Err(not_here("has no superblock that is understood".into()));
        }
        let incompat = if kind == 4 { field(0x28)? } else { 0 };
        // Revocation, 64 bits, checksums v2 and v3.
        if incompat & !0x1b != 0 {
            return Err(not_here(format!("uses features {incompat:#x}")));
        }
        let header = Header {
            first: field(0x14)?,
            last: field(0x10)?,
            sequence: field(0x18)?,
            start: field(0x1c)?,
            wide: incompat & 2 != 0,
            csum_v2: incompat & 8 != 0,
            csum_v3: incompat & 0x10 != 0,
            seed: crc(u32::MAX, bytes(raw, 0x30, 16).ok_or_else(cut)?),
        };
        if header.has_checksums() {
            let stored = field(0xfc)?;
            let mut blanked = bytes(raw, 0, 1024).ok_or_else(cut)?.to_vec();
            blank(&mut blanked, 0xfc);
            if crc(u32::MAX, &blanked) != stored {
                return Err(not_here("has a superblock with a wrong checksum".into()));
            }
        }
        let ring = header.first > 0 && header.first < header.last;
        let inside = header.start == 0 || (header.first..header.last).contains(&header.start);
        if !ring || !inside || u64::from(header.last) > limits::JOURNAL_BLOCKS {
            return Err(not_here(format!(
                "runs from {} to {} and starts at {}",
                header.first, header.last, header.start
            )));
        }
        Ok(header)
    }

    fn has_checksums(&self) -> bool {
        self.csum_v2 || self.csum_v3
    }

    fn after(&self, block: u32, by: u32) -> u32 {
        let next = u64::from(block) + u64::from(by);
        let ring = u64::from(self.last - self.first);
        let wrapped = if next >= u64::from(self.last) {
            u64::from(self.first) + (next - u64::from(self.last)) % ring
        } else {
            next
        };
        u32::try_from(wrapped).unwrap_or(self.first)
    }

    /// Bytes of a tag, without a UUID behind it.
    fn tag_len(&self) -> usize {
        match (self.csum_v3, self.csum_v2, self.wide) {
            (true, _, _) => 16,
            (_, csum_v2, wide) => 8 + if csum_v2 { 2 } else { 0 } + if wide { 4 } else { 0 },
        }
    }

    /// Checks the checksum at the end of a descriptor or revocation block.
    fn check_tail(&self, raw: &[u8], what: &str) -> Result<()> {
        if !self.has_checksums() {
            return Ok(());
        }
        let at = raw.len().saturating_sub(4);
        let mut blanked = raw.to_vec();
        blank(&mut blanked, at);
        if be32(raw, at) != Some(crc(self.seed, &blanked)) {
            return Err(not_here(format!("has a {what} block with a wrong checksum")));
        }
        Ok(())
    }
}

fn blank(raw: &mut [u8], at: usize) {
    raw.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0);
}

/// One tag of a descriptor block.
struct Tag {
    block: u64,
    flags: u32,
    checksum: u32,
}

const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const DELETED: u32 = 4;
const LAST: u32 = 8;

impl Header {
    fn tags(&self, raw: &[u8]) -> Result<Vec<Tag>> {
        let mut tags = Vec::new();
        let end = raw.len().saturating_sub(if self.has_checksums() { 4 } else { 0 });
        let mut at = 12;
        while at + self.tag_len() <= end {
            let cut = || not_here("has a descriptor that is cut off".into());
            let low = be32(raw, at).ok_or_else(cut)?;
            let (flags, high_at, checksum) = if self.csum_v3 {
                (be32(raw, at + 4), at + 8, be32(raw, at + 12))
            } else {
                (be16(raw, at + 6).map(u32::from), at + 8, be16(raw, at + 4).map(u32::from))
            };
            let (flags, checksum) = (flags.ok_or_else(cut)?, checksum.ok_or_else(cut)?);
            let high = if self.wide { be32(raw, high_at).ok_or_else(cut)? } else { 0 };
            tags.push(Tag { block: u64::from(low) | u64::from(high) << 32, flags, checksum });
            at += self.tag_len() + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                return Ok(tags);
            }
        }
        Ok(tags)
    }

    fn revoked(&self, raw: &[u8]) -> Result<Vec<u64>> {
        let used = be32(raw, 12).and_then(|used| usize::try_from(used).ok()).unwrap_or(0);
        let entry = if self.wide { 8 } else { 4 };
        let room = raw.len().saturating_sub(if self.has_checksums() { 4 } else { 0 });
        let entries = raw
            .get(16..used)
            .filter(|_| used <= room)
            .ok_or_else(|| not_here(format!("revokes {used} bytes of blocks")))?;
        Ok(entries
            .chunks_exact(entry)
            .filter_map(|raw| match self.wide {
                true => array(raw, 0).map(u64::from_be_bytes),
                false => be32(raw, 0).map(u64::from),
            })
            .collect())
    }
}

/// Which blocks of the file system come from which block of the journal. `read` reads a block of the journal file.
pub fn replay(block_size: u32, read: impl Fn(u32) -> Result<Vec<u8>>) -> Result<BTreeMap<u64, Replayed>> {
    let header = Header::parse(&read(0)?, block_size)?;
    let mut replayed = BTreeMap::new();
    if header.start == 0 {
        return Ok(replayed);
    }
    // What each committed transaction wrote, in order, and the last transaction that revoked a block.
    let mut written: Vec<(u32, u64, Replayed)> = Vec::new();
    let mut revoked: HashMap<u64, u32> = HashMap::new();
    let (mut open_written, mut open_revoked) = (Vec::new(), Vec::new());
    let (mut at, mut sequence) = (header.start, header.sequence);
    let mut seen = 0_u64;
    while seen < u64::from(header.last) {
        let raw = read(at)?;
        seen += 1;
        if be32(&raw, 0) != Some(MAGIC) || be32(&raw, 8) != Some(sequence) {
            break;
        }
        let mut used = 1;
        match be32(&raw, 4) {
            Some(1) => {
                header.check_tail(&raw, "descriptor")?;
                for tag in header.tags(&raw)? {
                    let journal_block = header.after(at, used);
                    used += 1;
                    seen += 1;
                    if header.has_checksums() {
                        let data = read(journal_block)?;
                        let sum = crc(crc(header.seed, &sequence.to_be_bytes()), &data);
                        let sum = if header.csum_v3 { sum } else { sum & 0xffff };
                        if sum != tag.checksum {
                            return Err(not_here(format!("has a wrong checksum for block {}", tag.block)));
                        }
                    }
                    if tag.flags & DELETED == 0 {
                        let entry = Replayed { journal_block, escaped: tag.flags & ESCAPED != 0 };
                        open_written.push((sequence, tag.block, entry));
                    }
                }
            }
            Some(2) => {
                if header.has_checksums() {
                    let mut blanked = raw.clone();
                    blank(&mut blanked, 16);
                    if be32(&raw, 16) != Some(crc(header.seed, &blanked)) {
                        return Err(not_here(format!("has a wrong checksum in commit {sequence}")));
                    }
                }
                written.append(&mut open_written);
                for block in open_revoked.drain(..) {
                    revoked.insert(block, sequence);
                }
                sequence = sequence.wrapping_add(1);
            }
            Some(5) => {
                header.check_tail(&raw, "revocation")?;
                open_revoked.extend(header.revoked(&raw)?);
            }
            _ => break,
        }
        at = header.after(at, used);
    }
    for (sequence, block, entry) in written {
        // Revoked in the same transaction or a later one; sequence numbers wrap.
        let stale = revoked.get(&block).is_some_and(|&by| by.wrapping_sub(sequence) < 1 << 31);
        if !stale {
            replayed.insert(block, entry);
        }
    }
    Ok(replayed)
}
