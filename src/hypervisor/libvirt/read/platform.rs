//! What surrounds the devices: memory, processors, firmware, identity, clock.
//!
//! Source: libvirt's "Domain XML format", sections "Memory Allocation", "CPU Allocation", "CPU model and topology", "BIOS bootloader", "SMBIOS
//! System Information", "Time keeping" and "TPM device".

use super::{Report, number};
use crate::finding;
use crate::hypervisor::xml::Element;
use crate::machine::{Clock, Cpus, Machine, Smbios};
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use uuid::Uuid;

/// Far beyond what a host has: the number is damage.
const MEMORY_AT_MOST: u64 = 128 << 40;
const CPUS_AT_MOST: u64 = 4096;

/// A size of memory: a number, and a unit that is KiB where it is not named.
fn size(what: &str, element: &Element, text: &str, unit: &str) -> Result<u64> {
    let unit = element.attribute(unit).unwrap_or("KiB");
    let wrong = || Error::corrupt(format!("{what} is {text:?} with the unit {unit:?}"));
    let lower = unit.to_ascii_lowercase();
    let factor = match lower.as_str() {
        "b" | "byte" | "bytes" => 1,
        _ => {
            let mut letters = lower.chars();
            let power = letters.next().and_then(|first| "kmgtpe".find(first)).ok_or_else(wrong)?;
            let power = u32::try_from(power).unwrap_or_default() + 1;
            match letters.as_str() {
                "" | "ib" => 1024_u64.checked_pow(power),
                "b" => 1000_u64.checked_pow(power),
                _ => None,
            }
            .ok_or_else(wrong)?
        }
    };
    let count = number(what, text, u64::MAX)?;
    let bytes = count.checked_mul(factor).filter(|bytes| *bytes <= MEMORY_AT_MOST);
    let bytes = bytes.ok_or_else(|| {
        Error::corrupt(format!("{what} is {count} {unit}; up to {} is possible", Bytes(MEMORY_AT_MOST)))
    })?;
    // libvirt counts in KiB and rounds up.
    Ok(bytes.next_multiple_of(1024))
}

/// Main memory: what is said of the machine, or else of its NUMA cells together.
pub fn memory(domain: &Element, report: &mut Report) -> Result<Bytes> {
    let said = match domain.child("memory") {
        Some(memory) => size("memory", memory, &memory.text, "unit")?,
        None => 0,
    };
    let mut bytes = said;
    if said == 0 {
        for cell in domain.at("cpu/numa").into_iter().flat_map(|numa| numa.all("cell")) {
            let text = cell.attribute("memory").unwrap_or_default();
            bytes = bytes.saturating_add(size("the memory of a NUMA cell", cell, text, "unit")?);
        }
    }
    if bytes == 0 || bytes > MEMORY_AT_MOST {
        return Err(Error::corrupt("does not say how much memory the machine has"));
    }
    if let Some(current) = domain.child("currentMemory").filter(|current| !current.text.is_empty())
        && size("currentMemory", current, &current.text, "unit")? < bytes
    {
        report.unread("currentMemory");
    }
    Ok(Bytes(bytes))
}

/// Everything but the devices and the memory.
pub fn read(domain: &Element, machine: &mut Machine, report: &mut Report) -> Result<()> {
    machine.cpus = cpus(domain, report)?;
    firmware(domain, machine, report)?;
    machine.smbios = smbios(domain, report)?;
    machine.clock = clock(domain, report);
    for (element, says) in [
        (
            "os/kernel",
            "The host gives the guest a kernel; its disk has to bring one, and a loader, at the target.",
        ),
        (
            "launchSecurity",
            "The guest's memory is encrypted against its host, which it is not at the target.",
        ),
    ] {
        if domain.at(element).is_some() {
            report.say(&finding::NOT_HELD, says, "");
        }
    }
    for extra in domain.children.iter().filter(|child| child.prefix == "qemu" && child.name == "commandline")
    {
        let words: Vec<&str> = extra.all("arg").filter_map(|arg| arg.attribute("value")).take(8).collect();
        report.say(
            &finding::NOT_HELD,
            format!("The definition has arguments of QEMU's own ({}), which are left out.", words.join(" ")),
            "Look up what they are for, and set that at the target.",
        );
    }
    Ok(())
}

