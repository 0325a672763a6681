//! Which parts of a disk a client has sent anew: where acknowledged writes may be missing, only a copy of the whole disk is one.

use landfall_image::{Disk, ExtentKind, GuestOffset, GuestRange, Result};
use std::ops::Range;

/// Bytes that one bit stands for: what QEMU's jobs copy at once, at least. It counts when it was sent in one request.
const GRANULE: u64 = 64 << 10;

/// Granules of a disk that were sent.
#[derive(Debug)]
pub struct Coverage {
    size: u64,
    sent: Vec<u64>,
}

impl Coverage {
    /// Nothing of a disk of `size` bytes.
    pub fn new(size: u64) -> Coverage {
        Coverage { size, sent: Vec::new() }
    }

    /// These bytes were sent.
    pub fn add(&mut self, range: &Range<u64>) {
        if self.sent.is_empty() {
            // Of most disks nothing is sent.
            let words = self.size.div_ceil(GRANULE).div_ceil(64);
            self.sent = vec![0; usize::try_from(words).unwrap_or(0)];
        }
        let end = if range.end >= self.size { self.size.div_ceil(GRANULE) } else { range.end / GRANULE };
        for granule in range.start.div_ceil(GRANULE)..end {
            if let Some(word) = usize::try_from(granule / 64).ok().and_then(|word| self.sent.get_mut(word)) {
                *word |= 1 << (granule % 64);
            }
        }
    }

    /// True where all of the disk was sent, but for what reads as zeros: clients ask for that, and do not send it again.
    ///
    /// # Errors
    /// As the disk's.
    pub fn is_whole(&self, disk: &dyn Disk) -> Result<bool> {
        let granules = self.size.div_ceil(GRANULE);
        let mut at = 0;
        while at < granules {
            if self.has(at) {
                at += 1;
                continue;
            }
            let until = (at..granules).find(|granule| self.has(*granule)).unwrap_or(granules);
            if !is_zero(disk, at * GRANULE..(until * GRANULE).min(self.size))? {
                return Ok(false);
            }
            at = until;
        }
        Ok(true)
    }

    fn has(&self, granule: u64) -> bool {
        let word = usize::try_from(granule / 64).ok().and_then(|word| self.sent.get(word));
        word.is_some_and(|word| word >> (granule % 64) & 1 == 1)
    }
}

fn is_zero(disk: &dyn Disk, range: Range<u64>) -> Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let extents = disk.extents(GuestRange::between(GuestOffset(at), GuestOffset(range.end)), 64)?;
        if extents.is_empty() || extents.iter().any(|extent| extent.kind == ExtentKind::Data) {
            return Ok(false);
        }
        at = extents.last().map_or(range.end, |last| last.range.end().0);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::{Bytes, DiskMut, Overlay};
    use std::sync::Arc;

    struct Zeros(u64);

    impl Disk for Zeros {
        fn size(&self) -> Bytes {
            Bytes(self.0)
        }
        fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<landfall_image::Extent>> {
            Ok(vec![landfall_image::Extent { range, kind: ExtentKind::Zero }])
        }
        fn read_at(&self, _: GuestOffset, buf: &mut [u8]) -> Result<()> {
            buf.fill(0);
            Ok(())
        }
    }

    #[test]
    fn a_disk_is_whole_when_all_was_sent_but_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let size = 100 * GRANULE + 512;
        let disk = Overlay::new(Arc::new(Zeros(size)), dir.path()).unwrap();
        let mut coverage = Coverage::new(size);
        assert!(coverage.is_whole(&disk).unwrap(), "all is zero");
        disk.write_at(GuestOffset(70 * GRANULE - 512), &[1; 1024]).unwrap();
        disk.write_at(GuestOffset(size - 512), &[1; 512]).unwrap();
        assert!(!coverage.is_whole(&disk).unwrap());
        coverage.add(&(69 * GRANULE..71 * GRANULE));
        assert!(!coverage.is_whole(&disk).unwrap(), "the end was not sent");
        // What is sent in parts of granules does not count.
        coverage.add(&(99 * GRANULE + 1..size - 1));
        assert!(!coverage.is_whole(&disk).unwrap());
        coverage.add(&(100 * GRANULE..size));
        assert!(coverage.is_whole(&disk).unwrap());
        coverage.add(&(u64::MAX - 5..u64::MAX));
    }
}
