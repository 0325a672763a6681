//! VMware's configuration file (.vmx): what its settings mean.
//!
//! The format has no published specification; what is here follows VMware's documentation of single parameters, libvirt's
//! description of its VMX driver and 137 files of other producers. How the lines are read is in `keys.rs`, which of them
//! mean nothing elsewhere in `known.rs`.
//!
//! `uuid.bios` is kept as the file has it, which is vSphere's and libvirt's UUID of the machine. Up to virtual hardware 12 the
//! guest reads the same; from 13 on it reads the first three fields with their lowest byte first (VMware's article 53609). A
//! finding names both spellings then.
//!
//! Left out on purpose: the snapshots beside it (.vmsd, see `vmsd.rs`), resource shares, and whether a disk's descriptor
//! is a raw device mapping, which its image tells.

use super::keys::Keys;
use super::known::has_no_meaning_elsewhere;
use super::{disks, nics};
use crate::finding;
use crate::hypervisor::{Choice, Parsed};
use crate::machine::{BootDevice, Clock, Cpus, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use uuid::Uuid;

/// vSphere 8 allows 768 processors and 24 TiB of memory; far beyond them the number is damage.
const CPUS_AT_MOST: u32 = 4096;
const MEMORY_AT_MOST: Bytes = Bytes(128 << 40);

/// The virtual hardware from which on the guest reads a UUID as SMBIOS 2.6 wants it.
const LOWEST_BYTE_FIRST: u64 = 13;

/// True for text that looks like one.
pub fn recognise(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(64 << 10)).unwrap_or_default().to_ascii_lowercase();
    [&b"config.version"[..], b"virtualhw.version"]
        .iter()
        .any(|key| head.windows(key.len()).any(|part| part == *key))
}

/// Reads a .vmx. The snapshot of `choice` is not looked for here: it stands in another file.
pub fn parse(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    let keys = Keys::read(bytes)?;
    if !keys.has("config.version") && !keys.has("virtualhw.version") {
        return Err(Error::corrupt(
            "is not a VMware configuration: neither config.version nor virtualHW.version is there",
        ));
    }
    if keys.has("encryption.keysafe") || keys.has("encryption.data") {
        return Err(Error::unsupported("is an encrypted virtual machine: its configuration and disks cannot be read")
            .hint("decrypt it where it runs (VM > Settings > Options > Encryption, or re-apply a storage policy without encryption), then copy it again"));
    }
    if choice.system.is_some() || choice.configuration.is_some() {
        return Err(Error::refused("holds one machine in one configuration; there is none to choose from")
            .hint("leave out --system and --configuration"));
    }
    let mut findings: Vec<Finding> = keys.finding().into_iter().collect();
    let mut machine = Machine::new(keys.get("displayname").unwrap_or(""), memory(&keys)?);
    machine.annotation = keys.get("annotation").filter(|text| !text.is_empty()).map(str::to_owned);
    machine.firmware = firmware(&keys)?;
    machine.secure_boot = keys.flag("uefi.secureboot.enabled", false) && machine.firmware == Firmware::Uefi;
    machine.cpus = cpus(&keys)?;
    machine.os_label = keys.text("guestos").map(str::to_owned);
    smbios(&keys, &mut machine, &mut findings)?;
    let mut unread = Vec::new();
    machine.clock = clock(&keys, &mut unread)?;
    let drives = disks::drives(&keys, &mut findings)?;
    machine.nics = nics::nics(&keys, &mut findings)?;
    machine.boot_disk = disks::boot_disk(&keys, &drives.disks);
    machine.disks = drives.disks;
    match boot_order(&keys, &machine.nics) {
        Ok(order) => machine.boot_order = order,
        Err(key) => unread.push(key.to_owned()),
    }
    state(&keys, &mut machine, &mut findings);
    left_out(&keys, &drives.cds, &drives.others, &mut findings);
    unread.extend(keys.unread(has_no_meaning_elsewhere));
    Ok(Parsed { machine, findings, unread })
}

