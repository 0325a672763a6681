//! The header of a hosted sparse extent: what VMware Workstation writes, and every OVA holds.
//!
//! Source: VMware, Virtual Disk Format 5.0, "Simple Extents" and "Stream-Optimized Compressed".
//!
//! ```text
//! sector 0        header
//!        1..      embedded descriptor (monolithicSparse, streamOptimized)
//!                 redundant grain directory, its grain tables
//!                 grain directory: one u32 per grain table, the table's sector; 0: no grain of it is stored
//!                 grain tables: 512 u32, the grain's sector; 0: not stored; 1: zeros (only with flag bit 2)
//!        overHead grains
//!
//! streamOptimized: header, descriptor, then in writing order
//!                 grain marker { lba u64, size u32, zlib data }, padded to a sector
//!                 marker sector { sectors u64, 0 u32, type u32 } before each grain table (1) and directory (2)
//!                 marker (3), footer = the header again with the right gdOffset, end-of-stream marker (0)
//! ```
//! Absent: the changed block tracking that version 3 allows (it tells nothing about content).

use super::field::{Sector, bytes, le16, le32, le64};
use super::layout::{Compression, Entries, Layout, checked_size, directory_entries};
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, SECTOR_SIZE_BYTES, Sectors};

/// First bytes of the file.
pub(super) const MAGIC: &[u8; 4] = b"KDMV";

pub(super) const FLAG_NEWLINE_TEST: u32 = 1 << 0;
pub(super) const FLAG_REDUNDANT_TABLES: u32 = 1 << 1;
const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
pub(super) const FLAG_COMPRESSED: u32 = 1 << 16;
pub(super) const FLAG_MARKERS: u32 = 1 << 17;
/// A reader must know every flag of the upper half.
const INCOMPATIBLE_FLAGS: u32 = 0xffff_0000;

/// End-of-line bytes at 73, which a transfer in text mode changes.
const NEWLINES: &[u8; 4] = b"\n \r\n";

pub(super) const COMPRESSION_DEFLATE: u16 = 1;
/// `gdOffset` of a file that was written as a stream: the directory's place is in the footer.
pub(super) const DIRECTORY_AT_END: u64 = u64::MAX;
/// End of a stream.
pub(super) const MARKER_END: u32 = 0;
/// Marker before a grain table.
pub(super) const MARKER_TABLE: u32 = 1;
/// Marker before the grain directory.
pub(super) const MARKER_DIRECTORY: u32 = 2;
/// Marker before the footer.
pub(super) const MARKER_FOOTER: u32 = 3;
pub(super) const ENTRIES_PER_TABLE: u32 = 512;
/// Sectors of a grain table.
pub(super) const TABLE_SECTORS: u64 = 4;
const SMALLEST_GRAIN: Sectors = Sectors(8);

/// The header, or the footer, which has the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) capacity: Sectors,
    pub(super) grain_size: Sectors,
    pub(super) descriptor_offset: Sectors,
    pub(super) descriptor_size: Sectors,
    pub(super) entries_per_table: u32,
    pub(super) redundant_directory_offset: Sectors,
    pub(super) directory_offset: Sectors,
    /// Where the first grain may lie. Readers do not need it.
    pub(super) overhead: Sectors,
    pub(super) unclean_shutdown: bool,
    pub(super) compression: u16,
}

/// Reads a header. Checks what can be judged without the file: magic, version, flags, end-of-line bytes.
pub(super) fn parse(raw: &[u8]) -> Result<Header> {
    let Some(sector) = raw.first_chunk::<512>() else {
        return Err(Error::corrupt(format!("the sparse extent header has {} bytes, not 512", raw.len())));
    };
    let sector: &Sector = sector;
    if &bytes::<0, 4>(sector) != MAGIC {
        return Err(Error::corrupt("the sparse extent header does not start with KDMV"));
    }
    let header = Header {
        version: le32::<4>(sector),
        flags: le32::<8>(sector),
        capacity: Sectors(le64::<12>(sector)),
        grain_size: Sectors(le64::<20>(sector)),
        descriptor_offset: Sectors(le64::<28>(sector)),
        descriptor_size: Sectors(le64::<36>(sector)),
        entries_per_table: le32::<44>(sector),
        redundant_directory_offset: Sectors(le64::<48>(sector)),
        directory_offset: Sectors(le64::<56>(sector)),
        overhead: Sectors(le64::<64>(sector)),
        unclean_shutdown: bytes::<72, 1>(sector) != [0],
        compression: le16::<77>(sector),
    };
    if !(1..=3).contains(&header.version) {
        return Err(Error::unsupported(format!(
            "sparse extent header version {}; versions 1 to 3 are read",
            header.version
        )));
    }
    let unknown = header.flags & INCOMPATIBLE_FLAGS & !(FLAG_COMPRESSED | FLAG_MARKERS);
    if unknown != 0 {
        return Err(Error::unsupported(format!(
            "sparse extent header flags {unknown:#x} are of an unknown feature that readers must know"
        )));
    }
    if header.has(FLAG_NEWLINE_TEST) && &bytes::<73, 4>(sector) != NEWLINES {
        return Err(Error::corrupt(
            "the end-of-line bytes of the sparse extent header are changed: the file went through a text-mode transfer",
        )
        .at(FileOffset(73))
        .hint("copy the image again from its origin, in binary mode"));
    }
    Ok(header)
}

