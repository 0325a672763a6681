//! The EFI system partition. Boot entries live in the firmware's memory and do not move with the disks, so the loader has
//! to lie where every firmware looks without one: `\EFI\BOOT\BOOTX64.EFI` (UEFI 2.10, 3.5.1.1).
//!
//! What starts is a loader of a distribution's folder, as its own tools would put it there with `--removable`: shim with
//! GRUB beside it, GRUB alone, or systemd-boot. What lies there already is judged in [`present`]. A unified kernel image that
//! a boot entry started by itself is found by systemd-boot, where the guest has its package. Deliberately absent: rEFInd and
//! plain kernels that the firmware starts by itself; they need files or parameters that only the lost boot entry knows.

mod present;

use super::device::Devices;
use super::draft::Draft;
use super::loader::{Copies, pe::Pe};
use super::{facts, grub_image};
use crate::Result;
use crate::guest::Guest;
use crate::patch::Action;
use crate::target::{Firmware, Request};
use crate::tree::{GuestTree, GuestTreeExt};
use landfall_image::Bytes;
use present::Verdict;

/// A boot program is 1 to 5 MiB long.
const PROGRAM_AT_MOST: Bytes = Bytes::mib(32);

/// The GUID of an EFI system partition's type.
const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// How the programs are called on an architecture; where there are several names, the commonest first.
struct Names {
    fallback: &'static str,
    shim: &'static [&'static str],
    grub: &'static [&'static str],
    keys: &'static [&'static str],
    restore: &'static [&'static str],
    list: &'static [&'static str],
    systemd_boot: &'static str,
}

/// 64-bit PCs. SUSE and RHEL 7 call theirs without the architecture.
const X64: Names = Names {
    fallback: "BOOTX64.EFI",
    shim: &["shimx64.efi", "shim.efi"],
    grub: &["grubx64.efi", "grub.efi"],
    keys: &["mmx64.efi", "MokManager.efi"],
    restore: &["fbx64.efi", "fallback.efi"],
    list: &["BOOTX64.CSV", "BOOT.CSV"],
    systemd_boot: "systemd-bootx64.efi",
};

const AA64: Names = Names {
    fallback: "BOOTAA64.EFI",
    shim: &["shimaa64.efi", "shim.efi"],
    grub: &["grubaa64.efi", "grub.efi"],
    keys: &["mmaa64.efi", "MokManager.efi"],
    restore: &["fbaa64.efi", "fallback.efi"],
    list: &["BOOTAA64.CSV", "BOOT.CSV"],
    systemd_boot: "systemd-bootaa64.efi",
};

const IA32: Names = Names {
    fallback: "BOOTIA32.EFI",
    shim: &["shimia32.efi"],
    grub: &["grubia32.efi"],
    keys: &["mmia32.efi"],
    restore: &["fbia32.efi"],
    list: &["BOOTIA32.CSV"],
    systemd_boot: "systemd-bootia32.efi",
};

/// The programs that the target's firmware can start. A PC's is 64-bit, whatever the guest's own programs are.
fn names(architecture: &str) -> Option<&'static Names> {
    Some(match architecture {
        "x86_64" | "i686" | "i386" => &X64,
        "aarch64" => &AA64,
        _ => return None,
    })
}

/// Folders of distributions whose name is not their id.
const FOLDERS: &[(&str, &[&str])] = &[
    ("rhel", &["redhat"]),
    ("ol", &["redhat"]),
    ("amzn", &["amzn", "redhat"]),
    ("opensuse-leap", &["opensuse"]),
    ("opensuse-tumbleweed", &["opensuse"]),
    ("sles", &["sles", "suse"]),
    ("sled", &["sled", "suse"]),
    ("arch", &["arch", "GRUB"]),
    ("linuxmint", &["ubuntu"]),
];

