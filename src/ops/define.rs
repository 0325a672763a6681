//! A machine on its way to a target, as the target will have it: on its devices, with its files, in its definition. The same for a
//! plan and for the conversion, so that a plan leaves nothing out.

use super::convert::Wanted;
use super::map::Mapped;
use crate::finding;
use crate::hypervisor::{Artifact, Package, PlacedDisk, Placement, Target, Variables, attach, xen};
use crate::machine::{Machine, OsId};
use crate::report::Inspected;
use landfall_boot::Guest;
use landfall_boot::check::Finding;
use landfall_boot::target::{Firmware, Platform, SECTOR_SIZE};
use landfall_image::formats::KindRow;
use landfall_image::{Bytes, Error, Format, Result};
use std::path::Path;

/// The machine at the target.
pub struct Defined {
    /// On its devices.
    pub machine: Machine,
    /// Where its disks lie.
    pub placement: Placement,
    /// Its definition.
    pub artifacts: Vec<Artifact>,
}

/// Defines the inspected machine for the target, with its files in `folder` and disks of those sizes. What is to be said of it is
/// added to the findings.
///
/// # Errors
/// What the target cannot express at all.
pub fn define(
    inspected: &mut Inspected,
    wanted: &Wanted<'_>,
    kind: &KindRow,
    mapped: &Mapped,
    folder: &Path,
    sizes: &[Bytes],
    variables: Option<&Variables>,
) -> Result<Defined> {
    let machine = adapted(inspected, wanted.target, kind, mapped)?;
    let disks = machine.disks.iter().zip(sizes).map(|(disk, size)| PlacedDisk {
        file: disk.file.clone(),
        format: kind.format.name().to_owned(),
        virtual_size: *size,
        ..PlacedDisk::default()
    });
    let placement = Placement {
        folder: utf8(folder)?,
        disks: disks.collect(),
        networks: mapped.networks(&wanted.networks),
        storage: mapped.storage.clone(),
        id: mapped.id,
        ..Placement::default()
    };
    let defined = write(machine, placement, wanted.target, variables, &mut inspected.findings)?;
    inspected.findings.extend(not_placed(wanted.target, mapped));
    Ok(defined)
}

/// The inspected machine as the target will have it. What is to be said of that is added to the findings.
///
/// # Errors
/// What the target has no devices for.
pub fn adapted(
    inspected: &mut Inspected,
    target: &Target,
    kind: &KindRow,
    mapped: &Mapped,
) -> Result<Machine> {
    let mut machine = adapt(inspected, target, kind.name, mapped)?;
    machine.os = inspected.guest.as_ref().map(os_id);
    Ok(machine)
}

/// Writes the definition of an adapted machine. What is to be said of it is added to the findings.
///
/// # Errors
/// What the target cannot express at all.
pub fn write(
    machine: Machine,
    placement: Placement,
    target: &Target,
    variables: Option<&Variables>,
    findings: &mut Vec<Finding>,
) -> Result<Defined> {
    let file = target
        .variables
        .and_then(|(format, name)| variables.filter(|it| it.fit(format)).map(|_| name(&machine)));
    let placement = Placement { variables: file, ..placement };
    if placement.variables.is_some() {
        findings.retain(|finding| finding.id != finding::NVRAM.id);
        findings.push(finding::NVRAM_CARRIED.finding(
            "The UEFI variables of the source come along: boot entries, their order, and enrolled keys.",
            "",
        ));
    }
    let rendered = (target.render)(&machine, &placement)?;
    findings.extend(rendered.findings);
    Ok(Defined { machine, placement, artifacts: rendered.artifacts })
}

/// What the map chose and the target has no place for.
fn not_placed(target: &Target, mapped: &Mapped) -> Vec<Finding> {
    let lost = |what: String| {
        finding::NOT_HELD.finding(
            format!("The map gives the machine {what}, which {} does not choose.", target.title),
            "Leave it out of the map, or see to it by hand.",
        )
    };
    let storage = mapped.storage.as_ref().filter(|_| !target.takes_storage);
    let id = mapped.id.filter(|_| !target.takes_id);
    let storage = storage.map(|storage| lost(format!("the storage {storage}")));
    storage.into_iter().chain(id.map(|id| lost(format!("the id {id}")))).collect()
}

/// The finding that the target takes no such machine at all.
pub fn refused(error: &Error) -> Finding {
    finding::TARGET_REFUSES.finding(format!("{error}."), error.hint_text().unwrap_or_default())
}

