//! A descriptor for vSphere, of which `landfall_image::ova` makes a package.
//!
//! Source: DMTF DSP0243 1.1.1; the elements of an `Item` in the alphabetical order of CIM_ResourceAllocationSettingData, as its
//! schema wants them; what vSphere's own exports hold beyond that (`vmw:`). Deliberately absent: properties, configurations
//! and end-user licences, which a converted machine has none of.

use crate::finding;
use crate::hypervisor::vmware::vmx::spaced;
use crate::hypervisor::vmware::write::{CARDS_AT_MOST, HARDWARE, USUAL_NETWORK, mebibytes, not_held, stem};
use crate::hypervisor::xml::{self, Xml, empty, is_plain, parent, text};
use crate::hypervisor::{Artifact, Placement, Property, Rendered, attach, fit, guests};
use crate::machine::{Bus, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::{DiskModel, Firmware};
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::io;

const NAMESPACES: &[(&str, &str)] = &[
    ("xmlns", "http://schemas.dmtf.org/ovf/envelope/1"),
    ("xmlns:ovf", "http://schemas.dmtf.org/ovf/envelope/1"),
    ("xmlns:rasd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"),
    ("xmlns:vssd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"),
    ("xmlns:vmw", "http://www.vmware.com/schema/ovf"),
];
const STREAM: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

/// `NAME.ovf`. Lengths of files are left out until they are known.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    if machine.name.is_empty() || machine.name.chars().count() > 80 || !machine.name.chars().all(is_plain) {
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
    let controllers = controllers(machine)?;
    let descriptor = xml::document(|xml| envelope(xml, machine, placement, &controllers))?;
    let mut findings = not_held(machine);
    findings.extend(chosen_at_import(machine));
    let networks = &placement.networks;
    findings.extend(machine.nics.iter().filter_map(|nic| fit::usual_network(nic, networks, USUAL_NETWORK)));
    Ok(Rendered {
        artifacts: vec![Artifact::file(format!("{}.ovf", stem(&machine.name)), descriptor)],
        findings,
    })
}

/// What vSphere chooses anew for every machine that it imports.
fn chosen_at_import(machine: &Machine) -> Vec<Finding> {
    let mut out = Vec::new();
    let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    if !macs.is_empty() {
        out.push(finding::NOT_HELD.finding(
            format!("vSphere gives imported network cards new hardware addresses; they are {} at the source.", macs.join(", ")),
            "Set them before the first start (govc vm.network.change -vm NAME -net.address ADDRESS ethernet-0), or choose the target esxi.",
        ));
    }
    if let Some(uuid) = machine.smbios.uuid {
        out.push(finding::NOT_HELD.finding(
            format!("vSphere takes the machine's id {uuid} from the package only where extra configuration is allowed (ovftool --allowExtraConfig)."),
            format!("Set it before the first start (govc vm.change -vm NAME -uuid {uuid}), or choose the target esxi."),
        ));
    }
    if machine.boot_disk() > 0 {
        out.push(finding::NOT_HELD.finding(
            format!(
                "The machine starts from its disk {}, which a package cannot say.",
                machine.boot_disk() + 1
            ),
            "Put that disk first in the boot options (govc device.boot), or choose the target esxi.",
        ));
    }
    if !machine.boot_order.is_empty() {
        out.push(finding::NOT_HELD.finding(
            "The order of devices to start from is not part of a package.",
            "Set it in the boot options (govc device.boot -order), or choose the target esxi.",
        ));
    }
    for nic in machine.nics.iter().filter(|nic| nic.vlan.is_some()) {
        let vlan = nic.vlan.unwrap_or_default();
        out.push(finding::NOT_HELD.finding(
            format!(
                "{} is in the VLAN {vlan} at the source; at vSphere the port group puts it there.",
                nic.slot
            ),
            format!("Plug it into a port group with the VLAN ID {vlan}."),
        ));
    }
    out
}

/// A controller: CIM's resource type, vSphere's name of the model, its number, the id of its item.
struct Controller {
    title: &'static str,
    resource: &'static str,
    model: Option<&'static str>,
    number: String,
    id: usize,
}

/// The controllers of the machine's places, by their names there: `scsi0`.
fn controllers(machine: &Machine) -> Result<BTreeMap<String, Controller>> {
    let mut out = BTreeMap::new();
    for disk in &machine.disks {
        let foreign =
            || Error::corrupt(format!("{} ({:?}) is no place of a disk at vSphere", disk.slot, disk.bus));
        let (name, _) = disk.slot.split_once(':').ok_or_else(foreign)?;
        let (title, resource, model) = match (disk.bus, attach::model(disk)) {
            (Bus::Ide, _) => ("IDE", "5", None),
            (Bus::Sata, _) => ("SATA", "20", Some("vmware.sata.ahci")),
            (Bus::Nvme, _) => ("NVMe", "20", Some("vmware.nvme.controller")),
            (Bus::Scsi, Some(DiskModel::Pvscsi)) => ("SCSI", "6", Some("VirtualSCSI")),
            (Bus::Scsi, Some(DiskModel::Lsi)) => ("SCSI", "6", Some("lsilogicsas")),
            (Bus::Scsi, Some(DiskModel::LsiParallel)) => ("SCSI", "6", Some("lsilogic")),
            _ => return Err(foreign()),
        };
        let number = name.trim_start_matches(|c: char| c.is_ascii_alphabetic()).to_owned();
        // Processors are item 1, memory is item 2.
        let id = 3 + out.len();
        out.entry(name.to_owned()).or_insert(Controller { title, resource, model, number, id });
    }
    Ok(out)
}

