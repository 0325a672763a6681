//! Facts about a Linux guest that do not depend on its family: os-release, kernels, init system, boot modes.

use super::loader::Copies;
use super::text;
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

impl Kernels {
    /// The version of the kernel whose image has this name behind `vmlinuz-`, where a boot loader says no more.
    pub fn version_of(&self, named: &str) -> Option<&str> {
        named_kernel(&self.found, named).map(|kernel| kernel.version.as_str())
    }
}

/// The kernel of this version, or whose image has this name behind `vmlinuz-`.
pub fn named_kernel<'k>(kernels: &'k [Kernel], named: &str) -> Option<&'k Kernel> {
    let is_named = |kernel: &&Kernel| {
        kernel.image.as_deref().and_then(|image| image.rsplit('/').next()).and_then(after_prefix)
            == Some(named)
    };
    kernels.iter().find(|kernel| kernel.version == named).or_else(|| kernels.iter().find(is_named))
}

/// A kernel's own header is in its first KiB, but files are read whole.
const IMAGE_AT_MOST: Bytes = Bytes::mib(128);

/// Names of kernel images before their version.
const IMAGES: &[&str] = &["vmlinuz-", "vmlinux-", "Image-", "image-"];

/// So many names in /boot are looked at: a kernel may have several.
const NAMES_AT_MOST: usize = 4 * KERNELS_AT_MOST;

/// Every installed kernel.
pub fn kernels(
    tree: &dyn GuestTree,
    mounts: &[Mount],
    newest: impl Fn(&str, &str) -> std::cmp::Ordering,
) -> Result<Kernels> {
    kernels_and(tree, &Copies::read(tree, mounts)?, newest)
}

/// Every installed kernel: an image in /boot, or one that a boot entry names elsewhere (`copies`); mostly with a folder of
/// modules and with one initramfs or more. Each name is taken as it is; of an initramfs for kdump, and of a rescue image,
/// nothing is: their names are none of those that are looked for.
pub fn kernels_and(
    tree: &dyn GuestTree,
    copies: &Copies,
    newest: impl Fn(&str, &str) -> std::cmp::Ordering,
) -> Result<Kernels> {
    let mut versions = Versions::read(tree)?;
    let folder = versions.folder;
    let mut found: BTreeMap<String, Kernel> = BTreeMap::new();
    let mut add = |version: String, image: String, archives: Vec<String>| {
        let kernel = found.entry(version.clone()).or_insert_with(|| Kernel {
            modules: format!("{folder}/{version}"),
            version,
            image: Some(image),
            initramfs: None,
            more_initramfs: Vec::new(),
        });
        for path in archives {
            match &kernel.initramfs {
                None => kernel.initramfs = Some(path),
                Some(first) if *first != path && !kernel.more_initramfs.contains(&path) => {
                    kernel.more_initramfs.push(path);
                }
                Some(_) => {}
            }
        }
    };
    let in_boot: BTreeSet<String> = tree.names("/boot")?.into_iter().collect();
    let mut images = Vec::new();
    for prefix in IMAGES {
        let key =
            |name: &'_ String| name.strip_prefix(prefix).filter(|key| is_kernel_key(key)).map(str::to_owned);
        images.extend(in_boot.iter().filter_map(|name| Some((key(name)?, name))));
    }
    let is_flood = images.len() > NAMES_AT_MOST;
    if is_flood {
        images.sort_by(|(a, _), (b, _)| newest(b, a));
        images.truncate(NAMES_AT_MOST);
    }
    for (key, name) in images {
        let image = format!("/boot/{name}");
        let version = versions.of_image(&image, &key)?.unwrap_or_else(|| key.clone());
        let archives = [
            format!("initrd.img-{key}"),
            format!("initramfs-{key}.img"),
            format!("initramfs-{key}"),
            format!("initrd-{key}.img"),
            format!("initrd-{key}"),
            // Arch's image with every driver.
            format!("initramfs-{key}-fallback.img"),
        ];
        let archives = archives.iter().filter(|name| in_boot.contains(*name));
        add(version, image, archives.map(|name| format!("/boot/{name}")).collect());
    }
    // What starts may be a copy elsewhere: all get the drivers.
    for copy in copies.kernels() {
        add(copy.version, copy.image, copy.initramfs.into_iter().collect());
    }
    let mut kernels = Kernels::default();
    for name in &versions.installed {
        if !found.contains_key(name) {
            kernels.leftovers.push(format!("{folder}/{name}"));
        }
    }
    kernels.found = found.into_values().collect();
    kernels.found.sort_by(|a, b| newest(&b.version, &a.version));
    kernels.cut_off = is_flood || kernels.found.len() > KERNELS_AT_MOST;
    kernels.found.truncate(KERNELS_AT_MOST);
    Ok(kernels)
}

