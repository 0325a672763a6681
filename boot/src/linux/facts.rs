//! Facts about a Linux guest that do not depend on its family: os-release, init system, boot modes; [`kernels`] has its
//! kernels.

mod kernels;

pub use kernels::{
    KERNELS_AT_MOST, Kernels, Modules, Versions, image_version, kernels, kernels_and, named_kernel,
};

use super::text;
use crate::guest::{Fact, Mount};
use crate::tree::{GuestTree, GuestTreeExt};
use crate::{Result, guest::Guest};
use landfall_image::Bytes;
use std::collections::BTreeMap;

/// Folders of distributions on one EFI system partition.
pub const VENDORS_AT_MOST: usize = 64;

/// The largest shell that is read for its ELF header.
const SHELL_AT_MOST: Bytes = Bytes::mib(16);

/// The values of os-release(5), and the file that was read.
pub struct OsRelease {
    values: BTreeMap<String, String>,
    /// `/etc/os-release`
    pub path: &'static str,
}

impl OsRelease {
    /// Reads it; `None` where the guest has none.
    pub fn read(tree: &dyn GuestTree) -> Result<Option<Self>> {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let Some(text) = tree.read_text(path)? {
                return Ok(Some(OsRelease { values: parse_assignments(&text), path }));
            }
        }
        Ok(None)
    }
    /// A value; empty where it is absent.
    pub fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }
    /// The value as a fact.
    pub fn fact(&self, key: &str) -> Fact<String> {
        Fact::new(self.get(key), self.path)
    }
    /// True where `ID` or `ID_LIKE` says so.
    pub fn is_like(&self, id: &str) -> bool {
        self.get("ID") == id || self.get("ID_LIKE").split_whitespace().any(|like| like == id)
    }
}

fn parse_assignments(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            let quoted = |quote| value.strip_prefix(quote).and_then(|value: &str| value.strip_suffix(quote));
            let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
            values.insert(key.to_owned(), value.replace('\\', ""));
        }
    }
    values
}

/// The architecture by `e_machine` of an executable's ELF header.
pub fn elf_architecture(tree: &dyn GuestTree) -> Result<Option<Fact<String>>> {
    for path in ["/bin/sh", "/usr/bin/dash", "/sbin/init"] {
        // Only the head matters, but files are read whole; a shell is small.
        let Ok(Some(bytes)) = tree.read(path, SHELL_AT_MOST) else { continue };
        let (Some(b"\x7fELF"), Some(endian), Some(machine)) =
            (bytes.get(..4), bytes.get(5), bytes.get(18..20))
        else {
            continue;
        };
        let machine = [machine[0], machine[1]];
        let machine = if *endian == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
        let name = match machine {
            3 => "i686",
            20 => "ppc",
            21 if *endian == 2 => "ppc64",
            21 => "ppc64le",
            22 => "s390x",
            40 => "armv7l",
            62 => "x86_64",
            183 => "aarch64",
            243 => "riscv64",
            258 => "loongarch64",
            _ => continue,
        };
        return Ok(Some(Fact::new(name, path)));
    }
    Ok(None)
}

/// The first line of /etc/hostname, or what older systems have in its place.
pub fn host_name(tree: &dyn GuestTree) -> Result<Option<Fact<String>>> {
    for path in ["/etc/hostname", "/etc/HOSTNAME"] {
        let text = tree.read_text(path)?.unwrap_or_default();
        let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        if let Some(name) = name {
            return Ok(Some(Fact::new(name, path)));
        }
    }
    // Red Hat's, up to RHEL 6.
    let path = "/etc/sysconfig/network";
    let text = tree.read_text(path)?.unwrap_or_default();
    let name = text::assignment(text.as_bytes(), "HOSTNAME").filter(|name| !name.is_empty());
    Ok(name.map(|name| Fact::new(name, path)))
}

