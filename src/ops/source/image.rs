//! A machine made of disk images alone: what is left where only the images were replicated. What a definition would say is
//! given by the user, found out from the first disk (how it starts), or chosen; every choice is told.
//!
//! ```text
//! GPT:  a BIOS boot partition, or one with the legacy attribute, and code in the first sector   BIOS
//! MBR:  code in the first sector                                                                BIOS
//! both: an EFI system partition whose FAT has a folder EFI                                      UEFI
//! ```
//! Source: UEFI specification 2.10, 5.2 and 5.3 (types of partitions) and 13.3 (file system); Microsoft, FAT32 File System
//! Specification. Deliberately absent: network cards that only the guest's configuration knows.

use super::{Beside, Read, Wanted};
use crate::finding;
use crate::hypervisor;
use crate::machine::{Bus, Cpus, DiskSlot, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::location::Location;
use landfall_image::partition::{self, Scheme, TypeId};
use landfall_image::{Bytes, Disk, Error, Format, GuestOffset, GuestRange, Result, Source, formats};
use std::io::ErrorKind;
use std::path::Path;

/// What a definition would say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Main memory.
    pub memory: Option<Bytes>,
    /// Processors.
    pub cpus: Option<u32>,
    /// How it starts.
    pub firmware: Option<Firmware>,
    /// The hardware address of each network card; `None` where the target chooses it.
    pub nics: Vec<Option<String>>,
}

impl Hardware {
    /// Refuses what no machine has: a unit was forgotten.
    fn check(&self) -> Result<()> {
        if let Some(memory) = self.memory.filter(|size| !(MEMORY_AT_LEAST..=MEMORY_AT_MOST).contains(size)) {
            return Err(Error::refused(format!(
                "would get {memory} of memory; {MEMORY_AT_LEAST} to {MEMORY_AT_MOST} are possible"
            ))
            .hint("write it with a unit: --memory 4G"));
        }
        if let Some(cpus) = self.cpus.filter(|cpus| !(1..=CPUS_AT_MOST).contains(cpus)) {
            return Err(Error::refused(format!(
                "would get {cpus} processors; 1 to {CPUS_AT_MOST} are possible"
            ))
            .hint("choose as many as the target's host has at most"));
        }
        Ok(())
    }
}

const MEMORY_AT_LEAST: Bytes = Bytes::mib(64);
const MEMORY_AT_MOST: Bytes = Bytes(128 << 40);
const CPUS_AT_MOST: u32 = 4096;

/// What is chosen where nobody says: enough for any server's system to start.
const MEMORY: Bytes = Bytes::gib(4);
const CPUS: u32 = 2;

/// The place of the image that is the source.
const FIRST: &str = "disk0";

const EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
/// The same of an MBR.
const EFI_SYSTEM_MBR: u8 = 0xef;

/// True where `path` is a disk image and no definition: by its ending, by what its bytes say, or by its partition table.
pub(super) fn is_one(path: &Path, ending: &str) -> Result<bool> {
    if hypervisor::endings().contains(&ending) {
        return Ok(false);
    }
    if matches!(Location::of(path)?, Location::Nbd(_)) || Format::from_ending(path).is_some() {
        return Ok(true);
    }
    let source = match Source::open(path) {
        // A disk in a package: file.ova/disk.vmdk.
        Err(error) if error.io_error().is_some_and(|error| error.kind() == ErrorKind::NotADirectory) => {
            return Ok(true);
        }
        opened => opened?,
    };
    if !path.is_file() {
        return Ok(true);
    }
    if source.len().0 <= super::DEFINITION_AT_MOST {
        let bytes = source.head(source.len().to_usize().unwrap_or(usize::MAX))?;
        if hypervisor::reader(ending, &bytes).is_some() {
            return Ok(false);
        }
    }
    match formats::probe(&source)? {
        Format::Raw => {
            let raw = formats::open(
                path,
                &landfall_image::OpenOptions { format: Some(Format::Raw), ..Default::default() },
            )?;
            Ok(partition::read(&*raw.disk).ok().flatten().is_some())
        }
        _ => Ok(true),
    }
}

