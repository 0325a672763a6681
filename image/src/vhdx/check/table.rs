//! The block allocation table: [MS-VHDX] 2.5.1. Read once, from its start to its end, a run of chunks at a time.
//!
//! Which MiB of the file are used is kept in one bit each: places are whole MiB, so that this finds every overlap.

use super::super::bat::{self, Layout};
use super::super::metadata::Metadata;
use super::super::patched::Patched;
use crate::blocks::taken::Taken;
use crate::check::{Checked, Severity};
use crate::error::Result;
use crate::units::{Bytes, FileOffset};

const MIB: u64 = 1 << 20;
/// Bytes of the table that are read at once, where a chunk's entries are fewer.
const READ: u64 = MIB;
/// Bits of an entry between its state and its place.
const RESERVED: u64 = 0xf_fff8;

/// Things that an image can have millions of and that harm nothing: how many, and which entry is the first.
#[derive(Default)]
struct Counted {
    count: u64,
    first: u64,
}

impl Counted {
    fn add(&mut self, index: u64) {
        if self.count == 0 {
            self.first = index;
        }
        self.count += 1;
    }
}

/// One bit for each MiB of the file.
struct Mibs(Vec<u64>);

impl Mibs {
    fn new(file_len: u64) -> Mibs {
        Mibs(vec![0; usize::try_from(file_len / MIB / 64 + 1).unwrap_or(0)])
    }

    /// Marks those that `start` to `end` touches; true where one was marked already.
    fn mark(&mut self, start: u64, end: u64) -> bool {
        let mut before = false;
        for mib in start / MIB..end.div_ceil(MIB) {
            let Some(word) = usize::try_from(mib / 64).ok().and_then(|at| self.0.get_mut(at)) else { break };
            let bit = 1 << (mib % 64);
            before |= *word & bit != 0;
            *word |= bit;
        }
        before
    }

    fn has(&self, mib: u64) -> bool {
        let word = usize::try_from(mib / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word >> (mib % 64) & 1 == 1)
    }
}

struct Walk<'a> {
    file: &'a Patched,
    metadata: &'a Metadata,
    layout: Layout,
    bat_offset: u64,
    taken: &'a [Taken],
    checked: &'a mut Checked,
    used: Mibs,
    /// Not used, and not lost either: structures, and places that blocks without content keep.
    kept: Mibs,
    stored: u64,
    reserved_bits: Counted,
    reserved_places: Counted,
    first_specification: Counted,
    cut_tails: Counted,
    beyond_the_disk: Counted,
}

/// Checks the table at `bat_offset`, whose region is long enough for it, and looks for parts of the file that nothing
/// refers to. `taken` is sorted.
pub fn check(
    file: &Patched,
    metadata: &Metadata,
    layout: Layout,
    bat_offset: u64,
    taken: &[Taken],
    checked: &mut Checked,
) -> Result<()> {
    let mut walk = Walk {
        file,
        metadata,
        layout,
        bat_offset,
        taken,
        checked,
        used: Mibs::new(file.len()),
        kept: Mibs::new(file.len()),
        stored: 0,
        reserved_bits: Counted::default(),
        reserved_places: Counted::default(),
        first_specification: Counted::default(),
        cut_tails: Counted::default(),
        beyond_the_disk: Counted::default(),
    };
    for one in taken {
        walk.kept.mark(one.start, one.end);
    }
    walk.entries()?;
    walk.notes();
    walk.leaks();
    Ok(())
}

