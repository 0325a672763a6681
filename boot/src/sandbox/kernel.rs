//! The sandbox's kernel: where it comes from, and the form that QEMU starts without firmware.
//!
//! Source: the kernel's `Documentation/arch/x86/boot.rst` (setup header) and `Documentation/kbuild/modules.rst`.
//!
//! ```text
//! bzImage:  0x1f1 setup_sects   0x202 "HdrS"   0x206 version   0x248 payload_offset   0x24c payload_length
//!           (setup_sects + 1) * 512: the protected-mode code, in it the payload: a compressed ELF image (vmlinux)
//!           and, where the compression has no length of its own, the image's length in four bytes behind it
//! ```
//!
//! The compressed kernel decompresses itself, which takes seconds under emulation; so it is unpacked here, once. An
//! ELF image is started through its PVH entry point, named by a note.

use crate::{Error, Result};
use landfall_image::Bytes;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An uncompressed kernel. Debian's largest has 90 MiB, with debug information left out as in every distribution.
const VMLINUX_AT_MOST: Bytes = Bytes::mib(512);

/// A compressed kernel; distributions' have 8 to 20 MiB.
const BZIMAGE_AT_MOST: Bytes = Bytes::mib(256);

/// Drivers that the sandbox cannot do without, as modules or built in.
pub(super) const NEEDED: [&str; 5] = ["virtio_pci", "virtio_scsi", "virtio_console", "sd_mod", "ext4"];

/// File systems and what they ask for at run time; each is loaded where the kernel has it.
pub(super) const WANTED: [&str; 8] =
    ["crc32c_generic", "crc32c_intel", "xfs", "nls_cp437", "nls_iso8859-1", "nls_ascii", "vfat", "vmgenid"];

/// Those whose start takes long (btrfs measures which of its RAID functions is the fastest).
pub(super) const LATER: [&str; 2] = ["btrfs", "ntfs3"];

/// A kernel file and its modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// `6.1.0-56-cloud-amd64`
    pub(super) release: String,
    /// The bzImage.
    pub(super) image: PathBuf,
    /// `lib/modules/RELEASE`
    pub(super) modules: PathBuf,
}

/// The newest kernel with modules below `folder`, which is laid out like a root: `boot/vmlinuz-*`,
/// `lib/modules/*` or `usr/lib/modules/*`. `None` where there is none that can be read.
pub(super) fn newest_in(folder: &Path) -> Result<Option<Kernel>> {
    let boot = folder.join("boot");
    let names = match fs::read_dir(&boot) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot look for a kernel", e).in_file(&boot)),
    };
    let mut found = Vec::new();
    for name in names {
        let name = name.map_err(|e| Error::io("cannot look for a kernel", e).in_file(&boot))?.file_name();
        let Some(release) = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")) else { continue };
        let image = boot.join(&name);
        // Ubuntu's kernels are for root alone.
        let readable = fs::File::open(&image).is_ok_and(|file| file.metadata().is_ok_and(|m| m.is_file()));
        let modules = ["lib/modules", "usr/lib/modules"]
            .map(|parent| folder.join(parent).join(release))
            .into_iter()
            .find(|modules| modules.join("kernel").is_dir());
        if let (true, Some(modules)) = (readable, modules) {
            found.push(Kernel { release: release.to_owned(), image, modules });
        }
    }
    Ok(found.into_iter().max_by_key(|kernel| version_key(&kernel.release)))
}

/// Sorts releases as people do: runs of digits by their value.
fn version_key(release: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = release;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let text = after.len() - after.trim_start_matches(|c: char| !c.is_ascii_digit()).len();
        let (text, after) = after.split_at(text);
        key.push((number.parse().unwrap_or(0), text.to_owned()));
        rest = after;
    }
    key
}

