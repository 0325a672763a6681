//! Proxmox VE's configurations against the command lines of QEMU that qemu-server itself makes of them.
//!
//! The command lines are searched as plain text, not with the code under test.

use super::corpus;
use landfall::hypervisor::{Choice, proxmox};
use landfall::machine::{Backing, BootDevice, Bus, Clock, Machine};
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Kind};
use std::path::{Path, PathBuf};

/// Files that are not read, and why.
const REFUSED: &[(&str, Kind, &str)] = &[
    ("ide-no-media-error.conf", Kind::Corrupt, "an ISO without media=cdrom: qemu-server refuses it, too"),
    ("simple-arm.conf", Kind::Unsupported, "arch: aarch64"),
];

/// A file and what is not compared in it, and why.
const DEVIATIONS: &[(&str, &str, &str)] = &[
    (
        "startdate-l26.conf",
        "clock",
        "the machine starts on a date of its own; it is among the unread settings",
    ),
    ("startdate-win11.conf", "clock", "the same"),
    ("simple-btrfs.conf", "file", "the image is a file disk.raw in a subvolume with the volume's name"),
    ("simple-zfs-over-iscsi.conf", "file", "the volume is a number of the iSCSI target"),
    ("simple-arm-host.conf", "names", "the host decides on the processor where the file does not say it"),
];

/// Templates are started for a backup only, with little more than their disks: what qemu-server makes of them says nothing of the
/// machine.
const TEMPLATES: [&str; 3] =
    ["efi-raw-template.conf", "q35-linux-hostpci-template.conf", "simple1-template.conf"];

/// Files for which qemu-server makes no command line: the host that runs it lacks something, the file is in order.
const NO_COMMAND: usize = 10;

struct Device {
    id: String,
    driver: String,
    boot: Option<u32>,
    words: String,
}

struct Command(Vec<String>);

impl Command {
    fn read(path: &Path) -> Option<Command> {
        let text = std::fs::read_to_string(path).ok()?;
        let lines = text.lines().map(|line| line.trim().trim_end_matches('\\').trim().replace('\'', ""));
        Some(Command(lines.collect()))
    }

    fn option(&self, name: &str) -> impl Iterator<Item = &str> {
        let start = format!("-{name} ");
        self.0.iter().filter_map(move |line| line.strip_prefix(&start))
    }

    fn value(words: &str, name: &str) -> Option<String> {
        words.split(',').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    }

    fn devices(&self) -> Vec<Device> {
        let of = |words: &str| Device {
            id: Self::value(words, "id").unwrap_or_default(),
            driver: words.split(',').next().unwrap().to_owned(),
            boot: Self::value(words, "bootindex").map(|index| index.parse().unwrap()),
            words: words.to_owned(),
        };
        self.option("device").map(of).collect()
    }

    /// `-m`, and the memory that is plugged in besides.
    fn memory(&self) -> Bytes {
        let words = self.option("m").next().unwrap();
        let base = Self::value(words, "size").unwrap_or_else(|| words.to_owned());
        let mib = |text: &str| text.trim_end_matches('M').parse::<u64>().unwrap();
        let plugged = self.option("object").filter(|words| words.contains("id=mem-dimm"));
        Bytes::mib(mib(&base) + plugged.map(|words| mib(&Self::value(words, "size").unwrap())).sum::<u64>())
    }

    fn disks(&self) -> Vec<Device> {
        let is_disk = |device: &Device| {
            ["scsi-hd", "scsi-block", "ide-hd", "virtio-blk-pci"].contains(&device.driver.as_str())
        };
        self.devices().into_iter().filter(is_disk).collect()
    }
}

fn bus(command: &Command, disk: &Device) -> Bus {
    let controllers = command.devices();
    let on = |id: &str| controllers.iter().find(|other| other.id == id).map(|other| other.driver.clone());
    match disk.driver.as_str() {
        "virtio-blk-pci" => Bus::VirtioBlk,
        "ide-hd" if disk.id.starts_with("sata") => Bus::Sata,
        "ide-hd" => Bus::Ide,
        _ => {
            let place = Command::value(&disk.words, "bus").unwrap();
            match on(place.split('.').next().unwrap()).unwrap().as_str() {
                "virtio-scsi-pci" => Bus::VirtioScsi,
                _ => Bus::Scsi,
            }
        }
    }
}