/// Plans the fallback loader, if the target starts by UEFI.
pub fn plan(draft: &mut Draft<'_>, guest: &Guest, request: &Request, copies: &Copies) -> Result<()> {
    if request.firmware != Firmware::Uefi || !facts::can_start(guest, "uefi") {
        if request.firmware == Firmware::Uefi
            && draft.scene.volumes.iter().any(|volume| volume.part_type.as_deref() == Some(ESP_TYPE))
        {
            draft.find(
                "linux-esp-not-mounted",
                "There is an EFI system partition, but the guest does not mount it, or it holds no loader.",
                "Mount it at /boot/efi in the guest's /etc/fstab and run grub-install there.",
            );
        }
        return Ok(());
    }
    let tree = draft.scene.tree;
    let Some(names) = names(&guest.architecture.value) else {
        draft.find(
            "linux-esp-unchecked",
            format!("The EFI loaders of architecture {} are not known.", guest.architecture.value),
            "Check by hand that the EFI system partition holds a fallback loader in EFI/BOOT.",
        );
        return Ok(());
    };
    let Some(esp) = facts::esp_folder(tree, draft.scene.mounts)? else { return Ok(()) };
    let Some(efi) = facts::find_path(tree, &esp, &["EFI"])? else { return Ok(()) };
    let boot = match facts::find_name(tree, &efi, "BOOT")? {
        Some(name) => format!("{efi}/{name}"),
        None => format!("{efi}/BOOT"),
    };
    let present = facts::find_name(tree, &boot, names.fallback)?.map(|name| format!("{boot}/{name}"));
    if present.is_some() && present.as_deref() == copies.fallback() {
        return Ok(());
    }
    let vendor = vendor(tree, &efi, &guest.distribution.value, names)?;
    let systemd_boot = facts::find_path(tree, &efi, &["systemd", names.systemd_boot])?;
    // Both may be there; the guest's own configuration tells which of the two it is kept up to date by.
    let uses_grub = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"]
        .iter()
        .try_fold(false, |found, path| tree.exists(path).map(|exists| found || exists))?;
    match (vendor, systemd_boot) {
        (Some(vendor), other) if uses_grub || other.is_none() => {
            stub(draft, guest, &efi, &vendor)?;
            let verdict = match &present {
                Some(present) => present::for_grub(tree, names, &boot, present, &vendor, uses_grub)?,
                None => Verdict::Own,
            };
            let loader = vendor.shim.as_ref().or(vendor.grub.as_ref());
            match (verdict, &present, loader) {
                (Verdict::Other(what), Some(present), Some(loader)) => {
                    replaced(draft, present, loader, &what);
                    set_up(draft, names, &boot, &vendor, present)?;
                }
                (Verdict::Unknown, Some(present), Some(loader)) => unknown(draft, present, loader),
                _ => fallback(draft, names, &boot, &vendor, present)?,
            }
        }
        (_, Some(program)) => match present {
            None => copy(draft, &program, &boot, names.fallback, WHY)?,
            Some(present) => match present::for_systemd_boot(tree, names, &boot, &present, &program)? {
                Verdict::Own => {}
                Verdict::Other(what) => {
                    replaced(draft, &present, &program, &what);
                    put(draft, &program, &present, WHY)?;
                }
                Verdict::Unknown => unknown(draft, &present, &program),
            },
        },
        (None, None) if present.is_some() => {}
        (_, None) => {
            let packaged = format!("{PACKAGED}/{}", names.systemd_boot);
            match copies.has_listed() && tree.exists(&packaged)? {
                true => copy(draft, &packaged, &boot, names.fallback, FINDS_IMAGES)?,
                false => no_loader(draft, &efi, &boot, names)?,
            }
        }
    }
    Ok(())
}

const WHY: &str =
    "UEFI boot entries do not move with the disks; every firmware starts this file without one.";

const FINDS_IMAGES: &str = "The boot entry that started the unified kernel image does not move with the disks; systemd-boot in the fallback's place finds it.";

/// Where systemd-boot's packages keep it.
const PACKAGED: &str = "/usr/lib/systemd/boot/efi";

/// Behind the name of a program that had to make room.
const OLD: &str = "landfall-old";

fn replaced(draft: &mut Draft<'_>, present: &str, by: &str, what: &str) {
    draft.find(
        "linux-efi-fallback-replaced",
        format!("{present}, which firmware without boot entries starts, was {what}: it becomes a copy of {by}, and is kept as {present}.{OLD}."),
        format!("Give it its name back on the target if the machine is to start by it: {present}.{OLD}."),
    );
}

