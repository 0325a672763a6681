//! Nutanix AHV: specifications for Prism Central (`machine-v3.json`, `machine-v4.json`) and a script of acli's calls for a
//! controller VM.
//!
//! Source: Nutanix's API and acli references. acli itself was not at hand: its calls are those of the reference (image.create,
//! vm.create, vm.disk_create, vm.nic_create, vm.update_boot_device). Deliberately absent: protection domains and projects.

use super::specification;
use crate::finding;
use crate::hypervisor::text::{one_line, shell, shell_script};
use crate::hypervisor::{Artifact, Placement, Rendered, fit};
use crate::machine::{Bus, Clock, DiskSlot, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};

const TITLE: &str = "Nutanix AHV";
const NAME_AT_MOST: usize = 80;
/// The network of a card where whoever registers the machine is asked for it.
const ASKED: &str = "NETWORK";

/// A disk at its place, and the image that it is made of.
pub(super) struct Disk {
    pub bus: &'static str,
    pub index: usize,
    pub file: String,
    pub image: String,
}

/// A network card.
pub(super) struct Card {
    pub model: &'static str,
    pub mac: Option<String>,
    pub network: String,
    pub connected: bool,
}

/// What the machine is called there.
pub fn called(name: &str) -> String {
    named(name).0
}

fn named(name: &str) -> (String, Option<Finding>) {
    fit::dns_name(name, NAME_AT_MOST, true, false, TITLE)
}

/// The files.
///
/// # Errors
/// Unsupported for sectors of 4096 bytes, and for secure boot with IDE disks; refused where a card has no network at the target.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    let placed = fit::disks(machine, placement, TITLE)?;
    let mut findings = Vec::new();
    let (name, changed) = named(&machine.name);
    findings.extend(changed);
    let mut disks = Vec::new();
    for (index, (slot, placed)) in placed.into_iter().enumerate() {
        disks.push(Disk {
            bus: bus(slot)?,
            index,
            file: placed.file.clone(),
            image: format!("{name}-disk{index}"),
        });
    }
    if machine.secure_boot && disks.iter().any(|disk| disk.bus == "ide") {
        return Err(Error::unsupported(
            "the guest's kernel drives IDE disks only, and AHV's machine with IDE has no secure boot",
        )
        .hint("install the distribution's standard kernel in the guest before the move"));
    }
    let mut cards = Vec::new();
    for nic in &machine.nics {
        cards.push(card(nic, placement)?);
    }
    lost(machine, placement, &mut findings);
    let json = |value| format!("{value:#}\n");
    let artifacts = vec![
        Artifact::file("machine-v3.json", json(specification::v3(machine, &name, &disks, &cards))),
        Artifact::file("machine-v4.json", json(specification::v4(machine, &name, &disks, &cards))),
        Artifact::script("register.sh", script(machine, &name, &disks, &cards, placement)),
    ];
    Ok(Rendered { artifacts, findings })
}

fn bus(disk: &DiskSlot) -> Result<&'static str> {
    match disk.bus {
        Bus::VirtioScsi => Ok("scsi"),
        Bus::Sata => Ok("sata"),
        Bus::Ide => Ok("ide"),
        Bus::VirtioBlk | Bus::Scsi | Bus::Nvme | Bus::Vmbus | Bus::Xen => {
            Err(Error::corrupt(format!("{} is on a controller that {TITLE} does not have", disk.slot)))
        }
    }
}

fn card(nic: &NicSlot, placement: &Placement) -> Result<Card> {
    let model = match nic.model.as_deref() {
        None | Some("virtio-net") => "virtio",
        Some("e1000") => "e1000",
        Some(other) => {
            return Err(Error::unsupported(format!(
                "{} is {other:?}, a card that {TITLE} has not",
                nic.slot
            )));
        }
    };
    // There is no network that every cluster has; the source's name may be the target's, too, and the script looks.
    let network = placement.networks.chosen(nic).or(nic.network.as_deref()).unwrap_or_default();
    if network.is_empty() && placement.asks_network {
        return Ok(Card { model, mac: nic.mac.clone(), network: ASKED.to_owned(), connected: nic.connected });
    }
    if network.is_empty() {
        return Err(Error::refused(format!("{} has no network at the target", nic.slot))
            .hint("name a subnet of the cluster with --network or --map-network"));
    }
    let network = one_line(network);
    Ok(Card { model, mac: nic.mac.clone(), network, connected: nic.connected })
}

