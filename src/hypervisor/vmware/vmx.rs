//! VMware's configuration file (.vmx): lines of `key = "value"`.
//!
//! Keys are case-insensitive; the last of equal keys counts. Inside a value `|xx` stands for the byte with that
//! hexadecimal number. `.encoding` names the character set; UTF-8 and windows-1252 occur. The format has no
//! published specification; what is here follows VMware's documentation of single parameters, libvirt's
//! description of its VMX driver and 137 files of other producers.
//!
//! Left out on purpose: snapshots (.vmsd; the disks' own chain says what counts), resource shares, devices that have
//! no disk or network behind them (sound, floppy, serial lines). What is left out and might be missed is named in
//! [`Parsed::left_out`].

use crate::finding;
use crate::hypervisor::{Choice, Parsed};
use crate::machine::{Bus, Clock, Cpus, DiskSlot, Machine, NicSlot, parse_mac};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A .vmx is a few KiB; one of this size is something else.
const AT_MOST: Bytes = Bytes::mib(1);
/// vSphere 8 allows 768 processors and 24 TiB of memory; far beyond them the number is damage.
const CPUS_AT_MOST: u32 = 4096;
const MEMORY_AT_MOST: Bytes = Bytes(128 << 40);

/// True for text that looks like one.
pub fn recognise(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(64 << 10)).unwrap_or_default().to_ascii_lowercase();
    [&b"config.version"[..], b"virtualhw.version"]
        .iter()
        .any(|key| head.windows(key.len()).any(|part| part == *key))
}

/// Reads a .vmx.
pub fn parse(bytes: &[u8], _choice: &Choice) -> Result<Parsed> {
    let keys = Keys::read(bytes)?;
    if !keys.0.contains_key("config.version") && !keys.0.contains_key("virtualhw.version") {
        return Err(Error::corrupt(
            "is not a VMware configuration: neither config.version nor virtualHW.version is there",
        ));
    }
    if keys.get("encryption.keysafe").is_some() || keys.get("encryption.data").is_some() {
        return Err(Error::unsupported("is an encrypted virtual machine: its configuration and disks cannot be read")
            .hint("decrypt it where it runs (VM > Settings > Options > Encryption, or re-apply a storage policy without encryption), then copy it again"));
    }
    let mut findings = Vec::new();
    let disks = disks(&keys, &mut findings)?;
    let cpus = cpus(&keys)?;
    let memory = memory(&keys)?;
    let firmware = match keys.get("firmware") {
        None => Firmware::Bios,
        Some(text) if text.eq_ignore_ascii_case("bios") => Firmware::Bios,
        Some(text) if text.eq_ignore_ascii_case("efi") => Firmware::Uefi,
        Some(other) => {
            return Err(Error::unsupported(format!("firmware = {other:?}; bios and efi are known")));
        }
    };
    let is_set = |key: &str| {
        keys.get(key).is_some_and(|value| !value.eq_ignore_ascii_case("false") && !value.is_empty())
    };
    if is_set("checkpoint.vmstate") {
        findings.push(finding::SUSPENDED.finding(
            "The machine is suspended: what was in its memory is lost, and its file systems are as after a power cut.",
            "Resume it and shut it down at the source for a clean copy.",
        ));
    }
    if is_set("sound.present") {
        findings
            .push(finding::DEVICE_LEFT_OUT.finding("The machine has a sound card, which is left out.", ""));
    }
    if is_set("pcipassthru0.present") {
        findings.push(finding::PASSTHROUGH.finding(
            "The machine has a physical PCI device, which cannot be carried over.",
            "Give it such a device at the target.",
        ));
    }
    let bios_uuid = keys.get("uuid.bios").map(uuid).transpose()?;
    let mut machine = Machine::new(keys.get("displayname").unwrap_or(""), memory);
    machine.annotation = keys.get("annotation").filter(|text| !text.is_empty()).map(str::to_owned);
    machine.firmware = firmware;
    machine.secure_boot = firmware == Firmware::Uefi && keys.flag("uefi.secureboot.enabled", false);
    machine.tpm = keys.flag("vtpm.present", false);
    machine.cpus = cpus;
    machine.smbios.uuid = bios_uuid;
    machine.smbios.serial = bios_uuid.map(serial);
    machine.clock = clock(&keys);
    machine.disks = disks;
    machine.nics = nics(&keys, &mut findings)?;
    machine.os_label = keys.get("guestos").map(str::to_owned);
    Ok(Parsed { machine, findings, unread: Vec::new() })
}

/// The lines, keys in lower case.
struct Keys(BTreeMap<String, String>);