fn unknown(draft: &mut Draft<'_>, present: &str, own: &str) {
    draft.find(
        "linux-efi-fallback-unknown",
        format!("{present}, which firmware without boot entries starts, is no loader of this guest that is known."),
        format!("Check that the guest starts by it; if not, put a copy of {own} in its place in the guest (grub-install --removable, bootctl install)."),
    );
}

fn no_loader(draft: &mut Draft<'_>, efi: &str, boot: &str, names: &Names) -> Result<()> {
    let tree = draft.scene.tree;
    let is_32_bit = names.fallback == X64.fallback
        && (facts::find_name(tree, boot, IA32.fallback)?.is_some()
            || vendor(tree, efi, "", &IA32)?.is_some());
    match is_32_bit {
        true => draft.find(
            "linux-efi-bits",
            format!("{efi} holds loaders for 32-bit UEFI only, and the UEFI firmware of virtual machines is 64-bit."),
            "Install GRUB for 64-bit UEFI in the guest (grub-efi-amd64), or start it by BIOS.",
        ),
        false => draft.find(
            "linux-no-efi-loader",
            format!("{efi} holds neither shim nor GRUB nor systemd-boot, and there is no {boot}/{}.", names.fallback),
            "Install GRUB or systemd-boot for UEFI in the guest, or start it by BIOS.",
        ),
    }
    Ok(())
}

/// The vendor's loader in place of another one, with all that it starts.
fn set_up(draft: &mut Draft<'_>, names: &Names, boot: &str, vendor: &Vendor, present: &str) -> Result<()> {
    let Some(grub) = &vendor.grub else { return Ok(()) };
    put(draft, vendor.shim.as_ref().unwrap_or(grub), present, WHY)?;
    let mut beside = Vec::new();
    if vendor.shim.is_some() {
        beside.push((grub, "The fallback shim starts the GRUB beside it."));
        beside.extend(
            vendor.keys.iter().map(|keys| (keys, "The key manager that the fallback shim may call.")),
        );
        let restore = vendor.restore.iter().filter(|_| vendor.has_list);
        beside.extend(restore.map(|restore| (restore, "It restores the firmware's boot entries.")));
        // A restorer without a list, which another vendor's shim had, would find nothing.
        for name in names.restore.iter().filter(|_| !vendor.has_list || vendor.restore.is_none()) {
            if let Some(name) = facts::find_name(draft.scene.tree, boot, name)? {
                let path = format!("{boot}/{name}");
                draft.copy_if_absent(&format!("{path}.{OLD}"), &path, "What was there before.")?;
                draft.remove(&path, "The restorer of another loader finds no list of this guest's.")?;
            }
        }
    }
    for (from, why) in beside {
        let name = from.rsplit('/').next().unwrap_or(from);
        let name = facts::find_name(draft.scene.tree, boot, name)?.unwrap_or_else(|| name.to_owned());
        put(draft, from, &format!("{boot}/{name}"), why)?;
    }
    own_config(draft, boot, vendor, grub)
}

/// The path becomes a copy of `from`; what was there is kept under another name.
fn put(draft: &mut Draft<'_>, from: &str, path: &str, why: &str) -> Result<()> {
    let tree = draft.scene.tree;
    if tree.exists(path)? {
        if same(tree, from, path)? {
            return Ok(());
        }
        draft.copy_if_absent(&format!("{path}.{OLD}"), path, "What was there before.")?;
    }
    draft.push(path, Action::Copy { from: from.to_owned() }, why);
    Ok(())
}

