//! EFI programs as files (PE32 and PE32+): their sections, whether they are signed, and new content for sections.
//!
//! ```text
//! 0x3c  offset of "PE\0\0"; behind it:
//!   +4  machine u16, sections u16, …, +20 size of the optional header u16
//!  +24  optional header: magic u16, … +32 section alignment, +36 file alignment, +56 size of image, +64 checksum,
//!       data directories (8 bytes each, the fifth names the signatures) at +108 (PE32+) or +92 (PE32)
//!  then 40 bytes per section: name[8], virtual size, virtual address, raw size, raw offset, …
//! ```
//! Microsoft's "PE Format". Deliberately absent: relocations, imports and symbols, which stay what they are (symbols go).

use crate::{Error, Result};
use std::ops::Range;

/// Sections of one program; a unified kernel image has a dozen.
const SECTIONS_AT_MOST: usize = 96;

const SECTION_BYTES: usize = 40;

/// A program.
pub struct Pe<'b> {
    bytes: &'b [u8],
    /// Offset of `PE\0\0`.
    header: usize,
    /// Offset of the first section's header.
    table: usize,
    /// Offset of the entry for signatures among the data directories; `None` where there are fewer.
    signatures: Option<usize>,
    /// In the order of the table.
    pub sections: Vec<Section>,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// `.linux`
    pub name: String,
    address: u32,
    virtual_size: u32,
    raw: Range<usize>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl<'b> Pe<'b> {
    /// Reads the headers; `None` where it is no sound program.
    pub fn parse(bytes: &'b [u8]) -> Option<Pe<'b>> {
        if !bytes.starts_with(b"MZ") {
            return None;
        }
        let header = size(u32_at(bytes, 0x3c)?);
        if bytes.get(header..header.checked_add(4)?)? != b"PE\0\0" {
            return None;
        }
        let count = usize::from(u16_at(bytes, header + 6)?);
        let optional = header + 24;
        let directories = optional
            + match u16_at(bytes, optional)? {
                0x20b => 108,
                0x10b => 92,
                _ => return None,
            };
        let table = optional + usize::from(u16_at(bytes, header + 20)?);
        let signatures = (u32_at(bytes, directories)? > 4).then_some(directories + 4 + 4 * 8);
        if count > SECTIONS_AT_MOST || signatures.is_some_and(|at| at + 8 > table) {
            return None;
        }
        let mut sections = Vec::new();
        for at in (0..count).map(|index| table + index * SECTION_BYTES) {
            let name = bytes.get(at..at + 8)?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let (start, length) = (size(u32_at(bytes, at + 20)?), size(u32_at(bytes, at + 16)?));
            let raw = start..start.checked_add(length)?;
            if length > 0 && raw.end > bytes.len() {
                return None;
            }
            sections.push(Section {
                name: String::from_utf8_lossy(name).into_owned(),
                virtual_size: u32_at(bytes, at + 8)?,
                address: u32_at(bytes, at + 12)?,
                raw,
            });
        }
        Some(Pe { bytes, header, table, signatures, sections })
    }

    /// True where it has a signature, whoever's.
    pub fn is_signed(&self) -> bool {
        self.signatures.and_then(|at| u32_at(self.bytes, at + 4)).is_some_and(|length| length > 0)
    }

    /// The content of the only section with this name, without padding.
    pub fn section(&self, name: &str) -> Option<&'b [u8]> {
        let mut named = self.sections.iter().filter(|section| section.name == name);
        let (section, None) = (named.next()?, named.next()) else { return None };
        let raw = self.bytes.get(section.raw.clone())?;
        raw.get(..size(section.virtual_size)).or(Some(raw))
    }

    /// The program with new content for some sections: each stays at its address where it fits before the next one, else
    /// it moves behind all others. The file is laid out anew, so that nothing of the old content stays.
    ///
    /// # Errors
    /// Where the program is signed (it would not be any more), is laid out strangely, or would be too large.
    pub fn with_sections(&self, new: &[(&str, &[u8])]) -> Result<Vec<u8>> {
        let odd = |says: &str| Error::unsupported(format!("the EFI program is not rewritten: {says}"));
        if self.is_signed() {
            return Err(odd("it is signed"));
        }
        let optional = self.header + 24;
        let field = |at| u32_at(self.bytes, optional + at).ok_or_else(|| odd("its header is cut off"));
        let (section_alignment, file_alignment) = (field(32)?, field(36)?);
        if !(file_alignment.is_power_of_two()
            && section_alignment.is_power_of_two()
            && file_alignment <= 1 << 16)
        {
            return Err(odd("its alignment is odd"));
        }
        // Sections that share bytes would make much out of a small file.
        let raw: usize = self.sections.iter().map(|section| section.raw.len()).fold(0, usize::saturating_add);
        if raw > self.bytes.len() {
            return Err(odd("its sections overlap"));
        }
        let large = || odd("it would be larger than 2 GiB");
        let mut sections: Vec<(Section, Vec<u8>, &[u8])> = Vec::new();
        for (index, section) in self.sections.iter().enumerate() {
            let at = self.table + index * SECTION_BYTES;
            let header = self.bytes.get(at..at + SECTION_BYTES).unwrap_or_default().to_vec();
            let old = self.bytes.get(section.raw.clone()).unwrap_or_default();
            sections.push((section.clone(), header, old));
        }
        for (name, content) in new {
            let length =
                u32::try_from(content.len()).ok().filter(|length| *length < 1 << 31).ok_or_else(large)?;
            let mut named =
                (0..sections.len()).filter(|at| sections.get(*at).is_some_and(|s| s.0.name == *name));
            let (Some(at), None) = (named.next(), named.next()) else {
                return Err(odd(&format!("it has no section {name}, or several")));
            };
            let (mut section, header, _) = sections.remove(at);
            let next =
                sections.iter().map(|other| other.0.address).filter(|next| *next > section.address).min();
            let end = sections.iter().map(|other| other.0.address.saturating_add(other.0.virtual_size)).max();
            let fits = next.is_none_or(|next| length <= next - section.address);
            if !fits {
                section.address = align(end.unwrap_or(0), section_alignment.max(4096)).ok_or_else(large)?;
            }
            section.virtual_size = length;
            // Sections stand in the table by address.
            sections.insert(if fits { at } else { sections.len() }, (section, header, content));
        }
        let head = self.table + self.sections.len() * SECTION_BYTES;
        let used = self.sections.iter().filter(|section| !section.raw.is_empty());
        let first = used.map(|section| section.raw.start).min().unwrap_or(head);
        let mut out = self.bytes.get(..first.max(head)).unwrap_or_default().to_vec();
        let mut image_size = 0u32;
        let mut by_offset: Vec<usize> = (0..sections.len()).collect();
        by_offset.sort_by_key(|at| sections.get(*at).map(|s| s.0.raw.start));
        for at in by_offset {
            let Some((section, header, content)) = sections.get_mut(at) else { continue };
            pad(&mut out, file_alignment)?;
            let offset =
                if content.is_empty() { 0 } else { u32::try_from(out.len()).map_err(|_| large())? };
            out.extend_from_slice(content);
            pad(&mut out, file_alignment)?;
            let raw_size = match content.is_empty() {
                true => 0,
                false => u32::try_from(out.len()).map_err(|_| large())?.saturating_sub(offset),
            };
            put(header, 8, section.virtual_size);
            put(header, 12, section.address);
            put(header, 16, raw_size);
            put(header, 20, offset);
            image_size = image_size.max(section.address.checked_add(section.virtual_size).ok_or_else(large)?);
        }
        for (index, (_, header, _)) in sections.iter().enumerate() {
            let at = self.table + index * SECTION_BYTES;
            if let Some(place) = out.get_mut(at..at + SECTION_BYTES) {
                place.copy_from_slice(header);
            }
        }
        let image_size = align(image_size, section_alignment).ok_or_else(large)?;
        // Symbols lay behind the sections and are gone; nobody reads the checksum of a boot program.
        for (at, value) in
            [(self.header + 12, 0), (self.header + 16, 0), (optional + 56, image_size), (optional + 64, 0)]
        {
            put(&mut out, at, value);
        }
        Ok(out)
    }
}

