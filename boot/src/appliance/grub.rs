//! GRUB for machines with BIOS firmware: the image that lies in the BIOS boot partition, made of the distribution's own parts.
//!
//! Source: GRUB's sources, `include/grub/kernel.h` (module list), `include/grub/offsets.h`, `grub-core/boot/i386/pc/boot.S` and
//! `diskboot.S`, as facts; checked against what `grub-mkimage` writes.
//!
//! ```text
//! first sector of the disk:  boot.img, 440 bytes of it          0x5c: sector of the core (u64)
//! core.img:  diskboot.img, 512 bytes                            0x1f4: next sector (u64), 0x1fc: count (u16), 0x1fe: segment
//!            lzma_decompress.img                                0x08: bytes compressed, 0x0c: bytes unpacked (u32)
//!            LZMA of: kernel.img's loaded bytes, module list
//! module list:  "mimg", 12, bytes of all (u32);  [kind u32, bytes with this header u32, content, filled up to 4] …
//!               kind 0: a module file, 3: the folder of the configuration
//! from a CD: cdboot.img (2048) before all that; it loads the rest by itself, and runs it from behind diskboot.img
//! ```
//! Deliberately absent: the Reed-Solomon code that `grub-bios-setup` may add, and GRUB for UEFI, which is taken as the distribution
//! signed it.

use crate::{Error, Result};
use object::read::elf::{FileHeader, ProgramHeader};
use std::io::Read;

const SECTOR: usize = 512;

/// Boot code before the disk's signature and the partition table.
pub const BOOT_CODE: usize = 440;

/// What GRUB's package has for BIOS firmware: file name to content.
pub type Parts<'a> = dyn Fn(&str) -> Option<&'a [u8]> + 'a;

/// The modules that the appliance's menu needs; what they need themselves is added.
const MODULES: [&str; 14] = [
    "biosdisk",
    "part_gpt",
    "fat",
    "iso9660",
    "normal",
    "linux",
    "configfile",
    "regexp",
    "echo",
    "test",
    "loadenv",
    "sleep",
    "minicmd",
    "reboot",
];

/// How the firmware comes to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A disk: the core lies from this sector of 512 bytes on.
    Disk {
        /// The core's first sector.
        sector: u64,
    },
    /// A CD, by El Torito without emulation.
    Cd,
}

/// The image that GRUB starts as; `prefix` is where its configuration lies: `(,gpt2)/grub`.
///
/// # Errors
/// `Unsupported` where a part is not there or not as it is expected.
pub fn core(parts: &Parts<'_>, from: From, prefix: &str) -> Result<Vec<u8>> {
    let payload = payload(parts, prefix)?;
    let packed = lzma(&payload)?;
    let mut core = part(parts, "lzma_decompress.img")?.to_vec();
    put(&mut core, 0x08, &len32(packed.len())?.to_le_bytes())?;
    put(&mut core, 0x0c, &len32(payload.len())?.to_le_bytes())?;
    core.extend(packed);
    let mut diskboot = part(parts, "diskboot.img")?.to_vec();
    let sectors = u16::try_from(core.len().div_ceil(SECTOR)).map_err(|_| {
        Error::unsupported(format!(
            "GRUB's core has {} bytes: more than one list of sectors names",
            core.len()
        ))
    })?;
    put(&mut diskboot, 0x1fc, &sectors.to_le_bytes())?;
    let mut first = match from {
        From::Cd => part(parts, "cdboot.img")?.to_vec(),
        From::Disk { sector } => {
            put(&mut diskboot, 0x1f4, &(sector + 1).to_le_bytes())?;
            Vec::new()
        }
    };
    first.extend(diskboot);
    first.extend(core);
    let whole = first.len().next_multiple_of(SECTOR);
    first.resize(whole, 0);
    Ok(first)
}

/// The boot code of the disk's first sector; the core lies from `sector` on.
///
/// # Errors
/// As [`core`].
pub fn boot_code(parts: &Parts<'_>, sector: u64) -> Result<Vec<u8>> {
    let mut code = part(parts, "boot.img")?.to_vec();
    put(&mut code, 0x5c, &sector.to_le_bytes())?;
    // The drive that the firmware names, and the check that it names one at all is switched on: some do not.
    put(&mut code, 0x64, &[0xff])?;
    put(&mut code, 0x66, &[0x90, 0x90])?;
    code.truncate(BOOT_CODE);
    Ok(code)
}

