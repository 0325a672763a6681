//! oVirt: `machine.ovf` as its engine reads it, and the script that uploads the disks and makes the machine of it.
//!
//! Source: what the engine's OvfReader looks for. It is an OVF 0.9 of its own kind: sections by `xsi:type`, sizes in GiB, disks by
//! the ids that the engine gave them, so that the standard's schema does not fit it. Deliberately absent: quotas, permissions,
//! affinity, which belong to the engine.

use crate::finding;
use crate::hypervisor::text::{shell, shell_script};
use crate::hypervisor::xml::{self, Xml, empty, parent, text};
use crate::hypervisor::{Artifact, PlacedDisk, Placement, Rendered, fit, guests};
use crate::machine::{BootDevice, Bus, Clock, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};
use std::io;
use uuid::{Builder, Uuid};

const TITLE: &str = "oVirt";
/// The network that the engine makes at its installation.
const USUAL_NETWORK: &str = "ovirtmgmt";
const WINDOWS: &str = "windows_10x64";
const NAME_AT_MOST: usize = 255;
/// Names of disk interfaces.
const BUSES: &[(&str, &str)] =
    &[("virtio", "VirtIO"), ("scsi", "VirtIO_SCSI"), ("sata", "SATA"), ("ide", "IDE")];
/// Numbers of network cards.
const CARDS: &[(&str, u8)] = &[("rtl8139", 1), ("e1000", 2), ("virtio", 3), ("e1000e", 6)];
const NAMESPACES: [(&str, &str); 4] = [
    ("xmlns:ovf", "http://schemas.dmtf.org/ovf/envelope/1/"),
    ("xmlns:rasd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"),
    ("xmlns:vssd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"),
    ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
];

/// The files.
///
/// # Errors
/// Unsupported for sectors of 4096 bytes and for controllers and cards that it has not.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    let placed = fit::disks(machine, placement, TITLE)?;
    let mut findings = Vec::new();
    let name = name(machine, &mut findings);
    let mut disks = Vec::new();
    for (index, (slot, placed)) in placed.into_iter().enumerate() {
        disks.push(Disk {
            id: id(placement, machine, &format!("disk {index}")),
            image: id(placement, machine, &format!("image {index}")),
            bus: named(BUSES, fit::kvm_bus(slot)?)?,
            boots: index == machine.boot_disk(),
            alias: format!("{name}-disk{index}"),
            placed,
        });
    }
    let mut cards = Vec::new();
    for (index, nic) in machine.nics.iter().enumerate() {
        cards.push((
            id(placement, machine, &format!("nic {index}")),
            named(CARDS, fit::kvm_card(nic)?)?,
            nic,
        ));
    }
    lost(machine, placement, &mut findings);
    let vm = machine.smbios.uuid.unwrap_or_else(|| id(placement, machine, "machine"));
    let ovf = Ovf { machine, placement, name: &name, vm, disks: &disks, cards: &cards };
    let text = xml::document(|xml| ovf.write(xml))?;

    let uploads: Vec<String> = disks
        .iter()
        .map(|disk| {
            let words =
                [&disk.placed.file, &disk.placed.format, &disk.alias].map(|word| shell(word)).join(" ");
            format!("upload {} {} {words}", disk.id, disk.image)
        })
        .collect();
    let files: Vec<String> = disks.iter().map(|disk| shell(&disk.placed.file)).collect();
    let ids: Vec<String> = disks.iter().map(|disk| disk.id.to_string()).collect();
    let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    let script = shell_script(
        include_str!("register.sh"),
        &[
            ("@NAME@", shell(&name)),
            ("@UUID@", vm.to_string()),
            ("@MACS@", shell(&macs.join(" "))),
            ("@TPM@", if machine.tpm { "yes" } else { "no" }.into()),
            ("@STORAGE@", shell(placement.storage.as_deref().unwrap_or_default())),
            ("@FILES@", files.join(" ")),
            ("@DISKS@", ids.join(" ")),
            ("@UPLOADS@", uploads.join("\n")),
        ],
    );
    let artifacts = vec![Artifact::file("machine.ovf", text), Artifact::script("register.sh", script)];
    Ok(Rendered { artifacts, findings })
}

