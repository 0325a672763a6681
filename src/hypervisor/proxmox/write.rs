//! Proxmox VE: the machine as a qemu-server configuration, and the script that makes it with `qm create`.
//!
//! Source: the manual pages qm(1) and qm.conf(5). The script imports the disks (`import-from`, Proxmox VE 7.2 and later) and lets
//! the host make the UEFI variables, the TPM's state and the volumes' names; the .conf beside it says the same in the
//! form of the file, with the disks where they lie now. Deliberately absent: HA, pools, firewall rules.

use super::conf::url_encode;
use crate::finding;
use crate::hypervisor::text::{shell, shell_script};
use crate::hypervisor::{Artifact, Placement, Rendered, fit, guests};
use crate::machine::{BootDevice, Bus, Clock, DiskSlot, Machine, NicSlot};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};

const TITLE: &str = "Proxmox VE";
/// The bridge that its installer makes.
const USUAL_BRIDGE: &str = "vmbr0";
/// The storage that its installer makes for disks; the script asks the host instead.
const USUAL_STORAGE: &str = "local-lvm";
const DESCRIPTION_AT_MOST: usize = 8192;
const SMBIOS_AT_MOST: usize = 512;
const SERIAL_AT_MOST: usize = 20;
/// `scsi0` to `scsi30`.
const SCSI_AT_MOST: usize = 31;
const NICS_AT_MOST: usize = 32;
/// Ids below 100 are reserved.
const IDS: std::ops::RangeInclusive<u32> = 100..=999_999_999;

/// What the machine is called there.
pub fn called(name: &str) -> String {
    named(name).0
}

fn named(name: &str) -> (String, Option<Finding>) {
    fit::dns_name(name, 255, true, false, TITLE)
}

/// `ID.conf` (or `machine.conf`) and `register.sh`.
///
/// # Errors
/// Unsupported for sectors of 4096 bytes and controllers or cards that it has not, refused for an id or a bridge that cannot be.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    if let Some(id) = placement.id.filter(|id| !IDS.contains(id)) {
        return Err(Error::refused(format!(
            "no machine can have the id {id}; 100 to 999999999 are possible"
        )));
    }
    if placement.folder.contains(|letter: char| letter == ',' || letter.is_control()) {
        return Err(Error::refused(format!("{TITLE} takes no path like {:?}", placement.folder))
            .hint("choose a folder without commas and control characters with -o"));
    }
    let disks = fit::disks(machine, placement, TITLE)?;
    let mut written = Written { machine, findings: Vec::new(), settings: Vec::new() };
    written.general();
    if placement.without_agent {
        // It would be waited for whenever the machine is to be shut down.
        written.settings.retain(|(key, _)| key != "agent");
    }
    written.findings.extend(too_many(machine));
    let mut places = Vec::new();
    for (index, (disk, placed)) in disks.iter().enumerate() {
        let kind = fit::kvm_bus(disk)?;
        let options = written.disk_options(disk, kind);
        places.push(Place {
            key: format!("{kind}{index}"),
            file: placed.file.clone(),
            format: placed.format.clone(),
            options,
        });
    }
    fit::cards_at_most(machine, NICS_AT_MOST, TITLE)?;
    for (index, nic) in machine.nics.iter().enumerate() {
        let value = written.nic(nic, placement)?;
        written.set(&format!("net{index}"), value);
    }
    written.boot(&places);
    let conf = conf(&written, &places, placement);
    let script = script(&written, &places, placement);
    let name = placement.id.map_or("machine.conf".to_owned(), |id| format!("{id}.conf"));
    let artifacts = vec![Artifact::file(name, conf), Artifact::script("register.sh", script)];
    Ok(Rendered { artifacts, findings: written.findings })
}

/// A disk: where it goes, and what is said of it besides.
struct Place {
    key: String,
    file: String,
    format: String,
    options: String,
}

struct Written<'a> {
    machine: &'a Machine,
    findings: Vec<Finding>,
    /// Keys and values that `qm create` and the .conf have in common.
    settings: Vec<(String, String)>,
}

