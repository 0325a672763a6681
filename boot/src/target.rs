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
    /// Without one of these the root disk is not found. Each inner slice is a set of alternatives; the first
    /// that the kernel has (as module or built in) counts.
    pub boot: &'static [&'static [&'static str]],
    /// Wanted in the initramfs where the kernel has them; their absence is a note.
    pub fallback: &'static [&'static str],
    /// Needed on the root file system only; network first.
    pub later: &'static [&'static str],
}

impl Platform {
    /// Its drivers.
    pub fn linux_drivers(self) -> &'static LinuxDrivers {
        match self {
            Platform::Kvm => &LinuxDrivers {
                boot: &[&["virtio_pci"], &["virtio_blk"], &["virtio_scsi"], &["sd_mod"]],
                fallback: &["ahci", "ata_piix"],
                later: &["virtio_net", "virtio_console", "virtio_balloon", "virtio_rng"],
            },
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
}

/// One network card.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Nic {
    /// Hardware address, `00:50:56:aa:bb:cc` in lower case. `None` where the definition leaves it to the host.
    pub mac: Option<String>,
    /// The name that the source's slot gives the card by the predictable scheme (`ens192`), where it is known.
    pub source_name: Option<String>,
}
