//! Checks the structures of an image: descriptor against extents, header against footer, directories and tables
//! against the file, against each other and against their copies, markers against tables.
//!
//! Data is not read, compressed grains are not inflated: a conversion to nowhere does that. Memory stays flat: that
//! no two grains share a sector is found with a bitmap of one window of the file at a time.
//!
//! Deliberately absent: the free bitmap and back map of a seSparse extent, which are not published, and so what leaks
//! in one.

use super::descriptor::ExtentLine;
use super::field::Sector;
use super::inflate::MARKER_BYTES;
use super::layout::{Compression, Entries};
use super::open::{self, Described, Opened, Opening};
use super::sparse::{self, Grain, Sparse};
use super::{cowd, hosted};
use crate::check::{Checked, Severity};
use crate::error::{Error, Kind, Result};
use crate::gate::Gate;
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, SECTOR_SIZE_BYTES};
use std::collections::HashSet;

/// Units of a file that are checked for overlap at a time: 32 MiB of bitmap.
const WINDOW: u64 = 1 << 28;

/// Checks a descriptor and its extents, or a sparse extent with its descriptor inside.
///
/// # Errors
/// What keeps the check from being made: [`Kind::Io`], [`Kind::Unsupported`], [`Kind::Refused`]. That the image is
/// [`Kind::Corrupt`] is a result.
pub fn check(source: Source, gate: &Gate) -> Result<Checked> {
    let mut report = Report { checked: Checked::default(), image: source.clone() };
    let outcome = report.image(gate);
    report.corrupt(outcome)?;
    Ok(report.checked)
}

struct Report {
    checked: Checked,
    /// The file that was given.
    image: Source,
}

impl Report {
    fn add(&mut self, severity: Severity, source: &Source, says: &str, at: Option<u64>) {
        let says = match source.path().file_name() {
            Some(name) if source.path() != self.image.path() => format!("{}: {says}", name.to_string_lossy()),
            _ => says.to_owned(),
        };
        self.checked.add(severity, says, at.map(FileOffset));
    }

    /// Takes an error that says the image is wrong as a result.
    fn corrupt<T>(&mut self, outcome: Result<T>) -> Result<Option<T>> {
        let error = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        // A file that is not there is a fault of the image as a whole.
        let missing = error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        if error.kind() != Kind::Corrupt && !missing {
            return Err(error);
        }
        let name = error.path().filter(|path| *path != self.image.path()).and_then(|path| path.file_name());
        let says = match name {
            Some(name) if !missing => format!("{}: {}", name.to_string_lossy(), error.says()),
            _ => error.says().to_owned(),
        };
        self.checked.add(Severity::Corrupt, says, error.offset());
        Ok(None)
    }

    fn image(&mut self, gate: &Gate) -> Result<()> {
        let image = self.image.clone();
        let Described { text, own } = open::described(&image)?;
        open::refuse(&image, &text)?;
        super::allow_open_files(text.extents.len());
        let mut opening = Opening::new(image.path(), gate);
        let mut own = own.map(|header| (image.clone(), header));
        let mut end = 0;
        for (number, line) in text.extents.iter().enumerate() {
            let (_, len) = open::place(&image, line, &mut end)?;
            let opened = opening.extent(number, line, len, own.take());
            match self.corrupt(opened)? {
                Some(Opened::Flat(_)) => self.checked.allocated.0 += len.0,
                Some(Opened::Sparse(sparse)) => {
                    let checked = self.sparse(&sparse, line);
                    self.corrupt(checked)?;
                }
                Some(Opened::Zeros(_)) | None => {}
            }
        }
        for note in &opening.notes {
            self.checked.add(Severity::Note, note.clone(), None);
        }
        let overlaps = opening.check_overlaps(&image);
        self.corrupt(overlaps)?;
        for (n, place) in opening.places.iter().enumerate() {
            let last = opening.places.get(n + 1).is_none_or(|next| next.file != place.file);
            if last && place.end < place.file_len {
                let name = place.file.file_name().unwrap_or_default().to_string_lossy();
                let says = format!(
                    "{name}: has {} bytes, the descriptor uses those up to {}",
                    place.file_len, place.end
                );
                self.checked.add(Severity::Leak, says, Some(FileOffset(place.end)));
            }
        }
        Ok(())
    }

