//! The EFI system partition. Boot entries live in the firmware's memory and do not move with the disks, so the loader has
//! to lie where every firmware looks without one: `\EFI\BOOT\BOOTX64.EFI` (UEFI 2.10, 3.5.1.1).

use super::device::Devices;
use super::draft::Draft;
use super::facts;
use crate::Result;
use crate::guest::Guest;
use crate::patch::Action;
use crate::target::{Firmware, Request};
use crate::tree::{GuestTree, GuestTreeExt};
use landfall_image::Bytes;

/// A boot program is 1 to 5 MiB long.
const PROGRAM_AT_MOST: Bytes = Bytes::mib(32);

/// The GUID of an EFI system partition's type.
const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// How the programs are called on an architecture.
struct Names {
    fallback: &'static str,
    shim: &'static str,
    grub: &'static str,
    keys: &'static str,
    restore: &'static str,
    list: &'static str,
}

fn names(architecture: &str) -> Option<Names> {
    Some(match architecture {
        "x86_64" => Names {
            fallback: "BOOTX64.EFI",
            shim: "shimx64.efi",
            grub: "grubx64.efi",
            keys: "mmx64.efi",
            restore: "fbx64.efi",
            list: "BOOTX64.CSV",
        },
        "aarch64" => Names {
            fallback: "BOOTAA64.EFI",
            shim: "shimaa64.efi",
            grub: "grubaa64.efi",
            keys: "mmaa64.efi",
            restore: "fbaa64.efi",
            list: "BOOTAA64.CSV",
        },
        "i686" | "i386" => Names {
            fallback: "BOOTIA32.EFI",
            shim: "shimia32.efi",
            grub: "grubia32.efi",
            keys: "mmia32.efi",
            restore: "fbia32.efi",
            list: "BOOTIA32.CSV",
        },
        _ => return None,
    })
}

/// Plans the fallback loader, if the target starts by UEFI.
pub fn plan(draft: &mut Draft<'_>, guest: &Guest, request: &Request) -> Result<()> {
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
    let vendor = vendor(tree, &efi, &guest.distribution.value, &names)?;
    let boot = match facts::find_name(tree, &efi, "BOOT")? {
        Some(name) => format!("{efi}/{name}"),
        None => format!("{efi}/BOOT"),
    };
    let present = facts::find_name(tree, &boot, names.fallback)?.map(|name| format!("{boot}/{name}"));
    let Some(vendor) = vendor else {
        if present.is_none() {
            draft.find(
                "linux-no-efi-loader",
                format!("{efi} holds neither shim nor GRUB, and there is no {boot}/{}.", names.fallback),
                "Install GRUB for UEFI in the guest, or start it by BIOS.",
            );
        }
        return Ok(());
    };
    stub(draft, guest, &vendor)?;
    let Some(grub) = &vendor.grub else { return Ok(()) };
    match (&vendor.shim, present) {
        (Some(shim), None) => {
            copy(draft, shim, &boot, names.fallback, WHY)?;
            copy(draft, grub, &boot, names.grub, "The fallback shim starts the GRUB beside it.")?;
            if let Some(keys) = &vendor.keys {
                copy(draft, keys, &boot, names.keys, "The key manager that the fallback shim may call.")?;
            }
            if let (Some(restore), true) = (&vendor.restore, vendor.has_list) {
                copy(draft, restore, &boot, names.restore, "It restores the firmware's boot entries.")?;
            }
        }
        (None, None) => copy(draft, grub, &boot, names.fallback, WHY)?,
        (Some(shim), Some(present)) => {
            // A shim alone starts nothing: it needs GRUB or the restorer beside it.
            let alone = facts::find_name(tree, &boot, names.grub)?.is_none()
                && facts::find_name(tree, &boot, names.restore)?.is_none();
            if alone && same(tree, shim, &present)? {
                copy(draft, grub, &boot, names.grub, "The fallback shim starts the GRUB beside it.")?;
            }
        }
        (None, Some(_)) => {}
    }
    Ok(())
}

const WHY: &str =
    "UEFI boot entries do not move with the disks; every firmware starts this file without one.";

/// What a distribution's folder on the partition has.
struct Vendor {
    folder: String,
    shim: Option<String>,
    grub: Option<String>,
    keys: Option<String>,
    restore: Option<String>,
    has_list: bool,
}