/// Reads a kernel file whole.
pub(super) fn read_image(path: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io("cannot read the sandbox's kernel", e).in_file(path);
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(BZIMAGE_AT_MOST.0 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > BZIMAGE_AT_MOST.0 {
        return Err(
            Error::refused(format!("is longer than {BZIMAGE_AT_MOST}, which no kernel is")).in_file(path)
        );
    }
    Ok(bytes)
}

/// The ELF image in a bzImage (or the bytes themselves where they are one), which has a PVH entry point.
pub(super) fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    let elf = if image.starts_with(b"\x7fELF") { image.to_vec() } else { unpack(payload(image)?)? };
    if !has_pvh_note(&elf) {
        return Err(Error::unsupported("the kernel has no PVH entry point, by which the sandbox starts it")
            .hint(
                "use a distribution's kernel (CONFIG_PVH=y), for example Debian's linux-image-cloud-amd64",
            ));
    }
    Ok(elf)
}

/// The compressed image in a bzImage.
fn payload(image: &[u8]) -> Result<&[u8]> {
    let cut =
        || Error::corrupt("the kernel's setup header is cut off, or names a payload outside of the file");
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(Error::corrupt("is no Linux kernel: there is no setup header at 0x202"));
    }
    let version = le(image, 0x206, 2).ok_or_else(cut)?;
    if version < 0x208 {
        return Err(Error::unsupported(format!(
            "the kernel's boot protocol is {version:#x}; 0x208 and newer are handled"
        )));
    }
    // Zero means four, for the oldest of boot loaders.
    let sectors = match image.get(0x1f1).ok_or_else(cut)? {
        0 => 4,
        &sectors => usize::from(sectors),
    };
    let start = le(image, 0x248, 4).ok_or_else(cut)?.checked_add((sectors + 1) * 512).ok_or_else(cut)?;
    let len = le(image, 0x24c, 4).ok_or_else(cut)?;
    image.get(start..).and_then(|rest| rest.get(..len)).ok_or_else(cut)
}

/// A little-endian number of `len` bytes.
fn le(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(len)?)?;
    field.iter().rev().try_fold(0usize, |value, &byte| value.checked_mul(256)?.checked_add(byte.into()))
}

/// Decompresses a payload, whatever the kernel was built with.
fn unpack(payload: &[u8]) -> Result<Vec<u8>> {
    let failed =
        |e: std::io::Error| Error::corrupt(format!("the kernel's payload cannot be decompressed: {e}"));
    let mut out = Vec::new();
    let limit = VMLINUX_AT_MOST.0 + 1;
    match payload {
        [0x1f, 0x8b, ..] => {
            flate2::read::GzDecoder::new(payload).take(limit).read_to_end(&mut out).map_err(failed)?;
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            liblzma::read::XzDecoder::new(payload).take(limit).read_to_end(&mut out).map_err(failed)?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let frame = zstd::Decoder::with_buffer(payload).map_err(failed)?.single_frame();
            frame.take(limit).read_to_end(&mut out).map_err(failed)?;
        }
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => unpack_lz4(blocks, &mut out)?,
        [0x7f, b'E', b'L', b'F', ..] => out.extend_from_slice(payload),
        _ => {
            return Err(Error::unsupported(format!(
                "the kernel's payload starts with {:02x?}; gzip, xz, zstd and lz4 are handled",
                payload.get(..6).unwrap_or(payload)
            )));
        }
    }
    if out.len() as u64 > VMLINUX_AT_MOST.0 {
        return Err(Error::refused(format!("the kernel unpacks to more than {VMLINUX_AT_MOST}")));
    }
    if !out.starts_with(b"\x7fELF") {
        return Err(Error::unsupported("the kernel's payload is no ELF image"));
    }
    Ok(out)
}

