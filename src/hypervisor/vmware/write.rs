//! A .vmx for ESXi, and the scripts that register it: with govc and with PowerCLI.
//!
//! Sources: VMware's documentation of single parameters, and what ESXi 7 and 8 write themselves (see `vmx.rs`, which reads all
//! of it back). Deliberately absent: a virtual TPM, which needs a key provider and an encrypted configuration, vSphere's
//! tags, and port groups of distributed switches, which the scripts connect after the machine is registered.

use super::keys::quoted;
use super::nics::is_static;
use super::vmx::{serial, spaced};
use crate::finding;
use crate::hypervisor::text::{one_line, powershell, shell, shell_script};
use crate::hypervisor::{Artifact, Networks, Placement, Rendered, attach, fit, guests};
use crate::machine::{BootDevice, Bus, Clock, DiskSlot, Machine};
use landfall_boot::check::Finding;
use landfall_boot::target::{DiskModel, Firmware};
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Hardware of ESXi 7.0: the oldest that is still in use, and knows secure boot and NVMe.
pub(in crate::hypervisor) const HARDWARE: u32 = 17;

/// ethernet0 to ethernet9: the maximum of every release, in which more are not looked at.
pub(in crate::hypervisor) const CARDS_AT_MOST: usize = 10;

/// The network that ESXi makes when it is installed.
pub(in crate::hypervisor) const USUAL_NETWORK: &str = "VM Network";

/// The name of the machine's files: letters that every datastore and shell takes as they are.
pub(in crate::hypervisor) fn stem(name: &str) -> String {
    const AT_MOST: usize = 60;
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let stem: String = name.chars().map(plain).take(AT_MOST).collect();
    // Neither hidden nor an option.
    let stem = stem.trim_start_matches(['.', '-']);
    if stem.is_empty() { "machine".to_owned() } else { stem.to_owned() }
}

/// The machine's memory in MiB: vSphere takes multiples of four.
pub(in crate::hypervisor) fn mebibytes(machine: &Machine) -> u64 {
    fit::mebibytes(machine.memory).next_multiple_of(4).max(4)
}

/// `NAME.vmx`, `register.sh` and `register.ps1`.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    if machine.name.is_empty()
        || machine.name.chars().count() > 80
        || machine.name.chars().any(char::is_control)
    {
        return Err(Error::unsupported(format!(
            "vSphere takes no machine with the name {:?}: 1 to 80 letters are possible",
            machine.name
        ))
        .hint("give it another name with --name"));
    }
    if placement.disks.len() != machine.disks.len() {
        let says =
            format!("{} disks are placed, the machine has {}", placement.disks.len(), machine.disks.len());
        return Err(Error::corrupt(says));
    }
    fit::cards_at_most(machine, CARDS_AT_MOST, "vSphere")?;
    let mut findings = Vec::new();
    let lines = lines(machine, placement, &mut findings)?;
    let mut text = String::from(".encoding = \"UTF-8\"\n");
    for (key, value) in lines {
        let _ = writeln!(text, "{key} = {}", quoted(&value));
    }
    let name = format!("{}.vmx", stem(&machine.name));
    Ok(Rendered {
        artifacts: vec![
            Artifact::file(name, text),
            Artifact::script(
                "register.sh",
                script(include_str!("register.sh"), machine, placement, shell, " "),
            ),
            Artifact::file(
                "register.ps1",
                script(include_str!("register.ps1"), machine, placement, powershell, ", "),
            ),
        ],
        findings,
    })
}

/// The file of its firmware's settings; ESXi makes it where there is none.
pub fn variables_file(machine: &Machine) -> String {
    format!("{}.nvram", stem(&machine.name))
}

type Lines = Vec<(String, String)>;

fn lines(machine: &Machine, placement: &Placement, findings: &mut Vec<Finding>) -> Result<Lines> {
    let mut out = Lines::new();
    let mut set = |key: &str, value: &str| out.push((key.to_owned(), value.to_owned()));
    let guest = guests::of(machine);
    set("config.version", "8");
    set("virtualHW.version", &HARDWARE.to_string());
    set("displayName", &machine.name);
    set("guestOS", guest.vmx(HARDWARE));
    set("nvram", &variables_file(machine));
    if let Some(annotation) = &machine.annotation {
        set("annotation", annotation);
    }
    set("firmware", if machine.firmware == Firmware::Uefi { "efi" } else { "bios" });
    if machine.secure_boot {
        set("uefi.secureBoot.enabled", "TRUE");
    }
    set("numvcpus", &machine.cpus.count.to_string());
    let cores = machine.cpus.cores_per_socket.saturating_mul(machine.cpus.threads_per_core).max(1);
    set("cpuid.coresPerSocket", &cores.to_string());
    set("memSize", &mebibytes(machine).to_string());
    if let Some(uuid) = machine.smbios.uuid {
        set("uuid.bios", &spaced(uuid));
        // Else the first start asks whether the machine was copied, and a copy gets another id.
        set("uuid.action", "keep");
    }
    let own_serial = machine.smbios.uuid.map(serial);
    if let Some(serial) = machine.smbios.serial.as_ref().filter(|own| Some(*own) != own_serial.as_ref()) {
        set("serialNumber", serial);
    }
    if let Some(product) = &machine.smbios.product {
        set("hw.model", product);
    }
    if machine.clock == Clock::Utc && guest.is_windows() {
        set("rtc.diffFromUTC", "0");
    }
    // The root ports that cards and fast disks are plugged into.
    set("pciBridge0.present", "TRUE");
    for bridge in 4..8 {
        set(&format!("pciBridge{bridge}.present"), "TRUE");
        set(&format!("pciBridge{bridge}.virtualDev"), "pcieRootPort");
        set(&format!("pciBridge{bridge}.functions"), "8");
    }
    for (key, value) in [
        ("vmci0.present", "TRUE"),
        ("hpet0.present", "TRUE"),
        ("svga.present", "TRUE"),
        ("floppy0.present", "FALSE"),
        ("disk.EnableUUID", "TRUE"),
    ] {
        set(key, value);
    }
    out.extend(disks(machine, placement)?);
    out.extend(nics(machine, &placement.networks, findings));
    out.extend(boot(machine));
    findings.extend(not_held(machine));
    Ok(out)
}

