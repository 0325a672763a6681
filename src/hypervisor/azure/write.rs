//! Azure's template: `machine.bicep`, and `register.sh`.
//!
//! Source: Microsoft's reference of the resource types that are named in the template, and of Bicep. The disks are fixed VHDs
//! of whole MiB; they are imported as managed disks and attached as they are (a specialised machine: nothing in it is
//! provisioned anew). The disk's generation decides between BIOS (V1) and UEFI (V2).
//!
//! Deliberately absent: public addresses, security groups and virtual networks: those belong to the site, not to the machine.

use super::size;
use crate::finding;
use crate::hypervisor::text::{fill, one_line, shell, shell_script};
use crate::hypervisor::{Artifact, Placement, Rendered, fit, guests};
use crate::machine::{Clock, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};

/// Azure starts from no larger disk.
const OS_DISK_AT_MOST: Bytes = Bytes::gib(4095);
/// And attaches no larger one.
const DISK_AT_MOST: Bytes = Bytes::gib(32767);
const TITLE: &str = "Azure";
const NAME_AT_MOST: usize = 64;
/// A tag's value.
const TAG_AT_MOST: usize = 256;
const TAGS_AT_MOST: usize = 50;

/// `machine.bicep` and `register.sh`
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    if placement.disks.len() != machine.disks.len() || machine.disks.is_empty() {
        return Err(Error::corrupt(format!(
            "{} disks are placed, the machine has {}",
            placement.disks.len(),
            machine.disks.len()
        )));
    }
    for (index, disk) in placement.disks.iter().enumerate() {
        let (role, at_most) = if index == machine.boot_disk() {
            ("starts from", OS_DISK_AT_MOST)
        } else {
            ("attaches", DISK_AT_MOST)
        };
        if disk.virtual_size > at_most {
            return Err(Error::unsupported(format!(
                "{} has {}; Azure {role} no disk of more than {at_most}",
                disk.file, disk.virtual_size
            ))
            .hint("make the disk smaller in the guest before the move, or move its data to several disks"));
        }
    }
    let mut findings = Vec::new();
    let name = called(&machine.name);
    if name.is_empty() {
        return Err(Error::unsupported(format!("Azure takes no machine with the name {:?}", machine.name))
            .hint("give it another name with --name"));
    }
    if name != machine.name {
        findings.push(finding::NAME_CHANGED.finding(
            format!(
                "{} becomes {name}: names in Azure are of letters, digits, - and _.",
                one_line(&machine.name)
            ),
            "Choose another one with --name.",
        ));
    }
    let made = Made::new(machine, placement, &mut findings);
    not_held(machine, &mut findings);
    Ok(Rendered {
        artifacts: vec![
            Artifact::file("machine.bicep", made.bicep(&name, &mut findings)),
            Artifact::script("register.sh", made.script(&name)),
        ],
        findings,
    })
}

/// The nearest name that Azure takes.
pub fn called(wanted: &str) -> String {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '-' };
    let name: String = wanted.trim().chars().map(plain).collect();
    let name: String = name.trim_start_matches(['-', '_']).chars().take(NAME_AT_MOST - 8).collect();
    name.trim_end_matches(['-', '_']).to_owned()
}

struct Made<'a> {
    machine: &'a Machine,
    /// File of the disk to start from, then those of the data disks by their LUNs.
    files: Vec<&'a str>,
    /// Cards that are made, each with the subnet that was chosen for it.
    cards: Vec<(&'a NicSlot, Option<&'a str>)>,
    placeholder: bool,
    trusted: bool,
    size: Option<size::Size>,
}

