//! The block table: Virtual Hard Disk Image Format Specification 1.0, "Block Allocation Table and Data Blocks".
//!
//! Overlap is found by sorting entries by place. A table of more than [`WINDOW`] entries (8 TiB in blocks of 2 MiB,
//! which no writer makes) is read once for each part of the file that holds so many.

use super::super::dynamic::{ENTRY_BYTES, Header, SECTOR_BYTES, UNUSED};
use crate::blocks::taken::Taken;
use crate::check::{Checked, Severity};
use crate::error::Result;
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

/// Entries that are sorted at a time: 8 bytes each.
const WINDOW: u64 = limits::RESIDENT_TABLE.0 / 8;
/// The places of entries are counted in bins of 2^16 sectors, so that the windows can be cut without reading more.
const BIN_BITS: u32 = 16;
/// Bytes of the table that are read at once.
const READ: u64 = 1 << 20;

struct Walk<'a> {
    source: &'a Source,
    header: &'a Header,
    size: u64,
    data_end: u64,
    taken: &'a [Taken],
    checked: &'a mut Checked,
}

/// Checks the table and looks for parts of the file that nothing refers to. `data_end` is where the last footer begins;
/// `taken` is sorted.
pub fn check(
    source: &Source,
    header: &Header,
    size: u64,
    data_end: u64,
    taken: &[Taken],
    checked: &mut Checked,
) -> Result<()> {
    let mut walk = Walk { source, header, size, data_end, taken, checked };
    let bins = walk.entries()?;
    walk.overlaps(&bins)
}

