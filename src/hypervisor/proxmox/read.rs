//! Reads qemu-server's configuration of a virtual machine (.conf).
//!
//! Source: the manual page qm.conf(5), and 105 files of qemu-server's own tests. Deliberately absent: settings of a cluster
//! (HA, firewall, replication jobs), which lie in other files.

use super::conf::{Conf, Properties, Section, is_true, split, url_decode};
use super::devices::{self, Notes, of_kind};
use crate::finding;
use crate::hypervisor::{Choice, Parsed};
use crate::machine::{BootDevice, Clock, Cpus, DiskSlot, Machine, NicSlot, Smbios};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use std::collections::BTreeMap;
use uuid::Uuid;

/// QEMU takes 8192 processors at most; a machine with more is damage.
const CPUS_AT_MOST: u32 = 8192;
/// Proxmox VE's own limit is 4 TiB.
const MEMORY_AT_MOST: Bytes = Bytes(128 << 40);

type Keys = BTreeMap<String, String>;

/// Reads a .conf.
///
/// # Errors
/// Corrupt where the text is no such file or a value has no sense, unsupported for containers and other processors than x86-64,
/// refused where the chosen snapshot is not in it.
pub fn parse(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    let conf = Conf::parse(bytes)?;
    if conf.main.keys.contains_key("rootfs") {
        return Err(Error::unsupported(
            "is the configuration of a container, which has no disks and no kernel of its own",
        )
        .hint("convert virtual machines: /etc/pve/qemu-server/ID.conf"));
    }
    if conf.main.keys.is_empty() {
        return Err(Error::corrupt("is no configuration of Proxmox VE: it has no setting"));
    }
    let mut notes = Notes::default();
    let section = state(&conf, choice, &mut notes)?;
    let keys = &section.keys;
    if let Some(arch) = keys.get("arch").filter(|arch| *arch != "x86_64") {
        return Err(Error::unsupported(format!("arch = {arch:?}; machines with x86_64 are converted")));
    }
    let mut machine = Machine::new(keys.get("name").map_or("", String::as_str), memory(keys)?);
    machine.annotation = Some(section.description.trim().to_owned()).filter(|text| !text.is_empty());
    machine.tags = tags(keys.get("tags").map_or("", String::as_str));
    machine.cpus = cpus(keys, &mut notes)?;
    machine.smbios = smbios(keys)?;
    machine.os_label = keys.get("ostype").cloned();
    machine.clock = clock(keys);
    machine.disks = devices::disks(keys, choice.snapshot.as_deref(), &mut notes)?;
    machine.nics = devices::nics(keys, &mut notes)?;
    firmware(keys, &mut machine, &mut notes)?;
    boot(keys, &mut machine, &mut notes);
    state_of_the_source(keys, &mut notes);
    hardware(keys, &mut notes);
    if !notes.left_out.is_empty() {
        let kinds = notes.left_out.join(", ");
        notes
            .findings
            .push(finding::DEVICE_LEFT_OUT.finding(format!("The machine has {kinds}: left out."), ""));
    }
    Ok(Parsed { machine, findings: notes.findings, unread: notes.unread })
}