impl<'a> Made<'a> {
    fn new(machine: &'a Machine, placement: &'a Placement, findings: &mut Vec<Finding>) -> Made<'a> {
        let boot = machine.boot_disk();
        let mut files = vec![placement.disks[boot].file.as_str()];
        files.extend(
            placement
                .disks
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != boot)
                .map(|(_, disk)| disk.file.as_str()),
        );
        let mut cards = Vec::new();
        for nic in &machine.nics {
            if nic.connected {
                cards.push((nic, placement.networks.chosen(nic)));
            } else {
                findings.push(finding::NOT_HELD.finding(
                    format!(
                        "{} is not plugged in; every card in Azure is, so it is not made.",
                        one_line(&nic.slot)
                    ),
                    "Add a network interface to the machine in Azure if the guest needs that card.",
                ));
            }
        }
        let placeholder = cards.is_empty();
        if placeholder {
            findings.push(finding::NOT_HELD.finding(
                "The machine has no network card that is plugged in; Azure makes none without, so it gets one.",
                "Choose a subnet in which nothing can be reached.",
            ));
        }
        let uefi = machine.firmware == Firmware::Uefi;
        let trusted = uefi && (machine.secure_boot || machine.tpm);
        let count = cards.len().max(1);
        let size = size::fitting(machine, count, trusted);
        let has = machine.cpus.count;
        match size {
            None => findings.push(finding::NOT_HELD.finding(
                format!(
                    "No usual size in Azure has {has} processors, {} of memory, {} data disks and {count} cards.",
                    machine.memory,
                    files.len() - 1
                ),
                "Choose one with ./register.sh -z SIZE.",
            )),
            Some(size) if size.cpus != has || size.memory != machine.memory => {
                findings.push(finding::NOT_HELD.finding(
                    format!(
                        "The machine has {has} processors and {} of memory; {}, the smallest usual size that holds it, has {} and {}.",
                        machine.memory, size.name, size.cpus, size.memory
                    ),
                    "Choose another one with ./register.sh -z SIZE.",
                ));
            }
            Some(_) => {}
        }
        Made { machine, files, cards, placeholder, trusted, size }
    }

    fn bicep(&self, name: &str, findings: &mut Vec<Finding>) -> String {
        let machine = self.machine;
        let uefi = machine.firmware == Firmware::Uefi;
        let v = if uefi { "V2" } else { "V1" };
        let why = if uefi { "UEFI: generation 2" } else { "BIOS: generation 1" };
        let security = if self.trusted {
            [
                "    securityProfile: {\n      securityType: 'TrustedLaunch'\n    }\n".to_owned(),
                format!(
                    "    securityProfile: {{\n      securityType: 'TrustedLaunch'\n      uefiSettings: {{\n        secureBootEnabled: {}\n        vTpmEnabled: {}\n      }}\n    }}\n",
                    machine.secure_boot, machine.tpm
                ),
            ]
        } else {
            [String::new(), String::new()]
        };
        let [disk_security, vm_security] = security;
        let ids: Option<Vec<&str>> =
            self.cards.iter().map(|(_, subnet)| subnet.filter(|id| id.starts_with('/'))).collect();
        let ids = ids.filter(|ids| !ids.is_empty()).map(|ids| format!(" = {}", list(&ids, "")));
        let mut labels: Vec<&str> = self.cards.iter().map(|(nic, _)| nic.slot.as_str()).collect();
        if self.placeholder {
            labels.push("nic0");
        }
        let source = format!("{} processors and {} of memory", machine.cpus.count, machine.memory);
        fill(
            include_str!("machine.bicep"),
            &[
                ("@GENERATION@", format!("The source starts by {why}.")),
                ("@NAME@", word(name)),
                ("@SOURCE@", source),
                ("@SIZE@", self.size.map(|size| format!(" = {}", word(size.name))).unwrap_or_default()),
                ("@CARD_COUNT@", labels.len().to_string()),
                ("@SUBNETS@", ids.unwrap_or_default()),
                ("@TAGS@", tags(machine, findings)),
                ("@DATA_DISKS@", list(&self.files[1..], "")),
                ("@CARDS@", list(&labels, "")),
                ("@OS@", if guests::of(machine).is_windows() { "Windows" } else { "Linux" }.to_owned()),
                ("@V@", v.to_owned()),
                ("@DISK_SECURITY@", disk_security),
                ("@OS_FILE@", word(self.files[0])),
                ("@VM_SECURITY@", vm_security),
            ],
        )
    }

    fn script(&self, name: &str) -> String {
        let files: Vec<String> = self.files.iter().map(|file| shell(file)).collect();
        let mut resources = vec!["\"$name-os\"".to_owned()];
        resources.extend((0..self.files.len() - 1).map(|lun| format!("\"$name-data{lun}\"")));
        resources.extend((0..self.cards.len().max(1)).map(|card| format!("\"$name-nic{card}\"")));
        let mut cards: String = self
            .cards
            .iter()
            .map(|(nic, subnet)| {
                format!(
                    "add_card {} {}\n",
                    shell(&one_line(&nic.slot)),
                    shell(&one_line(subnet.unwrap_or_default()))
                )
            })
            .collect();
        if self.placeholder {
            cards += "add_card nic0 ''\n";
        }
        shell_script(
            include_str!("register.sh"),
            &[
                ("@NAME@", shell(name)),
                ("@SUBNET@", "''".to_owned()),
                ("@RESOURCES@", resources.join(" ")),
                ("@FILES@", files.join(" ")),
                ("@CARDS@", cards),
            ],
        )
    }
}

