//! Optical disc images: folders and files, read-only. Those that drivers are delivered on are read here, new ones are made in
//! [`create`] (ECMA-119, that is ISO 9660; Rock Ridge of IEEE P1281 and P1282; Joliet of Microsoft; the enhanced descriptor of
//! ISO 9660:1999).
//!
//! ```text
//! sector 16…: descriptors, 2048 bytes each: [type u8] "CD001" [version u8] …   type 1 primary, 2 further, 255 the last
//!   +80 blocks u32 LE, +88 escape sequences (Joliet: "%/@", "%/C", "%/E"), +128 bytes of a block u16 LE
//!   +156 record of the root folder
//! folder: records (see record.rs), none across a boundary of 2048 bytes
//! ```
//! Deliberately absent: pure UDF images (bridge images hold ISO 9660 as well), interleaved files, folders that Rock Ridge
//! moved because they lay deeper than eight levels, compressed files (zisofs), associated files, other sessions than the first.

pub mod create;
mod record;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};
use record::{Record, Scheme, u16_le};

/// A sector: descriptors and folders are made of them whatever the size of a block.
const SECTOR: u64 = 2048;

/// Sectors before the descriptors, for whatever boots the disc.
const SYSTEM_AREA: u64 = 16;

/// Descriptors that are looked at: an image has two or three.
const DESCRIPTORS: u64 = 64;

/// Folders on a path; ISO 9660 itself stops at eight.
const DEPTH: usize = 32;

/// An image, open for reading.
#[derive(Debug)]
pub struct Iso {
    source: Source,
    /// Bytes of a block, in which positions are counted.
    block: u64,
    scheme: Scheme,
    root: Entry,
    volume: String,
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it is spelled.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of a file or of a folder's list.
    pub size: Bytes,
    /// Where they lie, in order: byte in the image, length.
    pieces: Vec<(u64, u64)>,
    /// Why it cannot be read though it is a file.
    odd: Option<&'static str>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link or a device.
    Other,
}

