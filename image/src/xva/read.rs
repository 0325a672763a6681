//! A disk of an archive: its blocks in place, zeros between them.
//!
//! Every byte that is given away is of a block that was compared with its digest: a read of a whole block (what a conversion
//! does) compares what it read; the first read of a part of one reads and compares all of it, and the next ones read their
//! parts alone. What has no digest cannot be compared.

use super::index::{Block, Blocks, Sum};
use crate::disk::{self, Extent, ExtentKind};
use crate::error::Result;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use sha1::{Digest, Sha1};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use twox_hash::XxHash64;

/// Blocks that are joined to one extent, at most: an answer costs time for what it tells.
const JOINED: usize = 4096;

pub(super) struct Disk {
    source: Source,
    name: String,
    blocks: Arc<Blocks>,
    size: Bytes,
    /// A bit for each block that was compared.
    compared: Vec<AtomicU64>,
}

impl Disk {
    pub(super) fn new(source: Source, name: &str, blocks: Arc<Blocks>, size: Bytes) -> Disk {
        let words = blocks.list.len().div_ceil(64);
        let compared = std::iter::repeat_with(|| AtomicU64::new(0)).take(words).collect();
        Disk { source, name: name.to_owned(), blocks, size, compared }
    }

    /// The word and the bit of a block.
    fn mark(&self, place: usize) -> (Option<&AtomicU64>, u64) {
        (self.compared.get(place / 64), 1 << (place % 64))
    }

    /// Fills `part` from that block, `skip` bytes behind its beginning.
    fn read_part(&self, place: usize, block: &Block, skip: u64, part: &mut [u8]) -> Result<()> {
        let (word, bit) = self.mark(place);
        let is_whole = part.len() as u64 == block.bytes().0;
        let is_compared = word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0);
        if is_whole || is_compared || block.sum == Sum::Absent {
            self.source.read_exact_at(FileOffset(block.file.saturating_add(skip)), part)?;
            if is_whole {
                compare(&self.source, &self.name, block, part)?;
            }
        } else {
            let bytes = whole(&self.source, &self.name, block)?;
            let from = usize::try_from(skip).unwrap_or(usize::MAX);
            // Within the block, by the bounds of the caller.
            part.copy_from_slice(&bytes[from..from + part.len()]);
        }
        if let Some(word) = word {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The bytes of a block, compared with its digest.
pub(super) fn whole(source: &Source, disk: &str, block: &Block) -> Result<Vec<u8>> {
    let mut bytes = vec![0; block.bytes().to_usize().unwrap_or(usize::MAX)];
    source.read_exact_at(FileOffset(block.file), &mut bytes)?;
    compare(source, disk, block, &bytes)?;
    Ok(bytes)
}

/// SHA-1 in lower-case digits, as xapi writes it.
pub(super) fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().fold(String::with_capacity(40), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn compare(source: &Source, disk: &str, block: &Block, bytes: &[u8]) -> Result<()> {
    let (is, digits) = match block.sum {
        Sum::Absent => return Ok(()),
        Sum::Sha1 => (sha1(bytes), 40),
        Sum::Xxh64 => (format!("{:016X}", XxHash64::oneshot(0, bytes)), 16),
    };
    let mut told = [0; 40];
    let told = &mut told[..digits];
    source.read_exact_at(FileOffset(block.sum_file), told)?;
    if told.eq_ignore_ascii_case(is.as_bytes()) {
        return Ok(());
    }
    let told = String::from_utf8_lossy(told).escape_debug().to_string();
    Err(source
        .corrupt(format!(
            "the block at {:#x} of {disk} has the digest {is}, the export recorded {told}",
            block.at
        ))
        .at(FileOffset(block.file))
        .hint(
            "the export was damaged on its way: copy it again from its origin, or export the machine again",
        ))
}

impl disk::Disk for Disk {
    fn size(&self) -> Bytes {
        self.size
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size);
        let (mut here, end) = (range.start().0, range.end().0);
        let mut out = Vec::new();
        let mut place = self.blocks.first_behind(here);
        while here < end && out.len() < at_most.max(1) {
            let block = self.blocks.list.get(place);
            let (kind, until) = match block {
                None => (ExtentKind::Zero, end),
                Some(block) if block.at > here => (ExtentKind::Zero, block.at),
                Some(block) => {
                    let mut until = block.end();
                    place += 1;
                    for next in self.blocks.list.iter().skip(place).take(JOINED) {
                        if next.at != until || until >= end {
                            break;
                        }
                        until = next.end();
                        place += 1;
                    }
                    (ExtentKind::Data, until)
                }
            };
            let until = until.min(end);
            out.push(Extent { range: GuestRange::between(GuestOffset(here), GuestOffset(until)), kind });
            here = until;
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, mut buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size, at, buf.len())?;
        let mut here = at.0;
        let mut place = self.blocks.first_behind(here);
        while !buf.is_empty() {
            let rest = buf.len() as u64;
            let block = self.blocks.list.get(place);
            let len = match block {
                Some(block) if block.at <= here => block.end() - here,
                Some(block) => block.at - here,
                None => rest,
            };
            let len = usize::try_from(len.min(rest)).unwrap_or(buf.len());
            let (part, behind) = buf.split_at_mut(len);
            match block {
                Some(block) if block.at <= here => {
                    self.read_part(place, block, here - block.at, part)?;
                    place += 1;
                }
                _ => part.fill(0),
            }
            here += len as u64;
            buf = behind;
        }
        Ok(())
    }
}