/// Shim with what it starts, or GRUB alone, as the fallback.
fn fallback(
    draft: &mut Draft<'_>,
    names: &Names,
    boot: &str,
    vendor: &Vendor,
    present: Option<String>,
) -> Result<()> {
    let tree = draft.scene.tree;
    let Some(grub) = &vendor.grub else { return Ok(()) };
    // Shim starts the program of the name that it was built for: the one that lies beside it in its own folder.
    let grub_name = grub.rsplit('/').next().unwrap_or(grub);
    let beside = "The fallback shim starts the GRUB beside it.";
    match (&vendor.shim, present) {
        (Some(shim), None) => {
            copy(draft, shim, boot, names.fallback, WHY)?;
            copy(draft, grub, boot, grub_name, beside)?;
            own_config(draft, boot, vendor, grub)?;
            if let Some(keys) = &vendor.keys {
                let name = keys.rsplit('/').next().unwrap_or(keys);
                copy(draft, keys, boot, name, "The key manager that the fallback shim may call.")?;
            }
            if let (Some(restore), true) = (&vendor.restore, vendor.has_list) {
                let name = restore.rsplit('/').next().unwrap_or(restore);
                copy(draft, restore, boot, name, "It restores the firmware's boot entries.")?;
            }
        }
        (None, None) => {
            copy(draft, grub, boot, names.fallback, WHY)?;
            own_config(draft, boot, vendor, grub)?;
        }
        (Some(shim), Some(present)) => {
            // A shim alone starts nothing: it needs GRUB or the restorer beside it.
            let mut alone = facts::find_name(tree, boot, grub_name)?.is_none();
            for name in names.restore {
                alone &= facts::find_name(tree, boot, name)?.is_none();
            }
            if alone && (same(tree, shim, &present)? || present::is_shim(tree, &present)?) {
                copy(draft, grub, boot, grub_name, beside)?;
                own_config(draft, boot, vendor, grub)?;
            }
        }
        (None, Some(_)) => {}
    }
    Ok(())
}

/// A GRUB that looks for its configuration in the folder that it was started from needs it there, too.
fn own_config(draft: &mut Draft<'_>, boot: &str, vendor: &Vendor, grub: &str) -> Result<()> {
    // GRUB legacy of RHEL 6 reads the file that is called like itself.
    if let Some(name) = facts::find_name(draft.scene.tree, &vendor.folder, "grub.conf")? {
        let config = format!("{}/{name}", vendor.folder);
        return copy(draft, &config, boot, "BOOTX64.conf", "GRUB legacy's configuration, for the fallback.");
    }
    let Some(config) = &vendor.config else { return Ok(()) };
    let Some(built) = built(draft.scene.tree, grub)? else { return Ok(()) };
    let prefix = built.prefix.unwrap_or_default().to_ascii_lowercase();
    // `/EFI/debian` and `(,gpt2)/boot/grub` are found from anywhere; SUSE's has none.
    let is_elsewhere = prefix.starts_with(['/', '(']) && prefix != "/efi/boot";
    let size = draft.scene.tree.metadata(config)?.map_or(0, |meta| meta.size.0);
    if !is_elsewhere && size <= WRAPPER_AT_MOST {
        copy(draft, config, boot, "grub.cfg", "This GRUB looks for its configuration beside itself.")?;
    }
    Ok(())
}

/// A configuration that only leads to the real one has a few lines.
const WRAPPER_AT_MOST: u64 = 2048;

/// What is built into a GRUB of the guest.
fn built(tree: &dyn GuestTree, path: &str) -> Result<Option<grub_image::Built>> {
    let Ok(Some(program)) = tree.read(path, PROGRAM_AT_MOST) else { return Ok(None) };
    Ok(Pe::parse(&program).and_then(|pe| pe.section("mods")).and_then(grub_image::modules))
}

/// What a distribution's folder on the partition has.
struct Vendor {
    folder: String,
    shim: Option<String>,
    grub: Option<String>,
    keys: Option<String>,
    restore: Option<String>,
    config: Option<String>,
    has_list: bool,
}

