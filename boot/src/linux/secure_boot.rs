//! What a guest needs to start with UEFI secure boot enforced, as the source had it: a signed loader in the fallback place, a
//! signed kernel, and no modules that only the old machine trusted.
//!
//! Deliberately absent: whose signature it is. Firmware, shim and kernel check that; a signature by a distribution is valid
//! wherever Microsoft's UEFI CA is enrolled, one by a key of the machine's owner (MOK) only where that key is enrolled anew.

use super::draft::Draft;
use super::facts;
use super::lenient::Lenient;
use super::loader::{self, pe::Pe};
use crate::Result;
use crate::check::Finding;
use crate::family::Scene;
use crate::guest::{Guest, Kernel};
use crate::patch::{Action, PatchPlan};
use crate::tree::{GuestTree, GuestTreeExt};
use landfall_image::Bytes;

/// A kernel is 8 to 20 MiB long, a unified image 150.
const PROGRAM_AT_MOST: Bytes = Bytes::mib(512);

/// Folders below a kernel's modules in which DKMS and others put modules of their own.
const OWN_MODULES: &[&str] = &["updates/dkms", "updates", "extra", "weak-updates", "misc"];

/// What stands in the way.
///
/// # Errors
/// Where the tree cannot be read for reasons of the host's.
pub fn check(scene: &Scene<'_>, guest: &Guest, plan: &PatchPlan) -> Result<Vec<Finding>> {
    let lenient = Lenient::new(scene.tree);
    let tree: &dyn GuestTree = &lenient;
    let mut findings = Vec::new();
    if let Some(program) = loader(tree, scene, guest, plan)?
        && is_signed(tree, &program)? == Some(false)
    {
        findings.push(Finding::new(
            "linux-secure-boot-loader",
            format!("{program} is not signed, and the target enforces secure boot."),
            "Install the distribution's signed loader (shim-signed, grub-efi-amd64-signed) in the guest, or switch secure boot off in a copy of the machine's definition.",
        ));
    }
    if let Some(kernel) = starting(tree, scene, guest)?.and_then(|kernel| kernel.image.as_ref())
        && is_signed(tree, kernel)? == Some(false)
    {
        findings.push(Finding::new(
            "linux-secure-boot-kernel",
            format!("The kernel {kernel} is not signed, and the target enforces secure boot."),
            "Install the distribution's signed kernel in the guest, or switch secure boot off in a copy of the machine's definition.",
        ));
    }
    for kernel in &guest.kernels {
        let mut modules = Vec::new();
        for folder in OWN_MODULES {
            let names = tree.names(&format!("{}/{folder}", kernel.modules))?;
            modules.extend(names.into_iter().filter(|name| name.contains(".ko")));
        }
        modules.dedup();
        if !modules.is_empty() {
            modules.truncate(5);
            findings.push(Finding::new(
                "linux-secure-boot-modules",
                format!(
                    "Kernel {} has modules that were built on the machine ({}), and the target enforces secure boot.",
                    kernel.version,
                    modules.join(", ")
                ),
                "Enrol the machine owner's key again on the target (`mokutil --import`), if they are needed there.",
            ));
        }
    }
    Ok(findings)
}

/// The kernel that starts by default; the newest, where the loader's choice is not known.
fn starting<'g>(tree: &dyn GuestTree, scene: &Scene<'_>, guest: &'g Guest) -> Result<Option<&'g Kernel>> {
    let scene = Scene { tree, ..*scene };
    let copies = loader::Copies::read(tree, scene.mounts)?;
    let named = loader::default_kernel(&mut Draft::new(&scene), &copies)?;
    let named = named.and_then(|named| facts::named_kernel(&guest.kernels, &named));
    Ok(named.or(guest.kernels.first()))
}

/// The program that the firmware starts: the fallback, or what becomes it.
fn loader(
    tree: &dyn GuestTree,
    scene: &Scene<'_>,
    guest: &Guest,
    plan: &PatchPlan,
) -> Result<Option<String>> {
    let Some(esp) = facts::esp_folder(tree, scene.mounts)? else { return Ok(None) };
    let fallback = match guest.architecture.value.as_str() {
        "aarch64" => "BOOTAA64.EFI",
        _ => "BOOTX64.EFI",
    };
    if let Some(path) = facts::find_path(tree, &esp, &["EFI", "BOOT", fallback])? {
        let new = plan.edits.iter().find(|edit| edit.path == path).map(|edit| &edit.action);
        return Ok(Some(match new {
            Some(Action::Copy { from }) => from.clone(),
            _ => path,
        }));
    }
    Ok(guest.boot_modes.iter().find(|mode| mode.value == "uefi").map(|mode| mode.proof.clone()))
}

/// `None` where it is no EFI program.
fn is_signed(tree: &dyn GuestTree, path: &str) -> Result<Option<bool>> {
    let Some(bytes) = tree.read(path, PROGRAM_AT_MOST)? else { return Ok(None) };
    Ok(Pe::parse(&bytes).map(|program| program.is_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Fact;
    use crate::linux::loader::pe::tests::program;
    use crate::tree::mem::MemTree;

    fn run(tree: &MemTree) -> Vec<&'static str> {
        let guest = Guest {
            family: "debian".into(),
            distribution: Fact::new("debian", ""),
            version: Fact::new("12", ""),
            name: Fact::new("", ""),
            architecture: Fact::new("x86_64", ""),
            host_name: None,
            kernels: ["6.1", "6.0"]
                .map(|version| Kernel {
                    version: version.into(),
                    image: Some(format!("/boot/vmlinuz-{version}")),
                    initramfs: None,
                    more_initramfs: Vec::new(),
                    modules: format!("/lib/modules/{version}"),
                })
                .to_vec(),
            mounts: Vec::new(),
            init: None,
            boot_modes: vec![Fact::new("uefi", "/boot/efi/EFI/debian/shimx64.efi")],
            interfaces: Vec::new(),
            agents: Vec::new(),
            windows: None,
        };
        let scene = Scene { tree, volumes: &[], mounts: &[] };
        check(&scene, &guest, &PatchPlan::default()).unwrap().iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn loader_kernel_and_modules() {
        let (signed, plain) = (program(&[(".text", b"x")], true), program(&[(".text", b"x")], false));
        let tree = MemTree::new()
            .file("/boot/efi/EFI/debian/shimx64.efi", &signed)
            .file("/boot/vmlinuz-6.1", &signed)
            .file("/lib/modules/6.1/kernel/a.ko", "");
        assert!(run(&tree).is_empty());
        // The newest is not the one that starts.
        let other = tree.clone().file("/boot/vmlinuz-6.0", &plain).file(
            "/boot/grub/grub.cfg",
            "menuentry x {\n linux /boot/vmlinuz-6.0 root=UUID=1\n initrd /i\n}\n",
        );
        assert_eq!(run(&other), ["linux-secure-boot-kernel"]);
        let tree = tree
            .file("/boot/efi/EFI/boot/bootx64.efi", &plain)
            .file("/boot/vmlinuz-6.1", &plain)
            .file("/lib/modules/6.1/updates/dkms/zfs.ko.xz", "");
        assert_eq!(
            run(&tree),
            ["linux-secure-boot-loader", "linux-secure-boot-kernel", "linux-secure-boot-modules"]
        );
    }
}
