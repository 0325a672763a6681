//! Snapshots of a VMware machine (.vmsd): lines of `snapshotN.key = "value"` beside the .vmx.
//!
//! There is no published specification; this follows files that ESXi and Workstation write and what users have published of
//! theirs. A snapshot names, for each place, the disk file that was current when it was taken and has not been written to since.
//!
//! Deliberately absent: the configuration as it was (.vmsn, a binary format: processors, memory and cards are those of the
//! .vmx), and memory that was saved with a snapshot.

use super::disks::usual_controller;
use super::keys::Keys;
use crate::finding;
use crate::hypervisor::Parsed;
use crate::machine::{Bus, DiskSlot, Machine};
use landfall_boot::check::Finding;
use landfall_image::{Error, Result};
use std::collections::HashMap;

/// vSphere keeps 32 levels of snapshots; a tree of this many is damage.
const AT_MOST: usize = 4096;

/// A machine's snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// In the order of the file.
    pub all: Vec<Snapshot>,
    /// Id of the one that the current state goes on from.
    pub current: Option<u64>,
    /// Changes of deleted snapshots still lie in files of their own.
    pub needs_consolidation: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub uid: u64,
    /// Id of the one that it goes on from.
    pub parent: Option<u64>,
    /// What it is called; several can have one name.
    pub name: String,
    /// What its maker wrote about it.
    pub description: Option<String>,
    /// The machine was running, and its memory was saved.
    pub with_memory: bool,
    /// Place and file of each disk.
    pub disks: Vec<(String, String)>,
}

/// Reads a .vmsd. An empty file, as there is beside machines that never had a snapshot, has none.
///
/// # Errors
/// Corrupt where a snapshot has no id, or one that another has.
pub fn parse(bytes: &[u8]) -> Result<Snapshots> {
    let keys = Keys::read(bytes)?;
    let mut out = Snapshots {
        current: keys.number("snapshot.current", u64::MAX)?.filter(|uid| *uid != 0),
        needs_consolidation: keys.flag("snapshot.needconsolidate", false),
        ..Snapshots::default()
    };
    let mut uids = std::collections::HashSet::new();
    for slot in keys.slots("snapshot") {
        let key = |name: &str| format!("{slot}.{name}");
        let Some(uid) = keys.number(&key("uid"), u64::MAX)? else {
            return Err(Error::corrupt(format!("{slot} has no uid")));
        };
        if !uids.insert(uid) || out.all.len() >= AT_MOST {
            let says =
                format!("{slot} has the uid {uid}, which another has, or is one of more than {AT_MOST}");
            return Err(Error::corrupt(says));
        }
        let count = keys.number(&key("numdisks"), 1024)?.unwrap_or(0);
        let mut disks = Vec::new();
        for index in 0..count {
            let part = |name: &str| keys.text(&key(&format!("disk{index}.{name}"))).map(str::to_owned);
            keys.is_sure(&key(&format!("disk{index}.filename")))?;
            let (Some(file), Some(node)) = (part("filename"), part("node")) else {
                return Err(Error::corrupt(format!("{slot}.disk{index} has no file name or no place")));
            };
            disks.push((node.to_ascii_lowercase(), file));
        }
        out.all.push(Snapshot {
            uid,
            parent: keys.number(&key("parent"), u64::MAX)?,
            name: keys.get(&key("displayname")).unwrap_or_default().to_owned(),
            description: keys.text(&key("description")).map(str::to_owned),
            with_memory: keys.number(&key("type"), u64::MAX)? == Some(1),
            disks,
        });
    }
    Ok(out)
}

impl Snapshots {
    /// The snapshot with that name, or else that id.
    ///
    /// # Errors
    /// Refused where there is none, or several have the name, with all of them in the hint.
    pub fn find(&self, wanted: &str) -> Result<&Snapshot> {
        let refused = |says: String| Error::refused(says).hint(self.hint());
        let named: Vec<&Snapshot> = self.all.iter().filter(|snapshot| snapshot.name == wanted).collect();
        match named.as_slice() {
            [only] => Ok(only),
            [] => {
                let with_uid = self.all.iter().find(|snapshot| wanted == snapshot.uid.to_string());
                with_uid.ok_or_else(|| refused(format!("has no snapshot {wanted:?}")))
            }
            several => Err(refused(format!("has {} snapshots called {wanted:?}", several.len()))),
        }
    }

    fn hint(&self) -> String {
        let names: Vec<String> =
            self.all.iter().take(32).map(|one| format!("{:?} (--snapshot {})", one.name, one.uid)).collect();
        match names.is_empty() {
            true => "leave out --snapshot: the machine has none".to_owned(),
            false => format!("its snapshots are {}", names.join(", ")),
        }
    }

