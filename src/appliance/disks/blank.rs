//! Whether there is anything on a disk.
//!
//! ```text
//! every disk that is looked at      is_blank    its first and last 16 MiB, and 256 places of 4 KiB between them: a second
//! the one that is to be written to  search      all of it, or as much as can be read in 20 seconds, spread evenly over it
//! ```
//! What can be read in that time is some GB of a disk that turns, and tens of GB of others. A larger disk is taken with parts unread: of 4 TiB, of
//! which 20 GB were read, no more than half a GiB lie between two places that were. No file system, volume or database leaves nothing but
//! zeros at both ends and in each of so many places.

use super::COMPLETE;
use landfall_boot::appliance::layout;
use landfall_image::convert::is_zero;
use landfall_image::{Bytes, Disk, Error, GuestOffset, Result};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Looked at whole, at both ends of a disk.
const ENDS: Bytes = Bytes::mib(16);
/// Places between the ends, and how much of each.
const PLACES: u64 = 256;
const PLACE: u64 = 4096;
/// Tables for sectors of 4096 bytes: 6 of them at the beginning, 5 at the end.
const TABLE: u64 = 6 * 4096;
/// What a search reads at a time, and how many reads are under way.
const PIECE: u64 = 256 << 10;
const READERS: u64 = 4;
/// What reads past the page cache are aligned to: no sector is larger.
const ALIGNED: usize = 4096;

/// A disk that is read past the page cache, which costs ten times the time where a small machine is emulated, and pushes out everything else.
pub struct Blank {
    file: File,
    path: PathBuf,
    size: u64,
}

/// Where a reader puts what it reads: aligned, as reads past the page cache must be.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Buffer {
        Buffer(vec![0; usize::try_from(PIECE).unwrap_or_default() + ALIGNED])
    }

    /// Its first `len` bytes, one piece at most.
    fn part(&mut self, len: u64) -> &mut [u8] {
        let from = self.0.as_ptr().align_offset(ALIGNED);
        let to = from.saturating_add(usize::try_from(len.min(PIECE)).unwrap_or_default());
        self.0.get_mut(from..to).unwrap_or_default()
    }
}

