//! The neutral virtual machine: what every hypervisor's definition is read into and written from.

pub use landfall_boot::target::Clock;
use landfall_boot::target::Firmware;
use landfall_image::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A virtual machine's definition. Lists are in the order in which the guest sees the devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// What its owner wrote about it.
    pub annotation: Option<String>,
    /// What it is filed under: `backup=daily`, `web`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How it starts.
    pub firmware: Firmware,
    /// UEFI secure boot enforced.
    pub secure_boot: bool,
    /// The file with its UEFI variables, as the definition names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvram: Option<String>,
    /// A virtual TPM is there (its secrets are not carried over).
    pub tpm: bool,
    /// Processors.
    pub cpus: Cpus,
    /// Main memory.
    pub memory: Bytes,
    /// What the guest reads from SMBIOS.
    pub smbios: Smbios,
    /// What the virtual clock counts from.
    pub clock: Clock,
    /// Its disks; the one to boot from is the first, but for [`Machine::boot_disk`].
    pub disks: Vec<DiskSlot>,
    /// Which of its disks the firmware has to start, where the definition or the guest names another than the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_disk: Option<usize>,
    /// Which kinds of device the firmware tries, in this order; empty where the definition does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_order: Vec<BootDevice>,
    /// Its network cards.
    pub nics: Vec<NicSlot>,
    /// What the source's definition calls the operating system: `debian12-64`. A label, not a fact.
    pub os_label: Option<String>,
    /// What was found on its disks.
    pub os: Option<OsId>,
}

impl Machine {
    /// A machine of that name with nothing in it: one processor, BIOS, a clock in UTC.
    pub fn new(name: impl Into<String>, memory: Bytes) -> Machine {
        Machine {
            name: name.into(),
            annotation: None,
            tags: Vec::new(),
            firmware: Firmware::Bios,
            secure_boot: false,
            nvram: None,
            tpm: false,
            cpus: Cpus::new(1, 1, 1),
            memory,
            smbios: Smbios::default(),
            clock: Clock::Utc,
            disks: Vec::new(),
            boot_disk: None,
            boot_order: Vec::new(),
            nics: Vec::new(),
            os_label: None,
            os: None,
        }
    }

    /// Place in the list of the disk that the firmware has to start. It must not try a data disk's left-over boot sector.
    pub fn boot_disk(&self) -> usize {
        self.boot_disk.filter(|disk| *disk < self.disks.len()).unwrap_or(0)
    }
}

/// What a firmware tries to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootDevice {
    /// The boot disk.
    Disk,
    /// A CD or DVD.
    Cdrom,
    /// The network card with that place in the list.
    Nic(usize),
    /// A floppy disk.
    Floppy,
}

/// An operating system by the ids that its maker gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct OsId {
    /// `debian`, `ubuntu`: `ID` of os-release.
    pub distribution: String,
    /// `12`, `24.04`; empty where there is none.
    pub version: String,
}

/// Processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cpus {
    /// Virtual processors in all, 1 and up; a multiple of `cores_per_socket` times `threads_per_core`.
    pub count: u32,
    /// Cores in a socket, 1 and up.
    pub cores_per_socket: u32,
    /// Threads of a core, 1 and up.
    #[serde(default = "one")]
    pub threads_per_core: u32,
}

fn one() -> u32 {
    1
}

impl Cpus {
    /// `count` processors in that topology; as many sockets of one core where the numbers do not go together.
    pub fn new(count: u32, cores_per_socket: u32, threads_per_core: u32) -> Cpus {
        let count = count.max(1);
        let (cores, threads) = (cores_per_socket.max(1), threads_per_core.max(1));
        match cores.checked_mul(threads).is_some_and(|socket| count.is_multiple_of(socket)) {
            true => Cpus { count, cores_per_socket: cores, threads_per_core: threads },
            false => Cpus { count, cores_per_socket: 1, threads_per_core: 1 },
        }
    }

    /// `count` of these processors, 1 and up, in no more sockets than these have: systems are licensed by sockets, and some use two only.
    pub fn fewer(&self, count: u32) -> Cpus {
        let count = count.clamp(1, self.count.max(1));
        let threads = self.threads_per_core.max(1);
        let threads = if count.is_multiple_of(threads) { threads } else { 1 };
        let cores = count / threads;
        let sockets = (1..=self.sockets()).rev().find(|sockets| cores.is_multiple_of(*sockets)).unwrap_or(1);
        Cpus::new(count, cores / sockets, threads)
    }

    /// Sockets, 1 and up.
    pub fn sockets(&self) -> u32 {
        (self.count / self.cores_per_socket.saturating_mul(self.threads_per_core).max(1)).max(1)
    }
}

/// Identities that licences and inventory agents go by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Smbios {
    /// System UUID.
    pub uuid: Option<Uuid>,
    /// System serial number as the guest reads it.
    pub serial: Option<String>,
    /// Who made the system, as the guest reads it; `None` for the hypervisor's own word. Licences of some makers go by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// The product's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The product's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The stock-keeping unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// The product family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
}

/// What a disk is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// Parallel ATA.
    Ide,
    /// AHCI.
    Sata,
    /// A SCSI controller; which one is in [`DiskSlot::controller`].
    Scsi,
    /// NVM Express.
    Nvme,
    /// virtio-blk.
    VirtioBlk,
    /// virtio-scsi.
    VirtioScsi,
    /// Hyper-V's storage: a SCSI controller, or the IDE disk of generation 1, which its drivers take over.
    Vmbus,
    /// Xen's block devices.
    Xen,
}

