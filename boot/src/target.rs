//! What the virtual hardware of each target asks of a guest: one row per platform, and what is to be made of a guest.
//!
//! Deliberately absent: how a hypervisor's definition spells a device. The rows name what a guest needs to drive it.

use serde::{Deserialize, Serialize};

/// A platform by its virtual hardware (several products share one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// KVM with virtio devices: libvirt, Proxmox VE, oVirt, OpenStack, KubeVirt.
    Kvm,
    /// Nutanix AHV: KVM again, but disks sit on virtio-scsi.
    Ahv,
    /// VMware ESXi and vSphere.
    Esxi,
    /// Hyper-V: generation 1 is BIOS and starts from IDE, generation 2 is UEFI and has VMBus only.
    Hyperv,
    /// Azure: Hyper-V, with NVMe in some sizes, and a serial line as the only console.
    Azure,
    /// Xen with hardware virtualisation: XCP-ng, XenServer.
    Xen,
}

/// A kind of disk controller that some platform offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskModel {
    /// One virtio device per disk.
    VirtioBlk,
    /// Disks on a virtio SCSI controller.
    VirtioScsi,
    /// VMware's paravirtual SCSI controller.
    Pvscsi,
    /// LSI Logic SAS 1068.
    Lsi,
    /// LSI Logic parallel, 53c1030.
    LsiParallel,
    /// NVM Express.
    Nvme,
    /// AHCI.
    Sata,
    /// Parallel ATA: Intel's PIIX.
    Ide,
    /// Hyper-V's storage over VMBus. With BIOS the disk to start from is attached to IDE and driven in this way.
    Vmbus,
    /// Xen's block devices.
    Xen,
}

/// A kind of network card that some platform offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// virtio.
    VirtioNet,
    /// VMware's paravirtual card.
    Vmxnet3,
    /// Intel 82574.
    E1000e,
    /// Intel 82545.
    E1000,
    /// Hyper-V's card over VMBus.
    Netvsc,
    /// Hyper-V's legacy adapter: DEC 21140.
    Tulip,
    /// Xen's card.
    Xen,
    /// Realtek 8139.
    Rtl8139,
}

/// What a platform's devices need inside a Linux guest. Module names as `modules.dep` has them, `-` written `_`.
pub struct LinuxDrivers {
    /// The ways in which the platform can attach the root disk, the preferred first.
    pub disks: &'static [DiskWay],
    /// Network cards, the preferred first. Needed on the root file system only.
    pub network: &'static [Card],
    /// How the kernel names whole disks there, without letters: `vd`.
    pub disk_names: &'static [&'static str],
    /// The platform's guest agent.
    pub agent: GuestAgent,
    /// The platform shows a serial console, and little else: it is to be among the kernel's consoles.
    pub wants_serial_console: bool,
    /// Every card gets a hardware address of the platform's choice, and the machine its addresses by DHCP.
    pub renews_cards: bool,
}

/// How a platform's guest agent gets into a guest.
pub struct GuestAgent {
    /// What people call it.
    pub name: &'static str,
    /// Its package by distribution (an id of os-release) or by family. Where neither is named, [`GuestAgent::otherwise`]
    /// counts.
    pub packages: &'static [(&'static str, &'static str)],
    /// What to do elsewhere: an order.
    pub otherwise: &'static str,
}

/// One way to attach a disk.
pub struct DiskWay {
    /// The controller.
    pub model: DiskModel,
    /// What the kernel needs for it, each as a module or built in.
    pub drivers: &'static [&'static str],
    /// The firmware that can start from it there; `None` for both.
    pub firmware: Option<Firmware>,
    /// Only a last resort: slow, or few disks.
    pub fallback: bool,
}

/// One network card.
pub struct Card {
    /// The card.
    pub model: NicModel,
    /// Its driver.
    pub driver: &'static str,
    /// The firmware whose machines can have it; `None` for both.
    pub firmware: Option<Firmware>,
}

const fn way(model: DiskModel, drivers: &'static [&'static str]) -> DiskWay {
    DiskWay { model, drivers, firmware: None, fallback: false }
}

const fn agent(
    name: &'static str,
    packages: &'static [(&'static str, &'static str)],
    otherwise: &'static str,
) -> GuestAgent {
    GuestAgent { name, packages, otherwise }
}

const fn card(model: NicModel, driver: &'static str) -> Card {
    Card { model, driver, firmware: None }
}

const SATA: DiskWay =
    DiskWay { model: DiskModel::Sata, drivers: &["ahci", "sd_mod"], firmware: None, fallback: true };
const IDE: DiskWay =
    DiskWay { model: DiskModel::Ide, drivers: &["ata_piix", "sd_mod"], firmware: None, fallback: true };