/// The folder with the guest's loader: its own first, then `debian` and `ubuntu`, then any other.
fn vendor(tree: &dyn GuestTree, efi: &str, distribution: &str, names: &Names) -> Result<Option<Vendor>> {
    let mut folders = tree.names(efi)?;
    folders
        .retain(|name| !["boot", "microsoft", "tools"].iter().any(|other| name.eq_ignore_ascii_case(other)));
    let rank = |name: &String| {
        let known = [distribution, "debian", "ubuntu"];
        known.iter().position(|known| name.eq_ignore_ascii_case(known)).unwrap_or(known.len())
    };
    folders.sort_by_key(rank);
    for name in folders {
        let folder = format!("{efi}/{name}");
        let at = |name: &str| -> Result<Option<String>> {
            Ok(facts::find_name(tree, &folder, name)?.map(|name| format!("{folder}/{name}")))
        };
        let vendor = Vendor {
            shim: at(names.shim)?,
            grub: at(names.grub)?,
            keys: at(names.keys)?,
            restore: at(names.restore)?,
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
/// missing; checked where it is there.
fn stub(draft: &mut Draft<'_>, guest: &Guest, vendor: &Vendor) -> Result<()> {
    let devices = Devices::new(draft.scene.volumes, draft.scene.mounts);
    let folder = &vendor.folder;
    let existing =
        facts::find_name(draft.scene.tree, folder, "grub.cfg")?.map(|name| format!("{folder}/{name}"));
    if let Some(path) = existing {
        let text = draft.read_text(&path)?.unwrap_or_default();
        let uuid = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("search.fs_uuid ")?.split_whitespace().next());
        if let Some(uuid) = uuid
            && devices.has_tag(&format!("UUID={uuid}")) == Some(false)
            && !devices.something_is_hidden()
        {
            draft.find(
                "linux-grub-uuid-unknown",
                format!("{path} searches the file system {uuid}, which is on none of the given disks."),
                "Check that every disk of the machine was given.",
            );
        }
        return Ok(());
    }
    if vendor.shim.is_none() {
        return Ok(());
    }
    let (at, prefix) = match guest.mounts.iter().any(|mount| mount.at == "/boot") {
        true => ("/boot", "/grub"),
        false => ("/", "/boot/grub"),
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
mod tests {
    use super::super::device::tests::{mount, volume};
    use super::*;
    use crate::family::Scene;
    use crate::guest::Fact;
    use crate::patch::PatchPlan;
    use crate::target::Platform;
    use crate::tree::mem::MemTree;

    fn run(tree: &MemTree, architecture: &str) -> PatchPlan {
        let volumes = [volume(0, 1, "vfat", "AB-CD"), volume(0, 2, "ext4", "r00t")];
        let mounts = [mount("/", &volumes[1], "UUID=r00t"), mount("/boot/efi", &volumes[0], "UUID=AB-CD")];
        let guest = Guest {
            family: "debian".into(),
            distribution: Fact::new("debian", ""),
            version: Fact::new("12", ""),
            name: Fact::new("", ""),
            architecture: Fact::new(architecture, ""),
            host_name: None,
            kernels: Vec::new(),
            mounts: mounts.to_vec(),
            init: None,
            boot_modes: vec![Fact::new("uefi", "")],
            interfaces: Vec::new(),
            agents: Vec::new(),
        };
        let scene = Scene { tree, volumes: &volumes, mounts: &mounts };
        let mut draft = Draft::new(&scene);
        let request = Request {
            platform: Platform::Kvm,
            firmware: Firmware::Uefi,
            nics: Vec::new(),
            network_map: None,
        };
        plan(&mut draft, &guest, &request).unwrap();
        draft.finish()
    }

    fn copies(plan: &PatchPlan) -> Vec<String> {
        plan.edits
            .iter()
            .map(|edit| match &edit.action {
                Action::Copy { from } => format!("{} <- {from}", edit.path),
                Action::Write { contents, .. } => format!("{} = {contents:?}", edit.path),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn shim_and_its_company_are_copied() {
        let tree = MemTree::new()
            .file("/boot/efi/EFI/debian/shimx64.efi", "s")
            .file("/boot/efi/EFI/debian/grubx64.efi", "g")
            .file("/boot/efi/EFI/debian/mmx64.efi", "m")
            .file("/boot/efi/EFI/debian/fbx64.efi", "f")
            .file("/boot/efi/EFI/debian/BOOTX64.CSV", "c");
        assert_eq!(
            copies(&run(&tree, "x86_64")),
            [
                "/boot/efi/EFI/debian/grub.cfg = \"search.fs_uuid r00t root\\nset prefix=($root)'/boot/grub'\\nconfigfile $prefix/grub.cfg\\n\"",
                "/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/debian/shimx64.efi",
                "/boot/efi/EFI/BOOT/grubx64.efi <- /boot/efi/EFI/debian/grubx64.efi",
                "/boot/efi/EFI/BOOT/mmx64.efi <- /boot/efi/EFI/debian/mmx64.efi",
                "/boot/efi/EFI/BOOT/fbx64.efi <- /boot/efi/EFI/debian/fbx64.efi",
            ]
        );
    }

    #[test]
    fn grub_alone_becomes_the_fallback() {
        let tree = MemTree::new().file("/boot/efi/EFI/debian/grubaa64.efi", "g");
        assert_eq!(
            copies(&run(&tree, "aarch64")),
            ["/boot/efi/EFI/BOOT/BOOTAA64.EFI <- /boot/efi/EFI/debian/grubaa64.efi"]
        );
    }

    #[test]
    fn what_is_there_in_any_case_is_kept() {
        let stub = "search.fs_uuid r00t root hd0,gpt2\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";
        let tree = MemTree::new()
            .file("/boot/efi/EFI/debian/shimx64.efi", "s")
            .file("/boot/efi/EFI/debian/grubx64.efi", "g")
            .file("/boot/efi/EFI/debian/grub.cfg", stub)
            .file("/boot/efi/EFI/boot/bootx64.efi", "something else");
        assert!(run(&tree, "x86_64").edits.is_empty());
        // A shim whose GRUB is missing gets it.
        let tree = tree.file("/boot/efi/EFI/boot/bootx64.efi", "s");
        assert_eq!(
            copies(&run(&tree, "x86_64")),
            ["/boot/efi/EFI/boot/grubx64.efi <- /boot/efi/EFI/debian/grubx64.efi"]
        );
    }

    #[test]
    fn an_empty_partition_blocks() {
        assert!(run(&MemTree::new().file("/boot/efi/EFI/x/y.efi", ""), "x86_64").is_blocked());
    }
}
