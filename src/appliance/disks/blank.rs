//! Whether there is anything on a disk.
//!
//! ```text
//! every disk that is looked at      is_blank    its first and last 16 MiB, and 4,096 places between them: milliseconds
//! the one that is to be written to  search      all of it, or as much as can be read in 20 seconds, spread evenly over it
//! ```
//! What is read in 20 seconds is some tens of GB: a larger disk is taken with parts unread, and all that would be lost of it are single pieces
//! of less than a hundred MB between large areas of zeros at both ends and everywhere else. No file system, volume or database leaves that.

use super::COMPLETE;
use landfall_boot::appliance::layout;
use landfall_image::convert::is_zero;
use landfall_image::{Bytes, Disk, GuestOffset, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Looked at whole, at both ends of a disk.
const ENDS: Bytes = Bytes::mib(16);
/// Places between the ends, and how much of each.
const PLACES: u64 = 4096;
const PLACE: usize = 4096;
/// Tables for sectors of 4096 bytes: 6 of them at the beginning, 5 at the end.
const TABLE: u64 = 6 * 4096;
/// What a search reads at a time, and how many reads are under way.
const PIECE: u64 = 1 << 20;
const READERS: u64 = 4;

/// The first byte that is found not to be zero, in all of the disk but for a partition table at either end. A search that takes longer than
/// `within` ends with what it has seen, of which the rest is evenly spread over the disk.
///
/// # Errors
/// `Io` where the disk cannot be read.
pub fn search(disk: &dyn Disk, within: Duration) -> Result<Option<GuestOffset>> {
    let size = disk.size().0;
    let (first, last) = (TABLE.min(size), size.saturating_sub(TABLE));
    let pieces = size.div_ceil(PIECE).max(1);
    // Near the golden section of all pieces, and coprime to their number: each comes once, and those that came are spread evenly at any moment.
    let golden = u64::try_from(u128::from(pieces) * 618_033_989 / 1_000_000_000).unwrap_or(1).max(1);
    let stride = (golden..).find(|stride| coprime(*stride, pieces)).unwrap_or(1);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let end = Instant::now() + within;
    let read = || -> Result<Option<GuestOffset>> {
        let mut buffer = vec![0; usize::try_from(PIECE).unwrap_or_default()];
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= pieces || stop.load(Ordering::Relaxed) || Instant::now() >= end {
                return Ok(None);
            }
            let piece =
                u64::try_from(u128::from(turn) * u128::from(stride) % u128::from(pieces)).unwrap_or(0);
            let from = (piece * PIECE).max(first);
            let to = ((piece + 1) * PIECE).min(last);
            let len = usize::try_from(to.saturating_sub(from)).unwrap_or_default();
            let Some(part) = buffer.get_mut(..len) else { continue };
            disk.read_at(GuestOffset(from), part)?;
            if !is_zero(part) {
                stop.store(true, Ordering::Relaxed);
                let at = part.iter().position(|byte| *byte != 0).unwrap_or_default();
                return Ok(Some(GuestOffset(from + at as u64)));
            }
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let mut found = None;
        for reader in readers {
            match reader.join() {
                Ok(seen) => found = found.or(seen?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(found)
    })
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

/// True where nothing but zeros is found; `table`: but for a partition table at both ends.
pub fn is_blank(disk: &dyn Disk, table: bool) -> Result<bool> {
    let size = disk.size().0;
    let skip = if table { TABLE } else { 0 };
    let mut buffer = vec![0; 1 << 20];
    let mut zero = |from: u64, to: u64| -> Result<bool> {
        let mut at = from;
        while at < to {
            let len = usize::try_from((to - at).min(1 << 20)).unwrap_or(1 << 20);
            let Some(part) = buffer.get_mut(..len) else { break };
            disk.read_at(GuestOffset(at), part)?;
            if !is_zero(part) {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    };
    let (first, last) = (ENDS.0.min(size), size.saturating_sub(ENDS.0));
    if !zero(skip.min(first), first)? || !zero(last.max(first), size.saturating_sub(skip).max(last))? {
        return Ok(false);
    }
    let step = size / PLACES;
    for place in 1..PLACES {
        // Not only where structures like to begin.
        let at =
            place.saturating_mul(step).saturating_add(place.wrapping_mul(0x9e37_79b9) % step.max(1)) & !511;
        let end = at.saturating_add(PLACE as u64);
        if end <= size.saturating_sub(skip) && at >= skip && !zero(at, end)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::{Gate, Source, raw};
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    fn open(path: &Path) -> std::sync::Arc<dyn Disk> {
        raw::open(Source::open(path).unwrap(), &Gate::own_folder()).unwrap().disk
    }

    #[test]
    fn a_search_finds_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create(&path).unwrap();
        let long = Duration::from_secs(600);
        for size in [16 << 20, (16 << 20) + 512, (13 << 20) + 4096, 1 << 20, 40 << 10, 512] {
            file.set_len(0).unwrap();
            file.set_len(size).unwrap();
            assert_eq!(search(open(&path).as_ref(), long).unwrap(), None);
            let places = [TABLE, PIECE - 1, PIECE, 12_345_678, size / 2, size.saturating_sub(TABLE + 1)];
            for at in places.into_iter().filter(|at| *at >= TABLE && *at + TABLE < size) {
                file.write_all_at(&[1], at).unwrap();
                assert_eq!(search(open(&path).as_ref(), long).unwrap(), Some(GuestOffset(at)), "{size}");
                file.write_all_at(&[0], at).unwrap();
            }
            // A table is none of it.
            file.write_all_at(&[1], 0).unwrap();
            assert_eq!(search(open(&path).as_ref(), long).unwrap(), None);
            file.write_all_at(&[0], 0).unwrap();
        }
    }

    #[test]
    fn a_search_ends_and_what_it_has_seen_is_spread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(8 << 40).unwrap();
        file.write_all_at(&[1], 0x379_b97f_4a17).unwrap();
        assert_eq!(search(open(&path).as_ref(), Duration::from_millis(50)).unwrap(), None);
        // A hundredth of it is met long before the whole was read.
        file.write_all_at(&[0], 0x379_b97f_4a17).unwrap();
        file.set_len(512 << 20).unwrap();
        file.write_all_at(&vec![7; 5 << 20], 300 << 20).unwrap();
        let seen = search(open(&path).as_ref(), Duration::from_secs(600)).unwrap().unwrap().0;
        assert!(((300 << 20)..(305 << 20)).contains(&seen), "{seen}");
    }
}
