//! The kernels of a guest: images, versions, initramfs files, and which modules each has.

use crate::Result;
use crate::guest::{Kernel, Mount};
use crate::linux::loader::Copies;
use crate::tree::{GuestTree, GuestTreeExt, NodeKind};
use landfall_image::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// More kernels than any machine has had installed at once; a folder with more names is an attack or an accident.
pub const KERNELS_AT_MOST: usize = 64;

/// `modules.dep` of a distribution kernel is 0.6 MiB long.
const MODULES_DEP_AT_MOST: Bytes = Bytes::mib(16);

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
