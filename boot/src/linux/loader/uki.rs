//! Unified kernel images (UAPI.5): kernel, initramfs and kernel parameters in sections of one EFI program, which systemd-boot
//! starts from `\EFI\Linux`, or the firmware from wherever it lies.
//!
//! ```text
//! .linux the kernel   .initrd the initramfs   .cmdline parameters   .uname the version   .osrel os-release
//! .pcrsig signed TPM measurements             .profile begins a further set of sections
//! ```
//! The initramfs of an image that nobody signed is rewritten in place; a signed one would not be any more, so it is left
//! alone, and it is checked whether it starts on the target as it is. Deliberately absent: add-ons (`.extra.d`), which take
//! parameters but no initramfs.

use super::super::draft::Draft;
use super::super::facts::{self, Modules};
use super::super::{initramfs, text, version};
use super::parameters;
use super::pe::Pe;
use crate::guest::Mount;
use crate::linux::initramfs::Rewritten;
use crate::target::Request;
use crate::tree::{GuestTree, GuestTreeExt};
use crate::{Error, Result};
use landfall_image::Bytes;

/// An image with every driver and firmware is 150 MiB long.
const IMAGE_AT_MOST: Bytes = Bytes::mib(512);

/// Two or three images are usual; an ESP does not hold more.
const IMAGES_AT_MOST: usize = 16;

/// A loader is a few MiB long, a kernel with its initramfs is longer.
const ELSEWHERE_AT_LEAST: Bytes = Bytes::mib(4);

/// An image.
pub(super) struct Image {
    pub path: String,
    /// It lies where systemd-boot looks.
    pub is_listed: bool,
    /// The guest has the modules of its kernel: it is not another system's.
    pub is_own: bool,
    /// By its own word, by the kernel's, or by its name.
    pub version: Option<String>,
    pub cmdline: Vec<u8>,
    /// Why its initramfs is not rewritten, as part of a sentence.
    fixed: Option<&'static str>,
}

/// Every image on the ESP and the extended boot partition.
pub(super) fn read(tree: &dyn GuestTree, mounts: &[Mount]) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for root in facts::boot_folders(tree, mounts)? {
        let Some(efi) = facts::find_path(tree, &root, &["EFI"])? else { continue };
        for folder in tree.names(&efi)?.into_iter().take(facts::VENDORS_AT_MOST) {
            let is_listed = folder.eq_ignore_ascii_case("Linux");
            let folder = format!("{efi}/{folder}");
            for name in tree.names(&folder)? {
                if !name.to_ascii_lowercase().ends_with(".efi") || images.len() >= IMAGES_AT_MOST {
                    continue;
                }
                let path = format!("{folder}/{name}");
                let is_long =
                    || Ok(tree.metadata(&path)?.is_some_and(|meta| meta.size >= ELSEWHERE_AT_LEAST));
                if (is_listed || is_long()?)
                    && let Ok(Some(bytes)) = tree.read(&path, IMAGE_AT_MOST)
                {
                    images.extend(parse(path, is_listed, &bytes));
                }
            }
        }
    }
    Ok(images)
}

