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

/// The targets whose definitions lie beside an image of a form. An OVA has its own in it; Azure's script goes by the manifest of a
/// conversion.
pub fn targets(kind: &str) -> &'static [&'static str] {
    match kind {
        "qcow2" | "raw" => &["kvm", "proxmox", "ahv"],
        "vmdk" => &["esxi"],
        "vhdx" => &["hyperv"],
        _ => &[],
    }
}

/// Where libvirt keeps images: what its definition names. Not where the image is built: the same inputs give the same bytes in every folder,
/// and the script beside it puts the image's real place in.
const FOLDER: &str = "/var/lib/libvirt/images";
/// The same of Proxmox VE.
const PROXMOX: &str = "/var/lib/vz/import";

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
        folder: if target.name == "proxmox" { PROXMOX } else { FOLDER }.to_owned(),
        disks: vec![PlacedDisk { file, format, virtual_size: size, ..PlacedDisk::default() }],
        asks: ASKS.to_vec(),
        asks_network: true,
        without_agent: true,
        ..Placement::default()
    };
    Ok((machine, placement))
}

/// The definitions that lie beside an image, each file called after the image and the target (`landfall.qcow2.proxmox.register.sh`): one
/// folder holds several images, and each of several targets has its `register.sh`. They find the image, and each other, beside them.
///
/// # Errors
/// What a target cannot express.
pub fn beside(image: &Path, kind: &str, size: Bytes) -> Result<Vec<Artifact>> {
    let mut all = Vec::new();
    for target in targets(kind).iter().filter_map(|name| hypervisor::target(name)) {
        let (machine, placement) = machine(target, image, kind, size)?;
        let Rendered { mut artifacts, .. } = (target.render)(&machine, &placement)?;
        // The scripts for ESXi want an image that it starts from; this one is for other programs of VMware's.
        artifacts.retain(|artifact| target.name != "esxi" || artifact.name.ends_with(".vmx"));
        all.extend(named_after(image, target.name, artifacts));
    }
    Ok(all)
}

fn named_after(image: &Path, target: &str, mut artifacts: Vec<Artifact>) -> Vec<Artifact> {
    let file = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = format!("{}.", image.file_stem().unwrap_or_default().to_string_lossy());
    let names: Vec<(String, String)> = artifacts
        .iter()
        .map(|artifact| artifact.name.clone())
        .filter(|name| !name.starts_with(&stem))
        .map(|name| (name.clone(), format!("{file}.{target}.{name}")))
        .collect();
    for artifact in &mut artifacts {
        for (old, new) in &names {
            artifact.text = artifact.text.replace(old, new);
            if artifact.name == *old {
                artifact.name.clone_from(new);
            }
        }
    }
    artifacts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_definitions_and_ovf_asks_for_the_network() {
        let size = Bytes::gib(3);
        let mut names = Vec::new();
        for (ending, kind) in
            [("qcow2", "qcow2"), ("raw", "raw"), ("vmdk", "vmdk"), ("vhdx", "vhdx"), ("ova", "ova")]
        {
            let image = format!("/srv/images/landfall.{ending}");
            let artifacts = beside(Path::new(&image), kind, size).unwrap();
            for artifact in &artifacts {
                // The same bytes wherever they are made.
                assert!(!artifact.text.contains("/srv/images"), "{}", artifact.name);
                if artifact.executable {
                    assert!(
                        artifact.text.contains(&artifact.name),
                        "{} says how it is called",
                        artifact.name
                    );
                }
            }
            let is_named =
                artifacts.iter().any(|artifact| artifact.text.contains(&format!("landfall.{ending}")));
            assert!(is_named || ending == "ova", "{artifacts:?}");
            names.extend(artifacts.into_iter().map(|artifact| artifact.name));
        }
        for name in [
            "landfall.qcow2.kvm.domain.xml",
            "landfall.raw.proxmox.register.sh",
            "landfall.vmx",
            "landfall.vhdx.hyperv.register.ps1",
        ] {
            assert!(names.iter().any(|other| other == name), "{names:?}");
        }
        let mut proxmox = beside(Path::new("/x/lf.raw"), "raw", size).unwrap();
        proxmox.retain(|artifact| artifact.name.contains(".proxmox."));
        assert!(
            !proxmox.is_empty() && !proxmox.iter().any(|artifact| artifact.text.contains("agent")),
            "{proxmox:?}"
        );
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
        // AHV has no network that every cluster has: its script asks for one.
        let ahv = beside(Path::new("/x/landfall.qcow2"), "qcow2", size).unwrap();
        let ahv = ahv.iter().find(|artifact| artifact.name == "landfall.qcow2.ahv.register.sh").unwrap();
        assert!(ahv.text.contains("asked=yes") && ahv.text.contains("\"network=$network\""), "{}", ahv.text);
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