fn align(value: u32, to: u32) -> Option<u32> {
    value.checked_next_multiple_of(to.max(1))
}

fn pad(out: &mut Vec<u8>, to: u32) -> Result<()> {
    let length = out.len().checked_next_multiple_of(size(to).max(1));
    out.resize(length.ok_or_else(|| Error::unsupported("the EFI program would be too large"))?, 0);
    Ok(())
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{Tool, tool};
    use proptest::prelude::*;

    const ALIGNMENT: usize = 512;

    /// A 64-bit program with these sections, each at an address of its own; signed by nobody with eight bytes, if wanted.
    pub fn program(sections: &[(&str, &[u8])], is_signed: bool) -> Vec<u8> {
        let mut out = vec![0; 0x40 + 24 + 240 + sections.len() * SECTION_BYTES];
        out[..2].copy_from_slice(b"MZ");
        put(&mut out, 0x3c, 0x40);
        out[0x40..0x44].copy_from_slice(b"PE\0\0");
        out[0x44..0x46].copy_from_slice(&0x8664u16.to_le_bytes());
        out[0x46..0x48].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_le_bytes());
        out[0x54..0x56].copy_from_slice(&240u16.to_le_bytes());
        out[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
        put(&mut out, 0x58 + 32, 4096);
        put(&mut out, 0x58 + 36, 512);
        put(&mut out, 0x58 + 108, 16);
        let mut address = 0x1000;
        for (index, (name, content)) in sections.iter().enumerate() {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            let at = 0x40 + 24 + 240 + index * SECTION_BYTES;
            out[at..at + name.len()].copy_from_slice(name.as_bytes());
            let length = u32::try_from(content.len()).unwrap();
            let offset = u32::try_from(out.len()).unwrap();
            for (field, value) in
                [(8, length), (12, address), (16, length.next_multiple_of(512)), (20, offset)]
            {
                put(&mut out, at + field, value);
            }
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            address += (length + 1).next_multiple_of(4096);
        }
        put(&mut out, 0x58 + 56, address);
        if is_signed {
            let offset = u32::try_from(out.len()).unwrap();
            put(&mut out, 0x58 + 112 + 32, offset);
            put(&mut out, 0x58 + 112 + 36, 8);
            out.extend_from_slice(&[8, 0, 0, 0, 0, 2, 2, 0]);
        }
        out
    }

    #[test]
    fn sections_are_replaced_and_the_others_stay() {
        let old = program(&[(".text", b"code"), (".initrd", b"old"), (".linux", &[7; 9000])], false);
        let pe = Pe::parse(&old).unwrap();
        assert!(!pe.is_signed());
        assert_eq!(pe.section(".initrd").unwrap(), b"old");
        let large = vec![9; 20_000];
        for new in [&b"new"[..], b"", &[1; 4000], &large] {
            let out = pe.with_sections(&[(".initrd", new)]).unwrap();
            let read = Pe::parse(&out).unwrap();
            assert_eq!(read.section(".initrd").unwrap(), new);
            assert_eq!(read.section(".text").unwrap(), b"code");
            assert_eq!(read.section(".linux").unwrap(), &[7; 9000]);
            // Addresses ascend, no section overlaps the next, and all lie within the image.
            let mut end = 0;
            for section in &read.sections {
                assert!(section.address >= end, "{:?}", read.sections);
                end = section.address + section.virtual_size;
            }
            assert!(u32_at(&out, 0x58 + 56).unwrap() >= end);
            // What is written again is the same.
            assert_eq!(read.with_sections(&[(".initrd", new)]).unwrap(), out);
        }
        let out = pe.with_sections(&[(".initrd", &large)]).unwrap();
        assert!(out.len() < 20_000 + 9_000 + 4 * 1024, "the old content is gone");
    }

    #[test]
    fn signed_and_odd_programs_are_not_rewritten() {
        let signed = program(&[(".initrd", b"x")], true);
        let pe = Pe::parse(&signed).unwrap();
        assert!(pe.is_signed() && pe.with_sections(&[(".initrd", b"y")]).is_err());
        let mut shared =
            program(&[(".initrd", &[1; 512]), (".a", &[2; 512]), (".b", &[3; 512]), (".c", b"")], false);
        for section in 0..4 {
            put(&mut shared, 0x40 + 24 + 240 + section * SECTION_BYTES + 16, 1024);
            put(&mut shared, 0x40 + 24 + 240 + section * SECTION_BYTES + 20, 1024);
        }
        assert!(Pe::parse(&shared).unwrap().with_sections(&[(".initrd", b"y")]).is_err());
        let twice = program(&[(".initrd", b"x"), (".initrd", b"y")], false);
        let pe = Pe::parse(&twice).unwrap();
        assert!(pe.section(".initrd").is_none() && pe.with_sections(&[(".initrd", b"z")]).is_err());
    }

    /// An image made as systemd's and Arch's tools did: objcopy puts sections into the stub.
    #[test]
    fn images_of_objcopy_are_read_and_what_is_written_objcopy_reads() {
        let root = crate::testing::loaders();
        let stub = root.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub");
        if tool("objcopy").is_none() || !stub.exists() {
            eprintln!("SKIPPED: systemd's EFI stub is not at {}", stub.display());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (kernel, archive) = (vec![3; 100_000], vec![5; 70_000]);
        std::fs::write(at("linux"), &kernel).unwrap();
        std::fs::write(at("initrd"), &archive).unwrap();
        std::fs::write(at("cmdline"), "root=/dev/sda2 ro").unwrap();
        let shown = |name: &str| at(name).display().to_string();
        Tool::line(&format!(
            "objcopy --add-section .cmdline={} --change-section-vma .cmdline=0x30000 --add-section .linux={} \
             --change-section-vma .linux=0x2000000 --add-section .initrd={} --change-section-vma .initrd=0x3000000 {} {}",
            shown("cmdline"),
            shown("linux"),
            shown("initrd"),
            stub.display(),
            shown("uki.efi")
        ))
        .run();
        let image = std::fs::read(at("uki.efi")).unwrap();
        let pe = Pe::parse(&image).unwrap();
        assert_eq!(pe.section(".linux").unwrap(), kernel);
        let (new, line) = (vec![6; 400_000], vec![b'x'; 5000]);
        let out = pe.with_sections(&[(".initrd", &new), (".cmdline", &line)]).unwrap();
        std::fs::write(at("new.efi"), &out).unwrap();
        for (section, content) in [(".initrd", &new), (".cmdline", &line), (".linux", &kernel)] {
            Tool::line(&format!(
                "objcopy -O binary --only-section={section} --set-section-flags {section}=alloc,load,contents {} {}",
                shown("new.efi"),
                shown("out")
            ))
            .run();
            assert_eq!(std::fs::read(at("out")).unwrap()[..content.len()], content[..], "{section}");
        }
    }

    #[test]
    fn signatures_of_real_programs() {
        let root = crate::testing::loaders();
        for (path, is_signed) in [
            ("usr/lib/shim/shimx64.efi.signed", true),
            ("usr/lib/shim/shimx64.efi", false),
            ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", true),
            ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", false),
        ] {
            match std::fs::read(root.join(path)) {
                Ok(bytes) => assert_eq!(Pe::parse(&bytes).unwrap().is_signed(), is_signed, "{path}"),
                Err(_) => eprintln!("SKIPPED: there is no {}", root.join(path).display()),
            }
        }
    }

    proptest! {
        #[test]
        fn no_program_panics(
            spots in prop::collection::vec((0usize..800, any::<u8>()), 0..6),
            length in 0usize..2600,
            new in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = program(&[(".text", b"code"), (".initrd", b"old"), (".linux", b"kernel")], false);
            for (at, byte) in spots {
                bytes[at] = byte;
            }
            bytes.truncate(length);
            if let Some(pe) = Pe::parse(&bytes) {
                let _ = (pe.is_signed(), pe.section(".initrd"));
                if let Ok(out) = pe.with_sections(&[(".initrd", &new)]) {
                    prop_assert!(out.len() < 1 << 24);
                }
            }
        }
    }
}