impl Iso {
    /// Opens an image by its descriptors.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for what has no ISO 9660 descriptor,
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) for a damaged one.
    pub fn open(source: Source) -> Result<Iso> {
        let mut primary = None;
        let (mut joliet, mut enhanced) = (None, None);
        for sector in (SYSTEM_AREA..).take(usize::try_from(DESCRIPTORS).unwrap_or(64)) {
            let at = sector * SECTOR;
            if at + SECTOR > source.len().0 {
                break;
            }
            let mut bytes = [0; 2048];
            source.read_exact_at(FileOffset(at), &mut bytes)?;
            if &bytes[1..6] != b"CD001" {
                break;
            }
            match (bytes[0], bytes[6]) {
                (255, _) => break,
                (1, 1) => primary = primary.or(Some(bytes)),
                (2, 2) => enhanced = enhanced.or(Some(bytes)),
                (2, 1) if matches!(&bytes[88..91], b"%/@" | b"%/C" | b"%/E") => {
                    joliet = joliet.or(Some(bytes))
                }
                _ => {}
            }
        }
        let Some(primary) = primary else {
            return Err(source
                .unsupported("holds no ISO 9660 file system")
                .hint("name an image such as virtio-win.iso, or mount it and name the folder"));
        };
        let iso = Iso::with(source.clone(), &primary, Scheme::Plain)?;
        let volume = iso.volume.clone();
        if let Some(skip) = iso.rock_ridge()? {
            return Ok(Iso { scheme: Scheme::RockRidge { skip }, ..iso });
        }
        match (joliet, enhanced) {
            (Some(joliet), _) => Ok(Iso { volume, ..Iso::with(source, &joliet, Scheme::Joliet)? }),
            (None, Some(enhanced)) => Ok(Iso { volume, ..Iso::with(source, &enhanced, Scheme::Plain)? }),
            (None, None) => Ok(iso),
        }
    }

    fn with(source: Source, descriptor: &[u8; 2048], scheme: Scheme) -> Result<Iso> {
        let block = u64::from(u16_le(descriptor, 128).unwrap_or(0));
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(source.corrupt(format!("blocks of {block} bytes; 512, 1024 or 2048 are allowed")));
        }
        let root = descriptor.get(156..190).and_then(Record::parse);
        let root =
            root.filter(Record::is_folder).ok_or_else(|| source.corrupt("its root folder has no record"))?;
        let (start, length) = root.extent(block);
        let root = Entry {
            name: String::new(),
            kind: EntryKind::Folder,
            size: Bytes(length),
            pieces: vec![(start, length)],
            odd: None,
        };
        let volume = String::from_utf8_lossy(&descriptor[40..72]);
        let volume = volume.trim_end_matches([' ', '\0']).to_owned();
        Ok(Iso { source, block, scheme, root, volume })
    }

    /// Bytes before the entries of Rock Ridge in each record; `None` where the image has none of them.
    fn rock_ridge(&self) -> Result<Option<usize>> {
        let bytes = self.folder(&self.root)?;
        let Some(itself) = Record::parse(&bytes) else { return Ok(None) };
        Ok(match itself.system_use {
            [b'S', b'P', 7, 1, 0xbe, 0xef, skip, ..] => Some(usize::from(*skip)),
            _ => None,
        })
    }

    /// The bytes of a folder's list.
    fn folder(&self, folder: &Entry) -> Result<Vec<u8>> {
        if folder.kind != EntryKind::Folder {
            return Err(self.source.corrupt(format!("{:?} is no folder", folder.name)));
        }
        self.read(folder, limits::ISO_FOLDER)
    }

    /// What the disc is called: at most 32 characters.
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// The folder that holds all others.
    pub fn root(&self) -> &Entry {
        &self.root
    }

    /// What a folder holds, in its order.
    ///
    /// # Errors
    /// A list that is cut off or contradicts itself, and one beyond the bounds.
    pub fn list(&self, folder: &Entry) -> Result<Vec<Entry>> {
        let bytes = self.folder(folder)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut further = false;
        for sector in bytes.chunks(2048) {
            let mut rest = sector;
            while rest.first().is_some_and(|length| *length > 0) {
                let record = Record::parse(rest).ok_or_else(|| self.cut_off(folder))?;
                rest = rest.get(record.length..).unwrap_or_default();
                if record.is_itself_or_parent() || record.is_associated() {
                    continue;
                }
                let piece = record.extent(self.block);
                if let (true, Some(last)) = (further, entries.last_mut()) {
                    last.size = Bytes(last.size.0.saturating_add(piece.1));
                    last.pieces.push(piece);
                } else {
                    if entries.len() >= limits::ISO_ENTRIES {
                        return Err(Error::refused(format!(
                            "the folder {:?} holds more than {} names",
                            folder.name,
                            limits::ISO_ENTRIES
                        ))
                        .in_file(self.source.path()));
                    }
                    entries.push(self.entry(&record)?);
                }
                further = record.continues();
            }
        }
        Ok(entries)
    }

    fn cut_off(&self, folder: &Entry) -> Error {
        let at = folder.pieces.first().map_or(0, |(start, _)| *start);
        self.source
            .corrupt(format!("a record of the folder {:?} is cut off", folder.name))
            .at(FileOffset(at))
            .hint("fetch the image again and compare its checksum")
    }

    fn entry(&self, record: &Record<'_>) -> Result<Entry> {
        let extras = self.scheme.extras(record, |block, offset, length| {
            let at = u64::from(block) * self.block + u64::from(offset);
            // An area lies in one sector.
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0).min(2048)];
            self.source.read_exact_at(FileOffset(at), &mut bytes)?;
            Ok(bytes)
        })?;
        let piece = record.extent(self.block);
        let kind = match (extras.is_special, record.is_folder()) {
            (true, _) => EntryKind::Other,
            (false, true) => EntryKind::Folder,
            (false, false) => EntryKind::File,
        };
        let odd = match (extras.is_compressed, record.is_interleaved()) {
            (true, _) => Some("it is compressed"),
            (_, true) => Some("it is interleaved"),
            _ => None,
        };
        let name = extras.name.unwrap_or_else(|| self.scheme.name(record.name));
        Ok(Entry { name, kind, size: Bytes(piece.1), pieces: vec![piece], odd })
    }

    /// What is at a path of names between `/`, in any case; `None` where there is nothing. Of names that differ in their
    /// case only, the one that is spelled so, else the first.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn find(&self, path: &str) -> Result<Option<Entry>> {
        let mut at = self.root.clone();
        for (depth, name) in path.split('/').filter(|name| !name.is_empty()).enumerate() {
            if depth >= DEPTH || at.kind != EntryKind::Folder {
                return Ok(None);
            }
            let entries = self.list(&at)?;
            let exact = entries.iter().find(|entry| entry.name == name);
            let any = || entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(name));
            let Some(entry) = exact.or_else(any) else { return Ok(None) };
            at = entry.clone();
        }
        Ok(Some(at))
    }

    /// The content of a file. Longer than `at_most` is refused.
    ///
    /// # Errors
    /// Where it passes the end of the image, is not stored plainly, or is no file.
    pub fn read(&self, entry: &Entry, at_most: Bytes) -> Result<Vec<u8>> {
        let refused = |says: String| Error::refused(says).in_file(self.source.path());
        if entry.kind == EntryKind::Other {
            return Err(refused(format!("{:?} is not a regular file", entry.name)));
        }
        if let Some(odd) = entry.odd {
            let says = format!("{:?} cannot be read: {odd}", entry.name);
            return Err(self.source.unsupported(says).hint("mount the image and name the folder"));
        }
        if entry.size > at_most {
            let (name, size) = (&entry.name, entry.size);
            return Err(refused(format!("{name:?} holds {size}; at most {at_most} are read of such a file")));
        }
        let mut bytes = Vec::new();
        for (start, length) in &entry.pieces {
            let end = start.checked_add(*length).filter(|end| *end <= self.source.len().0);
            let Some(_) = end else {
                return Err(self
                    .source
                    .corrupt(format!("{:?} passes the end of the image", entry.name))
                    .at(FileOffset(*start))
                    .hint("fetch the image again and compare its checksum"));
            };
            let from = bytes.len();
            bytes.resize(from + usize::try_from(*length).unwrap_or(usize::MAX), 0);
            self.source.read_exact_at(FileOffset(*start), &mut bytes[from..])?;
        }
        Ok(bytes)
    }
}
