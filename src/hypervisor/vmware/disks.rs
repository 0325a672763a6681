//! Disks of a .vmx, and the drives without a disk beside them.

use super::keys::Keys;
use crate::finding;
use crate::machine::{Backing, Bus, DiskSlot};
use landfall_boot::check::Finding;
use landfall_image::{Error, Result};
use std::collections::HashMap;

/// What was found.
#[derive(Default)]
pub(super) struct Drives {
    /// Disks: SCSI, SATA, NVMe, IDE, each in the order of their places.
    pub(super) disks: Vec<DiskSlot>,
    /// Places of CD and DVD drives.
    pub(super) cds: Vec<String>,
    /// Places of what else hangs there, with its kind.
    pub(super) others: Vec<String>,
}

/// What a place has in it.
enum Kind {
    Disk,
    /// A mapped volume or a physical disk.
    Raw,
    Cd,
    /// A device of the host that speaks SCSI.
    Passed,
    Other,
}

/// Reads all of them.
pub(super) fn drives(keys: &Keys, findings: &mut Vec<Finding>) -> Result<Drives> {
    let mut out = Drives::default();
    for (kind, bus) in [("scsi", Bus::Scsi), ("sata", Bus::Sata), ("nvme", Bus::Nvme), ("ide", Bus::Ide)] {
        for slot in keys.slots(kind) {
            let Some((controller, _)) = slot.split_once(':') else {
                if !keys.flag(&format!("{slot}.present"), false) {
                    keys.done_with(&format!("{slot}."));
                }
                // A controller without disks has a model, too.
                keys.get(&format!("{slot}.virtualdev"));
                continue;
            };
            // IDE controllers are always there; the others say so.
            let controller_here = bus == Bus::Ide || keys.flag(&format!("{controller}.present"), false);
            let here = keys.flag(&format!("{slot}.present"), false);
            if here && !controller_here {
                let file = keys.text(&format!("{slot}.filename")).unwrap_or("no file");
                findings.push(finding::NOT_HELD.finding(
                    format!("{slot} ({file}) hangs on {controller}, which the machine does not have: it is left out, as VMware leaves it out."),
                    format!("If it is a disk of the machine, write {controller}.present = \"TRUE\" into a copy of the definition."),
                ));
            }
            if !here || !controller_here {
                keys.done_with(&format!("{slot}."));
                continue;
            }
            drive(keys, &slot, controller, bus, &mut out, findings)?;
        }
    }
    Ok(out)
}

fn drive(
    keys: &Keys,
    slot: &str,
    controller: &str,
    bus: Bus,
    out: &mut Drives,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let key = |name: &str| keys.text(&format!("{slot}.{name}"));
    let file = key("filename").unwrap_or("");
    let device = key("devicetype").unwrap_or("").to_ascii_lowercase();
    let kind = match kind(&device, file) {
        // A drive of the client's.
        Kind::Disk if key("clientdevice").is_some_and(|it| it.eq_ignore_ascii_case("true")) => Kind::Cd,
        other => other,
    };
    match kind {
        Kind::Disk | Kind::Raw => {}
        Kind::Cd => {
            out.cds.push(slot.to_owned());
            return Ok(());
        }
        Kind::Passed => {
            findings.push(finding::PASSTHROUGH.finding(
                format!("{slot} is a physical SCSI device ({file}), which cannot be carried over."),
                "Give the machine such a device at the target.",
            ));
            return Ok(());
        }
        Kind::Other => {
            out.others.push(format!("{slot} ({device})"));
            return Ok(());
        }
    }
    if file.is_empty() {
        return Err(Error::corrupt(format!("{slot} is a disk without a file name"))
            .hint("write the name of its image into a copy of the definition, or take its lines out"));
    }
    keys.is_sure(&format!("{slot}.filename"))?;
    if matches!(kind, Kind::Raw) {
        findings.push(finding::DISK_RAW.finding(
            format!("{slot} is a raw device mapping or a physical disk ({file}); at the target it is an ordinary disk."),
            "Take agents of the storage array out of the guest.",
        ));
    }
    let mode = key("mode").unwrap_or("").to_ascii_lowercase();
    if mode.contains("nonpersistent") {
        findings.push(finding::DISK_INDEPENDENT.finding(
            format!(
                "{slot} forgets its changes at power-off at the source; it will keep them at the target."
            ),
            "",
        ));
    } else if mode.contains("independent") || mode == "append" || mode == "undoable" {
        findings.push(finding::DISK_INDEPENDENT.finding(
            format!("{slot} is in the mode {mode} at the source, outside of snapshots; at the target it is an ordinary disk."),
            "",
        ));
    }
    let bus_shared =
        keys.text(&format!("{controller}.sharedbus")).filter(|word| !word.eq_ignore_ascii_case("none"));
    let shared = key("sharing")
        .filter(|word| !word.eq_ignore_ascii_case("sharingnone") && !word.eq_ignore_ascii_case("none"));
    if let Some(how) = bus_shared.or(shared) {
        findings.push(finding::DISK_SHARED.finding(
            format!("{slot} is shared with other machines at the source ({how})."),
            "Convert all machines of the cluster while they are off.",
        ));
    }
    let model = keys.text(&format!("{controller}.virtualdev")).map(str::to_owned);
    let model = model.or_else(|| (bus == Bus::Scsi).then(|| usual_controller(keys.get("guestos"))));
    out.disks.push(DiskSlot {
        controller: model,
        backing: if matches!(kind, Kind::Raw) && is_device(file) { Backing::Device } else { Backing::File },
        ..DiskSlot::new(slot, bus, file)
    });
    Ok(())
}

fn kind(device: &str, file: &str) -> Kind {
    let file = file.to_ascii_lowercase();
    match device {
        "" | "disk" | "scsi-harddisk" | "ata-harddisk" | "nvme-harddisk" if file.ends_with(".iso") => {
            Kind::Cd
        }
        "" | "disk" | "scsi-harddisk" | "ata-harddisk" | "nvme-harddisk" => Kind::Disk,
        "rawdisk" | "scsi-passthru-rdm" | "scsi-nonpassthru-rdm" => Kind::Raw,
        _ if device.starts_with("cdrom") || device.starts_with("atapi-cdrom") => Kind::Cd,
        _ if device.starts_with("scsi-passthru") => Kind::Passed,
        _ if file.ends_with(".vmdk") => Kind::Disk,
        _ => Kind::Other,
    }
}

/// A physical disk by its name on the host, not by a descriptor.
fn is_device(file: &str) -> bool {
    file.starts_with("/dev/") || file.starts_with("/vmfs/devices/") || file.starts_with(r"\\.\")
}

/// The SCSI controller where none is named: VMware names all but the first kind that it had, which only guests of 32 bits
/// can drive.
pub(super) fn usual_controller(guest: Option<&str>) -> String {
    if guest.is_some_and(|guest| guest.ends_with("-64")) { "lsilogic" } else { "buslogic" }.to_owned()
}

/// Place in the list of the disk that `bios.hddOrder` names first. `None` for the first disk.
pub(super) fn boot_disk(keys: &Keys, disks: &[DiskSlot]) -> Option<usize> {
    let order = keys.text("bios.hddorder")?;
    let places: HashMap<&str, usize> =
        disks.iter().enumerate().map(|(index, disk)| (disk.slot.as_str(), index)).collect();
    let mut named = order.split(',').map(|slot| slot.trim().to_ascii_lowercase());
    named.find_map(|slot| places.get(slot.as_str()).copied()).filter(|index| *index > 0)
}