impl Written<'_> {
    fn set(&mut self, key: &str, value: impl Into<String>) {
        self.settings.push((key.to_owned(), value.into()));
    }

    fn lose(&mut self, what: Vec<String>, remedy: &str) {
        self.findings.extend(fit::not_held(&what, TITLE, remedy));
    }

    fn general(&mut self) {
        let machine = self.machine;
        let (name, changed) = named(&machine.name);
        self.findings.extend(changed);
        self.set("name", name);
        let (sockets, cores, threads) = fit::without_threads(machine.cpus, TITLE);
        self.findings.extend(threads);
        self.set("sockets", sockets.to_string());
        self.set("cores", cores.to_string());
        // What the usual model lacks (x86-64-v2 and up), distributions of today need.
        self.set("cpu", "host");
        self.set("memory", fit::mebibytes(machine.memory).to_string());
        let uefi = machine.firmware == Firmware::Uefi;
        self.set("bios", if uefi { "ovmf" } else { "seabios" });
        self.set("machine", if machine.disks.iter().any(|disk| disk.bus == Bus::Ide) { "pc" } else { "q35" });
        self.set("ostype", guests::of(machine).proxmox());
        self.set("localtime", if machine.clock == Clock::LocalTime { "1" } else { "0" });
        if machine.disks.iter().any(|disk| disk.bus == Bus::VirtioScsi) {
            self.set("scsihw", "virtio-scsi-single");
        }
        self.set("agent", "1");
        self.set("rng0", "source=/dev/urandom");
        self.set("serial0", "socket");
        self.tags();
        self.smbios();
        if !self.description().1 {
            self.lose(
                vec![format!("an annotation of more than {DESCRIPTION_AT_MOST} characters")],
                "Keep the rest elsewhere.",
            );
        }
    }

    fn tags(&mut self) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.');
        let mut changed = Vec::new();
        let mut tags = Vec::new();
        for tag in &self.machine.tags {
            let mut fitting: String =
                tag.chars().map(|c| if is_plain(c) { c.to_ascii_lowercase() } else { '-' }).collect();
            if fitting.starts_with(['-', '+', '.']) {
                fitting.insert(0, '_');
            }
            if fitting != *tag {
                changed.push(format!("the tag {tag:?} (it is {fitting} there)"));
            }
            if !fitting.is_empty() && !tags.contains(&fitting) {
                tags.push(fitting);
            }
        }
        if !tags.is_empty() {
            self.set("tags", tags.join(";"));
        }
        self.lose(changed, "Tag it by hand where something goes by these tags.");
    }

    fn smbios(&mut self) {
        let smbios = &self.machine.smbios;
        let mut value = smbios.uuid.map_or(String::new(), |uuid| format!("uuid={uuid}"));
        let mut lost = Vec::new();
        let mut is_encoded = false;
        for (name, text) in [
            ("serial", &smbios.serial),
            ("manufacturer", &smbios.manufacturer),
            ("product", &smbios.product),
            ("version", &smbios.version),
            ("sku", &smbios.sku),
            ("family", &smbios.family),
        ] {
            let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
            let part = format!("{}{name}={}", if value.is_empty() { "" } else { "," }, STANDARD.encode(text));
            if value.len() + part.len() + ",base64=1".len() > SMBIOS_AT_MOST {
                lost.push(format!("{name} {text:?} of SMBIOS: all of it is too long"));
                continue;
            }
            value += &part;
            is_encoded = true;
        }
        if is_encoded {
            value += ",base64=1";
        }
        if !value.is_empty() {
            self.set("smbios1", value);
        }
        self.lose(lost, "Look whether licences go by it.");
    }

    fn disk_options(&mut self, disk: &DiskSlot, kind: &str) -> String {
        let mut options = String::from("discard=on");
        if matches!(kind, "scsi" | "virtio") {
            options += ",iothread=1";
        }
        match disk.serial.as_deref().filter(|serial| !serial.is_empty()) {
            Some(serial) if serial.len() <= SERIAL_AT_MOST => {
                options += &format!(",serial={}", url_encode(serial, "_-."))
            }
            Some(serial) => self.lose(
                vec![format!("the serial number {serial:?} of {} (20 bytes at most)", disk.file)],
                "Let the guest find the disk by a UUID instead of /dev/disk/by-id.",
            ),
            None => {}
        }
        options
    }

    fn nic(&mut self, nic: &NicSlot, placement: &Placement) -> Result<String> {
        let model = fit::kvm_card(nic)?;
        let chosen = placement.networks.chosen(nic);
        let bridge = chosen.map_or(USUAL_BRIDGE, |name| name.strip_prefix("bridge:").unwrap_or(name));
        if bridge.is_empty()
            || !bridge.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        {
            return Err(Error::refused(format!("{TITLE} has no bridge with the name {bridge:?}"))
                .hint("name a bridge, such as vmbr0, with --network or --map-network"));
        }
        self.findings.extend(fit::usual_network(nic, &placement.networks, USUAL_BRIDGE));
        let mut value = match &nic.mac {
            Some(mac) => format!("{model}={}", mac.to_uppercase()),
            None => model.to_owned(),
        };
        value += &format!(",bridge={bridge}");
        if let Some(tag) = nic.vlan {
            value += &format!(",tag={tag}");
        }
        if !nic.connected {
            value += ",link_down=1";
        }
        Ok(value)
    }

    /// The boot disk only, not a data disk's left-over boot sector; and the cards that the source starts from.
    fn boot(&mut self, places: &[Place]) {
        let disk = places.get(self.machine.boot_disk()).map(|place| place.key.clone());
        let mut order: Vec<String> = Vec::new();
        for device in &self.machine.boot_order {
            match device {
                BootDevice::Disk => order.extend(disk.clone()),
                BootDevice::Nic(index) if *index < self.machine.nics.len() => {
                    order.push(format!("net{index}"))
                }
                // There are no such drives.
                BootDevice::Nic(_) | BootDevice::Cdrom | BootDevice::Floppy => {}
            }
        }
        if let Some(disk) = disk.filter(|disk| !order.contains(disk)) {
            order.push(disk);
        }
        if !order.is_empty() {
            self.set("boot", format!("order={}", order.join(";")));
        }
    }

    fn efidisk(&self) -> Option<String> {
        let keys = if self.machine.secure_boot { 1 } else { 0 };
        (self.machine.firmware == Firmware::Uefi).then(|| format!("efitype=4m,pre-enrolled-keys={keys}"))
    }

    /// What its owner wrote, as far as there is room.
    fn description(&self) -> (String, bool) {
        let text = self.machine.annotation.as_deref().unwrap_or_default();
        let short: String = text.chars().filter(|c| *c != '\0').take(DESCRIPTION_AT_MOST).collect();
        let is_all = short == text;
        (short, is_all)
    }
}

