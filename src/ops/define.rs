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
    let networks = mapped.networks(&wanted.networks);
    let mut machine = adapt(inspected, wanted.target, kind.name, mapped)?;
    machine.os = inspected.guest.as_ref().map(os_id);
    let disks = machine.disks.iter().zip(sizes).map(|(disk, size)| PlacedDisk {
        file: disk.file.clone(),
        format: kind.format.name().to_owned(),
        virtual_size: *size,
        stored: None,
    });
    let placement = Placement {
        folder: utf8(folder)?,
        disks: disks.collect(),
        networks,
        storage: mapped.storage.clone(),
        id: mapped.id,
        variables: wanted.target.variables.and_then(|(format, name)| {
            variables.filter(|variables| variables.fit(format)).map(|_| name(&machine))
        }),
    };
    if placement.variables.is_some() {
        inspected.findings.retain(|finding| finding.id != finding::NVRAM.id);
        inspected.findings.push(finding::NVRAM_CARRIED.finding(
            "The UEFI variables of the source come along: boot entries, their order, and enrolled keys.",
            "",
        ));
    }
    let rendered = (wanted.target.render)(&machine, &placement)?;
    inspected.findings.extend(rendered.findings);
    inspected.findings.extend(not_placed(wanted.target, mapped));
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
    OsId { distribution: guest.distribution.value.clone(), version: guest.version.value.clone() }
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::unsupported("is not UTF-8: a definition cannot name it")
            .in_file(path)
            .hint("choose another folder with -o")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hypervisor, report};
    use landfall_boot::target::DiskModel;
    use landfall_boot::volume::{Content, Volume, VolumeId};

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
