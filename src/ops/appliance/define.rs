//! The appliance as a virtual machine: its definitions, written by the same writers as everybody's.

use crate::hypervisor::{self, Artifact, PlacedDisk, Placement, Property, Rendered, attach};
use crate::machine::{Bus, Cpus, DiskSlot, Machine, NicSlot, OsId};
use landfall_boot::target::{Devices, Firmware};
use landfall_image::{Bytes, Error, Result};
use std::path::Path;

/// Enough for some hundred replicated disks; a sandbox takes 256 MiB more.
const MEMORY: Bytes = Bytes::gib(4);
const PROCESSORS: u32 = 2;

/// What OVF asks whoever deploys it; `appliance/sources/ovf.rs` reads the answers.
const ASKS: &[Property] = &[
    Property { key: "landfall.hostname", label: "Host name", says: "dr1.example.org; empty for landfall" },
    Property { key: "landfall.ip", label: "Address", says: "With its prefix: 10.0.0.5/24. Empty for DHCP" },
    Property { key: "landfall.gateway", label: "Gateway", says: "10.0.0.1" },
    Property { key: "landfall.dns", label: "DNS servers", says: "10.0.0.53, 10.0.0.54" },
    Property { key: "landfall.search", label: "DNS search domains", says: "example.org" },
    Property { key: "landfall.ntp", label: "NTP servers", says: "ntp.example.org" },
    Property { key: "landfall.mtu", label: "MTU", says: "9000; empty for 1500" },
    Property { key: "landfall.vlan", label: "VLAN", says: "Only where the port group does not tag: 100" },
    Property {
        key: "landfall.ssh_key",
        label: "SSH public key",
        says: "ssh-ed25519 AAAA… Without one nothing listens for SSH",
    },
];

/// The target whose definition lies beside an image of a form.
pub fn target(kind: &str) -> Option<&'static str> {
    match kind {
        "vmdk" => Some("esxi"),
        "vhdx" => Some("hyperv"),
        "qcow2" => Some("kvm"),
        _ => None,
    }
}

/// The machine for a target, with its one disk in `file`, and where it is placed.
///
/// # Errors
/// What the target cannot express.
pub fn machine(
    target: &hypervisor::Target,
    image: &Path,
    kind: &str,
    size: Bytes,
) -> Result<(Machine, Placement)> {
    let text = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
    let odd = || {
        Error::refused("has a name that definitions cannot hold")
            .in_file(image)
            .hint("take letters, digits and -")
    };
    let (name, file) = (text(image.file_stem()).ok_or_else(odd)?, text(image.file_name()).ok_or_else(odd)?);
    let folder =
        std::path::absolute(image).ok().and_then(|path| path.parent().map(Path::to_owned)).ok_or_else(odd)?;
    let mut machine = Machine::new(name, MEMORY);
    machine.annotation =
        Some("landfall, the machine of a recovery site. Attach an empty disk for the vault.".into());
    machine.firmware = Firmware::Uefi;
    machine.cpus = Cpus::new(PROCESSORS, PROCESSORS, 1);
    machine.os = Some(OsId { distribution: "debian".into(), version: "13".into() });
    machine.os_label = Some("debian13-64".into());
    let mut disk = DiskSlot::new("disk0", Bus::Scsi, file.clone());
    disk.size = Some(size);
    machine.disks = vec![disk];
    machine.nics = vec![NicSlot::new("nic0")];
    let mut machine =
        attach::adapt(&machine, target.platform, &Devices { disks: Vec::new(), cards: Vec::new() })?;
    let format = landfall_image::formats::kind(kind)?.format.name().to_owned();
    for disk in &mut machine.disks {
        disk.file.clone_from(&file);
    }
    let placement = Placement {
        folder: text(Some(folder.as_os_str())).ok_or_else(odd)?,
        disks: vec![PlacedDisk { file, format, virtual_size: size, ..PlacedDisk::default() }],
        asks: ASKS.to_vec(),
        ..Placement::default()
    };
    Ok((machine, placement))
}

/// The definition that lies beside an image.
///
/// # Errors
/// What the target cannot express.
pub fn beside(image: &Path, kind: &str, size: Bytes) -> Result<Vec<Artifact>> {
    let Some(target) = target(kind).and_then(hypervisor::target) else { return Ok(Vec::new()) };
    let (machine, placement) = machine(target, image, kind, size)?;
    let Rendered { artifacts, .. } = (target.render)(&machine, &placement)?;
    Ok(artifacts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_definitions_and_ovf_asks_for_the_network() {
        let size = Bytes::gib(3);
        for kind in ["qcow2", "vmdk", "vhdx"] {
            let image = format!("/srv/images/landfall.{kind}");
            let artifacts = beside(Path::new(&image), kind, size).unwrap();
            let names_it =
                artifacts.iter().any(|artifact| artifact.text.contains(&format!("landfall.{kind}")));
            assert!(names_it, "{kind}: {artifacts:?}");
        }
        assert!(beside(Path::new("/x/landfall.raw"), "raw", size).unwrap().is_empty());
        let target = hypervisor::target("ova").unwrap();
        let (machine, placement) =
            machine(target, Path::new("/x/landfall.ova"), "vmdk-stream", size).unwrap();
        let rendered = (target.render)(&machine, &placement).unwrap();
        let text = &rendered.artifacts[0].text;
        assert!(text.contains("ovf:key=\"landfall.ip\"") && text.contains("ovf:transport=\"iso\""), "{text}");
        // Every key is one that is read.
        let document = include_str!("../../appliance/sources/ovf.rs");
        for asked in ASKS {
            let list = asked.key.trim_start_matches("landfall.");
            assert!(
                document.contains(asked.key) || document.contains(&format!("\"{list}\"")),
                "{}",
                asked.key
            );
        }
    }
}