const VIRTIO_SCSI: DiskWay = way(DiskModel::VirtioScsi, &["virtio_pci", "virtio_scsi", "sd_mod"]);
const VMBUS: DiskWay = way(DiskModel::Vmbus, &["hv_vmbus", "hv_storvsc", "sd_mod"]);
const VIRTIO_NET: Card = card(NicModel::VirtioNet, "virtio_net");
const E1000E: Card = card(NicModel::E1000e, "e1000e");
const E1000: Card = card(NicModel::E1000, "e1000");

const KVM: LinuxDrivers = LinuxDrivers {
    disks: &[way(DiskModel::VirtioBlk, &["virtio_pci", "virtio_blk"]), VIRTIO_SCSI, SATA, IDE],
    network: &[VIRTIO_NET, E1000E, E1000],
    disk_names: &["vd", "sd"],
    agent: agent("qemu-guest-agent", &[], "Install qemu-guest-agent"),
    wants_serial_console: false,
    renews_cards: false,
};

const AHV: LinuxDrivers = LinuxDrivers {
    disks: &[VIRTIO_SCSI, SATA, IDE],
    network: &[VIRTIO_NET, E1000],
    disk_names: &["sd"],
    agent: agent(
        "Nutanix Guest Tools",
        &[],
        "Mount Nutanix Guest Tools from Prism and install them from there",
    ),
    wants_serial_console: false,
    renews_cards: false,
};

const ESXI: LinuxDrivers = LinuxDrivers {
    disks: &[
        way(DiskModel::Pvscsi, &["vmw_pvscsi", "sd_mod"]),
        way(DiskModel::Lsi, &["mptsas", "sd_mod"]),
        way(DiskModel::LsiParallel, &["mptspi", "sd_mod"]),
        way(DiskModel::Nvme, &["nvme"]),
        SATA,
        IDE,
    ],
    network: &[card(NicModel::Vmxnet3, "vmxnet3"), E1000E, E1000],
    disk_names: &["sd", "nvme"],
    agent: agent("open-vm-tools", &[], "Install open-vm-tools"),
    wants_serial_console: false,
    renews_cards: false,
};

const HYPERV: LinuxDrivers = LinuxDrivers {
    // A kernel with hv_storvsc leaves the IDE disk of generation 1 to it (ata_piix steps back); one without finds it by
    // ata_piix.
    disks: &[VMBUS, DiskWay { firmware: Some(Firmware::Bios), ..IDE }],
    network: &[
        card(NicModel::Netvsc, "hv_netvsc"),
        Card { firmware: Some(Firmware::Bios), ..card(NicModel::Tulip, "tulip") },
    ],
    disk_names: &["sd"],
    agent: agent(
        "hyperv-daemons",
        &[
            ("ubuntu", "linux-cloud-tools-virtual"),
            ("linuxmint", "linux-cloud-tools-virtual"),
            ("suse", "hyper-v"),
            ("alpine", "hvtools"),
            ("arch", "hyperv"),
        ],
        "Install hyperv-daemons",
    ),
    wants_serial_console: false,
    renews_cards: false,
};

const AZURE: LinuxDrivers = LinuxDrivers {
    disks: &[VMBUS, way(DiskModel::Nvme, &["hv_vmbus", "pci_hyperv", "nvme"])],
    network: &[card(NicModel::Netvsc, "hv_netvsc")],
    disk_names: &["sd", "nvme"],
    agent: agent(
        "Azure's Linux agent",
        &[
            ("ubuntu", "walinuxagent"),
            ("linuxmint", "walinuxagent"),
            ("debian", "waagent"),
            ("redhat", "WALinuxAgent"),
            ("suse", "python-azure-agent"),
        ],
        "Install Azure's Linux agent (waagent)",
    ),
    wants_serial_console: true,
    renews_cards: true,
};

const XEN: LinuxDrivers = LinuxDrivers {
    disks: &[way(DiskModel::Xen, &["xen_blkfront"]), IDE],
    network: &[card(NicModel::Xen, "xen_netfront"), card(NicModel::Rtl8139, "8139cp"), E1000],
    disk_names: &["xvd", "sd"],
    agent: agent(
        "xe-guest-utilities",
        &[
            ("ubuntu", "xe-guest-utilities"),
            ("linuxmint", "xe-guest-utilities"),
            ("alpine", "xe-guest-utilities"),
        ],
        "Install the guest tools from the CD that the hypervisor offers (guest-tools.iso)",
    ),
    wants_serial_console: false,
    renews_cards: false,
};

