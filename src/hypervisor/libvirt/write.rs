//! libvirt's domain XML for QEMU with KVM, the script that registers it, and the same machine as QEMU's command line.
//!
//! Structure follows libvirt's own schema (domain.rng), against which the tests check what is written here. The
//! machine type, the emulator and the firmware files are left to libvirt: it knows the host's.
//!
//! Deliberately absent: where devices sit on the PCI bus, which libvirt chooses (the guest is changed to go by other marks), and
//! tuning of the host.

mod devices;
mod fitted;

use super::qemu;
use crate::hypervisor::text::{shell, shell_script};
use crate::hypervisor::xml::{self, Xml, empty, is_plain, parent, text};
use crate::hypervisor::{Artifact, Placement, Rendered, guests};
use crate::machine::{Bus, Clock, Cpus, Machine};
pub use fitted::NO_NETWORK;
pub(super) use fitted::{Fitted, Plug};
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};
use std::io;

/// `domain.xml`, `register.sh` and `qemu.sh`.
///
/// # Errors
/// Unsupported where libvirt takes no such name, folder or secure boot; refused for networks that cannot be; corrupt where the
/// machine was not adapted to KVM's devices.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    check(machine, placement)?;
    let fitted = Fitted::new(machine, placement)?;
    let domain = xml::document(|xml| write_domain(xml, &fitted))?;
    Ok(Rendered {
        artifacts: vec![
            Artifact::file("domain.xml", domain),
            Artifact::script("register.sh", script(machine, placement)),
            Artifact::script("qemu.sh", qemu::script(&fitted)),
        ],
        findings: fitted.findings,
    })
}

