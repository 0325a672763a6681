//! Which disk the firmware has to start. It is the first one nearly always; where it is another, the machine's definition
//! has to say so, because target firmware tries the first one only.
//!
//! By UEFI it is the disk with the EFI system partition that the guest mounts. Windows tells by BIOS, too: its boot manager lies
//! on a volume that is known. By BIOS it is told by the boot code on the
//! disks: the first one if it has any, else the only one that has a loader of Linux.

use super::windows::{BOOT_AT, ESP_AT, is_root};
use crate::Result;
use crate::check::Finding;
use crate::guest::{Guest, Mount};
use crate::linux::boot_code::{self, BootCode};
use crate::target::Firmware;
use crate::volume::Volume;
use landfall_image::DiskMut;
use std::sync::Arc;

/// The disk, where it is certain and not the first; and what there is to say.
pub(super) fn find(
    disks: &[Arc<dyn DiskMut>],
    volumes: &[Volume],
    mounts: &[Mount],
    guest: &Guest,
    firmware: Firmware,
) -> Result<(Option<usize>, Vec<Finding>)> {
    let disk_of = |at: &str| {
        let mount = mounts.iter().find(|mount| mount.at == at)?;
        volumes.iter().find(|volume| volume.id == mount.volume).map(|volume| volume.disk)
    };
    if is_root(mounts) {
        let (disk, why) = match firmware {
            Firmware::Uefi => (disk_of(ESP_AT), "has the EFI system partition of the guest"),
            Firmware::Bios => (disk_of(BOOT_AT).or_else(|| disk_of("/")), "has the boot manager of Windows"),
        };
        let disk = disk.filter(|disk| *disk > 0);
        return Ok((disk, disk.map(|disk| not_first(disk, why)).into_iter().collect()));
    }
    if firmware == Firmware::Uefi {
        let is_esp = |mount: &&Mount| {
            mount.file_system == "vfat" && ["/boot/efi", "/efi", "/boot"].contains(&mount.at.as_str())
        };
        let disk = mounts.iter().find(is_esp).and_then(|mount| disk_of(&mount.at));
        return Ok(match disk {
            Some(disk) if disk > 0 => {
                (Some(disk), vec![not_first(disk, "has the EFI system partition of the guest")])
            }
            _ => (None, Vec::new()),
        });
    }
    if !guest.boot_modes.iter().any(|mode| mode.value == "bios") {
        return Ok((None, Vec::new()));
    }
    let mut codes = Vec::new();
    for disk in disks {
        codes.push(boot_code::read(&**disk)?);
    }
    let with_loader: Vec<usize> =
        (0..codes.len()).filter(|at| codes.get(*at).is_some_and(BootCode::is_linux)).collect();
    let boot = disk_of("/boot").or_else(|| disk_of("/"));
    let first = codes.first().unwrap_or(&BootCode::None);
    let mut findings = Vec::new();
    let chosen = match (first, with_loader.as_slice()) {
        (first, _) if first.is_linux() => 0,
        (_, []) => {
            findings.push(Finding::new(
                "boot-disk-no-code",
                "No disk of the machine has the boot code of a Linux loader in its first sector.",
                "Install the loader in the guest (grub-install on the boot disk), or give the disk that is missing.",
            ));
            0
        }
        (BootCode::None, [only]) => {
            findings.push(not_first(*only, "is the only one with the boot code of a Linux loader"));
            *only
        }
        (_, several) => {
            let names: Vec<_> = several.iter().map(|disk| format!("disk{disk}")).collect();
            let likely = boot.filter(|disk| several.contains(disk)).or(several.first().copied()).unwrap_or(0);
            findings.push(Finding::new(
                "boot-disk-unclear",
                format!(
                    "The loader of Linux is on {}, and the first disk {}; disk{likely} is taken as the boot disk.",
                    names.join(" and "),
                    if *first == BootCode::None { "has none" } else { "starts something else" },
                ),
                "Compare the boot order of the source, and choose another boot disk on the target if it was another.",
            ));
            likely
        }
    };
    if let Some(BootCode::Grub(Some(built))) = codes.get(chosen) {
        findings.extend(by_order(chosen, built.prefix.as_deref().unwrap_or("")));
    }
    Ok(((chosen > 0).then_some(chosen), findings))
}