fn disks(machine: &Machine, placement: &Placement) -> Result<Lines> {
    let mut controllers = BTreeMap::new();
    let mut out = Lines::new();
    for (disk, placed) in machine.disks.iter().zip(&placement.disks) {
        let Some((controller, _)) = disk.slot.split_once(':').filter(|_| is_place(disk)) else {
            return Err(Error::corrupt(format!("{:?} is no place of a disk at ESXi", disk.slot)));
        };
        let model = match (disk.bus, attach::model(disk)) {
            (Bus::Ide | Bus::Sata | Bus::Nvme, _) => None,
            (Bus::Scsi, Some(DiskModel::Pvscsi)) => Some("pvscsi"),
            (Bus::Scsi, Some(DiskModel::Lsi)) => Some("lsisas1068"),
            (Bus::Scsi, Some(DiskModel::LsiParallel)) => Some("lsilogic"),
            _ => {
                return Err(Error::corrupt(format!(
                    "{} is on a controller that ESXi does not have",
                    disk.slot
                )));
            }
        };
        controllers.insert(controller.to_owned(), (disk.bus, model));
        out.push((format!("{}.present", disk.slot), "TRUE".into()));
        out.push((format!("{}.fileName", disk.slot), placed.file.clone()));
        if disk.bus == Bus::Scsi {
            out.push((format!("{}.deviceType", disk.slot), "scsi-hardDisk".into()));
        }
    }
    let mut lines = Lines::new();
    for (controller, (bus, model)) in controllers {
        if bus != Bus::Ide {
            lines.push((format!("{controller}.present"), "TRUE".into()));
        }
        lines.extend(model.map(|model| (format!("{controller}.virtualDev"), model.to_owned())));
    }
    lines.extend(out);
    Ok(lines)
}

/// `scsi0:1`: letters, then two numbers.
fn is_place(disk: &DiskSlot) -> bool {
    let kind = match disk.bus {
        Bus::Scsi => "scsi",
        Bus::Sata => "sata",
        Bus::Nvme => "nvme",
        Bus::Ide => "ide",
        Bus::VirtioBlk | Bus::VirtioScsi | Bus::Vmbus | Bus::Xen => return false,
    };
    let numbers = disk.slot.strip_prefix(kind).and_then(|rest| rest.split_once(':'));
    numbers.is_some_and(|(bus, unit)| bus.parse::<u8>().is_ok() && unit.parse::<u8>().is_ok())
}

fn nics(machine: &Machine, networks: &Networks, findings: &mut Vec<Finding>) -> Lines {
    let mut out = Lines::new();
    for (number, nic) in machine.nics.iter().enumerate() {
        let mut set =
            |key: &str, value: &str| out.push((format!("ethernet{number}.{key}"), value.to_owned()));
        set("present", "TRUE");
        set("virtualDev", nic.model.as_deref().unwrap_or("vmxnet3"));
        set("networkName", networks.chosen(nic).unwrap_or(USUAL_NETWORK));
        findings.extend(fit::usual_network(nic, networks, USUAL_NETWORK));
        set("startConnected", if nic.connected { "TRUE" } else { "FALSE" });
        match &nic.mac {
            None => set("addressType", "generated"),
            Some(mac) => {
                set("addressType", "static");
                set("address", mac);
                if !is_static(mac) {
                    set("checkMACAddress", "FALSE");
                }
            }
        }
        if let Some(vlan) = nic.vlan {
            findings.push(finding::NOT_HELD.finding(
                format!("ethernet{number} is in the VLAN {vlan} at the source; at ESXi the port group puts it there."),
                format!("Plug it into a port group with the VLAN ID {vlan}."),
            ));
        }
    }
    out
}

