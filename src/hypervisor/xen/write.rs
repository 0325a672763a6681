//! The definition of an XVA (`ova.xml`), of which `landfall_image::xva` makes an archive, and the script that imports it.
//!
//! Source: xapi's data model and its import. Neither was at hand: what is written is what their sources ask for. Deliberately
//! absent: what a virtual TPM holds, UEFI variables (the host makes new ones), and policies of a pool.

use super::records::{NETWORK, SR, VBD, VDI, VIF, VM, object, record};
use super::value::Value;
use super::{TITLE, read::smbios_keys};
use crate::finding;
use crate::hypervisor::text::{one_line, shell, shell_script};
use crate::hypervisor::{Artifact, Placement, Rendered, attach, fit, xml};
use crate::machine::{BootDevice, Clock, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use uuid::Uuid;

/// The network that every pool has.
const USUAL_NETWORK: &str = "Pool-wide network associated with eth0";
/// Virtual interfaces of a machine, by the configuration limits of XenServer 8 and XCP-ng 8.
const CARDS_AT_MOST: usize = 7;
/// What a storage repository of VHD files holds: all others hold more.
const VHD_AT_MOST: Bytes = Bytes::gib(2040);
/// What a string of SMBIOS may be: printable ASCII, at most so many.
const BIOS_STRING_AT_MOST: usize = 512;
/// xapi reads and writes this: no older host refuses it.
const VERSION: [(&str, &str); 8] = [
    ("hostname", "landfall"),
    ("date", "2018-01-01"),
    ("product_version", "7.0.0"),
    ("product_brand", "landfall"),
    ("build_number", "0"),
    ("xapi_major", "1"),
    ("xapi_minor", "9"),
    ("export_vsn", "2"),
];

const MACHINE: &str = "Ref:1";
const STORAGE: &str = "Ref:2";

/// What the disk with that number is called in the archive. Importers read disks in the order of their names as text, so all
/// have the same length.
pub fn disk_name(index: usize) -> String {
    format!("Ref:{}", 1000 + index)
}

/// A disk's size in the archive: blocks are written whole.
fn size(size: Bytes) -> u64 {
    size.0.max(1).next_multiple_of(1 << 20)
}

/// `ova.xml` and `register.sh`.
///
/// # Errors
/// Unsupported for sectors of 4096 bytes and for a name that no machine can have.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    let placed = fit::disks(machine, placement, TITLE)?;
    if machine.name.is_empty() || xml::holdable(&machine.name) != machine.name || machine.name.contains('\n')
    {
        return Err(Error::unsupported(format!("{TITLE} takes no machine with the name {:?}", machine.name))
            .hint("give it another name with --name"));
    }
    let mut findings = Vec::new();
    let ids = Ids { machine };
    let (mut vbds, mut vdis, mut disk_refs, mut vbd_refs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, (slot, placed)) in placed.iter().enumerate() {
        let number = slot.slot.strip_prefix("xvd").and_then(attach::number);
        let number = number
            .ok_or_else(|| Error::corrupt(format!("{:?} is no place of a disk at {TITLE}", slot.slot)))?;
        let vbd = format!("Ref:{}", 2000 + index);
        vdis.push(object(
            "VDI",
            &placed.file,
            record(
                VDI,
                vec![
                    ("uuid", ids.uuid(&format!("vdi {index}"))),
                    ("name_label", Value::text(format!("{} {index}", machine.name))),
                    ("SR", Value::text(STORAGE)),
                    ("VBDs", Value::Array(vec![Value::text(vbd.as_str())])),
                    ("virtual_size", Value::text(size(placed.virtual_size).to_string())),
                ],
            ),
        ));
        vbds.push(object(
            "VBD",
            &vbd,
            record(
                VBD,
                vec![
                    ("uuid", ids.uuid(&format!("vbd {index}"))),
                    ("VM", Value::text(MACHINE)),
                    ("VDI", Value::text(placed.file.as_str())),
                    ("device", Value::text(slot.slot.as_str())),
                    ("userdevice", Value::text(number.to_string())),
                    ("bootable", Value::Bool(index == machine.boot_disk())),
                ],
            ),
        ));
        disk_refs.push(Value::text(placed.file.as_str()));
        vbd_refs.push(Value::text(vbd));
        findings.extend(of_disk(slot, placed.virtual_size, number));
    }
    let cards = Cards::new(machine, placement, &ids, &mut findings);
    lost(machine, &mut findings);
    let mut objects = vec![object("VM", MACHINE, of_machine(machine, &ids, vbd_refs, &cards.refs))];
    objects.push(object(
        "SR",
        STORAGE,
        record(SR, vec![("uuid", ids.uuid("sr")), ("VDIs", Value::Array(disk_refs))]),
    ));
    objects.extend(vdis);
    objects.extend(vbds);
    objects.extend(cards.networks);
    objects.extend(cards.vifs);
    let version = Value::map(VERSION.map(|(name, value)| (name, value.to_owned())));
    let document =
        Value::Struct(vec![("version".into(), version), ("objects".into(), Value::Array(objects))]);
    let mut text = String::new();
    document.write(&mut text);
    let artifacts = vec![
        Artifact::file("ova.xml", text),
        Artifact::script("register.sh", script(machine, placement, &ids, &cards.names)),
    ];
    Ok(Rendered { artifacts, findings })
}