/// Which program is PID 1.
pub fn init(tree: &dyn GuestTree) -> Result<Option<Fact<String>>> {
    let link = tree.read_link("/sbin/init")?.or(tree.read_link("/usr/sbin/init")?);
    if link.is_some_and(|link| link.ends_with("systemd")) {
        return Ok(Some(Fact::new("systemd", "/sbin/init")));
    }
    for (name, proof) in [
        ("systemd", "/lib/systemd/systemd"),
        ("systemd", "/usr/lib/systemd/systemd"),
        ("upstart", "/etc/init/rc-sysinit.conf"),
        ("upstart", "/etc/init/rcS.conf"),
        ("openrc", "/sbin/openrc-run"),
        ("sysvinit", "/etc/inittab"),
    ] {
        if tree.exists(proof)? {
            return Ok(Some(Fact::new(name, proof)));
        }
    }
    Ok(None)
}

/// Where the EFI system partition is mounted: the first FAT of the usual places, with its EFI folder.
pub fn esp_folder(tree: &dyn GuestTree, mounts: &[Mount]) -> Result<Option<String>> {
    let usual = ["/boot/efi", "/efi", "/boot"];
    for at in usual {
        if mounts.iter().any(|mount| mount.at == at && mount.file_system == "vfat") {
            return Ok(Some(at.to_owned()));
        }
    }
    for at in usual {
        if find_name(tree, at, "EFI")?.is_some() {
            return Ok(Some(at.to_owned()));
        }
    }
    Ok(None)
}

/// Every folder that may have boot entries or EFI programs below it: the ESP, an extended boot partition, `/boot`.
pub fn boot_folders(tree: &dyn GuestTree, mounts: &[Mount]) -> Result<Vec<String>> {
    let fat = mounts.iter().filter(|mount| mount.file_system == "vfat").map(|mount| mount.at.as_str());
    let mut folders: Vec<String> = Vec::new();
    for at in ["/boot/efi", "/efi", "/boot", "/esp"].into_iter().chain(fat) {
        let is_new = !folders.iter().any(|known| known == at) && tree.read_link(at)?.is_none();
        if is_new && (find_name(tree, at, "EFI")?.is_some() || find_name(tree, at, "loader")?.is_some()) {
            folders.push(at.to_owned());
        }
    }
    Ok(folders)
}

/// The name in `folder` as it is written there, upper and lower case not told apart (FAT).
pub fn find_name(tree: &dyn GuestTree, folder: &str, name: &str) -> Result<Option<String>> {
    Ok(tree.names(folder)?.into_iter().find(|candidate| candidate.eq_ignore_ascii_case(name)))
}

/// `folder` and `names` below it, upper and lower case not told apart; `None` where one is absent.
pub fn find_path(tree: &dyn GuestTree, folder: &str, names: &[&str]) -> Result<Option<String>> {
    let mut path = folder.to_owned();
    for name in names {
        match find_name(tree, &path, name)? {
            Some(name) => path = format!("{path}/{name}"),
            None => return Ok(None),
        }
    }
    Ok(Some(path))
}

/// How the guest can start, by the loaders that lie there.
pub fn boot_modes(tree: &dyn GuestTree, mounts: &[Mount]) -> Result<Vec<Fact<String>>> {
    let mut modes = Vec::new();
    for proof in [
        "/boot/grub/i386-pc",
        "/boot/grub2/i386-pc",
        "/boot/extlinux",
        "/boot/extlinux.conf",
        "/boot/syslinux",
        "/boot/ldlinux.sys",
        "/boot/grub/stage2",
        "/etc/lilo.conf",
    ] {
        if tree.exists(proof)? {
            modes.push(Fact::new("bios", proof));
            break;
        }
    }
    if let Some(esp) = esp_folder(tree, mounts)?
        && let Some(efi) = find_path(tree, &esp, &["EFI"])?
    {
        for vendor in tree.names(&efi)? {
            let folder = format!("{efi}/{vendor}");
            let programs = tree.names(&folder)?;
            if let Some(program) = programs.iter().find(|name| name.to_ascii_lowercase().ends_with(".efi")) {
                modes.push(Fact::new("uefi", format!("{folder}/{program}")));
                break;
            }
        }
    }
    Ok(modes)
}

/// True where the guest can start in this way.
pub fn can_start(guest: &Guest, mode: &str) -> bool {
    guest.boot_modes.iter().any(|fact| fact.value == mode)
}

#[cfg(test)]
pub(super) mod tests;
