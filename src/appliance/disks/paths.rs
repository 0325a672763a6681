//! One disk over several paths (SAS with two ports, Fibre Channel, iSCSI): the kernel calls each path a disk, and nothing in the image joins
//! them. Written over one path it would be a second disk with the same state and vault at the next start.
//!
//! Two are paths of one disk where all of this is the same:
//!
//! | | who else has it |
//! |---|---|
//! | the unit's name (SPC-4, "Device Identification VPD page": NAA or EUI-64) | by its definition nobody; adapters with made-up names |
//! | size, the table's identity, and what is on it | a copy |
//!
//! Deliberately absent: serial numbers (hypervisors give the same to all, or to a slot), and using the other path where one fails before
//! the next look.

use super::{FoundDisk, Holds};
use std::fs;
use std::path::{Path, PathBuf};

/// Makers of virtual disks that keep the name in the disk's file: a copy of the file has it too (SCSI's field "vendor").
const NAMED_BY_FILE: [&str; 3] = ["VMware", "Msft", "VBOX"];
/// Kinds of names as the kernel writes them (`scsi_vpd_lun_id`) that are given out to makers. `t10.` is made of words and a serial number.
const GIVEN_OUT: [&str; 2] = ["naa.", "eui."];

/// What was found at one path.
pub(super) struct Looked {
    pub disk: FoundDisk,
    /// See [`unit`].
    pub unit: Option<String>,
    /// The identity of its partition table.
    pub table: Option<String>,
}

/// The name of the unit behind a path, where no other one can have it; `/sys` is below `root`.
pub(super) fn unit(root: &Path, name: &str) -> Option<String> {
    let about = |what: &str| {
        let text = fs::read_to_string(root.join(format!("sys/block/{name}/device/{what}"))).ok()?;
        Some(text.trim().to_owned())
    };
    let unit = about("wwid")?;
    let number = GIVEN_OUT.iter().find_map(|kind| unit.strip_prefix(kind))?;
    let is_one = number.bytes().any(|byte| byte != b'0');
    let vendor = about("vendor").unwrap_or_default();
    let is_files = NAMED_BY_FILE.iter().any(|maker| vendor.starts_with(maker));
    (is_one && !is_files).then_some(unit)
}

/// The disks, each once: under the first of its names.
pub(super) fn joined(looked: Vec<Looked>) -> Vec<FoundDisk> {
    let mut found: Vec<Looked> = Vec::new();
    for one in looked {
        match found.iter_mut().find(|first| is_same(first, &one)) {
            Some(first) => first.disk.paths.push(one.disk.device),
            None => found.push(one),
        }
    }
    found.into_iter().map(|looked| looked.disk).collect()
}

fn is_same(one: &Looked, other: &Looked) -> bool {
    // Partitions are called by their path.
    let on = |looked: &Looked| match &looked.disk.holds {
        Holds::Vault { id, .. } => Holds::Vault { id: *id, partition: PathBuf::new() },
        holds => holds.clone(),
    };
    one.unit.is_some()
        && one.unit == other.unit
        && one.disk.size == other.disk.size
        && one.table == other.table
        && on(one) == on(other)
}

#[cfg(test)]
mod tests {
    use super::super::tests::disk;
    use super::*;
    use uuid::Uuid;

    fn at(device: &str, unit: &str, table: &str, holds: Holds) -> Looked {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Looked { disk: disk(device, 10, holds), unit: some(unit), table: some(table) }
    }

    fn vault(device: &str, unit: &str, table: &str, id: u128) -> Looked {
        let partition = format!("{device}2").into();
        at(device, unit, table, Holds::Vault { id: Uuid::from_u128(id), partition })
    }

    #[test]
    fn paths_are_joined_and_copies_are_not() {
        let joined = |looked: Vec<Looked>| -> Vec<String> {
            let devices = |disk: FoundDisk| [vec![disk.device], disk.paths].concat();
            let shown = |devices: Vec<PathBuf>| {
                devices.iter().map(|device| device.display().to_string()).collect::<Vec<_>>().join("=")
            };
            super::joined(looked).into_iter().map(devices).map(shown).collect()
        };
        let one = || vault("/dev/sda", "naa.1", "t", 1);
        assert_eq!(
            joined(vec![one(), vault("/dev/sdb", "naa.2", "u", 2), vault("/dev/sdc", "naa.1", "t", 1)]),
            ["/dev/sda=/dev/sdc", "/dev/sdb"]
        );
        // Copies, and what cannot be told from one.
        assert_eq!(joined(vec![one(), vault("/dev/sdb", "naa.2", "t", 1)]).len(), 2);
        assert_eq!(joined(vec![vault("/dev/sda", "", "t", 1), vault("/dev/sdb", "", "t", 1)]).len(), 2);
        // Others under a made-up name.
        for other in [
            vault("/dev/sdb", "naa.1", "u", 1),
            vault("/dev/sdb", "naa.1", "t", 2),
            at("/dev/sdb", "naa.1", "t", Holds::Unfinished),
            at("/dev/sdb", "naa.1", "", Holds::Nothing),
        ] {
            assert_eq!(joined(vec![one(), other]).len(), 2);
        }
        let mut larger = vault("/dev/sdb", "naa.1", "t", 1);
        larger.disk.size = landfall_image::Bytes::gib(11);
        assert_eq!(joined(vec![one(), larger]).len(), 2);
        // Before anything is on it.
        let empty = |device: &str, unit: &str| at(device, unit, "", Holds::Nothing);
        let three = vec![empty("/dev/sda", "naa.1"), empty("/dev/sdb", "naa.1"), empty("/dev/sdc", "naa.1")];
        assert_eq!(joined(three), ["/dev/sda=/dev/sdb=/dev/sdc"]);
        assert_eq!(joined(vec![empty("/dev/sda", ""), empty("/dev/sdb", "")]).len(), 2);
    }

    #[test]
    fn a_name_counts_where_no_other_disk_has_it() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/block/sda/device");
        fs::create_dir_all(&device).unwrap();
        assert_eq!(unit(root.path(), "sda"), None);
        for (wwid, vendor, counts) in [
            ("naa.600508b1001c5e7d3a1f0e2b4c6d8e9f", "HP", true),
            ("eui.0025385971b0a1c2", "SAMSUNG", true),
            ("naa.5000c500a1b2c3d4", "QEMU", true),
            ("naa.6000c2985af5d2d5a41cb2a1d7d0a4f2", "VMware", false),
            ("naa.600224801a2b3c4d5e6f708192a3b4c5", "Msft", false),
            ("t10.ATA     VMware Virtual S 00000000000000000001", "ATA", false),
            ("naa.0000000000000000", "USB", false),
            ("naa.", "USB", false),
            ("", "", false),
        ] {
            fs::write(device.join("wwid"), format!("{wwid}\n")).unwrap();
            fs::write(device.join("vendor"), format!("{vendor:8}\n")).unwrap();
            assert_eq!(unit(root.path(), "sda"), counts.then(|| wwid.to_owned()), "{wwid} {vendor}");
        }
    }
}
