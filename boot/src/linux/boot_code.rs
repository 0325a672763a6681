//! What a BIOS would start from a disk: the code in its first sector, told by its bytes.
//!
//! ```text
//! 0x03e  GRUB legacy: version 3.2, +6 sector of stage 2     0x05c  GRUB 2: u64 sector of core.img
//! 0x006  "LILO"                                             0x1be  partitions: flag 0x80 is active, +8 first sector
//! ```
//! GRUB's core image is read on: it has the place of GRUB's files built in. Deliberately absent: disks whose sectors are
//! not 512 bytes long, which no BIOS starts.

use super::grub_image::{self, Built};
use crate::Result;
use landfall_image::{Disk, GuestOffset};

const SECTOR: usize = 512;

/// GRUB's core image is looked for in so much: it fits between the first sector and the first partition, or into a BIOS
/// boot partition of a MiB.
const CORE_AT_MOST: usize = 512 << 10;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootCode {
    /// Nothing that could start: no code, or code that starts the active partition where none is active.
    None,
    /// GRUB 2, and what its core has built in, where that could be read.
    Grub(Option<Built>),
    /// Another loader of Linux: `GRUB legacy`, `LILO`, `syslinux`.
    Linux(&'static str),
    /// Something else.
    Other,
}

/// Looks at the start of a disk.
///
/// # Errors
/// Where the disk cannot be read.
pub fn read(disk: &dyn Disk) -> Result<BootCode> {
    let Some(first) = sector(disk, 0)? else { return Ok(BootCode::None) };
    let code = first.get(..440).unwrap_or_default();
    if !first.ends_with(&[0x55, 0xaa]) || code.iter().all(|byte| *byte == 0) {
        return Ok(BootCode::None);
    }
    if code.get(6..10) == Some(b"LILO") {
        return Ok(BootCode::Linux("LILO"));
    }
    if has(code, b"GRUB ") {
        if code.get(0x3e..0x40) == Some(&[3, 2]) {
            return Ok(BootCode::Linux("GRUB legacy"));
        }
        return Ok(BootCode::Grub(core(disk, &first)?));
    }
    // Code of a partition tool, of Windows or of syslinux: it starts the active partition.
    let starts_active =
        [&b"perating system"[..], b"nvalid partition table"].iter().any(|text| has(code, text));
    let is_gpt = (0..4).any(|slot| first.get(0x1be + slot * 16 + 4) == Some(&0xee));
    if !starts_active || is_gpt {
        return Ok(BootCode::Other);
    }
    let active = (0..4usize).map(|slot| 0x1be + slot * 16).find(|at| first.get(*at) == Some(&0x80));
    let Some(start) = active.and_then(|at| first.get(at + 8..at + 12)) else { return Ok(BootCode::None) };
    let start = u32::from_le_bytes(start.try_into().unwrap_or_default());
    let Some(partition) = sector(disk, u64::from(start))? else { return Ok(BootCode::None) };
    Ok(match () {
        () if has(&partition, b"SYSLINUX") || has(&partition, b"EXTLINUX") => BootCode::Linux("syslinux"),
        () if has(&partition, b"GRUB ") => BootCode::Linux("GRUB in a partition"),
        () if partition.get(6..10) == Some(b"LILO") => BootCode::Linux("LILO"),
        () => BootCode::Other,
    })
}

impl BootCode {
    /// True for a loader of Linux.
    pub fn is_linux(&self) -> bool {
        matches!(self, BootCode::Grub(_) | BootCode::Linux(_))
    }
}

fn has(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// One sector; `None` where the disk ends before.
fn sector(disk: &dyn Disk, number: u64) -> Result<Option<Vec<u8>>> {
    read_up_to(disk, number, SECTOR).map(|bytes| bytes.filter(|bytes| bytes.len() == SECTOR))
}

fn read_up_to(disk: &dyn Disk, sector: u64, length: usize) -> Result<Option<Vec<u8>>> {
    let Some(at) = sector.checked_mul(SECTOR as u64).filter(|at| *at < disk.size().0) else {
        return Ok(None);
    };
    let left = usize::try_from(disk.size().0 - at).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(left)];
    disk.read_at(GuestOffset(at), &mut bytes)?;
    Ok(Some(bytes))
}

fn core(disk: &dyn Disk, first: &[u8]) -> Result<Option<Built>> {
    let Some(at) = first.get(0x5c..0x64) else { return Ok(None) };
    let at = u64::from_le_bytes(at.try_into().unwrap_or_default());
    let Some(image) = read_up_to(disk, at, CORE_AT_MOST)? else { return Ok(None) };
    Ok(grub_image::core(&image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    /// A disk with the text at a place of its first sector, and one active partition at sector 2 if wanted.
    fn disk(at: usize, text: &[u8], active: bool, partition: &[u8]) -> BootCode {
        let mut bytes = vec![0; 4 * SECTOR];
        bytes[at..at + text.len()].copy_from_slice(text);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x1be + 8] = 2;
        bytes[0x1be] = if active { 0x80 } else { 0 };
        bytes[2 * SECTOR..2 * SECTOR + partition.len()].copy_from_slice(partition);
        read(&Memory::new(bytes)).unwrap()
    }

    #[test]
    fn loaders_are_told_apart() {
        assert_eq!(disk(0, b"", true, b""), BootCode::None);
        assert_eq!(disk(6, b"LILO", false, b""), BootCode::Linux("LILO"));
        assert_eq!(disk(0x180, b"GRUB \0Geom", false, b""), BootCode::Grub(None));
        assert_eq!(disk(0x100, b"\xebMissing operating system", false, b""), BootCode::None);
        assert_eq!(
            disk(0x100, b"\xebMissing operating system", true, b"\xeb\x58\x90SYSLINUX"),
            BootCode::Linux("syslinux")
        );
        assert_eq!(disk(0x100, b"Invalid partition table", true, b"\xeb\x52\x90NTFS"), BootCode::Other);
        assert_eq!(disk(0, b"\xeb\x3c", false, b""), BootCode::Other);
        assert_eq!(read(&Memory::new(vec![1; 100])).unwrap(), BootCode::None);
        let mut legacy = vec![0; 1024];
        legacy[0x3e..0x40].copy_from_slice(&[3, 2]);
        legacy[0x180..0x185].copy_from_slice(b"GRUB ");
        legacy[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(read(&Memory::new(legacy)).unwrap(), BootCode::Linux("GRUB legacy"));
    }

    #[test]
    fn a_core_sector_beyond_the_disk_is_no_core() {
        let mut bytes = vec![0; 1024];
        bytes[0x180..0x185].copy_from_slice(b"GRUB ");
        bytes[0x5c..0x64].fill(0xff);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(read(&Memory::new(bytes)).unwrap(), BootCode::Grub(None));
    }

    /// What GRUB's and syslinux's own packages put on a disk.
    #[test]
    fn code_of_the_loaders_own_packages() {
        let root = crate::testing::loaders();
        let file = |path: &str| std::fs::read(root.join(path)).ok();
        let grub = root.join("usr/lib/grub/i386-pc");
        match (file("usr/lib/grub/i386-pc/boot.img"), crate::testing::tool("grub-mkimage")) {
            (Some(boot), Some(_)) => {
                let folder = tempfile::tempdir().unwrap();
                let core = folder.path().join("core.img");
                crate::testing::Tool::line(&format!(
                    "grub-mkimage -d {} -O i386-pc -p (hd1,msdos1)/boot/grub -o {} biosdisk part_msdos ext2",
                    grub.display(),
                    core.display()
                ))
                .run();
                let mut bytes = [boot, std::fs::read(core).unwrap()].concat();
                bytes.resize(1 << 20, 0);
                let built = Built { prefix: Some("(hd1,msdos1)/boot/grub".into()), config: None };
                assert_eq!(read(&Memory::new(bytes)).unwrap(), BootCode::Grub(Some(built)));
            }
            _ => eprintln!("SKIPPED: GRUB for BIOS is not installed"),
        }
        match file("usr/lib/EXTLINUX/mbr.bin").or_else(|| file("usr/lib/syslinux/mbr/mbr.bin")) {
            Some(code) => {
                assert_eq!(disk(0, &code, false, b""), BootCode::None);
                assert_eq!(disk(0, &code, true, b"\xeb\x58\x90EXTLINUX"), BootCode::Linux("syslinux"));
            }
            None => eprintln!("SKIPPED: syslinux's boot code is not installed"),
        }
    }
}
