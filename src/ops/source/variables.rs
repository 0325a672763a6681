//! The UEFI variables of a machine, where its definition or the user names their file and a target's firmware could read it.
//!
//! Two formats are known by their looks: the firmware volume of EDK II (OVMF; QEMU, libvirt, Proxmox VE, VirtualBox), after the UEFI
//! Platform Initialization specification 1.8, volume 3, section 3.2.1; and VMware's. What is in them is not looked at: they go to a
//! firmware of the same format as they are. Deliberately absent: translating one format into the other.

use super::place::Origin;
use crate::hypervisor::{Variables, VariablesFormat};
use crate::machine::{Backing, Bus, DiskSlot, Machine};
use landfall_boot::target::Firmware;
use landfall_image::{Disk, Error, FileOffset, GuestOffset, Kind, Result, Source};
use std::path::Path;

/// OVMF's are half a MiB, VMware's less; Proxmox VE's lie on volumes of 4 MiB.
const AT_MOST: u64 = 16 << 20;

/// `EFI_SYSTEM_NV_DATA_FV_GUID`, as it lies in the header.
const NV_DATA: [u8; 16] =
    [0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50];
const FV_SIGNATURE: &[u8] = b"_FVH";
const VMWARE_SIGNATURE: &[u8] = b"MRVN";

/// The variables of a machine with UEFI: from the file that the user names, else from the one that the definition names, if it lies
/// here.
///
/// # Errors
/// Where the user's file cannot be read or is none of variables.
pub(super) fn find(from: &Origin<'_>, machine: &Machine, named: Option<&Path>) -> Result<Option<Variables>> {
    if let Some(file) = named {
        check_firmware(machine, file)?;
        return read(from, "", Some(file)).map(Some);
    }
    let Some(file) = machine.nvram.as_deref().filter(|_| machine.firmware == Firmware::Uefi) else {
        return Ok(None);
    };
    match read(from, file, None) {
        Ok(variables) => Ok(Some(variables)),
        Err(error) if error.kind() == Kind::Interrupted => Err(error),
        // That they stay at the source is told in any case.
        Err(error) => {
            tracing::info!(%error, "the UEFI variables are not read");
            Ok(None)
        }
    }
}

fn check_firmware(machine: &Machine, file: &Path) -> Result<()> {
    match machine.firmware {
        Firmware::Uefi => Ok(()),
        Firmware::Bios => Err(Error::refused("holds UEFI variables, and the machine starts by BIOS")
            .in_file(file)
            .hint("leave --nvram out")),
    }
}

/// The variables in a file that the user names, for a machine that lies in no file.
///
/// # Errors
/// As [`find`]'s.
pub(super) fn in_file(machine: &Machine, file: &Path) -> Result<Variables> {
    check_firmware(machine, file)?;
    let source = Source::open(file)?;
    let mut bytes = source.head(usize::try_from(source.len().0.min(AT_MOST)).unwrap_or_default())?;
    let format = recognise(&mut bytes).map_err(|error| error.in_file(file))?;
    Ok(Variables { format, bytes })
}

/// The variables that lie beside a machine that was converted.
pub fn beside(folder: &Path, name: &str) -> Result<Option<Variables>> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let source = Source::open(&path)?;
    let mut bytes = source.head(usize::try_from(source.len().0.min(AT_MOST)).unwrap_or_default())?;
    let format = recognise(&mut bytes).map_err(|error| error.in_file(&path))?;
    Ok(Some(Variables { format, bytes }))
}

