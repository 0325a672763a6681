//! Arrays with parity, levels 4, 5 and 6, as one disk: of md, and of LVM.
//!
//! Source: the kernel's `drivers/md/raid5.c` (places), `lib/raid6` and H. P. Anvin, "The mathematics of RAID-6" (Q).
//!
//! ```text
//! row      one chunk of each disk: data, P (the sum of the data in bits), and of level 6 Q
//! Q        the sum of each chunk of data times 2^n, in the field of 256 elements with the polynomial 0x11d
//! layout   which disk of a row has P and Q, and in which order the data lie on the others
//! ```
//! What is written makes P and Q of its place in the row anew from all data there: they are right afterwards, whatever they
//! were before. A disk that is not here is computed. Deliberately absent: journals, and arrays that are being reshaped.
//!
//! One file each: [`layout`] (where things lie), [`field`] (the arithmetic of Q).

mod field;
mod layout;

pub(super) use layout::Layout;

use crate::{Error, Result, limits};
use field::{add, add_times, times};
use landfall_image::disk::{check_bounds, clip};
use landfall_image::{Bytes, Disk, DiskMut, Extent, ExtentKind, GuestOffset, GuestRange};
use layout::Row;
use std::sync::{Arc, PoisonError, RwLock};

/// A disk of an array, and where its data begin; `None` for one that is not here.
pub(super) type Member = Option<(Arc<dyn DiskMut>, GuestOffset)>;

/// An array with parity.
pub(super) struct Parity {
    members: Vec<Member>,
    layout: Layout,
    chunk: Bytes,
    size: Bytes,
    sector_size: Bytes,
    /// Volumes of one array may be written at once, and rows belong to several.
    turn: RwLock<()>,
}

/// A run of bytes in one chunk of data.
#[derive(Clone, Copy, Debug)]
struct Piece {
    row: u64,
    /// Which of the row's data.
    data: usize,
    /// From the beginning of the chunk.
    inside: u64,
    len: usize,
}

impl Parity {
    /// The array of these disks, of each of which `used` bytes from its data's beginning on are used.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) where the shape is none, [`Kind::Refused`](crate::Kind::Refused) where more
    /// disks are missing than the level allows.
    pub(super) fn new(members: Vec<Member>, layout: Layout, chunk: Bytes, used: Bytes) -> Result<Parity> {
        let data_disks = layout.data_disks(members.len());
        let Some(data_disks) = data_disks.filter(|_| chunk.0 >= 512 && chunk.0.is_multiple_of(512)) else {
            return Err(Error::corrupt(format!(
                "an array of {} disks in chunks of {} bytes cannot have the layout {layout:?}",
                members.len(),
                chunk.0
            )));
        };
        let missing = members.iter().filter(|member| member.is_none()).count();
        if missing > layout.parities() {
            return Err(Error::refused(format!(
                "{missing} of its {} disks are missing, and {} may be",
                members.len(),
                layout.parities()
            )));
        }
        let used = Bytes(used.0 / chunk.0 * chunk.0);
        let mut sector_size = Bytes(512);
        for (disk, at) in members.iter().flatten() {
            if at.checked_add(used).is_none_or(|end| end.0 > disk.size().0) {
                return Err(Error::corrupt(format!(
                    "{used} at {:#x} pass the end of a disk of {}",
                    at.0,
                    disk.size()
                )));
            }
            sector_size = sector_size.max(disk.sector_size());
        }
        let size = used.0.checked_mul(data_disks as u64).map(Bytes);
        let size = size.ok_or_else(|| Error::corrupt("an array of more than 2^64 bytes"))?;
        Ok(Parity { members, layout, chunk, size, sector_size, turn: RwLock::new(()) })
    }

    /// Disks of a row that hold data.
    fn data_disks(&self) -> usize {
        self.layout.data_disks(self.members.len()).unwrap_or(1).max(1)
    }

    /// The pieces of a run, each of at most [`limits::PARITY_PIECE`].
    fn pieces(&self, at: GuestOffset, len: usize) -> impl Iterator<Item = Piece> + use<> {
        let (chunk, data_disks) = (self.chunk.0, self.data_disks() as u64);
        let (mut here, end) = (at.0, at.0.saturating_add(len as u64));
        std::iter::from_fn(move || {
            let inside = here % chunk;
            let len = (chunk - inside).min(end.saturating_sub(here)).min(limits::PARITY_PIECE.0);
            let number = here / chunk;
            let piece = Piece {
                row: number / data_disks,
                // Both are below the number of disks, and below the limit.
                data: usize::try_from(number % data_disks).ok()?,
                inside,
                len: usize::try_from(len).ok()?,
            };
            here = here.saturating_add(len);
            (len > 0).then_some(piece)
        })
    }

    fn member(&self, disk: usize) -> Option<&(Arc<dyn DiskMut>, GuestOffset)> {
        self.members.get(disk)?.as_ref()
    }

    fn place(&self, at: GuestOffset, piece: Piece) -> GuestOffset {
        GuestOffset(at.0.saturating_add(piece.row.saturating_mul(self.chunk.0)).saturating_add(piece.inside))
    }

    /// Reads a piece's bytes from `disk`; false where that is not here.
    fn read_from(&self, disk: usize, piece: Piece, buf: &mut [u8]) -> Result<bool> {
        let Some((disk, at)) = self.member(disk) else { return Ok(false) };
        disk.read_at(self.place(*at, piece), buf)?;
        Ok(true)
    }

    fn write_to(&self, disk: usize, piece: Piece, data: &[u8]) -> Result<()> {
        match self.member(disk) {
            Some((disk, at)) => disk.write_at(self.place(*at, piece), data),
            None => Ok(()),
        }
    }