struct Disk<'a> {
    /// Id of the disk, which the script gives it.
    id: Uuid,
    /// Id of its image, which the engine gives it: the script puts it in place of this one.
    image: Uuid,
    bus: &'static str,
    boots: bool,
    alias: String,
    placed: &'a PlacedDisk,
}

/// An id that is the same at every rendering of the same output, and no other's.
fn id(placement: &Placement, machine: &Machine, part: &str) -> Uuid {
    let mut hasher = blake3::Hasher::new();
    for text in [placement.folder.as_str(), machine.name.as_str(), part] {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Builder::from_random_bytes(bytes).into_uuid()
}

/// What the machine is called there.
pub fn called(wanted: &str) -> String {
    let fitting = |letter: char| match letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.') {
        true => letter,
        false => '-',
    };
    let name: String = wanted.chars().map(fitting).take(NAME_AT_MOST).collect();
    // A name that begins like an option is taken for one.
    let name = name.trim_start_matches(['-', '.']);
    if name.is_empty() { "machine".to_owned() } else { name.to_owned() }
}

fn name(machine: &Machine, findings: &mut Vec<Finding>) -> String {
    let name = called(&machine.name);
    if name != machine.name {
        findings.push(finding::NAME_CHANGED.finding(
            format!("{TITLE} takes no machine with the name {:?}: it is {name} there.", machine.name),
            "",
        ));
    }
    name
}

/// The engine's word for KVM's.
fn named<T: Copy>(words: &[(&str, T)], kvm: &str) -> Result<T> {
    let found = words.iter().find(|(word, _)| *word == kvm);
    found.map(|(_, own)| *own).ok_or_else(|| Error::corrupt(format!("{TITLE} has no word for {kvm}")))
}

/// The engine's number of a chipset with its firmware.
fn bios(machine: &Machine) -> u8 {
    match (machine.firmware, machine.secure_boot) {
        (Firmware::Uefi, true) => 4,
        (Firmware::Uefi, false) => 3,
        (Firmware::Bios, _) if machine.disks.iter().any(|disk| disk.bus == Bus::Ide) => 1,
        (Firmware::Bios, _) => 2,
    }
}

/// The engine's number of a boot sequence: disk (c) and network (n).
fn sequence(machine: &Machine) -> u8 {
    let at = |wanted: fn(&BootDevice) -> bool| machine.boot_order.iter().position(wanted);
    match (at(|device| *device == BootDevice::Disk), at(|device| matches!(device, BootDevice::Nic(_)))) {
        (_, None) => 0,
        (Some(disk), Some(nic)) if disk < nic => 11,
        _ => 13,
    }
}

/// The engine's unique name of the operating system, of those that every release of the engine has.
fn os(machine: &Machine) -> &'static str {
    match guests::of(machine) {
        guest if guest.is_windows() => WINDOWS,
        guest if guest.is_linux() => "other_linux",
        _ => "other",
    }
}

fn lost(machine: &Machine, placement: &Placement, findings: &mut Vec<Finding>) {
    let mut what = fit::smbios_strings(machine, false);
    let serials = machine.disks.iter().filter_map(|disk| Some((disk, disk.serial.as_ref()?)));
    what.extend(serials.map(|(disk, serial)| {
        format!("the serial number {serial:?} of {} (it is the disk's id)", disk.file)
    }));
    findings.extend(fit::not_held(&what, TITLE, "Look whether licences, agents or /etc/fstab go by it."));
    for nic in &machine.nics {
        if let Some(tag) = nic.vlan {
            findings.push(finding::NOT_HELD.finding(
                format!("{} is in the VLAN {tag}, which a logical network says, not the machine.", nic.slot),
                "Choose the network of that VLAN with --map-network.",
            ));
        }
        findings.extend(fit::usual_network(nic, &placement.networks, USUAL_NETWORK));
    }
    let guest = guests::of(machine);
    let release = guest.osinfo().filter(|release| release != "win10");
    if let Some(release) = release.filter(|_| guest.is_windows()) {
        findings.push(finding::NOT_HELD.finding(
            format!("The guest is {release}; in the definition it is {WINDOWS}, the Windows that every release of {TITLE} knows."),
            "Choose its own operating system in the machine's settings before the first start.",
        ));
    }
    if machine.clock == Clock::LocalTime {
        findings.push(finding::NOT_HELD.finding(
            "The clock counts local time; the engine wants the name of the time zone, and takes its default.",
            "Set the time zone in the machine's system settings.",
        ));
    }
}

