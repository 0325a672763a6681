//! OpenStack: `image-properties.json`, `heat.yaml` and the script that uploads the disks and makes the machine.
//!
//! Source: Glance's list of useful image properties and Nova's documentation of secure boot and emulated TPMs. Every disk becomes
//! a volume of Cinder, the boot disk's with the properties by which Nova makes the virtual hardware. Deliberately absent:
//! flavors, security groups and key pairs, which every cloud has of its own.

use super::heat;
use crate::finding;
use crate::hypervisor::text::{shell, shell_script};
use crate::hypervisor::{Artifact, Placement, Rendered, fit, guests};
use crate::machine::{Clock, Machine};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::Result;
use serde_json::{Map, Value, json};

const TITLE: &str = "OpenStack";
const NAME_AT_MOST: usize = 255;
/// Nova's limit for a description and for a value among the metadata.
const DETAIL_AT_MOST: usize = 255;

/// The files.
///
/// # Errors
/// Unsupported for sectors of 4096 bytes, and for controllers and cards that KVM has not.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    let disks = fit::disks(machine, placement, TITLE)?;
    let mut findings = Vec::new();
    let name = name(machine, &mut findings);
    let bus = machine.disks.first().map(fit::kvm_bus).transpose()?;
    let model = machine.nics.first().map(fit::kvm_card).transpose()?;
    let properties = properties(machine, bus, model);
    lost(machine, &mut findings);

    let volumes: Vec<Volume> = order(machine)
        .into_iter()
        .filter_map(|index| {
            let (_, placed) = disks.get(index)?;
            Some(Volume {
                name: format!("{name}-disk{index}"),
                file: placed.file.clone(),
                format: placed.format.clone(),
                gibibytes: fit::gibibytes(placed.virtual_size),
                bus: bus?,
            })
        })
        .collect();
    let ports: Vec<Port> = machine
        .nics
        .iter()
        .enumerate()
        .map(|(index, nic)| Port {
            name: format!("{name}-nic{index}"),
            mac: nic.mac.clone(),
            network: placement.networks.chosen(nic).map(str::to_owned),
            connected: nic.connected,
        })
        .collect();
    let template = heat::template(machine, &name, &volumes, &ports, placement.storage.as_deref());
    let script = script(machine, &name, &properties, &volumes, &ports, placement);
    let text = format!("{:#}\n", Value::Object(properties));
    let artifacts = vec![
        Artifact::file("image-properties.json", text),
        Artifact::file("heat.yaml", template),
        Artifact::script("register.sh", script),
    ];
    Ok(Rendered { artifacts, findings })
}

/// A disk as a volume. The boot disk's comes first: Nova names devices in the order in which it gets them.
pub(super) struct Volume {
    pub name: String,
    pub file: String,
    pub format: String,
    pub gibibytes: u64,
    pub bus: &'static str,
}

/// A network card.
pub(super) struct Port {
    pub name: String,
    pub mac: Option<String>,
    pub network: Option<String>,
    pub connected: bool,
}

fn order(machine: &Machine) -> Vec<usize> {
    let boot = machine.boot_disk();
    let mut order: Vec<usize> = (0..machine.disks.len()).collect();
    order.sort_by_key(|index| (*index != boot, *index));
    order
}

/// What the machine is called there.
pub fn called(name: &str) -> String {
    let fitting: String =
        name.chars().filter(|letter| !letter.is_control()).take(NAME_AT_MOST - 16).collect();
    // A name that begins like an option is taken for one.
    let fitting = fitting.trim().trim_start_matches('-');
    if fitting.is_empty() { "machine".to_owned() } else { fitting.to_owned() }
}

fn name(machine: &Machine, findings: &mut Vec<Finding>) -> String {
    let fitting = called(&machine.name);
    if fitting != machine.name {
        findings.push(finding::NAME_CHANGED.finding(
            format!("{TITLE} takes no machine with the name {:?}: it is {fitting:?} there.", machine.name),
            "",
        ));
    }
    fitting
}

/// As much of a text as Nova takes.
pub(super) fn short(text: &str) -> String {
    text.chars().take(DETAIL_AT_MOST).collect()
}

/// Glance's family of the operating system, of which it has two, and the system's id where that is known.
fn os(machine: &Machine) -> (Option<&'static str>, Option<String>) {
    let guest = guests::of(machine);
    let family = match () {
        () if guest.is_windows() => Some("windows"),
        () if guest.is_linux() => Some("linux"),
        () => None,
    };
    let id = machine.os.as_ref().map(|os| os.distribution.as_str()).filter(|id| !id.is_empty());
    (family, id.map(|id| guests::glance(id).to_owned()))
}

fn properties(
    machine: &Machine,
    bus: Option<&'static str>,
    model: Option<&'static str>,
) -> Map<String, Value> {
    let mut out = Map::new();
    let mut set = |name: &str, value: String| out.insert(name.to_owned(), json!(value));
    set("architecture", "x86_64".into());
    set("hw_machine_type", if bus == Some("ide") { "pc" } else { "q35" }.into());
    set("hw_firmware_type", if machine.firmware == Firmware::Uefi { "uefi" } else { "bios" }.into());
    if machine.secure_boot {
        set("os_secure_boot", "required".into());
    }
    if machine.tpm {
        set("hw_tpm_version", "2.0".into());
        set("hw_tpm_model", "tpm-crb".into());
    }
    if let Some(bus) = bus {
        set("hw_disk_bus", bus.into());
        if bus == "scsi" {
            set("hw_scsi_model", "virtio-scsi".into());
        }
    }
    if let Some(model) = model {
        set("hw_vif_model", model.into());
    }
    set("hw_cpu_sockets", machine.cpus.sockets().to_string());
    set("hw_cpu_cores", machine.cpus.cores_per_socket.to_string());
    set("hw_cpu_threads", machine.cpus.threads_per_core.to_string());
    set("hw_rng_model", "virtio".into());
    let (family, distribution) = os(machine);
    if let Some(family) = family {
        set("os_type", family.into());
    }
    if let Some(distribution) = distribution {
        set("os_distro", distribution);
    }
    if let Some(version) = machine.os.as_ref().map(|os| &os.version).filter(|version| !version.is_empty()) {
        set("os_version", version.clone());
    }
    out
}