fn boot(machine: &Machine) -> Lines {
    let mut out = Lines::new();
    if !machine.boot_order.is_empty() {
        let words: Vec<String> = machine
            .boot_order
            .iter()
            .map(|device| match device {
                BootDevice::Disk => "hdd".to_owned(),
                BootDevice::Cdrom => "cdrom".to_owned(),
                BootDevice::Nic(number) => format!("ethernet{number}"),
                BootDevice::Floppy => "floppy".to_owned(),
            })
            .collect();
        out.push(("bios.bootOrder".into(), words.join(",")));
    }
    let first = machine.boot_disk();
    if let Some(disk) = machine.disks.get(first).filter(|_| first > 0) {
        let others = machine.disks.iter().enumerate().filter(|(index, _)| *index != first);
        let slots = std::iter::once(disk.slot.as_str()).chain(others.map(|(_, disk)| disk.slot.as_str()));
        out.push(("bios.hddOrder".into(), slots.collect::<Vec<_>>().join(",")));
    }
    out
}

/// What of the machine neither a .vmx nor a descriptor for vSphere has a place for.
pub(in crate::hypervisor) fn not_held(machine: &Machine) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut lost = |says: String, remedy: &str| out.push(finding::NOT_HELD.finding(says, remedy));
    if machine.tpm {
        lost(
            "The machine has a virtual TPM, which needs a key provider of vCenter and is not made here."
                .into(),
            "Add a Trusted Platform Module to the machine in the vSphere Client before its first start.",
        );
    }
    if machine.clock == Clock::LocalTime {
        lost(
            "The machine's clock counts local time; ESXi hosts count UTC.".into(),
            "Let VMware Tools or the guest's time service set the clock, or set rtc.diffFromUTC to the offset in seconds.",
        );
    }
    let mib = mebibytes(machine);
    if mib << 20 != machine.memory.0 {
        lost(
            format!(
                "The machine has {} bytes of memory; vSphere takes multiples of 4 MiB, and gets {mib} MiB.",
                machine.memory.0
            ),
            "",
        );
    }
    let smbios = &machine.smbios;
    if let Some(serial) =
        smbios.serial.as_ref().filter(|own| **own != smbios.uuid.map(serial).unwrap_or_default())
    {
        lost(
            format!(
                "The guest reads the serial number {serial:?} at the source; ESXi makes one of the machine's UUID, and heeds another in few versions."
            ),
            "Look whether a licence in the guest goes by it (dmidecode -s system-serial-number).",
        );
    }
    let words = [
        ("manufacturer", &smbios.manufacturer),
        ("product", &smbios.product),
        ("version", &smbios.version),
        ("SKU", &smbios.sku),
        ("family", &smbios.family),
    ];
    let words: Vec<String> =
        words.iter().filter_map(|(name, word)| Some(format!("{name} {:?}", word.as_ref()?))).collect();
    if !words.is_empty() {
        lost(
            format!(
                "The guest reads of its board at the source: {}; at ESXi it reads VMware's own.",
                words.join(", ")
            ),
            "Look whether a licence in the guest goes by it.",
        );
    }
    if machine.cpus.threads_per_core > 1 {
        lost(
            format!(
                "A core has {} threads at the source; at ESXi each thread is a core.",
                machine.cpus.threads_per_core
            ),
            "",
        );
    }
    let serials: Vec<&str> =
        machine.disks.iter().filter(|disk| disk.serial.is_some()).map(|disk| disk.slot.as_str()).collect();
    if !serials.is_empty() {
        lost(
            format!(
                "The serial numbers of {} are others at ESXi, and so are their names in /dev/disk/by-id.",
                serials.join(", ")
            ),
            "Name disks by UUID in the guest where something goes by such names.",
        );
    }
    if !machine.tags.is_empty() {
        let tags: Vec<String> = machine.tags.iter().map(|tag| format!("{tag:?}")).collect();
        lost(
            format!(
                "The machine is filed under {}; vSphere's tags are not part of a definition.",
                tags.join(", ")
            ),
            "Assign them in vCenter (govc tags.attach).",
        );
    }
    out
}

fn script(
    template: &str,
    machine: &Machine,
    placement: &Placement,
    quote: fn(&str) -> String,
    between: &str,
) -> String {
    let list = |words: &mut dyn Iterator<Item = &str>| words.map(quote).collect::<Vec<_>>().join(between);
    let nets: Vec<&str> =
        machine.nics.iter().map(|nic| placement.networks.chosen(nic).unwrap_or(USUAL_NETWORK)).collect();
    shell_script(
        template,
        &[
            ("@TITLE@", one_line(&machine.name)),
            ("@NAME@", quote(&machine.name)),
            ("@STEM@", quote(&stem(&machine.name))),
            ("@DATASTORE@", quote(placement.storage.as_deref().unwrap_or_default())),
            ("@UUID@", quote(&machine.smbios.uuid.map(|uuid| uuid.to_string()).unwrap_or_default())),
            ("@MACS@", list(&mut machine.nics.iter().filter_map(|nic| nic.mac.as_deref()))),
            ("@FILES@", list(&mut placement.disks.iter().map(|disk| disk.file.as_str()))),
            ("@VARIABLES@", quote(placement.variables.as_deref().unwrap_or_default())),
            ("@NETWORKS@", list(&mut nets.into_iter())),
        ],
    )
}

#[cfg(test)]
mod tests;
