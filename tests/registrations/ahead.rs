//! What `convert --register` looks at before it copies: libvirt's own test driver, and the simulator.

use super::machine;
use super::vcsim::Vcsim;
use landfall::event::Silent;
use landfall::hypervisor::{self, Networks, PlacedDisk, Placement, attach};
use landfall::machine::{Bus, DiskSlot};
use landfall::registrar::{self, Coming, Identity, Surroundings, Wanted};
use landfall_boot::target::{Devices, Platform};
use landfall_image::convert::Cancel;
use landfall_image::{Bytes, Result};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Command;

/// More than any disk of this world has.
const ENDLESS: Bytes = Bytes(1 << 60);

/// A machine that is to be converted.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    target: &'a str,
    platform: Platform,
    kind: &'a str,
    network: &'a str,
    size: Bytes,
    data: Bytes,
}

impl Ahead<'_> {
    /// The ids of what stands in the way, with all that is said, and whether the disks' maps were walked.
    fn look(&self, wanted: &Wanted) -> Result<(Vec<&'static str>, String, bool)> {
        let scratch = tempfile::tempdir().unwrap();
        let cancel = Cancel::default();
        let around =
            Surroundings { cancel: &cancel, scratch: scratch.path(), rate_limit: None, observer: &Silent };
        let mut machine = machine("web01");
        machine.disks = vec![DiskSlot::new("scsi0:0", Bus::Scsi, "disk0.img")];
        let machine = attach::adapt(&machine, self.platform, &Devices::default()).unwrap();
        let disk = PlacedDisk {
            file: "disk0.img".into(),
            format: self.kind.split('-').next().unwrap().into(),
            virtual_size: self.size,
            stored: None,
            below: None,
        };
        let placement = Placement {
            folder: "/srv/it's & here/web01".into(),
            disks: vec![disk],
            networks: Networks { map: Vec::new(), rest: Some(self.network.into()) },
            ..Placement::default()
        };
        let target = hypervisor::target(self.target).unwrap();
        let artifacts = (target.render)(&machine, &placement).unwrap().artifacts;
        let was_asked = Cell::new(false);
        let data = || {
            was_asked.set(true);
            Ok(self.data)
        };
        let coming = Coming {
            identity: Identity::of(&machine),
            artifacts: &artifacts,
            disks: &placement.disks,
            kind: self.kind,
            variables: Some("uefi-variables.fd"),
            data: &data,
        };
        let found = registrar::connect(wanted, &around)?.look(&coming)?;
        let says: Vec<String> =
            found.iter().map(|found| format!("{} {}", found.says, found.remedy)).collect();
        Ok((found.iter().map(|finding| finding.id).collect(), says.join("\n"), was_asked.get()))
    }
}

/// libvirt's driver that keeps everything in memory: a network `default`, and no file.
#[test]
fn networks_and_room_at_libvirt_are_looked_at_before_the_copy() {
    if Command::new("virsh").arg("--version").output().is_err() {
        eprintln!("SKIPPED: virsh is not here (Debian: libvirt-clients)");
        return;
    }
    let storage = tempfile::tempdir().unwrap();
    let wanted = Wanted {
        at: "test:///default".into(),
        storage: Some(storage.path().to_owned()),
        ..Wanted::default()
    };
    let fitting = Ahead {
        target: "kvm",
        platform: Platform::Kvm,
        kind: "qcow2",
        network: "default",
        size: Bytes::mib(1),
        data: ENDLESS,
    };
    let (ids, says, was_asked) = fitting.look(&wanted).unwrap();
    assert_eq!((ids, was_asked), (vec![], false), "{says}");

    let (ids, says, _) = Ahead { network: "it's", ..fitting }.look(&wanted).unwrap();
    assert_eq!(ids, ["target-network-down"]);
    let command = r"virsh -c 'test:///default' net-start --network 'it'\''s'";
    assert!(says.contains(command), "{says}");

    // A large disk with little on it fits; one with much may not.
    let (ids, says, was_asked) =
        Ahead { size: ENDLESS, data: Bytes::mib(1), ..fitting }.look(&wanted).unwrap();
    assert_eq!((ids, was_asked), (vec![], true), "{says}");
    let (ids, says, _) = Ahead { size: ENDLESS, ..fitting }.look(&wanted).unwrap();
    assert_eq!(ids, ["target-not-checked"]);
    assert!(says.contains("may not fit") && says.contains(storage.path().to_str().unwrap()), "{says}");

    fs::write(storage.path().join("web01-disk0.img"), "precious").unwrap();
    fs::write(storage.path().join("web01-uefi-variables.fd"), "precious").unwrap();
    assert_eq!(fitting.look(&wanted).unwrap().0, ["target-file-taken"; 2]);
}

#[test]
fn networks_and_room_at_vsphere_are_looked_at_before_the_copy() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    let wanted = Wanted {
        at: format!("esxi://{}", vcsim.address),
        credentials: Some(vcsim.path("credentials")),
        ca: Some(vcsim.path("cert.pem")),
        ..Wanted::default()
    };
    for (target, kind) in [("ova", "vmdk-stream"), ("esxi", "vmdk-esxi")] {
        let fitting = Ahead {
            target,
            platform: Platform::Esxi,
            kind,
            network: "VM Network",
            size: Bytes::mib(1),
            data: ENDLESS,
        };
        let (ids, says, was_asked) = fitting.look(&wanted).unwrap();
        assert_eq!((ids, was_asked), (vec![], false), "{target}: {says}");
        let (ids, says, _) = Ahead { network: "Elsewhere", ..fitting }.look(&wanted).unwrap();
        assert_eq!(ids, ["target-network-missing"], "{target}");
        assert!(says.contains("one of: VM Network"), "{says}");
    }
    let huge = Ahead {
        target: "ova",
        platform: Platform::Esxi,
        kind: "vmdk-stream",
        network: "VM Network",
        size: ENDLESS,
        data: ENDLESS,
    };
    assert_eq!(huge.look(&wanted).unwrap().0, ["target-not-checked"]);
    // ESXi's own disks are sent whole, so that it is certain.
    let huge = Ahead { target: "esxi", kind: "vmdk-esxi", ..huge };
    assert_eq!(huge.look(&wanted).unwrap().0, ["target-storage"]);
    // What would be refused after the copy is refused before it.
    let transport = Ahead { kind: "vmdk-stream", size: Bytes::mib(1), ..huge };
    assert!(transport.look(&wanted).unwrap_err().to_string().contains("made for transport"));
    assert!(Path::new(&vcsim.path("nfc")).read_dir().unwrap().next().is_none(), "nothing was sent");
}
