//! A machine made of its items: processors, memory, disks on their controllers, network cards.

use super::envelope::{self, Disk, Envelope, File, section};
use super::items::{self, Item, types};
use super::{units, vendor};
use crate::finding;
use crate::hypervisor::{Parsed, vmware};
use crate::machine::{Backing, BootDevice, Bus, Cpus, DiskSlot, Machine, NicSlot, parse_mac};
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Result};
use std::collections::{HashMap, HashSet};

/// Far beyond what any hypervisor allows the number is damage.
const CPUS_AT_MOST: u32 = 4096;
const MEMORY_AT_MOST: Bytes = Bytes(128 << 40);

/// The chosen machine of an envelope.
pub(super) fn machine(envelope: &Envelope<'_>) -> Result<Parsed> {
    let mut unread = envelope.unread.clone();
    let hardware = items::section(envelope, &mut unread)?;
    let items = items::items(envelope, hardware)?;
    let mut findings = Vec::new();
    let mut machine = Machine::new(envelope::name(envelope.system), memory(envelope, &items)?);
    machine.cpus = cpus(envelope, &items)?;
    machine.annotation = section(envelope.system, "AnnotationSection")
        .and_then(|section| section.text_at("Annotation"))
        .or(envelope.system.text_at("Description"))
        .map(str::to_owned);
    machine.os_label = label(envelope);
    let boot = Boot::read(envelope, &items, &mut unread);
    (machine.disks, machine.boot_disk) = disks(envelope, &items, boot.disk)?;
    machine.nics = nics(&items, &mut findings)?;
    machine.boot_order = boot.order;
    let mut rest = vendor::Rest { machine, findings, unread };
    vendor::read(envelope, hardware, &items, &mut rest)?;
    let vendor::Rest { machine, mut findings, mut unread } = rest;
    left_out(&items, &mut findings, &mut unread);
    for nic in machine.nics.iter().filter(|nic| nic.mac.is_none()) {
        findings.push(finding::MAC_MISSING.finding(
            format!("{} has no hardware address in the descriptor: the target chooses one.", nic.slot),
            "",
        ));
    }
    const READ: &[&str] = &[
        "Info",
        "Name",
        "Description",
        "OperatingSystemSection",
        "VirtualHardwareSection",
        "AnnotationSection",
        "ProductSection",
        "BootOrderSection",
        "Machine",
    ];
    let own = envelope.system.children.iter().map(envelope::kind);
    unread.extend(own.filter(|name| !READ.contains(name)).map(str::to_owned));
    Ok(Parsed { machine, findings, unread })
}

/// What the machine tries to start from, as vSphere writes it beside the hardware: one section for each device, in order.
#[derive(Default)]
struct Boot<'a> {
    order: Vec<BootDevice>,
    /// The id of the item that is the disk.
    disk: Option<&'a str>,
}

impl<'a> Boot<'a> {
    fn read(envelope: &Envelope<'a>, items: &[Item<'_>], unread: &mut Vec<String>) -> Boot<'a> {
        let mut boot = Boot::default();
        let sections =
            envelope.system.children.iter().filter(|child| envelope::kind(child) == "BootOrderSection");
        for section in sections.filter(|section| envelope.is_chosen(section)) {
            let id = section.attribute("instanceId");
            let device = match section.attribute("type").unwrap_or_default() {
                "disk" => {
                    boot.disk = boot.disk.or(id);
                    BootDevice::Disk
                }
                "cdrom" => BootDevice::Cdrom,
                "floppy" => BootDevice::Floppy,
                "net" | "network" | "ethernet" => {
                    let mut cards = items.iter().filter(|item| item.resource == types::ETHERNET);
                    BootDevice::Nic(cards.position(|card| Some(card.id) == id).unwrap_or(0))
                }
                other => {
                    unread.push(format!("BootOrderSection {other}"));
                    continue;
                }
            };
            if !boot.order.contains(&device) {
                boot.order.push(device);
            }
        }
        // The disk alone is what is tried where nothing is said.
        if boot.order == [BootDevice::Disk] {
            boot.order.clear();
        }
        boot
    }
}