/// The name of the archive in the machine's folder.
pub fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let stem: String = name.chars().map(plain).take(80).collect();
    format!("{}.xva", stem.trim_start_matches(['.', '-']))
}

/// Ids of the objects. An import that keeps the machine's keeps theirs, so that each has to be one of its own.
struct Ids<'a> {
    machine: &'a Machine,
}

impl Ids<'_> {
    /// The machine's, or one that is made of its name and addresses.
    fn machine(&self) -> Uuid {
        self.machine.smbios.uuid.unwrap_or_else(|| self.made("machine"))
    }

    fn made(&self, what: &str) -> Uuid {
        let machine = self.machine;
        let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
        let seed = serde_json::json!([machine.name, machine.smbios.uuid, macs, what]).to_string();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(seed.as_bytes()).as_bytes()[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    fn uuid(&self, what: &str) -> Value {
        Value::text(self.made(what).to_string())
    }
}

fn of_disk(disk: &crate::machine::DiskSlot, given: Bytes, number: usize) -> Vec<Finding> {
    let mut out = Vec::new();
    if given > VHD_AT_MOST {
        out.push(finding::NOT_HELD.finding(
            format!("{} has {given}; a storage repository that keeps disks as VHD holds {VHD_AT_MOST} at most.", disk.slot),
            "Import it into a repository that keeps disks as qcow2 or raw, or divide the disk before the move.",
        ));
    }
    if size(given) != given.0 {
        out.push(finding::NOT_HELD.finding(
            format!("{} has {} bytes; it is filled up with zeros to whole MiB.", disk.slot, given.0),
            "",
        ));
    }
    if let Some(serial) = &disk.serial {
        out.push(finding::NOT_HELD.finding(
            format!("{TITLE} gives {} no serial number; it is {serial:?} at the source.", disk.slot),
            "See that nothing in the guest goes by /dev/disk/by-id.",
        ));
    }
    if number >= 16 {
        out.push(finding::NOT_HELD.finding(
            format!(
                "{} is the guest's disk number {number}; releases before XenServer 7 stop at 15.",
                disk.slot
            ),
            "Look at VM.get_allowed_VBD_devices of the host.",
        ));
    }
    out
}

/// The machine's network cards, and the networks that they are in.
struct Cards {
    networks: Vec<Value>,
    vifs: Vec<Value>,
    refs: Vec<Value>,
    names: Vec<String>,
}

impl Cards {
    fn new(machine: &Machine, placement: &Placement, ids: &Ids<'_>, findings: &mut Vec<Finding>) -> Cards {
        let mut out = Cards { networks: Vec::new(), vifs: Vec::new(), refs: Vec::new(), names: Vec::new() };
        for (index, nic) in machine.nics.iter().enumerate() {
            let name = network(nic, placement);
            let place = out.names.iter().position(|own| *own == name).unwrap_or_else(|| {
                out.names.push(name.clone());
                out.names.len() - 1
            });
            let vif = format!("Ref:{}", 3000 + index);
            let mac = nic.mac.clone().unwrap_or_default();
            // There is no plug to pull; a card that may send nothing is the nearest to it.
            let locking = if nic.connected { "network_default" } else { "disabled" };
            out.vifs.push(object(
                "VIF",
                &vif,
                record(
                    VIF,
                    vec![
                        ("uuid", ids.uuid(&format!("vif {index}"))),
                        ("device", Value::text(index.to_string())),
                        ("network", Value::text(format!("Ref:{}", 4000 + place))),
                        ("VM", Value::text(MACHINE)),
                        ("MAC", Value::text(mac.as_str())),
                        ("MAC_autogenerated", Value::Bool(mac.is_empty())),
                        ("locking_mode", Value::text(locking)),
                    ],
                ),
            ));
            out.refs.push(Value::text(vif));
            findings.extend(of_card(nic, index, placement));
        }
        for (place, name) in out.names.iter().enumerate() {
            let chosen = vec![
                ("uuid", ids.uuid(&format!("network {name}"))),
                ("name_label", Value::text(name.as_str())),
            ];
            out.networks.push(object("network", &format!("Ref:{}", 4000 + place), record(NETWORK, chosen)));
        }
        out
    }
}

/// The network that a card is plugged into, by name.
fn network(nic: &NicSlot, placement: &Placement) -> String {
    let name = placement.networks.chosen(nic).or(nic.network.as_deref()).map(one_line);
    name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| USUAL_NETWORK.to_owned())
}

