//! Disks of a domain: what they are attached to, where their content lies, what is special about them.
//!
//! Source: libvirt's "Domain XML format", section "Hard drives, floppy disks, CDROMs". The chain below an image (`backingStore`) is read from
//! the images themselves, which is what the guest sees; credentials are not read at all.

use super::{Boot, Hypervisor, Order, Report, number, order_of};
use crate::finding;
use crate::hypervisor::xml::Element;
use crate::machine::{Backing, Bus, DiskSlot};
use landfall_image::{Bytes, Error, Result};
use std::collections::BTreeMap;

/// Disks of a SCSI controller where libvirt chooses their places: VMware's bus is wide (16 units, of which 7 is the controller), all
/// others' is narrow.
const ON_A_WIDE_CONTROLLER: usize = 15;
const ON_A_CONTROLLER: usize = 7;
/// No hypervisor runs as many; each is compared with those before it.
const DRIVES_AT_MOST: usize = 4096;
const SECTOR_AT_MOST: u64 = 1 << 20;

/// The hard disks, in the order in which libvirt keeps them. CD and floppy drives are left out, but for their place in the boot order.
pub fn read(
    devices: &Element,
    hypervisor: Hypervisor,
    order: &mut Order,
    report: &mut Report,
) -> Result<Vec<DiskSlot>> {
    let drives = devices.all("disk").count();
    if drives > DRIVES_AT_MOST {
        return Err(Error::refused(format!("has {drives} drives; at most {DRIVES_AT_MOST} are read")));
    }
    let controllers = scsi_controllers(devices)?;
    let mut disks: Vec<DiskSlot> = Vec::new();
    for element in sorted(devices) {
        let place = match element.attribute("device").unwrap_or("disk") {
            "cdrom" => Boot::Cdrom,
            "floppy" => Boot::Floppy,
            "disk" | "lun" if is_folder(element) => continue,
            "disk" | "lun" => {
                let mut disk = disk(element, &controllers, hypervisor, report)?;
                disk.slot = free_slot(&disks, disk.slot, element)?;
                disks.push(disk);
                Boot::Disk(disks.len() - 1)
            }
            other => {
                return Err(Error::unsupported(format!(
                    "has a disk that is a {other:?}; disk, lun, cdrom and floppy are known"
                )));
            }
        };
        if let Some(number) = order_of(element)? {
            order.push((number, place));
        }
    }
    Ok(disks)
}

/// All drives as libvirt puts them while it reads: those of one bus together and by their targets' names, whatever the order of
/// the text.
fn sorted(devices: &Element) -> Vec<&Element> {
    let mut out: Vec<(&str, Option<usize>, &Element)> = Vec::new();
    for element in devices.all("disk") {
        let slot = element.child("target").and_then(|target| target.attribute("dev")).unwrap_or_default();
        let (bus, index) = (bus_of(element, slot), letters(slot));
        let is_later = |other: &(&str, Option<usize>, &Element)| other.0 == bus && other.1 > index;
        let last = || out.iter().rposition(|other| other.0 == bus).map(|at| at + 1);
        let at = out.iter().position(is_later).or_else(last).unwrap_or(out.len());
        out.insert(at, (bus, index, element));
    }
    out.into_iter().map(|(_, _, element)| element).collect()
}

/// The bus by its word; where it is not said, the target's name says it.
fn bus_of<'a>(element: &'a Element, slot: &str) -> &'a str {
    let said = element.child("target").and_then(|target| target.attribute("bus"));
    said.unwrap_or(match slot.get(..2) {
        _ if letters(slot).is_none() => "virtio",
        Some("hd") => "ide",
        Some("sd") => "scsi",
        Some("xv") => "xen",
        Some("fd") => "fdc",
        _ => "virtio",
    })
}

/// A folder of the host, shown as a disk with FAT: nothing that a copy could be made of.
pub fn is_folder(disk: &Element) -> bool {
    let format = disk.child("driver").and_then(|driver| driver.attribute("type"));
    disk.attribute("type") == Some("dir") || matches!(format, Some("fat" | "dir"))
}

