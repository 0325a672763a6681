//! Extents behind each other as one disk.

use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::Result;
use crate::raw;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};

/// One extent in its place.
pub(super) struct Part {
    /// Where it starts on the disk.
    pub(super) start: GuestOffset,
    /// How much of it belongs to the disk: a sparse extent may end in a grain that the disk does not fill.
    pub(super) len: Bytes,
    pub(super) disk: Box<dyn Disk>,
}

/// The disk.
pub(super) struct Joined {
    /// Rising, without gaps, none empty.
    parts: Vec<Part>,
    size: Bytes,
}

impl Joined {
    /// Joins `parts`, which lie behind each other from 0 on.
    pub(super) fn new(parts: Vec<Part>) -> Joined {
        let size = Bytes(parts.last().map_or(0, |last| last.start.0 + last.len.0));
        Joined { parts, size }
    }

    /// The parts from the one that holds `at` on.
    fn from(&self, at: GuestOffset) -> impl Iterator<Item = &Part> {
        let first = self.parts.partition_point(|part| part.start.0 + part.len.0 <= at.0);
        self.parts.iter().skip(first)
    }
}

impl Disk for Joined {
    fn size(&self) -> Bytes {
        self.size
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size);
        let at_most = at_most.max(1);
        let mut out: Vec<Extent> = Vec::new();
        if range.is_empty() {
            return Ok(out);
        }
        for part in self.from(range.start()) {
            let here = range.intersect(GuestRange::new(part.start, part.len));
            if here.is_empty() || out.len() >= at_most {
                break;
            }
            let inside = GuestRange::new(GuestOffset(here.start().0 - part.start.0), here.len());
            let mut reached = here.start();
            for extent in part.disk.extents(inside, at_most - out.len())? {
                let from = GuestOffset(part.start.0 + extent.range.start().0);
                reached = GuestOffset(part.start.0 + extent.range.end().0);
                match out.last_mut() {
                    Some(last) if last.kind == extent.kind => {
                        last.range = GuestRange::between(last.range.start(), reached);
                    }
                    _ => out.push(Extent { range: GuestRange::between(from, reached), kind: extent.kind }),
                }
            }
            if reached < here.end() {
                break; // the answer stays contiguous
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size, at, buf.len())?;
        let mut rest = buf;
        let mut here = at;
        for part in self.from(at) {
            if rest.is_empty() {
                break;
            }
            let inside = here.0 - part.start.0;
            let len = usize::try_from(part.len.0 - inside).unwrap_or(usize::MAX).min(rest.len());
            let (now, behind) = std::mem::take(&mut rest).split_at_mut(len);
            part.disk.read_at(GuestOffset(inside), now)?;
            rest = behind;
            here = GuestOffset(here.0 + len as u64);
        }
        Ok(())
    }
}

/// A run of a file that holds the bytes of the disk.
pub(super) struct Flat {
    /// Exactly the run.
    pub(super) source: Source,
}

impl Disk for Flat {
    fn size(&self) -> Bytes {
        self.source.len()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        raw::file_extents(&self.source, FileOffset(range.start().0), range, at_most)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.source.read_exact_at(FileOffset(at.0), buf)
    }
}

/// Zeros.
pub(super) struct Zeros {
    pub(super) size: Bytes,
}

impl Disk for Zeros {
    fn size(&self) -> Bytes {
        self.size
    }

    fn extents(&self, range: GuestRange, _at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size);
        Ok(if range.is_empty() { Vec::new() } else { vec![Extent { range, kind: ExtentKind::Zero }] })
    }

    fn read_at(&self, _at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        Ok(())
    }
}