    fn sparse(&mut self, sparse: &Sparse, line: &ExtentLine) -> Result<()> {
        let source = &sparse.source;
        let mut used_end = source.len().0;
        let mut leaks = true;
        let mut first_grain = 0;
        match open::magic(&source.head(8)?) {
            Some(open::Magic::Hosted) => first_grain = self.hosted(sparse)?,
            Some(open::Magic::Cowd) => {
                let header = cowd::parse(&source.head(512)?)?;
                // What lies behind is room that ESX took in advance.
                used_end = used_end.min(header.free_sector.0.saturating_mul(SECTOR_SIZE_BYTES));
                let mut flag = [0];
                source.read_exact_at(FileOffset(cowd::UNCLEAN_SHUTDOWN), &mut flag)?;
                if flag != [0] {
                    let says = "was not closed cleanly: the last writes may be missing";
                    self.add(Severity::Note, source, says, Some(cowd::UNCLEAN_SHUTDOWN));
                }
            }
            _ => leaks = false,
        }
        let redundant = self.redundant(sparse)?;
        let structures = Structures::of(sparse, redundant.as_deref());
        self.tables_apart(sparse, &structures);
        let mut walk = Walk {
            sparse,
            disk: line.sectors.to_bytes().unwrap_or(Bytes(0)).0,
            structures: &structures,
            unit: match sparse.layout.entries {
                Entries::Sectors { .. } => SECTOR_SIZE_BYTES,
                Entries::SeSparse { .. } => sparse.layout.grain.0,
            },
            base: match sparse.layout.entries {
                Entries::Sectors { .. } => 0,
                Entries::SeSparse { grains, .. } => grains.0,
            },
            first_unit: 0,
            bits: Vec::new(),
            last_grain: 0,
            out_of_order: 0,
            reaches: 0,
        };
        let units = source.len().0.min(limits::OVERLAP_CHECK.0).div_ceil(walk.unit);
        let mut leaked: Option<(u64, u64)> = None;
        while walk.first_unit == 0 || walk.first_unit < walk.reaches.div_ceil(walk.unit) {
            let len = WINDOW.min(units.saturating_sub(walk.first_unit)).max(1);
            walk.bits = vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX)];
            self.window(&mut walk, redundant.as_deref())?;
            if leaks {
                walk.mark_structures();
                // QEMU fills the end of a stream up to a whole grain.
                if used_end.saturating_sub(walk.reaches) < sparse.layout.grain.0 {
                    used_end = used_end.min(walk.reaches);
                }
                let from = (first_grain.max(walk.first_unit * walk.unit)).div_ceil(walk.unit);
                let to = (used_end / walk.unit).min(walk.first_unit + len);
                if let Some((first, count)) = walk.unmarked(from, to) {
                    let leaked = leaked.get_or_insert((first, 0));
                    leaked.1 += count;
                }
            }
            walk.first_unit += WINDOW;
        }
        if let Some((first, count)) = leaked {
            let says = format!(
                "{} bytes are used by nothing, the first of them at {:#x}",
                count * walk.unit,
                first * walk.unit
            );
            self.add(Severity::Leak, source, &says, Some(first * walk.unit));
        }
        if walk.out_of_order > 0 {
            let says = format!(
                "{} compressed grains lie before one that comes earlier on the disk: importers that read the file in one go refuse it",
                walk.out_of_order
            );
            self.add(Severity::Note, source, &says, None);
        }
        Ok(())
    }

    /// The header against the footer. Returns where the first grain may lie.
    fn hosted(&mut self, sparse: &Sparse) -> Result<u64> {
        let source = &sparse.source;
        let header = hosted::parse(&source.head(512)?)?;
        let overhead = header.overhead.to_bytes().map_or(0, |bytes| bytes.0);
        if sparse.layout.compression != (Compression::Zlib { markers: true }) {
            return Ok(overhead);
        }
        let footer = match hosted::footer(source) {
            Ok((footer, at)) => Some((footer, at)),
            Err(error) if header.directory_is_in_footer() => return Err(error),
            // Written with its directory in front, as QEMU does.
            Err(error) if error.kind() == Kind::Corrupt => None,
            Err(error) => return Err(error),
        };
        if let Some((footer, at)) = footer {
            for (field, in_header, in_footer) in [
                ("version", header.version.into(), footer.version.into()),
                ("flags", header.flags.into(), footer.flags.into()),
                ("capacity", header.capacity.0, footer.capacity.0),
                ("grain size", header.grain_size.0, footer.grain_size.0),
                ("descriptor offset", header.descriptor_offset.0, footer.descriptor_offset.0),
                ("descriptor size", header.descriptor_size.0, footer.descriptor_size.0),
                ("overHead", header.overhead.0, footer.overhead.0),
            ] {
                if in_header != in_footer {
                    let says =
                        format!("{field} is {in_header:#x} in the header but {in_footer:#x} in the footer");
                    self.add(Severity::Corrupt, source, &says, Some(at.0));
                }
            }
            if !header.directory_is_in_footer() && header.directory_offset != footer.directory_offset {
                let says = format!(
                    "gdOffset is {:#x} in the header but {:#x} in the footer",
                    header.directory_offset.0, footer.directory_offset.0
                );
                self.add(Severity::Corrupt, source, &says, Some(at.0));
            }
        }
        Ok(overhead)
    }

    /// The redundant directory, where there is one that can be read.
    fn redundant(&mut self, sparse: &Sparse) -> Result<Option<Vec<u32>>> {
        let Some(at) = sparse.layout.redundant_directory else { return Ok(None) };
        if at.0 == sparse.directory_at {
            // It stands in for the primary one, which is in the notes; there is nothing to compare with.
            let says = "the primary grain directory cannot be used, only the redundant one";
            self.add(Severity::Corrupt, &sparse.source, says, None);
            return Ok(None);
        }
        let loaded = sparse::load_directory(&sparse.source, &sparse.layout, at);
        let loaded = loaded.map_err(|e| {
            let says = format!("the redundant grain directory: {}", e.says());
            let error = Error::corrupt(says).in_file(sparse.source.path());
            if e.kind() == Kind::Corrupt { error.at(e.offset().unwrap_or(at)) } else { e }
        });
        self.corrupt(loaded)
    }

    /// No two tables share bytes.
    fn tables_apart(&mut self, sparse: &Sparse, structures: &Structures) {
        let len = sparse::table_bytes(&sparse.layout) as u64;
        for (name, tables) in
            [("grain", &structures.tables), ("redundant grain", &structures.redundant_tables)]
        {
            let mut before = None;
            for at in tables.iter().filter_map(|entry| sparse::table_offset(&sparse.layout, *entry)) {
                if let Some(other) = before.replace(at)
                    && at < len.saturating_add(other)
                {
                    let says = format!("two {name} tables share bytes: those at {other:#x} and {at:#x}");
                    self.add(Severity::Corrupt, &sparse.source, &says, Some(at));
                }
            }
        }
        for entry in &structures.redundant_tables {
            if let Some(at) = sparse::table_offset(&sparse.layout, *entry)
                && let Some(other) = overlapping(&sparse.layout, &structures.tables, at, at + len)
            {
                let says =
                    format!("the redundant grain table at {at:#x} lies over the primary one at {other:#x}");
                self.add(Severity::Corrupt, &sparse.source, &says, Some(at));
            }
        }
    }

    /// Follows all tables, for the part of the file that `walk` looks at.
    fn window(&mut self, walk: &mut Walk<'_>, redundant: Option<&[u32]>) -> Result<()> {
        let Walk { sparse, .. } = *walk;
        let per_table = sparse.layout.entries_per_table;
        let first_pass = walk.first_unit == 0;
        let mut shared = HashSet::new();
        let mut hole = (0, 0);
        for (index, entry) in (0..).zip(&sparse.directory) {
            let copy =
                redundant.and_then(|all| all.get(usize::try_from(index).unwrap_or(usize::MAX))).copied();
            let Some(at) = sparse.table_offset(index) else {
                if first_pass && copy.is_some_and(|copy| copy != 0) {
                    let says = format!("grain table {index} is only in the redundant grain directory");
                    self.add(Severity::Corrupt, &sparse.source, &says, Some(sparse.directory_at + index * 4));
                }
                continue;
            };
            if first_pass && copy == Some(0) {
                let says = format!("grain table {index} is not in the redundant grain directory");
                self.add(Severity::Corrupt, &sparse.source, &says, Some(sparse.directory_at + index * 4));
            }
            // One that several entries share is reported as such, and followed once.
            if walk.structures.shared.contains(entry) && !shared.insert(*entry) {
                continue;
            }
            let copy = copy.and_then(|copy| sparse::table_offset(&sparse.layout, copy));
            if at < hole.0 || at >= hole.1 {
                hole = sparse.hole_behind(at).map_or((0, 0), |end| (at, end));
            }
            let table_end = at.saturating_add(sparse::table_bytes(&sparse.layout) as u64);
            let is_hole = at >= hole.0 && table_end <= hole.1;
            if is_hole && (!first_pass || copy.is_none_or(|copy| sparse.hole_behind(copy).is_some())) {
                continue;
            }
            let table = match self.corrupt(sparse.load_table(index, at))? {
                Some(table) => table,
                None => continue,
            };
            if first_pass && let Some(copy) = copy {
                self.compare(sparse, index, &table, copy)?;
            }
            for slot in 0..per_table {
                let grain = index * per_table + slot;
                if grain >= sparse.grains() {
                    break;
                }
                match sparse.entry(&table, at, slot) {
                    Ok(Grain::Stored(lies_at)) => {
                        self.grain(walk, grain, lies_at, at + slot * entry_bytes(sparse))?
                    }
                    Ok(_) => {}
                    Err(error) if first_pass => {
                        self.corrupt::<()>(Err(error))?;
                    }
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// A table against its copy.
    fn compare(&mut self, sparse: &Sparse, index: u64, table: &[u8], copy_at: u64) -> Result<()> {
        let mut copy = vec![0; table.len()];
        sparse.source.read_exact_at(FileOffset(copy_at), &mut copy)?;
        if copy == table {
            return Ok(());
        }
        let differing = |slot: &u64| {
            let entry = |table| sparse::get_entry(table, *slot, sparse.layout.entries);
            entry(table) != entry(&copy)
        };
        let slots: Vec<u64> = (0..sparse.layout.entries_per_table).filter(differing).collect();
        if let Some(first) = slots.first() {
            let entry = |table| sparse::get_entry(table, *first, sparse.layout.entries);
            let says = format!(
                "grain table {index} differs from its redundant copy in {} entries; entry {first} is {:#x}, in the copy {:#x}",
                slots.len(),
                entry(table),
                entry(&copy)
            );
            self.add(Severity::Corrupt, &sparse.source, &says, Some(copy_at + first * entry_bytes(sparse)));
        }
        Ok(())
    }

    /// One stored grain; `named_at` is where the entry is.
    fn grain(&mut self, walk: &mut Walk<'_>, grain: u64, at: u64, named_at: u64) -> Result<()> {
        let sparse = walk.sparse;
        let first_pass = walk.first_unit == 0;
        let grain_bytes = sparse.layout.grain.0;
        let len = match sparse.layout.compression {
            Compression::None => grain_bytes,
            Compression::Zlib { markers: false } => SECTOR_SIZE_BYTES,
            Compression::Zlib { markers: true } => {
                if !first_pass && !walk.may_meet(at, 4 * grain_bytes) {
                    return Ok(());
                }
                let mut record = [0; MARKER_BYTES];
                let marker = match sparse.check_data(grain, at, MARKER_BYTES as u64) {
                    Ok(()) => {
                        sparse.source.read_exact_at(FileOffset(at), &mut record)?;
                        sparse.marker(grain, at, &record)
                    }
                    Err(error) => Err(error),
                };
                match marker {
                    Ok(size) => (MARKER_BYTES as u64 + size as u64).next_multiple_of(SECTOR_SIZE_BYTES),
                    Err(error) => {
                        if first_pass {
                            self.corrupt::<()>(Err(error.at(FileOffset(named_at))))?;
                        }
                        return Ok(());
                    }
                }
            }
        };
        // The last grain of a file may be cut off where its sectors are.
        let len = len.min(sparse.source.len().0.saturating_sub(at).max(1));
        if first_pass {
            let start = grain * grain_bytes;
            self.checked.allocated.0 += grain_bytes.min(walk.disk.saturating_sub(start));
            if sparse.layout.compression != Compression::None {
                walk.out_of_order += u64::from(at < walk.last_grain);
                walk.last_grain = at;
            }
            // The disk may end in the grain: then the rest of it need not be there.
            let needed = len.min(walk.disk.saturating_sub(start)).max(1);
            let whole = if sparse.layout.compression == Compression::None {
                grain_bytes.min(walk.disk.saturating_sub(start)).max(1)
            } else {
                needed
            };
            if let Err(error) = sparse.check_data(grain, at, whole) {
                self.corrupt::<()>(Err(error.at(FileOffset(named_at))))?;
                return Ok(());
            }
            if let Some((what, place)) = walk.structures.overlap(sparse, at, at + len) {
                let says = format!("grain {grain} lies at {at:#x}, over the {what} at {place:#x}");
                self.add(Severity::Corrupt, &sparse.source, &says, Some(named_at));
            }
            walk.reaches = walk.reaches.max(at + len - walk.base.min(at));
        }
        if walk.mark(at, len) {
            let says = format!("grain {grain} lies at {at:#x}, where another grain lies");
            self.add(Severity::Corrupt, &sparse.source, &says, Some(named_at));
        }
        Ok(())
    }
}

fn entry_bytes(sparse: &Sparse) -> u64 {
    sparse.layout.entries.size() as u64
}

/// What lies in an extent's file besides grains.
struct Structures {
    /// Directory entries that are not 0, rising.
    tables: Vec<u32>,
    redundant_tables: Vec<u32>,
    /// Those that are there more than once.
    shared: HashSet<u32>,
    /// The redundant directory.
    redundant_directory: Option<(u64, u64)>,
}

impl Structures {
    fn of(sparse: &Sparse, redundant: Option<&[u32]>) -> Structures {
        let sorted = |directory: &[u32]| {
            let mut tables: Vec<u32> = directory.iter().copied().filter(|&entry| entry != 0).collect();
            tables.sort_unstable();
            tables
        };
        let tables = sorted(&sparse.directory);
        let shared =
            tables.windows(2).filter(|pair| pair.first() == pair.last()).flatten().copied().collect();
        let bytes = sparse.layout.directory_entries as u64 * entry_bytes(sparse);
        let redundant_directory =
            redundant.and(sparse.layout.redundant_directory).map(|at| (at.0, at.0.saturating_add(bytes)));
        Structures {
            tables,
            redundant_tables: sorted(redundant.unwrap_or_default()),
            shared,
            redundant_directory,
        }
    }

    /// The structure that a run of the file meets. Those that the reader itself looks at are not repeated here.
    fn overlap(&self, sparse: &Sparse, start: u64, end: u64) -> Option<(&'static str, u64)> {
        let layout = &sparse.layout;
        if let Some(at) = overlapping(layout, &self.tables, start, end) {
            return Some(("grain table", at));
        }
        if let Some(at) = overlapping(layout, &self.redundant_tables, start, end) {
            return Some(("redundant grain table", at));
        }
        let (from, to) = self.redundant_directory?;
        (start < to && from < end).then_some(("redundant grain directory", from))
    }
}

/// Where the table lies that a run of the file meets, among `tables`, which rise.
fn overlapping(layout: &super::layout::Layout, tables: &[u32], start: u64, end: u64) -> Option<u64> {
    let len = sparse::table_bytes(layout) as u64;
    let place = |entry: &u32| sparse::table_offset(layout, *entry).unwrap_or(0);
    let first = tables.partition_point(|entry| place(entry).saturating_add(len) <= start);
    tables.get(first).map(place).filter(|&at| at < end)
}

/// The grains of an extent, for one window of its file.
struct Walk<'a> {
    sparse: &'a Sparse,
    /// Bytes of the disk that the extent stands for.
    disk: u64,
    structures: &'a Structures,
    /// Bytes that a bit stands for, counted from `base`.
    unit: u64,
    base: u64,
    first_unit: u64,
    bits: Vec<u64>,
    /// Where the last compressed grain lies.
    last_grain: u64,
    out_of_order: u64,
    /// Where the last grain ends, counted from `base`.
    reaches: u64,
}

impl Walk<'_> {
    /// The units of the window that a run of the file covers.
    fn units(&self, at: u64, len: u64) -> std::ops::Range<u64> {
        let start = at.saturating_sub(self.base);
        let window_end = self.first_unit + (self.bits.len() as u64) * 64;
        let from = (start / self.unit).max(self.first_unit);
        let to = start.saturating_add(len).div_ceil(self.unit).min(window_end);
        from..to.max(from)
    }

    fn may_meet(&self, at: u64, len: u64) -> bool {
        !self.units(at, len).is_empty()
    }

    /// Marks a run; true where some of it was marked before.
    fn mark(&mut self, at: u64, len: u64) -> bool {
        let units = self.units(at, len);
        let mut met = false;
        let mut here = units.start;
        while here < units.end {
            let bit = (here - self.first_unit) % 64;
            let count = (64 - bit).min(units.end - here);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let word = usize::try_from((here - self.first_unit) / 64).unwrap_or(usize::MAX);
            if let Some(word) = self.bits.get_mut(word) {
                met |= *word & mask != 0;
                *word |= mask;
            }
            here += count;
        }
        met
    }

    /// Marks everything that is not a grain, to see what is left.
    fn mark_structures(&mut self) {
        let sparse = self.sparse;
        let len = sparse::table_bytes(&sparse.layout) as u64;
        // A stream has a marker before each of its tables and directories, and a footer and its markers at the end.
        let before = if sparse.marked_tables { SECTOR_SIZE_BYTES } else { 0 };
        let structures = self.structures;
        for entry in structures.tables.iter().chain(&structures.redundant_tables) {
            if let Some(at) = sparse::table_offset(&sparse.layout, *entry) {
                self.mark(at.saturating_sub(before), len + before);
            }
        }
        for &(start, end) in sparse.layout.reserved.iter().chain(&structures.redundant_directory) {
            self.mark(start.saturating_sub(before), end.saturating_sub(start) + before);
        }
        if sparse.layout.compression == (Compression::Zlib { markers: true }) {
            let file_end = sparse.source.len().0;
            let mut at = file_end.saturating_sub(3 * SECTOR_SIZE_BYTES);
            let mut sector: Sector = [0; 512];
            let is_footer = sparse.source.read_exact_at(FileOffset(at), &mut sector).is_ok()
                && hosted::is_marker(&sector, hosted::MARKER_FOOTER);
            if !is_footer {
                at = file_end.saturating_sub(SECTOR_SIZE_BYTES); // an end marker alone
            }
            self.mark(at, file_end - at);
        }
    }

    /// The first unit of `from..to` that is not marked, and how many are not.
    fn unmarked(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let mut found: Option<(u64, u64)> = None;
        let mut here = from.max(self.first_unit);
        while here < to {
            let bit = (here - self.first_unit) % 64;
            let count = (64 - bit).min(to - here);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let word = usize::try_from((here - self.first_unit) / 64).unwrap_or(usize::MAX);
            let free = !self.bits.get(word)? & mask;
            if free != 0 {
                let first =
                    self.first_unit + (here - self.first_unit) / 64 * 64 + u64::from(free.trailing_zeros());
                found.get_or_insert((first, 0)).1 += u64::from(free.count_ones());
            }
            here += count;
        }
        found
    }
}
