//! Runs of the machine's disks, presented as one disk: a partition, or a logical volume of many pieces.

use crate::{Error, Result};
use landfall_image::disk::{check_bounds, clip};
use landfall_image::{Bytes, Disk, DiskMut, Extent, GuestOffset, GuestRange};
use std::sync::Arc;

/// A run of a volume: `len` bytes, spread over one or more places in turns of `stripe_size`.
#[derive(Clone)]
pub struct Segment {
    /// Length; for several places a multiple of their number times `stripe_size`.
    pub len: Bytes,
    /// Bytes in one place before the next one's turn; without meaning for a single place.
    pub stripe_size: Bytes,
    /// Which disk, and where on it.
    pub places: Vec<(Arc<dyn DiskMut>, GuestOffset)>,
}

/// Segments in a row, as a disk of its own. Reads, writes and zeroes go to the disks below.
#[derive(Clone)]
pub struct View {
    /// Where each begins, ascending; none is empty.
    segments: Vec<(u64, Segment)>,
    size: Bytes,
    sector_size: Bytes,
}

/// A run of the view that lies in one piece on one disk.
struct Piece<'a> {
    disk: &'a Arc<dyn DiskMut>,
    at: GuestOffset,
    len: u64,
}

impl Segment {
    /// `range` of `disk`.
    pub fn linear(disk: Arc<dyn DiskMut>, range: GuestRange) -> Segment {
        Segment { len: range.len(), stripe_size: range.len(), places: vec![(disk, range.start())] }
    }

    /// Bytes that each place holds.
    fn len_per_place(&self) -> Option<u64> {
        let places = self.places.len() as u64;
        if places == 1 {
            return Some(self.len.0);
        }
        let turn = places.checked_mul(self.stripe_size.0).filter(|&turn| turn > 0)?;
        self.len.0.is_multiple_of(turn).then_some(self.len.0 / places)
    }
}

impl View {
    /// The segments one after the other. Each must lie on its disks; empty ones are left out.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Result<View> {
        let mut view = View { segments: Vec::new(), size: Bytes(0), sector_size: Bytes(512) };
        for segment in segments {
            if segment.len.0 == 0 {
                continue;
            }
            let Some(per_place) = segment.len_per_place() else {
                return Err(Error::corrupt(format!(
                    "a segment of {} bytes does not divide into {} stripes of {} bytes",
                    segment.len.0,
                    segment.places.len(),
                    segment.stripe_size.0
                )));
            };
            for (disk, at) in &segment.places {
                let end = at.0.checked_add(per_place);
                if end.is_none_or(|end| end > disk.size().0) {
                    return Err(Error::corrupt(format!(
                        "a segment of {per_place} bytes at {:#x} passes the end of its disk at {:#x}",
                        at.0,
                        disk.size().0
                    )));
                }
                view.sector_size = view.sector_size.max(disk.sector_size());
            }
            let start = view.size;
            view.size = start
                .checked_add(segment.len)
                .ok_or_else(|| Error::corrupt("the segments add up to more than 2^64 bytes"))?;
            view.segments.push((start.0, segment));
        }
        Ok(view)
    }

    /// A part of one disk.
    pub fn part(disk: Arc<dyn DiskMut>, range: GuestRange) -> Result<View> {
        View::new([Segment::linear(disk, range)])
    }

    /// The pieces of a run inside the view, in order.
    fn pieces(&self, range: GuestRange) -> impl Iterator<Item = Piece<'_>> {
        let mut here = range.start().0;
        let end = range.end().0;
        std::iter::from_fn(move || {
            if here >= end {
                return None;
            }
            let piece = self.piece(here, end - here)?;
            here += piece.len;
            Some(piece)
        })
    }

    /// The first piece of the `len` bytes at `at`, of at least one byte.
    fn piece(&self, at: u64, len: u64) -> Option<Piece<'_>> {
        let index = self.segments.partition_point(|(start, _)| *start <= at).checked_sub(1)?;
        let (start, segment) = self.segments.get(index)?;
        let inside = at.checked_sub(*start)?;
        let len = len.min(segment.len.0.checked_sub(inside)?);
        if let [(disk, base)] = segment.places.as_slice() {
            return Some(Piece { disk, at: base.checked_add(Bytes(inside))?, len });
        }
        let stripe = segment.stripe_size.0;
        let places = segment.places.len() as u64;
        let chunk = inside / stripe;
        let (disk, base) = segment.places.get(usize::try_from(chunk % places).ok()?)?;
        let in_chunk = inside % stripe;
        let at = base.checked_add(Bytes(chunk / places * stripe + in_chunk))?;
        Some(Piece { disk, at, len: len.min(stripe - in_chunk) })
    }

    /// Hands the parts of a buffer-sized run to `each` as (piece, from, to) of the buffer.
    fn each_part(
        &self,
        at: GuestOffset,
        len: usize,
        mut each: impl FnMut(&Piece<'_>, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        check_bounds(self.size, at, len)?;
        let mut done = 0;
        for piece in self.pieces(GuestRange::new(at, Bytes(len as u64))) {
            // Cannot fail: a piece is no longer than the buffer.
            let part = usize::try_from(piece.len).unwrap_or(len - done).min(len - done);
            each(&piece, done..done + part)?;
            done += part;
        }
        Ok(())
    }
}