fn lost(machine: &Machine, placement: &Placement, findings: &mut Vec<Finding>) {
    findings.extend(fit::starts_its_disk(machine, TITLE));
    let mut what = fit::smbios_strings(machine, true);
    if let Some(uuid) = machine.smbios.uuid {
        what.push(format!("the system's UUID {uuid} with acli and API v3 (v4 takes it)"));
    }
    let serials = machine.disks.iter().filter_map(|disk| Some((disk, disk.serial.as_ref()?)));
    what.extend(serials.map(|(disk, serial)| format!("the serial number {serial:?} of {}", disk.file)));
    findings.extend(fit::not_held(
        &what,
        TITLE,
        "Use machine-v4.json where the UUID counts; look whether licences go by the rest.",
    ));
    let tags = machine.tags.iter().map(|tag| match tag.contains('=') {
        true => format!("the tag {tag:?} with acli and API v4 (v3 takes it as a category)"),
        false => format!("the tag {tag:?}"),
    });
    findings.extend(fit::not_held(
        &tags.collect::<Vec<_>>(),
        TITLE,
        "Assign a category by hand: categories have a name and a value, and have to be there first.",
    ));
    if machine.annotation.as_deref().is_some_and(|text| one_line(text) != text) {
        let what = "line breaks in the annotation with acli (API v3 and v4 take them)".to_owned();
        findings.extend(fit::not_held(&[what], TITLE, "Paste it into the description in Prism."));
    }
    for nic in &machine.nics {
        if let Some(tag) = nic.vlan {
            findings.push(finding::NOT_HELD.finding(
                format!("{} is in the VLAN {tag}, which a subnet says, not the machine.", nic.slot),
                "Choose the subnet of that VLAN with --map-network.",
            ));
        }
        if let (None, Some(source)) = (placement.networks.chosen(nic), &nic.network) {
            findings.push(finding::NOT_HELD.finding(
                format!(
                    "{} is plugged into the subnet {source:?}, the name of its network at the source.",
                    nic.slot
                ),
                "Name the right subnet with --map-network or --network.",
            ));
        }
    }
    if machine.clock == Clock::LocalTime {
        findings.push(finding::NOT_HELD.finding(
            "The clock counts local time; AHV wants the name of the time zone, and gets UTC.",
            "Set it: acli vm.update NAME timezone=Europe/Vienna.",
        ));
    }
}

fn script(machine: &Machine, name: &str, disks: &[Disk], cards: &[Card], placement: &Placement) -> String {
    let mut create = vec![
        format!("memory={}M", fit::mebibytes(machine.memory)),
        format!("num_vcpus={}", machine.cpus.sockets()),
        format!("num_cores_per_vcpu={}", machine.cpus.cores_per_socket),
        format!("num_threads_per_core={}", machine.cpus.threads_per_core),
        "timezone=UTC".to_owned(),
    ];
    if machine.firmware == Firmware::Uefi {
        create.push("uefi_boot=true".to_owned());
    }
    if machine.secure_boot {
        create.extend(["secure_boot=true".to_owned(), "machine_type=q35".to_owned()]);
    }
    if machine.tpm {
        create.push("virtual_tpm=true".to_owned());
    }
    if let Some(text) = &machine.annotation {
        create.push(shell(&format!("annotation={}", one_line(text))));
    }
    let images: Vec<String> =
        disks.iter().map(|disk| format!("image {} {}", shell(&disk.image), shell(&disk.file))).collect();
    let attach: Vec<String> =
        disks.iter().map(|disk| format!("disk {} {} {}", shell(&disk.image), disk.bus, disk.index)).collect();
    let is_asked = placement.asks_network;
    let nics: Vec<String> = cards
        .iter()
        .map(|card| {
            let network = match is_asked && card.network == ASKED {
                true => "\"network=$network\"".to_owned(),
                false => shell(&format!("network={}", card.network)),
            };
            let mut words = vec![network, format!("model={}", card.model)];
            words.extend(card.mac.as_ref().map(|mac| shell(&format!("mac={mac}"))));
            words.push(format!("connected={}", card.connected));
            format!("acli vm.nic_create \"$machine\" {}", words.join(" "))
        })
        .collect();
    let boot = disks.get(machine.boot_disk()).map_or(String::new(), |disk| {
        format!("acli vm.update_boot_device \"$machine\" disk_addr={}.{}", disk.bus, disk.index)
    });
    let names: Vec<String> = disks.iter().map(|disk| shell(&disk.image)).collect();
    let mut networks: Vec<String> = cards
        .iter()
        .map(|card| &card.network)
        .filter(|name| !is_asked || *name != ASKED)
        .map(|name| shell(name))
        .collect();
    let is_asked = is_asked && networks.len() < cards.len();
    if is_asked {
        networks.push("\"$network\"".to_owned());
    }
    let macs: Vec<&str> = cards.iter().filter_map(|card| card.mac.as_deref()).collect();
    let mut steps = images;
    steps.push(format!("machine {}", create.join(" ")));
    steps.extend(attach);
    steps.extend(nics);
    steps.push(boot);
    shell_script(
        include_str!("register.sh"),
        &[
            ("@NAME@", shell(name)),
            ("@MACS@", shell(&macs.join(" "))),
            ("@CONTAINER@", shell(placement.storage.as_deref().unwrap_or_default())),
            ("@ASKED@", if is_asked { "yes" } else { "no" }.to_owned()),
            ("@IMAGES@", names.join(" ")),
            ("@NETWORKS@", networks.join(" ")),
            ("@STEPS@", steps.join("\n")),
        ],
    )
}
