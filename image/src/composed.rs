//! A disk put together from pieces: bytes made in memory and other disks, each at its offset, zeros between them.
//!
//! ```text
//! 0            1 MiB                    129 MiB
//! | table | 0 | piece: a FAT volume  | 0 | piece: a file, as a disk | 0 … | table |
//! ```
//!
//! Read-only, and nothing is copied: a piece is read where it lies. Absent on purpose: looking for zeros inside of bytes
//! (the converter finds them), pieces that lie on each other, cutting a disk to a part of itself.

use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a piece holds. Cloning is cheap.
#[derive(Clone)]
pub enum Content {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// All of another disk.
    Disk(Arc<dyn Disk>),
}

impl Content {
    /// Its length.
    pub fn size(&self) -> Bytes {
        match self {
            Content::Bytes(bytes) => Bytes(bytes.len() as u64),
            Content::Disk(disk) => disk.size(),
        }
    }

    /// Fills `buf` from `at`, a position inside of the content.
    ///
    /// # Errors
    /// As [`Disk::read_at`].
    pub fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        match self {
            Content::Disk(disk) => disk.read_at(at, buf),
            Content::Bytes(bytes) => {
                disk::check_bounds(self.size(), at, buf.len())?;
                let from = index(at.0);
                if let Some(bytes) = bytes.get(from..from.saturating_add(buf.len())) {
                    buf.copy_from_slice(bytes);
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self, Content::Bytes(_)) { "bytes" } else { "a disk" };
        write!(f, "{kind} of {}", self.size())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Content::Bytes(bytes.into())
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Content::Bytes(bytes.into())
    }
}

impl From<Arc<[u8]>> for Content {
    fn from(bytes: Arc<[u8]>) -> Self {
        Content::Bytes(bytes)
    }
}

impl From<Arc<dyn Disk>> for Content {
    fn from(disk: Arc<dyn Disk>) -> Self {
        Content::Disk(disk)
    }
}

impl<D: Disk + 'static> From<Arc<D>> for Content {
    fn from(disk: Arc<D>) -> Self {
        Content::Disk(disk)
    }
}

/// A disk of pieces, with sectors of 512 bytes.
#[derive(Clone, Debug)]
pub struct Composed {
    size: Bytes,
    /// Start -> content, never empty; none reaches the next.
    pieces: BTreeMap<u64, Content>,
}

impl Composed {
    /// A disk of `size` that is all zeros.
    pub fn new(size: Bytes) -> Self {
        Composed { size, pieces: BTreeMap::new() }
    }

    /// Puts `content` at `at`. An empty one is not kept.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where it passes the end of the disk, or lies on another piece.
    pub fn put(&mut self, at: GuestOffset, content: impl Into<Content>) -> Result<()> {
        let content = content.into();
        let len = content.size();
        let end = at.checked_add(len).filter(|end| end.0 <= self.size.0);
        let Some(end) = end else {
            return Err(Error::refused(format!(
                "{} bytes at offset {} pass the end of a disk of {} bytes",
                len.0, at.0, self.size.0
            )));
        };
        if len.0 == 0 {
            return Ok(());
        }
        let before = self.pieces.range(..end.0).next_back();
        if let Some((&start, other)) = before
            && start + other.size().0 > at.0
        {
            return Err(Error::refused(format!(
                "{} bytes at offset {} lie on the {} bytes at offset {start}",
                len.0,
                at.0,
                other.size().0
            )));
        }
        self.pieces.insert(at.0, content);
        Ok(())
    }

    /// The run of one piece, or of none, that begins at `here`, cut at `end`; its content with the run's place in it.
    fn run(&self, here: u64, end: u64) -> (GuestRange, Option<(&Content, u64)>) {
        let before = self.pieces.range(..=here).next_back();
        let (to, piece) = match before {
            Some((&start, content)) if start + content.size().0 > here => {
                (start + content.size().0, Some((content, here - start)))
            }
            _ => (self.pieces.range(here..).next().map_or(end, |(&start, _)| start), None),
        };
        (GuestRange::between(GuestOffset(here), GuestOffset(to.min(end))), piece)
    }
}