impl Blank {
    /// Opens it.
    ///
    /// # Errors
    /// `Io`
    pub fn open(device: &Path) -> Result<Blank> {
        let failed = |e| Error::io("cannot open", e).in_file(device);
        let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(direct).open(device);
        // Memory's file systems know no such reads.
        let mut file = file.or_else(|_| File::open(device)).map_err(failed)?;
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Blank { file, path: device.to_owned(), size })
    }

    /// The first byte that is found not to be zero, in all of the disk but for a partition table at either end. A search that takes longer
    /// than `within` ends with what it has seen, which is spread evenly over the disk.
    ///
    /// # Errors
    /// `Io` where the disk cannot be read.
    pub fn search(&self, within: Duration) -> Result<Option<GuestOffset>> {
        let (first, last) = (TABLE.min(self.size), self.size.saturating_sub(TABLE));
        let pieces = self.size.div_ceil(PIECE).max(1);
        let order = Order::of(pieces);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let end = Instant::now() + within;
        let read = || -> Result<Option<GuestOffset>> {
            let mut buffer = Buffer::new();
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= pieces || stop.load(Ordering::Relaxed) || Instant::now() >= end {
                    return Ok(None);
                }
                let piece = order.at(turn);
                let from = (piece * PIECE).max(first);
                let to = ((piece + 1) * PIECE).min(last);
                let found = self.content(from, to, &mut buffer);
                if !matches!(found, Ok(None)) {
                    stop.store(true, Ordering::Relaxed);
                    return found;
                }
            }
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            let mut all = Ok(None);
            for reader in readers {
                match reader.join() {
                    // Content that was found counts, whatever else could not be read.
                    Ok(Ok(Some(at))) => all = Ok(Some(at)),
                    Ok(Err(error)) if matches!(all, Ok(None)) => all = Err(error),
                    Ok(_) => {}
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        })
    }

    /// True where nothing but zeros is found; `table`: but for a partition table at both ends.
    ///
    /// # Errors
    /// `Io` where the disk cannot be read.
    pub fn is_blank(&self, table: bool) -> Result<bool> {
        let size = self.size;
        let skip = if table { TABLE } else { 0 };
        let mut buffer = Buffer::new();
        let mut zero =
            |from: u64, to: u64| -> Result<bool> { Ok(self.content(from, to, &mut buffer)?.is_none()) };
        let (first, last) = (ENDS.0.min(size), size.saturating_sub(ENDS.0));
        if !zero(skip.min(first), first)? || !zero(last.max(first), size.saturating_sub(skip).max(last))? {
            return Ok(false);
        }
        let step = size / PLACES;
        for place in 1..PLACES {
            // Not only where structures like to begin.
            let at = place.saturating_mul(step).saturating_add(place.wrapping_mul(0x9e37_79b9) % step.max(1))
                / PLACE
                * PLACE;
            let end = at.saturating_add(PLACE);
            if end <= size.saturating_sub(skip) && at >= skip && !zero(at, end)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first byte between two places that is not zero.
    fn content(&self, from: u64, to: u64, buffer: &mut Buffer) -> Result<Option<GuestOffset>> {
        let mut at = from;
        while at < to {
            let part = buffer.part(to - at);
            self.file.read_exact_at(part, at).map_err(|e| {
                Error::io(format!("cannot read {} bytes at byte {at}", part.len()), e).in_file(&self.path)
            })?;
            if !is_zero(part) {
                let place = part.iter().position(|byte| *byte != 0).unwrap_or_default();
                return Ok(Some(GuestOffset(at + place as u64)));
            }
            at += part.len() as u64;
        }
        Ok(None)
    }
}

/// The order in which pieces are read: each comes once, and those that came are spread evenly at any moment.
struct Order {
    pieces: u64,
    stride: u64,
}

impl Order {
    /// Steps near the golden section of all pieces, and coprime to their number.
    fn of(pieces: u64) -> Order {
        let golden = u64::try_from(u128::from(pieces) * 618_033_989 / 1_000_000_000).unwrap_or(1).max(1);
        Order { pieces, stride: (golden..).find(|stride| coprime(*stride, pieces)).unwrap_or(1) }
    }

    fn at(&self, turn: u64) -> u64 {
        let far = u128::from(turn) * u128::from(self.stride);
        u64::try_from(far % u128::from(self.pieces.max(1))).unwrap_or(0)
    }
}

fn coprime(one: u64, other: u64) -> bool {
    let (mut one, mut other) = (one, other);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one == 1
}

/// True where the disk's end holds a table of ours, of which the beginning was not written: a vault that is not complete, and a state before
/// it or none.
pub fn is_remains(disk: &dyn Disk) -> Result<bool> {
    const ARRAY: usize = 128 * 128;
    let size = disk.size().0;
    for sector in [512, 4096] {
        let Some(at) = size.checked_sub(sector + ARRAY as u64) else { continue };
        let mut array = vec![0; ARRAY];
        disk.read_at(GuestOffset(at), &mut array)?;
        let is_state = array.starts_with(&layout::STATE.to_bytes_le());
        let (vault, rest) = array.split_at(if is_state { 128 } else { 0 }).1.split_at(128);
        let is_vault = vault.starts_with(&layout::VAULT.to_bytes_le());
        let attributes =
            vault.get(48..56).and_then(|bytes| bytes.try_into().ok()).map_or(COMPLETE, u64::from_le_bytes);
        if is_vault && attributes & COMPLETE == 0 && rest.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search_of(path: &Path, within: Duration) -> Result<Option<GuestOffset>> {
        Blank::open(path)?.search(within)
    }

    #[test]
    fn a_search_finds_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create(&path).unwrap();
        let long = Duration::from_secs(600);
        for size in [16 << 20, (16 << 20) + 4096, (13 << 20) + 8192, 1 << 20, 64 << 10, 4096] {
            file.set_len(0).unwrap();
            file.set_len(size).unwrap();
            assert_eq!(search_of(&path, long).unwrap(), None);
            let places = [TABLE, PIECE - 1, PIECE, 12_345_678, size / 2, size.saturating_sub(TABLE + 1)];
            for at in places.into_iter().filter(|at| *at >= TABLE && *at + TABLE < size) {
                file.write_all_at(&[1], at).unwrap();
                assert_eq!(search_of(&path, long).unwrap(), Some(GuestOffset(at)), "{size}");
                file.write_all_at(&[0], at).unwrap();
            }
            // A table is none of it.
            file.write_all_at(&[1], 0).unwrap();
            assert_eq!(search_of(&path, long).unwrap(), None);
            file.write_all_at(&[0], 0).unwrap();
        }
    }

    #[test]
    fn a_search_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(8 << 40).unwrap();
        assert_eq!(search_of(&path, Duration::from_millis(50)).unwrap(), None);
    }

    #[test]
    fn what_was_read_is_spread_at_any_moment() {
        for pieces in [1, 2, 3, 1000, 4096, 65_537, 16 << 20] {
            let order = Order::of(pieces);
            for turns in [1, 10, 100, 1000, 65_536].into_iter().filter(|turns| *turns <= pieces) {
                let mut read: Vec<u64> = (0..turns).map(|turn| order.at(turn)).collect();
                read.push(pieces);
                read.sort_unstable();
                read.dedup();
                assert_eq!(read.len() as u64, turns + 1, "a piece came twice: {pieces} {turns}");
                let widest = read.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                // Of few pieces the coprime step may be far from the golden section; they are all read.
                let bound = if pieces > 10_000 { 3 } else { 6 };
                assert!(widest <= bound * pieces.div_ceil(turns), "{pieces} {turns}: {widest}");
            }
        }
    }
}
