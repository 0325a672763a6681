//! Reads the definition of a machine in an XVA (`ova.xml`).
//!
//! ```text
//! struct { version, objects: array of struct { class, id, snapshot: a record of xapi's data model } }
//! ```
//! References in the records are the ids of other objects. Deliberately absent: the definitions of XenServer 3 and earlier
//! (`<appliance>`), and what the guest reported of itself.

use super::unread::Unread;
use super::value::{NULL, Value};
use crate::finding;
use crate::hypervisor::xml::Element;
use crate::hypervisor::{Choice, Parsed, attach};
use crate::machine::{BootDevice, Bus, Clock, Cpus, DiskSlot, Machine, NicSlot, Smbios, parse_mac};
use landfall_boot::check::{Explanation, Finding};
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Xen takes 512 processors at most; a machine with more than these is damage.
const CPUS_AT_MOST: u64 = 8192;
/// More than any host has.
const MEMORY_AT_MOST: u64 = 128 << 40;
/// Objects in one definition: a machine with its disks and cards, and as many again for each snapshot.
const OBJECTS_AT_MOST: usize = 65_536;
/// Larger clocks' offsets than this are a choice, smaller ones are drift.
const DRIFT_SECONDS: u64 = 600;

/// True for bytes that are such a definition.
pub fn recognise(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
    let text: String = head.split_whitespace().collect();
    text.contains("<value><struct><member><name>version</name>") || text.contains("<appliance")
}

struct Object {
    class: String,
    id: String,
    record: Value,
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    unread: Unread,
    left_out: BTreeMap<&'static str, usize>,
}

impl Report {
    fn say(&mut self, row: &Explanation, says: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(row.finding(says.into(), remedy.into()));
    }
}

/// Reads the definition.
///
/// # Errors
/// Corrupt where it is no such document or a value makes no sense, unsupported for the exports of XenServer 3 and earlier, refused
/// where the choice of a machine or snapshot is not in it, or has to be made.
pub fn parse(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    let root = Element::parse(bytes)?;
    if root.name == "appliance" {
        return Err(Error::unsupported("is an export of XenServer 3 or earlier, in another format").hint(
            "import it into a XenServer of today and export it again, or use the disks: xe vdi-export",
        ));
    }
    let objects = objects(&root)?;
    let mut report = Report::default();
    let vm = choose(&objects, choice, &mut report)?;
    let record = &vm.record;
    let mut machine =
        Machine::new(record.text_of("name_label").unwrap_or_default(), memory(record, &mut report)?);
    machine.annotation = record.text_of("name_description").map(str::to_owned);
    machine.tags = texts(record.list("tags"));
    machine.cpus = cpus(record, &mut report)?;
    machine.smbios = smbios(record)?;
    machine.clock = clock(record);
    machine.os_label = label(record);
    machine.disks = disks(&objects, vm, &mut report)?;
    machine.nics = nics(&objects, vm, &mut report)?;
    firmware(record, &mut machine, &mut report);
    let virtualised = record.text_of("HVM_boot_policy").is_some();
    if virtualised {
        machine.boot_order = boot_order(record, &machine, &mut report);
    } else {
        paravirtual(&objects, vm, &mut machine, &mut report);
    }
    state(&objects, vm, &mut machine, &mut report);
    report.unread.record("VM", record);
    for object in &objects {
        let is_known =
            ["VM", "VBD", "VDI", "VIF", "network", "SR", "VTPM", "VGPU", "VUSB", "host", "VM_metrics"];
        if !is_known.contains(&object.class.as_str()) && object.class != "VM_guest_metrics" {
            report.unread.add(&object.class);
        }
    }
    for (kind, count) in std::mem::take(&mut report.left_out) {
        report.say(&finding::DEVICE_LEFT_OUT, format!("The machine has {count} of these: {kind}."), "");
    }
    Ok(Parsed { machine, findings: report.findings, unread: report.unread.names() })
}

fn objects(root: &Element) -> Result<Vec<Object>> {
    let document = (root.name == "value").then(|| Value::read(root)).transpose()?;
    let is_ours = |document: &Value| document.get("version").is_some() && document.get("objects").is_some();
    let document = document.filter(is_ours).ok_or_else(|| {
        Error::corrupt(format!("is no definition of XenServer's: its first element is {:?}", root.name))
    })?;
    let mut objects = Vec::new();
    for object in document.list("objects") {
        let text = |name: &str| object.text_of(name).unwrap_or_default().to_owned();
        let record = object.get("snapshot").cloned().unwrap_or(Value::Struct(Vec::new()));
        objects.push(Object { class: text("class"), id: text("id"), record });
        if objects.len() > OBJECTS_AT_MOST {
            return Err(Error::refused(format!(
                "has more than {OBJECTS_AT_MOST} objects: that is no machine"
            )));
        }
    }
    Ok(objects)
}