fn check(machine: &Machine, placement: &Placement) -> Result<()> {
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
    if let Some((disk, size)) = machine.disks.iter().find_map(|disk| {
        let is_ata = matches!(disk.bus, Bus::Sata | Bus::Ide);
        disk.sector_size.filter(|_| is_ata).map(|size| (disk, size))
    }) {
        return Err(Error::unsupported(format!(
            "{} has sectors of {} bytes, and QEMU's ATA disks have 512",
            disk.slot, size.0
        ))
        .hint(
            "install the distribution's standard kernel in the guest before the move: it drives virtio disks",
        ));
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
    Ok(())
}

/// Only QEMU's older machine has IDE.
pub(super) fn is_i440fx(machine: &Machine) -> bool {
    machine.disks.iter().any(|disk| disk.bus == Bus::Ide)
}

/// Secure boot is the UEFI firmware's.
pub(super) fn enforces_secure_boot(machine: &Machine) -> bool {
    machine.secure_boot && machine.firmware == Firmware::Uefi
}

/// Sockets, cores and threads that go together, as libvirt and QEMU demand.
pub(super) fn topology(machine: &Machine) -> Cpus {
    let Cpus { count, cores_per_socket, threads_per_core } = machine.cpus;
    Cpus::new(count, cores_per_socket, threads_per_core)
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

/// The namespace of what libvirt keeps for this program. libvirt keeps one element of a namespace.
const OURS: &str = "urn:landfall:tags:1";
const LIBOSINFO: &str = "http://libosinfo.org/xmlns/libvirt/domain/1.0";

fn write_domain(xml: &mut Xml, fitted: &Fitted<'_>) -> io::Result<()> {
    let machine = fitted.machine;
    crate::hypervisor::xml::declaration(xml)?;
    let emulated = fitted.placement.emulated;
    parent(xml, "domain", &[("type", if emulated { "qemu" } else { "kvm" })], |xml| {
        text(xml, "name", &[], &machine.name)?;
        if let Some(uuid) = machine.smbios.uuid {
            text(xml, "uuid", &[], &uuid.to_string())?;
        }
        if let Some(annotation) = &machine.annotation {
            // XML has no way to write most control characters; libvirt would refuse the whole definition.
            text(xml, "description", &[], &xml::holdable(annotation))?;
        }
        metadata(xml, machine)?;
        // libvirt counts in KiB and rounds up to what the host can give.
        let (unit, size) = match machine.memory.0.is_multiple_of(1 << 20) {
            true => ("MiB", machine.memory.0 >> 20),
            false => ("KiB", machine.memory.0.div_ceil(1024)),
        };
        text(xml, "memory", &[("unit", unit)], &size.to_string())?;
        text(xml, "vcpu", &[("placement", "static")], &topology(machine).count.to_string())?;
        if !fitted.smbios.is_empty() {
            parent(xml, "sysinfo", &[("type", "smbios")], |xml| {
                parent(xml, "system", &[], |xml| {
                    for (name, value) in &fitted.smbios {
                        text(xml, "entry", &[("name", name)], value)?;
                    }
                    if let Some(uuid) = machine.smbios.uuid {
                        text(xml, "entry", &[("name", "uuid")], &uuid.to_string())?;
                    }
                    Ok(())
                })
            })?;
        }
        os(xml, fitted)?;
        parent(xml, "features", &[], |xml| {
            empty(xml, "acpi", &[])?;
            empty(xml, "apic", &[])?;
            if enforces_secure_boot(machine) { empty(xml, "smm", &[("state", "on")]) } else { Ok(()) }
        })?;
        let cpus = topology(machine);
        parent(xml, "cpu", &[("mode", if emulated { "maximum" } else { "host-model" })], |xml| {
            let (sockets, cores, threads) = (
                cpus.sockets().to_string(),
                cpus.cores_per_socket.to_string(),
                cpus.threads_per_core.to_string(),
            );
            empty(xml, "topology", &[("sockets", &sockets), ("cores", &cores), ("threads", &threads)])?;
            // The emulation's cmpxchg16b is wrong up to QEMU 7.2.
            if emulated { empty(xml, "feature", &[("policy", "disable"), ("name", "cx16")]) } else { Ok(()) }
        })?;
        let base = if machine.clock == Clock::LocalTime { "localtime" } else { "utc" };
        empty(xml, "clock", &[("offset", base)])?;
        text(xml, "on_poweroff", &[], "destroy")?;
        text(xml, "on_reboot", &[], "restart")?;
        text(xml, "on_crash", &[], "destroy")?;
        parent(xml, "devices", &[], |xml| devices::write(xml, fitted))
    })
}

/// What the guest's system is, and what the machine is filed under.
fn metadata(xml: &mut Xml, machine: &Machine) -> io::Result<()> {
    let id = guests::libosinfo_id(machine);
    if id.is_none() && machine.tags.is_empty() {
        return Ok(());
    }
    parent(xml, "metadata", &[], |xml| {
        if let Some(id) = &id {
            parent(xml, "libosinfo:libosinfo", &[("xmlns:libosinfo", LIBOSINFO)], |xml| {
                empty(xml, "libosinfo:os", &[("id", &xml::holdable(id))])
            })?;
        }
        if machine.tags.is_empty() {
            return Ok(());
        }
        parent(xml, "landfall:tags", &[("xmlns:landfall", OURS)], |xml| {
            machine.tags.iter().try_for_each(|tag| text(xml, "landfall:tag", &[], &xml::holdable(tag)))
        })
    })
}

fn os(xml: &mut Xml, fitted: &Fitted<'_>) -> io::Result<()> {
    let machine = fitted.machine;
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
            // libvirt makes a new file of its template only where there is none.
            if let Some(file) = &fitted.placement.variables {
                text(xml, "nvram", &[], &format!("{}/{file}", fitted.placement.folder))?;
            }
        }
        if fitted.smbios.is_empty() { Ok(()) } else { empty(xml, "smbios", &[("mode", "sysinfo")]) }
    })
}

fn script(machine: &Machine, placement: &Placement) -> String {
    let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    let files = placement.disks.iter().map(|disk| &disk.file).chain(&placement.variables);
    let files: Vec<String> = files.map(|file| shell(file)).collect();
    shell_script(
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
mod tests;