impl Header {
    /// The header as it lies in the file; [`parse`] reads it.
    pub(super) fn render(&self) -> Sector {
        let mut out = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(4, &self.version.to_le_bytes());
        put(8, &self.flags.to_le_bytes());
        put(12, &self.capacity.0.to_le_bytes());
        put(20, &self.grain_size.0.to_le_bytes());
        put(28, &self.descriptor_offset.0.to_le_bytes());
        put(36, &self.descriptor_size.0.to_le_bytes());
        put(44, &self.entries_per_table.to_le_bytes());
        put(48, &self.redundant_directory_offset.0.to_le_bytes());
        put(56, &self.directory_offset.0.to_le_bytes());
        put(64, &self.overhead.0.to_le_bytes());
        put(72, &[u8::from(self.unclean_shutdown)]);
        put(73, NEWLINES);
        put(77, &self.compression.to_le_bytes());
        out
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// True where the grain directory's place is in the footer. A stream cannot know it earlier; some writers
    /// leave 0 instead of the mark.
    pub(super) fn directory_is_in_footer(&self) -> bool {
        self.directory_offset.0 == DIRECTORY_AT_END
            || (self.directory_offset.0 == 0 && self.has(FLAG_MARKERS) && !self.has(FLAG_REDUNDANT_TABLES))
    }

    /// Where the embedded descriptor lies, if there is one.
    pub(super) fn descriptor(&self) -> Option<(FileOffset, Bytes)> {
        if self.descriptor_offset.0 == 0 || self.descriptor_size.0 == 0 {
            return None;
        }
        // A product past 2^64 is past the end of any file, which the caller's read reports.
        let at = self.descriptor_offset.to_bytes().map_or(u64::MAX, |bytes| bytes.0);
        let len = self.descriptor_size.to_bytes().map_or(u64::MAX, |bytes| bytes.0);
        Some((FileOffset(at), Bytes(len)))
    }

    /// What the reader needs to know, with every bound checked that does not need the tables.
    pub(super) fn layout(&self) -> Result<Layout> {
        let size = checked_size(self.capacity)?;
        let grain = self.grain_size;
        let largest = limits::VMDK_GRAIN.0 / SECTOR_SIZE_BYTES;
        if !grain.0.is_power_of_two() || grain < SMALLEST_GRAIN || grain.0 > largest {
            return Err(Error::corrupt(format!(
                "grain size {} sectors; it is a power of two from {} to {largest}",
                grain.0, SMALLEST_GRAIN.0
            ))
            .at(FileOffset(20)));
        }
        if self.entries_per_table != ENTRIES_PER_TABLE {
            return Err(Error::corrupt(format!(
                "{} entries per grain table; a sparse extent has {ENTRIES_PER_TABLE}",
                self.entries_per_table
            ))
            .at(FileOffset(44)));
        }
        let grain_bytes = Bytes(grain.0 * SECTOR_SIZE_BYTES);
        let compression = self.compression(grain_bytes)?;
        let entries = directory_entries(size, grain_bytes, u64::from(ENTRIES_PER_TABLE), 4)?;
        let mut reserved = vec![(0, SECTOR_SIZE_BYTES)];
        if let Some((at, len)) = self.descriptor() {
            reserved.push((at.0, at.0.saturating_add(len.0)));
        }
        let place = |sectors: Sectors, field: &str, at: u64| match sectors.to_bytes() {
            Some(bytes) if bytes.0 > 0 => Ok(FileOffset(bytes.0)),
            _ => Err(Error::corrupt(format!("{field} is {:#x} sectors", sectors.0)).at(FileOffset(at))),
        };
        let redundant = if self.has(FLAG_REDUNDANT_TABLES) {
            place(self.redundant_directory_offset, "rgdOffset", 48).ok()
        } else {
            None
        };
        Ok(Layout {
            size,
            grain: grain_bytes,
            entries_per_table: u64::from(ENTRIES_PER_TABLE),
            directory: place(self.directory_offset, "gdOffset", 56),
            redundant_directory: redundant,
            directory_entries: entries,
            entries: Entries::Sectors { zeroed_grains: self.has(FLAG_ZEROED_GRAINS) },
            compression,
            reserved,
        })
    }

    fn compression(&self, grain: Bytes) -> Result<Compression> {
        if self.compression > COMPRESSION_DEFLATE {
            return Err(Error::unsupported(format!(
                "compression algorithm {}; 0 (none) and 1 (deflate) are read",
                self.compression
            ))
            .at(FileOffset(77)));
        }
        if self.has(FLAG_COMPRESSED) != (self.compression == COMPRESSION_DEFLATE) {
            return Err(Error::corrupt(format!(
                "flags {:#x} and compression algorithm {} contradict each other",
                self.flags, self.compression
            ))
            .at(FileOffset(8)));
        }
        match (self.has(FLAG_COMPRESSED), self.has(FLAG_MARKERS)) {
            (false, false) => Ok(Compression::None),
            (false, true) => {
                Err(Error::unsupported("grains with markers but without compression").at(FileOffset(8)))
            }
            (true, markers) => {
                if grain > limits::VMDK_COMPRESSED_GRAIN {
                    return Err(Error::refused(format!(
                        "compressed grains of {grain}; the limit is {}",
                        limits::VMDK_COMPRESSED_GRAIN
                    ))
                    .at(FileOffset(20)));
                }
                Ok(Compression::Zlib { markers })
            }
        }
    }
}

/// Reads the header of `source`, and its footer where that holds the truth.
pub(super) fn read(source: &Source) -> Result<Header> {
    let header = parse(&source.head(512)?).map_err(|e| e.in_file(source.path()))?;
    if header.capacity.0 == 0 || !header.directory_is_in_footer() {
        return Ok(header);
    }
    let (footer, at) = footer(source)?;
    if footer.directory_is_in_footer() {
        return Err(source.corrupt("the footer does not tell where the grain directory lies").at(at));
    }
    for (field, in_header, in_footer) in
        [("capacity", header.capacity, footer.capacity), ("grain size", header.grain_size, footer.grain_size)]
    {
        if in_header != in_footer {
            return Err(source
                .corrupt(format!(
                    "{field} is {} sectors in the header but {} in the footer",
                    in_header.0, in_footer.0
                ))
                .at(at));
        }
    }
    // The descriptor lies where the header says: streams put it right behind.
    Ok(Header {
        descriptor_offset: header.descriptor_offset,
        descriptor_size: header.descriptor_size,
        ..footer
    })
}

/// True for a metadata marker of `kind`.
pub(super) fn is_marker(sector: &Sector, kind: u32) -> bool {
    le32::<8>(sector) == 0 && le32::<12>(sector) == kind
}

/// The footer, which takes precedence over the header of a stream, and where it lies.
pub(super) fn footer(source: &Source) -> Result<(Header, FileOffset)> {
    let cut_off = |what: &str| {
        source
            .corrupt(format!("{what}: the stream is cut off or was never finished"))
            .hint("export or download the image again, and compare its size and checksum with the origin's")
    };
    let Some(start) = source.len().0.checked_sub(3 * SECTOR_SIZE_BYTES).filter(|&start| start > 0) else {
        return Err(cut_off("has no room for a footer"));
    };
    let mut sectors: [Sector; 3] = [[0; 512]; 3];
    let mut at = start;
    for sector in &mut sectors {
        source.read_exact_at(FileOffset(at), sector)?;
        at += SECTOR_SIZE_BYTES;
    }
    let [marker, copy, end] = &sectors;
    if !is_marker(marker, MARKER_FOOTER) || &bytes::<0, 4>(copy) != MAGIC {
        return Err(cut_off("has no footer").at(FileOffset(start)));
    }
    if bytes::<0, 16>(end) != [0; 16] {
        return Err(cut_off("has no end-of-stream marker").at(FileOffset(start + 2 * SECTOR_SIZE_BYTES)));
    }
    let at = FileOffset(start + SECTOR_SIZE_BYTES);
    Ok((parse(copy).map_err(|e| e.at(at).in_file(source.path()))?, at))
}
