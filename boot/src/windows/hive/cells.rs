//! Cells of a hive: where each begins, taking one, giving one back.
//!
//! The hive bins data are bins of whole 4 KiB pages, each with a header of 32 bytes and then cells without a gap (msuhanov,
//! "Windows registry file format specification", sections "Hive bin" and "Cell"). A cell's size is negative where it is in
//! use. Every offset in a hive counts from the first bin and names a cell; here it must name one that is in use, which
//! one bit for each eight bytes says, so that no offset of a damaged hive leads into the middle of anything.
//!
//! A cell is taken from the free one that fits best; what is given back joins its free neighbours; where nothing fits, a
//! bin is appended. Deliberately absent: giving whole bins back (Windows compacts hives itself), and cells of versions
//! before 1.3, which have another header.

use super::limits;
use crate::volume::field::le32;
use crate::{Error, Result};
use landfall_image::FileOffset;
use std::collections::{BTreeMap, BTreeSet};

/// Length of the base block, behind which the bins lie.
pub const BASE_BLOCK: usize = 4096;
/// Bins are whole pages.
pub const PAGE: usize = 4096;
/// What stands for no cell.
pub const NIL: u32 = u32::MAX;
const BIN_HEADER: usize = 32;
/// A cell's size field.
const SIZE: usize = 4;

/// An error about the structure at `offset` of the hive bins data.
pub fn corrupt(offset: u32, says: impl Into<String>) -> Error {
    Error::corrupt(says).at(FileOffset(BASE_BLOCK as u64 + u64::from(offset)))
}

/// As an offset: everything in a hive is below 512 MiB.
pub fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NIL)
}

/// One bit for each eight bytes of the bins.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// All unset, for `len` bytes of bins.
    pub fn new(len: usize) -> Bits {
        Bits(vec![0; len.div_ceil(512)])
    }
    /// Whether the bit of an offset is set.
    pub fn get(&self, at: u32) -> bool {
        let at = at as usize / 8;
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
    /// Sets it to `on`; whether it was set before.
    pub fn set(&mut self, at: u32, on: bool) -> bool {
        let before = self.get(at);
        let at = at as usize / 8;
        if let Some(word) = self.0.get_mut(at / 64) {
            *word = *word & !(1 << (at % 64)) | u64::from(on) << (at % 64);
        }
        before
    }
    /// How many are set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
    fn grow(&mut self, len: usize) {
        self.0.resize(len.div_ceil(512), 0);
    }
}

/// The hive bins data.
#[derive(Clone, Debug)]
pub struct Cells {
    bins: Vec<u8>,
    used: Bits,
    /// Free cells: size by offset.
    free: BTreeMap<u32, u32>,
    /// The same by size.
    by_size: BTreeSet<(u32, u32)>,
}

impl Cells {
    /// Finds every cell.
    pub fn scan(bins: Vec<u8>) -> Result<Cells> {
        let mut used = Bits::new(bins.len());
        let mut free = BTreeMap::new();
        let mut bin = 0;
        while bin < bins.len() {
            let end = bin_end(&bins, bin)?;
            let mut at = bin + BIN_HEADER;
            while at < end {
                let raw = le32(&bins, at).unwrap_or(0).cast_signed();
                let size = raw.unsigned_abs() as usize;
                if size < 8 || !size.is_multiple_of(8) || size > end - at {
                    let says = format!("a cell has a size of {raw}; its bin ends {} bytes on", end - at);
                    return Err(corrupt(offset(at), says));
                }
                if raw < 0 {
                    used.set(offset(at), true);
                } else {
                    free.insert(offset(at), raw.unsigned_abs());
                }
                at += size;
            }
            bin = end;
        }
        let by_size = free.iter().map(|(at, size)| (*size, *at)).collect();
        Ok(Cells { bins, used, free, by_size })
    }

    /// All bytes, bins with their headers.
    pub fn bins(&self) -> &[u8] {
        &self.bins
    }
    /// Cells that are in use.
    pub fn in_use(&self) -> usize {
        self.used.count()
    }
    #[cfg(test)]
    pub fn free_cells(&self) -> usize {
        self.free.len()
    }
    #[cfg(test)]
    pub fn bin_count(&self) -> usize {
        self.bins.chunks(PAGE).filter(|page| page.starts_with(b"hbin")).count()
    }
    /// Sets when the first bin was written, which stands there as in the base block.
    pub fn stamp(&mut self, filetime: u64) {
        if let Some(field) = self.bins.get_mut(20..28) {
            field.copy_from_slice(&filetime.to_le_bytes());
        }
    }

