//! A machine on a target's devices: which controller its disks hang on, what their places are called there, and which
//! network cards it has. What the guest's kernel can drive decides; the number of disks does, too.

use crate::machine::{Bus, DiskSlot, Machine};
use landfall_boot::target::{Devices, DiskModel, Firmware, NicModel, Platform};
use landfall_image::{Error, Result};
use std::cmp::Ordering;

/// The machine on the target's devices, of those that the guest can drive. Without any (nothing is known of the guest) on
/// those that the platform prefers.
pub fn adapt(machine: &Machine, platform: Platform, devices: &Devices) -> Result<Machine> {
    let row = platform.linux_drivers();
    let offered: Vec<DiskModel> = match devices.disks.is_empty() {
        true => row.disks_for(machine.firmware).map(|way| way.model).collect(),
        false => devices.disks.clone(),
    };
    let count = machine.disks.len();
    let disk = offered.iter().copied().find(|model| count <= at_most(platform, *model)).ok_or_else(|| {
        let room: Vec<_> =
            offered.iter().map(|model| format!("{} on {}", at_most(platform, *model), model.name())).collect();
        Error::unsupported(format!("has {count} disks, and the target has room for {}", room.join(" or ")))
            .hint(
                "leave disks with data only out with --skip-disk SLOT and attach them another way, put several together in the \
                 guest, or install a kernel that drives other controllers",
            )
    })?;
    let card = devices.cards.first().copied();
    let card = card.or(row.cards_for(machine.firmware).next().map(|card| card.model));
    Ok(on(machine, platform, disk, card.unwrap_or(NicModel::E1000)))
}

/// The machine on these devices, its places called as `platform` calls them.
pub fn on(machine: &Machine, platform: Platform, disk: DiskModel, card: NicModel) -> Machine {
    let mut machine = machine.clone();
    let firmware = machine.firmware;
    let first = if starts_from_first_place(platform, firmware) { machine.boot_disk() } else { 0 };
    for (index, slot) in machine.disks.iter_mut().enumerate() {
        *slot = DiskSlot {
            slot: place(platform, firmware, disk, order(index, first)),
            bus: bus(disk),
            controller: Some(disk.name().to_owned()),
            ..slot.clone()
        };
    }
    for nic in &mut machine.nics {
        nic.model = Some(card.name().to_owned());
    }
    machine
}

/// True where no setting can name another disk to start from than the one at the first place: Azure's OS disk, the first
/// IDE disk of generation 1, the first disk of an HVM machine.
fn starts_from_first_place(platform: Platform, firmware: Firmware) -> bool {
    match platform {
        Platform::Azure | Platform::Xen => true,
        Platform::Hyperv => firmware == Firmware::Bios,
        Platform::Kvm | Platform::Ahv | Platform::Esxi => false,
    }
}

/// Which place the disk with the number `index` gets where the disk `first` comes first, and the others stay in order.
fn order(index: usize, first: usize) -> usize {
    match index.cmp(&first) {
        Ordering::Less => index + 1,
        Ordering::Equal => 0,
        Ordering::Greater => index,
    }
}

/// The model of a disk that was placed by [`on`].
pub fn model(disk: &DiskSlot) -> Option<DiskModel> {
    let name = disk.controller.as_deref();
    DiskModel::ALL.iter().copied().find(|model| Some(model.name()) == name).or(match disk.bus {
        Bus::VirtioBlk => Some(DiskModel::VirtioBlk),
        Bus::VirtioScsi => Some(DiskModel::VirtioScsi),
        Bus::Sata => Some(DiskModel::Sata),
        Bus::Ide => Some(DiskModel::Ide),
        Bus::Nvme => Some(DiskModel::Nvme),
        Bus::Vmbus => Some(DiskModel::Vmbus),
        Bus::Xen => Some(DiskModel::Xen),
        Bus::Scsi => None,
    })
}

