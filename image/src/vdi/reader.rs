//! Reads the disk of a VDI file.

use super::header::{ENTRY_BYTES, Header, UNUSED, ZERO};
use crate::blocks::read::{BlockMap, LastPage, Place, Run, Table};
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

/// The disk of one layer.
pub struct Vdi {
    source: Source,
    header: Header,
    map: Table,
}

impl Vdi {
    /// Reads the block map, too, where that is of a bounded length.
    pub fn new(source: Source, header: Header) -> Result<Vdi> {
        let vdi = Vdi::unchecked(source, header)?;
        if u64::from(vdi.header.blocks) * ENTRY_BYTES <= limits::RESIDENT_TABLE.0 {
            vdi.walk(&mut |_, _, found| found.map(drop))?;
        }
        Ok(vdi)
    }

    /// Leaves the entries of the block map unread.
    pub fn unchecked(source: Source, header: Header) -> Result<Vdi> {
        if header.map_end() > source.len().0 {
            return Err(Error::corrupt(format!(
                "truncated: the block map ends at {:#x}, the file at {:#x}",
                header.map_end(),
                source.len().0
            )));
        }
        let len = u64::from(header.blocks) * ENTRY_BYTES;
        let map = Table::new(header.map_offset, len, |at, buf| source.read_exact_at(FileOffset(at), buf))?;
        Ok(Vdi { source, header, map })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Gives every block of the disk to `each`: its number, its map entry, and where it lies in the file, if it does; an
    /// error where it lies outside of the file or where another block lies.
    pub fn walk(&self, each: &mut dyn FnMut(u64, u32, Result<Option<u64>>) -> Result<()>) -> Result<()> {
        let mut page = None;
        // One bit per block that the file can hold or the map can name, whichever is less.
        let room =
            self.source.len().0.saturating_sub(self.header.data_offset) / self.header.block_size_bytes + 1;
        let room = room.min(u64::from(self.header.blocks));
        let mut seen = vec![0u8; usize::try_from(room / 8 + 1).unwrap_or(0)];
        for block in 0..self.header.size_bytes.div_ceil(self.header.block_size_bytes) {
            let entry = self.entry(block, &mut page)?;
            let mut found = self.place(block, entry);
            if matches!(found, Ok(Some(_)))
                && let Some(byte) = usize::try_from(entry / 8).ok().and_then(|at| seen.get_mut(at))
            {
                let bit = 1 << (entry % 8);
                if *byte & bit != 0 {
                    found = Err(self.corrupt_entry(block, format!("is {entry}, where another block lies")));
                }
                *byte |= bit;
            }
            each(block, entry, found)?;
        }
        Ok(())
    }

    fn entry(&self, block: u64, page: &mut LastPage) -> Result<u32> {
        let read = |at, buf: &mut [u8]| self.source.read_exact_at(FileOffset(at), buf);
        self.map.entry(block * ENTRY_BYTES, page, read).map(u32::from_le_bytes)
    }

    /// Where a block lies in the file, checked; `None` where it does not.
    fn place(&self, block: u64, entry: u32) -> Result<Option<u64>> {
        if entry == UNUSED || entry == ZERO {
            return Ok(None);
        }
        if entry >= self.header.blocks {
            let blocks = self.header.blocks;
            return Err(self.corrupt_entry(block, format!("is {entry}; the image has {blocks} blocks")));
        }
        let block_size = self.header.block_size_bytes;
        // At most 2^32 blocks of 2^28 bytes behind 2^32.
        let at = self.header.data_offset + u64::from(entry) * block_size;
        let end = at + block_size.min(self.header.size_bytes - block * block_size);
        if end > self.source.len().0 {
            return Err(self.corrupt_entry(
                block,
                format!("is {entry}, up to {end:#x}; the file ends at {:#x}", self.source.len().0),
            ));
        }
        Ok(Some(at))
    }

    fn corrupt_entry(&self, block: u64, says: String) -> Error {
        let at = FileOffset(self.header.map_offset + block * ENTRY_BYTES);
        self.source.corrupt(format!("block map entry {block} {says}")).at(at)
    }
}

impl BlockMap for Vdi {
    fn size(&self) -> Bytes {
        Bytes(self.header.size_bytes)
    }

    fn run(&self, here: u64, len: u64, page: &mut LastPage) -> Result<Run> {
        let block_size = self.header.block_size_bytes;
        let (block, inside) = (here / block_size, here % block_size);
        let entry = self.entry(block, page)?;
        let place = match self.place(block, entry)? {
            Some(at) => Place::File(at + inside),
            None if entry == ZERO => Place::Zero,
            None => Place::Parent,
        };
        Ok(Run { at: here, len: (block_size - inside).min(len), place })
    }

    fn source(&self) -> &Source {
        &self.source
    }
}