impl Platform {
    /// All of them.
    pub const ALL: &'static [Platform] =
        &[Platform::Kvm, Platform::Ahv, Platform::Esxi, Platform::Hyperv, Platform::Azure, Platform::Xen];

    /// Its drivers.
    pub fn linux_drivers(self) -> &'static LinuxDrivers {
        match self {
            Platform::Kvm => &KVM,
            Platform::Ahv => &AHV,
            Platform::Esxi => &ESXI,
            Platform::Hyperv => &HYPERV,
            Platform::Azure => &AZURE,
            Platform::Xen => &XEN,
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Platform::Kvm => "KVM",
            Platform::Ahv => "Nutanix AHV",
            Platform::Esxi => "ESXi",
            Platform::Hyperv => "Hyper-V",
            Platform::Azure => "Azure",
            Platform::Xen => "Xen",
        }
    }
}

impl LinuxDrivers {
    /// The ways to attach the root disk of a machine with this firmware.
    pub fn disks_for(&self, firmware: Firmware) -> impl Iterator<Item = &'static DiskWay> + use<> {
        self.disks.iter().filter(move |way| way.firmware.is_none_or(|only| only == firmware))
    }

    /// The network cards of a machine with this firmware.
    pub fn cards_for(&self, firmware: Firmware) -> impl Iterator<Item = &'static Card> + use<> {
        self.network.iter().filter(move |card| card.firmware.is_none_or(|only| only == firmware))
    }
}

impl DiskModel {
    /// All of them.
    pub const ALL: &'static [DiskModel] = &[
        DiskModel::VirtioBlk,
        DiskModel::VirtioScsi,
        DiskModel::Pvscsi,
        DiskModel::Lsi,
        DiskModel::LsiParallel,
        DiskModel::Nvme,
        DiskModel::Sata,
        DiskModel::Ide,
        DiskModel::Vmbus,
        DiskModel::Xen,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            DiskModel::VirtioBlk => "virtio-blk",
            DiskModel::VirtioScsi => "virtio-scsi",
            DiskModel::Pvscsi => "pvscsi",
            DiskModel::Lsi => "lsi",
            DiskModel::LsiParallel => "lsi-parallel",
            DiskModel::Nvme => "nvme",
            DiskModel::Sata => "sata",
            DiskModel::Ide => "ide",
            DiskModel::Vmbus => "vmbus",
            DiskModel::Xen => "xen",
        }
    }
}

impl NicModel {
    /// All of them.
    pub const ALL: &'static [NicModel] = &[
        NicModel::VirtioNet,
        NicModel::Vmxnet3,
        NicModel::E1000e,
        NicModel::E1000,
        NicModel::Netvsc,
        NicModel::Tulip,
        NicModel::Xen,
        NicModel::Rtl8139,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            NicModel::VirtioNet => "virtio-net",
            NicModel::Vmxnet3 => "vmxnet3",
            NicModel::E1000e => "e1000e",
            NicModel::E1000 => "e1000",
            NicModel::Netvsc => "netvsc",
            NicModel::Tulip => "tulip",
            NicModel::Xen => "xen",
            NicModel::Rtl8139 => "rtl8139",
        }
    }
}

/// Drivers that are added for every target where the kernel has them, so that the next hop (or failback) boots too. What
/// they depend on (mptscsih, scsi_transport_fc, virtio_ring) comes with them.
pub const EVERY_TARGET: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ahci",
    "ata_piix",
    "nvme",
    "vmw_pvscsi",
    "mptspi",
    "mptsas",
    "hv_vmbus",
    "hv_storvsc",
    "pci_hyperv",
    "xen_blkfront",
    // A passphrase is typed before the root is there, and generation 2 has no other keyboard.
    "hyperv_keyboard",
    "hid_hyperv",
];

/// Those of [`EVERY_TARGET`] that refuse to load, with a message on the console, where their hypervisor is absent, and where
/// that is at home: they belong into an initramfs, but into a list of modules that are loaded by name only there. udev loads
/// them at home.
const LOADS_ONLY_AT_HOME: &[(&str, &[Platform])] = &[
    ("hv_vmbus", MICROSOFTS),
    ("hv_storvsc", MICROSOFTS),
    ("pci_hyperv", MICROSOFTS),
    ("xen_blkfront", &[Platform::Xen]),
    ("hyperv_keyboard", MICROSOFTS),
    ("hid_hyperv", MICROSOFTS),
];

const MICROSOFTS: &[Platform] = &[Platform::Hyperv, Platform::Azure];

/// True for a driver that refuses to load where its hypervisor is absent.
pub fn loads_only_at_home(driver: &str) -> bool {
    LOADS_ONLY_AT_HOME.iter().any(|(name, _)| *name == driver)
}