/// What the descriptor calls the operating system: VMware's name, VirtualBox', or in words.
fn label(envelope: &Envelope<'_>) -> Option<String> {
    let os = section(envelope.system, "OperatingSystemSection")?;
    let words = os.attribute("osType").or(os.text_at("OSType")).or(os.text_at("Description"));
    words.map(str::to_owned).or_else(|| os.attribute("id").map(|id| format!("cim:{id}")))
}

fn quantity<'t>(envelope: &'t Envelope<'_>, item: &Item<'t>) -> Result<Option<&'t str>> {
    item.text("VirtualQuantity").map(|text| envelope.resolve(text)).transpose()
}

fn memory(envelope: &Envelope<'_>, items: &[Item<'_>]) -> Result<Bytes> {
    let mut total = 0_u64;
    for item in items.iter().filter(|item| item.resource == types::MEMORY) {
        let Some(quantity) = quantity(envelope, item)? else { continue };
        // Without a unit VMware and oVirt mean MiB.
        let unit = item.text("AllocationUnits").unwrap_or("MegaBytes");
        total = total.saturating_add(units::bytes(quantity, unit)?.0);
    }
    if total > MEMORY_AT_MOST.0 {
        let says = format!("asks for {total} bytes of memory; {} are possible", MEMORY_AT_MOST.0);
        return Err(Error::corrupt(says));
    }
    // Where nothing is said a machine still needs some: VMware's own least.
    Ok(Bytes(if total == 0 { 32 << 20 } else { total }))
}

fn cpus(envelope: &Envelope<'_>, items: &[Item<'_>]) -> Result<Cpus> {
    let (mut count, mut cores, mut threads) = (0_u32, 1, 1);
    for item in items.iter().filter(|item| item.resource == types::PROCESSOR) {
        let per = item.number("CoresPerSocket")?.or(item.number("cpu_per_socket")?);
        cores = per.unwrap_or(cores);
        threads = item.number("threads_per_cpu")?.unwrap_or(threads);
        let sockets = item.number("num_of_sockets")?;
        let own = match quantity(envelope, item)? {
            Some(text) => text.trim().parse().ok().filter(|n| *n <= CPUS_AT_MOST).ok_or_else(|| {
                Error::corrupt(format!("asks for {text:?} processors; up to {CPUS_AT_MOST} are possible"))
            })?,
            None => sockets.unwrap_or(1).saturating_mul(cores).saturating_mul(threads),
        };
        count = count.saturating_add(own);
    }
    if count > CPUS_AT_MOST {
        return Err(Error::corrupt(format!(
            "asks for {count} processors; up to {CPUS_AT_MOST} are possible"
        )));
    }
    Ok(Cpus::new(count, cores, threads))
}

/// A controller: its bus, model, and the word and number of its places.
struct Controller {
    bus: Bus,
    model: Option<String>,
    word: &'static str,
    number: u32,
}

fn controllers<'a>(items: &[Item<'a>]) -> Result<HashMap<&'a str, Controller>> {
    let mut out = HashMap::new();
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for item in items {
        let model = item.sub_type();
        let (bus, word) = match item.resource {
            types::IDE => (Bus::Ide, "ide"),
            types::SCSI if model.starts_with("virtio") => (Bus::VirtioScsi, "scsi"),
            types::SCSI => (Bus::Scsi, "scsi"),
            types::STORAGE if model.contains("nvme") => (Bus::Nvme, "nvme"),
            types::STORAGE if model.starts_with("virtio") => (Bus::VirtioScsi, "scsi"),
            types::STORAGE => (Bus::Sata, "sata"),
            _ => continue,
        };
        let next = counts.entry(word).or_insert(0);
        let number = match item.text("Address").or(item.text("BusNumber")).map(str::parse::<u32>) {
            Some(Ok(number)) if number < 1000 => number,
            // IDs of PCI slots and the like: the order counts.
            _ => *next,
        };
        *next += 1;
        let model = (!model.is_empty() && bus == Bus::Scsi).then(|| match model.as_str() {
            "virtualscsi" => "pvscsi".to_owned(),
            "lsilogicsas" => "lsisas1068".to_owned(),
            _ => model,
        });
        out.insert(item.id, Controller { bus, model, word, number });
    }
    Ok(out)
}

