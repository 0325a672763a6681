//! libvirt's domain XML for QEMU with KVM, and the script that registers it.
//!
//! Structure follows libvirt's own schema (domain.rng), against which the tests check what is written here. The
//! machine type, the emulator and the firmware files are left to libvirt: it knows the host's.

use crate::hypervisor::text::{fill, shell};
use crate::hypervisor::xml::{self, Xml, empty, is_plain, parent, text};
use crate::hypervisor::{Artifact, Placement, Rendered};
use crate::machine::{Bus, Clock, Machine, OsId};
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};
use std::io;

/// `domain.xml` and `register.sh`.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    if machine.name.is_empty() || machine.name.contains('/') || !machine.name.chars().all(is_plain) {
        return Err(Error::unsupported(format!("libvirt takes no machine with the name {:?}", machine.name))
            .hint("give it another name with --name"));
    }
    if !placement.folder.chars().all(is_plain) {
        return Err(Error::unsupported(format!("XML cannot hold the folder name {:?}", placement.folder))
            .hint("choose another folder with -o"));
    }
    if let Some(disk) = machine.disks.iter().find(|disk| bus(disk.bus).is_none()) {
        return Err(Error::corrupt(format!("{} is on a controller that KVM does not have", disk.slot)));
    }
    if machine.secure_boot && is_i440fx(machine) {
        return Err(Error::unsupported(
            "the guest's kernel drives IDE disks only, and QEMU's machine with IDE has no secure boot",
        )
        .hint("install the distribution's standard kernel in the guest before the move"));
    }
    if placement.disks.len() != machine.disks.len() {
        return Err(Error::corrupt(format!(
            "{} disks are placed, the machine has {}",
            placement.disks.len(),
            machine.disks.len()
        )));
    }
    let domain = xml::document(|xml| write_domain(xml, machine, placement))?;
    Ok(Rendered {
        artifacts: vec![
            Artifact::file("domain.xml", domain),
            Artifact::script("register.sh", script(machine, placement)),
        ],
        findings: Vec::new(),
    })
}

/// Only QEMU's older machine has IDE.
fn is_i440fx(machine: &Machine) -> bool {
    machine.disks.iter().any(|disk| disk.bus == Bus::Ide)
}

/// libvirt's name of a bus.
fn bus(bus: Bus) -> Option<&'static str> {
    match bus {
        Bus::VirtioBlk => Some("virtio"),
        Bus::VirtioScsi => Some("scsi"),
        Bus::Sata => Some("sata"),
        Bus::Ide => Some("ide"),
        Bus::Scsi | Bus::Nvme | Bus::Vmbus | Bus::Xen => None,
    }
}

/// The network that libvirt makes when it is installed.
const USUAL_NETWORK: &str = "default";

fn write_domain(xml: &mut Xml, machine: &Machine, placement: &Placement) -> io::Result<()> {
    crate::hypervisor::xml::declaration(xml)?;
    parent(xml, "domain", &[("type", "kvm")], |xml| {
        text(xml, "name", &[], &machine.name)?;
        if let Some(uuid) = machine.smbios.uuid {
            text(xml, "uuid", &[], &uuid.to_string())?;
        }
        if let Some(annotation) = &machine.annotation {
            // XML has no way to write most control characters; libvirt would refuse the whole definition.
            text(xml, "description", &[], &xml::holdable(annotation))?;
        }
        if let Some(id) = machine.os.as_ref().and_then(osinfo) {
            const NAMESPACE: &str = "http://libosinfo.org/xmlns/libvirt/domain/1.0";
            parent(xml, "metadata", &[], |xml| {
                parent(xml, "libosinfo:libosinfo", &[("xmlns:libosinfo", NAMESPACE)], |xml| {
                    empty(xml, "libosinfo:os", &[("id", &id)])
                })
            })?;
        }
        text(xml, "memory", &[("unit", "MiB")], &(machine.memory.0 >> 20).to_string())?;
        text(xml, "vcpu", &[("placement", "static")], &machine.cpus.count.to_string())?;
        if machine.smbios.serial.is_some() {
            parent(xml, "sysinfo", &[("type", "smbios")], |xml| {
                parent(xml, "system", &[], |xml| {
                    if let Some(serial) = &machine.smbios.serial {
                        text(xml, "entry", &[("name", "serial")], serial)?;
                    }
                    if let Some(uuid) = machine.smbios.uuid {
                        text(xml, "entry", &[("name", "uuid")], &uuid.to_string())?;
                    }
                    Ok(())
                })
            })?;
        }
        os(xml, machine)?;
        parent(xml, "features", &[], |xml| {
            empty(xml, "acpi", &[])?;
            empty(xml, "apic", &[])?;
            if machine.secure_boot { empty(xml, "smm", &[("state", "on")]) } else { Ok(()) }
        })?;
        let cores = machine.cpus.cores_per_socket.max(1);
        parent(xml, "cpu", &[("mode", "host-model")], |xml| {
            let sockets = (machine.cpus.count / cores).max(1).to_string();
            empty(xml, "topology", &[("sockets", &sockets), ("cores", &cores.to_string()), ("threads", "1")])
        })?;
        let base = if machine.clock == Clock::LocalTime { "localtime" } else { "utc" };
        empty(xml, "clock", &[("offset", base)])?;
        text(xml, "on_poweroff", &[], "destroy")?;
        text(xml, "on_reboot", &[], "restart")?;
        text(xml, "on_crash", &[], "destroy")?;
        parent(xml, "devices", &[], |xml| devices(xml, machine, placement))
    })
}

