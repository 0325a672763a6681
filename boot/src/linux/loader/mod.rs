//! Boot loaders: kernel parameters that name devices, in the configuration that is used now and in the one that the
//! next update generates from; and which kernel starts by default.
//!
//! One file per loader: [`grub2`] (with its environment in [`grubenv`] and its menu in [`menu`]), [`legacy`], [`syslinux`],
//! [`bls`] (entries that GRUB and systemd-boot share), [`systemd_boot`], [`uki`] (with [`pe`]); [`parameters`] is what all of them edit,
//! and [`forbidden`] what all of them are searched for.
//!
//! Deliberately absent: LILO, which finds kernel and initramfs by their blocks, so that a new initramfs needs `lilo` itself;
//! elilo, and zipl of s390x. They are recognised and named.

mod bls;
mod forbidden;
mod grub2;
mod grubenv;
mod legacy;
mod menu;
mod parameters;
pub mod pe;
mod syslinux;
mod systemd_boot;
pub(crate) mod uki;

use super::device::Devices;
use super::draft::Draft;
use super::packages::Packages;
use super::{drivers, facts};
use crate::Result;
use crate::guest::{Guest, Mount};
use crate::target::{Firmware, Request};
use crate::tree::{GuestTree, GuestTreeExt};
use grub2::Grub;

/// Plans all that concerns BIOS and UEFI alike.
pub fn plan(
    draft: &mut Draft<'_>,
    copies: &Copies,
    guest: &Guest,
    request: &Request,
    packages: &Packages,
) -> Result<()> {
    let Copies { entries, images } = copies;
    let devices = Devices::new(draft.scene.volumes, draft.scene.mounts);
    firmware(draft, guest, request);
    let grub = Grub::find(draft)?;
    let mut found = Vec::new();
    if let Some(grub) = &grub {
        found.push("GRUB");
        grub.plan(draft, &devices)?;
    }
    if legacy::plan(draft, &devices)? {
        found.push("GRUB legacy");
        grub2::device_map(draft, "/boot/grub/device.map")?;
    }
    found.extend(syslinux::plan(draft, &devices)?);
    bls::plan(draft, &devices, entries)?;
    uki::plan(draft, images, request, found.is_empty() && entries.is_empty())?;
    let systemd_boot = systemd_boot::find(draft)?;
    if systemd_boot.is_some() && !(entries.is_empty() && images.is_empty()) {
        found.push("systemd-boot");
    } else if found.is_empty() && !images.is_empty() {
        found.push("unified kernel images");
    }
    if refind(draft, &devices)? {
        found.push("rEFInd");
    }
    others(draft, guest, &found, systemd_boot)?;
    if grub.is_some() && packages.has("grub-pc") {
        grub2::debconf(draft)?;
    }
    if grub.is_some() {
        grub2::suse_devices(draft)?;
    }
    let known = files(draft)?;
    let paths = [known.entries, known.configs, known.environments].concat();
    if !found.is_empty() {
        serial_console(draft, grub.is_some(), &paths, images)?;
    }
    let needed = drivers::needed(draft, request);
    let sources = [grub2::sources(draft)?, bls::sources(draft)?];
    forbidden::report(draft, &[paths, sources.concat()].concat(), &needed)?;
    uki::report_forbidden(draft, images, &needed);
    Ok(())
}

/// Version of the kernel that starts without a choice being made, where the configuration says so plainly.
pub fn default_kernel(draft: &mut Draft<'_>, copies: &Copies) -> Result<Option<String>> {
    let Copies { entries, images } = copies;
    if let Some(grub) = Grub::find(draft)? {
        return grub.default_kernel(draft, entries);
    }
    if systemd_boot::find(draft)?.is_some() {
        return systemd_boot::default_kernel(draft, entries, images);
    }
    let image = match syslinux::default_image(draft)? {
        Some(image) => Some(image),
        None => legacy::default_image(draft)?,
    };
    match image {
        Some(image) => version_behind(draft.scene.tree, &image),
        None => Ok(uki::fallback(images).and_then(|image| image.version.clone())),
    }
}

/// A kernel whose initramfs lies beside its boot entry or in one image with it, on the ESP or the extended boot partition:
/// what starts is this copy, whatever lies in `/boot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// As in `/lib/modules`.
    pub version: String,
    /// The kernel, or the image with all.
    pub image: String,
    /// The initramfs, or the image with all.
    pub initramfs: Option<String>,
}

/// Boot entries and unified kernel images, which are long and so read once.
#[derive(Default)]
pub struct Copies {
    entries: Vec<bls::Entry>,
    images: Vec<uki::Image>,
}