fn of_card(nic: &NicSlot, index: usize, placement: &Placement) -> Vec<Finding> {
    let mut out = Vec::new();
    if let (None, Some(source)) = (placement.networks.chosen(nic), &nic.network) {
        out.push(finding::NOT_HELD.finding(
            format!(
                "{} is plugged into the network {source:?}, the name of its network at the source.",
                nic.slot
            ),
            "Name the right network with --map-network or --network.",
        ));
    }
    if let Some(vlan) = nic.vlan {
        out.push(finding::NOT_HELD.finding(
            format!("{} is in the VLAN {vlan}; at {TITLE} the network puts it there.", nic.slot),
            format!("Plug it into a network with the VLAN {vlan} with --map-network."),
        ));
    }
    if !nic.connected {
        out.push(finding::NOT_HELD.finding(
            format!("{} is not connected at the source; at {TITLE} its link is up and all of its traffic is dropped.", nic.slot),
            format!("Let it through later: xe vif-param-set uuid=UUID locking-mode=network_default (device {index})."),
        ));
    }
    out
}

fn of_machine(machine: &Machine, ids: &Ids<'_>, vbds: Vec<Value>, vifs: &[Value]) -> Vec<(String, Value)> {
    let memory = || Value::text(machine.memory.0.to_string());
    let cpus = || Value::text(machine.cpus.count.to_string());
    let text = |text: Option<&String>| Value::text(text.map(String::as_str).unwrap_or_default());
    let uefi = machine.firmware == Firmware::Uefi;
    let mut platform = vec![
        ("acpi", "1".to_owned()),
        ("apic", "true".into()),
        ("nx", "true".into()),
        ("pae", "true".into()),
        ("hpet", "true".into()),
        ("viridian", is_windows(machine).to_string()),
        ("timeoffset", "0".into()),
        ("secureboot", machine.secure_boot.to_string()),
        ("cores-per-socket", cores(machine).to_string()),
    ];
    if uefi {
        platform.push(("device-model", "qemu-upstream-uefi".into()));
    }
    if machine.nics.iter().any(|nic| nic.model.as_deref() == Some("e1000")) {
        platform.push(("nic_type", "e1000".into()));
    }
    let firmware = if uefi { "uefi" } else { "bios" };
    let boot = Value::map([("order", order(machine)), ("firmware", firmware.to_owned())]);
    let tags = machine.tags.iter().map(|tag| Value::text(tag.as_str()));
    let strings = bios_strings(machine).into_iter().filter(|(_, text)| is_bios_string(text));
    let strings = strings.map(|(key, text)| (key, text.to_owned()));
    let template = machine.os_label.iter().map(|label| ("base_template_name", label.clone()));
    record(
        VM,
        vec![
            ("uuid", Value::text(ids.machine().to_string())),
            ("name_label", Value::text(machine.name.as_str())),
            ("name_description", text(machine.annotation.as_ref())),
            ("tags", Value::Array(tags.collect())),
            ("memory_static_max", memory()),
            ("memory_dynamic_max", memory()),
            ("memory_dynamic_min", memory()),
            ("memory_static_min", memory()),
            ("memory_target", memory()),
            ("VCPUs_max", cpus()),
            ("VCPUs_at_startup", cpus()),
            ("VBDs", Value::Array(vbds)),
            ("VIFs", Value::Array(vifs.to_vec())),
            ("HVM_boot_params", boot),
            ("platform", Value::map(platform)),
            ("bios_strings", Value::map(strings)),
            ("other_config", Value::map(template)),
        ],
    )
}

fn is_windows(machine: &Machine) -> bool {
    machine.os.as_ref().is_some_and(|os| os.distribution.starts_with("windows"))
}

/// Cores in a socket; a core has one thread.
fn cores(machine: &Machine) -> u32 {
    fit::without_threads(machine.cpus, TITLE).1
}

