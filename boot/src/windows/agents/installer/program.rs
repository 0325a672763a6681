//! What a program says of itself: its processor, and the texts of its version resource (Microsoft: "PE Format",
//! `VS_VERSIONINFO`). Read from the file in place: a setup program has hundreds of megabytes.
//!
//! ```text
//! resources: a folder of kinds, of each a folder of names, of each a folder of languages, of each address and length
//! folder:    … +12 names u16, +14 numbers u16, then for each: id u32, offset u32 (its high bit: of a folder)
//! block:     length u16, length of the value u16, kind u16 (1: text), key in UTF-16 with its zero, value, blocks
//!            each at a multiple of 4; VS_VERSION_INFO > StringFileInfo > a language > ProductName = …
//! ```
//! Deliberately absent: any check of a signature. Windows shows who signed it to whoever starts it by hand.

use object::LittleEndian as LE;
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_RESOURCE, IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64,
    IMAGE_FILE_MACHINE_I386, ImageDosHeader, ImageNtHeaders32, ImageNtHeaders64,
};
use object::read::pe::{ImageNtHeaders, optional_header_magic};
use object::{ReadCache, ReadRef};
use std::fs::File;

/// Number of the kind of resource that tells the version.
const VERSION: u32 = 16;

/// Bytes of such a resource; real ones have about a thousand.
const VERSION_AT_MOST: u32 = 64 << 10;

/// What a program says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    /// `x86_64`, `i686`, `aarch64`; `None` for others.
    pub architecture: Option<&'static str>,
    /// `ProductName` and the like with their texts, of its first language.
    pub texts: Vec<(String, String)>,
}

impl Program {
    /// Reads it; `None` where it is no program.
    pub fn read(file: &File) -> Option<Program> {
        let data = &ReadCache::new(file);
        match optional_header_magic(data).ok()? {
            0x10b => headers::<ImageNtHeaders32>(data),
            0x20b => headers::<ImageNtHeaders64>(data),
            _ => None,
        }
    }

    /// The text of that name, if it says anything.
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.texts.iter().find(|(key, _)| key == name);
        found.map(|(_, text)| text.trim()).filter(|text| !text.is_empty())
    }
}

fn headers<Pe: ImageNtHeaders>(data: &ReadCache<&File>) -> Option<Program> {
    let mut offset = ImageDosHeader::parse(data).ok()?.nt_headers_offset().into();
    let (headers, directories) = Pe::parse(data, &mut offset).ok()?;
    let sections = headers.sections(data, offset).ok()?;
    let architecture = match headers.file_header().machine.get(LE) {
        IMAGE_FILE_MACHINE_AMD64 => Some("x86_64"),
        IMAGE_FILE_MACHINE_I386 => Some("i686"),
        IMAGE_FILE_MACHINE_ARM64 => Some("aarch64"),
        _ => None,
    };
    let place = |address| sections.pe_file_range_at(address).map(|(start, _)| u64::from(start));
    let version = || -> Option<&[u8]> {
        let root = place(directories.get(IMAGE_DIRECTORY_ENTRY_RESOURCE)?.address_range().0)?;
        let folder = |at: u32| root + u64::from(at & 0x7fff_ffff);
        let of_names = entry(data, root, Some(VERSION))?;
        let of_languages = entry(data, folder(of_names), None)?;
        let leaf = folder(entry(data, folder(of_languages), None)?);
        let (address, len) = (u32_at(data, leaf)?, u32_at(data, leaf + 4)?);
        data.read_bytes_at(place(address)?, len.min(VERSION_AT_MOST).into()).ok()
    };
    let texts = version().map(texts).unwrap_or_default();
    Some(Program { architecture, texts })
}

fn u32_at(data: &ReadCache<&File>, at: u64) -> Option<u32> {
    Some(u32::from_le_bytes(data.read_bytes_at(at, 4).ok()?.try_into().ok()?))
}

/// Where the entry with this number leads in a folder of resources; without a number, the first.
fn entry(data: &ReadCache<&File>, folder: u64, number: Option<u32>) -> Option<u32> {
    let counts = u32_at(data, folder + 12)?;
    let count = u64::from(counts & 0xffff) + u64::from(counts >> 16);
    let mut entries = (0..count).map(|index| folder + 16 + 8 * index);
    let at = entries.find(|at| match number {
        Some(number) => u32_at(data, *at) == Some(number),
        None => true,
    })?;
    u32_at(data, at + 4)
}

/// One block of a version resource.
struct Block<'b> {
    key: String,
    value: &'b [u8],
    blocks: &'b [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?).into())
}

fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    String::from_utf16_lossy(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>())
}

/// The first block, and what follows it.
fn block(bytes: &[u8]) -> Option<(Block<'_>, &[u8])> {
    let length = u16_at(bytes, 0).filter(|length| *length > 6)?;
    let own = bytes.get(..length)?;
    let factor = if u16_at(own, 4)? == 1 { 2 } else { 1 };
    let key = utf16(own.get(6..)?);
    let start = (6 + 2 * (key.encode_utf16().count() + 1)).next_multiple_of(4).min(length);
    // Some compilers count the bytes of a text, not its characters.
    let end = (start + factor * u16_at(own, 2)?).min(length);
    let blocks = own.get(end.next_multiple_of(4).min(length)..)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Block { key, value: own.get(start..end)?, blocks }, rest))
}

fn blocks(bytes: &[u8]) -> impl Iterator<Item = Block<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (first, after) = block(rest)?;
        rest = after;
        Some(first)
    })
}

/// The texts of the first language.
fn texts(resource: &[u8]) -> Vec<(String, String)> {
    let Some((root, _)) = block(resource) else { return Vec::new() };
    let Some(info) = blocks(root.blocks).find(|one| one.key == "StringFileInfo") else { return Vec::new() };
    let language = blocks(info.blocks).next();
    language.iter().flat_map(|one| blocks(one.blocks)).map(|one| (one.key, utf16(one.value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::agents::installer::tests::{program, temporary};

    #[test]
    fn a_real_program_says_what_it_is() {
        let Some(bytes) = program("x86_64", "VMware Tools", "12.3.5.22544099") else { return };
        let found = Program::read(&temporary(&bytes)).unwrap();
        assert_eq!(found.architecture, Some("x86_64"));
        assert_eq!(found.text("ProductName"), Some("VMware Tools"));
        assert_eq!(found.text("ProductVersion"), Some("12.3.5.22544099"));
        assert_eq!(found.text("Comments"), None);
    }

    /// Whatever byte is wrong, and wherever it ends: an answer, soon.
    #[test]
    fn broken_programs_are_read_within_bounds() {
        let Some(bytes) = program("x86_64", "VMware Tools", "12.3.5.22544099") else { return };
        let key: Vec<u8> = "StringFileInfo".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let resource = bytes.windows(key.len()).position(|window| window == key).unwrap() - 0x80;
        for at in (0..0x400).chain(resource..bytes.len().min(resource + 0x400)) {
            for value in [0, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let _ = Program::read(&temporary(&bytes));
            }
        }
        for len in [0, 1, 2, 0x40, 0x80, 0x100, resource, resource + 0x90] {
            let _ = Program::read(&temporary(&bytes[..len]));
        }
    }
}