fn cpus(domain: &Element, report: &mut Report) -> Result<Cpus> {
    let count = |what: &str, text: Option<&str>, otherwise: u64| match text {
        None | Some("") => Ok(otherwise),
        Some(text) => number(what, text, CPUS_AT_MOST),
    };
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    let vcpu = domain.child("vcpu");
    let most = count("vcpu", vcpu.map(|vcpu| vcpu.text.as_str()), 1)?.max(1);
    let current =
        count("vcpu/current", vcpu.and_then(|vcpu| vcpu.attribute("current")), most)?.clamp(1, most);
    if current < most {
        report.say(
            &finding::NOT_HELD,
            format!(
                "The machine starts with {current} processors, and up to {most} can be added while it runs."
            ),
            "It has those that it starts with; allow the others at the target where they are needed.",
        );
    }
    let Some(topology) = domain.at("cpu/topology") else { return Ok(Cpus::new(small(current), 1, 1)) };
    let part = |name: &str| count(&format!("cpu/topology/{name}"), topology.attribute(name), 1);
    let (sockets, dies, clusters) = (part("sockets")?, part("dies")?, part("clusters")?);
    let (cores, threads) = (part("cores")?, part("threads")?);
    if dies > 1 || clusters > 1 {
        report.say(
            &finding::NOT_HELD,
            format!(
                "A socket has {dies} dies of {clusters} clusters: their cores are put together in the socket."
            ),
            "",
        );
    }
    // Four numbers up to 4096.
    let in_socket = dies * clusters * cores;
    let cpus = Cpus::new(small(current), small(in_socket), small(threads));
    let kept = u64::from(cpus.cores_per_socket) == in_socket.max(1)
        && u64::from(cpus.threads_per_core) == threads.max(1);
    if !kept {
        report.say(
            &finding::NOT_HELD,
            format!(
                "{current} processors do not fill {sockets} sockets of {in_socket} cores with {threads} threads: each becomes \
                 a socket of its own."
            ),
            "Choose the topology at the target where licences or the guest's system go by sockets.",
        );
    }
    Ok(cpus)
}

fn firmware(domain: &Element, machine: &mut Machine, report: &mut Report) -> Result<()> {
    let Some(os) = domain.child("os") else { return Ok(()) };
    let loader = os.child("loader");
    let nvram = os.child("nvram");
    let file = loader.map(|loader| loader.text.to_ascii_lowercase()).unwrap_or_default();
    let named_uefi = ["ovmf", "edk2", "uefi", "aavmf"].iter().any(|word| file.contains(word));
    machine.firmware = match os.attribute("firmware") {
        Some("efi") => Firmware::Uefi,
        Some("bios") => Firmware::Bios,
        Some(other) => {
            return Err(Error::unsupported(format!("firmware is {other:?}; efi and bios are known")));
        }
        None if loader.is_some_and(|loader| loader.attribute("type") == Some("pflash"))
            || nvram.is_some()
            || named_uefi =>
        {
            Firmware::Uefi
        }
        None => Firmware::Bios,
    };
    if machine.firmware == Firmware::Bios {
        return Ok(());
    }
    machine.nvram = nvram.and_then(|nvram| match nvram.child("source") {
        None => Some(nvram.text.clone()).filter(|path| !path.is_empty()),
        Some(source) => {
            source.attribute("file").or(source.attribute("dev")).map(str::to_owned).or_else(|| {
                source.attribute("protocol").map(|protocol| super::disks::network_address(protocol, source))
            })
        }
    });
    let feature = |name: &str| {
        let features = os.child("firmware").into_iter().flat_map(|firmware| firmware.all("feature"));
        features
            .filter(|feature| feature.attribute("name") == Some(name))
            .find_map(|f| f.attribute("enabled"))
    };
    let capable = feature("secure-boot") == Some("yes")
        || loader.is_some_and(|loader| loader.attribute("secure") == Some("yes"));
    // Secure boot is enforced where keys are enrolled; firmware that could is not enough. Without a word on keys the file that
    // the variables were made from tells it: distributions ship one with Microsoft's keys and one without.
    let template = nvram.and_then(|nvram| nvram.attribute("template")).map(str::to_ascii_lowercase);
    let enrolled = match (feature("enrolled-keys"), template.as_deref()) {
        (Some(state), _) => Some(state == "yes"),
        (None, Some(name))
            if [".ms.", "secboot", "secure", "snakeoil"].iter().any(|word| name.contains(word)) =>
        {
            Some(true)
        }
        (None, Some(name)) if name.contains("vars") => Some(false),
        (None, _) => None,
    };
    machine.secure_boot = capable && enrolled.unwrap_or(true);
    if capable && enrolled.is_none() {
        report.say(
            &finding::NOT_HELD,
            "The firmware can do secure boot, and the definition does not say whether keys are enrolled: it is taken as on.",
            "Turn secure boot off at the target where the guest (mokutil --sb-state) says that it is off at the source.",
        );
    }
    Ok(())
}

