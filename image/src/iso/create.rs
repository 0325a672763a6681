//! New disc images that firmware boots from: files and folders by ISO 9660 with Rock Ridge's names, and El Torito (ECMA-119;
//! IEEE P1281 and P1282; "El Torito" Bootable CD-ROM Format Specification 1.0; UEFI specification 2.10, section 13.3.2).
//!
//! ```text
//! sector 0   nothing, or a boot record for the image on a disk: its one partition is the file for UEFI
//! sector 16  primary descriptor | 17 boot record, if it boots: leads to the catalog | the last descriptor
//!            path tables, little and big endian | catalog | folders | files, each from a sector of its own
//!
//! catalog    32 bytes each:  1, platform, …, sum, 55 aa | image | 0x91, platform of what follows, … | image
//!            image: 0x88, 0 no emulation, …, +6 sectors of 512 that a BIOS loads u16, +8 first sector u32
//! record     as record.rs reads it; behind the name: PX mode, links, owner, group | NM the name as it is
//! ```
//!
//! A name is kept as it is by Rock Ridge; that of ISO 9660 itself, in capitals, is made from it and only few look at it. In the
//! image that a BIOS starts, bytes 8 to 63 are overwritten with the table of `mkisofs -boot-info-table`: its first sector
//! learns from there where the rest of it lies. GRUB's `cdboot.img` and ISOLINUX are made for that.
//!
//! The same files, options and order are the same bytes. Nothing is copied: the image is made of pieces.
//!
//! Copied to a disk as it is (a USB stick), the image boots as well where [`IsoImage::boot_from_disk`] put a boot record: a BIOS runs its
//! code, UEFI firmware takes its partition.
//!
//! Absent on purpose: Joliet, UDF, links, owners, folders deeper than eight levels, names of more than 128 bytes, times of
//! single files, a GPT over the image.

mod bytes;

use super::SECTOR;
use crate::composed::{Composed, Content};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use bytes::{
    alternate, boot_record, boot_table, descriptor, even, fill, ident, index, is_plain, le, mode,
    path_record, primary, put, record,
};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a name: with all that stands beside it, a record has at most 255.
const NAME: usize = 128;

/// Folders on a path, the root and the file counted.
const LEVELS: usize = 8;

/// Bytes of a file that one record can tell of: whole sectors below 4 GiB.
const PIECE: u64 = 0xffff_f800;

/// Sectors of zeros behind the last file, as many as mkisofs has. Drives and loaders read ahead in larger units; GRUB on a BIOS
/// that does not notice the end of the disc was seen to take what it had read before for the last file.
const PADDING: u64 = 150;

/// What a BIOS may start: it loads it into the first MiB.
const BIOS_IMAGE: Bytes = Bytes::mib(1);

/// How an image is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IsoOptions {
    /// At most 32 characters: capitals, digits and '_'. Linux finds the disc by it.
    pub volume: String,
    /// The time of everything in it: seconds since 1970, UTC. GRUB finds the disc by it, as `1970-01-01-00-00-00-00`.
    pub time: u32,
    /// Path of the file that a BIOS starts.
    pub bios: Option<String>,
    /// Path of the FAT volume that UEFI firmware starts from.
    pub efi: Option<String>,
}

/// An image that is to be made.
#[derive(Debug)]
pub struct NewIso {
    options: IsoOptions,
    /// The first is the root.
    folders: Vec<Folder>,
    files: Vec<(String, Content)>,
}

/// An image that was made.
#[derive(Clone, Debug)]
pub struct IsoImage {
    /// Its bytes.
    pub disk: Composed,
    /// Where each file lies, by its path as it was given. Empty for an empty file.
    pub files: BTreeMap<String, GuestRange>,
}

/// Bytes of code in a boot record.
const BOOT_CODE: usize = 440;

