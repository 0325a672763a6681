//! What is recognised so that it is refused by name: disks in formats that are not read, and archives and compressed
//! files that a disk may be in. Read as raw disks they would be wrong disks in silence.
//!
//! Deliberately absent: optical discs (ISO 9660), whose bytes are their content, as a raw disk's are, and tar archives
//! in general, which a raw disk may begin with. Who knows better says so with the format `raw`, which is never probed.

use crate::error::{Error, Result};
use crate::source::Source;
use crate::units::FileOffset;
use std::path::{Path, PathBuf};

/// What it is, and what is to be done about it.
enum What {
    /// A disk in this format.
    Disk(&'static str),
    /// Packed with this; the command that unpacks it: to its output where it ends in `c`, so that it works whatever the
    /// file is called.
    Packed(&'static str, &'static str),
    /// A backup or export of a product, and how it is turned into images.
    Export(&'static str, &'static str),
}

/// Magic numbers, each with its place.
const MAGICS: &[(What, usize, &[u8])] = &[
    (What::Disk("Bochs growing disk"), 0, b"Bochs Virtual HD Image"),
    (What::Disk("Parallels disk"), 0, b"WithoutFreeSpace"),
    (What::Disk("Parallels disk"), 0, b"WithouFreSpacExt"),
    (What::Disk("QED"), 0, b"QED\0"),
    (What::Disk("qcow version 1"), 0, b"QFI\xfb\0\0\0\x01"),
    (What::Disk("cloop"), 0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    (What::Disk("Expert Witness (E01)"), 0, b"EVF\x09\x0d\x0a\xff\x00"),
    (What::Disk("Expert Witness 2 (Ex01)"), 0, b"EVF2\r\n\x81\0"),
    (What::Disk("Advanced Forensic Format"), 0, b"AFF10\r\n\0"),
    (What::Disk("Apple sparse image (sparseimage)"), 0, b"sprs\0\0\0\x03"),
    (What::Disk("Android sparse image"), 0, b"\x3a\xff\x26\xed\x01\0"),
    (What::Packed("gzip", "gunzip -c"), 0, b"\x1f\x8b\x08"),
    (What::Packed("xz", "xz -dc"), 0, b"\xfd7zXZ\0"),
    (What::Packed("Zstandard", "zstd -dc"), 0, b"\x28\xb5\x2f\xfd"),
    (What::Packed("lz4", "lz4 -dc"), 0, b"\x04\x22\x4d\x18"),
    (What::Packed("lzip", "lzip -dc"), 0, b"LZIP\x01"),
    (What::Packed("lzop", "lzop -dc"), 0, b"\x89LZO\0\r\n\x1a\n"),
    (What::Packed("zip", "unzip"), 0, b"PK\x03\x04"),
    (What::Packed("7z", "7z x"), 0, b"7z\xbc\xaf\x27\x1c"),
    (What::Packed("rar", "unrar x"), 0, b"Rar!\x1a\x07"),
    (
        What::Export(
            "a Windows Imaging archive (wim) of files, no disk",
            "apply it to a disk with DISM or wimapply",
        ),
        0,
        b"MSWIM\0\0\0",
    ),
    (
        What::Export(
            "a partclone image",
            "restore it to a file first: partclone.restore -C -s FILE -O disk.raw",
        ),
        0,
        b"partclone-image\0",
    ),
    (
        What::Export("a Proxmox backup (vma)", "unpack its disks: vma extract FILE FOLDER"),
        0,
        b"VMA\0\0\0\0\x01",
    ),
];

/// bzip2: the level is a digit between the magic and that of the first block.
fn is_bzip2(head: &[u8]) -> bool {
    head.starts_with(b"BZh")
        && head.get(3).is_some_and(u8::is_ascii_digit)
        && head.get(4..10) == Some(b"\x31\x41\x59\x26\x53\x59".as_slice())
}

/// Refuses ([`Kind::Unsupported`](crate::Kind::Unsupported)) a file whose bytes say that it is one of these.
pub(crate) fn refuse(source: &Source) -> Result<()> {
    let head = source.head(4096)?;
    for (what, at, magic) in MAGICS {
        if head.get(*at..at + magic.len()) == Some(*magic) {
            return Err(foreign(source, what));
        }
    }
    if is_bzip2(&head) {
        return Err(foreign(source, &What::Packed("bzip2", "bunzip2 -c")));
    }
    if head.starts_with(b"<?xml") && head.windows(21).any(|part| part == b"<Parallels_disk_image") {
        return Err(foreign(source, &What::Disk("Parallels disk (its descriptor)")));
    }
    // Apple UDIF has its magic 512 bytes before the end.
    if let Some(at) = source.len().0.checked_sub(512) {
        let mut tail = [0; 4];
        source.read_exact_at(FileOffset(at), &mut tail)?;
        if &tail == b"koly" {
            return Err(foreign(source, &What::Disk("Apple disk image (dmg)")));
        }
    }
    Ok(())
}

/// Refuses a file whose name says that it is no disk, and whose bytes say nothing else.
pub(crate) fn refuse_named(source: &Source, name: &Path) -> Result<()> {
    let ending = name.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "vhds" => {
            Err(source.unsupported("is a VHD set, which only names the disks that it is made of").hint(
                "give landfall the .avhdx file beside it that is in use: Get-VHD and Get-VHDSet tell which",
            ))
        }
        "ova" => Err(source
            .corrupt("is named as an OVA package but is no archive with an .ovf descriptor in it")
            .hint("copy it again if it is cut off; say -f raw if it is a raw disk")),
        _ => Ok(()),
    }
}

/// What the unpacked file is to be called: without the packer's ending, or with one of its own before the last.
fn unpacked(path: &Path) -> PathBuf {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "gz" | "xz" | "zst" | "lz4" | "lz" | "lzo" | "bz2" => path.with_extension(""),
        _ => path.with_extension(["unpacked", ending].join(".").trim_end_matches('.')),
    }
}