/// Its disks, and the one that it starts from where the descriptor says it. Those with a place are in the order of their places, by which
/// the guest finds them: kinds of controllers as they come first, then by their numbers and units. Others stay where their items are.
fn disks(
    envelope: &Envelope<'_>,
    items: &[Item<'_>],
    first: Option<&str>,
) -> Result<(Vec<DiskSlot>, Option<usize>)> {
    let controllers = controllers(items)?;
    let mut out: Vec<(Option<Place>, DiskSlot)> = Vec::new();
    let mut kinds: Vec<&str> = Vec::new();
    let (mut boot, mut marked) = (None, None);
    let mut taken = HashSet::new();
    for item in items.iter().filter(|item| matches!(item.resource, types::DISK | types::LOGICAL_DISK)) {
        let controller = item.text("Parent").and_then(|parent| controllers.get(parent));
        let unit = item.number("AddressOnParent").ok().flatten();
        let rank = controller.zip(unit).map(|(controller, unit)| {
            if !kinds.contains(&controller.word) {
                kinds.push(controller.word);
            }
            let kind = kinds.iter().position(|kind| *kind == controller.word);
            (kind.unwrap_or_default(), controller.number, unit)
        });
        let place = match (controller, unit) {
            (Some(controller), Some(unit)) => format!("{}{}:{unit}", controller.word, controller.number),
            _ => format!("disk{}", out.len()),
        };
        // Two disks at one place: the second is named by its id.
        let place = if taken.insert(place.clone()) { place } else { format!("{place}#{}", item.id) };
        let bus = controller.map_or(Bus::Scsi, |controller| controller.bus);
        let mut slot = DiskSlot::new(place, bus, "");
        slot.controller = controller.and_then(|controller| controller.model.clone());
        match item.text("HostResource") {
            Some(resource) => {
                let (disk, file) = find(envelope, item, resource)?;
                if disk.boots && marked.is_none() {
                    marked = Some(slot.slot.clone());
                }
                fill(&mut slot, &disk, file, item)?;
            }
            None => {
                slot.backing = Backing::Blank;
                if let Some(size) = quantity(envelope, item)? {
                    slot.size = units::bytes(size, item.text("AllocationUnits").unwrap_or("")).ok();
                }
            }
        }
        if first == Some(item.id) {
            boot = Some(slot.slot.clone());
        }
        out.push((rank, slot));
    }
    let disks = by_place(out);
    let boot = boot.or(marked);
    let boot = boot.and_then(|slot| disks.iter().position(|disk| disk.slot == slot));
    Ok((disks, boot.filter(|index| *index > 0)))
}

/// Kind of the controller, its number, the unit.
type Place = (usize, u32, u32);

fn by_place(disks: Vec<(Option<Place>, DiskSlot)>) -> Vec<DiskSlot> {
    let (mut placed, mut others) = (Vec::new(), Vec::new());
    let has_place: Vec<bool> = disks.iter().map(|(place, _)| place.is_some()).collect();
    for (place, disk) in disks {
        match place {
            Some(place) => placed.push((place, disk)),
            None => others.push(disk),
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    let (mut placed, mut others) = (placed.into_iter().map(|(_, disk)| disk), others.into_iter());
    has_place.into_iter().filter_map(|has| if has { placed.next() } else { others.next() }).collect()
}

/// The disk and the file that an item is backed by: `ovf:/disk/ID`, `/disk/ID`, `ovf:/file/ID`; oVirt has the file's id alone.
fn find<'e>(envelope: &'e Envelope<'_>, item: &Item<'_>, resource: &str) -> Result<(Disk, Option<&'e File>)> {
    let path = resource.strip_prefix("ovf:").unwrap_or(resource).trim_start_matches('/');
    let nothing =
        || Error::corrupt(format!("has the disk {:?} on {resource:?}, which is not there", item.name()));
    let file = |id: &str| envelope.files.get(id);
    if let Some(id) = path.strip_prefix("file/") {
        return Ok((Disk::default(), Some(file(id).ok_or_else(nothing)?)));
    }
    let by_file = || envelope.disks.values().find(|disk| disk.file.as_deref() == Some(path));
    let disk = match path.strip_prefix("disk/") {
        Some(id) => envelope.disks.get(id),
        None => envelope.disks.get(path).or_else(by_file),
    };
    let disk = disk.ok_or_else(nothing)?.clone();
    let backing = match &disk.file {
        Some(id) => Some(file(id).ok_or_else(|| {
            Error::corrupt(format!(
                "has the disk {:?} in the file {id:?}, which is not among its files",
                item.name()
            ))
        })?),
        None => None,
    };
    Ok((disk, backing))
}

fn fill(slot: &mut DiskSlot, disk: &Disk, file: Option<&File>, item: &Item<'_>) -> Result<()> {
    if disk.parent.is_some() {
        return Err(Error::unsupported(format!("has the disk {:?} as changes to another one", item.name()))
            .hint("export the machine again without its snapshots"));
    }
    slot.size = disk.capacity;
    slot.bus = match disk.interface.as_str() {
        "virtio" => Bus::VirtioBlk,
        "virtio_scsi" => Bus::VirtioScsi,
        "sata" => Bus::Sata,
        "ide" => Bus::Ide,
        _ => slot.bus,
    };
    let Some(file) = file else {
        slot.backing = Backing::Blank;
        return Ok(());
    };
    slot.file.clone_from(&file.href);
    let is_address = ["http://", "https://", "ftp://"].iter().any(|scheme| file.href.starts_with(scheme));
    slot.backing = if is_address { Backing::Network } else { Backing::File };
    slot.format = match () {
        () if file.compression.is_some() => file.compression.clone(),
        () if file.chunked => Some(CHUNKS.to_owned()),
        () => format(disk),
    };
    Ok(())
}

/// What a file that is cut into pieces has in the place of a format.
pub(super) const CHUNKS: &str = "chunks";

fn format(disk: &Disk) -> Option<String> {
    let known = [("vmdk", "vmdk"), ("vhdx", "vhdx"), ("vhd", "vhd"), ("qcow", "qcow2"), ("vdi", "vdi")];
    let by_url =
        known.iter().find(|(word, _)| disk.format.contains(word)).map(|(_, name)| (*name).to_owned());
    by_url.or(match disk.volume_format.as_str() {
        "raw" => Some("raw".to_owned()),
        "cow" => Some("qcow2".to_owned()),
        _ => None,
    })
}

fn nics(items: &[Item<'_>], findings: &mut Vec<Finding>) -> Result<Vec<NicSlot>> {
    let mut out: Vec<NicSlot> = Vec::new();
    for item in items.iter().filter(|item| item.resource == types::ETHERNET) {
        let pci = item.settings().find(|(key, _)| *key == "slotInfo.pciSlotNumber");
        let pci = pci.and_then(|(_, number)| number.parse().ok());
        let model = item.sub_type();
        if model.contains("sriov") {
            findings.push(finding::PASSTHROUGH.finding(
                format!("{} is a virtual function of a network card of the host (SR-IOV); at the target it is an ordinary network card.", item.name()),
                "Give the machine a virtual function there if the guest needs its speed.",
            ));
        }
        let slot = format!("ethernet{}", out.len());
        let mac = item.text("Address").or(item.text("MACAddress"));
        let connected = item
            .text("AutomaticAllocation")
            .is_none_or(|word| word.eq_ignore_ascii_case("true") || word == "1");
        out.push(NicSlot {
            mac: mac.map(|text| address(&slot, text)).transpose()?,
            model: (!model.is_empty()).then_some(model),
            network: item.text("Connection").map(str::to_owned),
            predictable_name: pci.and_then(vmware::linux_name),
            connected,
            ..NicSlot::new(slot)
        });
    }
    Ok(out)
}

/// The hardware address of a card.
pub(super) fn address(slot: &str, text: &str) -> Result<String> {
    parse_mac(text).ok_or_else(|| {
        Error::corrupt(format!("{slot} has the hardware address {text:?}"))
            .hint("write six octets in hexadecimal into the descriptor, or take the address out: the target chooses one then")
    })
}

/// Devices that no target gets: one finding for each kind.
fn left_out(items: &[Item<'_>], findings: &mut Vec<Finding>, unread: &mut Vec<String>) {
    let kinds: [(&[u32], &str); 7] = [
        (&[types::CD, types::DVD], "CD or DVD drives"),
        (&[types::FLOPPY], "floppy drives"),
        (&[types::SERIAL], "serial ports"),
        (&[types::PARALLEL], "parallel ports"),
        (&[types::USB], "USB controllers"),
        (&[types::SOUND], "a sound card"),
        (&[types::TAPE], "tape drives"),
    ];
    let names = |wanted: &[u32]| -> Vec<&str> {
        items.iter().filter(|item| wanted.contains(&item.resource)).map(Item::name).collect()
    };
    for (wanted, says) in kinds {
        let names = names(wanted);
        if !names.is_empty() {
            let says = format!("Left out at the target: {says} ({}).", names.join(", "));
            findings.push(finding::DEVICE_LEFT_OUT.finding(says, ""));
        }
    }
    let adapters = names(&[types::FIBRE_CHANNEL, types::ISCSI]);
    if !adapters.is_empty() {
        findings.push(finding::PASSTHROUGH.finding(
            format!("Storage adapters of the host cannot be carried over: {}.", adapters.join(", ")),
            "Give the machine such adapters at the target.",
        ));
    }
    let is_physical =
        |item: &&Item<'_>| item.resource == types::OTHER && item.sub_type().contains("passthrough");
    let physical: Vec<&str> = items.iter().filter(is_physical).map(Item::name).collect();
    if !physical.is_empty() {
        findings.push(finding::PASSTHROUGH.finding(
            format!("Devices of the host cannot be carried over: {}.", physical.join(", ")),
            "Give the machine such devices at the target, or remove their drivers from the guest.",
        ));
    }
    const READ: &[u32] = &[
        types::PROCESSOR,
        types::MEMORY,
        types::IDE,
        types::SCSI,
        types::ETHERNET,
        types::DISK,
        types::LOGICAL_DISK,
        types::STORAGE,
        types::GRAPHICS,
    ];
    for item in items {
        let is_known =
            READ.contains(&item.resource) || kinds.iter().any(|(wanted, _)| wanted.contains(&item.resource));
        let is_channel = item.resource == types::OTHER
            && (item.sub_type() == "vmware.vmci" || item.sub_type().contains("tpm"));
        if is_known
            || is_channel
            || is_physical(&item)
            || matches!(item.resource, types::FIBRE_CHANNEL | types::ISCSI)
        {
            continue;
        }
        let what = format!("{} (ResourceType {} {})", item.name(), item.resource, item.sub_type());
        if item.is_optional() {
            unread.push(what);
        } else {
            findings.push(finding::NOT_HELD.finding(
                format!("The machine needs a device that is not known here: {what}."),
                "Add it at the target if something in the guest needs it.",
            ));
        }
    }
}
