//! The cpio flavours that the kernel unpacks: `newc` and `crc`.
//!
//! Specification: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`. All numbers are eight
//! hexadecimal digits; name and data are padded to 4 bytes, counted from the start of the buffer:
//!
//! ```text
//!   0 magic 070701 | 070702     54 file size         86 rdev minor
//!   6 inode                     62 device major      94 name size, NUL included
//!  14 mode                      70 device minor     102 check: sum of the data bytes (070702 only)
//!  22 uid   30 gid              78 rdev major       110 name, NUL, pad to 4, data, pad to 4
//!  38 nlink 46 mtime                                    the last name is TRAILER!!!
//! ```
//!
//! Deliberately absent: the `bin` and `odc` flavours. The kernel does not unpack them, so no initramfs is one.

use super::limits;
use crate::{Error, Result};
use landfall_image::FileOffset;
use std::io::{self, Write};

/// Length of a header.
pub const HEADER_SIZE_BYTES: usize = 110;

/// File type bits of a mode.
pub const TYPE_MASK: u32 = 0o170_000;
/// Regular file.
pub const REGULAR: u32 = 0o100_000;
/// Folder.
pub const DIRECTORY: u32 = 0o040_000;
/// Symbolic link: the target is the data.
pub const SYMLINK: u32 = 0o120_000;

const TRAILER: &[u8] = b"TRAILER!!!";

/// One entry, as it stands in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path without its NUL.
    pub name: &'a [u8],
    /// Content of a file, or target of a link.
    pub data: &'a [u8],
    /// Inode number: with `device`, what hard links share.
    pub inode: u32,
    /// Device (major, minor) that the inode was on.
    pub device: (u32, u32),
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Device number (major, minor) of a device node.
    pub rdev: (u32, u32),
}

/// One archive up to and with its trailer, from `start`. A missing trailer at the end of the buffer is fine, as it is
/// for the kernel. Gives the entries and the position behind the archive.
///
/// # Errors
/// `Unsupported` for another cpio flavour, `Corrupt` for damage, `Refused` beyond [`limits`].
pub fn parse(buffer: &[u8], start: usize) -> Result<(Vec<Entry<'_>>, usize)> {
    let mut entries = Vec::new();
    let mut at = start;
    while at < buffer.len() {
        let (entry, next) = parse_entry(buffer, at).map_err(|e| e.at(FileOffset(at as u64)))?;
        at = next;
        match entry {
            None => break,
            Some(_) if entries.len() >= limits::ENTRIES => {
                return Err(Error::refused(format!("the archive has more than {} entries", limits::ENTRIES)));
            }
            Some(entry) => entries.push(entry),
        }
    }
    Ok((entries, at))
}

/// The entry at `at` (`None` for the trailer) and the position behind it.
fn parse_entry(buffer: &[u8], at: usize) -> Result<(Option<Entry<'_>>, usize)> {
    let header = at
        .checked_add(HEADER_SIZE_BYTES)
        .and_then(|end| buffer.get(at..end))
        .ok_or_else(|| Error::corrupt(cut_off("a cpio header", HEADER_SIZE_BYTES, buffer.len() - at)))?;
    let sums = match header.get(..6) {
        Some(b"070701") => false,
        Some(b"070702") => true,
        Some(b"070707") => {
            return Err(Error::unsupported(
                "the archive is cpio of the odc flavour; the kernel takes newc and crc",
            ));
        }
        other => {
            let magic = other.unwrap_or_default().escape_ascii();
            return Err(Error::corrupt(format!("cpio magic is \"{magic}\"; it must be 070701 or 070702")));
        }
    };
    let field = |offset: usize, name: &str| -> Result<u32> {
        let digits = header.get(offset..offset + 8).unwrap_or_default();
        std::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|text| u32::from_str_radix(text, 16).ok())
            .ok_or_else(|| {
                let digits = digits.escape_ascii();
                Error::corrupt(format!("cpio field {name} is \"{digits}\"; it must be hexadecimal"))
            })
    };
    let name_size = usize::try_from(field(94, "namesize")?).unwrap_or(usize::MAX);
    let file_size = usize::try_from(field(54, "filesize")?).unwrap_or(usize::MAX);
    if name_size == 0 || name_size > limits::PATH {
        let bound = limits::PATH;
        return Err(Error::corrupt(format!("cpio name size is {name_size}; it must be 1 to {bound}")));
    }
    let (name, after_name) = padded(buffer, at.saturating_add(HEADER_SIZE_BYTES), name_size)
        .ok_or_else(|| Error::corrupt(cut_off("a cpio name", name_size, buffer.len() - at)))?;
    let name = match name.split_last() {
        Some((0, name)) if !name.contains(&0) => name,
        _ => return Err(Error::corrupt("a cpio name does not end with its one NUL")),
    };
    let (data, next) = padded(buffer, after_name, file_size).ok_or_else(|| {
        let name = String::from_utf8_lossy(name);
        Error::corrupt(cut_off(&format!("{name:?}"), file_size, buffer.len().saturating_sub(after_name)))
    })?;
    if name == TRAILER {
        return Ok((None, next));
    }
    let entry = Entry {
        name,
        data,
        inode: field(6, "ino")?,
        device: (field(62, "devmajor")?, field(70, "devminor")?),
        mode: field(14, "mode")?,
        uid: field(22, "uid")?,
        gid: field(30, "gid")?,
        nlink: field(38, "nlink")?,
        mtime: field(46, "mtime")?,
        rdev: (field(78, "rdevmajor")?, field(86, "rdevminor")?),
    };
    if sums && entry.mode & TYPE_MASK == REGULAR && !data.is_empty() {
        let expected = field(102, "check")?;
        let sum = data.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        if sum != expected {
            let name = String::from_utf8_lossy(name);
            return Err(Error::corrupt(format!(
                "checksum of {name:?} is {sum:08x}; the header says {expected:08x}"
            )));
        }
    }
    Ok((Some(entry), next))
}