fn scsi_controllers(devices: &Element) -> Result<BTreeMap<u64, String>> {
    let mut models = BTreeMap::new();
    let scsi = devices.all("controller").filter(|c| c.attribute("type") == Some("scsi"));
    for controller in scsi {
        let index =
            number("a controller's index", controller.attribute("index").unwrap_or("0"), u32::MAX.into())?;
        if let Some(model) = controller.attribute("model") {
            models.insert(index, model.to_owned());
        }
    }
    Ok(models)
}

/// Two disks of a name are told apart by their bus; `--disk` needs a name for each.
fn free_slot(disks: &[DiskSlot], slot: String, element: &Element) -> Result<String> {
    let taken = |slot: &str| disks.iter().any(|disk| disk.slot == slot);
    let bus = element.child("target").and_then(|target| target.attribute("bus")).unwrap_or("other");
    let longer = format!("{bus}-{slot}");
    match (taken(&slot), taken(&longer)) {
        (false, _) => Ok(slot),
        (true, false) => Ok(longer),
        (true, true) => Err(Error::corrupt(format!("has two disks at {slot:?}"))),
    }
}

fn disk(
    element: &Element,
    controllers: &BTreeMap<u64, String>,
    hypervisor: Hypervisor,
    report: &mut Report,
) -> Result<DiskSlot> {
    let target = element.child("target");
    let Some(slot) = target.and_then(|target| target.attribute("dev")).filter(|dev| !dev.is_empty()) else {
        return Err(Error::corrupt("has a disk without a target"));
    };
    let (bus, controller) = attachment(element, slot, controllers, hypervisor)?;
    let (file, backing) = source(element, slot)?;
    let blockio = element.child("blockio");
    let sectors = |name: &str| {
        let text = blockio.and_then(|blockio| blockio.attribute(name));
        text.map(|text| number(name, text, SECTOR_AT_MOST)).transpose()
    };
    let logical = sectors("logical_block_size")?.unwrap_or(0);
    if logical != 0 && (logical < 512 || !logical.is_power_of_two()) {
        return Err(Error::corrupt(format!("{slot} has sectors of {logical} bytes")));
    }
    if sectors("physical_block_size")?.is_some_and(|physical| physical != logical) {
        report.unread("devices/disk/blockio/@physical_block_size");
    }
    let format = format(element, hypervisor);
    notable(element, slot, report);
    Ok(DiskSlot {
        controller,
        backing,
        format,
        serial: element.text_at("serial").map(str::to_owned),
        sector_size: Some(Bytes(logical)).filter(|size| !matches!(size.0, 0 | 512)),
        ..DiskSlot::new(slot, bus, file)
    })
}

/// The bus, and the controller's model where it tells something that the bus does not.
fn attachment(
    element: &Element,
    slot: &str,
    controllers: &BTreeMap<u64, String>,
    hypervisor: Hypervisor,
) -> Result<(Bus, Option<String>)> {
    Ok(match bus_of(element, slot) {
        "virtio" => (Bus::VirtioBlk, None),
        "ide" => (Bus::Ide, None),
        "sata" => (Bus::Sata, None),
        "xen" => (Bus::Xen, None),
        "nvme" => (Bus::Nvme, None),
        "scsi" => {
            let said = element.child("address").and_then(|address| address.attribute("controller"));
            let index = match said {
                Some(text) => number("a disk's controller", text, u32::MAX.into())?,
                None => {
                    let each = match hypervisor {
                        Hypervisor::Vmware => ON_A_WIDE_CONTROLLER,
                        Hypervisor::Qemu | Hypervisor::Other => ON_A_CONTROLLER,
                    };
                    letters(slot).map_or(0, |index| (index / each) as u64)
                }
            };
            match controllers.get(&index).map(String::as_str) {
                Some("virtio-scsi" | "virtio-transitional" | "virtio-non-transitional") => {
                    (Bus::VirtioScsi, None)
                }
                model => (Bus::Scsi, model.map(str::to_owned)),
            }
        }
        // SCSI commands over USB; an SD card is a bus of its own. No target attaches disks to either.
        word @ ("usb" | "sd") => (Bus::Scsi, Some(word.to_owned())),
        other => {
            return Err(Error::unsupported(format!(
                "{slot} is on a bus {other:?}; virtio, scsi, sata, ide, nvme, usb, sd and xen are known"
            )));
        }
    })
}