fn part<'a>(parts: &Parts<'a>, name: &str) -> Result<&'a [u8]> {
    parts(name).ok_or_else(|| Error::unsupported(format!("GRUB's package has no {name}")))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<()> {
    let place = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end));
    place
        .ok_or_else(|| Error::unsupported(format!("GRUB's image ends before its field at {at:#x}")))?
        .copy_from_slice(value);
    Ok(())
}

fn len32(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::unsupported(format!("GRUB's image has {len} bytes")))
}

/// The kernel as it is loaded, and the list of modules behind it.
fn payload(parts: &Parts<'_>, prefix: &str) -> Result<Vec<u8>> {
    let odd = || Error::unsupported("GRUB's kernel.img is not the ELF file that is expected");
    let elf = part(parts, "kernel.img")?;
    let header = object::elf::FileHeader32::<object::Endianness>::parse(elf).map_err(|_| odd())?;
    let endian = header.endian().map_err(|_| odd())?;
    let loaded: Vec<_> = header
        .program_headers(endian, elf)
        .map_err(|_| odd())?
        .iter()
        .filter(|segment| segment.p_type(endian) == object::elf::PT_LOAD)
        .collect();
    let [segment] = loaded[..] else { return Err(odd()) };
    let mut out = segment.data(endian, elf).map_err(|()| odd())?.to_vec();
    out.resize(out.len().next_multiple_of(4), 0);

    let mut list = Vec::new();
    for name in with_needs(parts)? {
        entry(&mut list, 0, part(parts, &format!("{name}.mod"))?)?;
    }
    entry(&mut list, 3, &[prefix.as_bytes(), &[0]].concat())?;
    out.extend(b"mimg");
    out.extend(12u32.to_le_bytes());
    out.extend(len32(list.len() + 12)?.to_le_bytes());
    out.extend(list);
    Ok(out)
}

fn entry(list: &mut Vec<u8>, kind: u32, content: &[u8]) -> Result<()> {
    let padded = content.len().next_multiple_of(4);
    list.extend(kind.to_le_bytes());
    list.extend(len32(padded + 8)?.to_le_bytes());
    list.extend(content);
    list.resize(list.len() + padded - content.len(), 0);
    Ok(())
}

/// The modules, each behind what it needs (`moddep.lst`: `name: need need`).
fn with_needs(parts: &Parts<'_>) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(part(parts, "moddep.lst")?).into_owned();
    let needs: std::collections::BTreeMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, needs)| (name.trim(), needs.split_ascii_whitespace().collect()))
        .collect();
    let mut ordered = Vec::new();
    let mut open: Vec<(&str, bool)> = MODULES.iter().rev().map(|name| (*name, false)).collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some((name, done)) = open.pop() {
        if done {
            ordered.push(name.to_owned());
        } else if seen.insert(name) {
            open.push((name, true));
            open.extend(needs.get(name).into_iter().flatten().rev().map(|need| (*need, false)));
        }
    }
    Ok(ordered)
}