/// The letters of the devices that the firmware tries. It starts the first disk, which the machine's boot disk is made.
fn order(machine: &Machine) -> String {
    let mut out = String::new();
    for device in &machine.boot_order {
        let letter = match device {
            BootDevice::Disk => 'c',
            BootDevice::Cdrom => 'd',
            BootDevice::Nic(_) => 'n',
            BootDevice::Floppy => continue,
        };
        if !out.contains(letter) {
            out.push(letter);
        }
    }
    if out.is_empty() { "cd".to_owned() } else { out }
}

fn bios_strings(machine: &Machine) -> Vec<(&'static str, &str)> {
    let smbios = &machine.smbios;
    let values = [&smbios.manufacturer, &smbios.product, &smbios.version, &smbios.serial];
    smbios_keys().into_iter().zip(values).filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
}

fn is_bios_string(text: &str) -> bool {
    !text.is_empty() && text.len() <= BIOS_STRING_AT_MOST && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn lost(machine: &Machine, findings: &mut Vec<Finding>) {
    findings.extend(fit::without_threads(machine.cpus, TITLE).2);
    let mut what = Vec::new();
    let smbios = &machine.smbios;
    for (name, value) in [("SKU", &smbios.sku), ("family", &smbios.family)] {
        what.extend(value.iter().map(|value| format!("the {name} {value:?}")));
    }
    for (key, text) in bios_strings(machine) {
        if !is_bios_string(text) {
            what.push(format!(
                "the {key} {text:?}, which is not of printable ASCII or longer than {BIOS_STRING_AT_MOST}"
            ));
        }
    }
    let holds = |text: &str| xml::holdable(text) == text;
    if machine.annotation.as_deref().is_some_and(|text| !holds(text))
        || machine.tags.iter().any(|tag| !holds(tag))
    {
        what.push("control characters in the annotation or a tag, which are left out".to_owned());
    }
    if machine.nics.len() > CARDS_AT_MOST {
        findings.push(finding::NOT_HELD.finding(
            format!("The machine has {} network cards; {TITLE} supports {CARDS_AT_MOST}.", machine.nics.len()),
            "Let one card carry several networks as VLANs, and take cards out before the import if it is refused.",
        ));
    }
    for device in &machine.boot_order {
        match device {
            BootDevice::Floppy => what.push("starting from a floppy disk".to_owned()),
            BootDevice::Nic(index) if *index > 0 => {
                what.push(format!("starting from the network card {}: it tries the first one", index + 1));
            }
            _ => {}
        }
    }
    findings.extend(fit::not_held(
        &what,
        TITLE,
        "Look whether a licence or a script in the guest goes by it.",
    ));
    if machine.clock == Clock::LocalTime {
        findings.push(finding::NOT_HELD.finding(
            format!("The clock counts local time; {TITLE} wants the offset from UTC in seconds, and the archive says 0."),
            "register.sh sets the offset of the host that it runs on, or the one in TIMEOFFSET; by hand: xe vm-param-set \
             uuid=UUID platform:timeoffset=SECONDS.",
        ));
    }
    if machine.tpm {
        findings.push(finding::TPM.finding(
            format!("register.sh gives the machine a new, empty TPM, which {TITLE} has from 8.3 on."),
            "Import it into a pool of that release or a later one.",
        ));
    }
    if machine.secure_boot {
        findings.push(finding::NOT_HELD.finding(
            format!("{TITLE} enforces secure boot with the certificates of its pool, which are not in the archive."),
            "See that the pool has Microsoft's: secureboot-certs report; secureboot-certs install.",
        ));
    }
}

fn script(machine: &Machine, placement: &Placement, ids: &Ids<'_>, networks: &[String]) -> String {
    let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    let networks: Vec<String> = networks.iter().map(|name| shell(name)).collect();
    shell_script(
        include_str!("register.sh"),
        &[
            ("@NAME@", shell(&machine.name)),
            ("@UUID@", shell(&ids.machine().to_string())),
            ("@MACS@", shell(&macs.join(" "))),
            ("@FILE@", shell(&file_name(&machine.name))),
            ("@STORAGE@", shell(&one_line(placement.storage.as_deref().unwrap_or_default()))),
            ("@NETWORKS@", networks.join(" ")),
            ("@TPM@", shell(if machine.tpm { "yes" } else { "" })),
            ("@LOCALTIME@", shell(if machine.clock == Clock::LocalTime { "yes" } else { "" })),
        ],
    )
}

#[cfg(test)]
mod tests;
