//! Checks an image's structures: every cluster of the file is as often referenced as its reference count says, tables
//! lie in the file and not on each other, flags are what the counts make of them.
//!
//! References are counted for a window of the file at a time, so that memory does not grow with the image: a file of
//! more than 512 GiB (in clusters of 64 KiB) is walked several times.

use super::bitmaps;
use super::entry::{COMPRESSED, Geometry, OFFSET, Place, USED_ONCE};
use super::header::Header;
use super::open::read_header;
use super::refcounts::Refcounts;
use super::snapshot;
use crate::check::{Checked, Severity};
use crate::error::{Error, Kind, Result};
use crate::gate::Gate;
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

/// Clusters of the file whose references are counted at a time: 3 bytes each.
const WINDOW: u64 = 8 << 20;

/// What a cluster of the file is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Use {
    Header = 1,
    RefcountTable,
    RefcountBlock,
    L1,
    L2,
    Data,
    /// Shared by compressed clusters.
    Packed,
    Snapshots,
    Bitmaps,
    Luks,
}

/// Set in the byte of a cluster that is used for two things, or twice for one that cannot be shared.
const OVERLAPS: u8 = 0x80;

/// Checks the image. The data file and the backing file are not looked at.
///
/// # Errors
/// A header that cannot be read; [`Kind::Refused`] for tables beyond all limits; [`Kind::Io`].
pub fn check(source: Source, _gate: &Gate) -> Result<Checked> {
    let header = read_header(&source)?;
    let mut checked = Checked::default();
    if header.corrupt {
        checked.add(Severity::Corrupt, "QEMU marked this image as corrupt", Some(FileOffset(72)));
    }
    if header.dirty {
        checked.add(
            Severity::Note,
            "the image was not closed by its writer: reference counts may be out of date",
            Some(FileOffset(72)),
        );
    }
    let geometry = Geometry::new(&header);
    let counts = Refcounts::read(&source, &header, &mut checked)?;
    let mut walk = Walk { source: &source, header: &header, geometry, checked, allocated: 0, tables_read: 0 };
    let clusters = source.len().0.div_ceil(geometry.cluster_size());
    let mut start = 0;
    while start < clusters.max(1) {
        let end = clusters.min(start + WINDOW);
        let mut window = Window::new(start, end);
        walk.all(&mut window, start == 0, &counts)?;
        compare(&window, &counts, geometry, &mut walk.checked)?;
        start = end.max(start + 1);
    }
    walk.flags(&counts)?;
    walk.checked.allocated = Bytes(walk.allocated << geometry.cluster_bits);
    Ok(walk.checked)
}

/// The references to some clusters of the file.
struct Window {
    start: u64,
    references: Vec<u16>,
    uses: Vec<u8>,
}

impl Window {
    fn new(start: u64, end: u64) -> Window {
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        Window { start, references: vec![0; len], uses: vec![0; len] }
    }

    /// Counts a reference to each of the clusters from `first` to `last`. `shared`: a second reference of this kind
    /// may be in order.
    fn count(&mut self, first: u64, last: u64, used: Use, shared: bool) {
        let from = first.max(self.start);
        let to = last.saturating_add(1).min(self.start + self.references.len() as u64);
        for cluster in from..to {
            let index = usize::try_from(cluster - self.start).unwrap_or(usize::MAX);
            if let (Some(references), Some(uses)) = (self.references.get_mut(index), self.uses.get_mut(index))
            {
                *references = references.saturating_add(1);
                match *uses & !OVERLAPS {
                    0 => *uses = used as u8,
                    before if before != used as u8 || !shared => *uses |= OVERLAPS,
                    _ => {}
                }
            }
        }
    }
}

/// References against counts.
fn compare(window: &Window, counts: &Refcounts<'_>, geometry: Geometry, checked: &mut Checked) -> Result<()> {
    let mut block = counts.blocks();
    for (cluster, (&references, &uses)) in (window.start..).zip(window.references.iter().zip(&window.uses)) {
        let counted = block.count(cluster)?;
        let references = u64::from(references);
        let at = Some(FileOffset(cluster << geometry.cluster_bits));
        // More than 16 bits of references are not counted.
        let same = counted == references || references == u64::from(u16::MAX) && counted > references;
        if counted < references {
            let says =
                format!("cluster {cluster} has the reference count {counted}, but {references} references");
            checked.add(Severity::Corrupt, says, at);
        } else if uses & OVERLAPS != 0 {
            checked.add(Severity::Corrupt, format!("cluster {cluster} is used for two things at once"), at);
        } else if !same {
            let says =
                format!("cluster {cluster} has the reference count {counted}, but {references} references");
            checked.add(Severity::Leak, says, at);
        }
    }
    Ok(())
}