impl IsoImage {
    /// Puts a boot record before the descriptors: `code`, the disk's signature `id`, and the file `efi` as its one partition.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for more than 440 bytes of code, and where that file is not there, or lies too far
    /// behind.
    pub fn boot_from_disk(&mut self, code: &[u8], id: u32, efi: &str) -> Result<()> {
        if code.len() > BOOT_CODE {
            let says = format!("boot code of {} bytes; a boot record has room for {BOOT_CODE}", code.len());
            return Err(Error::refused(says));
        }
        let place = self.files.get(efi).filter(|range| !range.is_empty());
        let sectors = place.and_then(|range| {
            let first = u32::try_from(range.start().0 / 512).ok()?;
            Some((first, u32::try_from(range.len().0.div_ceil(512)).ok()?))
        });
        let (first, sectors) = sectors.ok_or_else(|| {
            Error::refused(format!("{efi:?} is to be a partition, but is no file of the disc's first 2 TiB"))
        })?;
        self.disk.put(GuestOffset(0), boot_record(code, id, first, sectors))
    }
}

#[derive(Debug, Default)]
struct Folder {
    parent: usize,
    level: usize,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Folder(usize),
    File(usize),
}

impl NewIso {
    /// An image without files.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for a name of the volume that cannot be.
    pub fn new(options: IsoOptions) -> Result<NewIso> {
        let volume = &options.volume;
        if volume.is_empty() || volume.len() > 32 || !volume.bytes().all(is_plain) {
            return Err(Error::refused(format!("{volume:?} cannot be the name of a disc"))
                .hint("use 1 to 32 capitals, digits and '_'"));
        }
        let root = Folder { level: 1, ..Folder::default() };
        Ok(NewIso { options, folders: vec![root], files: Vec::new() })
    }

    /// Adds a file at a path of names between `/`, and the folders on the way. Files lie in the image in this order.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where the path is taken, or none of short plain names.
    pub fn file(&mut self, path: &str, content: impl Into<Content>) -> Result<()> {
        let cannot = |why: &str| Err(Error::refused(format!("cannot put {path:?} on a disc: {why}")));
        let names: Vec<&str> = path.split('/').collect();
        if names.len() >= LEVELS {
            return cannot("it lies deeper than eight levels");
        }
        let odd = |name: &&str| matches!(*name, "" | "." | "..") || name.len() > NAME || name.contains('\0');
        let (false, Some((name, folders))) = (names.iter().any(odd), names.split_last()) else {
            return cannot("a path has names of 1 to 128 bytes between '/', and no . or ..");
        };
        let mut at = 0;
        for folder in folders {
            at = match self.entry(at, folder) {
                Some(Entry::Folder(folder)) => folder,
                Some(Entry::File(_)) => return cannot("a file is on the way"),
                None => {
                    let new = self.folders.len();
                    self.insert(at, folder, Entry::Folder(new));
                    let level = self.folders.get(at).map_or(1, |parent| parent.level) + 1;
                    self.folders.push(Folder { parent: at, level, entries: BTreeMap::new() });
                    new
                }
            };
        }
        if self.entry(at, name).is_some() {
            return cannot("the path is taken");
        }
        self.insert(at, name, Entry::File(self.files.len()));
        self.files.push((path.to_owned(), content.into()));
        Ok(())
    }

    fn entry(&self, folder: usize, name: &str) -> Option<Entry> {
        self.folders.get(folder)?.entries.get(name).copied()
    }

    fn insert(&mut self, folder: usize, name: &str, entry: Entry) {
        if let Some(folder) = self.folders.get_mut(folder) {
            folder.entries.insert(name.to_owned(), entry);
        }
    }