/// `vmlinuz-6.1` -> `6.1`.
fn after_prefix(name: &str) -> Option<&str> {
    IMAGES.iter().find_map(|prefix| name.strip_prefix(prefix))
}

/// False for what only looks like a kernel: backups, signatures, other packings of one, those for rescue and kdump.
fn is_kernel_key(key: &str) -> bool {
    const ENDS: &[&str] =
        &[".old", ".bak", "~", ".signed", ".sig", ".hmac", ".gz", ".bz2", ".img", ".rpmsave", "kdump"];
    !key.is_empty()
        && !ENDS.iter().any(|end| key.ends_with(end))
        && !key.contains(".dpkg-")
        && !key.starts_with("0-rescue")
}

/// Images that are read for their version. Only those need it whose name and package do not tell.
const IMAGES_READ_AT_MOST: usize = 8;

/// The folders of modules, and which of them is a kernel's.
pub struct Versions<'a> {
    tree: &'a dyn GuestTree,
    /// The folder with all of them.
    pub folder: &'static str,
    installed: BTreeSet<String>,
    /// What the packages of the first of them call their kernels' images.
    flavours: Option<Vec<(String, [String; 2])>>,
    images_read: usize,
}

impl<'a> Versions<'a> {
    /// Lists them.
    pub fn read(tree: &'a dyn GuestTree) -> Result<Self> {
        let lib_is_link = tree.link_metadata("/lib")?.is_some_and(|meta| meta.kind == NodeKind::Symlink);
        let folder = match lib_is_link || !tree.exists("/lib/modules")? {
            true => "/usr/lib/modules",
            false => "/lib/modules",
        };
        let installed = tree.names(folder)?.into_iter().collect();
        Ok(Versions { tree, folder, installed, flavours: None, images_read: 0 })
    }

    /// True where there is a folder of this version's modules.
    pub fn has(&self, version: &str) -> bool {
        self.installed.contains(version)
    }

    /// The longest version that is a part of a name.
    pub fn in_name(&self, name: &str) -> Option<String> {
        self.installed
            .iter()
            .filter(|version| name.contains(*version))
            .max_by_key(|version| version.len())
            .cloned()
    }

    /// The version of a kernel by what its image is called behind `vmlinuz-`: mostly that itself. Where it is a flavour
    /// (`lts`, `linux`) or a series (Manjaro's `6.6-x86_64`), what its package says, or what the image says of itself.
    /// `None` where it has no modules.
    pub fn of_image(&mut self, image: &str, named: &str) -> Result<Option<String>> {
        if self.has(named) {
            return Ok(Some(named.to_owned()));
        }
        let tree = self.tree;
        // Alpine's package says it in a file of its own, Arch's in the folder of modules.
        let is_flavour = !named.starts_with(|char: char| char.is_ascii_digit()) && !named.contains('/');
        if is_flavour {
            let release = tree.read_text(&format!("/usr/share/kernel/{named}/kernel.release"))?;
            if let Some(release) = release.filter(|release| self.has(release.trim())) {
                return Ok(Some(release.trim().to_owned()));
            }
        }
        if self.flavours.is_none() {
            let mut flavours = Vec::new();
            for version in self.installed.iter().take(KERNELS_AT_MOST) {
                let says = |name: &str| -> Result<String> {
                    let text =
                        tree.read_text(&format!("{}/{version}/{name}", self.folder))?.unwrap_or_default();
                    Ok(text.trim().to_owned())
                };
                flavours.push((version.clone(), [says("pkgbase")?, says("kernelbase")?]));
            }
            self.flavours = Some(flavours);
        }
        let end = format!("-{named}");
        let mut fitting = self.flavours.iter().flatten().filter(|(version, names)| {
            names.iter().any(|name| name == named) || is_flavour && version.ends_with(&end)
        });
        if let (Some((only, _)), None) = (fitting.next(), fitting.next()) {
            return Ok(Some(only.clone()));
        }
        if self.installed.is_empty() || self.images_read >= IMAGES_READ_AT_MOST {
            return Ok(None);
        }
        self.images_read += 1;
        let own = tree.read(image, IMAGE_AT_MOST)?.as_deref().and_then(image_version);
        Ok(own.filter(|version| self.has(version)))
    }
}