/// Whether the platform gives a disk on that controller other sectors than those of 512 bytes, and its firmware starts from
/// them where it has to: no BIOS does.
pub fn takes_sectors(platform: Platform, model: DiskModel, firmware: Firmware, starts: bool) -> bool {
    let is_one_of_qemus = matches!(model, DiskModel::VirtioBlk | DiskModel::VirtioScsi);
    platform == Platform::Kvm && is_one_of_qemus && !(starts && firmware == Firmware::Bios)
}

fn bus(model: DiskModel) -> Bus {
    match model {
        DiskModel::VirtioBlk => Bus::VirtioBlk,
        DiskModel::VirtioScsi => Bus::VirtioScsi,
        DiskModel::Pvscsi | DiskModel::Lsi | DiskModel::LsiParallel => Bus::Scsi,
        DiskModel::Nvme => Bus::Nvme,
        DiskModel::Sata => Bus::Sata,
        DiskModel::Ide => Bus::Ide,
        DiskModel::Vmbus => Bus::Vmbus,
        DiskModel::Xen => Bus::Xen,
    }
}

/// How many disks of a kind a machine can have.
fn at_most(platform: Platform, model: DiskModel) -> usize {
    match (platform, model) {
        (_, DiskModel::Ide) => 4,
        // With more disks the PCI slots of one bus run short.
        (_, DiskModel::VirtioBlk) => 16,
        (Platform::Kvm, DiskModel::Sata) => 6,
        (Platform::Ahv, DiskModel::Sata) => 6,
        (_, DiskModel::Sata) => 4 * 30,
        // Four controllers of fifteen.
        (_, DiskModel::Pvscsi | DiskModel::Lsi | DiskModel::LsiParallel | DiskModel::Nvme) => 4 * 15,
        (Platform::Azure, _) => 65,
        (_, DiskModel::Vmbus) => 4 * 64,
        (_, DiskModel::VirtioScsi | DiskModel::Xen) => 240,
    }
}

/// What the platform calls the place of the disk with that number.
fn place(platform: Platform, firmware: Firmware, model: DiskModel, index: usize) -> String {
    let ide = |word: &str| format!("{word}{}:{}", index / 2, index % 2);
    match (platform, model) {
        (Platform::Esxi, DiskModel::Ide) => ide("ide"),
        (Platform::Esxi, DiskModel::Sata) => format!("sata{}:{}", index / 30, index % 30),
        (Platform::Esxi, DiskModel::Nvme) => format!("nvme{}:{}", index / 15, index % 15),
        // The controller itself is number 7.
        (Platform::Esxi, _) => {
            format!("scsi{}:{}", index / 15, index % 15 + usize::from(index % 15 >= 7))
        }
        (Platform::Hyperv, DiskModel::Ide) => ide("IDE "),
        // Generation 1 starts from IDE only.
        (Platform::Hyperv, _) => match (firmware, index) {
            (Firmware::Bios, 0) => "IDE 0:0".to_owned(),
            (Firmware::Bios, _) => format!("SCSI {}:{}", (index - 1) / 64, (index - 1) % 64),
            (Firmware::Uefi, _) => format!("SCSI {}:{}", index / 64, index % 64),
        },
        (Platform::Azure, _) if index == 0 => "OS disk".to_owned(),
        (Platform::Azure, _) => format!("LUN {}", index - 1),
        (Platform::Ahv, DiskModel::Ide) => format!("ide.{index}"),
        (Platform::Ahv, DiskModel::Sata) => format!("sata.{index}"),
        (Platform::Ahv, _) => format!("scsi.{index}"),
        (Platform::Xen, _) => format!("xvd{}", letters(index)),
        (Platform::Kvm, _) => linux_name(model, index),
    }
}