/// The state that is meant: a snapshot's, or the current one.
fn state<'a>(conf: &'a Conf, choice: &Choice, notes: &mut Notes) -> Result<&'a Section> {
    let names: Vec<&str> = conf.snapshots.iter().map(|(name, _)| name.as_str()).collect();
    notes.unread.extend(conf.special.iter().map(|name| format!("[{name}]")));
    if let Some(wanted) = &choice.snapshot {
        let found = conf.snapshots.iter().find(|(name, _)| name == wanted).map(|(_, section)| section);
        let section = found.ok_or_else(|| {
            Error::refused(format!("has no snapshot {wanted:?}")).hint(match names.is_empty() {
                true => "it has none at all: leave --snapshot out".to_owned(),
                false => format!("its snapshots are {}", names.join(", ")),
            })
        })?;
        if section.keys.contains_key("vmstate") {
            notes.findings.push(finding::SUSPENDED.finding(
                format!("The snapshot {wanted} was taken with the machine running: what was in its memory is lost."),
                "",
            ));
        }
        return Ok(section);
    }
    if !names.is_empty() {
        notes.findings.push(finding::SNAPSHOTS.finding(
            format!("{} snapshots stay at the source: {}.", names.len(), names.join(", ")),
            "Choose one with --snapshot to convert that state.",
        ));
    }
    let pending: Vec<_> = conf.pending.keys.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    if !pending.is_empty() {
        notes.findings.push(finding::NOT_HELD.finding(
            format!(
                "Changes wait for the machine's next start at the source and are not made here: {}.",
                pending.join("; ")
            ),
            "Stop and start the machine at the source before the copy, or make these changes at the target.",
        ));
    }
    Ok(&conf.main)
}

fn number(keys: &Keys, key: &str, otherwise: u32, at_most: u32) -> Result<u32> {
    let Some(text) = keys.get(key) else { return Ok(otherwise) };
    text.parse()
        .ok()
        .filter(|number| (1..=at_most).contains(number))
        .ok_or_else(|| Error::corrupt(format!("{key} = {text:?}; a number from 1 to {at_most} is possible")))
}

fn memory(keys: &Keys) -> Result<Bytes> {
    // qemu-server's own default where the line is missing.
    let text = keys.get("memory").map_or("512", String::as_str);
    let properties = Properties::parse(text);
    let mib = properties.get("").or(properties.get("current")).and_then(|mib| mib.parse::<u64>().ok());
    match mib.filter(|mib| (1..=MEMORY_AT_MOST.0 >> 20).contains(mib)) {
        Some(mib) => Ok(Bytes::mib(mib)),
        None => Err(Error::corrupt(format!(
            "memory = {text:?}; a number of MiB from 1 to {} is possible",
            MEMORY_AT_MOST.0 >> 20
        ))),
    }
}

fn cpus(keys: &Keys, notes: &mut Notes) -> Result<Cpus> {
    // `smp` is the older word for `sockets`.
    let sockets = number(keys, "sockets", number(keys, "smp", 1, CPUS_AT_MOST)?, CPUS_AT_MOST)?;
    let cores = number(keys, "cores", 1, CPUS_AT_MOST)?;
    let at_most = sockets.checked_mul(cores).filter(|count| *count <= CPUS_AT_MOST).ok_or_else(|| {
        Error::corrupt(format!("{sockets} sockets of {cores} cores; {CPUS_AT_MOST} processors are possible"))
    })?;
    let plugged = number(keys, "vcpus", at_most, at_most)?;
    if plugged < at_most {
        notes.findings.push(finding::NOT_HELD.finding(
            format!("{plugged} of {at_most} processors are plugged in at the source; the target's machine has {plugged}."),
            "Give it more at the target if they are to be plugged in there.",
        ));
    }
    Ok(Cpus::new(plugged, cores, 1))
}

fn smbios(keys: &Keys) -> Result<Smbios> {
    let properties = Properties::parse(keys.get("smbios1").map_or("", String::as_str));
    let is_encoded = properties.is("base64");
    let text = |name: &str| -> Result<Option<String>> {
        let Some(value) = properties.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        if !is_encoded {
            return Ok(Some(value.to_owned()));
        }
        let bytes = STANDARD.decode(value);
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let corrupt = || Error::corrupt(format!("smbios1 has {name}={value}, which is no text in base64"));
        text.map(Some).ok_or_else(corrupt)
    };
    let uuid = properties.get("uuid").map(|uuid| {
        Uuid::parse_str(uuid)
            .map_err(|_| Error::corrupt(format!("smbios1 has uuid={uuid:?}, which is no UUID")))
    });
    Ok(Smbios {
        uuid: uuid.transpose()?,
        serial: text("serial")?,
        manufacturer: text("manufacturer")?,
        product: text("product")?,
        version: text("version")?,
        sku: text("sku")?,
        family: text("family")?,
    })
}