struct Ovf<'a> {
    machine: &'a Machine,
    placement: &'a Placement,
    name: &'a str,
    vm: Uuid,
    disks: &'a [Disk<'a>],
    cards: &'a [(Uuid, u8, &'a NicSlot)],
}

impl Ovf<'_> {
    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        crate::hypervisor::xml::declaration(xml)?;
        let mut attributes = NAMESPACES.to_vec();
        attributes.push(("ovf:version", "4.4.0.0"));
        parent(xml, "ovf:Envelope", &attributes, |xml| {
            parent(xml, "References", &[], |xml| {
                for disk in self.disks {
                    let (href, id) = (disk.path(), disk.image.to_string());
                    let size = disk.placed.stored.unwrap_or(disk.placed.virtual_size).0.to_string();
                    let attributes = [
                        ("ovf:href", href.as_str()),
                        ("ovf:id", &id),
                        ("ovf:size", &size),
                        ("ovf:description", "landfall"),
                        ("ovf:disk_storage_type", "IMAGE"),
                    ];
                    empty(xml, "File", &attributes)?;
                }
                for (id, ..) in self.cards {
                    empty(xml, "Nic", &[("ovf:id", &id.to_string())])?;
                }
                Ok(())
            })?;
            parent(xml, "NetworkSection", &[], |xml| {
                text(xml, "Info", &[], "List of networks")?;
                let mut names: Vec<&str> = self.cards.iter().map(|(.., nic)| self.network(nic)).collect();
                names.dedup();
                names.iter().try_for_each(|name| empty(xml, "Network", &[("ovf:name", &xml::holdable(name))]))
            })?;
            parent(xml, "Section", &[("xsi:type", "ovf:DiskSection_Type")], |xml| {
                text(xml, "Info", &[], "List of Virtual Disks")?;
                self.disks.iter().try_for_each(|disk| disk.section(xml))
            })?;
            parent(xml, "Content", &[("ovf:id", "out"), ("xsi:type", "ovf:VirtualSystem_Type")], |xml| {
                self.content(xml)
            })
        })
    }

    fn network(&self, nic: &NicSlot) -> &str {
        self.placement.networks.chosen(nic).unwrap_or(USUAL_NETWORK)
    }

    fn content(&self, xml: &mut Xml) -> io::Result<()> {
        let machine = self.machine;
        text(xml, "Name", &[], self.name)?;
        text(xml, "Description", &[], &xml::holdable(machine.annotation.as_deref().unwrap_or_default()))?;
        text(xml, "Comment", &[], &xml::holdable(&machine.tags.join(" ")))?;
        text(xml, "TemplateId", &[], &Uuid::nil().to_string())?;
        text(xml, "TemplateName", &[], "Blank")?;
        text(xml, "IsInitilized", &[], "true")?;
        text(xml, "IsStateless", &[], "false")?;
        text(xml, "DeleteProtected", &[], "false")?;
        text(xml, "VmType", &[], "1")?;
        text(xml, "DefaultDisplayType", &[], "1")?;
        text(xml, "BiosType", &[], &bios(machine).to_string())?;
        text(xml, "default_boot_sequence", &[], &sequence(machine).to_string())?;
        if let Some(serial) = &machine.smbios.serial {
            text(xml, "SerialNumberPolicy", &[], "2")?;
            text(xml, "CustomSerialNumber", &[], &xml::holdable(serial))?;
        }
        let id = self.vm.to_string();
        let attributes = [
            ("ovf:id", id.as_str()),
            ("ovf:required", "false"),
            ("xsi:type", "ovf:OperatingSystemSection_Type"),
        ];
        parent(xml, "Section", &attributes, |xml| {
            text(xml, "Info", &[], "Guest Operating System")?;
            text(xml, "Description", &[], os(machine))
        })?;
        parent(xml, "Section", &[("xsi:type", "ovf:VirtualHardwareSection_Type")], |xml| self.hardware(xml))
    }

    fn hardware(&self, xml: &mut Xml) -> io::Result<()> {
        let cpus = self.machine.cpus;
        let mib = fit::mebibytes(self.machine.memory).to_string();
        text(xml, "Info", &[], &format!("{} CPU, {mib} Memory", cpus.count))?;
        let (sockets, cores, threads) = (
            cpus.sockets().to_string(),
            cpus.cores_per_socket.to_string(),
            cpus.threads_per_core.to_string(),
        );
        item(
            xml,
            &[
                ("rasd:Caption", "virtual cpu"),
                ("rasd:Description", "Number of virtual CPU"),
                ("rasd:InstanceId", "1"),
                ("rasd:ResourceType", "3"),
                ("rasd:num_of_sockets", &sockets),
                ("rasd:cpu_per_socket", &cores),
                ("rasd:threads_per_cpu", &threads),
            ],
        )?;
        item(
            xml,
            &[
                ("rasd:Caption", "memory"),
                ("rasd:Description", "Memory Size"),
                ("rasd:InstanceId", "2"),
                ("rasd:ResourceType", "4"),
                ("rasd:AllocationUnits", "MegaBytes"),
                ("rasd:VirtualQuantity", &mib),
            ],
        )?;
        for disk in self.disks {
            let (image, path) = (disk.image.to_string(), disk.path());
            let nil = Uuid::nil().to_string();
            item(
                xml,
                &[
                    ("rasd:Caption", &disk.alias),
                    ("rasd:InstanceId", &image),
                    ("rasd:ResourceType", "17"),
                    ("rasd:HostResource", &path),
                    ("rasd:Parent", &nil),
                    ("rasd:Template", &nil),
                    ("rasd:ApplicationList", ""),
                    ("Type", "disk"),
                    ("Device", "disk"),
                    ("rasd:Address", ""),
                    ("BootOrder", if disk.boots { "1" } else { "0" }),
                    ("IsPlugged", "true"),
                    ("IsReadOnly", "false"),
                ],
            )?;
        }
        for (index, (id, model, nic)) in self.cards.iter().enumerate() {
            let (id, model, name) = (id.to_string(), model.to_string(), format!("nic{}", index + 1));
            let network = xml::holdable(self.network(nic));
            let mut words = vec![
                ("rasd:Caption", name.as_str()),
                ("rasd:InstanceId", &id),
                ("rasd:ResourceType", "10"),
                ("rasd:OtherResourceType", &network),
                ("rasd:ResourceSubType", &model),
                ("rasd:Connection", &network),
                ("rasd:Linked", if nic.connected { "true" } else { "false" }),
                ("rasd:Name", &name),
                ("rasd:ElementName", &name),
            ];
            if let Some(mac) = &nic.mac {
                words.push(("rasd:MACAddress", mac));
            }
            words.extend([
                ("Type", "interface"),
                ("Device", "bridge"),
                ("IsPlugged", "true"),
                ("IsReadOnly", "false"),
            ]);
            item(xml, &words)?;
        }
        Ok(())
    }
}