    /// Makes the image.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where a file to start is not there, or one for a BIOS not of 64 bytes to 1 MiB,
    /// and for more than the format can count; what reading that one fails with.
    pub fn finish(mut self) -> Result<IsoImage> {
        let boots = self.options.bios.is_some() || self.options.efi.is_some();
        if u16::try_from(self.folders.len()).is_err() {
            return Err(Error::refused("a disc of more than 65535 folders"));
        }
        let folders = self.named();
        let order = self.path_order(&folders);
        let mut numbers = vec![0u16; folders.len()];
        for (number, at) in (1..=u16::MAX).zip(&order) {
            numbers[*at] = number;
        }
        let path_table: u64 = order.iter().map(|at| 8 + even(folders[*at].ident.len())).sum();
        // Descriptors; the path table twice; catalog; folders; files.
        let catalog = 18 + u64::from(boots) + 2 * path_table.div_ceil(SECTOR);
        let mut next = catalog + u64::from(boots);
        let lengths = self.files.iter().map(|(_, content)| (0, content.size().0));
        let mut places = Places { folders: vec![(0, 0); folders.len()], files: lengths.collect() };
        for at in &order {
            // Places do not change the length of a list.
            let length = self.list(&folders, *at, &places).len() as u64;
            places.folders[*at] = (next, length);
            next += length / SECTOR;
        }
        for (sector, length) in &mut places.files {
            if *length > 0 {
                *sector = next;
                next = length.div_ceil(SECTOR).saturating_add(next);
            }
        }
        let sectors = next.saturating_add(PADDING);
        u32::try_from(sectors).map_err(|_| Error::refused("a disc of 8 TiB or more"))?;

        let mut head = descriptor(1);
        primary(&mut head, &self.options, sectors, path_table, catalog, places.folders[0]);
        if boots {
            let mut boot = descriptor(0);
            put(&mut boot, 7, b"EL TORITO SPECIFICATION");
            put(&mut boot, 71, &le(catalog));
            head.extend(boot);
        }
        head.extend(descriptor(255));
        for little in [true, false] {
            for at in &order {
                let parent = numbers[self.folders[*at].parent];
                path_record(&mut head, &folders[*at].ident, places.folders[*at].0, parent, little);
            }
            fill(&mut head);
        }
        if boots {
            head.extend(self.catalog(&places)?);
        }
        for at in &order {
            head.extend(self.list(&folders, *at, &places));
        }

        let mut disk = Composed::new(Bytes(sectors * SECTOR));
        disk.put(GuestOffset(16 * SECTOR), head)?;
        let mut files = BTreeMap::new();
        for ((path, content), (sector, length)) in self.files.into_iter().zip(places.files) {
            let range = GuestRange::new(GuestOffset(sector * SECTOR), Bytes(length));
            disk.put(range.start(), content)?;
            files.insert(path, range);
        }
        Ok(IsoImage { disk, files })
    }

    /// The catalog of what boots; writes the table into the image for a BIOS.
    fn catalog(&mut self, places: &Places) -> Result<Vec<u8>> {
        let mut images = Vec::new();
        if let Some(path) = self.options.bios.clone() {
            let (file, sector) = self.boot_file(&path, places)?;
            let size = self.files[file].1.size();
            if size < Bytes(64) || size > BIOS_IMAGE {
                let says = format!("{path:?} has {size}; a BIOS starts 64 bytes to {BIOS_IMAGE}");
                return Err(Error::refused(says));
            }
            let mut bytes = vec![0; index(size.0)];
            self.files[file].1.read_at(GuestOffset(0), &mut bytes)?;
            boot_table(&mut bytes, sector);
            self.files[file].1 = bytes.into();
            // It loads the rest by itself.
            images.push((0u8, 4u16, sector));
        }
        if let Some(path) = self.options.efi.clone() {
            let (file, sector) = self.boot_file(&path, places)?;
            // What cannot be said in 16 bits is 0: up to the end of the disc.
            let sectors = self.files[file].1.size().0.div_ceil(512);
            images.push((0xef, u16::try_from(sectors).unwrap_or(0), sector));
        }
        let mut catalog = Vec::new();
        for (number, (platform, sectors, sector)) in images.into_iter().enumerate() {
            let mut head = [0; 32];
            head[1] = platform;
            if number == 0 {
                head[0] = 1;
                put(&mut head, 30, &[0x55, 0xaa]);
                // All 16-bit words together are 0.
                let sum = u16::from_le_bytes([1, platform]).wrapping_add(0xaa55);
                put(&mut head, 28, &sum.wrapping_neg().to_le_bytes());
            } else {
                head[0] = 0x91;
                head[2] = 1;
            }
            let mut entry = [0; 32];
            entry[0] = 0x88;
            put(&mut entry, 6, &sectors.to_le_bytes());
            put(&mut entry, 8, &le(sector));
            catalog.extend(head);
            catalog.extend(entry);
        }
        fill(&mut catalog);
        Ok(catalog)
    }

