//! The disks of a configuration: what hangs on its IDE and SCSI controllers.

use super::devices::{Class, Device};
use super::tree::Node;
use crate::finding;
use crate::hypervisor::text::one_line;
use crate::machine::{Backing, Bus, DiskSlot};
use landfall_boot::check::Finding;

/// What the controllers hold.
#[derive(Default)]
pub struct Storage {
    /// Disks, in the order in which the firmware and the guest see them.
    pub disks: Vec<DiskSlot>,
    /// What is to be said of them.
    pub findings: Vec<Finding>,
    /// A disk is the child of another: there are checkpoints.
    pub has_children: bool,
    /// Drives whose kind is not known, by their place.
    pub unread: Vec<String>,
}

/// Reads all controllers: IDE first, as every machine of generation 1 has them.
pub fn read(devices: &[Device<'_>]) -> Storage {
    let mut storage = Storage::default();
    let (mut optical, mut floppy) = (false, false);
    let of =
        |class| devices.iter().filter(move |device| device.class == class).filter_map(|device| device.keys);
    for keys in of(Class::Ide) {
        for (controller, drives) in keys.numbered("controller") {
            drive_by_drive(&mut storage, drives, &format!("IDE {controller}"), Bus::Ide, &mut optical);
        }
    }
    for (controller, keys) in of(Class::Scsi).enumerate() {
        // One device is one controller, whose number within it is always 0.
        for (_, drives) in keys.numbered("controller") {
            drive_by_drive(&mut storage, drives, &format!("SCSI {controller}"), Bus::Vmbus, &mut optical);
        }
    }
    for keys in of(Class::Floppy) {
        let drives = keys.numbered("controller").into_iter().flat_map(|(_, drives)| drives.numbered("drive"));
        floppy |= drives.into_iter().any(|(_, drive)| drive.text("pathname").is_some());
    }
    let mut left_out = |what: &str| {
        storage.findings.push(
            finding::DEVICE_LEFT_OUT.finding(format!("The machine has {what}, which is left out."), ""),
        );
    };
    if optical {
        left_out("a CD or DVD drive");
    }
    if floppy {
        left_out("a floppy disk");
    }
    storage
}

fn drive_by_drive(storage: &mut Storage, drives: &Node, controller: &str, bus: Bus, optical: &mut bool) {
    for (number, drive) in drives.numbered("drive") {
        let slot = format!("{controller}:{number}");
        let file = drive.text("pathname").unwrap_or_default();
        match drive.text("type").unwrap_or_default().to_ascii_uppercase().as_str() {
            "" | "NONE" => {}
            "ISO" => *optical = true,
            "VHD" if file.is_empty() => storage.unread.push(format!("{slot} (a drive without a disk)")),
            "VHD" => disk(storage, drive, slot, file, bus),
            "HDD" | "PHYSICAL" | "VLU" => {
                storage.findings.push(finding::DISK_RAW.finding(
                    format!("{slot} is a physical disk of the source's host, {}.", one_line(file)),
                    format!("Copy it into an image there, and name that with --disk '{slot}=FILE'."),
                ));
                storage.disks.push(DiskSlot { backing: Backing::Device, ..DiskSlot::new(slot, bus, file) });
            }
            other => storage.unread.push(format!("{slot} (a drive of the kind {other})")),
        }
    }
}

fn disk(storage: &mut Storage, drive: &Node, slot: String, file: &str, bus: Bus) {
    let ending = file.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let (is_set, shown) = (ending == "vhds", one_line(file));
    if is_set || drive.flag("persistent_reservations_supported") {
        let set = if is_set { " (a VHD set)" } else { "" };
        storage.findings.push(finding::DISK_SHARED.finding(
            format!("{slot}, {shown}{set}, is shared with other machines at the source."),
            if is_set {
                format!("Name the .avhdx file that holds the set's data with --disk '{slot}=FILE'.")
            } else {
                String::new()
            },
        ));
    }
    storage.has_children |= matches!(ending.as_str(), "avhd" | "avhdx");
    // A fixed VHD begins with the guest's own bytes: they must not say what it is.
    let format = match ending.as_str() {
        "vhd" | "avhd" => Some("vhd".to_owned()),
        "vhdx" | "avhdx" => Some("vhdx".to_owned()),
        _ => None,
    };
    storage.disks.push(DiskSlot { format, ..DiskSlot::new(slot, bus, file) });
}