    /// That there are some, and which.
    pub fn finding(&self) -> Option<Finding> {
        let names: Vec<String> = self.all.iter().map(|snapshot| format!("{:?}", snapshot.name)).collect();
        (!names.is_empty()).then(|| {
            finding::SNAPSHOTS.finding(
                format!(
                    "The machine has {} snapshots: {}. Its current state is what is converted.",
                    names.len(),
                    names.join(", ")
                ),
                "Choose one of them with --snapshot to convert that state instead.",
            )
        })
    }

    /// The machine gets the disks that it had in the snapshot `wanted`, in the order of their places.
    ///
    /// # Errors
    /// What [`find`](Self::find) refuses; unsupported for a disk at a place that no controller has.
    pub fn apply(&self, wanted: &str, parsed: &mut Parsed) -> Result<()> {
        let snapshot = self.find(wanted)?;
        let mut files: HashMap<&str, &str> =
            snapshot.disks.iter().map(|(node, file)| (node.as_str(), file.as_str())).collect();
        let name = &snapshot.name;
        for disk in &mut parsed.machine.disks {
            match files.remove(disk.slot.as_str()) {
                Some(file) => file.clone_into(&mut disk.file),
                None => parsed.findings.push(finding::DISK_INDEPENDENT.finding(
                    format!(
                        "{} is no part of the snapshot {name:?}: it is converted as it is now.",
                        disk.slot
                    ),
                    "If it was added later, detach it at the target.",
                )),
            }
        }
        let boot = parsed.machine.boot_disk.and_then(|index| parsed.machine.disks.get(index));
        let boot = boot.map(|disk| disk.slot.clone());
        // Disks that the machine has lost since.
        for (node, file) in snapshot.disks.iter().filter(|(node, _)| files.contains_key(node.as_str())) {
            let bus = KINDS.iter().find(|(kind, _)| node.starts_with(kind)).map(|(_, bus)| *bus);
            let bus = bus.ok_or_else(|| {
                Error::unsupported(format!(
                    "has a disk at {node:?} in the snapshot {name:?}, which is no place of a disk"
                ))
            })?;
            let controller = controller(&parsed.machine, node, bus);
            parsed
                .machine
                .disks
                .push(DiskSlot { controller, ..DiskSlot::new(node.clone(), bus, file.clone()) });
        }
        parsed.machine.disks.sort_by_key(|disk| place(&disk.slot));
        let boot = boot.and_then(|slot| parsed.machine.disks.iter().position(|disk| disk.slot == slot));
        parsed.machine.boot_disk = boot.filter(|index| *index > 0);
        if snapshot.with_memory {
            parsed.findings.push(finding::SUSPENDED.finding(
                format!("The machine was running when the snapshot {name:?} was taken: its file systems are as after a power cut."),
                "Choose a snapshot of the machine when it was off for a clean copy.",
            ));
        }
        Ok(())
    }
}

/// Kinds of controllers in the order in which a machine's disks are listed.
const KINDS: [(&str, Bus); 4] =
    [("scsi", Bus::Scsi), ("sata", Bus::Sata), ("nvme", Bus::Nvme), ("ide", Bus::Ide)];

/// Where a place is among all: its kind, and the numbers of controller and unit.
fn place(slot: &str) -> (usize, Vec<u32>) {
    let kind = KINDS.iter().position(|(kind, _)| slot.starts_with(kind)).unwrap_or(KINDS.len());
    let numbers = slot.trim_start_matches(|letter: char| !letter.is_ascii_digit()).split(':');
    (kind, numbers.map(|number| number.parse().unwrap_or(u32::MAX)).collect())
}

