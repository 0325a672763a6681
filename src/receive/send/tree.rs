//! What a disk holds, in digests: two disks are compared with few bytes on the line, and the one that is asked reads what it holds once.
//!
//! ```text
//! node (1 GiB)  = BLAKE3 of the digests of its chunks
//!   chunk (1 MiB) = BLAKE3 of its bytes
//! ```
//! The last chunk and the last node of a disk are as long as the disk leaves them. Runs that hold nothing are not read.

use super::{CHUNK, NODE};
use crate::receive::content::{Effort, each_extent};
use landfall_image::disk::clip;
use landfall_image::{Bytes, Disk, Error, ExtentKind, GuestOffset, GuestRange, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// BLAKE3.
pub type Digest = [u8; 32];
/// Chunks of a whole node.
pub const CHUNKS: u64 = NODE / CHUNK as u64;

/// Of a whole chunk that holds nothing.
static NOTHING: LazyLock<Digest> = LazyLock::new(|| *blake3::hash(&vec![0; CHUNK]).as_bytes());

/// The run of the chunk with that number; empty behind the disk's end.
pub fn chunk_run(number: u64, size: Bytes) -> GuestRange {
    run(number, CHUNK as u64, size)
}

/// The run of the node with that number; empty behind the disk's end.
pub fn node_run(number: u64, size: Bytes) -> GuestRange {
    run(number, NODE, size)
}

fn run(number: u64, len: u64, size: Bytes) -> GuestRange {
    let start = number.saturating_mul(len).min(size.0);
    clip(GuestRange::new(GuestOffset(start), Bytes(len)), size)
}

/// The digest of a chunk.
///
/// # Errors
/// As the disk's; refused where it has no such chunk.
pub fn chunk(disk: &(impl Disk + ?Sized), number: u64) -> Result<Digest> {
    let range = there(chunk_run(number, disk.size()))?;
    let mut holds_something = false;
    each_extent(disk, range, |extent| {
        holds_something |= extent.kind == ExtentKind::Data;
        Ok(())
    })?;
    read_chunk(disk, range, holds_something, &mut Vec::new())
}

fn there(range: GuestRange) -> Result<GuestRange> {
    match range.is_empty() {
        true => Err(Error::refused("the disk does not reach that far").hint("ask how large it is")),
        false => Ok(range),
    }
}

fn read_chunk(
    disk: &(impl Disk + ?Sized),
    range: GuestRange,
    holds_something: bool,
    buf: &mut Vec<u8>,
) -> Result<Digest> {
    let len = range.len().to_usize().unwrap_or(CHUNK);
    if !holds_something && len == CHUNK {
        return Ok(*NOTHING);
    }
    buf.clear();
    buf.resize(len, 0);
    if holds_something {
        disk.read_at(range.start(), buf)?;
    }
    Ok(*blake3::hash(buf).as_bytes())
}

/// The digests of the chunks of a node.
///
/// # Errors
/// As the disk's; refused where it has no such node; [`Kind::Interrupted`](landfall_image::Kind::Interrupted) where it was stopped.
pub fn chunks(disk: &(impl Disk + ?Sized), node: u64, effort: &Effort) -> Result<Vec<Digest>> {
    let range = there(node_run(node, disk.size()))?;
    let first = node.saturating_mul(CHUNKS);
    let count = usize::try_from(range.len().0.div_ceil(CHUNK as u64)).unwrap_or(0);
    let mut holds = vec![false; count];
    each_extent(disk, range, |extent| {
        if extent.kind == ExtentKind::Data {
            let inside = |at: u64| usize::try_from((at - range.start().0) / CHUNK as u64).unwrap_or(0);
            holds[inside(extent.range.start().0)..=inside(extent.range.end().0 - 1)].fill(true);
        }
        Ok(())
    })?;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![[0; 32]; count]);
    let work = || -> Result<()> {
        let mut buf = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(holds) = holds.get(at) else { return Ok(()) };
            if effort.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let digest = read_chunk(disk, chunk_run(first + at as u64, disk.size()), *holds, &mut buf)?;
            found.lock().unwrap_or_else(PoisonError::into_inner)[at] = digest;
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..effort.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let mut outcome = work();
        for other in others {
            outcome = outcome
                .and(other.join().unwrap_or_else(|_| Err(Error::corrupt("a thread that read has ended"))));
        }
        outcome
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The digest of a node with these chunks.
pub fn node(chunks: &[Digest]) -> Digest {
    *blake3::hash(chunks.as_flattened()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::testing::MemDisk;

    #[test]
    fn digests_are_those_of_the_bytes_whatever_the_map_says() {
        let size = 2 * CHUNK + 1024;
        let mut bytes = vec![0; size];
        bytes[CHUNK + 5] = 1;
        let disk = MemDisk::from_bytes(bytes.clone());
        let effort = Effort { jobs: 3, ..Effort::default() };
        let found = chunks(&disk, 0, &effort).unwrap();
        let wanted: Vec<Digest> = bytes.chunks(CHUNK).map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
        assert_eq!(found, wanted);
        assert_eq!((0..3).map(|n| chunk(&disk, n).unwrap()).collect::<Vec<_>>(), wanted);
        assert_eq!(node(&found), *blake3::hash(&wanted.concat()).as_bytes());
        for far in [3, u64::MAX] {
            assert!(chunk(&disk, far).is_err());
            assert!(chunks(&disk, far, &effort).is_err());
        }
        assert!(chunks(&disk, 1, &effort).is_err());
        effort.cancel.cancel();
        assert!(chunks(&disk, 0, &effort).is_err());
    }
}