/// LZMA without a header and without an end mark, as GRUB's small decoder has it: a dictionary of 64 KiB, lc 3, lp 0, pb 2.
fn lzma(bytes: &[u8]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::io("cannot compress GRUB's core", std::io::Error::other(e.to_string()))
    };
    let mut options = liblzma::stream::LzmaOptions::new_preset(9).map_err(|e| failed(&e))?;
    options.dict_size(1 << 16).literal_context_bits(3).literal_position_bits(0).position_bits(2);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma1(&options);
    let stream = liblzma::stream::Stream::new_raw_encoder(&filters).map_err(|e| failed(&e))?;
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new_stream(bytes, stream).read_to_end(&mut out).map_err(|e| failed(&e))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    /// `grub-mkimage` makes of the same parts the same, but for how the LZMA came out.
    #[test]
    fn grub_mkimage_agrees() {
        let folder = Path::new("/usr/lib/grub/i386-pc");
        if !folder.join("kernel.img").exists() || Command::new("grub-mkimage").arg("-V").output().is_err() {
            eprintln!("SKIPPED: grub_mkimage_agrees: no grub-mkimage or no grub-pc-bin here");
            return;
        }
        let files: std::collections::BTreeMap<String, Vec<u8>> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect();
        let parts = |name: &str| files.get(name).map(Vec::as_slice);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("core.img");
        let made = Command::new("grub-mkimage")
            .args(["-O", "i386-pc", "-p", "(,gpt2)/grub", "-o"])
            .arg(&out)
            .arg("-d")
            .arg(folder)
            .args(MODULES)
            .status()
            .unwrap();
        assert!(made.success());
        let theirs = std::fs::read(out).unwrap();
        let ours = core(&parts, From::Disk { sector: 2048 }, "(,gpt2)/grub").unwrap();
        let (ours_open, theirs_open) = (opened(&ours, 512, &files), opened(&theirs, 512, &files));
        let ((kernel, mut list), (their_kernel, mut their_list)) =
            (entries(&ours_open), entries(&theirs_open));
        assert_eq!(kernel, their_kernel);
        // Of the orders in which each module is behind its needs, ours is another one than theirs.
        assert_eq!(list.last(), their_list.last());
        for (at, name) in with_needs(&parts).unwrap().iter().enumerate() {
            assert!(list[at].1.starts_with(&files[&format!("{name}.mod")]), "{name}");
        }
        list.sort();
        their_list.sort();
        assert!(list == their_list, "the modules differ");
        // Without the two fields that the installer fills in.
        assert_eq!(&ours[..0x1f4], &theirs[..0x1f4]);
        assert_eq!(ours[0x1f4..0x1fc], 2049u64.to_le_bytes());
        assert_eq!(&ours[0x1fe..0x200], &theirs[0x1fe..0x200]);
        let cd = core(&parts, From::Cd, "/grub").unwrap();
        assert!(cd.starts_with(&files["cdboot.img"]) && opened(&cd, 2560, &files).ends_with(b"/grub\0\0\0"));
        let made = Command::new("grub-mkimage")
            .args(["-O", "i386-pc-eltorito", "-p", "/grub", "-o"])
            .arg(dir.path().join("cd.img"))
            .arg("-d")
            .arg(folder)
            .args(MODULES)
            .status();
        assert!(made.unwrap().success());
        let theirs = std::fs::read(dir.path().join("cd.img")).unwrap();
        // But for the number of sectors: the LZMA came out otherwise.
        assert!(
            cd[..2048 + 0x1fc] == theirs[..2048 + 0x1fc]
                && cd[2048 + 0x1fe..2560] == theirs[2048 + 0x1fe..2560]
        );
    }

    /// The kernel up to the list with its length, and what is in the list.
    fn entries(open: &[u8]) -> (&[u8], Vec<(u32, &[u8])>) {
        let number = |at: usize| u32::from_le_bytes(open[at..at + 4].try_into().unwrap());
        let head = (0x7000..).step_by(4).find(|at| open[*at..].starts_with(b"mimg")).unwrap();
        let (mut at, mut list) = (head + 12, Vec::new());
        while at < open.len() {
            let next = at + number(at + 4) as usize;
            list.push((number(at), &open[at + 8..next]));
            at = next;
        }
        assert_eq!(at, open.len());
        (&open[..head + 12], list)
    }

    /// Unpacks the core, as its decompressor would.
    fn opened(core: &[u8], first: usize, files: &std::collections::BTreeMap<String, Vec<u8>>) -> Vec<u8> {
        let number =
            |at: usize| u32::from_le_bytes(core[first + at..first + at + 4].try_into().unwrap()) as usize;
        let start = first + files["lzma_decompress.img"].len();
        let mut options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
        options.dict_size(1 << 16);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma1(&options);
        let mut stream = liblzma::stream::Stream::new_raw_decoder(&filters).unwrap();
        let mut out = Vec::with_capacity(number(0x0c));
        stream
            .process_vec(&core[start..start + number(0x08)], &mut out, liblzma::stream::Action::Run)
            .unwrap();
        assert_eq!(out.len(), number(0x0c));
        out
    }

    #[test]
    fn what_a_package_lacks_is_named() {
        let error = core(&|_: &str| None, From::Cd, "/grub").unwrap_err();
        assert!(error.says().contains("GRUB's package has no"), "{error}");
        assert!(boot_code(&|_: &str| Some(&[0u8; 8][..]), 1).is_err());
    }
}