/// The machine that is meant: the only one that is no snapshot, unless another is chosen.
fn choose<'a>(objects: &'a [Object], choice: &Choice, report: &mut Report) -> Result<&'a Object> {
    let all =
        || objects.iter().filter(|object| object.class == "VM" && !object.record.is("is_control_domain"));
    let is = |object: &Object, wanted: &str| {
        [Some(object.id.as_str()), object.record.text_of("name_label"), object.record.text_of("uuid")]
            .contains(&Some(wanted))
    };
    let snapshots: Vec<&Object> = all().filter(|object| object.record.is("is_a_snapshot")).collect();
    let names = |objects: &[&Object]| {
        let name = |object: &&Object| {
            format!("{:?}", object.record.text_of("name_label").unwrap_or(object.id.as_str()))
        };
        objects.iter().take(16).map(name).collect::<Vec<_>>().join(", ")
    };
    let only = |found: &[&'a Object], what: &str, option: &str| match found {
        [only] => Ok(*only),
        [] => Err(Error::refused(format!("has no {what} of that name"))),
        several => {
            Err(Error::refused(format!("has {} machines or snapshots: {}", several.len(), names(several)))
                .hint(format!("choose one by its name or UUID with {option}")))
        }
    };
    if let Some(wanted) = &choice.snapshot {
        let found: Vec<&Object> = snapshots.iter().copied().filter(|object| is(object, wanted)).collect();
        return only(&found, "snapshot", "--snapshot").map_err(|e| match found.is_empty() {
            true => e.hint(match snapshots.is_empty() {
                true => "the export holds no snapshot".to_owned(),
                false => format!("its snapshots are {}", names(&snapshots)),
            }),
            false => e,
        });
    }
    let mut found: Vec<&Object> = all().filter(|object| !object.record.is("is_a_snapshot")).collect();
    if let Some(wanted) = &choice.system {
        let machines = names(&found);
        found.retain(|object| is(object, wanted));
        return only(&found, "machine", "--system").map_err(|e| match found.is_empty() {
            true => e.hint(format!("its machines are {machines}")),
            false => e,
        });
    }
    if found.len() > 1 {
        found.retain(|object| !object.record.is("is_default_template"));
    }
    if found.is_empty() && snapshots.is_empty() {
        return Err(Error::corrupt("has no virtual machine in it"));
    }
    if found.is_empty() {
        // The export of a snapshot by itself.
        return only(&snapshots, "machine", "--snapshot");
    }
    let vm = only(&found, "machine", "--system")?;
    if !snapshots.is_empty() {
        report.say(
            &finding::SNAPSHOTS,
            format!("The export has snapshots of the machine: {}.", names(&snapshots)),
            "Choose one with --snapshot to convert that state instead.",
        );
    }
    Ok(vm)
}

fn number(record: &Value, class: &str, name: &str, at_most: u64) -> Result<Option<u64>> {
    let Some(text) = record.text_of(name) else { return Ok(None) };
    match text.parse::<u64>().ok().filter(|number| *number <= at_most) {
        Some(number) => Ok(Some(number)),
        None => Err(Error::corrupt(format!(
            "{class}.{name} is {:?}; a number from 0 to {at_most} is possible",
            text.chars().take(40).collect::<String>()
        ))),
    }
}

fn memory(record: &Value, report: &mut Report) -> Result<Bytes> {
    let of = |name: &str| number(record, "VM", name, MEMORY_AT_MOST);
    let most = of("memory_static_max")?.filter(|bytes| *bytes > 0);
    let most = Bytes(most.ok_or_else(|| Error::corrupt("VM.memory_static_max is not there or 0"))?);
    let (low, high) =
        (of("memory_dynamic_min")?.unwrap_or(most.0), of("memory_dynamic_max")?.unwrap_or(most.0));
    if low > 0 && high > 0 && (low, high) != (most.0, most.0) {
        report.say(
            &finding::NOT_HELD,
            format!(
                "The machine had from {} to {} of memory, as its host decided; it gets all of {most}.",
                Bytes(low),
                Bytes(high)
            ),
            "Give it less with --map where the target is short of memory.",
        );
    }
    Ok(most)
}