/// lz4's legacy frame: blocks of at most 8 MiB, each behind its compressed length; the last may be followed by the
/// image's length.
fn unpack_lz4(mut blocks: &[u8], out: &mut Vec<u8>) -> Result<()> {
    const BLOCK: usize = 8 << 20;
    while let Some((len, rest)) = blocks.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let Some((block, rest)) = rest.split_at_checked(len) else { break };
        let data = lz4_flex::block::decompress(block, BLOCK)
            .map_err(|e| Error::corrupt(format!("the kernel's payload cannot be decompressed: {e}")))?;
        out.extend_from_slice(&data);
        if out.len() as u64 > VMLINUX_AT_MOST.0 {
            break;
        }
        blocks = rest;
    }
    Ok(())
}

/// True where a note segment of the 64-bit ELF image holds `XEN_ELFNOTE_PHYS32_ENTRY`.
fn has_pvh_note(elf: &[u8]) -> bool {
    const PT_NOTE: usize = 4;
    const PHYS32_ENTRY: usize = 18;
    let note = |header: &[u8]| -> Option<bool> {
        if le(header, 0, 4)? != PT_NOTE {
            return Some(false);
        }
        let (start, len) = (le(header, 8, 8)?, le(header, 32, 8)?);
        let mut notes = elf.get(start..start.checked_add(len)?)?;
        while notes.len() >= 12 {
            let (name_len, desc_len, kind) = (le(notes, 0, 4)?, le(notes, 4, 4)?, le(notes, 8, 4)?);
            let name = notes.get(12..12usize.checked_add(name_len)?)?;
            if kind == PHYS32_ENTRY && name == b"Xen\0" {
                return Some(true);
            }
            let whole =
                name_len.checked_next_multiple_of(4)?.checked_add(desc_len.checked_next_multiple_of(4)?)?;
            notes = notes.get(12usize.checked_add(whole)?..)?;
        }
        Some(false)
    };
    program_headers(elf).any(|header| note(header) == Some(true))
}

/// The smallest ELF image that QEMU takes for a kernel: a program header that loads it, and one of the note. It
/// stands in where a saved state holds the kernel that runs.
pub(super) fn stand_in() -> Vec<u8> {
    const LOAD_AT: u64 = 0x10_0000;
    const HEADERS_END: u64 = 64 + 2 * 56;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // Executable, x86-64.
    for half in [2u16, 62] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    // Entry point, program headers, no sections.
    for word in [LOAD_AT, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let note_len = 12 + 4 + 8;
    for (kind, start, len) in [(1u32, 0, HEADERS_END + note_len), (4, HEADERS_END, note_len)] {
        elf.extend(kind.to_le_bytes());
        elf.extend(5u32.to_le_bytes());
        for word in [start, LOAD_AT + start, LOAD_AT + start, len, len, 4] {
            elf.extend(word.to_le_bytes());
        }
    }
    for word in [4u32, 8, 18] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"Xen\0");
    elf.extend(LOAD_AT.to_le_bytes());
    elf
}

/// The program headers of a 64-bit little-endian ELF image, 56 bytes each.
pub(super) fn program_headers(elf: &[u8]) -> impl Iterator<Item = &[u8]> {
    let table = || {
        if elf.get(..6)? != b"\x7fELF\x02\x01" || le(elf, 54, 2)? != 56 {
            return None;
        }
        let start = le(elf, 32, 8)?;
        let len = le(elf, 56, 2)?.checked_mul(56)?;
        elf.get(start..start.checked_add(len)?)
    };
    table().unwrap_or_default().chunks_exact(56)
}