impl Disk for View {
    fn size(&self) -> Bytes {
        self.size
    }

    fn sector_size(&self) -> Bytes {
        self.sector_size
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let at_most = at_most.max(1);
        let range = clip(range, self.size);
        let mut here = range.start();
        let mut out: Vec<Extent> = Vec::new();
        for piece in self.pieces(range) {
            let room = at_most - out.len();
            let mut covered = 0;
            for extent in piece.disk.extents(GuestRange::new(piece.at, Bytes(piece.len)), room)? {
                let len = extent.range.len().0.min(piece.len - covered);
                match out.last_mut() {
                    Some(last) if last.kind == extent.kind => {
                        last.range = GuestRange::new(last.range.start(), Bytes(last.range.len().0 + len));
                    }
                    _ => out.push(Extent { range: GuestRange::new(here, Bytes(len)), kind: extent.kind }),
                }
                covered += len;
                here = GuestOffset(here.0 + len);
            }
            if covered < piece.len || out.len() >= at_most {
                break;
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.each_part(at, buf.len(), |piece, part| piece.disk.read_at(piece.at, &mut buf[part]))
    }
}

impl DiskMut for View {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.each_part(at, data.len(), |piece, part| piece.disk.write_at(piece.at, &data[part]))
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        for piece in self.pieces(clip(range, self.size)) {
            piece.disk.zero_at(GuestRange::new(piece.at, Bytes(piece.len)))?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut flushed: Vec<*const ()> = Vec::new();
        for (disk, _) in self.segments.iter().flat_map(|(_, segment)| &segment.places) {
            let identity = Arc::as_ptr(disk).cast::<()>();
            if !flushed.contains(&identity) {
                flushed.push(identity);
                disk.flush()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    fn all(disk: &dyn Disk) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(disk.size().0).unwrap()];
        disk.read_at(GuestOffset(0), &mut out).unwrap();
        out
    }

    /// Two linear pieces and one striped over both disks, against the plain arithmetic of stripes.
    #[test]
    fn reads_and_writes_land_where_the_layout_says() {
        let (a, b) = (Memory::patterned(4096, 0), Memory::patterned(4096, 0x80));
        let layout = || {
            View::new([
                Segment::linear(a.clone(), GuestRange::new(GuestOffset(100), Bytes(50))),
                Segment {
                    len: Bytes(96),
                    stripe_size: Bytes(16),
                    places: vec![(b.clone(), GuestOffset(512)), (a.clone(), GuestOffset(1024))],
                },
                Segment::linear(b.clone(), GuestRange::new(GuestOffset(0), Bytes(7))),
            ])
        };
        let view = layout().unwrap();
        assert_eq!(view.size(), Bytes(153));
        let (old_a, old_b) = (all(&a), all(&b));
        let mut want = old_a[100..150].to_vec();
        for turn in 0..3 {
            want.extend(&old_b[512 + turn * 16..][..16]);
            want.extend(&old_a[1024 + turn * 16..][..16]);
        }
        want.extend(&old_b[..7]);
        for start in 0..want.len() {
            for end in start..=want.len() {
                let mut got = vec![0; end - start];
                view.read_at(GuestOffset(start as u64), &mut got).unwrap();
                assert_eq!(got, want[start..end], "{start}..{end}");
            }
        }
        assert!(view.read_at(GuestOffset(150), &mut [0; 4]).is_err());

        view.write_at(GuestOffset(40), &[1; 100]).unwrap();
        view.zero_at(GuestRange::new(GuestOffset(60), Bytes(20))).unwrap();
        view.flush().unwrap();
        want[40..140].fill(1);
        want[60..80].fill(0);
        assert_eq!(all(&view), want);
        assert_eq!(all(&a)[..140], old_a[..140], "nothing outside is touched");
        assert_eq!(all(&a)[150..1024], old_a[150..1024]);
        assert_eq!(all(&a)[1072..], old_a[1072..]);

        let extents = view.extents(GuestRange::new(GuestOffset(3), Bytes(u64::MAX)), 100).unwrap();
        assert_eq!(extents.iter().map(|extent| extent.range.len().0).sum::<u64>(), 150);
        assert_eq!(extents[0].range.start(), GuestOffset(3));
    }

    #[test]
    fn a_layout_that_passes_its_disk_is_corrupt() {
        let a = Memory::patterned(4096, 0);
        let part = |at, len| View::part(a.clone(), GuestRange::new(GuestOffset(at), Bytes(len)));
        assert!(part(0, 4096).is_ok());
        for (at, len) in [(0, 4097), (4096, 1), (u64::MAX - 1, 1)] {
            assert_eq!(part(at, len).err().unwrap().kind(), crate::Kind::Corrupt);
        }
        let striped = |stripe_size, len| {
            let places = vec![(a.clone(), GuestOffset(0)), (a.clone(), GuestOffset(2048))];
            View::new([Segment { len: Bytes(len), stripe_size: Bytes(stripe_size), places }])
        };
        assert!(striped(512, 4096).is_ok());
        assert!(striped(0, 4096).is_err());
        assert!(striped(512, 4096 - 512).is_err());
        assert!(striped(u64::MAX, 4096).is_err());
    }
}
