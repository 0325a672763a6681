//! Facts about a guest, each with the path that proved it.

use crate::volume::VolumeId;
use crate::windows::facts::Windows;
use serde::Serialize;

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
    /// What only a Windows guest has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
}

/// An installed kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Mount {
    /// Where: `/`, `/boot`.
    pub at: String,
    /// Which volume.
    pub volume: VolumeId,
    /// Its file system: `ext4`, `xfs`, `vfat`.
    pub file_system: String,
    /// The subvolume (btrfs) as it is called from the top level: `/@`, or `/` for the top level itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subvolume: Option<String>,
    /// How fstab names the device, where it does: `/dev/sda1`, `UUID=…`.
    pub spec: Option<String>,
}

/// Where a guest path lies for a program that knows volumes and not what is mounted where, such as a boot loader: the
/// mount, and the path on its volume. On btrfs that begins with the subvolume, since GRUB counts from the top level
/// (unless `btrfs_relative_path` is set, as SUSE does). Links in `path` are not followed.
pub fn on_volume<'m>(mounts: &'m [Mount], path: &str) -> Option<(&'m Mount, String)> {
    let below = |mount: &Mount| {
        let rest = path.strip_prefix(mount.at.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_end_matches('/').to_owned())
    };
    // Of two at one place the later one hides the earlier.
    let found = mounts.iter().filter_map(|mount| Some((mount, below(mount)?)));
    let (mount, rest) = found.max_by_key(|(mount, _)| mount.at.trim_end_matches('/').len())?;
    let prefix = mount.subvolume.as_deref().unwrap_or("/").trim_end_matches('/');
    let inner = format!("{prefix}{rest}");
    Some((mount, if inner.is_empty() { "/".into() } else { inner }))
}

/// A configured network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_sees_volumes_and_no_mounts() {
        let mount = |at: &str, volume: &str, subvolume: Option<&str>| Mount {
            at: at.into(),
            volume: VolumeId(volume.into()),
            file_system: String::new(),
            subvolume: subvolume.map(str::to_owned),
            spec: None,
        };
        let mounts = [
            mount("/", "disk0p2", Some("/@/.snapshots/1/snapshot")),
            mount("/boot/efi", "disk0p1", None),
            mount("/boot/grub2/x86_64-efi", "disk0p2", Some("/@/boot/grub2/x86_64-efi")),
            mount("/srv", "disk0p3", Some("/")),
        ];
        for (path, volume, inner) in [
            ("/boot/vmlinuz-6", "disk0p2", "/@/.snapshots/1/snapshot/boot/vmlinuz-6"),
            ("/boot/efi/EFI/x", "disk0p1", "/EFI/x"),
            ("/boot/efi", "disk0p1", "/"),
            ("/boot/efistub", "disk0p2", "/@/.snapshots/1/snapshot/boot/efistub"),
            ("/boot/grub2/x86_64-efi/a.mod", "disk0p2", "/@/boot/grub2/x86_64-efi/a.mod"),
            ("/srv/x", "disk0p3", "/x"),
            ("/", "disk0p2", "/@/.snapshots/1/snapshot"),
        ] {
            let (mount, at) = on_volume(&mounts, path).unwrap();
            assert_eq!((&*mount.volume.0, &*at), (volume, inner), "{path}");
        }
        assert_eq!(on_volume(&mounts[1..], "/etc"), None);
    }
}