/// The kind of image that is wanted, which takes the compression that is wanted.
pub fn kind(wanted: &Wanted<'_>) -> Result<&'static KindRow> {
    let usual = wanted.target.kinds.first().copied().unwrap_or_default();
    let kind = landfall_image::formats::kind(wanted.kind.as_deref().unwrap_or(usual))?;
    kind.check_compression(wanted.create.compression)?;
    Ok(kind)
}

/// Refuses what the target cannot start from.
pub fn check_kind(target: &Target, kind: &KindRow, machine: &Machine) -> Result<()> {
    if !target.kinds.contains(&kind.name) {
        return Err(Error::refused(format!(
            "{} does not take disks of the kind {}",
            target.title, kind.name
        ))
        .hint(format!("choose one of {}", target.kinds.join(", "))));
    }
    let is_second_generation = target.platform == Platform::Hyperv && machine.firmware == Firmware::Uefi;
    if is_second_generation && kind.format == Format::Vhd {
        return Err(Error::refused("a machine with UEFI is of generation 2, which starts from VHDX only")
            .hint("choose vhdx or vhdx-fixed"));
    }
    Ok(())
}

/// The inspected machine on the target's devices, with disks of that kind of image; what is then left to a person becomes a
/// finding.
fn adapt(inspected: &mut Inspected, target: &Target, kind: &str, mapped: &Mapped) -> Result<Machine> {
    let platform = target.platform;
    let mut machine = attach::adapt(&inspected.machine, platform, &inspected.devices)?;
    machine.cpus = mapped.cpus.unwrap_or(machine.cpus);
    machine.memory = mapped.memory.unwrap_or(machine.memory);
    machine.smbios.uuid = mapped.uuid.or(machine.smbios.uuid);
    for (nic, new) in machine.nics.iter_mut().zip(&mapped.macs) {
        if new.is_some() {
            nic.mac.clone_from(new);
        }
    }
    let ending = landfall_image::formats::kind(kind)?.ending;
    for (index, disk) in machine.disks.iter_mut().enumerate() {
        disk.file = match target.package {
            Package::Xva => xen::disk_name(index),
            Package::Folder | Package::Ova => format!("disk{index}.{ending}"),
        };
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        // Without a table nothing on the disk is found by sectors.
        let has_table =
            inspected.volumes.iter().any(|volume| volume.disk == index && volume.partition.is_some());
        let starts = index == machine.boot_disk();
        let takes = attach::model(disk)
            .is_some_and(|model| attach::takes_sectors(platform, model, machine.firmware, starts));
        if let Some(size) = disk.sector_size.filter(|_| has_table && !takes) {
            inspected.findings.push(sectors(index, size, platform));
        }
    }
    Ok(machine)
}

fn sectors(disk: usize, size: Bytes, platform: Platform) -> Finding {
    Finding::new(
        SECTOR_SIZE,
        format!(
            "The partitions of disk{disk} are counted in sectors of {} bytes, and at {} the disk has sectors of 512.",
            size.0,
            platform.name()
        ),
        "Move the system to a disk with sectors of 512 bytes in the source machine, or convert it with UEFI to kvm.",
    )
}

fn os_id(guest: &Guest) -> OsId {
    let (distribution, version) = (guest.distribution.value.clone(), guest.version.value.clone());
    let version = windows_release(&distribution, &version).map_or(version, str::to_owned);
    OsId { distribution, version }
}

/// The release as which a Windows is sold, by the version of its kernel (Microsoft, "Operating System Version"): 6.1 is
/// Windows 7, and one number stands for several releases of 10.0. `None` for other systems.
fn windows_release(distribution: &str, kernel: &str) -> Option<&'static str> {
    const CLIENTS: &[([u32; 3], &str)] = &[
        ([10, 0, 22000], "11"),
        ([10, 0, 0], "10"),
        ([6, 3, 0], "8.1"),
        ([6, 2, 0], "8"),
        ([6, 1, 0], "7"),
        ([6, 0, 0], "6"),
        ([5, 0, 0], "5"),
    ];
    const SERVERS: &[([u32; 3], &str)] = &[
        ([10, 0, 26100], "2025"),
        ([10, 0, 20348], "2022"),
        ([10, 0, 17763], "2019"),
        ([10, 0, 0], "2016"),
        ([6, 3, 0], "2012 R2"),
        ([6, 2, 0], "2012"),
        ([6, 1, 0], "2008 R2"),
        ([6, 0, 0], "2008"),
        ([5, 2, 0], "2003"),
        ([5, 0, 0], "2000"),
    ];
    let releases = match distribution {
        "windows" => CLIENTS,
        "windows-server" => SERVERS,
        _ => return None,
    };
    let numbers: Vec<u32> = kernel.split('.').map_while(|number| number.parse().ok()).collect();
    releases.iter().find(|(from, _)| numbers.as_slice() >= from.as_slice()).map(|(_, name)| *name)
}