impl Disk for Composed {
    fn size(&self) -> Bytes {
        self.size
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size);
        let (mut here, end) = (range.start().0, range.end().0);
        let mut out = Vec::new();
        while here < end && out.len() < at_most.max(1) {
            let (range, piece) = self.run(here, end);
            here = range.end().0;
            match piece {
                None => out.push(Extent { range, kind: ExtentKind::Zero }),
                Some((Content::Bytes(_), _)) => out.push(Extent { range, kind: ExtentKind::Data }),
                Some((Content::Disk(disk), place)) => {
                    let start = range.start().0 - place;
                    let inner = GuestRange::new(GuestOffset(place), range.len());
                    let inner = disk.extents(inner, at_most.max(1) - out.len())?;
                    here = inner.last().map_or(range.start().0, |last| start + last.range.end().0);
                    out.extend(inner.into_iter().map(|extent| moved(extent, start)));
                    if here < range.end().0 {
                        break; // the answer must stay contiguous
                    }
                }
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size, at, buf.len())?;
        let mut here = at.0;
        let mut rest = buf;
        while !rest.is_empty() {
            let (range, piece) = self.run(here, here.saturating_add(rest.len() as u64));
            let (now, later) = rest.split_at_mut(index(range.len().0));
            match piece {
                Some((content, place)) => content.read_at(GuestOffset(place), now)?,
                None => now.fill(0),
            }
            here = range.end().0;
            rest = later;
        }
        Ok(())
    }
}

/// An extent of a piece that begins at `start`. There is no parent that what is not stored could come from.
fn moved(extent: Extent, start: u64) -> Extent {
    let at = GuestOffset(start + extent.range.start().0);
    let kind = match extent.kind {
        ExtentKind::Unallocated => ExtentKind::Zero,
        kind => kind,
    };
    Extent { range: GuestRange::new(at, extent.range.len()), kind }
}