fn cpus(record: &Value, report: &mut Report) -> Result<Cpus> {
    let of = |name: &str| number(record, "VM", name, CPUS_AT_MOST);
    let most = of("VCPUs_max")?.unwrap_or(1).max(1);
    let count = of("VCPUs_at_startup")?.filter(|count| *count > 0).unwrap_or(most).min(most);
    if count < most {
        report.say(
            &finding::NOT_HELD,
            format!("The machine starts with {count} processors, and up to {most} can be plugged in; it gets {count}."),
            "Give it more with --map where it needs them.",
        );
    }
    let platform = record.get("platform");
    let cores =
        platform.map_or(Ok(None), |map| number(map, "VM.platform", "cores-per-socket", CPUS_AT_MOST))?;
    let small = |number: u64| u32::try_from(number).unwrap_or(1);
    Ok(Cpus::new(small(count), small(cores.unwrap_or(1)), 1))
}

fn texts(values: &[Value]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Text(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    values.iter().filter_map(text).collect()
}

fn smbios(record: &Value) -> Result<Smbios> {
    let uuid = record.text_of("uuid").map(|text| {
        Uuid::parse_str(text).map_err(|_| {
            Error::corrupt(format!(
                "VM.uuid is {:?}, which is none",
                text.chars().take(40).collect::<String>()
            ))
        })
    });
    // What Xen itself says where nothing was chosen.
    let chosen = |name: &str, usual: &str| {
        let text = record.get("bios_strings")?.text_of(name)?;
        Some(text.to_owned()).filter(|text| text != usual)
    };
    let [manufacturer, product, version, serial] = smbios_keys();
    Ok(Smbios {
        uuid: uuid.transpose()?,
        serial: chosen(serial, ""),
        manufacturer: chosen(manufacturer, "Xen"),
        product: chosen(product, "HVM domU"),
        version: chosen(version, ""),
        ..Smbios::default()
    })
}

/// The names of what SMBIOS says of the manufacturer, the product, its version and serial number.
pub(super) fn smbios_keys() -> [&'static str; 4] {
    ["system-manufacturer", "system-product-name", "system-version", "system-serial-number"]
}

/// The clock is UTC with an offset, which xapi moves along when the guest sets its clock.
fn clock(record: &Value) -> Clock {
    let offset = record.get("platform").and_then(|platform| platform.text_of("timeoffset"));
    match offset.and_then(|text| text.parse::<i64>().ok()) {
        Some(seconds) if seconds.unsigned_abs() >= DRIFT_SECONDS => Clock::LocalTime,
        _ => Clock::Utc,
    }
}

fn label(record: &Value) -> Option<String> {
    let template = record.get("other_config").and_then(|config| config.text_of("base_template_name"));
    record.text_of("reference_label").or(template).map(str::to_owned)
}

fn firmware(record: &Value, machine: &mut Machine, report: &mut Report) {
    let firmware = record.get("HVM_boot_params").and_then(|map| map.text_of("firmware"));
    if firmware == Some("uefi") {
        machine.firmware = Firmware::Uefi;
    }
    let platform = record.get("platform");
    machine.secure_boot =
        machine.firmware == Firmware::Uefi && platform.is_some_and(|platform| platform.is("secureboot"));
    if platform.and_then(|map| map.text_of("secureboot")) == Some("auto") {
        report.unread.add("VM.platform.secureboot=auto");
    }
    if record.get("NVRAM").and_then(|nvram| nvram.text_of("EFI-variables")).is_some() {
        machine.nvram = Some("VM.NVRAM".to_owned());
    }
}

fn boot_order(record: &Value, machine: &Machine, report: &mut Report) -> Vec<BootDevice> {
    let mut out = Vec::new();
    for letter in
        record.get("HVM_boot_params").and_then(|map| map.text_of("order")).unwrap_or_default().chars()
    {
        let device = match letter {
            'c' => BootDevice::Disk,
            'd' => BootDevice::Cdrom,
            'n' if machine.nics.is_empty() => continue,
            'n' => BootDevice::Nic(0),
            _ => {
                report.unread.add("VM.HVM_boot_params.order");
                continue;
            }
        };
        if !out.contains(&device) {
            out.push(device);
        }
    }
    out
}

/// A guest without firmware: Xen's tools start its kernel, from outside or out of its disk.
fn paravirtual(objects: &[Object], vm: &Object, machine: &mut Machine, report: &mut Report) {
    let bootable = vbds(objects, vm).iter().position(|vbd| vbd.record.is("bootable"));
    machine.boot_disk = bootable.filter(|disk| *disk > 0 && *disk < machine.disks.len());
    let kernel = match (vm.record.text_of("PV_bootloader"), vm.record.text_of("PV_kernel")) {
        (Some(loader), _) => {
            format!("its kernel is started by the host's {loader:?}, out of the guest's own menu")
        }
        (None, Some(kernel)) => format!("its kernel is a file of the host, {kernel:?}"),
        (None, None) => "it names no boot loader and no kernel".to_owned(),
    };
    report.say(
        &finding::PARAVIRTUAL,
        format!("The machine is paravirtual: {kernel}, and no firmware has ever started its disk."),
        "Install a kernel of the distribution and GRUB into the disk's boot sector (grub-install /dev/xvda) while it still runs \
         at the source, or change it there to HVM (xe vm-param-set HVM-boot-policy=\"BIOS order\") and see it start.",
    );
    let arguments = ["PV_args", "PV_legacy_args", "PV_bootloader_args", "PV_ramdisk"];
    for name in arguments.iter().filter(|name| vm.record.text_of(name).is_some()) {
        report.unread.add(&format!("VM.{name}"));
    }
}

fn find<'a>(objects: &'a [Object], class: &str, id: Option<&str>) -> Option<&'a Object> {
    let id = id.filter(|id| *id != NULL)?;
    objects.iter().find(|object| object.class == class && object.id == id)
}

