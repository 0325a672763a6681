//! Facts about a guest, each with the path that proved it.

use crate::volume::VolumeId;
use serde::Serialize;

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// The guest path (or the volume) that proves it.
    pub proof: String,
}

impl<T> Fact<T> {
    /// `value`, proved by `proof`.
    pub fn new(value: impl Into<T>, proof: impl Into<String>) -> Self {
        Fact { value: value.into(), proof: proof.into() }
    }
}

/// An operating system on a machine's disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// `linux` family by package world: `debian`, …
    pub family: String,
    /// `ID` of os-release: `debian`, `ubuntu`.
    pub distribution: Fact<String>,
    /// `VERSION_ID`: `12`. Empty where there is none (Debian testing).
    pub version: Fact<String>,
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub name: Fact<String>,
    /// `x86_64`, `aarch64`, `i686`.
    pub architecture: Fact<String>,
    /// The name it calls itself by.
    pub host_name: Option<Fact<String>>,
    /// Every installed kernel, the newest version first.
    pub kernels: Vec<Kernel>,
    /// Where its file systems lie, `/` first.
    pub mounts: Vec<Mount>,
    /// `systemd`, `sysvinit`, …
    pub init: Option<Fact<String>>,
    /// How it can start, by the loaders found: `bios`, `uefi`.
    pub boot_modes: Vec<Fact<String>>,
    /// Its configured network interfaces.
    pub interfaces: Vec<Interface>,
    /// Agents of the old platform: `open-vm-tools`.
    pub agents: Vec<Fact<String>>,
}

/// An installed kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// As in `/lib/modules`: `6.1.0-43-amd64`.
    pub version: String,
    /// `/boot/vmlinuz-…`
    pub image: Option<String>,
    /// `/boot/initrd.img-…`
    pub initramfs: Option<String>,
    /// Further ones for the same kernel: `/boot/initramfs-linux-fallback.img`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more_initramfs: Vec<String>,
    /// Folder of its modules, links resolved: `/usr/lib/modules/…`
    pub modules: String,
}

/// A file system in the guest's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where: `/`, `/boot`.
    pub at: String,
    /// Which volume.
    pub volume: VolumeId,
    /// Its file system: `ext4`, `xfs`, `vfat`.
    pub file_system: String,
    /// How fstab names the device, where it does: `/dev/sda1`, `UUID=…`.
    pub spec: Option<String>,
}

/// A configured network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name: `ens192`.
    pub name: String,
    /// Hardware address, where the configuration names one.
    pub mac: Option<String>,
    /// Addresses with prefix length, or `dhcp`.
    pub addresses: Vec<String>,
    /// The file that says so.
    pub proof: String,
}