type Controllers = BTreeMap<String, Controller>;

fn envelope(
    xml: &mut Xml,
    machine: &Machine,
    placement: &Placement,
    controllers: &Controllers,
) -> io::Result<()> {
    crate::hypervisor::xml::declaration(xml)?;
    parent(xml, "Envelope", NAMESPACES, |xml| {
        parent(xml, "References", &[], |xml| {
            for (index, disk) in placement.disks.iter().enumerate() {
                let (id, size) = (format!("file{index}"), disk.stored.map(|size| size.0.to_string()));
                let mut attributes = vec![("ovf:id", id.as_str()), ("ovf:href", disk.file.as_str())];
                attributes.extend(size.as_deref().map(|size| ("ovf:size", size)));
                empty(xml, "File", &attributes)?;
            }
            Ok(())
        })?;
        parent(xml, "DiskSection", &[], |xml| {
            text(xml, "Info", &[], "Virtual disks")?;
            for (index, disk) in placement.disks.iter().enumerate() {
                // A VMDK has whole sectors.
                let capacity = disk.virtual_size.0.div_ceil(512).saturating_mul(512).to_string();
                let attributes = [
                    ("ovf:diskId", format!("disk{index}")),
                    ("ovf:fileRef", format!("file{index}")),
                    ("ovf:capacity", capacity),
                    ("ovf:capacityAllocationUnits", "byte".to_owned()),
                    ("ovf:format", STREAM.to_owned()),
                ];
                empty(xml, "Disk", &attributes.each_ref().map(|(name, value)| (*name, value.as_str())))?;
            }
            Ok(())
        })?;
        parent(xml, "NetworkSection", &[], |xml| {
            text(xml, "Info", &[], "Networks")?;
            let mut names: Vec<String> = machine.nics.iter().map(|nic| network(nic, placement)).collect();
            names.sort();
            names.dedup();
            names.iter().try_for_each(|name| {
                parent(xml, "Network", &[("ovf:name", name)], |xml| {
                    text(xml, "Description", &[], "A network that the machine is plugged into")
                })
            })
        })?;
        system(xml, machine, placement, controllers)
    })
}

fn network(nic: &NicSlot, placement: &Placement) -> String {
    xml::holdable(placement.networks.chosen(nic).unwrap_or(USUAL_NETWORK))
}

fn system(
    xml: &mut Xml,
    machine: &Machine,
    placement: &Placement,
    controllers: &Controllers,
) -> io::Result<()> {
    let guest = guests::of(machine);
    let id = stem(&machine.name);
    parent(xml, "VirtualSystem", &[("ovf:id", &id)], |xml| {
        text(xml, "Info", &[], "A virtual machine")?;
        text(xml, "Name", &[], &machine.name)?;
        let number = guest.cim().to_string();
        let os = [("ovf:id", number.as_str()), ("vmw:osType", guest.vsphere(HARDWARE))];
        parent(xml, "OperatingSystemSection", &os, |xml| {
            text(xml, "Info", &[], "The guest's system")?;
            text(xml, "Description", &[], guest.vsphere(HARDWARE))
        })?;
        if let Some(annotation) = &machine.annotation {
            parent(xml, "AnnotationSection", &[], |xml| {
                text(xml, "Info", &[], "What its owner wrote about it")?;
                text(xml, "Annotation", &[], &xml::holdable(annotation))
            })?;
        }
        if !placement.asks.is_empty() {
            product(xml, machine, &placement.asks)?;
        }
        // The answers come on a disc that the hypervisor makes (DSP0243, 10.2 "Transport media type").
        let transport: &[(&str, &str)] =
            if placement.asks.is_empty() { &[] } else { &[("ovf:transport", "iso")] };
        parent(xml, "VirtualHardwareSection", transport, |xml| {
            text(xml, "Info", &[], "Virtual hardware")?;
            parent(xml, "System", &[], |xml| {
                text(xml, "vssd:ElementName", &[], "Virtual Hardware Family")?;
                text(xml, "vssd:InstanceID", &[], "0")?;
                text(xml, "vssd:VirtualSystemIdentifier", &[], &machine.name)?;
                text(xml, "vssd:VirtualSystemType", &[], &format!("vmx-{HARDWARE}"))
            })?;
            hardware(xml, machine, placement, controllers)?;
            settings(xml, machine)
        })
    })
}