fn firmware(keys: &Keys) -> Result<Firmware> {
    match keys.text("firmware") {
        None => Ok(Firmware::Bios),
        Some(text) if text.eq_ignore_ascii_case("bios") => Ok(Firmware::Bios),
        Some(text) if text.eq_ignore_ascii_case("efi") => Ok(Firmware::Uefi),
        Some(other) => Err(Error::unsupported(format!("firmware = {other:?}; bios and efi are known"))
            .hint("write one of them into a copy of the definition, and name the copy")),
    }
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

fn smbios(keys: &Keys, machine: &mut Machine, findings: &mut Vec<Finding>) -> Result<()> {
    let uuid = keys.text("uuid.bios").map(uuid).transpose()?;
    machine.smbios.uuid = uuid;
    let hardware = keys.text("virtualhw.version").and_then(|version| version.parse::<u64>().ok());
    if let Some(uuid) = uuid.filter(|_| hardware.is_some_and(|version| version >= LOWEST_BYTE_FIRST)) {
        let inside = Uuid::from_bytes(uuid.to_bytes_le());
        if inside != uuid {
            findings.push(finding::UUID_ORDER.finding(
                format!(
                    "vSphere knows the machine by the UUID {uuid}, and its guest reads {inside} from SMBIOS."
                ),
                "Look whether something in the guest goes by it before the source is gone.",
            ));
        }
    }
    let set = |key: &str| keys.text(key).map(str::to_owned);
    machine.smbios.serial = set("serialnumber").or_else(|| uuid.map(serial));
    machine.smbios.product = set("hw.model");
    let reflected = ["smbios.reflecthost", "hw.model.reflecthost", "serialnumber.reflecthost"];
    if reflected.map(|key| keys.flag(key, false)).contains(&true) {
        findings.push(finding::NOT_HELD.finding(
            "The guest sees the maker and serial number of the source's host (reflectHost), which the target's host does not have.",
            "Look whether a licence in the guest goes by them before the source is gone.",
        ));
    }
    Ok(())
}

/// `56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15`, as VMware writes a UUID.
fn uuid(text: &str) -> Result<Uuid> {
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Uuid::parse_str(&hex).map_err(|_| {
        Error::corrupt(format!("uuid.bios = {text:?}; 16 octets in hexadecimal are wanted")).hint(
            "correct that line in a copy of the definition, or take it out: the machine gets a new id then",
        )
    })
}

/// A UUID as VMware writes it.
pub(in crate::hypervisor) fn spaced(uuid: Uuid) -> String {
    let octets: Vec<String> = uuid.as_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{}-{}", octets[..8].join(" "), octets[8..].join(" "))
}

/// The serial number that VMware shows to the guest of a machine with this UUID.
pub(in crate::hypervisor) fn serial(uuid: Uuid) -> String {
    format!("VMware-{}", spaced(uuid))
}

/// What the clock counts from: the offset says it, else the guest's kind does. An offset that is neither zero nor the usual
/// one of a Windows guest is named.
fn clock(keys: &Keys, unread: &mut Vec<String>) -> Result<Clock> {
    let windows = keys.get("guestos").is_some_and(|os| os.to_ascii_lowercase().starts_with("win"));
    let Some(offset) = keys.text("rtc.difffromutc") else {
        return Ok(if windows { Clock::LocalTime } else { Clock::Utc });
    };
    match offset.parse::<i64>() {
        Ok(0) => Ok(Clock::Utc),
        Ok(_) => {
            if !windows {
                unread.push(format!("rtc.diffFromUTC = {offset}"));
            }
            Ok(Clock::LocalTime)
        }
        Err(_) => Err(Error::corrupt(format!("rtc.diffFromUTC = {offset:?}; a number of seconds is wanted"))),
    }
}

/// Which kinds of device are tried, or the key that says it in a way that is not known.
fn boot_order(keys: &Keys, nics: &[NicSlot]) -> std::result::Result<Vec<BootDevice>, &'static str> {
    let (key, words) = match (keys.text("bios.bootorder"), keys.text("bios.bootdeviceclasses")) {
        (Some(order), _) => ("bios.bootOrder", order),
        (None, Some(classes)) => ("bios.bootDeviceClasses", classes),
        (None, None) => return Ok(Vec::new()),
    };
    let words = words.strip_prefix("allow:").unwrap_or(words);
    let mut order = Vec::new();
    for word in words.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty())
    {
        let device = match word.as_str() {
            "hdd" | "hd" | "disk" => BootDevice::Disk,
            "cdrom" | "cd" => BootDevice::Cdrom,
            "floppy" | "fd" => BootDevice::Floppy,
            "ethernet" | "net" => BootDevice::Nic(0),
            _ => {
                let nic = nics.iter().position(|nic| nic.slot == word);
                BootDevice::Nic(nic.ok_or(key)?)
            }
        };
        if !order.contains(&device) {
            order.push(device);
        }
    }
    Ok(order)
}

