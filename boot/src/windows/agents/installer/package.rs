//! What a package of Windows Installer (.msi) says of itself: a compound file with tables (Microsoft: "Installer Database",
//! "Summary Information Stream", MS-OLEPS; the layout of tables as Wine's sources and msitools have it).
//!
//! ```text
//! _StringPool: code page u32 (its high bit: references of 3 bytes, else 2), then length u16 and uses u16 of each text
//!              (length 0 with uses: the length follows as u32)
//! _StringData: the texts
//! Property:    all references to names, then all to values; a reference is the number of a text, from 1 on
//! ```
//! Stream names hold two characters in one. Deliberately absent: all other tables, and code pages: what is looked for is ASCII.

use cfb::CompoundFile;
use std::fs::File;
use std::io::Read;

/// Bytes of a stream that are read. Packages of gigabytes have a megabyte of texts.
const STREAM_AT_MOST: u64 = 32 << 20;

/// Number of the property that tells the processor, `x64;1033`.
const TEMPLATE: u32 = 7;

/// What a package says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Package {
    /// `x86_64`, `i686`, `aarch64`; `None` for others.
    pub architecture: Option<&'static str>,
    /// `ProductName`
    pub name: Option<String>,
    /// `ProductVersion`
    pub version: Option<String>,
}

impl Package {
    /// Reads it; `None` where it is no package.
    pub fn read(file: &File) -> Option<Package> {
        let mut compound = CompoundFile::open(file).ok()?;
        let mut stream = |name: &str| -> Option<Vec<u8>> {
            let mut bytes = Vec::new();
            let stream = compound.open_stream(name).ok()?;
            stream.take(STREAM_AT_MOST).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let summary = stream("\u{5}SummaryInformation")?;
        let architecture = match template(&summary).unwrap_or_default().split([';', ',']).next()? {
            "x64" | "AMD64" => Some("x86_64"),
            // Packages without the word are for it, too.
            "Intel" | "" => Some("i686"),
            "Arm64" => Some("aarch64"),
            _ => None,
        };
        let (pool, data) = (stream(&encoded("_StringPool"))?, stream(&encoded("_StringData"))?);
        let texts = Texts::read(&pool, &data)?;
        let properties = stream(&encoded("Property"))?;
        let find = |name: &str| texts.property(&properties, name);
        Some(Package { architecture, name: find("ProductName"), version: find("ProductVersion") })
    }
}

/// The name of a table's stream.
fn encoded(table: &str) -> String {
    const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._";
    let digit =
        |byte: u8| DIGITS.bytes().position(|digit| digit == byte).and_then(|at| u32::try_from(at).ok());
    let pairs = table.as_bytes().chunks(2).map(|pair| match (pair.first(), pair.get(1)) {
        (Some(&first), Some(&second)) => Some(0x3800 + digit(first)? + (digit(second)? << 6)),
        (Some(&first), None) => Some(0x4800 + digit(first)?),
        _ => None,
    });
    let units = pairs.map(|unit| unit.and_then(char::from_u32).unwrap_or_default());
    std::iter::once('\u{4840}').chain(units).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, at)?).ok()
}

/// The property of the summary that tells the processor.
fn template(summary: &[u8]) -> Option<String> {
    let section = summary.get(size_at(summary, 44)?..)?;
    let count = size_at(section, 4)?.min(64);
    let at = (0..count).map(|index| 8 + 8 * index).find(|at| u32_at(section, *at) == Some(TEMPLATE))?;
    let value = section.get(size_at(section, at + 4)?..)?;
    let text = value.get(8..)?.get(..size_at(value, 4)?)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

/// The texts of a package.
struct Texts<'b> {
    texts: Vec<&'b [u8]>,
    /// Bytes of a reference.
    width: usize,
}

impl<'b> Texts<'b> {
    fn read(pool: &[u8], data: &'b [u8]) -> Option<Texts<'b>> {
        let width = if u32_at(pool, 0)? >> 31 == 1 { 3 } else { 2 };
        let (mut texts, mut rest) = (Vec::new(), data);
        let mut entries = pool.chunks_exact(4).skip(1);
        while let Some(entry) = entries.next() {
            let entry = u32_at(entry, 0)?;
            let length = match (entry & 0xffff, entry >> 16) {
                (0, uses) if uses > 0 => size_at(entries.next()?, 0)?,
                (length, _) => usize::try_from(length).ok()?,
            };
            let (text, after) = rest.split_at_checked(length)?;
            texts.push(text);
            rest = after;
        }
        Some(Texts { texts, width })
    }

    fn text(&self, reference: &[u8]) -> Option<&'b [u8]> {
        let number = reference.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        self.texts.get(number.checked_sub(1)?).copied()
    }

    fn property(&self, table: &[u8], name: &str) -> Option<String> {
        let (names, values) = table.split_at(table.len() / (2 * self.width) * self.width);
        let at = names.chunks_exact(self.width).position(|one| self.text(one) == Some(name.as_bytes()))?;
        let value = self.text(values.chunks_exact(self.width).nth(at)?)?;
        Some(String::from_utf8_lossy(value).trim().to_owned()).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::agents::installer::tests::{package, temporary};

    #[test]
    fn a_real_package_says_what_it_is() {
        for (word, architecture) in [("x64", "x86_64"), ("x86", "i686")] {
            let Some(bytes) = package(word, "QEMU guest agent", "108.0.2") else { return };
            let found = Package::read(&temporary(&bytes)).unwrap();
            let expected = Package {
                architecture: Some(architecture),
                name: Some("QEMU guest agent".into()),
                version: Some("108.0.2".into()),
            };
            assert_eq!(found, expected);
        }
    }

    /// Whatever byte is wrong, and wherever it ends: an answer, soon.
    #[test]
    fn broken_packages_are_read_within_bounds() {
        let Some(bytes) = package("x64", "QEMU guest agent", "108.0.2") else { return };
        for at in (0..bytes.len()).step_by(7) {
            for value in [0, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                let _ = Package::read(&temporary(&bytes));
            }
        }
        for len in (0..bytes.len()).step_by(501) {
            let _ = Package::read(&temporary(&bytes[..len]));
        }
    }

    #[test]
    fn texts_of_every_length_and_width() {
        let long = vec![b'x'; 70_000];
        let pool = |flag: u32| {
            let mut pool = flag.to_le_bytes().to_vec();
            for words in [[11u16, 1], [0, 0], [0, 1], [4464, 1], [1, 1]] {
                pool.extend(words.into_iter().flat_map(u16::to_le_bytes));
            }
            pool
        };
        let data = [b"ProductName".as_slice(), &long, b"y"].concat();
        for (flag, table) in
            [(1252, vec![4, 0, 1, 0, 4, 0, 3, 0]), (1 << 31, vec![4, 0, 0, 1, 0, 0, 4, 0, 0, 3, 0, 0])]
        {
            let pool = pool(flag);
            let texts = Texts::read(&pool, &data).unwrap();
            assert_eq!(texts.texts.len(), 4);
            assert_eq!(texts.property(&table, "ProductName").unwrap().len(), long.len());
            assert_eq!(texts.property(&table, "y").as_deref(), Some("y"));
            assert_eq!(texts.property(&table, "ProductVersion"), None);
        }
    }
}