impl Disk<'_> {
    /// The engine's name of an image in its storage.
    fn path(&self) -> String {
        format!("{}/{}", self.id, self.image)
    }

    fn section(&self, xml: &mut Xml) -> io::Result<()> {
        let (image, path, size) =
            (self.image.to_string(), self.path(), fit::gibibytes(self.placed.virtual_size).to_string());
        let stored = fit::gibibytes(self.placed.stored.unwrap_or(self.placed.virtual_size)).to_string();
        let capacity = self.placed.virtual_size.0.to_string();
        let cow = self.placed.format == "qcow2";
        let attributes = [
            ("ovf:diskId", image.as_str()),
            ("ovf:size", &size),
            ("ovf:capacity", &capacity),
            ("ovf:actual_size", &stored),
            ("ovf:parentRef", ""),
            ("ovf:fileRef", &path),
            ("ovf:volume-format", if cow { "COW" } else { "RAW" }),
            ("ovf:volume-type", "Sparse"),
            ("ovf:disk-interface", self.bus),
            ("ovf:read-only", "false"),
            ("ovf:shareable", "false"),
            ("ovf:boot", if self.boots { "true" } else { "false" }),
            ("ovf:pass-discard", "true"),
            ("ovf:disk-alias", &self.alias),
            ("ovf:wipe-after-delete", "false"),
        ];
        empty(xml, "Disk", &attributes)
    }
}

fn item(xml: &mut Xml, words: &[(&str, &str)]) -> io::Result<()> {
    parent(xml, "Item", &[], |xml| words.iter().try_for_each(|(name, value)| text(xml, name, &[], value)))
}
