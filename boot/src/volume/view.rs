//! Runs of the machine's disks, presented as one disk: a partition, an array, or a logical volume of many pieces.
//!
//! ```text
//! segment          len bytes, in turns of stripe_size over its places
//!   place          the same bytes on one disk or several: the first copy is read, all are written
//! ```
//! Every write reaches all copies before it returns, so mirrors that were alike stay alike. Deliberately absent: parity, which
//! is a disk of its own ([`parity`](super::parity)), as thin and cached volumes are.

use crate::{Error, Result};
use landfall_image::disk::{check_bounds, clip};
use landfall_image::{Bytes, Disk, DiskMut, Extent, GuestOffset, GuestRange};
use std::sync::{Arc, Mutex, PoisonError};

/// A run of a volume: `len` bytes, spread over one or more places in turns of `stripe_size`.
#[derive(Clone)]
pub struct Segment {
    /// Length. The last turn need not be complete.
    pub len: Bytes,
    /// Bytes in one place before the next one's turn; without meaning for a single place.
    pub stripe_size: Bytes,
    /// Bytes from the beginning of a place's turn to that of its next one: the stripe size, but where several places
    /// share a disk.
    pub stride: Bytes,
    /// Whose turn it is, in order.
    pub places: Vec<Place>,
}

/// Where a turn's bytes lie: on one disk, or the same on several. The first is read, all are written.
#[derive(Clone)]
pub struct Place(pub Vec<(Arc<dyn DiskMut>, GuestOffset)>);

/// Segments in a row, as a disk of its own. Reads, writes and zeroes go to the disks below.
#[derive(Clone)]
pub struct View {
    /// Where each begins, ascending; none is empty.
    segments: Vec<(u64, Segment)>,
    size: Bytes,
    sector_size: Bytes,
    first: Option<Arc<First>>,
}

/// What is done once, before anything is written.
struct First {
    is_done: Mutex<bool>,
    what: Box<dyn Fn() -> Result<()> + Send + Sync>,
}

/// A run of the view that lies in one piece on one disk, or alike on several.
struct Piece<'a> {
    place: &'a Place,
    /// From where each copy begins.
    inside: Bytes,
    len: u64,
}

impl Piece<'_> {
    /// Every copy, the one that is read first.
    fn copies(&self) -> impl Iterator<Item = (&Arc<dyn DiskMut>, GuestOffset)> {
        // The sum was checked when the view was made.
        self.place.0.iter().map(|(disk, at)| (disk, GuestOffset(at.0.saturating_add(self.inside.0))))
    }

    /// The copy that is read.
    fn first(&self) -> Result<(&Arc<dyn DiskMut>, GuestOffset)> {
        self.copies().next().ok_or_else(|| Error::corrupt("a segment lies nowhere"))
    }
}

impl Segment {
    /// `range` of `disk`.
    pub fn linear(disk: Arc<dyn DiskMut>, range: GuestRange) -> Segment {
        Segment::mirrored(range.len(), vec![(disk, range.start())])
    }

    /// `len` bytes at each of these places, alike.
    pub fn mirrored(len: Bytes, copies: Vec<(Arc<dyn DiskMut>, GuestOffset)>) -> Segment {
        Segment { len, stripe_size: len, stride: len, places: vec![Place(copies)] }
    }

    /// `len` bytes over these places in turns of `stripe_size`.
    pub fn striped(len: Bytes, stripe_size: Bytes, places: Vec<Place>) -> Segment {
        Segment { len, stripe_size, stride: stripe_size, places }
    }

    /// Where the bytes of the place of that number end, from where it begins. `None` where that is no number.
    fn end_in_place(&self, index: u64) -> Option<u64> {
        let places = self.places.len() as u64;
        if places == 1 {
            return Some(self.len.0);
        }
        let stripe = self.stripe_size.0;
        let chunks = self.len.0.checked_next_multiple_of(stripe)?.checked_div(stripe)?;
        let Some(last) = chunks.checked_sub(index + 1) else { return Some(0) };
        let turn = last / places;
        // The very last chunk may be a part of one.
        let is_last = turn * places + index + 1 == chunks;
        let len = if is_last { self.len.0 - (chunks - 1) * stripe } else { stripe };
        turn.checked_mul(self.stride.0)?.checked_add(len)
    }
}