fn os(xml: &mut Xml, machine: &Machine) -> io::Result<()> {
    let uefi = machine.firmware == Firmware::Uefi;
    let attributes: &[(&str, &str)] = if uefi { &[("firmware", "efi")] } else { &[] };
    parent(xml, "os", attributes, |xml| {
        let board = if is_i440fx(machine) { "pc" } else { "q35" };
        text(xml, "type", &[("arch", "x86_64"), ("machine", board)], "hvm")?;
        if uefi {
            let state = if machine.secure_boot { "yes" } else { "no" };
            parent(xml, "firmware", &[], |xml| {
                empty(xml, "feature", &[("enabled", state), ("name", "secure-boot")])?;
                empty(xml, "feature", &[("enabled", state), ("name", "enrolled-keys")])
            })?;
        }
        if machine.smbios.serial.is_some() { empty(xml, "smbios", &[("mode", "sysinfo")]) } else { Ok(()) }
    })
}

fn devices(xml: &mut Xml, machine: &Machine, placement: &Placement) -> io::Result<()> {
    for (index, (disk, placed)) in machine.disks.iter().zip(&placement.disks).enumerate() {
        let bus = bus(disk.bus).unwrap_or_default();
        parent(xml, "disk", &[("type", "file"), ("device", "disk")], |xml| {
            empty(xml, "driver", &[("name", "qemu"), ("type", &placed.format), ("discard", "unmap")])?;
            empty(xml, "source", &[("file", &format!("{}/{}", placement.folder, placed.file))])?;
            if let Some(size) = disk.sector_size {
                let size = size.0.to_string();
                let sizes = [("logical_block_size", size.as_str()), ("physical_block_size", size.as_str())];
                empty(xml, "blockio", &sizes)?;
            }
            empty(xml, "target", &[("dev", &disk.slot), ("bus", bus)])?;
            // Only one disk is a boot disk: the firmware must not try a data disk's left-over boot sector.
            if index == machine.boot_disk() { empty(xml, "boot", &[("order", "1")]) } else { Ok(()) }
        })?;
    }
    if machine.disks.iter().any(|disk| disk.bus == Bus::VirtioScsi) {
        empty(xml, "controller", &[("type", "scsi"), ("index", "0"), ("model", "virtio-scsi")])?;
    }
    for nic in &machine.nics {
        let network = placement.networks.chosen(nic).unwrap_or(USUAL_NETWORK);
        let bridge = network.strip_prefix("bridge:");
        parent(xml, "interface", &[("type", if bridge.is_some() { "bridge" } else { "network" })], |xml| {
            if let Some(mac) = &nic.mac {
                empty(xml, "mac", &[("address", mac)])?;
            }
            match bridge {
                Some(bridge) => empty(xml, "source", &[("bridge", bridge)])?,
                None => empty(xml, "source", &[("network", network)])?,
            }
            let model = nic.model.as_deref().filter(|model| *model != "virtio-net").unwrap_or("virtio");
            empty(xml, "model", &[("type", model)])?;
            if nic.connected { Ok(()) } else { empty(xml, "link", &[("state", "down")]) }
        })?;
    }
    parent(xml, "serial", &[("type", "pty")], |xml| empty(xml, "target", &[("port", "0")]))?;
    parent(xml, "channel", &[("type", "unix")], |xml| {
        empty(xml, "target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")])
    })?;
    if machine.tpm {
        parent(xml, "tpm", &[("model", "tpm-crb")], |xml| {
            empty(xml, "backend", &[("type", "emulator"), ("version", "2.0")])
        })?;
    }
    empty(xml, "graphics", &[("type", "vnc"), ("autoport", "yes")])?;
    parent(xml, "video", &[], |xml| empty(xml, "model", &[("type", "vga")]))?;
    empty(xml, "memballoon", &[("model", "virtio")])?;
    parent(xml, "rng", &[("model", "virtio")], |xml| {
        text(xml, "backend", &[("model", "random")], "/dev/urandom")
    })
}