/// `len` bytes from `at`, and the next position that is a multiple of 4 (or the end of the buffer, where the padding
/// of the very last entry was left away).
fn padded(buffer: &[u8], at: usize, len: usize) -> Option<(&[u8], usize)> {
    let end = at.checked_add(len)?;
    let bytes = buffer.get(at..end)?;
    Some((bytes, end.checked_next_multiple_of(4)?.min(buffer.len())))
}

fn cut_off(what: &str, wanted: usize, left: usize) -> String {
    format!("the archive ends inside {what}: {wanted} bytes wanted, {left} left")
}

/// Writes `newc` entries, then a trailer. Keeps its own count, so that padding is right from the first byte written.
pub struct Writer<W> {
    out: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive: `out` stands at a multiple of 4.
    pub fn new(out: W) -> Self {
        Writer { out, written: 0 }
    }

    /// One entry. The caller sees to it that the data of a link or file is complete.
    pub fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a cpio entry is limited to 4 GiB");
        let file_size = u32::try_from(entry.data.len()).map_err(too_long)?;
        let name_size = u32::try_from(entry.name.len().saturating_add(1)).map_err(too_long)?;
        let header = format!(
            "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            entry.inode,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.nlink,
            entry.mtime,
            file_size,
            entry.device.0,
            entry.device.1,
            entry.rdev.0,
            entry.rdev.1,
            name_size,
            0
        );
        self.write(header.as_bytes())?;
        self.write(entry.name)?;
        self.write(&[0])?;
        self.pad(4)?;
        self.write(entry.data)?;
        self.pad(4)
    }

    /// The trailer, padded to 512 bytes as cpio does; gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(&Entry {
            name: TRAILER,
            data: &[],
            inode: 0,
            device: (0, 0),
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            mtime: 0,
            rdev: (0, 0),
        })?;
        self.pad(512)?;
        Ok(self.out)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        const ZEROS: [u8; 512] = [0; 512];
        let gap = self.written.next_multiple_of(to) - self.written;
        self.write(usize::try_from(gap).ok().and_then(|gap| ZEROS.get(..gap)).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn file<'a>(name: &'a [u8], data: &'a [u8]) -> Entry<'a> {
        Entry {
            name,
            data,
            inode: 7,
            device: (8, 1),
            mode: REGULAR | 0o640,
            uid: 3,
            gid: 4,
            nlink: 1,
            mtime: 1_700_000_000,
            rdev: (0, 0),
        }
    }

    fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for entry in entries {
            writer.entry(entry).expect("memory");
        }
        writer.finish().expect("memory")
    }

    #[test]
    fn what_is_written_is_read() {
        let entries = [file(b"etc", b""), file(b"etc/x", b"12345"), file(b"y", b"1234")];
        let bytes = archive(&entries);
        assert_eq!(bytes.len() % 512, 0);
        let (read, end) = parse(&bytes, 0).expect("sound");
        assert_eq!(read, entries);
        assert!(bytes[end..].iter().all(|b| *b == 0));
    }

    #[test]
    fn every_truncation_is_corrupt_or_ends_between_entries() {
        let bytes = archive(&[file(b"a", b"12345"), file(b"b", b"123")]);
        let end = parse(&bytes, 0).expect("sound").1;
        for cut in 0..end {
            match parse(&bytes[..cut], 0) {
                Ok((entries, _)) => assert!(entries.len() < 2 || cut > 200, "cut at {cut}"),
                Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "cut at {cut}"),
            }
        }
    }

    #[test]
    fn the_checksum_of_a_crc_archive_is_checked() {
        let mut bytes = archive(&[file(b"a", b"12345")]);
        bytes[5] = b'2';
        bytes[102..110].copy_from_slice(b"000000ff");
        parse(&bytes, 0).expect("31+32+33+34+35 is ff");
        bytes[112] = b'9';
        assert_eq!(parse(&bytes, 0).expect_err("sum").kind(), Kind::Corrupt);
    }

    #[test]
    fn one_byte_beyond_the_longest_name_is_refused() {
        let name = vec![b'x'; limits::PATH - 1];
        parse(&archive(&[file(&name, b"")]), 0).expect("the longest");
        let name = vec![b'x'; limits::PATH];
        parse(&archive(&[file(&name, b"")]), 0).expect_err("too long");
    }
}