fn not_first(disk: usize, why: &str) -> Finding {
    Finding::new(
        "boot-disk-not-first",
        format!("disk{disk} {why}: it is the disk that the target has to start."),
        format!("Keep disk{disk} the boot disk where the machine's definition is made or changed by hand."),
    )
}

/// `(hd1,msdos1)/grub`: a disk by its number, and not the one that was started.
fn by_order(disk: usize, prefix: &str) -> Option<Finding> {
    let number = prefix.strip_prefix("(hd")?.split([',', ')']).next()?;
    (number != "0" && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| {
        Finding::new(
            "linux-grub-by-disk-order",
            format!("GRUB's core on disk{disk} finds its files at {prefix}, by the number of the disk."),
            "Keep the disks in the order of the source.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Fact;
    use crate::linux::test_volumes::{mount, volume};
    use crate::testing::Memory;

    fn guest(mode: &str) -> Guest {
        Guest {
            family: "debian".into(),
            distribution: Fact::new("debian", ""),
            version: Fact::new("", ""),
            name: Fact::new("", ""),
            architecture: Fact::new("x86_64", ""),
            host_name: None,
            kernels: Vec::new(),
            mounts: Vec::new(),
            init: None,
            boot_modes: vec![Fact::new(mode, "")],
            interfaces: Vec::new(),
            agents: Vec::new(),
            windows: None,
        }
    }

    fn disk(code: &[u8]) -> Arc<dyn DiskMut> {
        let mut bytes = vec![0; 2048];
        bytes[0x180..0x180 + code.len()].copy_from_slice(code);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        Arc::new(Memory::new(bytes))
    }

    fn look(codes: &[&[u8]], root_disk: usize) -> (Option<usize>, Vec<&'static str>) {
        let disks: Vec<_> = codes.iter().map(|code| disk(code)).collect();
        let volumes = [volume(root_disk, 1, "ext4", "r")];
        let mounts = [mount("/", &volumes[0], "UUID=r")];
        let (disk, findings) = find(&disks, &volumes, &mounts, &guest("bios"), Firmware::Bios).unwrap();
        (disk, findings.iter().map(|finding| finding.id).collect())
    }

    #[test]
    fn bios_goes_by_boot_code() {
        let (grub, none, other) = (&b"GRUB "[..], &b""[..], &b"\xeb\x3cother"[..]);
        assert_eq!(look(&[grub], 0), (None, vec![]));
        assert_eq!(look(&[grub, grub], 1), (None, vec![]));
        assert_eq!(look(&[none, grub], 1), (Some(1), vec!["boot-disk-not-first"]));
        assert_eq!(look(&[none, grub, grub], 2), (Some(2), vec!["boot-disk-unclear"]));
        assert_eq!(look(&[other, grub], 1), (Some(1), vec!["boot-disk-unclear"]));
        assert_eq!(look(&[none, none], 1), (None, vec!["boot-disk-no-code"]));
    }

    #[test]
    fn uefi_goes_by_the_mounted_partition() {
        let volumes = [volume(0, 1, "ext4", "r"), volume(1, 1, "vfat", "AB")];
        let mounts = [mount("/", &volumes[0], "UUID=r"), mount("/boot/efi", &volumes[1], "UUID=AB")];
        let (disk, findings) = find(&[], &volumes, &mounts, &guest("uefi"), Firmware::Uefi).unwrap();
        assert_eq!((disk, findings.len()), (Some(1), 1));
        let (disk, findings) = find(&[], &volumes, &mounts[..1], &guest("uefi"), Firmware::Uefi).unwrap();
        assert_eq!((disk, findings.len()), (None, 0));
    }

    #[test]
    fn a_core_that_goes_by_order_is_said() {
        assert!(by_order(0, "(hd1,msdos1)/boot/grub").is_some());
        for fine in
            ["(,msdos1)/boot/grub", "(hd0,gpt2)/grub", "(mduuid/ab)/grub", "(lvmid/a/b)/grub", "(hd", ""]
        {
            assert!(by_order(0, fine).is_none(), "{fine}");
        }
    }
}