impl Walk<'_> {
    fn blocks(&self) -> u64 {
        self.size.div_ceil(self.header.block_size_bytes)
    }

    /// Bytes of a block that belong to the disk.
    fn used(&self, block: u64) -> u64 {
        let before = block * self.header.block_size_bytes;
        self.header.block_size_bytes.min(self.size.saturating_sub(before))
    }

    fn stored_len(&self) -> u64 {
        self.header.bitmap_bytes() + self.header.block_size_bytes
    }

    fn corrupt(&mut self, block: u64, says: impl FnOnce() -> String) {
        let at = FileOffset(self.header.table_offset.saturating_add(block * ENTRY_BYTES));
        self.checked
            .add_with(Severity::Corrupt, Some(at), || format!("block table entry {block} {}", says()));
    }

    /// Calls `each` with the number and the value of all entries from `from` to `to` that are in use.
    fn read(&mut self, from: u64, to: u64, each: &mut dyn FnMut(&mut Self, u64, u32)) -> Result<()> {
        let mut bytes = Vec::new();
        let (mut at, end) = (from * ENTRY_BYTES, to * ENTRY_BYTES);
        while at < end {
            bytes.resize(usize::try_from(READ.min(end - at)).unwrap_or(0), 0);
            self.source.read_exact_at(FileOffset(self.header.table_offset.saturating_add(at)), &mut bytes)?;
            for (block, entry) in (at / ENTRY_BYTES..).zip(bytes.as_chunks::<4>().0) {
                let entry = u32::from_be_bytes(*entry);
                if entry != UNUSED {
                    each(self, block, entry);
                }
            }
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// True where the block lies in the file and on no structure, so that only another block can be in its way.
    fn is_placed(&self, block: u64, entry: u32) -> bool {
        let (start, end) = self.range(block, entry);
        end <= self.data_end && self.in_the_way(start, end).is_none()
    }

    fn range(&self, block: u64, entry: u32) -> (u64, u64) {
        let start = u64::from(entry) * SECTOR_BYTES;
        (start, start + self.header.bitmap_bytes() + self.used(block))
    }

    fn in_the_way(&self, start: u64, end: u64) -> Option<Taken> {
        self.taken.iter().find(|taken| start < taken.end && end > taken.start).copied()
    }

    /// Each entry by itself; gives how many sound ones begin in each bin.
    fn entries(&mut self) -> Result<Vec<u32>> {
        let mut bins = vec![0u32; 1 << (32 - BIN_BITS)];
        let (mut stored, mut tails) = (0, 0);
        let blocks = self.blocks();
        self.read(0, blocks, &mut |walk, block, entry| {
            let (start, end) = walk.range(block, entry);
            stored += walk.used(block);
            let data_end = walk.data_end;
            if end > data_end {
                walk.corrupt(block, || {
                    format!(
                        "points at {start:#x}, a block up to {end:#x}; the file's data ends at {data_end:#x}"
                    )
                });
            } else if let Some(taken) = walk.in_the_way(start, end) {
                walk.corrupt(block, || {
                    format!("points at {start:#x}, over the {} at {:#x}", taken.what, taken.start)
                });
            } else {
                tails += u64::from(start + walk.stored_len() > data_end);
                if let Some(bin) = bins.get_mut(usize::try_from(entry >> BIN_BITS).unwrap_or(usize::MAX)) {
                    *bin += 1;
                }
            }
        })?;
        self.checked.allocated = Bytes(stored);
        if tails > 0 {
            let says =
                format!("{tails} blocks have an unused end that is not in the file, or under the footer");
            self.checked.add(Severity::Note, says, Some(FileOffset(self.header.table_offset)));
        }
        let mut beyond = 0u64;
        let all = u64::from(self.header.max_table_entries);
        let table_end = self.header.table_offset.saturating_add(all * ENTRY_BYTES);
        // Where the table is cut off there is nothing to read.
        if table_end <= self.source.len().0 {
            self.read(blocks, all, &mut |_, _, _| beyond += 1)?;
        }
        if beyond > 0 {
            let says =
                format!("{beyond} entries of the block table stand for what is behind the end of the disk");
            self.checked.add(Severity::Note, says, Some(FileOffset(self.header.table_offset)));
        }
        Ok(bins)
    }

    fn overlaps(&mut self, bins: &[u32]) -> Result<()> {
        // Blocks are longer than a bitmap's sector, so that a sound bin has fewer.
        let crowded = |count: u32| count > 1 << BIN_BITS;
        let mut room = Room { reached: 0, before: None, lost: 0, first: None };
        let (mut first, mut count) = (0usize, 0u64);
        for (bin, &in_bin) in bins.iter().enumerate() {
            if crowded(in_bin) {
                let at = (bin as u64) << BIN_BITS << SECTOR_BYTES.ilog2();
                let says = format!(
                    "{in_bin} blocks begin in the {} from {at:#x}: they overlap",
                    Bytes(SECTOR_BYTES << BIN_BITS)
                );
                self.checked.add(Severity::Corrupt, says, Some(FileOffset(self.header.table_offset)));
                continue;
            }
            if count + u64::from(in_bin) > WINDOW {
                self.window(first..bin, bins, &mut room)?;
                (first, count) = (bin, 0);
            }
            count += u64::from(in_bin);
        }
        self.window(first..bins.len(), bins, &mut room)?;
        self.leave(&mut room, self.data_end);
        // Where blocks were only counted, what they take is not known.
        if room.lost > 0 && !bins.iter().any(|&count| crowded(count)) {
            let says = format!(
                "{} bytes of the file are used by nothing: room for {} blocks",
                room.lost,
                room.lost / self.stored_len()
            );
            self.checked.add(Severity::Leak, says, room.first);
        }
        Ok(())
    }

    /// Sorts the blocks that begin in these bins, but for crowded ones.
    fn window(&mut self, range: std::ops::Range<usize>, bins: &[u32], room: &mut Room) -> Result<()> {
        let count: u64 = bins.get(range.clone()).unwrap_or_default().iter().map(|bin| u64::from(*bin)).sum();
        if count == 0 {
            return Ok(());
        }
        let mut places: Vec<u64> = Vec::with_capacity(usize::try_from(count.min(WINDOW)).unwrap_or(0));
        let blocks = self.blocks();
        self.read(0, blocks, &mut |walk, block, entry| {
            let bin = usize::try_from(entry >> BIN_BITS).unwrap_or(usize::MAX);
            let wanted = range.contains(&bin) && bins.get(bin).is_some_and(|count| *count <= 1 << BIN_BITS);
            if wanted && walk.is_placed(block, entry) {
                places.push(u64::from(entry) << 32 | block);
            }
        })?;
        places.sort_unstable();
        for place in places {
            let (entry, block) = ((place >> 32) as u32, place & u64::from(u32::MAX));
            let (start, end) = self.range(block, entry);
            if let Some((other, other_start)) = room.before
                && start < room.reached
            {
                self.corrupt(block, || {
                    format!("points at {start:#x}, into block {other} at {other_start:#x}")
                });
            }
            self.leave(room, start);
            if end > room.reached {
                room.before = Some((block, start));
                // The whole block is taken, though only its start belongs to the disk.
                room.reached = end.max((start + self.stored_len()).min(self.data_end));
            }
        }
        Ok(())
    }

    /// Counts what lies between the last block and `to` as lost, where a block would have fitted.
    fn leave(&self, room: &mut Room, to: u64) {
        let reached = room.reached;
        let mut from = reached;
        let gap = |from: u64, to: u64, room: &mut Room| {
            if to.saturating_sub(from) >= self.stored_len() {
                room.lost += to - from;
                room.first = room.first.or(Some(FileOffset(from)));
            }
        };
        for taken in self.taken.iter().filter(|taken| taken.end > reached && taken.start < to) {
            gap(from, taken.start, room);
            from = from.max(taken.end);
        }
        gap(from, to, room);
    }
}

/// How far blocks were seen to reach.
struct Room {
    reached: u64,
    /// The block that reaches so far, and where it begins.
    before: Option<(u64, u64)>,
    lost: u64,
    first: Option<FileOffset>,
}