/// The id that libosinfo's database has for an operating system, where the scheme of its ids is known.
fn osinfo(os: &OsId) -> Option<String> {
    let site = match os.distribution.as_str() {
        "debian" => "debian.org/debian",
        "ubuntu" => "ubuntu.com/ubuntu",
        _ => return None,
    };
    (!os.version.is_empty()).then(|| format!("http://{site}/{}", os.version))
}

fn script(machine: &Machine, placement: &Placement) -> String {
    let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    let files: Vec<String> = placement.disks.iter().map(|disk| shell(&disk.file)).collect();
    fill(
        include_str!("register.sh"),
        &[
            ("@NAME@", shell(&machine.name)),
            ("@UUID@", shell(&machine.smbios.uuid.map(|uuid| uuid.to_string()).unwrap_or_default())),
            ("@MACS@", shell(&macs.join(" "))),
            ("@FILES@", files.join(" ")),
            ("@FOLDER@", shell(&crate::hypervisor::xml::escape(&placement.folder))),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Bytes;

    fn machine(name: &str) -> Machine {
        let text = "config.version = \"8\"\nannotation = \"two|0Alines|01|1b[2J\"";
        Machine {
            name: name.into(),
            ..crate::hypervisor::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine
        }
    }

    fn placement(folder: &str) -> Placement {
        Placement { folder: folder.to_owned(), ..Placement::default() }
    }

    #[test]
    fn a_name_that_looks_like_a_mark_stays_in_its_quotes() {
        let name = "@FOLDER@$(reboot)@UUID@";
        let files = render(&machine(name), &placement(&format!("/out/{name}"))).unwrap().artifacts;
        let script = &files[1].text;
        assert!(script.contains("\nname='@FOLDER@$(reboot)@UUID@'\nuuid=''\n"), "{script}");
        assert!(script.contains("\nwritten_for='/out/@FOLDER@$(reboot)@UUID@'\n"), "{script}");
        assert!(!fill("@A@ @B@", &[("@A@", "@B@".into()), ("@B@", "x".into())]).contains("x x"));
    }

    #[test]
    fn what_xml_cannot_hold_is_left_out_or_refused() {
        let files = render(&machine("a"), &placement("/out/a")).unwrap().artifacts;
        assert!(files[0].text.contains("<description>two\nlines[2J</description>"), "{}", files[0].text);
        for (name, folder) in [("a\u{1}", "/out/a"), ("a\n", "/out/a"), ("a", "/o\tut/a"), ("a/b", "/out")] {
            assert!(render(&machine(name), &placement(folder)).is_err(), "{name:?} {folder:?}");
        }
    }

    #[test]
    fn disks_keep_their_sectors() {
        let text = "config.version = \"8\"\nscsi0.present=TRUE\nscsi0:0.present=TRUE\nscsi0:0.fileName=a\n\
                    scsi0:1.present=TRUE\nscsi0:1.fileName=b\n";
        let mut machine =
            crate::hypervisor::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine;
        machine.name = "a".into();
        machine.disks[1].sector_size = Some(Bytes(4096));
        let platform = landfall_boot::target::Platform::Kvm;
        let machine = crate::hypervisor::attach::adapt(&machine, platform, &Default::default()).unwrap();
        let disk = |n| crate::hypervisor::PlacedDisk {
            file: format!("disk{n}"),
            format: "raw".into(),
            ..Default::default()
        };
        let placement = Placement { disks: vec![disk(0), disk(1)], ..placement("/out/a") };
        let xml = render(&machine, &placement).unwrap().artifacts.remove(0).text;
        let blockio = "<blockio logical_block_size=\"4096\" physical_block_size=\"4096\"/>";
        assert_eq!(xml.matches("<blockio").count(), 1, "{xml}");
        assert!(xml.split("dev=\"vda\"").nth(1).unwrap().contains(blockio), "{xml}");
    }

    #[test]
    fn shell_words_survive_quotes() {
        assert_eq!(shell("it's"), r"'it'\''s'");
    }
}