/// The version that a kernel for x86 says it has: `kernel_version` at 0x20e of its setup header, counted from 0x200
/// (Documentation/arch/x86/boot.rst).
pub fn image_version(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16::from_le_bytes([*image.get(0x20e)?, *image.get(0x20f)?]));
    let text = image.get(at.checked_add(0x200)?..).filter(|_| at > 0)?;
    let end = text.iter().take(128).position(|byte| matches!(byte, 0 | b' '))?;
    let version = std::str::from_utf8(text.get(..end)?).ok()?;
    let plain = |char: char| char.is_ascii_alphanumeric() || "._-+~".contains(char);
    (!version.is_empty() && version.chars().all(plain)).then(|| version.to_owned())
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
pub(super) mod tests {
    use super::*;
    use crate::linux::dpkg;
    use crate::tree::mem::MemTree;
    use crate::tree::{Entry, Meta};
    use std::cell::RefCell;

    /// A tree that counts what is read of it.
    pub struct Counted(MemTree, RefCell<Vec<String>>);

    impl Counted {
        pub fn new(tree: MemTree) -> Self {
            Counted(tree, RefCell::default())
        }
        /// Reads of paths that end so.
        pub fn reads(&self, end: &str) -> usize {
            self.1.borrow().iter().filter(|path| path.ends_with(end)).count()
        }
    }