/// What whoever deploys the machine is asked for (DSP0243, 9.5 "ProductSection").
fn product(xml: &mut Xml, machine: &Machine, asks: &[Property]) -> io::Result<()> {
    parent(xml, "ProductSection", &[], |xml| {
        text(xml, "Info", &[], "What can be set when it is deployed; all of it may be left empty")?;
        text(xml, "Product", &[], &machine.name)?;
        for asked in asks {
            let attributes = [
                ("ovf:key", asked.key),
                ("ovf:type", "string"),
                ("ovf:value", ""),
                ("ovf:userConfigurable", "true"),
            ];
            parent(xml, "Property", &attributes, |xml| {
                text(xml, "Label", &[], asked.label)?;
                text(xml, "Description", &[], asked.says)
            })?;
        }
        Ok(())
    })
}

/// One item; `properties` in alphabetical order, those of VMware behind them.
fn item(
    xml: &mut Xml,
    properties: &[(&str, String)],
    more: impl FnOnce(&mut Xml) -> io::Result<()>,
) -> io::Result<()> {
    parent(xml, "Item", &[], |xml| {
        for (name, value) in properties {
            text(xml, &format!("rasd:{name}"), &[], value)?;
        }
        more(xml)
    })
}

fn hardware(
    xml: &mut Xml,
    machine: &Machine,
    placement: &Placement,
    controllers: &Controllers,
) -> io::Result<()> {
    let cpus = machine.cpus;
    let s = |text: &str| text.to_owned();
    let processors = [
        ("AllocationUnits", s("hertz * 10^6")),
        ("Description", s("Number of virtual processors")),
        ("ElementName", format!("{} virtual processors", cpus.count)),
        ("InstanceID", s("1")),
        ("ResourceType", s("3")),
        ("VirtualQuantity", cpus.count.to_string()),
    ];
    item(xml, &processors, |xml| {
        let cores = cpus.cores_per_socket.saturating_mul(cpus.threads_per_core).to_string();
        text(xml, "vmw:CoresPerSocket", &[("ovf:required", "false")], &cores)
    })?;
    let mib = mebibytes(machine);
    let memory = [
        ("AllocationUnits", s("byte * 2^20")),
        ("Description", s("Memory size")),
        ("ElementName", format!("{mib} MB of memory")),
        ("InstanceID", s("2")),
        ("ResourceType", s("4")),
        ("VirtualQuantity", mib.to_string()),
    ];
    item(xml, &memory, |_| Ok(()))?;
    for controller in controllers.values() {
        let title = format!("{} controller {}", controller.title, controller.number);
        let mut properties = vec![
            ("Address", controller.number.clone()),
            ("Description", s(controller.title) + " controller"),
            ("ElementName", title),
            ("InstanceID", controller.id.to_string()),
        ];
        properties.extend(controller.model.map(|model| ("ResourceSubType", s(model))));
        properties.push(("ResourceType", s(controller.resource)));
        item(xml, &properties, |_| Ok(()))?;
    }
    let mut next = 3 + controllers.len();
    let mut id = || {
        next += 1;
        (next - 1).to_string()
    };
    for (index, disk) in machine.disks.iter().enumerate() {
        let (controller, unit) = disk.slot.split_once(':').unwrap_or_default();
        let above = controllers.get(controller).map_or(0, |controller| controller.id);
        let properties = [
            ("AddressOnParent", s(unit)),
            ("ElementName", format!("Hard disk {}", index + 1)),
            ("HostResource", format!("ovf:/disk/disk{index}")),
            ("InstanceID", id()),
            ("Parent", above.to_string()),
            ("ResourceType", s("17")),
        ];
        item(xml, &properties, |_| Ok(()))?;
    }
    for (index, nic) in machine.nics.iter().enumerate() {
        let model = match nic.model.as_deref() {
            Some("e1000e") => "E1000e",
            Some("e1000") => "E1000",
            _ => "VmxNet3",
        };
        let mut properties = Vec::new();
        properties.extend(nic.mac.clone().map(|mac| ("Address", mac)));
        properties.extend([
            ("AddressOnParent", (7 + index).to_string()),
            ("AutomaticAllocation", nic.connected.to_string()),
            ("Connection", network(nic, placement)),
            ("ElementName", format!("Network adapter {}", index + 1)),
            ("InstanceID", id()),
            ("ResourceSubType", s(model)),
            ("ResourceType", s("10")),
        ]);
        item(xml, &properties, |_| Ok(()))?;
    }
    Ok(())
}

/// What vSphere reads beyond the standard. An importer that does not know it goes on without.
fn settings(xml: &mut Xml, machine: &Machine) -> io::Result<()> {
    let mut set = |element: &str, key: &str, value: &str| {
        empty(xml, element, &[("ovf:required", "false"), ("vmw:key", key), ("vmw:value", value)])
    };
    let uefi = machine.firmware == Firmware::Uefi;
    set("vmw:Config", "firmware", if uefi { "efi" } else { "bios" })?;
    if uefi {
        set(
            "vmw:Config",
            "bootOptions.efiSecureBootEnabled",
            if machine.secure_boot { "true" } else { "false" },
        )?;
    }
    if let Some(uuid) = machine.smbios.uuid {
        set("vmw:ExtraConfig", "uuid.bios", &spaced(uuid))?;
    }
    set("vmw:ExtraConfig", "disk.EnableUUID", "TRUE")
}
