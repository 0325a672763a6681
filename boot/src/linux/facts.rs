//! Facts about a Linux guest that do not depend on its family: os-release, kernels, init system, boot modes.

use crate::guest::{Fact, Kernel, Mount};
use crate::tree::{GuestTree, GuestTreeExt, NodeKind};
use crate::{Result, guest::Guest};
use landfall_image::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// More kernels than any machine has had installed at once; a folder with more names is an attack or an accident.
pub const KERNELS_AT_MOST: usize = 64;

/// `modules.dep` of a distribution kernel is 0.6 MiB long.
const MODULES_DEP_AT_MOST: Bytes = Bytes::mib(16);

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

/// The first line of /etc/hostname.
pub fn host_name(tree: &dyn GuestTree) -> Result<Option<Fact<String>>> {
    let path = "/etc/hostname";
    let text = tree.read_text(path)?.unwrap_or_default();
    let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
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
        ("upstart", "/etc/init/rc-sysinit.conf"),
        ("openrc", "/sbin/openrc-run"),
        ("sysvinit", "/etc/inittab"),
    ] {
        if tree.exists(proof)? {
            return Ok(Some(Fact::new(name, proof)));
        }
    }
    Ok(None)
}

/// Kernels, and what looks like one but is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kernels {
    /// The newest first.
    pub found: Vec<Kernel>,
    /// Folders of modules to which no kernel image belongs.
    pub leftovers: Vec<String>,
    /// There were more than [`KERNELS_AT_MOST`]; the oldest are left out.
    pub cut_off: bool,
}

/// Every installed kernel: an image in /boot, mostly with a folder of modules and an initramfs.
pub fn kernels(tree: &dyn GuestTree, newest: impl Fn(&str, &str) -> std::cmp::Ordering) -> Result<Kernels> {
    let lib_is_link = tree.link_metadata("/lib")?.is_some_and(|meta| meta.kind == NodeKind::Symlink);
    let folder = match lib_is_link || !tree.exists("/lib/modules")? {
        true => "/usr/lib/modules",
        false => "/lib/modules",
    };
    let in_boot: BTreeSet<String> = tree.names("/boot")?.into_iter().collect();
    let mut versions = BTreeSet::new();
    for name in &in_boot {
        if let Some(version) = name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"))
            && !is_backup(version)
        {
            versions.insert(version.to_owned());
        }
    }
    let mut kernels = Kernels::default();
    for name in tree.names(folder)? {
        if !versions.contains(&name) {
            kernels.leftovers.push(format!("{folder}/{name}"));
        }
    }
    for version in versions {
        let named = |prefix: &str| {
            let name = format!("{prefix}{version}");
            in_boot.contains(&name).then(|| format!("/boot/{name}"))
        };
        kernels.found.push(Kernel {
            image: named("vmlinuz-").or_else(|| named("vmlinux-")),
            initramfs: named("initrd.img-").or_else(|| named("initramfs-")),
            modules: format!("{folder}/{version}"),
            version,
        });
    }
    // What starts may be a copy elsewhere: both get the drivers.
    for copy in super::loader::kernels_beside_entries(tree, folder)? {
        if kernels.found.iter().any(|other| other.initramfs == copy.initramfs) {
            continue;
        }
        let modules = format!("{folder}/{}", copy.version);
        kernels.leftovers.retain(|leftover| *leftover != modules);
        let (version, image) = (copy.version, Some(copy.image));
        kernels.found.push(Kernel { image, initramfs: copy.initramfs, modules, version });
    }
    kernels.found.sort_by(|a, b| newest(&b.version, &a.version));
    kernels.cut_off = kernels.found.len() > KERNELS_AT_MOST;
    kernels.found.truncate(KERNELS_AT_MOST);
    Ok(kernels)
}

fn is_backup(version: &str) -> bool {
    [".old", ".bak", "~", ".signed", ".sig", ".hmac"].iter().any(|end| version.ends_with(end))
        || version.contains(".dpkg-")
}

/// The modules of one kernel by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// As files.
    pub loadable: BTreeSet<String>,
    /// Compiled into the kernel.
    pub builtin: BTreeSet<String>,
}