fn foreign(source: &Source, what: &What) -> Error {
    let path = source.path().display();
    match what {
        What::Disk(name) => source
            .unsupported(format!("is a disk in the format {name}, which landfall does not read"))
            .hint("convert it with the product that wrote it (for most: qemu-img convert -O qcow2), then give landfall the result"),
        What::Packed(name, command) => {
            let result = match command.ends_with('c') {
                true => format!(" > '{}'", unpacked(source.path()).display()),
                false => String::new(),
            };
            source
                .unsupported(format!("is packed with {name}, and landfall does not read what is packed"))
                .hint(format!("unpack it first: {command} '{path}'{result}; say -f raw if these are a disk's own bytes"))
        }
        What::Export(name, how) => {
            source.unsupported(format!("is {name}, which landfall does not read")).hint(*how)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn source(folder: &Path, name: &str, bytes: &[u8]) -> Source {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        Source::open(&path).unwrap()
    }

    #[test]
    fn each_is_refused_by_its_name_and_one_byte_less_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for (what, at, magic) in MAGICS {
            let mut bytes = vec![0; 4096];
            bytes[*at..at + magic.len()].copy_from_slice(magic);
            let error = refuse(&source(folder.path(), "a", &bytes)).unwrap_err();
            let (What::Disk(name) | What::Packed(name, _) | What::Export(name, _)) = what;
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.says().contains(name) && error.hint_text().is_some(), "{error}");
            bytes[*at] ^= 0x80;
            refuse(&source(folder.path(), "a", &bytes)).unwrap();
        }
        assert!(refuse(&source(folder.path(), "a", b"BZh91AY&SY")).is_err());
        assert!(refuse(&source(folder.path(), "a", b"BZhx1AY&SY")).is_ok());
        assert!(refuse(&source(folder.path(), "a", b"BZh")).is_ok(), "shorter than any magic");
        let xml = b"<?xml version='1.0'?>\n<Parallels_disk_image Version=\"1.0\">";
        assert!(refuse(&source(folder.path(), "a", xml)).is_err());
        let mut dmg = vec![0; 2048];
        dmg[1536..1540].copy_from_slice(b"koly");
        assert!(refuse(&source(folder.path(), "a", &dmg)).is_err());
    }
}