/// A position in a buffer that is there.
fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::testing::{Faults, FaultyDisk, MemDisk, mixed, read_all};
    use proptest::prelude::*;

    fn composed() -> Composed {
        let disk: Arc<dyn Disk> =
            Arc::new(MemDisk::new(Bytes(3000)).data(1000, vec![7; 500]).zero(2000, 100));
        let mut composed = Composed::new(Bytes(10_000));
        composed.put(GuestOffset(5000), disk).unwrap();
        composed.put(GuestOffset(0), vec![1, 2, 3]).unwrap();
        composed.put(GuestOffset(8000), Arc::<[u8]>::from([9; 2000])).unwrap();
        composed.put(GuestOffset(8000), Vec::new()).unwrap();
        composed
    }

    #[test]
    fn pieces_are_read_where_they_lie_and_zeros_between_them() {
        let composed = composed();
        let mut wanted = vec![0; 10_000];
        wanted[..3].copy_from_slice(&[1, 2, 3]);
        wanted[6000..6500].fill(7);
        wanted[8000..].fill(9);
        assert_eq!(read_all(&composed).unwrap(), wanted);
        for (from, to) in [(2, 6001), (3, 5000), (6499, 8001), (9999, 10_000), (500, 500)] {
            let mut buf = vec![0xff; to - from];
            composed.read_at(GuestOffset(from as u64), &mut buf).unwrap();
            assert_eq!(buf, wanted[from..to], "{from}..{to}");
        }
        assert_eq!(composed.read_at(GuestOffset(9999), &mut [0; 2]).unwrap_err().kind(), Kind::Io);
    }

    #[test]
    fn extents_are_those_of_the_pieces_and_come_on_demand() {
        use ExtentKind::{Data, Zero};
        let composed = composed();
        let all = GuestRange::new(GuestOffset(0), Bytes(u64::MAX));
        let wanted = [
            (0, 3, Data),
            (3, 5000, Zero),
            (5000, 6000, Zero),
            (6000, 6500, Data),
            (6500, 7000, Zero),
            (7000, 7100, Zero),
            (7100, 8000, Zero),
            (8000, 10_000, Data),
        ];
        let told = |extents: Vec<Extent>| -> Vec<_> {
            extents.iter().map(|e| (e.range.start().0, e.range.end().0, e.kind)).collect()
        };
        assert_eq!(told(composed.extents(all, 100).unwrap()), wanted);
        for at_most in 0..8 {
            assert_eq!(told(composed.extents(all, at_most).unwrap()), wanted[..at_most.max(1)]);
        }
        let part = GuestRange::between(GuestOffset(6100), GuestOffset(8001));
        let part = told(composed.extents(part, 100).unwrap());
        assert_eq!(part.first(), Some(&(6100, 6500, Data)));
        assert_eq!(part.last(), Some(&(8000, 8001, Data)));
    }

    #[test]
    fn one_byte_too_far_is_refused() {
        let mut composed = composed();
        let mut refused = |at: u64, len: usize| {
            let error = composed.put(GuestOffset(at), vec![1; len]).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{at} + {len}");
        };
        refused(2, 1);
        refused(3, 4998);
        refused(4999, 5000);
        refused(7999, 1);
        refused(9999, 1);
        refused(10_000, 1);
        refused(u64::MAX, 2);
        refused(10_001, 0);
        composed.put(GuestOffset(3), vec![1; 4997]).unwrap();
        let mut whole = Composed::new(Bytes(512));
        whole.put(GuestOffset(0), vec![1; 512]).unwrap();
        assert!(whole.put(GuestOffset(511), vec![1; 1]).is_err());
    }

    #[test]
    fn a_failing_piece_fails_the_disk() {
        for fail_at in 0..2 {
            let disk = FaultyDisk { disk: mixed(1, Bytes::mib(6)), faults: Faults::at(fail_at) };
            let mut composed = Composed::new(Bytes::mib(8));
            composed.put(GuestOffset(4096), Arc::new(disk)).unwrap();
            let all = GuestRange::new(GuestOffset(0), composed.size());
            assert_eq!(composed.extents(all, usize::MAX).is_err(), fail_at == 0);
            assert_eq!(read_all(&composed).is_err(), fail_at == 1);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Against bytes that each piece was copied into; what does not fit is refused, and only that.
        #[test]
        fn as_one_run_of_bytes(
            pieces in prop::collection::vec((0..600u64, 0..200usize, any::<bool>()), 0..12),
            from in 0..500usize,
            len in 0..200usize,
        ) {
            let mut wanted = vec![None; 500];
            let mut composed = Composed::new(Bytes(500));
            for (n, (at, len, as_disk)) in (1u8..).zip(pieces) {
                let content: Content = if as_disk {
                    Arc::new(MemDisk::from_bytes(vec![n; len])).into()
                } else {
                    vec![n; len].into()
                };
                let place = usize::try_from(at).unwrap()..usize::try_from(at).unwrap() + len;
                let fits = wanted.get(place.clone()).is_some_and(|there| there.iter().all(Option::is_none));
                prop_assert_eq!(composed.put(GuestOffset(at), content).is_ok(), fits);
                if fits {
                    wanted[place].fill(Some(n));
                }
            }
            let to = (from + len).min(500);
            let mut buf = vec![0xff; to - from];
            composed.read_at(GuestOffset(from as u64), &mut buf).unwrap();
            let bytes: Vec<u8> = wanted[from..to].iter().map(|byte| byte.unwrap_or(0)).collect();
            prop_assert_eq!(buf, bytes);
            let mut here = 0;
            while here < 500 {
                let extents = composed.extents(GuestRange::between(GuestOffset(here), GuestOffset(500)), 3).unwrap();
                prop_assert!(!extents.is_empty() && extents.len() <= 3);
                for extent in extents {
                    prop_assert_eq!(extent.range.start().0, here);
                    here = extent.range.end().0;
                    let place = usize::try_from(extent.range.start().0).unwrap()..usize::try_from(here).unwrap();
                    let is_data = extent.kind == ExtentKind::Data;
                    prop_assert!(wanted[place].iter().all(|byte| byte.is_some() == is_data));
                }
            }
        }
    }
}