/// What can be named as a source.
pub(super) fn kinds_hint() -> String {
    let images: Vec<&str> = formats::TABLE.iter().flat_map(|row| row.endings).copied().collect();
    format!(
        "name a definition (a file that ends in .{}), or a disk image (.{})",
        hypervisor::endings().join(", ."),
        images.join(", .")
    )
}

/// A machine without a name and a disk, as the user describes it.
pub(super) fn described(hardware: &Hardware) -> Result<Machine> {
    hardware.check()?;
    let mut machine = Machine::new("", hardware.memory.unwrap_or(MEMORY));
    machine.cpus = Cpus::new(hardware.cpus.unwrap_or(CPUS), 1, 1);
    for (number, mac) in hardware.nics.iter().enumerate() {
        machine.nics.push(NicSlot { mac: mac.clone(), ..NicSlot::new(format!("nic{number}")) });
    }
    Ok(machine)
}

/// A machine of the image at `path` and of those that the user names besides.
pub(super) fn read(path: &Path, wanted: &Wanted) -> Result<Read> {
    if wanted.choice.system.is_some() || wanted.choice.configuration.is_some() {
        return Err(Error::refused("is a disk image; there is no machine or configuration to choose from")
            .in_file(path)
            .hint("leave out --system and --configuration"));
    }
    if wanted.disks.iter().any(|(slot, _)| slot == FIRST) {
        return Err(Error::refused(format!("is {FIRST} itself, which --disk names once more"))
            .in_file(path)
            .hint("give the other disks other names: --disk disk1=FILE"));
    }
    let mut machine = described(&wanted.hardware).map_err(|e| e.in_file(path))?;
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    machine.disks.push(DiskSlot::new(FIRST, Bus::Scsi, name(path)));
    for (slot, file) in &wanted.disks {
        machine.disks.push(DiskSlot::new(slot, Bus::Scsi, name(file)));
    }
    Ok(Read {
        machine,
        findings: Vec::new(),
        archive: None,
        beside: Beside::Nothing,
        hypervisor: "image",
        bytes: Vec::new(),
    })
}

/// Finds out how the machine starts, and tells of everything that no definition says.
pub(super) fn settle(machine: &mut Machine, first: &dyn Disk, hardware: &Hardware) -> Vec<Finding> {
    let told = |says: String, remedy: &str| finding::NO_DEFINITION.finding(says, remedy);
    let mut out = vec![told(
        format!(
            "No definition says what the machine is. It gets {} processors and {} of memory, a new UUID, and no serial number.",
            machine.cpus.count, machine.memory
        ),
        match (hardware.memory, hardware.cpus) {
            (Some(_), Some(_)) => "",
            _ => "Give what the old machine had with --memory and --cpus.",
        },
    )];
    machine.firmware = match hardware.firmware {
        Some(firmware) => firmware,
        None => {
            let (firmware, says) = match starts(first) {
                (false, true) => (
                    Firmware::Uefi,
                    "It starts by UEFI: its first disk has an EFI system partition with loaders, and nothing that BIOS starts.",
                ),
                (true, false) => (
                    Firmware::Bios,
                    "It starts by BIOS: its first disk has boot code, and no loader for UEFI.",
                ),
                (true, true) => (
                    Firmware::Bios,
                    "Its first disk can be started by BIOS and by UEFI; BIOS is taken, and which of them the old machine had is not known.",
                ),
                (false, false) => (
                    Firmware::Bios,
                    "Its first disk has neither boot code for BIOS nor a loader for UEFI; BIOS is taken.",
                ),
            };
            let says = match firmware {
                Firmware::Uefi => format!("{says} Whether secure boot was on is not known; it is off."),
                Firmware::Bios => says.to_owned(),
            };
            out.push(told(says, "Choose with --firmware where it was otherwise."));
            firmware
        }
    };
    if machine.nics.is_empty() {
        out.push(told(
            "It has no network card: nothing says how many the old machine had, and which addresses.".to_owned(),
            "Add each with --nic and its old hardware address, by which the guest's configuration may go, or with --nic new.",
        ));
    }
    out
}