fn compare(name: &str, machine: &Machine, command: &Command, wrong: &mut Vec<String>) {
    let skip = |what: &str| DEVIATIONS.iter().any(|(file, part, _)| *file == name && *part == what);
    let mut check = |what: &str, ours: String, theirs: String| {
        if ours != theirs && !skip(what) {
            wrong.push(format!("{name}: {what}: {ours}, QEMU gets {theirs}"));
        }
    };
    let title = command.option("name").next().unwrap().split(',').next().unwrap();
    let ours = if machine.name.is_empty() { "vm8006" } else { &machine.name };
    check("name", ours.into(), title.into());
    check("memory", machine.memory.0.to_string(), command.memory().0.to_string());
    let smp = command.option("smp").next().unwrap();
    let cpus = &machine.cpus;
    check(
        "processors",
        format!(
            "{},sockets={},cores={},maxcpus={}",
            cpus.count,
            cpus.sockets(),
            cpus.cores_per_socket,
            cpus.count
        ),
        smp.into(),
    );
    let smbios = command.option("smbios").find(|words| words.starts_with("type=1"));
    let theirs = smbios.and_then(|words| Command::value(words, "uuid")).unwrap_or_default();
    check("uuid", machine.smbios.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(), theirs);
    let cards: Vec<Device> =
        command.devices().into_iter().filter(|device| device.words.contains(",mac=")).collect();
    let macs: Vec<String> =
        cards.iter().map(|card| Command::value(&card.words, "mac").unwrap().to_lowercase()).collect();
    let ours: Vec<String> = machine.nics.iter().filter_map(|nic| nic.mac.clone()).collect();
    check("addresses", format!("{ours:?}"), format!("{macs:?}"));
    let uefi = command.option("machine").any(|words| words.contains("pflash0="))
        || command.option("bios").any(|words| words.contains("OVMF"))
        || command
            .0
            .iter()
            .any(|line| line.contains("\"pflash0\"") || line.contains("unit=0,format=raw,readonly"));
    check("uefi", (machine.firmware == Firmware::Uefi).to_string(), uefi.to_string());
    check("tpm", machine.tpm.to_string(), command.option("tpmdev").next().is_some().to_string());
    let secure =
        command.0.iter().any(|line| line.contains("OVMF_CODE_4M") || line.contains("OVMF_CVM_CODE_4M"));
    check("secure boot needs its firmware", (machine.secure_boot && !secure).to_string(), "false".into());
    let base = command.option("rtc").any(|words| words.contains("base=localtime"));
    check("clock", (machine.clock == Clock::LocalTime).to_string(), base.to_string());

    let disks = command.disks();
    let ours: Vec<_> = machine.disks.iter().map(|disk| (disk.slot.clone(), disk.bus)).collect();
    let theirs: Vec<_> = disks.iter().map(|disk| (disk.id.clone(), bus(command, disk))).collect();
    check("disks", format!("{ours:?}"), format!("{theirs:?}"));
    for disk in machine.disks.iter().filter(|disk| disk.backing == Backing::Volume) {
        let node = format!("\"node-name\":\"drive-{}\"", disk.slot);
        // As older machines get it.
        let drive = format!(",id=drive-{},", disk.slot);
        let line = command.option("blockdev").find(|line| line.contains(&node));
        let line = line.or(command.option("drive").find(|line| line.contains(&drive))).unwrap_or_default();
        let last = disk.file.rsplit(['/', ':']).next().unwrap();
        check("file", line.contains(last).to_string(), "true".into());
        let format = line.split("\"driver\":\"").filter_map(|rest| rest.split('"').next());
        let known = format.clone().find(|format| ["raw", "qcow2"].contains(format)).map(str::to_owned);
        let known = known.or(Command::value(line, "format")).unwrap_or_default();
        check("format", disk.format.clone().unwrap_or_else(|| known.clone()), known);
    }
    let mut first =
        disks.iter().enumerate().filter_map(|(n, disk)| Some((disk.boot?, n))).collect::<Vec<_>>();
    first.sort_unstable();
    check("boot disk", format!("{:?}", machine.boot_disk), format!("{:?}", first.first().map(|(_, n)| *n)));
    // Where the file says no order, qemu-server has one of its own.
    let mut kinds: Vec<(u32, BootDevice)> = Vec::new();
    for device in command.devices() {
        let Some(index) = device.boot else { continue };
        let kind = match device.driver.as_str() {
            "ide-cd" | "scsi-cd" => BootDevice::Cdrom,
            _ if device.id.starts_with("net") => BootDevice::Nic(device.id[3..].parse().unwrap()),
            _ => BootDevice::Disk,
        };
        kinds.push((index, kind));
    }
    kinds.sort_by_key(|(index, _)| *index);
    let mut theirs: Vec<BootDevice> = Vec::new();
    kinds.iter().for_each(|(_, kind)| {
        if !theirs.contains(kind) {
            theirs.push(*kind)
        }
    });
    if !machine.boot_order.is_empty() {
        // It has no floppy drive for the letter that stands for one.
        let ours: Vec<_> =
            machine.boot_order.iter().filter(|device| **device != BootDevice::Floppy).collect();
        check("boot order", format!("{ours:?}"), format!("{theirs:?}"));
    }
    let board = command.option("machine").next().unwrap().contains("q35");
    let hides_slots = command.0.iter().any(|line| line.contains("acpi-pci-hotplug-with-bridge-support=off"));
    for (nic, card) in machine.nics.iter().zip(&cards) {
        let slot = Command::value(&card.words, "addr").unwrap();
        let slot = u32::from_str_radix(slot.trim_start_matches("0x"), 16).unwrap();
        let on_first = Command::value(&card.words, "bus").as_deref() == Some("pci.0");
        let expected = if board { format!("enp6s{slot}") } else { format!("ens{slot}") };
        if let Some(ours) = &nic.predictable_name {
            check("names", format!("{ours} {on_first}"), format!("{expected} true"));
            let of_old = command
                .option("machine")
                .any(|words| ["q35-4.", "q35-5.", "q35-6.0"].iter().any(|version| words.contains(version)));
            check("names", (!board || hides_slots || of_old).to_string(), "true".into());
        }
    }
}