/// True where a driver can be loaded by name.
pub fn loads_on(driver: &str, platform: Platform) -> bool {
    LOADS_ONLY_AT_HOME.iter().all(|(name, home)| *name != driver || home.contains(&platform))
}

/// The devices of the target that the kernel which starts by default has drivers for. Definitions are made by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Devices {
    /// Disk controllers, the best first. Empty where it is not known: the platform's preferred one is taken.
    pub disks: Vec<DiskModel>,
    /// Network cards, the best first. Empty in the same case.
    pub cards: Vec<NicModel>,
}

impl Devices {
    /// True where nothing is known.
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty() && self.cards.is_empty()
    }
}

/// Id of the finding that a disk's sectors are of another size at the target.
pub const SECTOR_SIZE: &str = "disk-sector-size";

/// How the machine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// Base of the virtual real-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// UTC, as Linux wants it.
    Utc,
    /// Local time, as Windows wants it.
    LocalTime,
}

/// What is to be made of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Where it will run.
    pub platform: Platform,
    /// How it starts there.
    pub firmware: Firmware,
    /// Its network cards in slot order, with the addresses that they have on the source.
    pub nics: Vec<Nic>,
    /// Services that the user wants otherwise than landfall would do it.
    #[serde(default)]
    pub services: Services,
    /// What its network becomes there, where that is another.
    #[serde(default)]
    pub network_map: Option<crate::network_map::NetworkMap>,
    /// Where the drivers of virtio devices for Windows are, on this host: a folder or an ISO image.
    #[serde(default)]
    pub virtio_win: Option<std::path::PathBuf>,
    /// Installers of agents for Windows, of which the guest gets those that are for it.
    #[serde(default)]
    pub agent_installers: Vec<crate::windows::agents::AgentInstaller>,
    /// What the user wants changed in its registry.
    #[serde(default)]
    pub registry: Option<crate::windows::reg_file::RegistryFile>,
}

/// Services by the names of [`crate::family::agents`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Left as they are.
    pub keep: Vec<String>,
    /// Switched off, wherever they are at home.
    pub drop: Vec<String>,
}

impl Default for Request {
    /// KVM, BIOS, no network card, nothing special.
    fn default() -> Self {
        Request {
            platform: Platform::Kvm,
            firmware: Firmware::Bios,
            nics: Vec::new(),
            services: Services::default(),
            network_map: None,
            virtio_win: None,
            agent_installers: Vec::new(),
            registry: None,
        }
    }
}

/// One network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Hardware address, `00:50:56:aa:bb:cc` in lower case. `None` where the definition leaves it to the host.
    pub mac: Option<String>,
    /// The name that the source's slot gives the card by the predictable scheme (`ens192`), where it is known.
    pub source_name: Option<String>,
    /// The address that the card has at the target, where that is another: the guest is made to go by it. It must not be an
    /// address, old or new, of another card of the machine.
    #[serde(default)]
    pub new_mac: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a target starts from is in every initramfs, so that no hop needs another pass to boot.
    #[test]
    fn the_union_holds_the_disk_drivers_of_every_target() {
        for platform in Platform::ALL {
            for way in platform.linux_drivers().disks {
                for driver in way.drivers {
                    assert!(EVERY_TARGET.contains(driver), "{driver} of {}", platform.name());
                }
            }
        }
        assert!(LOADS_ONLY_AT_HOME.iter().all(|(name, _)| EVERY_TARGET.contains(name)));
        assert!(loads_on("ahci", Platform::Kvm) && !loads_on("hv_vmbus", Platform::Kvm));
    }

    #[test]
    fn the_generations_of_hyper_v_differ() {
        let row = Platform::Hyperv.linux_drivers();
        let disks = |firmware| row.disks_for(firmware).map(|way| way.model).collect::<Vec<_>>();
        assert_eq!(disks(Firmware::Bios), [DiskModel::Vmbus, DiskModel::Ide]);
        assert_eq!(disks(Firmware::Uefi), [DiskModel::Vmbus]);
        let cards = |firmware| row.cards_for(firmware).map(|card| card.model).collect::<Vec<_>>();
        assert_eq!(cards(Firmware::Bios), [NicModel::Netvsc, NicModel::Tulip]);
        assert_eq!(cards(Firmware::Uefi), [NicModel::Netvsc]);
    }

    #[test]
    fn names_are_what_serde_writes() {
        for model in DiskModel::ALL {
            assert_eq!(serde_json::to_value(model).unwrap(), model.name());
        }
        for model in NicModel::ALL {
            assert_eq!(serde_json::to_value(model).unwrap(), model.name());
        }
    }
}