/// Whether BIOS and UEFI find something to start on the disk. What cannot be read starts nothing.
fn starts(disk: &dyn Disk) -> (bool, bool) {
    let mut sector = [0; 512];
    if disk.size().0 < 512 || disk.read_at(GuestOffset(0), &mut sector).is_err() {
        return (false, false);
    }
    let has_code = sector[..440].iter().any(|byte| *byte != 0) && sector[510..] == [0x55, 0xaa];
    let Some(table) = partition::read(disk).ok().flatten() else { return (has_code, false) };
    let is = |kind: TypeId, guid: &str| matches!(kind, TypeId::Gpt(id) if id.to_string() == guid);
    let bios = has_code
        && match table.scheme {
            Scheme::Mbr => true,
            Scheme::Gpt => table.entries.iter().any(|entry| entry.bootable || is(entry.kind, BIOS_BOOT)),
        };
    let uefi = table.entries.iter().any(|entry| {
        let is_system = is(entry.kind, EFI_SYSTEM) || entry.kind == TypeId::Mbr(EFI_SYSTEM_MBR);
        is_system && has_loaders(disk, entry.range).unwrap_or(false)
    });
    (bios, uefi)
}

/// Whether the FAT in `range` has a folder `EFI` in its root, as far as the root's first cluster goes.
fn has_loaders(disk: &dyn Disk, range: GuestRange) -> Option<bool> {
    const ROOT_AT_MOST: u64 = 64 << 10;
    let read = |at: u64, len: u64| {
        let end = at.checked_add(len).filter(|end| *end <= range.len().0)?;
        let mut bytes = vec![0; usize::try_from(end - at).ok()?];
        disk.read_at(GuestOffset(range.start().0 + at), &mut bytes).ok()?;
        Some(bytes)
    };
    let boot = read(0, 512)?;
    let byte = |at: usize| boot.get(at).copied().map(u64::from);
    let small = |at: usize| Some(byte(at)? | byte(at + 1)? << 8);
    let large = |at: usize| Some(small(at)? | small(at + 2)? << 16);
    let sector = small(11).filter(|size| (512..=4096).contains(size) && size.is_power_of_two())?;
    let cluster = byte(13).filter(|sectors| *sectors > 0)? * sector;
    let (tables, old_size) = (byte(16)?, small(22)?);
    let table = if old_size == 0 { large(36)? } else { old_size };
    let data = (small(14)? + tables * table) * sector;
    // FAT12 and FAT16 have the root before the clusters, FAT32 in them.
    let (at, len) = match old_size {
        0 => (data + large(44)?.checked_sub(2)? * cluster, cluster),
        _ => (data, small(17)? * 32),
    };
    let root = read(at, len.min(ROOT_AT_MOST))?;
    let is_folder = |entry: &[u8]| {
        entry.starts_with(b"EFI        ") && entry.get(11).is_some_and(|kind| kind & 0x10 != 0)
    };
    Some(root.chunks_exact(32).take_while(|entry| entry.first() != Some(&0)).any(is_folder))
}

#[cfg(test)]
mod tests {
    use super::super::tests::gpt;
    use super::*;
    use landfall_image::testing::MemDisk;
    use uuid::Uuid;

    fn kind(guid: &str) -> [u8; 16] {
        guid.parse::<Uuid>().unwrap().to_bytes_le()
    }

    /// The beginning of a FAT with these names in its root: FAT16, or FAT32.
    fn fat(is_32: bool, names: &[(&[u8; 11], u8)]) -> Vec<u8> {
        let mut bytes = vec![0; 40 * 512];
        bytes[11..13].copy_from_slice(&512_u16.to_le_bytes());
        bytes[13] = 2;
        bytes[14] = 4;
        bytes[16] = 2;
        let root = match is_32 {
            true => {
                bytes[36] = 3;
                bytes[44] = 5;
                4 + 2 * 3 + (5 - 2) * 2
            }
            false => {
                bytes[17] = 32;
                bytes[22] = 3;
                4 + 2 * 3
            }
        };
        for (number, (name, kind)) in names.iter().enumerate() {
            let at = root * 512 + number * 32;
            bytes[at..at + 11].copy_from_slice(*name);
            bytes[at + 11] = *kind;
        }
        bytes
    }