fn clock(keys: &Keys) -> Clock {
    let windows = keys.get("ostype").is_some_and(|os| os.starts_with('w'));
    match keys.get("localtime").map_or(windows, |value| is_true(value)) {
        true => Clock::LocalTime,
        false => Clock::Utc,
    }
}

/// Tags: separated by semicolons, commas or blanks.
fn tags(text: &str) -> Vec<String> {
    text.split([';', ',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

fn firmware(keys: &Keys, machine: &mut Machine, notes: &mut Notes) -> Result<()> {
    machine.firmware = match keys.get("bios").map_or("seabios", String::as_str) {
        "seabios" => Firmware::Bios,
        "ovmf" => Firmware::Uefi,
        other => return Err(Error::unsupported(format!("bios = {other:?}; seabios and ovmf are known"))),
    };
    if let Some(value) = keys.get("efidisk0").filter(|_| machine.firmware == Firmware::Uefi) {
        let disk = Properties::parse(value);
        machine.nvram = disk.get("").or(disk.get("file")).or(disk.get("volume")).map(str::to_owned);
        // The keys are in the template of 4 MiB only, and not in that of machines with encrypted memory; with them secure boot
        // is on.
        let is_encrypted = keys.contains_key("amd-sev") || keys.contains_key("intel-tdx");
        machine.secure_boot =
            disk.get("efitype") == Some("4m") && disk.is("pre-enrolled-keys") && !is_encrypted;
    } else if keys.contains_key("efidisk0") {
        notes.unread.push("efidisk0".to_owned());
    }
    machine.tpm = keys.contains_key("tpmstate0");
    Ok(())
}

fn boot(keys: &Keys, machine: &mut Machine, notes: &mut Notes) {
    let disk = |slot: &str| machine.disks.iter().position(|disk: &DiskSlot| disk.slot == slot);
    let nic = |slot: &str| machine.nics.iter().position(|nic: &NicSlot| nic.slot == slot);
    let is_cdrom = |slot: &str| notes.cdroms.iter().any(|own| own == slot);
    let mut boot_disk = None;
    let mut order: Vec<BootDevice> = Vec::new();
    let mut push = |device| {
        if !order.contains(&device) {
            order.push(device);
        }
    };
    let properties = Properties::parse(keys.get("boot").map_or("", String::as_str));
    if let Some(devices) = properties.get("order") {
        for device in devices.split([';', ' ']).filter(|device| !device.is_empty()) {
            match (disk(device), nic(device)) {
                (Some(index), _) => {
                    boot_disk = boot_disk.or(Some(index));
                    push(BootDevice::Disk);
                }
                (_, Some(index)) => push(BootDevice::Nic(index)),
                _ if is_cdrom(device) => push(BootDevice::Cdrom),
                _ => notes.unread.push(format!("boot.{device}")),
            }
        }
    } else {
        boot_disk = keys.get("bootdisk").and_then(|slot| disk(slot));
        let letters = properties.get("").or(properties.get("legacy")).unwrap_or_default();
        for letter in letters.chars() {
            match letter {
                'c' => push(BootDevice::Disk),
                'd' => push(BootDevice::Cdrom),
                'a' => push(BootDevice::Floppy),
                'n' => (0..machine.nics.len()).for_each(|index| push(BootDevice::Nic(index))),
                _ => {}
            }
        }
    }
    machine.boot_disk = boot_disk;
    machine.boot_order = order;
}

/// Findings about what was going on at the source.
fn state_of_the_source(keys: &Keys, notes: &mut Notes) {
    match keys.get("lock").map(String::as_str) {
        Some("suspended" | "suspending") => notes.findings.push(finding::SUSPENDED.finding(
            "The machine is suspended: what was in its memory is lost, and its file systems are as after a power cut.",
            "Resume it and shut it down at the source for a clean copy.",
        )),
        Some(lock) => notes.findings.push(finding::LOCKED.finding(
            format!("The machine is locked at the source: {lock}."),
            "Wait for that work to end there, look at its task log, and copy the machine again.",
        )),
        None => {}
    }
    let mut not_held =
        |says: String, remedy: &str| notes.findings.push(finding::NOT_HELD.finding(says, remedy));
    if keys.get("template").is_some_and(|value| is_true(value)) {
        not_held(
            "The machine is a template; at the target it is an ordinary machine.".into(),
            "Mark it as a template there.",
        );
    }
    if let Some(arguments) = keys.get("args") {
        not_held(
            format!("QEMU gets arguments of the owner's at the source: {arguments}"),
            "Look whether the guest needs what they add.",
        );
    }
    for key in ["amd-sev", "intel-tdx"] {
        if let Some(value) = keys.get(key) {
            not_held(
                format!(
                    "The machine's memory is encrypted at the source ({key}: {value}); at the target it is not."
                ),
                "Set up confidential computing at the target where the guest has to have it.",
            );
        }
    }
    let unused: Vec<_> = of_kind(keys, "unused").map(|(_, key, value)| format!("{key}: {value}")).collect();
    if !unused.is_empty() {
        not_held(
            format!("Volumes that are attached nowhere stay at the source: {}.", unused.join(", ")),
            "Attach those that are wanted before the move.",
        );
    }
}

/// Devices of the host, devices that are left out, and the names of all other settings.
fn hardware(keys: &Keys, notes: &mut Notes) {
    let mut passed = Vec::new();
    for (key, value) in keys {
        match (key.as_str(), split(key).map_or("", |(kind, _)| kind)) {
            (_, "ide" | "scsi" | "virtio" | "sata" | "net" | "unused" | "efidisk" | "tpmstate") => {}
            (
                "name" | "memory" | "sockets" | "smp" | "cores" | "vcpus" | "smbios1" | "ostype"
                | "localtime" | "bios" | "boot" | "bootdisk" | "scsihw" | "tags" | "arch" | "lock"
                | "template" | "args" | "amd-sev" | "intel-tdx" | "parent" | "snaptime",
                _,
            ) => {}
            (_, "hostpci" | "parallel") => passed.push(format!("{key}: {value}")),
            (_, "usb") if value.starts_with("spice") => notes.leave_out("a USB port of SPICE"),
            (_, "usb") => passed.push(format!("{key}: {value}")),
            (_, "serial") if value.starts_with('/') => passed.push(format!("{key}: {value}")),
            (_, "serial") => notes.leave_out("a serial line"),
            (_, "audio") => notes.leave_out("a sound card"),
            (_, "virtiofs") => notes.leave_out("a shared folder"),
            ("ivshmem", _) => notes.leave_out("memory shared with other machines"),
            ("watchdog", _) => notes.leave_out("a watchdog"),
            _ => notes.unread.push(url_decode(key)),
        }
    }
    if !passed.is_empty() {
        notes.findings.push(finding::PASSTHROUGH.finding(
            format!("Devices of the source's host are given to the machine: {}.", passed.join(", ")),
            "Give it such devices at the target, or remove their drivers from the guest.",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;

    fn read(text: &str) -> Parsed {
        parse(text.as_bytes(), &Choice::default()).unwrap()
    }

    fn ids(parsed: &Parsed) -> Vec<&str> {
        parsed.findings.iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn a_usual_machine() {
        let parsed = read(
            "#web server%0Aof the shop\nagent: 1\nbios: ovmf\nboot: order=scsi1;net0;ide2\ncores: 2\n\
             efidisk0: local-lvm:vm-100-disk-0,efitype=4m,pre-enrolled-keys=1,size=4M\nide2: none,media=cdrom\nmachine: q35\n\
             memory: 2048\nname: web01\nnet0: virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=12\nostype: l26\n\
             scsi0: local-lvm:vm-100-disk-2,size=64G\nscsi1: local-lvm:vm-100-disk-1,size=32G\nscsihw: virtio-scsi-single\n\
             smbios1: uuid=7b10d7af-b932-4c66-b2c3-3996152ec465,serial=U04tMQ==,manufacturer=QUNNRQ==,base64=1\n\
             sockets: 2\ntags: prod;web\ntpmstate0: local-lvm:vm-100-disk-3,size=4M,version=v2.0\nvmgenid: 1\n",
        );
        let machine = &parsed.machine;
        assert_eq!(machine.annotation.as_deref(), Some("web server\nof the shop"));
        assert_eq!((machine.cpus, machine.memory), (Cpus::new(4, 2, 1), Bytes::gib(2)));
        assert_eq!((machine.firmware, machine.secure_boot, machine.tpm), (Firmware::Uefi, true, true));
        assert_eq!(machine.nvram.as_deref(), Some("local-lvm:vm-100-disk-0"));
        assert_eq!(machine.smbios.serial.as_deref(), Some("SN-1"));
        assert_eq!(machine.smbios.manufacturer.as_deref(), Some("ACME"));
        assert_eq!(machine.tags, ["prod", "web"]);
        assert_eq!(machine.disks.iter().map(|d| d.slot.as_str()).collect::<Vec<_>>(), ["scsi0", "scsi1"]);
        assert_eq!(machine.boot_disk, Some(1));
        assert_eq!(machine.boot_order, [BootDevice::Disk, BootDevice::Nic(0), BootDevice::Cdrom]);
        assert_eq!(ids(&parsed), ["definition-device-left-out"]);
        assert_eq!(parsed.unread, ["agent", "machine", "vmgenid"]);
    }

    #[test]
    fn clocks() {
        for (text, clock) in [
            ("ostype: l26", Clock::Utc),
            ("ostype: win10", Clock::LocalTime),
            ("ostype: w2k8", Clock::LocalTime),
            ("ostype: win10\nlocaltime: 0", Clock::Utc),
            ("ostype: l26\nlocaltime: 1", Clock::LocalTime),
            ("ostype: other", Clock::Utc),
        ] {
            assert_eq!(read(text).machine.clock, clock, "{text}");
        }
    }

    #[test]
    fn keys_are_trusted_with_the_large_variables_only() {
        for (text, expected) in [
            ("bios: ovmf\nefidisk0: a:b,efitype=4m,pre-enrolled-keys=1", true),
            ("bios: ovmf\nefidisk0: a:b,efitype=4m,pre-enrolled-keys=1\namd-sev: type=std", false),
            ("bios: ovmf\nefidisk0: a:b,efitype=4m", false),
            ("bios: ovmf\nefidisk0: a:b,pre-enrolled-keys=1", false),
            ("efidisk0: a:b,efitype=4m,pre-enrolled-keys=1", false),
        ] {
            assert_eq!(read(text).machine.secure_boot, expected, "{text}");
        }
    }

    const SNAPSHOTS: &str = "name: now\nmemory: 1024\nparent: b\nscsi0: local:1/vm-1-disk-0.qcow2\n[PENDING]\ncores: 4\n\
                             [a]\n#before%20it\nname: then\nmemory: 512\nscsi0: local:1/vm-1-disk-0.qcow2\nsnaptime: 1\n\
                             [b]\nname: then\nparent: a\nvmstate: local:1/vm-1-state-b.raw\n";

    #[test]
    fn snapshots_and_waiting_changes() {
        let parsed = read(SNAPSHOTS);
        assert_eq!((parsed.machine.name.as_str(), parsed.machine.cpus.count), ("now", 1));
        assert_eq!(ids(&parsed), ["definition-snapshots", "definition-not-held"]);
        let chosen = |name: &str| {
            let choice = Choice { snapshot: Some(name.into()), ..Choice::default() };
            parse(SNAPSHOTS.as_bytes(), &choice)
        };
        let parsed = chosen("a").unwrap();
        assert_eq!((parsed.machine.name.as_str(), parsed.machine.memory), ("then", Bytes::mib(512)));
        assert_eq!(parsed.machine.annotation.as_deref(), Some("before it"));
        assert_eq!(parsed.machine.disks[0].file, "local:1/vm-1-disk-0.qcow2@a");
        assert_eq!(ids(&chosen("b").unwrap()), ["machine-suspended"]);
        let error = chosen("c").unwrap_err();
        assert_eq!((error.kind(), error.hint_text()), (Kind::Refused, Some("its snapshots are a, b")));
    }

    #[test]
    fn what_is_lost_is_said() {
        let parsed = read(
            "lock: suspended\ntemplate: 1\nargs: -device x\nunused0: a:b\nhostpci0: 0f:00\nusb0: host=1-2\nusb1: spice\n\
             serial0: socket\nserial1: /dev/ttyS0\naudio0: device=AC97\nvirtiofs0: x\nwatchdog: i6300esb\nrng0: source=/dev/urandom\n\
             vcpus: 1\ncores: 4\namd-sev: type=snp\nsata0: a:cloudinit,media=cdrom\nboot: order=hostpci0;sata0",
        );
        let held = "definition-not-held";
        assert_eq!(
            ids(&parsed),
            [
                held,
                "machine-suspended",
                held,
                held,
                held,
                held,
                "device-passthrough",
                "definition-device-left-out"
            ]
        );
        let says = |n: usize| parsed.findings[n].says.as_str();
        assert_eq!(
            says(6),
            "Devices of the source's host are given to the machine: hostpci0: 0f:00, serial1: /dev/ttyS0, usb0: host=1-2."
        );
        assert_eq!(
            says(7),
            "The machine has a cloud-init drive, a sound card, a serial line, a USB port of SPICE, a shared folder, a watchdog: \
             left out."
        );
        assert_eq!(parsed.unread, ["boot.hostpci0", "rng0"]);
        assert_eq!(parsed.machine.boot_order, [BootDevice::Cdrom]);
        assert_eq!(ids(&read("lock: migrate")), ["definition-locked"]);
    }

    #[test]
    fn what_has_no_sense_is_refused() {
        for (text, kind) in [
            ("", Kind::Corrupt),
            ("# only words", Kind::Corrupt),
            ("arch: aarch64", Kind::Unsupported),
            ("rootfs: local:1/x.raw\narch: amd64", Kind::Unsupported),
            ("bios: coreboot", Kind::Unsupported),
            ("memory: 0", Kind::Corrupt),
            ("memory: 99999999999999999999", Kind::Corrupt),
            ("memory: max=1", Kind::Corrupt),
            ("cores: 0", Kind::Corrupt),
            ("cores: 8192\nsockets: 8192", Kind::Corrupt),
            ("cores: 2\nvcpus: 3", Kind::Corrupt),
            ("smbios1: uuid=x", Kind::Corrupt),
            ("smbios1: serial=*,base64=1", Kind::Corrupt),
        ] {
            assert_eq!(parse(text.as_bytes(), &Choice::default()).unwrap_err().kind(), kind, "{text}");
        }
    }

    /// Whatever is changed in a file, reading it ends, in order.
    #[test]
    fn damage_does_no_harm() {
        let good = SNAPSHOTS.as_bytes();
        for at in 0..good.len() {
            for byte in [0, b'\n', b':', b',', b'=', b'[', b'9', 0xff] {
                let mut bytes = good.to_vec();
                bytes[at] = byte;
                let _ = parse(&bytes, &Choice::default());
            }
            let _ = parse(&good[..at], &Choice::default());
        }
    }
}