    impl GuestTree for Counted {
        fn metadata(&self, path: &str) -> Result<Option<Meta>> {
            self.0.metadata(path)
        }
        fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
            self.0.link_metadata(path)
        }
        fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
            self.1.borrow_mut().push(path.to_owned());
            self.0.read(path, at_most)
        }
        fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
            self.0.list(path)
        }
        fn read_link(&self, path: &str) -> Result<Option<String>> {
            self.0.read_link(path)
        }
        fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
            self.0.free_space(path)
        }
    }

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
        let found = kernels(&tree, &[], dpkg::compare_part).unwrap();
        let versions: Vec<_> = found.found.iter().map(|kernel| kernel.version.as_str()).collect();
        assert_eq!(versions, ["6.1.0-43-amd64", "6.1.0-9-amd64", "4.19.0-custom"]);
        assert_eq!(found.leftovers, ["/usr/lib/modules/5.10.0-1-amd64"]);
        assert_eq!(found.found[2].initramfs, None);
        let modules = Modules::read(&tree, &found.found[1].modules).unwrap().unwrap();
        assert!(modules.has("virtio_blk") && modules.has("sd_mod") && !modules.loadable.contains("sd_mod"));
        assert_eq!(Modules::read(&tree, &found.found[2].modules).unwrap(), None);
    }

    fn found(tree: &MemTree) -> Vec<(String, String, Vec<String>)> {
        let kernels = kernels(tree, &[], dpkg::compare_part).unwrap();
        let row = |kernel: Kernel| {
            let archives = kernel.initramfs.into_iter().chain(kernel.more_initramfs).collect();
            (kernel.version, kernel.image.unwrap_or_default(), archives)
        };
        kernels.found.into_iter().map(row).collect()
    }

    fn row(version: &str, image: &str, archives: &[&str]) -> (String, String, Vec<String>) {
        (version.into(), image.into(), archives.iter().map(|path| (*path).to_owned()).collect())
    }

    /// A bzImage's header with a version string where the kernel has it.
    pub fn bzimage(version: &str) -> Vec<u8> {
        let mut image = vec![0; 0x3000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x2c00u16.to_le_bytes());
        let text = format!("{version} (build@host) #1 SMP\0");
        image[0x2e00..0x2e00 + text.len()].copy_from_slice(text.as_bytes());
        image
    }

    #[test]
    fn rescue_and_kdump_images_are_left_alone() {
        let tree = MemTree::new().symlink("/lib", "usr/lib").files(&[
            ("/boot/vmlinuz-5.14.0-427.el9.x86_64", ""),
            ("/boot/initramfs-5.14.0-427.el9.x86_64.img", ""),
            ("/boot/initramfs-5.14.0-427.el9.x86_64kdump.img", ""),
            ("/boot/vmlinuz-0-rescue-0123456789abcdef0123456789abcdef", ""),
            ("/boot/initramfs-0-rescue-0123456789abcdef0123456789abcdef.img", ""),
            ("/boot/.vmlinuz-5.14.0-427.el9.x86_64.hmac", ""),
            ("/boot/vmlinuz-2.6.18-8.el5kdump", ""),
            ("/boot/vmlinuz-6.4.0-150600.23.7-default", ""),
            ("/boot/vmlinux-6.4.0-150600.23.7-default.gz", ""),
            ("/boot/initrd-6.4.0-150600.23.7-default", ""),
            ("/boot/initrd-6.4.0-150600.23.7-default-kdump", ""),
            ("/boot/vmlinuz-2.6.18-398.el5", ""),
            ("/boot/initrd-2.6.18-398.el5.img", ""),
            ("/boot/initrd-2.6.18-398.el5kdump.img", ""),
        ]);
        assert_eq!(
            found(&tree),
            [
                row(
                    "6.4.0-150600.23.7-default",
                    "/boot/vmlinuz-6.4.0-150600.23.7-default",
                    &["/boot/initrd-6.4.0-150600.23.7-default"]
                ),
                row(
                    "5.14.0-427.el9.x86_64",
                    "/boot/vmlinuz-5.14.0-427.el9.x86_64",
                    &["/boot/initramfs-5.14.0-427.el9.x86_64.img"]
                ),
                row("2.6.18-398.el5", "/boot/vmlinuz-2.6.18-398.el5", &["/boot/initrd-2.6.18-398.el5.img"]),
            ]
        );
    }

    #[test]
    fn kernels_named_after_their_flavour() {
        let alpine = MemTree::new()
            .file("/boot/vmlinuz-lts", "")
            .file("/boot/initramfs-lts", "")
            .dir("/lib/modules/6.6.58-0-lts")
            .dir("/lib/modules/6.6.31-0-lts");
        let lts = |version| row(version, "/boot/vmlinuz-lts", &["/boot/initramfs-lts"]);
        // Two folders fit, and nothing says which: the kernel stays unchecked rather than guessed.
        assert_eq!(found(&alpine), [lts("lts")]);
        let by_image = alpine.clone().file("/boot/vmlinuz-lts", bzimage("6.6.31-0-lts"));
        assert_eq!(found(&by_image), [lts("6.6.31-0-lts")]);
        let by_package = by_image.file("/usr/share/kernel/lts/kernel.release", "6.6.58-0-lts\n");
        assert_eq!(found(&by_package), [lts("6.6.58-0-lts")]);
        let arch = MemTree::new()
            .symlink("/lib", "usr/lib")
            .file("/boot/vmlinuz-linux", "")
            .file("/boot/initramfs-linux.img", "")
            .file("/boot/initramfs-linux-fallback.img", "")
            .file("/usr/lib/modules/6.11.5-arch1-1/pkgbase", "linux\n")
            .file("/boot/vmlinuz-linux-lts", "")
            .file("/boot/initramfs-linux-lts.img", "")
            .file("/usr/lib/modules/6.6.58-1-lts/pkgbase", "linux-lts\n");
        let archives = &["/boot/initramfs-linux.img", "/boot/initramfs-linux-fallback.img"][..];
        assert_eq!(
            found(&arch),
            [
                row("6.11.5-arch1-1", "/boot/vmlinuz-linux", archives),
                row("6.6.58-1-lts", "/boot/vmlinuz-linux-lts", &["/boot/initramfs-linux-lts.img"])
            ]
        );
        let kernels = kernels(&arch, &[], dpkg::compare_part).unwrap();
        assert_eq!(kernels.version_of("linux-lts"), Some("6.6.58-1-lts"));
        assert_eq!(kernels.version_of("6.6.58-1-lts"), Some("6.6.58-1-lts"));
        assert_eq!(kernels.version_of("x"), None);
    }

    #[test]
    fn kernels_where_kernel_install_puts_them() {
        let id = "0123456789abcdef0123456789abcdef";
        let tree = MemTree::new()
            .symlink("/lib", "usr/lib")
            .file(
                &format!("/efi/loader/entries/{id}-6.11.4.conf"),
                format!("linux /{id}/6.11.4/linux\ninitrd /{id}/6.11.4/initrd\n"),
            )
            .file(
                "/boot/efi/loader/entries/opensuse-tumbleweed-6.11.3-1-default-1.conf",
                "version 12@6.11.3-1-default\nlinux /opensuse-tumbleweed/6.11.3-1-default/linux-ab12\ninitrd /opensuse-tumbleweed/6.11.3-1-default/initrd-cd34\n",
            )
            .file(&format!("/efi/{id}/6.11.4/linux"), "")
            .file(&format!("/efi/{id}/6.11.4/initrd"), "")
            .file("/boot/efi/opensuse-tumbleweed/6.11.3-1-default/linux-ab12", "")
            .file("/boot/efi/opensuse-tumbleweed/6.11.3-1-default/initrd-cd34", "")
            .file("/boot/efi/EFI/6.11.4/linux", "no entry names it")
            .dir("/usr/lib/modules/6.11.4")
            .dir("/usr/lib/modules/6.11.3-1-default")
            .dir("/usr/lib/modules/6.10.0");
        let at = |name: &str| format!("/boot/efi/opensuse-tumbleweed/6.11.3-1-default/{name}");
        assert_eq!(
            found(&tree),
            [
                row("6.11.4", &format!("/efi/{id}/6.11.4/linux"), &[&format!("/efi/{id}/6.11.4/initrd")]),
                row("6.11.3-1-default", &at("linux-ab12"), &[&at("initrd-cd34")]),
            ]
        );
        assert_eq!(kernels(&tree, &[], dpkg::compare_part).unwrap().leftovers, ["/usr/lib/modules/6.10.0"]);
    }

    #[test]
    fn entries_whose_kernels_name_no_version() {
        let arch = MemTree::new()
            .file(
                "/efi/loader/entries/arch.conf",
                "linux /EFI/arch/vmlinuz-linux\ninitrd /EFI/arch/initramfs-linux.img\n",
            )
            .file("/efi/EFI/arch/vmlinuz-linux", "")
            .file("/efi/EFI/arch/initramfs-linux.img", "")
            .file("/usr/lib/modules/6.11.5-arch1-1/pkgbase", "linux\n");
        let row_of_arch =
            row("6.11.5-arch1-1", "/efi/EFI/arch/vmlinuz-linux", &["/efi/EFI/arch/initramfs-linux.img"]);
        assert_eq!(found(&arch), [row_of_arch]);
        let pop = "/boot/efi/EFI/Pop_OS-5e1f";
        let tree = MemTree::new()
            .file(
                "/boot/efi/loader/entries/Pop_OS-current.conf",
                "title Pop!_OS\nlinux /EFI/Pop_OS-5e1f/vmlinuz.efi\ninitrd /EFI/Pop_OS-5e1f/initrd.img\n",
            )
            .file(&format!("{pop}/vmlinuz.efi"), bzimage("6.9.3-76060903-generic"))
            .file(&format!("{pop}/initrd.img"), "")
            .dir("/lib/modules/6.9.3-76060903-generic");
        let (image, archive) = (format!("{pop}/vmlinuz.efi"), format!("{pop}/initrd.img"));
        assert_eq!(found(&tree), [row("6.9.3-76060903-generic", &image, &[&archive])]);
        // The ESP, where else it may be.
        let esp = MemTree::new()
            .file("/boot/esp/loader/entries/a.conf", "linux /a/6.1/linux\ninitrd /a/6.1/initrd\n")
            .file("/boot/esp/a/6.1/linux", "")
            .file("/boot/esp/a/6.1/initrd", "")
            .dir("/lib/modules/6.1");
        let volume = crate::linux::device::tests::volume(0, 1, "vfat", "AB-CD");
        let mounts = [crate::linux::device::tests::mount("/boot/esp", &volume, "UUID=AB-CD")];
        let kernels = kernels(&esp, &mounts, dpkg::compare_part).unwrap();
        assert_eq!(kernels.found[0].initramfs.as_deref(), Some("/boot/esp/a/6.1/initrd"));
    }

    #[test]
    fn manjaro_names_its_kernels_by_series() {
        let tree = MemTree::new()
            .symlink("/lib", "usr/lib")
            .file("/boot/vmlinuz-6.6-x86_64", "")
            .file("/boot/initramfs-6.6-x86_64.img", "")
            .file("/usr/lib/modules/6.6.54-1-MANJARO/pkgbase", "linux66\n")
            .file("/usr/lib/modules/6.6.54-1-MANJARO/kernelbase", "6.6-x86_64\n");
        let expected =
            row("6.6.54-1-MANJARO", "/boot/vmlinuz-6.6-x86_64", &["/boot/initramfs-6.6-x86_64.img"]);
        assert_eq!(found(&tree), [expected]);
    }

    #[test]
    fn a_kernel_says_its_version() {
        assert_eq!(image_version(&bzimage("6.1.0-43-amd64")).as_deref(), Some("6.1.0-43-amd64"));
        assert_eq!(image_version(&bzimage("../x")), None);
        let mut image = bzimage("6.1.0");
        for length in [0, 0x206, 0x20f, 0x210, 0x2e00, 0x2e03] {
            assert_eq!(image_version(&image[..length]), None, "{length:#x}");
        }
        image[0x20e..0x210].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(image_version(&image), None);
        // A real one, where this machine has it.
        let kernels = std::fs::read_dir("/boot").into_iter().flatten().flatten();
        let mut seen = false;
        for path in kernels.map(|entry| entry.path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let Some(version) = name.strip_prefix("vmlinuz-") else { continue };
            let Ok(image) = std::fs::read(&path) else { continue };
            if image.get(0x202..0x206) == Some(b"HdrS") {
                assert_eq!(image_version(&image).as_deref(), Some(version));
                seen = true;
            }
        }
        if !seen {
            eprintln!("SKIPPED: there is no readable kernel in /boot whose version could be compared");
        }
    }

    #[test]
    fn host_names_of_every_age() {
        let name = |path: &str, text: &str| {
            host_name(&MemTree::new().file(path, text)).unwrap().map(|fact| (fact.value, fact.proof))
        };
        for (path, text) in [
            ("/etc/hostname", "# x\n\nweb01\n"),
            ("/etc/HOSTNAME", "web01\n"),
            ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=\"web01\"\n"),
        ] {
            assert_eq!(name(path, text), Some(("web01".into(), path.into())));
        }
        assert_eq!(name("/etc/sysconfig/network", "NETWORKING=yes\n"), None);
    }

    #[test]
    fn a_flood_of_kernels_is_cut_off() {
        let tree = (0..=KERNELS_AT_MOST)
            .fold(MemTree::new(), |tree, n| tree.file(&format!("/boot/vmlinuz-{n}"), ""));
        let found = kernels(&tree, &[], dpkg::compare_part).unwrap();
        assert!(found.cut_off && found.found.len() == KERNELS_AT_MOST && found.found[0].version == "64");
    }

    /// Names that cost nothing to make must not cost much to read.
    #[test]
    fn names_without_end_are_not_read_one_by_one() {
        let tree = (0..2000).fold(MemTree::new(), |tree, n| tree.file(&format!("/boot/vmlinuz-a{n}"), "x"));
        let tree = (0..80).fold(tree, |tree, n| tree.file(&format!("/lib/modules/{n}/pkgbase"), "linux\n"));
        let tree = Counted::new(tree);
        assert!(kernels(&tree, &[], dpkg::compare_part).unwrap().cut_off);
        assert!(tree.reads("") <= 512, "{} reads", tree.reads(""));
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