    /// The sums that P and Q are, over all data that are here but the one at `without`.
    fn sums(&self, row: &Row, piece: Piece, without: Option<usize>) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut p, mut q, mut buffer) = (vec![0; piece.len], vec![0; piece.len], vec![0; piece.len]);
        for (index, data) in row.data.iter().enumerate() {
            if Some(index) != without && self.read_from(data.disk, piece, &mut buffer)? {
                add(&mut p, &buffer);
                if row.q.is_some() {
                    add_times(&mut q, &buffer, data.factor);
                }
            }
        }
        Ok((p, q))
    }

    /// The data at `wanted`, whose disk is not here.
    fn compute(&self, row: &Row, piece: Piece, wanted: usize) -> Result<Vec<u8>> {
        let lost = || Error::refused("more disks of the array are missing than can be computed");
        let missing =
            |index: &usize| row.data.get(*index).is_some_and(|data| self.member(data.disk).is_none());
        let other = (0..row.data.len()).filter(missing).find(|&index| index != wanted);
        let factor = |index: usize| row.data.get(index).map(|data| data.factor).ok_or_else(lost);
        let (mut p, mut q) = self.sums(row, piece, None)?;
        let mut stored = vec![0; piece.len];
        let has_p = self.read_from(row.p, piece, &mut stored)?;
        add(&mut p, &stored);
        if other.is_none() && has_p {
            return Ok(p);
        }
        if !row.q.map_or(Ok(false), |q| self.read_from(q, piece, &mut stored))? {
            return Err(lost());
        }
        add(&mut q, &stored);
        let wanted = factor(wanted)?;
        match other {
            // q = wanted * data
            None => times(&mut q, field::inverse(wanted)),
            // p = data + other, q = wanted * data + factor * other
            Some(other) if has_p => {
                let other = factor(other)?;
                add_times(&mut q, &p, other);
                times(&mut q, field::inverse(wanted ^ other));
            }
            Some(_) => return Err(lost()),
        }
        Ok(q)
    }

    fn read_piece(&self, piece: Piece, buf: &mut [u8]) -> Result<()> {
        let row = self.layout.row(self.members.len(), piece.row);
        let disk = row.data.get(piece.data).map_or(usize::MAX, |data| data.disk);
        if self.read_from(disk, piece, buf)? {
            return Ok(());
        }
        let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
        buf.copy_from_slice(&self.compute(&row, piece, piece.data)?);
        Ok(())
    }

    fn write_piece(&self, piece: Piece, data: &[u8]) -> Result<()> {
        let row = self.layout.row(self.members.len(), piece.row);
        let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        let (mut p, mut q) = self.sums(&row, piece, Some(piece.data))?;
        let mut count = |index: usize, bytes: &[u8]| {
            add(&mut p, bytes);
            add_times(&mut q, bytes, row.data.get(index).map_or(0, |data| data.factor));
        };
        for (index, other) in row.data.iter().enumerate() {
            if index != piece.data && self.member(other.disk).is_none() {
                count(index, &self.compute(&row, piece, index)?);
            }
        }
        count(piece.data, data);
        let own = row.data.get(piece.data).map_or(usize::MAX, |data| data.disk);
        self.write_to(own, piece, data)?;
        self.write_to(row.p, piece, &p)?;
        row.q.map_or(Ok(()), |disk| self.write_to(disk, piece, &q))
    }
}

impl Disk for Parity {
    fn size(&self) -> Bytes {
        self.size
    }

    fn sector_size(&self) -> Bytes {
        self.sector_size
    }

    fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
        let range = clip(range, self.size);
        Ok(if range.is_empty() { Vec::new() } else { vec![Extent { range, kind: ExtentKind::Data }] })
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        check_bounds(self.size, at, buf.len())?;
        let mut rest = buf;
        for piece in self.pieces(at, rest.len()) {
            let (part, behind) = rest.split_at_mut(piece.len.min(rest.len()));
            rest = behind;
            self.read_piece(piece, part)?;
        }
        Ok(())
    }
}

impl DiskMut for Parity {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        check_bounds(self.size, at, data.len())?;
        let mut rest = data;
        for piece in self.pieces(at, data.len()) {
            let (part, behind) = rest.split_at(piece.len.min(rest.len()));
            rest = behind;
            self.write_piece(piece, part)?;
        }
        Ok(())
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let range = clip(range, self.size);
        let row_len = self.chunk.0.saturating_mul(self.data_disks() as u64);
        let zeros = vec![0; limits::PARITY_PIECE.to_usize().unwrap_or(0)];
        let mut here = range.start().0;
        while here < range.end().0 {
            let rest = range.end().0 - here;
            if here.is_multiple_of(row_len) && rest >= row_len {
                // Parity of zeros is zeros.
                let rows = rest / row_len;
                let len = Bytes(rows.saturating_mul(self.chunk.0));
                let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
                for (disk, at) in self.members.iter().flatten() {
                    let at = GuestOffset(at.0.saturating_add(here / row_len * self.chunk.0));
                    disk.zero_at(GuestRange::new(at, len))?;
                }
                here = here.saturating_add(rows.saturating_mul(row_len));
                continue;
            }
            let to_row = row_len - here % row_len;
            let len = to_row.min(rest).min(zeros.len() as u64);
            let part = zeros.get(..Bytes(len).to_usize().unwrap_or(0)).unwrap_or_default();
            self.write_at(GuestOffset(here), part)?;
            here = here.saturating_add(len);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.members.iter().flatten().try_for_each(|(disk, _)| disk.flush())
    }
}

#[cfg(test)]
mod tests;