    /// Content and padding of a cell in use: at least four bytes.
    pub fn get(&self, cell: u32) -> Result<&[u8]> {
        let len = self.len(cell)?;
        let at = cell as usize;
        self.bins.get(at + SIZE..at + len).ok_or_else(|| no_cell(cell))
    }
    fn get_mut(&mut self, cell: u32) -> Result<&mut [u8]> {
        let len = self.len(cell)?;
        let at = cell as usize;
        self.bins.get_mut(at + SIZE..at + len).ok_or_else(|| no_cell(cell))
    }
    /// Bytes from one cell to the next.
    fn len(&self, cell: u32) -> Result<usize> {
        if !cell.is_multiple_of(8) || !self.used.get(cell) {
            return Err(no_cell(cell));
        }
        let size = le32(&self.bins, cell as usize).unwrap_or(0);
        Ok(size.cast_signed().unsigned_abs() as usize)
    }
    /// Bytes at `at` of a cell's content.
    pub fn read(&self, cell: u32, at: usize, len: usize) -> Result<&[u8]> {
        let content = self.get(cell)?;
        at.checked_add(len).and_then(|end| content.get(at..end)).ok_or_else(|| {
            corrupt(cell, format!("a cell of {} bytes should hold {len} at {at}", content.len()))
        })
    }
    /// 16 bits of a cell.
    pub fn u16(&self, cell: u32, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.read(cell, at, 2)?.try_into().unwrap_or_default()))
    }
    /// 32 bits of a cell.
    pub fn u32(&self, cell: u32, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.read(cell, at, 4)?.try_into().unwrap_or_default()))
    }
    /// Writes into a cell.
    pub fn write(&mut self, cell: u32, at: usize, bytes: &[u8]) -> Result<()> {
        let content = self.get_mut(cell)?;
        let room = content.len();
        let target = at.checked_add(bytes.len()).and_then(|end| content.get_mut(at..end));
        target
            .ok_or_else(|| corrupt(cell, format!("a cell of {room} bytes takes no {} at {at}", bytes.len())))?
            .copy_from_slice(bytes);
        Ok(())
    }

    /// A new cell with this content; zeros fill it up.
    pub fn add(&mut self, content: &[u8]) -> Result<u32> {
        let cell = self.allocate(content.len())?;
        self.write(cell, 0, content)?;
        Ok(cell)
    }
    /// A new cell of zeros with room for `len` bytes.
    pub fn allocate(&mut self, len: usize) -> Result<u32> {
        let need = (len.max(4) + SIZE).next_multiple_of(8);
        let smallest = self.by_size.range((offset(need), 0)..).next().copied();
        let (size, at) = match smallest {
            Some(found) => found,
            None => self.append_bin(need)?,
        };
        self.unlist(at, size);
        if size as usize > need {
            self.list(at + offset(need), size - offset(need));
        }
        let begin = at as usize;
        if let Some(cell) = self.bins.get_mut(begin..begin + need) {
            cell.fill(0);
        }
        self.put_size(at, -i64::try_from(need).unwrap_or(0));
        self.used.set(at, true);
        Ok(at)
    }
    /// Gives a cell back.
    pub fn release(&mut self, cell: u32) -> Result<()> {
        let mut size = offset(self.len(cell)?);
        let mut at = cell;
        self.used.set(cell, false);
        // Between cells of two bins lies a header, so that neighbours are always in the same bin.
        if let Some(next) = self.free.get(&(at + size)).copied() {
            self.unlist(at + size, next);
            size += next;
        }
        if let Some((before, len)) = self.free.range(..at).next_back().map(|(before, len)| (*before, *len))
            && before + len == at
        {
            self.unlist(before, len);
            at = before;
            size += len;
        }
        self.list(at, size);
        Ok(())
    }

    /// Appends a bin with room for a cell of `need` bytes, all of it one free cell.
    fn append_bin(&mut self, need: usize) -> Result<(u32, u32)> {
        let at = self.bins.len();
        let len = (need + BIN_HEADER).next_multiple_of(PAGE);
        let limit = usize::try_from(limits::HIVE.0).unwrap_or(usize::MAX) - BASE_BLOCK;
        if at + len > limit {
            return Err(Error::refused(format!("the hive would grow beyond {} bytes", limits::HIVE.0)));
        }
        self.bins.resize(at + len, 0);
        self.used.grow(at + len);
        self.bins[at..at + 4].copy_from_slice(b"hbin");
        self.bins[at + 4..at + 8].copy_from_slice(&offset(at).to_le_bytes());
        self.bins[at + 8..at + 12].copy_from_slice(&offset(len).to_le_bytes());
        let (cell, size) = (offset(at + BIN_HEADER), offset(len - BIN_HEADER));
        self.list(cell, size);
        Ok((size, cell))
    }
    fn list(&mut self, at: u32, size: u32) {
        self.put_size(at, i64::from(size));
        self.free.insert(at, size);
        self.by_size.insert((size, at));
    }
    fn unlist(&mut self, at: u32, size: u32) {
        self.free.remove(&at);
        self.by_size.remove(&(size, at));
    }
    fn put_size(&mut self, at: u32, size: i64) {
        let at = at as usize;
        let size = i32::try_from(size).unwrap_or(0);
        if let Some(field) = self.bins.get_mut(at..at + SIZE) {
            field.copy_from_slice(&size.to_le_bytes());
        }
    }
}

fn no_cell(cell: u32) -> Error {
    corrupt(cell, format!("{cell:#x} is said to be a cell in use and is none"))
}

/// Where a bin ends, if it is one.
fn bin_end(bins: &[u8], at: usize) -> Result<usize> {
    let says = |says: String| Err(corrupt(offset(at), says));
    if bins.get(at..at + 4) != Some(b"hbin") {
        return says("no bin begins where the one before ends".into());
    }
    if le32(bins, at + 4) != Some(offset(at)) {
        return says("a bin says that it lies elsewhere".into());
    }
    let size = le32(bins, at + 8).unwrap_or(0) as usize;
    if size == 0 || !size.is_multiple_of(PAGE) || size > bins.len() - at {
        return says(format!("a bin has a size of {size}; the bins end {} bytes on", bins.len() - at));
    }
    Ok(at + size)
}