    fn boot_file(&self, path: &str, places: &Places) -> Result<(usize, u64)> {
        let file = self.files.iter().position(|(other, content)| other == path && content.size().0 > 0);
        let found = file.and_then(|file| Some((file, places.files.get(file)?.0)));
        found.ok_or_else(|| {
            Error::refused(format!("{path:?} is to boot, but is no file of the disc, or empty"))
        })
    }

    /// Names after ISO 9660, of folders and of what lies in them, by which both are sorted.
    fn named(&self) -> Vec<Named> {
        let mut named: Vec<Named> =
            self.folders.iter().map(|_| Named { ident: vec![0], entries: Vec::new() }).collect();
        for (at, folder) in self.folders.iter().enumerate() {
            let mut taken = BTreeSet::new();
            for (name, entry) in &folder.entries {
                let ident = ident(name, matches!(entry, Entry::Folder(_)), &mut taken);
                if let Entry::Folder(child) = entry {
                    named[*child].ident = ident.clone();
                }
                named[at].entries.push((ident, name.clone(), *entry));
            }
            named[at].entries.sort_by(|one, other| one.0.cmp(&other.0));
        }
        named
    }

    /// Folders in the order of the path table: level by level, then by parent, then by name.
    fn path_order(&self, folders: &[Named]) -> Vec<usize> {
        let mut order = vec![0];
        let mut at = 0;
        while let Some(folder) = order.get(at).and_then(|folder| folders.get(*folder)) {
            order.extend(folder.entries.iter().filter_map(|(_, _, entry)| match entry {
                Entry::Folder(child) => Some(*child),
                Entry::File(_) => None,
            }));
            at += 1;
        }
        order
    }

    /// The list of a folder: whole sectors, no record across two.
    fn list(&self, folders: &[Named], at: usize, places: &Places) -> Vec<u8> {
        let mut list = Vec::new();
        let time = self.options.time;
        let links = |folder: usize| {
            let entries = folders[folder].entries.iter();
            2 + entries.filter(|(_, _, entry)| matches!(entry, Entry::Folder(_))).count() as u64
        };
        for (ident, folder) in [(0, at), (1, self.folders[at].parent)] {
            let mut system_use = Vec::new();
            if ident == 0 && at == 0 {
                // Rock Ridge is used here; it is this one.
                system_use.extend(b"SP\x07\x01\xbe\xef\0");
                system_use.extend(mode(0o040_555, links(folder)));
                system_use.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
            } else {
                system_use.extend(mode(0o040_555, links(folder)));
            }
            let (sector, length) = places.folders[folder];
            record(&mut list, &[ident], (sector, length), 2, time, &system_use);
        }
        for (ident, name, entry) in &folders[at].entries {
            match entry {
                Entry::Folder(child) => {
                    let mut system_use = mode(0o040_555, links(*child));
                    system_use.extend(alternate(name));
                    record(&mut list, ident, places.folders[*child], 2, time, &system_use);
                }
                Entry::File(file) => {
                    let mut system_use = mode(0o100_444, 1);
                    system_use.extend(alternate(name));
                    let (mut sector, mut rest) = places.files[*file];
                    loop {
                        let length = rest.min(PIECE);
                        rest -= length;
                        let goes_on = if rest > 0 { 0x80 } else { 0 };
                        record(&mut list, ident, (sector, length), goes_on, time, &system_use);
                        sector += length / SECTOR;
                        if rest == 0 {
                            break;
                        }
                    }
                }
            }
        }
        fill(&mut list);
        list
    }
}

/// A folder as ISO 9660 names it.
struct Named {
    ident: Vec<u8>,
    /// Sorted.
    entries: Vec<(Vec<u8>, String, Entry)>,
}

/// First sector and length in bytes of everything.
struct Places {
    folders: Vec<(u64, u64)>,
    files: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests;