impl Keys {
    fn read(bytes: &[u8]) -> Result<Keys> {
        if bytes.len() as u64 > AT_MOST.0 {
            return Err(Error::refused(format!(
                "has {} bytes; a .vmx has at most {}",
                bytes.len(),
                AT_MOST.0
            )));
        }
        let mut raw = BTreeMap::new();
        for line in bytes.split(|&b| b == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let Some(equals) = line.iter().position(|&b| b == b'=') else { continue };
            let key = String::from_utf8_lossy(line[..equals].trim_ascii()).to_ascii_lowercase();
            raw.insert(key, unescape(unquote(line[equals + 1..].trim_ascii())));
        }
        let utf8 = raw.get(".encoding").is_none_or(|name| {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            name == "utf-8" || name == "utf8"
        });
        let decode = |value: Vec<u8>| match String::from_utf8(value) {
            Ok(text) => text,
            // Not UTF-8 whatever it says: the 8-bit set that VMware uses otherwise.
            Err(error) => windows_1252(error.as_bytes()),
        };
        let keys = raw
            .into_iter()
            .map(|(k, v)| (k, if utf8 || v.is_ascii() { decode(v) } else { windows_1252_or_utf8(v) }));
        Ok(Keys(keys.collect()))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn flag(&self, key: &str, otherwise: bool) -> bool {
        self.get(key).map_or(otherwise, |value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    fn number(&self, key: &str, at_most: u64) -> Result<Option<u64>> {
        let Some(text) = self.get(key).filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        match text.trim().parse::<u64>() {
            Ok(number) if number <= at_most => Ok(Some(number)),
            _ => Err(Error::corrupt(format!("{key} = {text:?}; a number up to {at_most} is possible"))),
        }
    }

    /// The slots (`scsi0:1`, `ethernet2`) of a kind that have at least one key, in numerical order.
    fn slots(&self, kind: &str) -> Vec<String> {
        let slots: BTreeSet<(Vec<u32>, &str)> = self
            .0
            .keys()
            .filter_map(|key| {
                let (slot, _) = key.split_once('.')?;
                let numbers = slot.strip_prefix(kind)?;
                Some((numbers.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?, slot))
            })
            .collect();
        slots.into_iter().map(|(_, slot)| slot.to_owned()).collect()
    }
}

fn unquote(value: &[u8]) -> &[u8] {
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    value.strip_suffix(b"\"").unwrap_or(value)
}

/// Resolves `|xx`.
fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        let hex = value.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'|', Some(escaped)) => {
                out.push(escaped);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn windows_1252_or_utf8(value: Vec<u8>) -> String {
    // ESXi rewrites files as UTF-8 and leaves the old `.encoding` behind; valid UTF-8 beyond ASCII is no accident.
    String::from_utf8(value).unwrap_or_else(|error| windows_1252(error.as_bytes()))
}

/// The 27 characters in which windows-1252 differs from Latin-1.
fn windows_1252(bytes: &[u8]) -> String {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    bytes
        .iter()
        .map(|&b| if (0x80..0xa0).contains(&b) { HIGH[usize::from(b - 0x80)] } else { char::from(b) })
        .collect()
}

fn cpus(keys: &Keys) -> Result<Cpus> {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let count = small(keys.number("numvcpus", CPUS_AT_MOST.into())?.unwrap_or(1)).max(1);
    let cores = small(keys.number("cpuid.corespersocket", CPUS_AT_MOST.into())?.unwrap_or(1)).max(1);
    Ok(Cpus::new(count, cores, 1))
}

fn memory(keys: &Keys) -> Result<Bytes> {
    // VMware's own default where the line is missing.
    let mib = keys.number("memsize", MEMORY_AT_MOST.0 >> 20)?.unwrap_or(32);
    Ok(Bytes::mib(mib.max(1)))
}

/// `56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15`, as VMware writes a UUID.
fn uuid(text: &str) -> Result<Uuid> {
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Uuid::parse_str(&hex)
        .map_err(|_| Error::corrupt(format!("uuid.bios = {text:?}; 16 octets in hexadecimal are wanted")))
}

/// The serial number that VMware shows to the guest of a machine with this UUID.
fn serial(uuid: Uuid) -> String {
    let octets: Vec<String> = uuid.as_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("VMware-{}-{}", octets[..8].join(" "), octets[8..].join(" "))
}

fn clock(keys: &Keys) -> Clock {
    let windows = keys.get("guestos").is_some_and(|os| os.to_ascii_lowercase().starts_with("win"));
    if windows { Clock::LocalTime } else { Clock::Utc }
}

fn disks(keys: &Keys, findings: &mut Vec<Finding>) -> Result<Vec<DiskSlot>> {
    let mut disks = Vec::new();
    for (kind, bus) in [("scsi", Bus::Scsi), ("sata", Bus::Sata), ("nvme", Bus::Nvme), ("ide", Bus::Ide)] {
        for slot in keys.slots(kind) {
            let Some((controller, _)) = slot.split_once(':') else { continue };
            // IDE controllers are always there; the others say so.
            let controller_here = bus == Bus::Ide || keys.flag(&format!("{controller}.present"), false);
            if !controller_here || !keys.flag(&format!("{slot}.present"), false) {
                continue;
            }
            let file = keys.get(&format!("{slot}.filename")).unwrap_or("");
            let device = keys.get(&format!("{slot}.devicetype")).unwrap_or("").to_ascii_lowercase();
            let is_disk = match device.as_str() {
                "" | "disk" | "scsi-harddisk" | "ata-harddisk" => {
                    !file.to_ascii_lowercase().ends_with(".iso")
                }
                "rawdisk" => true,
                _ => false,
            };
            if !is_disk {
                if device.starts_with("scsi-passthru") || device == "scsi-passthru" {
                    findings.push(finding::PASSTHROUGH.finding(
                        format!("{slot} is a physical SCSI device ({file}), which cannot be carried over."),
                        "Give the machine such a device at the target.",
                    ));
                }
                continue;
            }
            if file.is_empty() {
                return Err(Error::corrupt(format!("{slot} is a disk without a file name")));
            }
            if keys.get(&format!("{slot}.mode")).is_some_and(|mode| mode.contains("nonpersistent")) {
                findings.push(finding::DISK_INDEPENDENT.finding(
                    format!("{slot} forgets its changes at power-off at the source; it will keep them at the target."),
                    "",
                ));
            }
            let controller = keys.get(&format!("{controller}.virtualdev")).map(str::to_owned);
            disks.push(DiskSlot { controller, ..DiskSlot::new(slot, bus, file) });
        }
    }
    // The boot disk first, where the machine's owner chose one.
    if let Some(order) = keys.get("bios.hddorder") {
        for slot in order.split(',').rev() {
            if let Some(at) = disks.iter().position(|disk| disk.slot.eq_ignore_ascii_case(slot.trim())) {
                let disk = disks.remove(at);
                disks.insert(0, disk);
            }
        }
    }
    Ok(disks)
}

fn nics(keys: &Keys, findings: &mut Vec<Finding>) -> Result<Vec<NicSlot>> {
    let mut nics = Vec::new();
    for slot in keys.slots("ethernet") {
        let key = |name: &str| keys.get(&format!("{slot}.{name}"));
        if !keys.flag(&format!("{slot}.present"), false) {
            continue;
        }
        let wanted = match key("addresstype").map(str::to_ascii_lowercase).as_deref() {
            Some("static") => key("address"),
            _ => key("generatedaddress").or(key("address")),
        };
        let mac = match wanted.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(
                parse_mac(text)
                    .ok_or_else(|| Error::corrupt(format!("{slot} has the hardware address {text:?}")))?,
            ),
        };
        if mac.is_none() {
            findings.push(finding::MAC_MISSING.finding(
                format!("{slot} has no hardware address yet (the machine was never started): the target chooses one."),
                "",
            ));
        }
        let slot_number = keys.number(&format!("{slot}.pcislotnumber"), u64::from(u32::MAX)).ok().flatten();
        nics.push(NicSlot {
            mac,
            model: key("virtualdev").map(str::to_owned),
            network: key("networkname")
                .or(key("dvs.portgroupid"))
                .or(key("vnet"))
                .or(key("connectiontype"))
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            predictable_name: slot_number.filter(|&n| n > 0).map(|n| format!("ens{}", acpi_slot(n))),
            connected: keys.flag(&format!("{slot}.startconnected"), true),
            ..NicSlot::new(slot)
        });
    }
    Ok(nics)
}

/// The slot by which udev names the card. Ten bits of VMware's number are that of a bridge (or a device on the first bus),
/// the bits above them its function; each function of a bridge has a slot of its own: 1184 is function 1 of 160, slot 161.
fn acpi_slot(number: u64) -> u64 {
    (number & 0x3ff).saturating_add(number >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;

    #[test]
    fn cards_behind_a_bridge_are_named_by_their_slot() {
        for (number, name) in [
            (33, Some("ens33")),
            (160, Some("ens160")),
            (192, Some("ens192")),
            (1184, Some("ens161")),
            (1216, Some("ens193")),
            (2208, Some("ens162")),
            (u64::MAX, None),
            (0, None),
        ] {
            let text = format!(
                "config.version = \"8\"\nvirtualHW.version = \"19\"\nmemSize = \"1024\"\nscsi0.present = \"TRUE\"\n\
                 scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\nethernet0.present = \"TRUE\"\n\
                 ethernet0.pciSlotNumber = \"{number}\"\n"
            );
            let machine = parse(text.as_bytes(), &Choice::default()).unwrap().machine;
            assert_eq!(machine.nics[0].predictable_name.as_deref(), name, "{number}");
        }
    }

    const WEB01: &str = r#"#!/usr/bin/vmware
.encoding = "windows-1252"
config.version = "8"
virtualHW.version = "19"
DISPLAYNAME = "web01 |22blue|22"
guestOS = "debian12-64"
memSize = "2048"
numvcpus = "4"
cpuid.coresPerSocket = "2"
uuid.bios = "56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.vmdk"
scsi0:10.present = "TRUE"
scsi0:10.fileName = "web01_2.vmdk"
scsi0:2.present = "TRUE"
scsi0:2.fileName = "web01_1.vmdk"
scsi0:3.present = "FALSE"
scsi0:3.fileName = "old.vmdk"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "x.iso"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:00:12:AB"
ethernet0.pciSlotNumber = "192"
ethernet0.networkName = "VM Network"
"#;

    #[test]
    fn a_usual_machine() {
        let Parsed { machine, findings, .. } = parse(WEB01.as_bytes(), &Choice::default()).unwrap();
        assert_eq!(machine.name, "web01 \"blue\"");
        assert_eq!(machine.memory, Bytes::gib(2));
        assert_eq!(machine.cpus, Cpus::new(4, 2, 1));
        let files: Vec<_> = machine.disks.iter().map(|disk| disk.file.as_str()).collect();
        assert_eq!(files, ["web01.vmdk", "web01_1.vmdk", "web01_2.vmdk"], "in numerical order");
        assert_eq!(machine.disks[0].controller.as_deref(), Some("pvscsi"));
        let nic = &machine.nics[0];
        assert_eq!(nic.mac.as_deref(), Some("00:50:56:00:12:ab"));
        assert_eq!(nic.predictable_name.as_deref(), Some("ens192"));
        assert_eq!(
            machine.smbios.serial.as_deref(),
            Some("VMware-56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15")
        );
        assert_eq!(findings, Vec::new());
    }

    #[test]
    fn the_owners_boot_disk_comes_first() {
        let text = format!("{WEB01}bios.hddOrder = \"scsi0:2\"\n");
        assert_eq!(parse(text.as_bytes(), &Choice::default()).unwrap().machine.disks[0].slot, "scsi0:2");
    }

    #[test]
    fn what_is_not_a_machine_is_refused() {
        for (text, kind) in [
            ("", Kind::Corrupt),
            ("hello = \"world\"", Kind::Corrupt),
            ("config.version = \"8\"\nencryption.keySafe = \"vmware:key/list\"", Kind::Unsupported),
            ("config.version = \"8\"\nmemsize = \"-1\"", Kind::Corrupt),
            ("config.version = \"8\"\nmemsize = \"99999999999999999999\"", Kind::Corrupt),
            ("config.version = \"8\"\nscsi0.present=TRUE\nscsi0:0.present=TRUE", Kind::Corrupt),
            (
                "config.version = \"8\"\nethernet0.present=TRUE\nethernet0.address = \"nonsense\"",
                Kind::Corrupt,
            ),
            ("config.version = \"8\"\nfirmware = \"coreboot\"", Kind::Unsupported),
        ] {
            assert_eq!(parse(text.as_bytes(), &Choice::default()).unwrap_err().kind(), kind, "{text}");
        }
    }

    #[test]
    fn names_in_the_old_character_set() {
        let machine = parse(
            b".encoding = \"windows-1252\"\nconfig.version = \"8\"\ndisplayName = \"M\xfcnchen \x80\"",
            &Choice::default(),
        )
        .unwrap()
        .machine;
        assert_eq!(machine.name, "München €");
        let machine = parse(
            b".encoding = \"UTF-8\"\nconfig.version = \"8\"\ndisplayName = \"M\xc3\xbcnchen|21\"",
            &Choice::default(),
        )
        .unwrap()
        .machine;
        assert_eq!(machine.name, "München!");
    }
}