/// `elf` without what lies behind its segments: section headers, symbols, debug information. `None` where it is no
/// 64-bit program, or one that needs a loader (a dynamic one).
pub(crate) fn stripped(elf: &[u8]) -> Option<Vec<u8>> {
    const PT_INTERP: usize = 3;
    let mut end = 64;
    for header in program_headers(elf) {
        if le(header, 0, 4)? == PT_INTERP {
            return None;
        }
        end = end.max(le(header, 8, 8)?.checked_add(le(header, 32, 8)?)?);
    }
    let table_end = le(elf, 32, 8)?.checked_add(le(elf, 56, 2)?.checked_mul(56)?)?;
    let mut out = elf.get(..end.max(table_end))?.to_vec();
    // e_shoff, then e_shentsize, e_shnum, e_shstrndx: there are no sections any more.
    out.get_mut(40..48)?.fill(0);
    out.get_mut(58..64)?.fill(0);
    (program_headers(elf).next().is_some()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// An ELF image with one note segment.
    fn elf(note_kind: u8) -> Vec<u8> {
        let mut elf = vec![0u8; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        (elf[64], elf[64 + 8], elf[64 + 32]) = (4, 120, 20);
        elf.extend([4, 0, 0, 0, 4, 0, 0, 0, note_kind, 0, 0, 0]);
        elf.extend(b"Xen\0\0\0\x10\0");
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0u8; 0x400];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image
    }

    #[test]
    fn every_compression_of_a_kernel_is_unpacked() {
        let elf = elf(18);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&elf).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&elf).unwrap();
        let block = lz4_flex::block::compress(&elf);
        let mut lz4 = 0x184c_2102u32.to_le_bytes().to_vec();
        lz4.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        lz4.extend(block);
        for payload in
            [gz.finish().unwrap(), xz.finish().unwrap(), zstd::encode_all(&elf[..], 1).unwrap(), lz4]
        {
            assert_eq!(vmlinux(&bzimage(&payload)).unwrap(), elf);
            // All but the first append the image's length.
            if payload[0] != 0x1f {
                let with_len = [&payload[..], &u32::try_from(elf.len()).unwrap().to_le_bytes()].concat();
                assert_eq!(vmlinux(&bzimage(&with_len)).unwrap(), elf);
            }
        }
    }

    #[test]
    fn what_is_no_kernel_is_an_error() {
        assert!(vmlinux(&elf(17)).unwrap_err().says().contains("PVH"));
        assert!(vmlinux(b"").is_err());
        assert!(vmlinux(&bzimage(b"BZh9")).is_err());
        let good = bzimage(&zstd::encode_all(&elf(18)[..], 1).unwrap());
        for cut in 0..good.len() {
            assert!(vmlinux(&good[..cut]).is_err(), "cut to {cut}");
        }
        for at in 0x1f0..0x250 {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = vmlinux(&bad);
        }
    }

    #[test]
    fn the_newest_kernel_with_modules_wins() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("boot")).unwrap();
        assert_eq!(newest_in(dir.path()).unwrap(), None);
        for release in ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.0-1-amd64", "5.10.0-99-amd64"] {
            fs::write(dir.path().join("boot").join(format!("vmlinuz-{release}")), "k").unwrap();
            if !release.starts_with("6.12") {
                fs::create_dir_all(dir.path().join("lib/modules").join(release).join("kernel")).unwrap();
            }
        }
        assert_eq!(newest_in(dir.path()).unwrap().unwrap().release, "6.1.0-56-amd64");
        fs::create_dir_all(dir.path().join("usr/lib/modules/6.12.0-1-amd64/kernel")).unwrap();
        assert_eq!(newest_in(dir.path()).unwrap().unwrap().release, "6.12.0-1-amd64");
        assert_eq!(newest_in(&dir.path().join("absent")).unwrap(), None);
    }

    #[test]
    fn the_stand_in_is_a_kernel() {
        assert_eq!(vmlinux(&stand_in()).unwrap(), stand_in());
        assert_eq!(stripped(&stand_in()).unwrap(), stand_in());
    }

    #[test]
    fn a_program_loses_what_lies_behind_its_segments() {
        let program = elf(18);
        let mut with_sections = program.clone();
        with_sections.extend([7; 100]);
        with_sections[40] = 140;
        with_sections[60] = 1;
        assert_eq!(stripped(&with_sections).unwrap(), program);
        let mut dynamic = program.clone();
        dynamic[64] = 3;
        assert_eq!(stripped(&dynamic), None);
        assert_eq!(stripped(b"#!/bin/sh"), None);
    }
}