/// The machine's disks, by the places that the guest sees them at. Those without a number come last.
fn vbds<'a>(objects: &'a [Object], vm: &Object) -> Vec<&'a Object> {
    let is_disk =
        |object: &&Object| object.record.text_of("type").is_none_or(|kind| kind.eq_ignore_ascii_case("disk"));
    let own = objects.iter().filter(|object| object.class == "VBD");
    let own = own.filter(|object| object.record.text_of("VM") == Some(&vm.id)).filter(is_disk);
    let mut out: Vec<&Object> =
        own.filter(|object| find(objects, "VDI", object.record.text_of("VDI")).is_some()).collect();
    out.sort_by_key(|object| place(&object.record).unwrap_or(usize::MAX));
    out
}

/// The number of a disk: `userdevice`, or as the letters of `device` say.
fn place(record: &Value) -> Option<usize> {
    let number = record.text_of("userdevice").and_then(|text| text.parse().ok());
    let letters = || {
        let device = record.text_of("device")?;
        attach::number(
            device.strip_prefix("xvd").or(device.strip_prefix("hd")).or(device.strip_prefix("sd"))?,
        )
    };
    number.or_else(letters).filter(|number| *number < 4096)
}

fn disks(objects: &[Object], vm: &Object, report: &mut Report) -> Result<Vec<DiskSlot>> {
    for object in objects.iter().filter(|object| object.class == "VBD") {
        if object.record.text_of("VM") != Some(&vm.id) {
            continue;
        }
        match object.record.text_of("type").unwrap_or("Disk").to_ascii_lowercase().as_str() {
            "disk" if find(objects, "VDI", object.record.text_of("VDI")).is_none() => {
                report.unread.add("VBD of no disk");
            }
            "disk" => {}
            "cd" => *report.left_out.entry("CD drive").or_default() += 1,
            _ => *report.left_out.entry("floppy drive").or_default() += 1,
        }
    }
    let mut out: Vec<DiskSlot> = Vec::new();
    for vbd in vbds(objects, vm) {
        let Some(vdi) = find(objects, "VDI", vbd.record.text_of("VDI")) else { continue };
        let record = &vdi.record;
        let wanted = place(&vbd.record).unwrap_or(out.len());
        let is_free = |number: &usize| {
            let slot = format!("xvd{}", attach::letters(*number));
            !out.iter().any(|disk| disk.slot == slot)
        };
        let number = (wanted..).find(is_free).unwrap_or(wanted);
        let slot = format!("xvd{}", attach::letters(number));
        let size = number_of_bytes(record)?;
        if record.is("sharable") {
            report.say(&finding::DISK_SHARED, format!("{slot} can be attached to several machines."), "");
        }
        if record.text_of("on_boot") == Some("reset") {
            report.say(
                &finding::DISK_INDEPENDENT,
                format!("{slot} forgets its changes at every start (on_boot=reset)."),
                "",
            );
        }
        if vbd.record.text_of("mode").is_some_and(|mode| mode.eq_ignore_ascii_case("ro")) {
            report.say(
                &finding::NOT_HELD,
                format!(
                    "{slot} is read-only for the guest at the source; at the target it can be written to."
                ),
                "",
            );
        }
        report.unread.record("VBD", &vbd.record);
        report.unread.record("VDI", record);
        out.push(DiskSlot { size, ..DiskSlot::new(slot, Bus::Xen, vdi.id.clone()) });
    }
    Ok(out)
}