fn files() -> Option<Vec<PathBuf>> {
    let folder = corpus()?.join("proxmox/cfg2cmd");
    let mut files = Vec::new();
    for folder in [folder.clone(), folder.join("aarch64")] {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|ending| ending == "conf")));
    }
    files.sort();
    Some(files)
}

#[test]
fn every_configuration_is_read_as_qemu_server_reads_it() {
    let Some(files) = files() else { return };
    let (mut wrong, mut compared, mut without, mut refused, mut templates) = (Vec::new(), 0, 0, 0, 0);
    for path in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = std::fs::read(path).unwrap();
        let expected = REFUSED.iter().find(|(file, ..)| *file == name).map(|(_, kind, _)| *kind);
        match (proxmox::read::parse(&bytes, &Choice::default()), expected) {
            (Ok(parsed), None) => {
                match Command::read(&path.with_extension("conf.cmd")) {
                    Some(_) if TEMPLATES.contains(&name) => templates += 1,
                    Some(command) => {
                        compare(name, &parsed.machine, &command, &mut wrong);
                        compared += 1;
                    }
                    None => without += 1,
                }
                // Their comments are of the tests, so a file may say one thing only; each is known by its ending.
                let row = landfall::hypervisor::reader("conf", &bytes).unwrap();
                assert_eq!(row.name, "proxmox", "{name}");
            }
            (Err(error), Some(kind)) if error.kind() == kind => refused += 1,
            (Ok(_), Some(_)) => wrong.push(format!("{name}: is read")),
            (Err(error), _) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((refused, templates), (REFUSED.len(), TEMPLATES.len()));
    assert!(compared >= 90 && without <= NO_COMMAND, "{compared} compared, {without} without a command line");
}

#[test]
fn a_snapshot_of_a_chain_is_found_by_its_name() {
    let Some(files) = files() else { return };
    let path = files.iter().find(|path| path.ends_with("simple-backingchain.conf")).unwrap();
    let choice = Choice { snapshot: Some("snap2".into()), ..Choice::default() };
    let machine = proxmox::read::parse(&std::fs::read(path).unwrap(), &choice).unwrap().machine;
    let files: Vec<_> = machine.disks.iter().map(|disk| disk.file.as_str()).collect();
    assert_eq!(
        files,
        ["localsnapext:8006/vm-8006-disk-0.qcow2@snap2", "lvm-store:vm-8006-disk-0.qcow2@snap2"]
    );
}