impl View {
    /// The segments one after the other. Each must lie on its disks; empty ones are left out.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Result<View> {
        let mut view = View { segments: Vec::new(), size: Bytes(0), sector_size: Bytes(512), first: None };
        for segment in segments {
            if segment.len.0 == 0 {
                continue;
            }
            if segment.stripe_size.0 == 0 || segment.stride < segment.stripe_size {
                return Err(Error::corrupt("a segment has stripes of no length"));
            }
            if segment.places.is_empty() || segment.places.iter().any(|place| place.0.is_empty()) {
                return Err(Error::corrupt("a segment lies nowhere"));
            }
            for (index, place) in (0_u64..).zip(&segment.places) {
                for (disk, at) in &place.0 {
                    let len = segment.end_in_place(index);
                    let end = len.and_then(|len| at.0.checked_add(len));
                    if end.is_none_or(|end| end > disk.size().0) {
                        return Err(Error::corrupt(format!(
                            "a segment of {} bytes at {:#x} passes the end of its disk at {:#x}",
                            len.unwrap_or(u64::MAX),
                            at.0,
                            disk.size().0
                        )));
                    }
                    view.sector_size = view.sector_size.max(disk.sector_size());
                }
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

    /// The same, and `what` is done before the first byte is written: to mark copies that are not here.
    pub fn before_writing(mut self, what: impl Fn() -> Result<()> + Send + Sync + 'static) -> View {
        self.first = Some(Arc::new(First { is_done: Mutex::new(false), what: Box::new(what) }));
        self
    }

    fn prepare(&self) -> Result<()> {
        let Some(first) = &self.first else { return Ok(()) };
        let mut is_done = first.is_done.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_done {
            (first.what)()?;
            *is_done = true;
        }
        Ok(())
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
        if let [place] = segment.places.as_slice() {
            return Some(Piece { place, inside: Bytes(inside), len });
        }
        let stripe = segment.stripe_size.0;
        let places = segment.places.len() as u64;
        let chunk = inside / stripe;
        let place = segment.places.get(usize::try_from(chunk % places).ok()?)?;
        let in_chunk = inside % stripe;
        let inside = Bytes(chunk / places * segment.stride.0 + in_chunk);
        Some(Piece { place, inside, len: len.min(stripe - in_chunk) })
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
            let (disk, at) = piece.first()?;
            for extent in disk.extents(GuestRange::new(at, Bytes(piece.len)), room)? {
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
        self.each_part(at, buf.len(), |piece, part| {
            let (disk, at) = piece.first()?;
            disk.read_at(at, &mut buf[part])
        })
    }
}

impl DiskMut for View {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        check_bounds(self.size, at, data.len())?;
        self.prepare()?;
        self.each_part(at, data.len(), |piece, part| {
            piece.copies().try_for_each(|(disk, at)| disk.write_at(at, &data[part.clone()]))
        })
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        self.prepare()?;
        for piece in self.pieces(clip(range, self.size)) {
            for (disk, at) in piece.copies() {
                disk.zero_at(GuestRange::new(at, Bytes(piece.len)))?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut flushed: Vec<*const ()> = Vec::new();
        let places = self.segments.iter().flat_map(|(_, segment)| &segment.places);
        for (disk, _) in places.flat_map(|place| &place.0) {
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

    fn alone(disk: &Arc<dyn DiskMut>, at: u64) -> Place {
        Place(vec![(disk.clone(), GuestOffset(at))])
    }

    /// Two linear pieces and one striped over both disks, against the plain arithmetic of stripes.
    #[test]
    fn reads_and_writes_land_where_the_layout_says() {
        let (a, b) = (Memory::patterned(4096, 0), Memory::patterned(4096, 0x80));
        let layout = || {
            View::new([
                Segment::linear(a.clone(), GuestRange::new(GuestOffset(100), Bytes(50))),
                Segment::striped(Bytes(96), Bytes(16), vec![alone(&b, 512), alone(&a, 1024)]),
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
            let places = vec![alone(&a, 0), alone(&a, 2048)];
            View::new([Segment::striped(Bytes(len), Bytes(stripe_size), places)])
        };
        assert!(striped(512, 4096).is_ok());
        assert!(striped(512, 4096 + 513).is_err(), "one more byte, in the second place");
        assert!(striped(512, 4096 - 512).is_ok(), "half a turn at the end");
        assert!(striped(0, 4096).is_err());
        assert!(striped(u64::MAX, 4096).is_ok(), "all of it is the first turn");
        assert!(View::new([Segment::mirrored(Bytes(1), Vec::new())]).is_err());
        assert!(View::new([Segment::striped(Bytes(4096), Bytes(512), Vec::new())]).is_err());
    }

    /// Three disks, two copies of every chunk: what md calls raid10 near=2. Each copy is found where it is laid down.
    #[test]
    fn copies_are_written_alike_and_the_first_is_read() {
        const CHUNK: u64 = 16;
        let disks: Vec<_> = (0..3).map(|salt| Memory::patterned(256, salt)).collect();
        let place = |first: (usize, u64), second: (usize, u64)| {
            let copy = |(disk, row): (usize, u64)| (disks[disk].clone(), GuestOffset(row * CHUNK));
            Place(vec![copy(first), copy(second)])
        };
        let segment = Segment {
            len: Bytes(7 * CHUNK),
            stripe_size: Bytes(CHUNK),
            stride: Bytes(2 * CHUNK),
            places: vec![place((0, 0), (1, 0)), place((2, 0), (0, 1)), place((1, 1), (2, 1))],
        };
        let view = View::new([segment]).unwrap();
        for chunk in 0..7 {
            view.write_at(GuestOffset(chunk * CHUNK), &[u8::try_from(chunk).unwrap() + 1; 16]).unwrap();
        }
        for chunk in 0..7_u64 {
            for copy in [chunk * 2, chunk * 2 + 1] {
                let raw = all(&disks[usize::try_from(copy % 3).unwrap()]);
                let row = usize::try_from(copy / 3 * CHUNK).unwrap();
                assert_eq!(raw[row..row + 16], [u8::try_from(chunk).unwrap() + 1; 16], "chunk {chunk}");
            }
        }
        disks[1].write_at(GuestOffset(0), &[0xee; 16]).unwrap();
        assert_eq!(all(&view)[0], 1, "the second copy is not read");
        view.zero_at(GuestRange::new(GuestOffset(8), Bytes(16))).unwrap();
        assert_eq!((all(&disks[0])[8], all(&disks[1])[8], all(&disks[2])[0]), (0, 0, 0));
    }
}