fn number_of_bytes(record: &Value) -> Result<Option<Bytes>> {
    Ok(number(record, "VDI", "virtual_size", landfall_image::limits::DISK_SIZE.0)?.map(Bytes))
}

fn nics(objects: &[Object], vm: &Object, report: &mut Report) -> Result<Vec<NicSlot>> {
    let mut own: Vec<&Object> = objects
        .iter()
        .filter(|object| object.class == "VIF" && object.record.text_of("VM") == Some(&vm.id))
        .collect();
    own.sort_by_key(|object| {
        object.record.text_of("device").and_then(|text| text.parse::<u64>().ok()).unwrap_or(u64::MAX)
    });
    let mut out = Vec::new();
    for vif in own {
        let record = &vif.record;
        let slot = format!("vif{}", record.text_of("device").unwrap_or_default());
        let network = find(objects, "network", record.text_of("network"));
        let mac = match record.text_of("MAC") {
            None => None,
            Some(text) => Some(parse_mac(text).ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                Error::corrupt(format!("{slot} has the hardware address {shown:?}, which is none"))
            })?),
        };
        if mac.is_none() {
            report.say(
                &finding::MAC_MISSING,
                format!("{slot} has no hardware address in the definition."),
                "",
            );
        }
        let of_network = network.and_then(|network| network.record.text_of("MTU"));
        let mtu = record.text_of("MTU").filter(|mtu| *mtu != "0").or(of_network);
        if let Some(mtu) = mtu.filter(|mtu| *mtu != "1500") {
            report.say(
                &finding::NOT_HELD,
                format!(
                    "{slot} is in a network with an MTU of {}.",
                    mtu.chars().take(10).collect::<String>()
                ),
                "Give the network at the target the same one; the guest's own setting stays as it is.",
            );
        }
        report.unread.record("VIF", record);
        out.push(NicSlot {
            mac,
            model: Some("xen".into()),
            network: network.and_then(|network| network.record.text_of("name_label")).map(str::to_owned),
            // All of its traffic is dropped.
            connected: record.text_of("locking_mode") != Some("disabled"),
            ..NicSlot::new(slot)
        });
    }
    Ok(out)
}

/// What else is with the machine: state that is lost, devices of the host, a TPM.
fn state(objects: &[Object], vm: &Object, machine: &mut Machine, report: &mut Report) {
    let record = &vm.record;
    let power = record.text_of("power_state").unwrap_or_default().to_ascii_lowercase();
    if power == "suspended"
        || record.text_of("suspend_VDI").is_some_and(|vdi| vdi != NULL && vdi != "Ref:NULL")
    {
        report.say(
            &finding::SUSPENDED,
            "The machine is suspended: what is in its memory does not go over.",
            "Resume it, shut it down and export it again for a clean copy.",
        );
    } else if ["running", "paused"].contains(&power.as_str()) {
        report.say(
            &finding::RUNNING,
            "The definition is one of a running machine.",
            "Shut it down first, or export a snapshot of it.",
        );
    }
    let of_vm = |class: &str| {
        objects.iter().any(|object| {
            let owner = ["VM", "vTPM'_VM"].iter().find_map(|name| object.record.text_of(name));
            object.class == class && owner == Some(&vm.id)
        })
    };
    let platform = record.get("platform");
    machine.tpm =
        !record.list("VTPMs").is_empty() || of_vm("VTPM") || platform.is_some_and(|map| map.is("vtpm"));
    let pci = record.get("other_config").and_then(|config| config.text_of("pci"));
    for (what, has) in [
        ("a virtual graphics card", !record.list("VGPUs").is_empty() || of_vm("VGPU")),
        ("a USB device of the host", !record.list("VUSBs").is_empty() || of_vm("VUSB")),
        ("a PCI device of the host", !record.list("attached_PCIs").is_empty() || pci.is_some()),
    ] {
        if has {
            report.say(
                &finding::PASSTHROUGH,
                format!("The machine has {what}."),
                "Give it such a device at the target, or remove its driver from the guest.",
            );
        }
    }
}

#[cfg(test)]
mod tests;