    const EFI: (&[u8; 11], u8) = (b"EFI        ", 0x10);

    /// A disk whose partition, at sector 100, begins so.
    fn disk(table: &[u8], partition: &[u8], has_code: bool) -> MemDisk {
        let mut bytes = table.to_vec();
        bytes[100 * 512..100 * 512 + partition.len()].copy_from_slice(partition);
        bytes[0] = if has_code { 0xfa } else { 0 };
        MemDisk::from_bytes(bytes)
    }

    #[test]
    fn the_first_disk_tells_how_it_starts() {
        let system = gpt(512, kind(EFI_SYSTEM));
        let mut mbr = vec![0; 512 * 1024];
        mbr[446..462].copy_from_slice(&[0, 0, 0, 0, EFI_SYSTEM_MBR, 0, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0]);
        mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
        let label = (b"SYSTEM     ", 0x08);
        let with = fat(true, &[label, EFI]);
        for (what, disk, expected) in [
            ("FAT32", disk(&system, &with, false), (false, true)),
            ("FAT16", disk(&system, &fat(false, &[EFI]), false), (false, true)),
            ("of an MBR", disk(&mbr, &with, false), (false, true)),
            ("of an MBR with code", disk(&mbr, &with, true), (true, true)),
            // What Windows leaves before a GPT starts nothing there.
            ("code before a GPT", disk(&system, &with, true), (false, true)),
            ("BIOS boot", disk(&gpt(512, kind(BIOS_BOOT)), &[], true), (true, false)),
            ("BIOS boot without code", disk(&gpt(512, kind(BIOS_BOOT)), &[], false), (false, false)),
            ("no loaders", disk(&system, &fat(true, &[label]), false), (false, false)),
            ("a file EFI", disk(&system, &fat(true, &[(b"EFI        ", 0x20)]), false), (false, false)),
            ("a deleted end", disk(&system, &fat(true, &[(&[0; 11], 0), EFI]), false), (false, false)),
            ("no FAT", disk(&system, &[0xff; 4096], false), (false, false)),
            ("nothing", MemDisk::from_bytes(vec![0; 4096]), (false, false)),
            ("less", MemDisk::from_bytes(vec![0; 100]), (false, false)),
        ] {
            assert_eq!(starts(&disk), expected, "{what}");
        }
    }

    /// Whatever a boot sector says, nothing is read outside of the partition, and nothing overflows.
    #[test]
    fn hostile_boot_sectors_are_read_in_bounds() {
        let system = gpt(512, kind(EFI_SYSTEM));
        for at in [11, 13, 14, 16, 17, 22, 36, 44] {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                for is_32 in [true, false] {
                    let mut sector = fat(is_32, &[EFI]);
                    sector[at..at + 4].fill(value);
                    starts(&disk(&system, &sector, false));
                }
            }
        }
    }

    #[test]
    fn firmware_is_taken_from_the_disk_and_told() {
        let system = gpt(512, kind(EFI_SYSTEM));
        let uefi = disk(&system, &fat(true, &[EFI]), false);
        let mut machine = Machine::new("a", MEMORY);
        let told = settle(&mut machine, &uefi, &Hardware::default());
        assert_eq!((machine.firmware, told.len()), (Firmware::Uefi, 3));
        assert!(told[1].says.contains("secure boot"), "{}", told[1].says);
        let given = Hardware {
            memory: Some(MEMORY),
            cpus: Some(1),
            firmware: Some(Firmware::Bios),
            nics: vec![None],
        };
        let mut machine = Machine { nics: vec![NicSlot::new("nic0")], ..Machine::new("a", MEMORY) };
        let told = settle(&mut machine, &uefi, &given);
        assert_eq!((machine.firmware, told.len()), (Firmware::Bios, 1));
    }
}