/// The folder with the guest's loader: its own first, then `debian` and `ubuntu`, then any other.
fn vendor(tree: &dyn GuestTree, efi: &str, distribution: &str, names: &Names) -> Result<Option<Vendor>> {
    let mut folders = tree.names(efi)?;
    folders.retain(|name| {
        !["boot", "microsoft", "tools", "systemd", "linux"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
    });
    let own = FOLDERS.iter().find(|(id, _)| *id == distribution).map_or(&[][..], |(_, folders)| folders);
    let known: Vec<&str> = own.iter().copied().chain([distribution, "debian", "ubuntu"]).collect();
    let rank = |name: &String| {
        known.iter().position(|known| name.eq_ignore_ascii_case(known)).unwrap_or(known.len())
    };
    folders.sort_by_key(rank);
    folders.truncate(facts::VENDORS_AT_MOST);
    for name in folders {
        let folder = format!("{efi}/{name}");
        let at = |names: &[&str]| -> Result<Option<String>> {
            for name in names {
                if let Some(name) = facts::find_name(tree, &folder, name)? {
                    return Ok(Some(format!("{folder}/{name}")));
                }
            }
            Ok(None)
        };
        let vendor = Vendor {
            shim: at(names.shim)?,
            grub: at(names.grub)?,
            keys: at(names.keys)?,
            restore: at(names.restore)?,
            config: at(&["grub.cfg"])?,
            has_list: at(names.list)?.is_some(),
            folder,
        };
        if vendor.grub.is_some() {
            return Ok(Some(vendor));
        }
    }
    Ok(None)
}

fn copy(draft: &mut Draft<'_>, from: &str, folder: &str, name: &str, why: &str) -> Result<()> {
    // FAT does not tell the cases apart, the tree may.
    if facts::find_name(draft.scene.tree, folder, name)?.is_none() {
        draft.copy_if_absent(&format!("{folder}/{name}"), from, why)?;
    }
    Ok(())
}

fn same(tree: &dyn GuestTree, a: &str, b: &str) -> Result<bool> {
    let sizes = (tree.metadata(a)?.map(|meta| meta.size), tree.metadata(b)?.map(|meta| meta.size));
    if sizes.0 != sizes.1 || sizes.0.is_none_or(|size| size > PROGRAM_AT_MOST) {
        return Ok(false);
    }
    Ok(tree.read(a, PROGRAM_AT_MOST)? == tree.read(b, PROGRAM_AT_MOST)?)
}

/// The signed GRUB reads `grub.cfg` in its vendor's folder, which leads it to the real one. Written anew where it is
/// missing (its UUIDs are checked with those of GRUB's other files).
fn stub(draft: &mut Draft<'_>, guest: &Guest, efi: &str, vendor: &Vendor) -> Result<()> {
    let (Some(_), Some(program)) = (&vendor.shim, &vendor.grub) else { return Ok(()) };
    let tree = draft.scene.tree;
    let prefix = built(tree, program)?.and_then(|built| built.prefix).unwrap_or_default();
    // A relative of Debian may have Debian's GRUB in a folder of its own.
    let folder = match prefix.strip_prefix("/EFI/").filter(|name| !name.is_empty() && !name.contains('/')) {
        Some(name) => {
            format!("{efi}/{}", facts::find_name(tree, efi, name)?.unwrap_or_else(|| name.to_owned()))
        }
        None => vendor.folder.clone(),
    };
    if facts::find_name(tree, &folder, "grub.cfg")?.is_some() {
        return Ok(());
    }
    let devices = Devices::new(draft.scene.volumes, draft.scene.mounts);
    let grub = match draft.scene.tree.exists("/boot/grub2/grub.cfg")? {
        true => "grub2",
        false => "grub",
    };
    let (at, prefix) = match guest.mounts.iter().any(|mount| mount.at == "/boot") {
        true => ("/boot", format!("/{grub}")),
        false => ("/", format!("/boot/{grub}")),
    };
    let plain = guest.mounts.iter().any(|mount| mount.at == at && mount.file_system != "btrfs");
    let name = devices.mounted_at(at).filter(|_| plain).and_then(|volume| devices.stable_name(volume));
    match name.as_deref().and_then(|name| name.strip_prefix("UUID=")) {
        Some(uuid) => draft.push(
            &format!("{folder}/grub.cfg"),
            Action::Write {
                contents: format!(
                    "search.fs_uuid {uuid} root\nset prefix=($root)'{prefix}'\nconfigfile $prefix/grub.cfg\n"
                )
                .into(),
                mode: 0o644,
            },
            "The signed GRUB looks here for the way to its configuration.",
        ),
        None => draft.find(
            "linux-esp-unchecked",
            format!("{folder}/grub.cfg is missing, and the volume of {at} cannot be named in a new one."),
            "Run grub-install in the guest before the move.",
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