fn lost(machine: &Machine, findings: &mut Vec<Finding>) {
    let mut what = fit::smbios_strings(machine, true);
    what.extend(
        machine.smbios.uuid.map(|uuid| format!("the system's UUID {uuid} (Nova gives it one of its own)")),
    );
    let serials = machine.disks.iter().filter_map(|disk| Some((disk, disk.serial.as_ref()?)));
    what.extend(serials.map(|(disk, serial)| {
        format!("the serial number {serial:?} of {} (it is the volume's id)", disk.file)
    }));
    findings.extend(fit::not_held(&what, TITLE, "Look whether licences, agents or /etc/fstab go by it."));
    let annotation = machine.annotation.as_deref().unwrap_or_default();
    let long = [("the annotation", annotation.to_owned()), ("the tags", machine.tags.join(","))];
    let long = long.into_iter().filter(|(_, text)| text.chars().count() > DETAIL_AT_MOST);
    let long: Vec<String> =
        long.map(|(what, _)| format!("{what} beyond {DETAIL_AT_MOST} characters")).collect();
    findings.extend(fit::not_held(&long, TITLE, "Keep the rest elsewhere."));
    for nic in machine.nics.iter().filter(|nic| nic.vlan.is_some()) {
        let tag = nic.vlan.unwrap_or_default();
        findings.push(finding::NOT_HELD.finding(
            format!("{} is in the VLAN {tag}, which a network of Neutron says, not the machine.", nic.slot),
            "Choose the network of that VLAN with --map-network.",
        ));
    }
    findings.extend(fit::starts_its_disk(machine, TITLE));
    if machine.boot_disk() > 0 {
        findings.push(finding::NOT_HELD.finding(
            format!(
                "The boot disk is number {} at the source; Nova attaches it as the first.",
                machine.boot_disk() + 1
            ),
            "Let the guest find its disks by UUIDs.",
        ));
    }
    if machine.clock == Clock::LocalTime && os(machine).0 != Some("windows") {
        findings.push(finding::NOT_HELD.finding(
            "The clock counts local time, which Nova gives to Windows only.",
            "Set the guest's hardware clock to UTC.",
        ));
    }
}

fn script(
    machine: &Machine,
    name: &str,
    properties: &Map<String, Value>,
    volumes: &[Volume],
    ports: &[Port],
    placement: &Placement,
) -> String {
    let property = |(name, value): (&String, &Value)| {
        format!("--property {}", shell(&format!("{name}={}", value.as_str().unwrap_or_default())))
    };
    let all: Vec<String> = properties.iter().map(property).collect();
    let mut disks = String::new();
    for (index, volume) in volumes.iter().enumerate() {
        let role = if index == 0 { "boot" } else { "data" };
        let words = [&volume.name, &volume.file, &volume.format].map(|word| shell(word)).join(" ");
        disks += &format!("disk {role} {words} {} {}\n", volume.gibibytes, volume.bus);
    }
    let mut cards = String::new();
    for port in ports {
        let network = port.network.as_deref().map_or("\"$network\"".to_owned(), shell);
        let mac = shell(port.mac.as_deref().unwrap_or_default());
        let state = if port.connected { "enable" } else { "disable" };
        cards += &format!("card {} {network} {mac} {state}\n", shell(&port.name));
    }
    let macs: Vec<&str> = ports.iter().filter_map(|port| port.mac.as_deref()).collect();
    let files: Vec<String> = volumes.iter().map(|volume| shell(&volume.file)).collect();
    let names: Vec<String> = volumes.iter().map(|volume| shell(&volume.name)).collect();
    let networks: Vec<String> =
        ports.iter().map(|port| port.network.as_deref().map_or("\"$network\"".to_owned(), shell)).collect();
    let annotation = machine.annotation.as_deref().unwrap_or_default();
    let mut details: Vec<String> = Vec::new();
    if !annotation.is_empty() {
        details.push(format!("--description={}", shell(&short(annotation))));
    }
    if !machine.tags.is_empty() {
        details.push(format!("--property {}", shell(&format!("tags={}", short(&machine.tags.join(","))))));
    }
    shell_script(
        include_str!("register.sh"),
        &[
            ("@NAME@", shell(name)),
            ("@MACS@", shell(&macs.join(" "))),
            ("@CPUS@", machine.cpus.count.to_string()),
            ("@MEMORY@", fit::mebibytes(machine.memory).to_string()),
            ("@TYPE@", shell(placement.storage.as_deref().unwrap_or_default())),
            ("@FILES@", files.join(" ")),
            ("@VOLUMES@", names.join(" ")),
            ("@NETWORKS@", networks.join(" ")),
            (
                "@NEEDS_NETWORK@",
                if ports.iter().any(|port| port.network.is_none()) { "yes" } else { "no" }.into(),
            ),
            ("@PROPERTIES@", all.join(" ")),
            ("@DETAILS@", details.join(" ")),
            ("@DISKS@", disks.trim_end().to_owned()),
            ("@CARDS@", cards.trim_end().to_owned()),
        ],
    )
}