/// A folder as a definition names it.
pub fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::unsupported("is not UTF-8: a definition cannot name it")
            .in_file(path)
            .hint("choose another folder with -o")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::guests;
    use crate::{hypervisor, report};
    use landfall_boot::target::DiskModel;
    use landfall_boot::volume::{Content, Volume, VolumeId};

    /// A Windows is named after the kernel that was found, not after the number of the kernel: 6.1 is no Vista.
    #[test]
    fn every_windows_gets_its_own_name() {
        for (distribution, kernel, vmx, proxmox, osinfo) in [
            ("windows", "6.0.6003", "winvista-64", "wvista", "winvista"),
            ("windows", "6.1.7601", "windows7-64", "win7", "win7"),
            ("windows", "6.2.9200", "windows8-64", "win8", "win8"),
            ("windows", "6.3.9600", "windows8-64", "win8", "win8.1"),
            ("windows", "10.0.19045", "windows9-64", "win10", "win10"),
            ("windows", "10.0.26200", "windows11-64", "win11", "win11"),
            ("windows-server", "6.0.6003", "longhorn-64", "w2k8", "win2k8"),
            ("windows-server", "6.1.7601", "windows7srv-64", "win7", "win2k8r2"),
            ("windows-server", "6.2.9200", "windows8srv-64", "win8", "win2k12"),
            ("windows-server", "6.3.9600", "windows8srv-64", "win8", "win2k12r2"),
            ("windows-server", "10.0.14393", "windows9srv-64", "win10", "win2k16"),
            ("windows-server", "10.0.17763", "windows2019srv-64", "win10", "win2k19"),
            ("windows-server", "10.0.20348", "windows2019srvnext-64", "win11", "win2k22"),
            ("windows-server", "10.0.26100", "windows2022srvnext-64", "win11", "win2k25"),
        ] {
            let version = windows_release(distribution, kernel).unwrap().to_owned();
            let guest = guests::by_id(&OsId { distribution: distribution.into(), version }, true);
            let names = (guest.vmx(99), guest.proxmox(), guest.osinfo());
            assert_eq!(names, (vmx, proxmox, Some(osinfo.to_owned())), "{distribution} {kernel}");
        }
        assert_eq!(windows_release("windows", ""), None);
        assert_eq!(windows_release("debian", "12"), None);
    }

    /// A machine with one disk in sectors of 4096 bytes, with a partition on it or not.
    fn inspected(firmware: Firmware, partition: Option<u32>) -> Inspected {
        let text = "config.version = \"8\"\nscsi0.present=TRUE\nscsi0:0.present=TRUE\nscsi0:0.fileName=a\n";
        let mut machine =
            hypervisor::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine;
        machine.firmware = firmware;
        machine.disks[0].sector_size = Some(Bytes(4096));
        let volume = Volume {
            id: VolumeId("disk0p1".into()),
            size: Bytes::mib(1),
            content: Content::FileSystem { name: "ext4".into() },
            uuid: None,
            label: None,
            part_uuid: None,
            part_label: None,
            part_type: None,
            disk: 0,
            partition,
            offset: None,
            device_names: Vec::new(),
            free: None,
            on: Vec::new(),
        };
        Inspected {
            version: report::VERSION,
            source: String::new(),
            machine,
            disks: Vec::new(),
            volumes: vec![volume],
            groups: Vec::new(),
            arrays: Vec::new(),
            guest: None,
            findings: Vec::new(),
            devices: Default::default(),
            edits: Vec::new(),
            readdressed: Vec::new(),
            read_through: String::new(),
        }
    }

    #[test]
    fn disks_that_lose_their_sectors_block() {
        for (target, firmware, partition, model, blocks) in [
            ("kvm", Firmware::Uefi, Some(1), None, false),
            ("kvm", Firmware::Bios, Some(1), None, true),
            ("kvm", Firmware::Uefi, Some(1), Some(DiskModel::Sata), true),
            ("esxi", Firmware::Uefi, Some(1), None, true),
            ("azure", Firmware::Uefi, Some(1), None, true),
            ("ahv", Firmware::Uefi, Some(1), None, true),
            // A file system on the whole disk is found without a table.
            ("esxi", Firmware::Uefi, None, None, false),
        ] {
            let row = hypervisor::target(target).unwrap();
            let mut inspected = inspected(firmware, partition);
            inspected.devices.disks = model.into_iter().collect();
            adapt(&mut inspected, row, row.kinds[0], &Mapped::default()).unwrap();
            let found = inspected.findings.iter().find(|finding| finding.id == SECTOR_SIZE);
            assert_eq!(found.is_some(), blocks, "{target} {firmware:?} {partition:?}");
        }
    }
}