impl Copies {
    /// Looks for them.
    pub fn read(tree: &dyn GuestTree, mounts: &[Mount]) -> Result<Self> {
        let mut versions = facts::Versions::read(tree)?;
        let mut copies = Copies { entries: bls::read(tree, mounts)?, images: uki::read(tree, mounts)? };
        for entry in &mut copies.entries {
            entry.look(tree, &mut versions)?;
        }
        for image in &mut copies.images {
            image.look(&versions);
        }
        Ok(copies)
    }

    /// The unified kernel image of the guest's that firmware without boot entries starts.
    pub fn fallback(&self) -> Option<&str> {
        uki::fallback(&self.images).map(|image| image.path.as_str())
    }

    /// True where systemd-boot would find a unified kernel image of the guest's.
    pub fn has_listed(&self) -> bool {
        self.images.iter().any(|image| image.is_own && image.is_listed)
    }

    /// Every unified kernel image with the parameters that it has built in.
    pub fn built_in(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.images.iter().map(|image| (image.path.as_str(), image.cmdline.as_slice()))
    }

    /// Every kernel of theirs whose modules are there and whose initramfs can be rewritten.
    pub fn kernels(&self) -> Vec<Beside> {
        let of_entry = |entry: &bls::Entry| {
            let (version, image) = (entry.modules.clone()?, entry.image.clone()?);
            Some(Beside { version, image, initramfs: entry.initramfs.clone() })
        };
        let of_image = |image: &uki::Image| {
            let version = image.version.clone().filter(|_| image.is_open())?;
            Some(Beside { version, image: image.path.clone(), initramfs: Some(image.path.clone()) })
        };
        let mut found: Vec<Beside> = Vec::new();
        for kernel in self.entries.iter().filter_map(of_entry).take(facts::KERNELS_AT_MOST) {
            if !found.contains(&kernel) {
                found.push(kernel);
            }
        }
        found.extend(self.images.iter().filter_map(of_image));
        found
    }
}

/// Every file with kernel parameters that a loader reads, by its form.
pub struct Files {
    /// Lines that begin with `linux`, `kernel`, `append`.
    pub configs: Vec<String>,
    /// Lines that begin with `options`.
    pub entries: Vec<String>,
    /// GRUB's environment blocks.
    pub environments: Vec<String>,
}

/// Files with the parameters that the next configuration, entry or image is made with.
pub fn sources(draft: &Draft<'_>) -> Result<Vec<String>> {
    let more = ["/boot/refind_linux.conf", "/etc/update-extlinux.conf"].map(str::to_owned);
    Ok([grub2::sources(draft)?, grub2::scripts_of(draft)?, bls::sources(draft)?, more.into()].concat())
}

/// Looks for them.
pub fn files(draft: &Draft<'_>) -> Result<Files> {
    let grub = Grub::look(draft)?;
    let mut configs = grub.configs;
    configs.extend(legacy::configs(draft)?);
    for (path, _) in syslinux::CONFIGS {
        if draft.scene.tree.exists(path)? {
            configs.push((*path).to_owned());
        }
    }
    let entries = bls::read(draft.scene.tree, draft.scene.mounts)?;
    let entries = entries.into_iter().map(|entry| entry.path).collect();
    Ok(Files { configs, entries, environments: grub.environments })
}

/// The version in a kernel's path: `/boot/vmlinuz-6.1.0-43-amd64`, `/TOKEN/6.1.0-43-amd64/linux`.
fn version_of_image(path: &str) -> Option<String> {
    let mut parts = path.rsplit(['/', '\\', ')']);
    let file = parts.next()?;
    let folder = parts.next().filter(|folder| folder.starts_with(|c: char| c.is_ascii_digit()));
    // SUSE adds a digest: `linux-ab12`.
    if folder.is_some() && file.starts_with("linux-") || ["linux", "vmlinuz", "vmlinux"].contains(&file) {
        return folder.map(str::to_owned);
    }
    ["vmlinuz-", "vmlinux-", "kernel-", "linux-", "bzImage-", "Image-"]
        .iter()
        .find_map(|prefix| file.strip_prefix(prefix))
        .map(str::to_owned)
}

/// The same, a link in /boot (`/vmlinuz`, SUSE's `/boot/vmlinuz`) followed.
fn version_behind(tree: &dyn GuestTree, image: &str) -> Result<Option<String>> {
    let path = image.rsplit(')').next().unwrap_or(image);
    let file = path.rsplit('/').next().unwrap_or(path);
    for path in [path, &format!("/boot/{file}")] {
        if path.starts_with('/')
            && let Some(target) = tree.read_link(path)?
        {
            return Ok(version_of_image(&target));
        }
    }
    Ok(version_of_image(image))
}