/// The finding that there are more disks than places, which are fewer here than KVM has on virtio-scsi.
fn too_many(machine: &Machine) -> Option<Finding> {
    let count = machine.disks.len();
    let is_scsi = machine.disks.iter().any(|disk| disk.bus == Bus::VirtioScsi);
    (is_scsi && count > SCSI_AT_MOST).then(|| {
        finding::DISKS_TOO_MANY.finding(
            format!("The machine has {count} disks; on this controller {TITLE} attaches {SCSI_AT_MOST}."),
            "Put disks together in the guest, or leave some out with --skip-disk.",
        )
    })
}

fn conf(written: &Written<'_>, places: &[Place], placement: &Placement) -> String {
    let mut lines: Vec<(String, String)> = written.settings.clone();
    for place in places {
        let path = format!("{}/{}", placement.folder, place.file);
        lines.push((place.key.clone(), format!("{path},format={},{}", place.format, place.options)));
    }
    let storage = placement.storage.as_deref().unwrap_or(USUAL_STORAGE);
    let id = placement.id.map_or("ID".to_owned(), |id| id.to_string());
    let mut volume = places.len();
    if let Some(options) = written.efidisk() {
        let variables = placement.variables.as_ref().map(|file| format!("{}/{file}", placement.folder));
        let place = variables.unwrap_or_else(|| format!("{storage}:vm-{id}-disk-{volume}"));
        lines.push(("efidisk0".into(), format!("{place},{options}")));
        volume += 1;
    }
    if written.machine.tpm {
        lines.push(("tpmstate0".into(), format!("{storage}:vm-{id}-disk-{volume},version=v2.0")));
    }
    lines.sort();
    let (description, _) = written.description();
    let comments = description.split('\n').filter(|_| !description.is_empty());
    let mut out: String =
        comments.map(|line| format!("#{}\n", url_encode(line, " -_.,:;/()+*!?='\"@&<>|~$`{}^"))).collect();
    for (key, value) in lines {
        out += &format!("{key}: {value}\n");
    }
    out
}

fn script(written: &Written<'_>, places: &[Place], placement: &Placement) -> String {
    let mut options = String::new();
    let mut option = |key: &str, word: &str| options += &format!("    --{key} {word} \\\n");
    for (key, value) in &written.settings {
        option(key, &shell(value));
    }
    for place in places {
        option(
            &place.key,
            &format!(
                "\"$storage:0,import-from=$here/\"{}",
                shell(&format!("{},{}", place.file, place.options))
            ),
        );
    }
    if let Some(efidisk) = written.efidisk() {
        option(
            "efidisk0",
            &match &placement.variables {
                None => format!("\"$storage:1,{efidisk}\""),
                Some(file) => format!("\"$storage:0,import-from=$here/{file},{efidisk}\""),
            },
        );
    }
    if written.machine.tpm {
        option("tpmstate0", "\"$storage:1,version=v2.0\"");
    }
    let (description, _) = written.description();
    if !description.is_empty() {
        option("description", &shell(&description));
    }
    let setting = |name: &str| {
        let found = written.settings.iter().find(|(key, _)| key == name);
        found.map_or(String::new(), |(_, value)| value.clone())
    };
    let mut bridges: Vec<&str> = Vec::new();
    for (_, value) in written.settings.iter().filter(|(key, _)| key.starts_with("net")) {
        let bridge = value.split(',').find_map(|part| part.strip_prefix("bridge=")).unwrap_or_default();
        if !bridges.contains(&bridge) {
            bridges.push(bridge);
        }
    }
    let macs: Vec<&str> = written.machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    let files = places.iter().map(|place| &place.file).chain(&placement.variables);
    let files: Vec<String> = files.map(|file| shell(file)).collect();
    shell_script(
        include_str!("register.sh"),
        &[
            ("@NAME@", shell(&setting("name"))),
            ("@UUID@", shell(&written.machine.smbios.uuid.map(|uuid| uuid.to_string()).unwrap_or_default())),
            ("@MACS@", shell(&macs.join(" "))),
            ("@BRIDGES@", shell(&bridges.join(" "))),
            ("@FILES@", files.join(" ")),
            ("@STORAGE@", shell(placement.storage.as_deref().unwrap_or_default())),
            ("@ID@", shell(&placement.id.map(|id| id.to_string()).unwrap_or_default())),
            ("@OPTIONS@", options.trim_end_matches([' ', '\\', '\n']).trim_start().to_owned()),
        ],
    )
}
