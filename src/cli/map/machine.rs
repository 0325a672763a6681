//! What a machine is made of, but for its disks.

use super::line::{kept, shown, table, wrapped};
use crate::machine::{BootDevice, Clock, Cpus, Machine, NicSlot};
use landfall_boot::target::Firmware;

/// Lines of what its owner wrote that are shown.
const NOTE_LINES: usize = 6;

/// The machine and its cards.
pub fn lines(machine: &Machine) -> Vec<String> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![name.to_owned(), value]);
        }
    };
    row("starts by", firmware(machine));
    row("processors", processors(&machine.cpus));
    row("memory", machine.memory.to_string());
    let clock = match machine.clock {
        Clock::Utc => "UTC",
        Clock::LocalTime => "local time",
    };
    row("clock", clock.to_owned());
    let smbios = &machine.smbios;
    let fields = [
        ("", smbios.uuid.map(|uuid| uuid.to_string())),
        ("serial ", smbios.serial.clone()),
        ("", smbios.manufacturer.clone()),
        ("", smbios.product.clone()),
        ("version ", smbios.version.clone()),
        ("SKU ", smbios.sku.clone()),
        ("family ", smbios.family.clone()),
    ];
    let fields =
        fields.into_iter().filter_map(|(name, value)| Some(kept(&format!("{name}{}", shown(&value?)))));
    row("SMBIOS", fields.collect::<Vec<_>>().join(", "));
    row(
        "system",
        machine
            .os_label
            .as_deref()
            .map(|label| format!("{} by its definition", shown(label)))
            .unwrap_or_default(),
    );
    row("tags", machine.tags.iter().map(|tag| shown(tag)).collect::<Vec<_>>().join(", "));
    let note = machine.annotation.as_deref().unwrap_or_default().trim();
    let count = note.lines().count();
    for (index, line) in note.lines().take(NOTE_LINES).enumerate() {
        row(if index == 0 { "note" } else { "" }, shown(line));
    }
    if count > NOTE_LINES {
        row("", format!("… {} more lines (--json has all)", count - NOTE_LINES));
    }
    let mut out = wrapped(&format!("Machine {}", shown(&machine.name)), "", "  ");
    out.extend(table(&rows, "  "));
    if !machine.nics.is_empty() {
        out.push(String::new());
        out.push("Network cards".to_owned());
        let rows: Vec<_> = machine.nics.iter().map(nic).collect();
        out.extend(table(&rows, "  "));
    }
    out
}

fn firmware(machine: &Machine) -> String {
    let mut out = match (machine.firmware, machine.secure_boot) {
        (Firmware::Bios, _) => "BIOS",
        (Firmware::Uefi, false) => "UEFI",
        (Firmware::Uefi, true) => "UEFI with secure boot",
    }
    .to_owned();
    if machine.tpm {
        out.push_str(", TPM");
    }
    if machine.disks.len() > 1 {
        out.push_str(&format!(", from disk{}", machine.boot_disk()));
    }
    let order: Vec<String> = machine.boot_order.iter().map(|device| tried(*device, machine)).collect();
    if !order.is_empty() {
        out.push_str(&format!("; tries {}", order.join(", then ")));
    }
    out
}

fn tried(device: BootDevice, machine: &Machine) -> String {
    match device {
        BootDevice::Disk => "the disk".to_owned(),
        BootDevice::Cdrom => "a CD".to_owned(),
        BootDevice::Floppy => "a floppy disk".to_owned(),
        BootDevice::Nic(index) => match machine.nics.get(index) {
            Some(nic) => shown(&nic.slot),
            None => format!("card {index}"),
        },
    }
}

fn processors(cpus: &Cpus) -> String {
    let several = |count: u32, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let mut out = cpus.count.to_string();
    if cpus.count > 1 {
        out.push_str(&format!(
            ": {} of {}",
            several(cpus.sockets(), "socket"),
            several(cpus.cores_per_socket, "core")
        ));
        if cpus.threads_per_core > 1 {
            out.push_str(&format!(" of {}", several(cpus.threads_per_core, "thread")));
        }
    }
    out
}

/// Slot, address, model, the guest's name for it, and where it is plugged in.
fn nic(nic: &NicSlot) -> Vec<String> {
    let mut at = match &nic.network {
        Some(network) => format!("in {}", shown(network)),
        None => "in no network".to_owned(),
    };
    if let Some(vlan) = nic.vlan {
        at.push_str(&format!(", VLAN {vlan}"));
    }
    if !nic.connected {
        at.push_str(", NOT CONNECTED");
    }
    vec![
        shown(&nic.slot),
        nic.mac.as_deref().map_or("no address yet".to_owned(), shown),
        nic.model.as_deref().map_or("default model".to_owned(), shown),
        nic.predictable_name.as_deref().map(shown).unwrap_or_default(),
        at,
    ]
}