/// True for a link whose target is another path of the list.
fn is_link_into(tree: &dyn GuestTree, path: &str, list: &[&str]) -> Result<bool> {
    let Some(target) = tree.read_link(path)? else { return Ok(false) };
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let target = match target.starts_with('/') {
        true => target,
        false => format!("{folder}/{target}"),
    };
    let target = crate::tree::walk::normalise(&target);
    Ok(list.iter().any(|other| *other != path && *other == target))
}

fn firmware(draft: &mut Draft<'_>, guest: &Guest, request: &Request) {
    let (wanted, other) = match request.firmware {
        Firmware::Bios => ("bios", "uefi"),
        Firmware::Uefi => ("uefi", "bios"),
    };
    if facts::can_start(guest, wanted) {
        return;
    }
    if facts::can_start(guest, other) {
        let (wanted, other) = (wanted.to_uppercase(), other.to_uppercase());
        draft.find(
            "linux-firmware-mismatch",
            format!("The guest's boot loader starts from {other} only, and {wanted} firmware is asked for."),
            format!("Set {other} as the firmware in a copy of the machine's definition, or install a {wanted} boot loader in the guest first."),
        );
    } else {
        draft.find(
            "linux-no-loader",
            "No boot loader was found in the guest, neither for BIOS nor for UEFI.",
            "Check that the disk with /boot (and the EFI system partition) was given.",
        );
    }
}

/// rEFInd reads a file with a title and parameters on each line, beside the kernels that it finds by itself.
fn refind(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<bool> {
    let path = "/boot/refind_linux.conf";
    parameters::plain_file(draft, devices, path, "rEFInd passes root and resume device by UUID.")?;
    draft.scene.tree.exists(path)
}

/// Loaders whose configuration is not edited.
fn others(draft: &mut Draft<'_>, guest: &Guest, found: &[&str], systemd_boot: Option<String>) -> Result<()> {
    let tree = draft.scene.tree;
    let mut others: Vec<String> = Vec::new();
    if !found.contains(&"systemd-boot") {
        others.extend(systemd_boot);
    }
    for root in facts::boot_folders(tree, draft.scene.mounts)? {
        for names in
            [&["EFI", "refind"][..], &["EFI", "SuSE", "elilo.conf"], &["EFI", "redhat", "elilo.conf"]]
        {
            let path = facts::find_path(tree, &root, names)?;
            others.extend(path.filter(|_| names != ["EFI", "refind"] || !found.contains(&"rEFInd")));
        }
    }
    for path in ["/etc/lilo.conf", "/etc/elilo.conf", "/etc/zipl.conf"] {
        if tree.exists(path)? {
            others.push(path.to_owned());
        }
    }
    if found.is_empty() && (!others.is_empty() || !guest.boot_modes.is_empty()) {
        let what = others.first().map_or("a loader without a known configuration".into(), Clone::clone);
        draft.find(
            "linux-loader-unsupported",
            format!("The guest starts by {what}, whose configuration and initramfs copies landfall does not edit."),
            "Install GRUB in the guest before the move, or rebuild its boot entries on the target from a rescue system.",
        );
    } else if let Some(path) = others.first() {
        draft.find(
            "linux-second-loader",
            format!(
                "Besides {} there is another boot loader ({path}), which was left as it is.",
                found.join(" and ")
            ),
            format!(
                "Start the guest by {}, or check that the other loader's entries name no devices.",
                found.join(" or ")
            ),
        );
    }
    Ok(())
}

fn serial_console(
    draft: &mut Draft<'_>,
    has_grub: bool,
    paths: &[String],
    images: &[uki::Image],
) -> Result<()> {
    let has_one = |text: &str| ["console=ttyS", "console=ttyAMA"].iter().any(|name| text.contains(name));
    for path in paths {
        if has_one(&draft.read_text(path)?.unwrap_or_default()) {
            return Ok(());
        }
    }
    // Images have their parameters built in.
    if images.iter().any(|image| has_one(&String::from_utf8_lossy(&image.cmdline))) {
        return Ok(());
    }
    draft.find(
        "linux-no-serial-console",
        "The kernel writes to the screen only; a serial console shows nothing of the boot.",
        match has_grub {
            true => "Add console=tty0 console=ttyS0 to GRUB_CMDLINE_LINUX if a serial console is wanted.",
            false => "Add console=tty0 console=ttyS0 to the kernel parameters if a serial console is wanted.",
        },
    );
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