/// Which disk of its kind it is by the letters of its name: 27 for `sdab`. Xen's may be that of a partition, `xvda1`.
fn letters(slot: &str) -> Option<usize> {
    let slot = slot.trim_end_matches(|c: char| c.is_ascii_digit());
    let prefix = if slot.starts_with("xvd") { 3 } else { 2 };
    let letters = slot.get(prefix..).filter(|letters| (1..=4).contains(&letters.len()))?;
    let all = letters.bytes().try_fold(0_usize, |sum, letter| {
        letter.is_ascii_lowercase().then(|| sum * 26 + usize::from(letter - b'a') + 1)
    })?;
    all.checked_sub(1)
}

/// Where the content lies.
fn source(element: &Element, slot: &str) -> Result<(String, Backing)> {
    let nothing = || {
        Error::corrupt(format!("{slot} is a disk without a source"))
            .hint("remove the disk from the definition, or name its image there")
    };
    let source = element.child("source").ok_or_else(nothing)?;
    let attribute = |name: &str| source.attribute(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let (file, backing) = match element.attribute("type").unwrap_or("file") {
        "file" => (attribute("file"), Backing::File),
        "block" => (attribute("dev"), Backing::Device),
        "vhostvdpa" => (attribute("dev"), Backing::Device),
        "vhostuser" => (attribute("path"), Backing::Device),
        "volume" => (
            attribute("pool").zip(attribute("volume")).map(|(pool, volume)| format!("{pool}/{volume}")),
            Backing::Volume,
        ),
        "network" => {
            (attribute("protocol").map(|protocol| network_address(&protocol, source)), Backing::Network)
        }
        "nvme" => {
            let address = source.child("address");
            let part = |name: &str| address.and_then(|address| address.attribute(name)).unwrap_or("0");
            let [domain, bus, slot, function] = ["domain", "bus", "slot", "function"].map(part);
            let namespace = source.attribute("namespace").unwrap_or("1");
            let text = format!("nvme {domain}:{bus}:{slot}.{function} namespace {namespace}");
            (address.map(|_| text), Backing::Device)
        }
        other => {
            return Err(Error::unsupported(format!(
                "{slot} has a source of the type {other:?}; file, block, network, volume, nvme, vhostuser and vhostvdpa are known"
            )));
        }
    };
    let file = file.ok_or_else(nothing)?;
    // A part of an image is no image: read as a whole it would be a wrong disk.
    match source.at("slices/slice") {
        Some(slice) => {
            let part = |name: &str| slice.attribute(name).unwrap_or("0");
            Ok((format!("{file} (bytes from {}, {} of them)", part("offset"), part("size")), Backing::Volume))
        }
        None => Ok((file, backing)),
    }
}

/// The address of a disk in the network: as NBD's own URI, which is read directly, or in the same manner for other protocols.
pub fn network_address(protocol: &str, source: &Element) -> String {
    let name = encoded(source.attribute("name").unwrap_or_default());
    let secure = protocol == "nbd" && source.attribute("tls") == Some("yes");
    let scheme = if secure { "nbds" } else { protocol };
    let socket = source.all("host").find_map(|host| host.attribute("socket"));
    if let Some(socket) = socket {
        return format!("{scheme}+unix:///{name}?socket={}", encoded(socket));
    }
    let host = |host: &Element| {
        let name = host.attribute("name").unwrap_or_default();
        let name = if name.contains(':') { format!("[{name}]") } else { encoded(name) };
        match host.attribute("port") {
            Some(port) => format!("{name}:{}", encoded(port)),
            None => name,
        }
    };
    let hosts: Vec<String> = source.all("host").map(host).collect();
    let mut out = format!("{scheme}://{}/{name}", hosts.join(","));
    if let Some(snapshot) = source.child("snapshot").and_then(|snapshot| snapshot.attribute("name")) {
        out += &format!("@{}", encoded(snapshot));
    }
    if let Some(query) = source.attribute("query") {
        out += &format!("?{query}");
    }
    if let Some(host) = source.attribute("tlsHostname").filter(|_| secure) {
        out += &format!("?tls-hostname={}", encoded(host));
    }
    out
}

/// With `%` and two digits for what stands for something in a URI.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// The image's format. Where QEMU's definition does not say it, it is raw: libvirt stopped to guess from what a guest may write. A volume's
/// format is known to its storage pool only.
fn format(element: &Element, hypervisor: Hypervisor) -> Option<String> {
    let said = element.child("driver").and_then(|driver| driver.attribute("type"));
    let usual = match (hypervisor, element.attribute("type")) {
        (Hypervisor::Qemu, Some("volume")) | (Hypervisor::Vmware | Hypervisor::Other, _) => None,
        (Hypervisor::Qemu, _) => Some("raw"),
    };
    let format = match said.or(usual)? {
        "vpc" => "vhd",
        // The container is opened with its key; as raw it would stay closed.
        "raw" if encryption(element).is_some_and(|format| format.starts_with("luks")) => "luks",
        other => other,
    };
    Some(format.to_owned())
}

/// How the host encrypts the image.
fn encryption(element: &Element) -> Option<&str> {
    let within = element.at("source/encryption").or(element.child("encryption"))?;
    Some(within.attribute("format").unwrap_or("default"))
}

/// What a person should know of the disk.
fn notable(element: &Element, slot: &str, report: &mut Report) {
    let device = element.attribute("device");
    if device == Some("lun") || matches!(element.attribute("type"), Some("nvme" | "vhostvdpa" | "vhostuser"))
    {
        let what = if device == Some("lun") {
            "a physical SCSI disk of the host"
        } else {
            "a device or a process of the host"
        };
        report.say(&finding::DISK_RAW, format!("{slot} is {what}."), "");
    }
    if element.child("shareable").is_some() {
        report.say(&finding::DISK_SHARED, format!("{slot} is shared with other machines."), "");
    }
    if element.child("transient").is_some() {
        report.say(
            &finding::DISK_INDEPENDENT,
            format!(
                "{slot} forgets its changes at power-off at the source; it will keep them at the target."
            ),
            "",
        );
    }
    if element.child("readonly").is_some() {
        report.say(
            &finding::NOT_HELD,
            format!("{slot} cannot be written to at the source; at the target it can."),
            "Mount its file systems read-only in the guest.",
        );
    }
    if let Some(wwn) = element.text_at("wwn") {
        report.say(
            &finding::NOT_HELD,
            format!("{slot} has the world wide name {wwn}, which it does not have at the target."),
            "Let the guest name the disk by the UUID of its file system where it goes by /dev/disk/by-id/wwn-*.",
        );
    }
    if let Some(format) = encryption(element) {
        report.say(
            &finding::NOT_HELD,
            format!(
                "The image of {slot} is encrypted by the source's host ({format}); at the target it is not."
            ),
            "Put it on encrypted storage there, and give landfall the key that opens it here.",
        );
    }
    if let Some(mirror) = element.child("mirror") {
        let job = mirror.attribute("job").unwrap_or("copy");
        report.say(
            &finding::NOT_HELD,
            format!("A block job ({job}) was at work on {slot} when the definition was taken: its image may be another by now."),
            &format!("End the job at the source (virsh blockjob), take the definition again, and convert that. Image: {slot}."),
        );
    }
}