/// The model of the controller that a place is on: another disk there tells it, else one on another of the kind, else VMware's
/// usual one, as for a controller that the .vmx does not name.
fn controller(machine: &Machine, node: &str, bus: Bus) -> Option<String> {
    let own = node.split(':').next();
    let there = machine.disks.iter().find(|disk| disk.slot.split(':').next() == own);
    let other = there.or_else(|| machine.disks.iter().find(|disk| disk.bus == bus));
    match other {
        Some(disk) => disk.controller.clone(),
        None => (bus == Bus::Scsi).then(|| usual_controller(machine.os_label.as_deref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::vmware::vmx;

    const TWO: &str = r#".encoding = "UTF-8"
snapshot.lastUID = "7"
snapshot.current = "7"
snapshot.numSnapshots = "2"
snapshot0.uid = "3"
snapshot0.filename = "web01-Snapshot3.vmsn"
snapshot0.displayName = "before |22it|22"
snapshot0.numDisks = "2"
snapshot0.disk0.fileName = "web01.vmdk"
snapshot0.disk0.node = "scsi0:0"
snapshot0.disk1.fileName = "gone.vmdk"
snapshot0.disk1.node = "sata0:1"
snapshot1.uid = "7"
snapshot1.parent = "3"
snapshot1.type = "1"
snapshot1.displayName = "running"
snapshot1.numDisks = "1"
snapshot1.disk0.fileName = "web01-000001.vmdk"
snapshot1.disk0.node = "scsi0:0"
"#;

    fn machine() -> Parsed {
        let text = "config.version=8\nscsi0.present=TRUE\nscsi0:0.present=TRUE\nscsi0:0.fileName=web01-000002.vmdk\n\
                    scsi0:1.present=TRUE\nscsi0:1.fileName=data.vmdk\n";
        vmx::parse(text.as_bytes(), &Default::default()).unwrap()
    }

    #[test]
    fn a_chosen_snapshot_takes_the_place_of_the_current_state() {
        let snapshots = parse(TWO.as_bytes()).unwrap();
        assert_eq!((snapshots.all.len(), snapshots.current, snapshots.all[1].parent), (2, Some(7), Some(3)));
        let says = snapshots.finding().unwrap().says;
        assert!(says.contains("2 snapshots") && says.contains("\"running\""), "{says}");
        for (wanted, file, disks, finding) in [
            ("before \"it\"", "web01.vmdk", 3, "disk-independent"),
            ("3", "web01.vmdk", 3, "disk-independent"),
            ("running", "web01-000001.vmdk", 2, "machine-suspended"),
        ] {
            let mut parsed = machine();
            snapshots.apply(wanted, &mut parsed).unwrap();
            assert_eq!(parsed.machine.disks[0].file, file, "{wanted}");
            assert_eq!(parsed.machine.disks[1].file, "data.vmdk");
            assert_eq!(parsed.machine.disks.len(), disks);
            assert!(parsed.findings.iter().any(|found| found.id == finding), "{:?}", parsed.findings);
        }
        let error = snapshots.apply("nonsense", &mut machine()).unwrap_err();
        assert!(error.hint_text().unwrap().contains("\"running\" (--snapshot 7)"), "{error}");
        assert!(Snapshots::default().find("x").is_err());
        assert_eq!(Snapshots::default().finding(), None);
    }

    #[test]
    fn disks_of_the_snapshot_only_stand_at_their_places() {
        let text = "config.version=8\nguestOS=debian12-64\nbios.hddOrder=scsi0:10\nscsi0.present=TRUE\nscsi0.virtualDev=pvscsi\n\
                    scsi0:2.present=TRUE\nscsi0:2.fileName=b.vmdk\nscsi0:10.present=TRUE\nscsi0:10.fileName=c.vmdk\n\
                    sata0.present=TRUE\nsata0:0.present=TRUE\nsata0:0.fileName=s.vmdk\n";
        let nodes = ["scsi0:10", "sata0:0", "scsi0:0", "ide0:0", "scsi1:0", "scsi0:2"];
        let mut snapshot = String::from("snapshot0.uid=1\nsnapshot0.displayName=a\nsnapshot0.numDisks=6\n");
        for (index, node) in nodes.iter().enumerate() {
            snapshot +=
                &format!("snapshot0.disk{index}.fileName={index}.vmdk\nsnapshot0.disk{index}.node={node}\n");
        }
        let mut parsed = vmx::parse(text.as_bytes(), &Default::default()).unwrap();
        assert_eq!(parsed.machine.boot_disk, Some(1));
        parse(snapshot.as_bytes()).unwrap().apply("a", &mut parsed).unwrap();
        let disks: Vec<_> = parsed
            .machine
            .disks
            .iter()
            .map(|disk| (disk.slot.as_str(), disk.controller.as_deref()))
            .collect();
        let pvscsi = Some("pvscsi");
        assert_eq!(
            disks,
            [
                ("scsi0:0", pvscsi),
                ("scsi0:2", pvscsi),
                ("scsi0:10", pvscsi),
                ("scsi1:0", pvscsi),
                ("sata0:0", None),
                ("ide0:0", None)
            ]
        );
        assert_eq!(parsed.machine.boot_disk, Some(2));
        // Where no disk tells the controller.
        let mut parsed = vmx::parse(b"config.version=8\nguestOS=debian12-64", &Default::default()).unwrap();
        parse(snapshot.as_bytes()).unwrap().apply("a", &mut parsed).unwrap();
        assert_eq!(parsed.machine.disks[0].controller.as_deref(), Some("lsilogic"));
    }

    #[test]
    fn damage_is_told() {
        assert_eq!(parse(b"").unwrap(), Snapshots::default());
        for text in [
            "snapshot0.displayName = x",
            "snapshot0.uid = x",
            "snapshot0.uid = 1\nsnapshot1.uid = 1",
            "snapshot0.uid = 1\nsnapshot0.numDisks = 1",
            "snapshot0.uid = 1\nsnapshot0.numDisks = 99999999999",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().kind(), landfall_image::Kind::Corrupt, "{text}");
        }
        let twice =
            parse(b"snapshot0.uid=1\nsnapshot0.displayName=a\nsnapshot1.uid=2\nsnapshot1.displayName=a")
                .unwrap();
        assert!(twice.find("a").unwrap_err().to_string().contains("2 snapshots"));
        assert_eq!(twice.find("2").unwrap().uid, 2);
    }
}