/// `text` as a string of Bicep.
fn word(text: &str) -> String {
    let mut out = String::from("'");
    for letter in one_line(text).chars() {
        match letter {
            '\\' | '\'' => out.extend(['\\', letter]),
            '$' => out.push_str("\\$"),
            letter => out.push(letter),
        }
    }
    out.push('\'');
    out
}

/// An array, one element on a line.
fn list(words: &[&str], indent: &str) -> String {
    if words.is_empty() {
        return "[]".to_owned();
    }
    let lines: String = words.iter().map(|text| format!("{indent}  {}\n", word(text))).collect();
    format!("[\n{lines}{indent}]")
}

/// The machine's notes and tags, as far as Azure takes them.
fn tags(machine: &Machine, findings: &mut Vec<Finding>) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut lost = Vec::new();
    let mut add = |key: &str, value: &str| {
        let plain: String = one_line(key).chars().filter(|letter| !"<>%&\\?/".contains(*letter)).collect();
        let value = one_line(value);
        let fits = value.chars().count() <= TAG_AT_MOST && !plain.is_empty() && plain.chars().count() <= 128;
        if fits
            && plain == key
            && rows.len() < TAGS_AT_MOST
            && rows.iter().all(|(has, _)| !has.eq_ignore_ascii_case(key))
        {
            rows.push((plain, value));
        } else {
            lost.push(one_line(key));
        }
    };
    if let Some(notes) = machine.annotation.as_deref().filter(|notes| !notes.is_empty()) {
        add("notes", notes);
    }
    for tag in &machine.tags {
        match tag.split_once('=') {
            Some((key, value)) => add(key, value),
            None => add(tag, ""),
        }
    }
    if !lost.is_empty() {
        findings.push(finding::NOT_HELD.finding(
            format!("Azure's tags do not take these of the machine: {}.", lost.join(", ")),
            "A tag has a value of up to 256 characters, and a name without <>%&\\?/ that is used once.",
        ));
    }
    if rows.is_empty() {
        return "{}".to_owned();
    }
    let lines: String =
        rows.iter().map(|(key, value)| format!("  {}: {}\n", word(key), word(value))).collect();
    format!("{{\n{lines}}}")
}

/// What Azure has no place for.
fn not_held(machine: &Machine, findings: &mut Vec<Finding>) {
    let mut lost = |says: String, remedy: &str| findings.push(finding::NOT_HELD.finding(says, remedy));
    let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    if !macs.is_empty() {
        lost(
            format!("Azure gives every card an address of its own, not {}.", macs.join(", ")),
            "Look whether a licence in the guest, or a reservation of DHCP, goes by the address.",
        );
    }
    for nic in machine.nics.iter().filter(|nic| nic.vlan.is_some()) {
        lost(
            format!(
                "{} is in the virtual network (VLAN) {}; Azure has none.",
                one_line(&nic.slot),
                nic.vlan.unwrap_or_default()
            ),
            "Choose the subnet that stands for it.",
        );
    }
    if machine.firmware == Firmware::Bios && machine.tpm {
        lost(
            "The machine starts by BIOS and has a TPM; in Azure only machines of generation 2 have one."
                .to_owned(),
            "Change the guest to UEFI before the move if it needs a TPM.",
        );
    }
    if machine.clock == Clock::LocalTime {
        lost(
            "The machine's clock counts local time; Azure's counts UTC.".to_owned(),
            "Windows goes by Azure's clock through the guest agent; set its time zone to UTC if times matter before it starts.",
        );
    }
    for disk in machine.disks.iter().filter(|disk| disk.serial.is_some()) {
        lost(
            format!("{} has a serial number, which Azure does not set.", disk.slot),
            "Look whether the guest names disks by /dev/disk/by-id.",
        );
    }
    let cpus = machine.cpus;
    if cpus.sockets() > 1 || cpus.cores_per_socket > 1 || cpus.threads_per_core > 1 {
        lost(
            format!(
                "The machine has {} sockets of {} cores with {} threads; a size of Azure has an arrangement of its own.",
                cpus.sockets(),
                cpus.cores_per_socket,
                cpus.threads_per_core
            ),
            "Look at licences that count sockets or cores.",
        );
    }
    let uuid = machine.smbios.uuid.map(|uuid| format!("the system's UUID {uuid}"));
    let what: Vec<String> = uuid.into_iter().chain(fit::smbios_strings(machine, true)).collect();
    findings.extend(fit::not_held(
        &what,
        TITLE,
        "Look whether a licence or an inventory agent in the guest goes by it.",
    ));
    findings.extend(fit::starts_its_disk(machine, TITLE));
}

#[cfg(test)]
mod tests;