/// What the name of a disk's image means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    /// A file.
    #[default]
    File,
    /// A block device of the source's host.
    Device,
    /// A volume of the source's storage, by a name that is no path: `local-lvm:vm-100-disk-0`.
    Volume,
    /// An address in the network: `nbd://host/export`.
    Network,
    /// Nothing: a disk of [`DiskSlot::size`] that was never written to.
    Blank,
}

/// A disk and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DiskSlot {
    /// What the definition calls the place: `scsi0:0`, `vda`.
    pub slot: String,
    /// What it is attached to.
    pub bus: Bus,
    /// Model of the controller: in the source's terms (`pvscsi`, `lsilogic`), or, once the machine is adapted to a target,
    /// by the name that `landfall prove --hardware` takes (`lsi`).
    pub controller: Option<String>,
    /// The image, as the definition names it.
    pub file: String,
    /// What `file` is.
    #[serde(default)]
    pub backing: Backing,
    /// The image's format by the word of the definition (`raw`, `qcow2`): then it is not guessed from bytes that a guest
    /// may have written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Size as the guest sees it, where the definition tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// The disk's serial number as the guest reads it: `/dev/disk/by-id` is made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Logical sector size, where it is not 512 bytes. Firmware and kernel find a partition table by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sector_size: Option<Bytes>,
}

impl DiskSlot {
    /// A disk in a file, of which nothing else is known.
    pub fn new(slot: impl Into<String>, bus: Bus, file: impl Into<String>) -> DiskSlot {
        DiskSlot {
            slot: slot.into(),
            bus,
            controller: None,
            file: file.into(),
            backing: Backing::File,
            format: None,
            size: None,
            serial: None,
            sector_size: None,
        }
    }
}

/// A network card and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NicSlot {
    /// What the definition calls the place: `ethernet0`.
    pub slot: String,
    /// Hardware address in lower case with colons; `None` where the hypervisor chooses it at power-on.
    pub mac: Option<String>,
    /// Model: in the source's terms (`vmxnet3`, `e1000`), or, once the machine is adapted to a target, by the name that
    /// `landfall prove --hardware` takes (`virtio-net`).
    pub model: Option<String>,
    /// The network that it is plugged into, by its name at the source.
    pub network: Option<String>,
    /// The name that Linux's predictable scheme derives from the slot: `ens192`.
    pub predictable_name: Option<String>,
    /// Plugged in at power-on.
    pub connected: bool,
    /// Tag of the virtual network that the hypervisor puts it into, 1 to 4094.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

impl NicSlot {
    /// A connected card of which nothing else is known.
    pub fn new(slot: impl Into<String>) -> NicSlot {
        NicSlot {
            slot: slot.into(),
            mac: None,
            model: None,
            network: None,
            predictable_name: None,
            connected: true,
            vlan: None,
        }
    }
}

/// `text` as a hardware address: six hexadecimal octets with `:` or `-` between them, or their twelve digits alone; lower case
/// with colons.
pub fn parse_mac(text: &str) -> Option<String> {
    let text = text.trim();
    let octets: Vec<&str> = match text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => (0..6).filter_map(|n| text.get(2 * n..2 * n + 2)).collect(),
        false => text.split([':', '-']).collect(),
    };
    let fine =
        octets.len() == 6 && octets.iter().all(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit()));
    fine.then(|| octets.join(":").to_ascii_lowercase())
}

/// True for a machine's name that one file or folder can have, with room for a temporary ending, and that does not steer a
/// terminal.
pub fn is_folder_name(name: &str) -> bool {
    let plain = |c: char| c != '/' && !c.is_control();
    !matches!(name, "" | "." | "..") && name.len() <= 200 && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::{Cpus, parse_mac};

    #[test]
    fn fewer_processors_are_in_no_more_sockets() {
        for (cpus, count, expected) in [
            (Cpus::new(12, 6, 1), 8, Cpus::new(8, 4, 1)),
            (Cpus::new(12, 6, 1), 7, Cpus::new(7, 7, 1)),
            (Cpus::new(8, 2, 2), 6, Cpus::new(6, 3, 2)),
            (Cpus::new(8, 2, 2), 5, Cpus::new(5, 5, 1)),
            (Cpus::new(8, 1, 1), 3, Cpus::new(3, 1, 1)),
            (Cpus::new(8, 8, 1), 1, Cpus::new(1, 1, 1)),
            (Cpus::new(2, 1, 1), 9, Cpus::new(2, 1, 1)),
        ] {
            assert_eq!(cpus.fewer(count), expected, "{count} of {cpus:?}");
            assert!(cpus.fewer(count).sockets() <= cpus.sockets());
        }
    }

    #[test]
    fn hardware_addresses_are_normalised() {
        assert_eq!(parse_mac("00:50:56:AB:cd:01").as_deref(), Some("00:50:56:ab:cd:01"));
        assert_eq!(parse_mac("00-50-56-AB-CD-01").as_deref(), Some("00:50:56:ab:cd:01"));
        assert_eq!(parse_mac(" 005056ABcd01").as_deref(), Some("00:50:56:ab:cd:01"));
        for bad in [
            "",
            "005056abcd0",
            "005056abcd0g",
            "005056abcd01ff",
            "00505é6abcd",
            "00:50:56:ab:cd",
            "00:50:56:ab:cd:0g",
            "00:50:56:ab:cd:01:02",
            "0:50:56:ab:cd:011",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