/// As a guest sees the disk: `vda`.
fn linux_name(model: DiskModel, index: usize) -> String {
    match model {
        DiskModel::VirtioBlk => format!("vd{}", letters(index)),
        DiskModel::Ide => format!("hd{}", letters(index)),
        DiskModel::Xen => format!("xvd{}", letters(index)),
        DiskModel::Nvme => format!("nvme{index}n1"),
        _ => format!("sd{}", letters(index)),
    }
}

/// `a` to `z`, `aa` and on: the 27th disk is `vdaa`.
pub(super) fn letters(index: usize) -> String {
    const ALPHABET: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    let last = char::from(ALPHABET[index % 26]);
    if index < 26 { last.to_string() } else { format!("{}{last}", letters(index / 26 - 1)) }
}

/// The index of such letters, where they are some.
pub(super) fn number(letters: &str) -> Option<usize> {
    let fine = (1..=3).contains(&letters.len()) && letters.bytes().all(|byte| byte.is_ascii_lowercase());
    let all = letters.bytes().fold(0, |sum, byte| sum * 26 + usize::from(byte.wrapping_sub(b'a')) + 1);
    fine.then(|| all - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_lettered_as_linux_does() {
        let names: Vec<_> = [0, 25, 26, 51, 52, 701, 702].map(letters).into();
        assert_eq!(names, ["a", "z", "aa", "az", "ba", "zz", "aaa"]);
        assert!(names.iter().map(|name| number(name)).eq([0, 25, 26, 51, 52, 701, 702].map(Some)));
        assert_eq!(["", "A", "a1", "aaaa"].map(number), [None; 4]);
    }

    fn machine(disks: usize, firmware: Firmware) -> Machine {
        let mut text = "config.version = \"8\"\nethernet0.present=TRUE\nscsi0.present = TRUE\n".to_owned();
        for n in 0..disks {
            text += &format!("scsi0:{n}.present = TRUE\nscsi0:{n}.fileName = \"{n}.vmdk\"\n");
        }
        Machine {
            firmware,
            ..super::super::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine
        }
    }

    fn slots(machine: &Machine) -> Vec<&str> {
        machine.disks.iter().map(|disk| disk.slot.as_str()).collect()
    }

    #[test]
    fn every_target_has_its_preferred_devices() {
        let (bios, uefi) = (Firmware::Bios, Firmware::Uefi);
        for (platform, firmware, disk, card, expected) in [
            (Platform::Kvm, bios, "virtio-blk", "virtio-net", ["vda", "vdb"]),
            (Platform::Ahv, uefi, "virtio-scsi", "virtio-net", ["scsi.0", "scsi.1"]),
            (Platform::Esxi, bios, "pvscsi", "vmxnet3", ["scsi0:0", "scsi0:1"]),
            (Platform::Hyperv, bios, "vmbus", "netvsc", ["IDE 0:0", "SCSI 0:0"]),
            (Platform::Hyperv, uefi, "vmbus", "netvsc", ["SCSI 0:0", "SCSI 0:1"]),
            (Platform::Azure, uefi, "vmbus", "netvsc", ["OS disk", "LUN 0"]),
            (Platform::Xen, bios, "xen", "xen", ["xvda", "xvdb"]),
        ] {
            let adapted = adapt(&machine(2, firmware), platform, &Devices::default()).unwrap();
            assert_eq!(adapted.disks[0].controller.as_deref(), Some(disk));
            assert_eq!(adapted.nics[0].model.as_deref(), Some(card));
            assert_eq!(slots(&adapted), expected, "{platform:?}");
            assert_eq!(model(&adapted.disks[1]).unwrap().name(), disk);
        }
    }

    /// Firmware that starts one place only finds the boot disk there.
    #[test]
    fn the_boot_disk_is_where_the_target_starts() {
        let (bios, uefi) = (Firmware::Bios, Firmware::Uefi);
        for (platform, firmware, expected) in [
            (Platform::Hyperv, bios, ["SCSI 0:0", "IDE 0:0", "SCSI 0:1"]),
            (Platform::Hyperv, uefi, ["SCSI 0:0", "SCSI 0:1", "SCSI 0:2"]),
            (Platform::Azure, bios, ["LUN 0", "OS disk", "LUN 1"]),
            (Platform::Azure, uefi, ["LUN 0", "OS disk", "LUN 1"]),
            (Platform::Xen, bios, ["xvdb", "xvda", "xvdc"]),
            (Platform::Kvm, bios, ["vda", "vdb", "vdc"]),
            (Platform::Esxi, bios, ["scsi0:0", "scsi0:1", "scsi0:2"]),
        ] {
            let machine = Machine { boot_disk: Some(1), ..machine(3, firmware) };
            let adapted = adapt(&machine, platform, &Devices::default()).unwrap();
            assert_eq!(slots(&adapted), expected, "{platform:?} {firmware:?}");
        }
        let ide = Devices { disks: vec![DiskModel::Ide], ..Devices::default() };
        let machine = Machine { boot_disk: Some(2), ..machine(3, bios) };
        let adapted = adapt(&machine, Platform::Hyperv, &ide).unwrap();
        assert_eq!(slots(&adapted), ["IDE 0:1", "IDE 1:0", "IDE 0:0"]);
        assert!((0..3).map(|index| order(index, 0)).eq(0..3));
    }

    #[test]
    fn sectors_of_4096_bytes_are_libvirts_only() {
        let (bios, uefi) = (Firmware::Bios, Firmware::Uefi);
        assert!(takes_sectors(Platform::Kvm, DiskModel::VirtioBlk, uefi, true));
        assert!(takes_sectors(Platform::Kvm, DiskModel::VirtioScsi, bios, false));
        assert!(!takes_sectors(Platform::Kvm, DiskModel::VirtioBlk, bios, true));
        assert!(!takes_sectors(Platform::Kvm, DiskModel::Sata, uefi, false));
        assert!(!takes_sectors(Platform::Ahv, DiskModel::VirtioScsi, uefi, false));
        let mut machine = machine(2, uefi);
        machine.disks[1].sector_size = Some(landfall_image::Bytes(4096));
        let adapted = adapt(&machine, Platform::Kvm, &Devices::default()).unwrap();
        assert_eq!(adapted.disks[1].sector_size, machine.disks[1].sector_size);
    }

    #[test]
    fn what_the_guest_can_drive_decides() {
        let devices = Devices { disks: vec![DiskModel::Sata, DiskModel::Ide], cards: vec![NicModel::E1000e] };
        let adapted = adapt(&machine(2, Firmware::Bios), Platform::Kvm, &devices).unwrap();
        assert_eq!((adapted.disks[0].bus, slots(&adapted)), (Bus::Sata, vec!["sda", "sdb"]));
        assert_eq!(adapted.nics[0].model.as_deref(), Some("e1000e"));
        let ide = Devices { disks: vec![DiskModel::Ide], ..Devices::default() };
        let adapted = adapt(&machine(4, Firmware::Bios), Platform::Hyperv, &ide).unwrap();
        assert_eq!(slots(&adapted), ["IDE 0:0", "IDE 0:1", "IDE 1:0", "IDE 1:1"]);
        assert!(adapt(&machine(5, Firmware::Bios), Platform::Kvm, &ide).is_err());
    }

    #[test]
    fn many_disks_go_where_there_is_room() {
        let many = adapt(&machine(17, Firmware::Bios), Platform::Kvm, &Devices::default()).unwrap();
        assert_eq!((many.disks[16].bus, many.disks[16].slot.as_str()), (Bus::VirtioScsi, "sdq"));
        let many = adapt(&machine(17, Firmware::Bios), Platform::Esxi, &Devices::default()).unwrap();
        assert_eq!(slots(&many)[6..9], ["scsi0:6", "scsi0:8", "scsi0:9"]);
        assert_eq!(slots(&many)[14..], ["scsi0:15", "scsi1:0", "scsi1:1"]);
    }
}