/// What lives on beside the machine: its UEFI variables, its TPM, its memory.
fn state(keys: &Keys, machine: &mut Machine, findings: &mut Vec<Finding>) {
    let variables = keys.text("nvram").map(str::to_owned);
    if machine.firmware == Firmware::Uefi {
        machine.nvram = variables;
    }
    let promised = keys.text("managedvm.autoaddvtpm").is_some();
    machine.tpm = keys.flag("vtpm.present", false) || promised;
    keys.done_with("vtpm.");
    let suspended = keys.text("checkpoint.vmstate").is_some_and(|file| !file.eq_ignore_ascii_case("false"));
    if suspended {
        findings.push(finding::SUSPENDED.finding(
            "The machine is suspended: what was in its memory is lost, and its file systems are as after a power cut.",
            "Resume it and shut it down at the source for a clean copy.",
        ));
    }
}

/// Devices that no target gets: one finding for each kind. All of their settings are done with.
fn left_out(keys: &Keys, cds: &[String], others: &[String], findings: &mut Vec<Finding>) {
    let mut kinds: Vec<(&str, Vec<String>)> =
        vec![("CD or DVD drives", cds.to_vec()), ("devices", others.to_vec())];
    for (kind, says) in [
        ("floppy", "floppy drives"),
        ("serial", "serial ports"),
        ("parallel", "parallel ports"),
        ("sharedfolder", "shared folders"),
    ] {
        let there = |slot: &String| keys.flag(&format!("{slot}.present"), false);
        kinds.push((says, keys.slots(kind).into_iter().filter(there).collect()));
    }
    let present = |names: &[&str]| {
        let there = |name: &&&str| keys.flag(&format!("{name}.present"), false);
        names.iter().filter(there).map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    kinds.push(("a sound card", present(&["sound"])));
    kinds.push(("USB controllers", present(&["usb", "ehci", "usb_xhci"])));
    let host: Vec<&str> = keys.under("usb.autoconnect.device").filter_map(|key| keys.text(key)).collect();
    if !host.is_empty() {
        findings.push(finding::PASSTHROUGH.finding(
            format!("USB devices of the host cannot be carried over: {}.", host.join(", ")),
            "Give the machine such devices at the target.",
        ));
    }
    for prefix in ["floppy", "serial", "parallel", "sharedfolder"] {
        for slot in keys.slots(prefix) {
            keys.done_with(&format!("{slot}."));
        }
    }
    for prefix in ["sound.", "usb.", "usb:", "ehci.", "ehci:", "usb_xhci.", "usb_xhci:"] {
        keys.done_with(prefix);
    }
    for (says, places) in kinds {
        if !places.is_empty() {
            findings.push(
                finding::DEVICE_LEFT_OUT
                    .finding(format!("Left out at the target: {says} ({}).", places.join(", ")), ""),
            );
        }
    }
}

#[cfg(test)]
mod tests;