impl Walk<'_> {
    fn at(&self, index: u64) -> Option<FileOffset> {
        Some(FileOffset(self.bat_offset.saturating_add(index * bat::ENTRY_BYTES)))
    }

    fn corrupt(&mut self, index: u64, says: impl FnOnce() -> String) {
        let at = self.at(index);
        let says = || format!("block table entry {index}: {}", says());
        self.checked.add_with(Severity::Corrupt, at, says);
    }

    fn entries(&mut self) -> Result<()> {
        let chunk_bytes = (self.layout.chunk_ratio + 1) * bat::ENTRY_BYTES;
        let step = (READ / chunk_bytes).max(1) * chunk_bytes;
        let table_bytes = self.layout.entries * bat::ENTRY_BYTES;
        let mut bytes = Vec::new();
        for start in (0..table_bytes).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            bytes.resize(usize::try_from(step.min(table_bytes - start)).unwrap_or(0), 0);
            self.file.read_exact_at(self.bat_offset + start, &mut bytes)?;
            let chunks = bytes.chunks(usize::try_from(chunk_bytes).unwrap_or(usize::MAX));
            for (number, chunk) in (start / chunk_bytes..).zip(chunks) {
                self.chunk(number, chunk.as_chunks::<8>().0);
            }
        }
        Ok(())
    }

    /// The payload entries of a chunk and, unless the table ends before it, that of its sector bitmap.
    fn chunk(&mut self, number: u64, entries: &[[u8; 8]]) {
        let ratio = self.layout.chunk_ratio;
        let mut needs_bitmap = None;
        for (n, entry) in (0u64..).zip(entries) {
            let entry = u64::from_le_bytes(*entry);
            let index = number * (ratio + 1) + n;
            if n == ratio {
                self.bitmap(index, entry, needs_bitmap);
                break;
            }
            if entry == 0 {
                continue;
            }
            let block = number * ratio + n;
            if block >= self.layout.blocks {
                self.beyond_the_disk.add(index);
                continue;
            }
            if entry & 7 == bat::PARTIALLY_PRESENT {
                needs_bitmap = needs_bitmap.or(Some(block));
            }
            self.payload(index, block, entry);
        }
    }

    fn payload(&mut self, index: u64, block: u64, entry: u64) {
        let offset = entry & !0xf_ffff;
        if entry & RESERVED != 0 {
            self.reserved_bits.add(index);
        }
        match entry & 7 {
            0 | bat::ZERO if offset != 0 => self.reserved_places.add(index),
            0 | bat::ZERO => {}
            state @ (1 | 3 | 5) => {
                if state == 5 {
                    self.first_specification.add(index);
                }
                // The place may be kept for the content to come.
                if offset != 0 {
                    let end = offset.saturating_add(self.metadata.block_size_bytes);
                    self.kept.mark(offset, end.min(self.file.len()));
                }
            }
            bat::PARTIALLY_PRESENT if !self.layout.has_parent => {
                self.corrupt(index, || "the block is partially present, but the disk has no parent".into());
            }
            bat::FULLY_PRESENT | bat::PARTIALLY_PRESENT => {
                let (block_size, before) =
                    (self.metadata.block_size_bytes, block * self.metadata.block_size_bytes);
                let used = block_size.min(self.metadata.size_bytes.saturating_sub(before));
                self.stored += used;
                self.place(index, offset, used, block_size);
            }
            state => {
                self.corrupt(index, || format!("the entry is {entry:#018x}: its state {state} is reserved"));
            }
        }
    }

    /// `needs` is the first block of the chunk that cannot be read without the bitmap.
    fn bitmap(&mut self, index: u64, entry: u64, needs: Option<u64>) {
        let offset = entry & !0xf_ffff;
        if entry & RESERVED != 0 {
            self.reserved_bits.add(index);
        }
        match entry & 7 {
            0 => {
                if let Some(block) = needs.filter(|_| self.layout.has_parent) {
                    self.corrupt(index, || {
                        format!("the sector bitmap of the partially present block {block} is not present")
                    });
                }
                if offset != 0 {
                    self.reserved_places.add(index);
                }
            }
            bat::BITMAP_PRESENT if !self.layout.has_parent => {
                self.corrupt(index, || "a sector bitmap is present, but the disk has no parent".into());
            }
            bat::BITMAP_PRESENT => self.place(index, offset, bat::BITMAP_BYTES, bat::BITMAP_BYTES),
            state => self.corrupt(index, || {
                format!("the sector bitmap entry is {entry:#018x}: its state is {state}; 0 and 6 are defined")
            }),
        }
    }

    /// A block or sector bitmap at `offset`: `used` bytes of its `len` count.
    fn place(&mut self, index: u64, offset: u64, used: u64, len: u64) {
        let file_end = self.file.len();
        let end = offset.saturating_add(len);
        if offset.saturating_add(used) > file_end {
            self.corrupt(index, || {
                format!("points at {offset:#x}, {used:#x} bytes; the file ends at {file_end:#x}")
            });
        } else if end > file_end {
            self.cut_tails.add(index);
        }
        // The last one that begins before the end reaches farthest: they are sorted, and overlap is told elsewhere.
        let behind = self.taken.partition_point(|taken| taken.start < end);
        let last = behind.checked_sub(1).and_then(|last| self.taken.get(last)).copied();
        if let Some(taken) = last.filter(|taken| taken.end > offset) {
            let Taken { start, end, what } = taken;
            self.corrupt(index, || {
                format!("points at {offset:#x}, into the {what} ({start:#x} to {end:#x})")
            });
        } else if self.used.mark(offset, end.min(file_end)) {
            self.corrupt(index, || format!("points at {offset:#x}, where another block lies"));
        }
    }

    fn notes(&mut self) {
        self.checked.allocated = Bytes(self.stored);
        let without = self.metadata.size_bytes.saturating_sub(self.stored);
        let fixed = self.metadata.leave_blocks_allocated && !self.layout.has_parent;
        if fixed && without > 0 {
            let says =
                format!("the disk is a fixed one, and {without} bytes of it have no place in the file");
            self.checked.add(Severity::Note, says, self.at(0));
        }
        for (counted, what) in [
            (&self.reserved_bits, "have reserved bits that are not zero"),
            (&self.reserved_places, "name a place for what has no content; Hyper-V refuses some of these"),
            (&self.first_specification, "are unmapped in the way of the first specification (state 5)"),
            (&self.cut_tails, "point at blocks whose unused end is not in the file"),
            (&self.beyond_the_disk, "stand for what is behind the end of the disk"),
        ] {
            if counted.count > 0 {
                let says = format!(
                    "{} entries of the block table {what}; the first is {}",
                    counted.count, counted.first
                );
                self.checked.add(Severity::Note, says, self.at(counted.first));
            }
        }
    }

    /// Parts of the file that nothing refers to.
    fn leaks(&mut self) {
        // What the log only promises does not take room yet.
        let end = self.file.len().min(self.file.source().len().0);
        let mut lost = 0;
        let mut first = None;
        for mib in 0..end.div_ceil(MIB) {
            if !self.used.has(mib) && !self.kept.has(mib) {
                lost += MIB.min(end - mib * MIB);
                first = first.or(Some(FileOffset(mib * MIB)));
            }
        }
        if lost > 0 {
            self.checked.add(Severity::Leak, format!("{lost} bytes of the file are used by nothing"), first);
        }
    }
}