fn smbios(domain: &Element, report: &mut Report) -> Result<Smbios> {
    let mut smbios = Smbios::default();
    // libvirt takes a UUID with hyphens and without.
    let read = |what: &str, text: &str| {
        let hex: String = text.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect();
        Uuid::try_parse(&hex)
            .map_err(|_| Error::corrupt(format!("{what} is {text:?}; 16 octets in hexadecimal are wanted")))
    };
    if let Some(text) = domain.text_at("hwuuid").or(domain.text_at("uuid")) {
        smbios.uuid = Some(read("uuid", text)?);
    }
    match domain.at("os/smbios").and_then(|smbios| smbios.attribute("mode")) {
        Some("sysinfo") => {}
        Some("host") => {
            report.say(
                &finding::NOT_HELD,
                "The guest reads the maker, product and serial number of the source's host as its own.",
                "Set them at the target where a licence goes by them: dmidecode -t system in the guest shows them.",
            );
            return Ok(smbios);
        }
        // The guest does not see them.
        _ => return Ok(smbios),
    }
    let system = domain.all("sysinfo").filter(|info| info.attribute("type") == Some("smbios"));
    for entry in system.filter_map(|info| info.child("system")).flat_map(|system| system.all("entry")) {
        let value = Some(entry.text.clone()).filter(|text| !text.is_empty());
        match entry.attribute("name").unwrap_or_default() {
            "uuid" if smbios.uuid.is_none() => smbios.uuid = Some(read("the UUID in sysinfo", &entry.text)?),
            "uuid" => {}
            "serial" => smbios.serial = value,
            "manufacturer" => smbios.manufacturer = value,
            "product" => smbios.product = value,
            "version" => smbios.version = value,
            "sku" => smbios.sku = value,
            "family" => smbios.family = value,
            other => report.unread(format!("sysinfo/system/{other}")),
        }
    }
    Ok(smbios)
}

fn clock(domain: &Element, report: &mut Report) -> Clock {
    let Some(clock) = domain.child("clock") else { return Clock::Utc };
    let adjustment = clock.attribute("adjustment").filter(|by| !matches!(*by, "0" | "reset"));
    let (base, says) = match clock.attribute("offset").unwrap_or("utc") {
        "localtime" => (Clock::LocalTime, None),
        "timezone" => {
            let zone = clock.attribute("timezone").unwrap_or_default();
            (
                Clock::LocalTime,
                Some(format!("The clock counts the time of {zone:?}; it will count its host's local time.")),
            )
        }
        "variable" if clock.attribute("basis") == Some("localtime") => (Clock::LocalTime, None),
        "absolute" => (
            Clock::Utc,
            Some("The clock starts at the same moment at every start; it will count UTC.".to_owned()),
        ),
        _ => (Clock::Utc, None),
    };
    let says = says.or(adjustment.map(|by| {
        format!("The guest has set its clock {by} seconds off; it will start with the time of its host.")
    }));
    if let Some(says) = says {
        report.say(&finding::NOT_HELD, says, "Let the guest set its time from the network.");
    }
    base
}

/// True where there is a TPM.
pub fn tpm(devices: &Element, report: &mut Report) -> bool {
    let Some(tpm) = devices.child("tpm") else { return false };
    let backend = tpm.child("backend");
    if backend.and_then(|backend| backend.attribute("type")) == Some("passthrough") {
        report.say(
            &finding::PASSTHROUGH,
            "The machine has the TPM of the source's host; at the target it has a virtual one.",
            "Have the recovery keys of what is sealed in it at hand.",
        );
    }
    if backend.and_then(|backend| backend.attribute("version")) == Some("1.2") {
        report.say(
            &finding::NOT_HELD,
            "The TPM speaks version 1.2; the one at the target speaks version 2.0.",
            "Take what uses it in the guest off it before the move.",
        );
    }
    true
}