struct Walk<'a> {
    source: &'a Source,
    header: &'a Header,
    geometry: Geometry,
    checked: Checked,
    /// Guest clusters that have a place.
    allocated: u64,
    tables_read: u64,
}

impl Walk<'_> {
    /// Counts all references that fall into the window; on the `first` walk also says what is wrong with them.
    fn all(&mut self, window: &mut Window, first: bool, counts: &Refcounts<'_>) -> Result<()> {
        let header = self.header;
        self.bytes(window, first, FileOffset(0), 1, Use::Header, "header");
        let table_len = u64::from(header.refcount_table_clusters) << header.cluster_bits;
        self.bytes(window, first, header.refcount_table, table_len, Use::RefcountTable, "refcount table");
        for block in counts.places() {
            window.count(
                block >> header.cluster_bits,
                block >> header.cluster_bits,
                Use::RefcountBlock,
                false,
            );
        }
        if let Some((at, len)) = header.luks {
            self.bytes(window, first, at, len.0, Use::Luks, "LUKS header");
        }
        // The current state first: what it uses twice nothing may share, while snapshots share all with it.
        self.tables(window, first, header.l1_table, header.l1_entries, None)?;
        self.snapshots(window, first)?;
        self.bitmaps(window, first)
    }

    fn add(&mut self, first: bool, says: impl Into<String>, at: FileOffset) {
        if first {
            self.checked.add(Severity::Corrupt, says, Some(at));
        }
    }

    /// A structure of `len` bytes at `at`. False, after saying so, where it does not lie in the file.
    fn bytes(
        &mut self,
        window: &mut Window,
        first: bool,
        at: FileOffset,
        len: u64,
        used: Use,
        what: &str,
    ) -> bool {
        let bits = self.header.cluster_bits;
        let end = self.source.len().0;
        if at.0.checked_add(len).is_none_or(|its_end| its_end > end.next_multiple_of(1 << bits)) {
            self.add(first, format!("the {what} is {len} bytes long; the file ends at {end:#x}"), at);
            return false;
        }
        if len > 0 {
            // Snapshots may have L1 tables of their own only; several small things can share a cluster nowhere.
            window.count(at.0 >> bits, (at.0 + len - 1) >> bits, used, false);
        }
        true
    }

    fn snapshots(&mut self, window: &mut Window, first: bool) -> Result<()> {
        let (source, header) = (self.source, self.header);
        if header.snapshots == 0 {
            return Ok(());
        }
        let mut end = header.snapshot_table.0;
        for found in snapshot::read(source, header)? {
            let snapshot = match found {
                Ok(snapshot) => snapshot,
                Err(error) if error.kind() == Kind::Corrupt => {
                    self.add(first, format!("the snapshot table: {}", error.says()), FileOffset(end));
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            end = snapshot.at.0 + snapshot.len;
            self.tables(window, first, snapshot.l1_table, snapshot.l1_entries, Some(&snapshot.shown()))?;
        }
        // The padding behind the last entry is not part of the table's file.
        let len =
            (end - header.snapshot_table.0).min(self.source.len().0.saturating_sub(header.snapshot_table.0));
        self.bytes(window, first, header.snapshot_table, len, Use::Snapshots, "snapshot table");
        Ok(())
    }

    fn bitmaps(&mut self, window: &mut Window, first: bool) -> Result<()> {
        let Some(extension) = self.header.bitmaps.filter(|bitmaps| bitmaps.up_to_date) else { return Ok(()) };
        let directory = extension.directory;
        if !self.bytes(window, first, directory, extension.directory_len.0, Use::Bitmaps, "bitmap directory")
        {
            return Ok(());
        }
        let bitmaps = match bitmaps::read(self.source, &extension) {
            Ok(bitmaps) => bitmaps,
            Err(error) if error.kind() == Kind::Corrupt => {
                self.add(first, error.says(), directory);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for bitmap in bitmaps {
            let len = u64::from(bitmap.table_entries) * 8;
            if len > limits::RESIDENT_TABLE.0 {
                return Err(Error::refused(format!(
                    "a bitmap has a table of {}; the limit is {}",
                    Bytes(len),
                    limits::RESIDENT_TABLE
                )));
            }
            let what = format!("table of the bitmap {:?}", bitmap.name);
            if !self.bytes(window, first, bitmap.table, len, Use::Bitmaps, &what) {
                continue;
            }
            for entry in self.read_table(bitmap.table, len)? {
                let place = entry & OFFSET;
                if place != 0 {
                    self.bytes(
                        window,
                        first,
                        FileOffset(place),
                        1 << self.header.cluster_bits,
                        Use::Bitmaps,
                        &what,
                    );
                }
            }
        }
        Ok(())
    }

    /// Numbers of a table that is known to lie in the file; what a file cut inside of its last cluster lacks is 0.
    fn read_table(&mut self, at: FileOffset, len: u64) -> Result<Vec<u64>> {
        self.tables_read += len;
        if self.tables_read > limits::QCOW2_CHECK.0 {
            return Err(Error::refused(format!(
                "its tables would be read again and again, {} in all; the limit is {}",
                Bytes(self.tables_read),
                limits::QCOW2_CHECK
            ))
            .hint("check it with qemu-img check"));
        }
        let there = len.min(self.source.len().0.saturating_sub(at.0));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.source.read_exact_at(at, &mut bytes[..usize::try_from(there).unwrap_or(usize::MAX)])?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    /// The L1 table at `at` and all below it: of the current state, or of the snapshot of that name.
    fn tables(
        &mut self,
        window: &mut Window,
        first: bool,
        at: FileOffset,
        entries: u32,
        of: Option<&str>,
    ) -> Result<()> {
        let len = u64::from(entries) * 8;
        if len > limits::RESIDENT_TABLE.0 {
            return Err(Error::refused(format!(
                "has an L1 table of {}; the limit is {}",
                Bytes(len),
                limits::RESIDENT_TABLE
            )));
        }
        let what = of.map_or("L1 table".to_owned(), |name| format!("L1 table of the snapshot {name:?}"));
        if len > 0 && !at.0.is_multiple_of(self.geometry.cluster_size()) {
            self.add(first, format!("the {what} does not lie on a multiple of the cluster size"), at);
            return Ok(());
        }
        if !self.bytes(window, first, at, len, Use::L1, &what) {
            return Ok(());
        }
        let mut below = Vec::new();
        for (index, entry) in (0u64..).zip(self.read_table(at, len)?) {
            let here = FileOffset(at.0 + index * 8);
            match self.geometry.l1(entry) {
                Ok(None) => {}
                Ok(Some(table)) => below.push((table, index)),
                Err(says) => self.add(first, says, here),
            }
        }
        // A table that is there twice would make the walk as long as a hostile image likes.
        below.sort_unstable();
        let mut before = None;
        for (table, index) in below {
            let here = FileOffset(at.0 + index * 8);
            let what = "L2 table";
            let cluster = table >> self.geometry.cluster_bits;
            if before == Some(table) {
                window.count(cluster, cluster, Use::L2, false);
                continue;
            }
            before = Some(table);
            if table >= self.source.len().0 {
                let end = self.source.len().0;
                self.add(
                    first,
                    format!("L1 entry {index} points at {table:#x}; the file ends at {end:#x}"),
                    here,
                );
                continue;
            }
            if of.is_none() {
                self.bytes(window, first, FileOffset(table), self.geometry.cluster_size(), Use::L2, what);
            } else {
                window.count(cluster, cluster, Use::L2, true);
            }
            self.l2_table(window, first, FileOffset(table), of.is_some())?;
        }
        Ok(())
    }

    fn l2_table(
        &mut self,
        window: &mut Window,
        first: bool,
        table: FileOffset,
        snapshot: bool,
    ) -> Result<()> {
        let geometry = self.geometry;
        let words = self.read_table(table, geometry.cluster_size())?;
        let per_entry = 1usize << (geometry.l2_entry_bits() - 3);
        let file_end = self.source.len().0;
        for (index, words) in (0u64..).zip(words.chunks_exact(per_entry)) {
            let entry = words[0];
            if entry == 0 && words[per_entry - 1] == 0 {
                continue;
            }
            let bitmap = if geometry.extended_l2 { words[per_entry - 1] } else { 0 };
            let here = FileOffset(table.0 + (index << geometry.l2_entry_bits()));
            // Whether a raw data file's entry points at its own place is for the reader to see.
            let place = match (Geometry { raw_external: false, ..geometry }).l2(entry, bitmap, 0) {
                Ok(place) => place,
                Err(says) => {
                    self.add(first, says, here);
                    // What it seems to mean is not lost besides.
                    let offset = entry & OFFSET;
                    if entry & COMPRESSED == 0 && offset != 0 && !geometry.external_data {
                        let last = offset + geometry.cluster_size() - 1;
                        let bits = geometry.cluster_bits;
                        window.count(offset >> bits, last >> bits, Use::Data, true);
                    }
                    continue;
                }
            };
            if let Place::Compressed(packed) = place {
                let end = packed.at.saturating_add(packed.len);
                // The file may end inside of the last sector.
                if end > file_end.next_multiple_of(512) {
                    let says = format!(
                        "compressed bytes up to {end:#x} are pointed at; the file ends at {file_end:#x}"
                    );
                    self.add(first, says, here);
                }
                if !snapshot && first && entry & USED_ONCE != 0 {
                    self.add(
                        first,
                        format!("L2 entry {entry:#018x} is compressed and marked as used once"),
                        here,
                    );
                }
                window.count(
                    packed.at >> geometry.cluster_bits,
                    end.saturating_sub(1) >> geometry.cluster_bits,
                    Use::Packed,
                    true,
                );
                self.allocated += u64::from(first && !snapshot);
                continue;
            }
            let offset = entry & OFFSET;
            let none = offset == 0 && !(geometry.external_data && entry & USED_ONCE != 0);
            if none {
                continue;
            }
            self.allocated += u64::from(first && !snapshot);
            if geometry.external_data {
                continue;
            }
            if offset >= file_end {
                self.add(
                    first,
                    format!("data at {offset:#x} is pointed at; the file ends at {file_end:#x}"),
                    here,
                );
            }
            window.count(
                offset >> geometry.cluster_bits,
                offset >> geometry.cluster_bits,
                Use::Data,
                snapshot,
            );
        }
        Ok(())
    }

    /// The flag "used once" of the current state must say what the counts say.
    fn flags(&mut self, counts: &Refcounts<'_>) -> Result<()> {
        let geometry = self.geometry;
        let at = self.header.l1_table;
        let len = u64::from(self.header.l1_entries) * 8;
        let lies = |at: u64, len: u64| at.checked_add(len).is_some_and(|end| end <= self.source.len().0);
        if !lies(at.0, len) {
            return Ok(());
        }
        let mut blocks = counts.blocks();
        let l1 = self.read_table(at, len)?;
        let mut sorted: Vec<u64> =
            l1.iter().map(|entry| entry & OFFSET).filter(|&table| table != 0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let wrong = |checked: &mut Checked, what: &str, entry: u64, count: u64, here: u64| {
            let flag = if entry & USED_ONCE != 0 { "marked" } else { "not marked" };
            let says = format!("{what} {entry:#018x} is {flag} as used once; the reference count is {count}");
            checked.add(Severity::Corrupt, says, Some(FileOffset(here)));
        };
        for (index, &entry) in (0u64..).zip(&l1) {
            let table = entry & OFFSET;
            if geometry.l1(entry).ok().flatten().is_none() || table >= self.source.len().0 {
                continue;
            }
            let count = blocks.count(table >> geometry.cluster_bits)?;
            if (count == 1) != (entry & USED_ONCE != 0) {
                wrong(&mut self.checked, "L1 entry", entry, count, at.0 + index * 8);
            }
        }
        let per_entry = 1usize << (geometry.l2_entry_bits() - 3);
        for &table in sorted.iter().filter(|&&table| table < self.source.len().0) {
            if geometry.external_data || table % geometry.cluster_size() != 0 {
                continue;
            }
            let words = self.read_table(FileOffset(table), geometry.cluster_size())?;
            for (index, words) in (0u64..).zip(words.chunks_exact(per_entry)) {
                let (entry, offset) = (words[0], words[0] & OFFSET);
                let aligned = offset % geometry.cluster_size() == 0;
                if entry & COMPRESSED != 0 || offset == 0 || !aligned || offset >= self.source.len().0 {
                    continue;
                }
                let count = blocks.count(offset >> geometry.cluster_bits)?;
                if (count == 1) != (entry & USED_ONCE != 0) {
                    let here = table + (index << geometry.l2_entry_bits());
                    wrong(&mut self.checked, "L2 entry", entry, count, here);
                }
            }
        }
        Ok(())
    }
}