impl Modules {
    /// Reads a kernel's lists; `None` where it has no modules.dep.
    pub fn read(tree: &dyn GuestTree, folder: &str) -> Result<Option<Self>> {
        let paths = [format!("{folder}/modules.dep"), format!("{folder}/modules.builtin")];
        let mut lists = tree.read_many(&paths, MODULES_DEP_AT_MOST)?.into_iter();
        let (dep, builtin) = (lists.next().flatten(), lists.next().flatten().unwrap_or_default());
        let Some(dep) = dep else { return Ok(None) };
        let names = |list: &[u8]| {
            let text = String::from_utf8_lossy(list);
            text.lines().filter_map(|line| module_name(line.split(':').next()?)).collect()
        };
        Ok(Some(Modules { loadable: names(&dep), builtin: names(&builtin) }))
    }
    /// True where the kernel has the driver in either form.
    pub fn has(&self, name: &str) -> bool {
        self.loadable.contains(name) || self.builtin.contains(name)
    }
}

/// `kernel/drivers/scsi/virtio_scsi.ko.zst` -> `virtio_scsi`.
fn module_name(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let (name, _) = file.split_once(".ko")?;
    (!name.is_empty()).then(|| name.replace('-', "_"))
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
mod tests {
    use super::*;
    use crate::linux::dpkg;
    use crate::tree::mem::MemTree;

    #[test]
    fn kernels_come_newest_first_and_leftovers_are_told_apart() {
        let tree = MemTree::new().symlink("/lib", "usr/lib").files(&[
            ("/boot/vmlinuz-6.1.0-9-amd64", ""),
            ("/boot/initrd.img-6.1.0-9-amd64", ""),
            ("/boot/vmlinuz-6.1.0-43-amd64", ""),
            ("/boot/initrd.img-6.1.0-43-amd64", ""),
            ("/boot/vmlinuz-6.1.0-43-amd64.dpkg-tmp", ""),
            ("/boot/vmlinuz-4.19.0-custom", ""),
            ("/boot/vmlinuz", ""),
            ("/usr/lib/modules/6.1.0-9-amd64/modules.dep", "kernel/drivers/block/virtio-blk.ko.xz: a.ko\n"),
            ("/usr/lib/modules/6.1.0-9-amd64/modules.builtin", "kernel/drivers/scsi/sd_mod.ko\n"),
            ("/usr/lib/modules/6.1.0-43-amd64/modules.dep", ""),
            ("/usr/lib/modules/5.10.0-1-amd64/modules.dep", ""),
        ]);
        let found = kernels(&tree, dpkg::compare_part).unwrap();
        let versions: Vec<_> = found.found.iter().map(|kernel| kernel.version.as_str()).collect();
        assert_eq!(versions, ["6.1.0-43-amd64", "6.1.0-9-amd64", "4.19.0-custom"]);
        assert_eq!(found.leftovers, ["/usr/lib/modules/5.10.0-1-amd64"]);
        assert_eq!(found.found[2].initramfs, None);
        let modules = Modules::read(&tree, &found.found[1].modules).unwrap().unwrap();
        assert!(modules.has("virtio_blk") && modules.has("sd_mod") && !modules.loadable.contains("sd_mod"));
        assert_eq!(Modules::read(&tree, &found.found[2].modules).unwrap(), None);
    }

    #[test]
    fn a_flood_of_kernels_is_cut_off() {
        let tree = (0..=KERNELS_AT_MOST)
            .fold(MemTree::new(), |tree, n| tree.file(&format!("/boot/vmlinuz-{n}"), ""));
        let found = kernels(&tree, dpkg::compare_part).unwrap();
        assert!(found.cut_off && found.found.len() == KERNELS_AT_MOST && found.found[0].version == "64");
    }

    #[test]
    fn architecture_from_elf() {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        elf.extend([183, 0]);
        let tree = MemTree::new().file("/usr/bin/dash", &elf).symlink("/bin/sh", "/usr/bin/dash");
        assert_eq!(elf_architecture(&tree).unwrap(), Some(Fact::new("aarch64", "/bin/sh")));
        for length in 0..20 {
            let tree = MemTree::new().file("/bin/sh", &elf[..length]);
            assert_eq!(elf_architecture(&tree).unwrap(), None);
        }
    }

    #[test]
    fn efi_folders_are_found_in_any_case() {
        let tree = MemTree::new().file("/boot/efi/efi/Debian/shimx64.EFI", "");
        assert_eq!(boot_modes(&tree, &[]).unwrap(), [Fact::new("uefi", "/boot/efi/efi/Debian/shimx64.EFI")]);
    }
}