fn read(from: &Origin<'_>, file: &str, named: Option<&Path>) -> Result<Variables> {
    let slot = DiskSlot::new("nvram", Bus::Scsi, file);
    // The source's host names it by a path or by a volume; its name alone is looked for, too.
    let image = from.open(&slot, named).or_else(|error| {
        from.open(&DiskSlot { backing: Backing::Volume, ..slot }, named).map_err(|_| error)
    })?;
    let path = image.layers.first().map(|layer| layer.path.clone()).unwrap_or_default();
    let size = image.disk.size().0;
    if size > AT_MOST {
        return Err(
            Error::refused(format!("has {size} bytes; UEFI variables have {AT_MOST} at most")).in_file(&path)
        );
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    image.disk.read_at(GuestOffset(0), &mut bytes)?;
    let format = recognise(&mut bytes).map_err(|error| error.in_file(&path))?;
    Ok(Variables { format, bytes })
}

/// What format they have; padding behind them is cut off.
pub(super) fn recognise(bytes: &mut Vec<u8>) -> Result<VariablesFormat> {
    if bytes.starts_with(VMWARE_SIGNATURE) {
        return Ok(VariablesFormat::Vmware);
    }
    let field = |at: usize, len: usize| bytes.get(at..at.saturating_add(len)).unwrap_or_default();
    if field(16, 16) != NV_DATA || field(40, 4) != FV_SIGNATURE {
        return Err(Error::unsupported("holds no UEFI variables in a format that is known here")
            .hint("name a file of OVMF (NAME_VARS.fd) or VMware (.nvram)"));
    }
    let number = |at, len| field(at, len).iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (length, header) = (number(32, 8), number(48, 2));
    let Some(length) = usize::try_from(length).ok().filter(|length| (64..=bytes.len()).contains(length))
    else {
        return Err(Error::corrupt(format!(
            "the volume of the UEFI variables is {length:#x} bytes long; the file has {:#x}",
            bytes.len()
        ))
        .at(FileOffset(32)));
    };
    let words = field(0, usize::try_from(header).unwrap_or(usize::MAX)).chunks_exact(2);
    let sum = words.clone().fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    if words.len() < 28 || sum != 0 {
        return Err(Error::corrupt(format!(
            "the header of the UEFI variables ({header:#x} bytes) adds up to {sum:#x}, not 0"
        ))
        .at(FileOffset(50)));
    }
    bytes.truncate(length);
    Ok(VariablesFormat::Edk2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume as OVMF begins one.
    fn volume(length: u64) -> Vec<u8> {
        let mut bytes = vec![0xff; usize::try_from(length).unwrap()];
        bytes[..16].fill(0);
        bytes[16..32].copy_from_slice(&NV_DATA);
        bytes[32..40].copy_from_slice(&length.to_le_bytes());
        bytes[40..44].copy_from_slice(FV_SIGNATURE);
        bytes[48..50].copy_from_slice(&72_u16.to_le_bytes());
        bytes[50..52].fill(0);
        let sum = bytes[..72]
            .chunks_exact(2)
            .fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
        bytes[50..52].copy_from_slice(&0_u16.wrapping_sub(sum).to_le_bytes());
        bytes
    }

    #[test]
    fn formats_are_told_apart() {
        assert_eq!(recognise(&mut b"MRVN and more".to_vec()).unwrap(), VariablesFormat::Vmware);
        let good = volume(0x84000);
        let mut padded = good.clone();
        padded.resize(4 << 20, 0);
        assert_eq!(recognise(&mut padded).unwrap(), VariablesFormat::Edk2);
        assert!(padded == good, "what a volume of the storage has behind them is none of them");
        for (at, value, kind) in [
            (16, 0, Kind::Unsupported),
            (40, b'-', Kind::Unsupported),
            (34, 9, Kind::Corrupt),
            (48, 70, Kind::Corrupt),
            (48, 8, Kind::Corrupt),
            (60, 1, Kind::Corrupt),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(recognise(&mut bad).unwrap_err().kind(), kind, "{at}");
        }
        for len in 0..100 {
            let _ = recognise(&mut good[..len].to_vec());
        }
    }

    /// The distribution's own file is such a volume.
    #[test]
    fn ovmfs_template_is_one() {
        let Ok(mut bytes) = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd") else {
            eprintln!("SKIPPED: /usr/share/OVMF/OVMF_VARS_4M.fd is not here (Debian: ovmf)");
            return;
        };
        let all = bytes.clone();
        assert_eq!(recognise(&mut bytes).unwrap(), VariablesFormat::Edk2);
        assert!(bytes == all);
    }
}