fn parse(path: String, is_listed: bool, bytes: &[u8]) -> Option<Image> {
    let pe = Pe::parse(bytes)?;
    let has = |name: &str| pe.sections.iter().any(|section| section.name == name);
    if !has(".linux") {
        return None;
    }
    let line = |name: &str| {
        let text = pe.section(name)?.split(|byte| *byte == 0 || *byte == b'\n').next()?;
        std::str::from_utf8(text).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let fixed = match () {
        () if pe.is_signed() => Some("it is signed"),
        () if has(".profile") => Some("it has several profiles"),
        () if pe.section(".initrd").is_none() => Some("it has no initramfs"),
        () => None,
    };
    // dracut writes no `.uname`.
    let of_kernel = || pe.section(".linux").and_then(facts::image_version);
    Some(Image {
        version: line(".uname").or_else(of_kernel),
        cmdline: pe.section(".cmdline").unwrap_or_default().to_vec(),
        fixed,
        path,
        is_listed,
        is_own: true,
    })
}

/// Says which images' own parameters forbid a driver of `needed`.
pub(super) fn report_forbidden(draft: &mut Draft<'_>, images: &[Image], needed: &[&str]) {
    for image in images {
        for (parameter, module) in super::forbidden::found(&image.cmdline, needed) {
            draft.find(
                "linux-driver-forbidden",
                format!(
                    "{} keeps the driver {module} from being loaded ({parameter}=), and the target needs it.",
                    image.path
                ),
                format!(
                    "Build the image anew in the guest without {module} in {parameter}=, and convert again."
                ),
            );
        }
    }
}

impl Image {
    /// The file's name, by which systemd-boot knows it.
    pub fn id(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Finds whose modules its kernel takes: without them nothing can be put into its initramfs.
    pub fn look(&mut self, versions: &facts::Versions<'_>) {
        if self.version.as_ref().is_some_and(|version| versions.has(version)) {
            return;
        }
        match versions.in_name(self.id()) {
            Some(version) => self.version = Some(version),
            None => {
                self.is_own = false;
                self.fixed = self.fixed.or(Some("its kernel has no folder of modules in the guest"));
            }
        }
    }

    /// True where its initramfs can be rewritten.
    pub fn is_open(&self) -> bool {
        self.fixed.is_none()
    }

    /// True where it starts on the target without a change.
    fn has_drivers(&self, tree: &dyn GuestTree, request: &Request) -> Result<bool> {
        let version = self.version.as_deref().unwrap_or("");
        let built_in = match Modules::read(tree, &format!("/usr/lib/modules/{version}"))? {
            Some(modules) if !version.is_empty() => modules.builtin,
            _ => std::collections::BTreeSet::new(),
        };
        let bytes = tree.read(&self.path, IMAGE_AT_MOST)?.unwrap_or_default();
        let archive = Pe::parse(&bytes).and_then(|pe| pe.section(".initrd"));
        let inside = archive.and_then(|archive| initramfs::inspect(archive).ok());
        let inside = inside.map(|found| found.modules).unwrap_or_default();
        let ways = request.platform.linux_drivers().disks.iter();
        Ok(ways
            .filter(|way| !way.fallback)
            .any(|way| way.drivers.iter().all(|name| built_in.contains(*name) || inside.contains(*name))))
    }
}

/// Says what is not done. `alone`: there is nothing else to start the guest by.
pub(super) fn plan(draft: &mut Draft<'_>, images: &[Image], request: &Request, alone: bool) -> Result<()> {
    for image in images {
        let path = &image.path;
        let words = text::words(&image.cmdline);
        let fleeting = words.iter().find_map(|range| {
            let word = std::str::from_utf8(image.cmdline.get(range.clone())?).ok()?;
            let (_, value) = word.split_once('=')?;
            parameters::is_fleeting(value.split(':').next()?).then(|| word.to_owned())
        });
        if let Some(word) = fleeting {
            draft.find(
                if alone { "linux-uki-parameters" } else { "linux-uki-left" },
                format!("The unified kernel image {path} has {word} built in, a name that this move changes."),
                "Write the parameter with a UUID into /etc/kernel/cmdline in the guest and build the image anew, then convert again.",
            );
        }
        let Some(why) = image.fixed else { continue };
        if image.has_drivers(draft.scene.tree, request)? {
            draft.find(
                "linux-uki-kept",
                format!("The unified kernel image {path} has the target's disk drivers inside and was left as it is."),
                "Nothing has to be done.",
            );
            continue;
        }
        draft.find(
            if alone { "linux-uki-fixed" } else { "linux-uki-left" },
            format!("The initramfs in the unified kernel image {path} lacks the target's disk drivers and was not changed, because {why}."),
            "Build the image with the target's drivers in the guest and sign it there, then convert again.",
        );
    }
    Ok(())
}

/// The one that systemd-boot starts of several.
pub(super) fn newest<'i>(images: &[&'i Image]) -> Option<&'i Image> {
    images.iter().copied().max_by(|a, b| version::compare(a.id(), b.id()))
}

/// The one that firmware without boot entries starts.
pub(super) fn fallback(images: &[Image]) -> Option<&Image> {
    images.iter().find(|image| {
        let path = image.path.to_ascii_uppercase();
        image.is_own
            && ["/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/BOOTAA64.EFI"].iter().any(|name| path.ends_with(name))
    })
}

/// An image with its initramfs rewritten; anything else goes to `change` as it is.
///
/// # Errors
/// As `change`, and where the image has no initramfs or is not to be rewritten.
pub(crate) fn rewrite(bytes: &[u8], change: impl FnOnce(&[u8]) -> Result<Rewritten>) -> Result<Rewritten> {
    let Some(pe) = Pe::parse(bytes) else { return change(bytes) };
    let archive = pe.section(".initrd").ok_or_else(|| Error::unsupported("the image has no initramfs"))?;
    let mut new = change(archive)?;
    new.bytes = match new.changed {
        true => pe.with_sections(&[(".initrd", &new.bytes)])?,
        false => bytes.to_vec(),
    };
    // What counts for the space on its partition is the whole file.
    new.old_size = Bytes(bytes.len() as u64);
    new.new_size = Bytes(new.bytes.len() as u64);
    Ok(new)
}
