//! What the virtual hardware of each target asks of a guest: one row per platform.

/// A platform by its virtual hardware (several products share one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// KVM with virtio devices: libvirt, Proxmox VE, oVirt, OpenStack, KubeVirt.
    Kvm,
}

/// What a platform's devices need inside a Linux guest. Module names as `modules.dep` has them, `-` written `_`.
pub struct LinuxDrivers {
    /// The ways in which the platform can attach the root disk, the preferred first.
    pub disks: &'static [DiskWay],
    /// Network cards, the preferred first. Needed on the root file system only.
    pub network: &'static [&'static str],
    /// How the kernel names whole disks there, without letters: `vd`.
    pub disk_names: &'static [&'static str],
    /// Package of the platform's guest agent.
    pub agent: &'static str,
}

/// One way to attach a disk.
pub struct DiskWay {
    /// As people call it: `virtio-blk`.
    pub bus: &'static str,
    /// What the kernel needs for it, each as a module or built in.
    pub drivers: &'static [&'static str],
    /// Only a last resort: slow, or to be chosen by hand.
    pub fallback: bool,
}

impl Platform {
    /// Its drivers.
    pub fn linux_drivers(self) -> &'static LinuxDrivers {
        match self {
            Platform::Kvm => &LinuxDrivers {
                disks: &[
                    DiskWay { bus: "virtio-blk", drivers: &["virtio_pci", "virtio_blk"], fallback: false },
                    DiskWay {
                        bus: "virtio-scsi",
                        drivers: &["virtio_pci", "virtio_scsi", "sd_mod"],
                        fallback: false,
                    },
                    DiskWay { bus: "SATA", drivers: &["ahci", "sd_mod"], fallback: true },
                    DiskWay { bus: "IDE", drivers: &["ata_piix", "sd_mod"], fallback: true },
                ],
                network: &["virtio_net", "e1000e", "e1000"],
                disk_names: &["vd", "sd"],
                agent: "qemu-guest-agent",
            },
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Platform::Kvm => "KVM",
        }
    }
}

/// Drivers that are added for every target where the kernel has them, so that the next hop (or failback) boots too.
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
    "xen_blkfront",
];

/// Those of [`EVERY_TARGET`] that refuse to load, with a message on the console, where their hypervisor is absent: they
/// belong into an initramfs, but never into a list of modules that are loaded by name.
pub const LOADS_ONLY_AT_HOME: &[&str] = &["hv_vmbus", "hv_storvsc", "xen_blkfront"];

/// How the machine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// What is to be made of the guest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// Where it will run.
    pub platform: Platform,
    /// How it starts there.
    pub firmware: Firmware,
    /// Its network cards in slot order, with the addresses that they keep.
    pub nics: Vec<Nic>,
    /// What its network becomes there, where that is another.
    #[serde(default)]
    pub network_map: Option<crate::network_map::NetworkMap>,
}

/// One network card.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Nic {
    /// Hardware address, `00:50:56:aa:bb:cc` in lower case. `None` where the definition leaves it to the host.
    pub mac: Option<String>,
    /// The name that the source's slot gives the card by the predictable scheme (`ens192`), where it is known.
    pub source_name: Option<String>,
}
