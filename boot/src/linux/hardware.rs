//! Which of the target's devices each kernel can drive, and which of them the machine's definition has to offer: those
//! of the kernel that starts by default. A kernel without the driver of the preferred device gets the next best one.

use super::draft::Draft;
use super::facts::Modules;
use super::text;
use crate::Result;
use crate::guest::Kernel;
use crate::target::{Card, DiskWay, Platform, Request};

/// What one kernel can drive of what the target offers, the best first.
struct Able {
    disks: Vec<&'static DiskWay>,
    cards: Vec<&'static Card>,
}

impl Able {
    fn of(kernel: &Kernel, modules: &Modules, request: &Request) -> Able {
        let row = request.platform.linux_drivers();
        // Without an initramfs only what is built in helps to find the root.
        let finds_root = |name: &str| match kernel.initramfs {
            Some(_) => modules.has(name),
            None => modules.builtin.contains(name),
        };
        Able {
            disks: row
                .disks_for(request.firmware)
                .filter(|way| way.drivers.iter().all(|name| finds_root(name)))
                .collect(),
            cards: row.cards_for(request.firmware).filter(|card| modules.has(card.driver)).collect(),
        }
    }
}

/// The kernel that starts by default: its devices become the machine's.
pub fn of_default(draft: &mut Draft<'_>, kernel: &Kernel, modules: Option<&Modules>, request: &Request) {
    let Some(modules) = modules else { return unchecked(draft, kernel, "linux-default-kernel-unchecked") };
    let able = Able::of(kernel, modules, request);
    let row = request.platform.linux_drivers();
    let (version, platform) = (&kernel.version, request.platform.name());
    draft.devices.disks = able.disks.iter().map(|way| way.model).collect();
    draft.devices.cards = able.cards.iter().map(|card| card.model).collect();
    let wanted: Vec<&DiskWay> = row.disks_for(request.firmware).collect();
    match (able.disks.first(), wanted.first()) {
        (None, _) => {
            let (id, lacks) = match kernel.initramfs {
                Some(_) => ("linux-kernel-no-disk-driver", "lacks the drivers"),
                None => ("linux-kernel-without-initramfs", "has no initramfs and lacks built-in drivers"),
            };
            draft.find(
                id,
                format!(
                    "Kernel {version} {lacks} for every kind of disk that {platform} offers ({}).",
                    names(&wanted)
                ),
                "Install the distribution's standard kernel in the guest before the move.",
            );
        }
        (Some(chosen), Some(wanted)) if chosen.model != wanted.model => {
            let (chosen, wanted) = (chosen.model.name(), wanted.model.name());
            draft.find(
                "linux-kernel-other-bus",
                format!("Kernel {version} lacks the driver for {wanted}: the machine's disks are attached by {chosen}."),
                format!("Keep {chosen} at the target, or install the distribution's standard kernel for {wanted}."),
            );
        }
        _ => {}
    }
    let preferred = row.cards_for(request.firmware).next();
    match (able.cards.first(), preferred) {
        (None, Some(wanted)) => no_card(draft, kernel, wanted),
        (Some(chosen), Some(wanted)) if chosen.model != wanted.model => {
            let (chosen, wanted) = (chosen.model.name(), wanted.model.name());
            draft.find(
                "linux-kernel-other-nic",
                format!("Kernel {version} lacks the driver for {wanted}: the machine gets cards of the type {chosen}."),
                format!("Keep {chosen} at the target, or install the distribution's standard kernel for {wanted}."),
            );
        }
        _ => {}
    }
}

/// Every other kernel is measured by the devices that the default one chose.
pub fn of_other(draft: &mut Draft<'_>, kernel: &Kernel, modules: Option<&Modules>, request: &Request) {
    let Some(modules) = modules else { return unchecked(draft, kernel, "linux-kernel-unchecked") };
    let able = Able::of(kernel, modules, request);
    let row = request.platform.linux_drivers();
    let chosen = draft.devices.disks.first().copied();
    let chosen = chosen.or(row.disks_for(request.firmware).next().map(|way| way.model));
    if let Some(chosen) = chosen.filter(|model| able.disks.iter().all(|way| way.model != *model)) {
        draft.find(
            "linux-old-kernel-no-disk-driver",
            format!(
                "Kernel {}, which is not the default, {} for {}, by which the machine's disks are attached.",
                kernel.version,
                if kernel.initramfs.is_some() { "lacks the drivers" } else { "has no built-in drivers" },
                chosen.name()
            ),
            match able.disks.first() {
                Some(way) => {
                    format!("Attach its disks by {} if it has to be started.", way.model.name())
                }
                None => "Remove it in the guest, or start another one.".to_owned(),
            },
        );
    }
    let card = draft.devices.cards.first().copied();
    let card = row.cards_for(request.firmware).find(|row| card.is_none_or(|card| card == row.model));
    if let Some(card) = card.filter(|card| able.cards.iter().all(|able| able.model != card.model)) {
        no_card(draft, kernel, card);
    }
}

fn names(ways: &[&DiskWay]) -> String {
    ways.iter().map(|way| way.model.name()).collect::<Vec<_>>().join(", ")
}

fn no_card(draft: &mut Draft<'_>, kernel: &Kernel, card: &Card) {
    draft.find(
        "linux-kernel-no-nic-driver",
        format!(
            "Kernel {} lacks the driver {} for the machine's network card ({}).",
            kernel.version,
            card.driver,
            card.model.name()
        ),
        "Install the distribution's standard kernel in the guest before the move.",
    );
}

fn unchecked(draft: &mut Draft<'_>, kernel: &Kernel, id: &'static str) {
    draft.find(
        id,
        format!(
            "Kernel {} has no {}/modules.dep, so its drivers could not be checked.",
            kernel.version, kernel.modules
        ),
        format!(
            "Reinstall its package in the guest or make another kernel the default; of one without modules, put its configuration in /boot/config-{}.",
            kernel.version
        ),
    );
}

/// Options of kernels that run on Xen's paravirtual machines and nowhere else: RHEL 5's `xen`, SUSE's `xen` up to SLES 12.
/// What came later (`CONFIG_XEN`) runs on both.
const XEN_ONLY: &[&[u8]] = &[b"CONFIG_X86_XEN=y", b"CONFIG_X86_64_XEN=y"];

/// True for a kernel that does not start on the target's machines, whatever drivers it has.
pub fn is_for_xen_only(
    draft: &mut Draft<'_>,
    kernel: &Kernel,
    request: &Request,
    is_default: bool,
) -> Result<bool> {
    let config = draft.read(&configuration(kernel))?.unwrap_or_default();
    let is = request.platform != Platform::Xen
        && text::lines(&config).any(|(body, _)| XEN_ONLY.contains(&body.trim_ascii()));
    if is {
        let version = &kernel.version;
        let platform = request.platform.name();
        draft.find(
            if is_default { "linux-kernel-xen-only" } else { "linux-old-kernel-xen-only" },
            format!("Kernel {version} runs on Xen's paravirtual machines only ({}), not on {platform}.", configuration(kernel)),
            match is_default {
                true => "Install the distribution's standard kernel in the guest and make it the default of the boot loader, then convert again.",
                false => "Do not start it on the target; remove it when the machine will not move back.",
            },
        );
    }
    Ok(is)
}

fn configuration(kernel: &Kernel) -> String {
    format!("/boot/config-{}", kernel.version)
}

/// What the drivers of [`crate::target`] are called in a kernel's configuration.
const OPTIONS: &[(&str, &str)] = &[
    ("8139cp", "CONFIG_8139CP"),
    ("ahci", "CONFIG_SATA_AHCI"),
    ("ata_piix", "CONFIG_ATA_PIIX"),
    ("e1000", "CONFIG_E1000"),
    ("e1000e", "CONFIG_E1000E"),
    ("hv_netvsc", "CONFIG_HYPERV_NET"),
    ("hv_storvsc", "CONFIG_HYPERV_STORAGE"),
    ("hv_vmbus", "CONFIG_HYPERV"),
    ("mptsas", "CONFIG_FUSION_SAS"),
    ("mptspi", "CONFIG_FUSION_SPI"),
    ("nvme", "CONFIG_BLK_DEV_NVME"),
    ("sd_mod", "CONFIG_BLK_DEV_SD"),
    ("virtio_blk", "CONFIG_VIRTIO_BLK"),
    ("virtio_net", "CONFIG_VIRTIO_NET"),
    ("virtio_pci", "CONFIG_VIRTIO_PCI"),
    ("virtio_scsi", "CONFIG_SCSI_VIRTIO"),
    ("vmw_pvscsi", "CONFIG_VMWARE_PVSCSI"),
    ("vmxnet3", "CONFIG_VMXNET3"),
    ("xen_blkfront", "CONFIG_XEN_BLKDEV_FRONTEND"),
    ("xen_netfront", "CONFIG_XEN_NETDEV_FRONTEND"),
];

/// A kernel that was built without modules has no lists, but may have its configuration.
pub fn without_modules(draft: &mut Draft<'_>, kernel: &Kernel) -> Result<Option<Modules>> {
    let config = draft.read(&configuration(kernel))?.unwrap_or_default();
    let is = text::lines(&config).any(|(body, _)| body.trim_ascii() == b"# CONFIG_MODULES is not set");
    Ok(is.then(Modules::default))
}

/// Kernels before 2.6.33 have no list of what is built in; their configuration says it.
pub fn builtin_by_configuration(draft: &mut Draft<'_>, kernel: &Kernel, modules: &mut Modules) -> Result<()> {
    if !modules.builtin.is_empty() {
        return Ok(());
    }
    let config = draft.read(&configuration(kernel))?.unwrap_or_default();
    for (body, _) in text::lines(&config) {
        let option = body.strip_suffix(b"=y").and_then(|name| std::str::from_utf8(name).ok());
        for (module, _) in OPTIONS.iter().filter(|(_, name)| Some(*name) == option) {
            modules.builtin.insert((*module).to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Scene;
    use crate::patch::PatchPlan;
    use crate::target::{DiskModel, Firmware, NicModel};
    use crate::tree::mem::MemTree;

    fn kernel(version: &str) -> Kernel {
        Kernel {
            version: version.into(),
            image: None,
            initramfs: Some(format!("/boot/initrd.img-{version}")),
            more_initramfs: Vec::new(),
            modules: format!("/lib/modules/{version}"),
        }
    }

    fn modules(loadable: &str, builtin: &str) -> Modules {
        let set = |names: &str| names.split_whitespace().map(str::to_owned).collect();
        Modules { loadable: set(loadable), builtin: set(builtin) }
    }

    fn chosen(platform: Platform, firmware: Firmware, loadable: &str) -> PatchPlan {
        let tree = MemTree::new();
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let request = Request { platform, firmware, ..Request::default() };
        of_default(&mut draft, &kernel("6"), Some(&modules(loadable, "sd_mod")), &request);
        draft.finish()
    }

    /// What is chosen where less and less is there.
    #[test]
    fn the_best_that_the_kernel_can_drive_is_chosen() {
        use DiskModel as D;
        use NicModel as N;
        let (bios, uefi) = (Firmware::Bios, Firmware::Uefi);
        for (platform, firmware, has, disk, card, ids) in [
            (Platform::Kvm, bios, "virtio_pci virtio_blk virtio_net", D::VirtioBlk, N::VirtioNet, ""),
            (Platform::Kvm, bios, "virtio_pci virtio_scsi virtio_net", D::VirtioScsi, N::VirtioNet, "bus"),
            (Platform::Kvm, bios, "ahci ata_piix e1000e e1000", D::Sata, N::E1000e, "bus nic"),
            (Platform::Kvm, bios, "ata_piix e1000", D::Ide, N::E1000, "bus nic"),
            (
                Platform::Ahv,
                bios,
                "virtio_pci virtio_blk virtio_scsi virtio_net",
                D::VirtioScsi,
                N::VirtioNet,
                "",
            ),
            (Platform::Esxi, bios, "vmw_pvscsi mptsas vmxnet3", D::Pvscsi, N::Vmxnet3, ""),
            (Platform::Esxi, bios, "mptspi mptsas ahci e1000 e1000e", D::Lsi, N::E1000e, "bus nic"),
            (Platform::Esxi, bios, "mptspi ahci e1000", D::LsiParallel, N::E1000, "bus nic"),
            (Platform::Esxi, uefi, "nvme ahci vmxnet3", D::Nvme, N::Vmxnet3, "bus"),
            (Platform::Esxi, uefi, "ahci vmxnet3", D::Sata, N::Vmxnet3, "bus"),
            (Platform::Hyperv, uefi, "hv_vmbus hv_storvsc hv_netvsc", D::Vmbus, N::Netvsc, ""),
            (Platform::Hyperv, bios, "ata_piix tulip", D::Ide, N::Tulip, "bus nic"),
            (Platform::Azure, uefi, "hv_vmbus pci_hyperv nvme hv_netvsc", D::Nvme, N::Netvsc, "bus"),
            (Platform::Xen, bios, "xen_blkfront xen_netfront", D::Xen, N::Xen, ""),
            (Platform::Xen, bios, "ata_piix 8139cp", D::Ide, N::Rtl8139, "bus nic"),
        ] {
            let plan = chosen(platform, firmware, has);
            assert_eq!(plan.devices.disks.first(), Some(&disk), "{platform:?} {has}");
            assert_eq!(plan.devices.cards.first(), Some(&card), "{platform:?} {has}");
            let found: Vec<_> =
                plan.findings.iter().map(|finding| finding.id.rsplit('-').next().unwrap()).collect();
            assert_eq!(found.join(" "), ids, "{platform:?} {has}");
            assert!(!plan.is_blocked());
        }
    }

    #[test]
    fn where_nothing_fits_it_blocks() {
        for (platform, firmware, has, card) in [
            (Platform::Kvm, Firmware::Bios, "vmw_pvscsi vmxnet3", "virtio_net"),
            // Generation 2 has no IDE.
            (Platform::Hyperv, Firmware::Uefi, "ata_piix tulip", "hv_netvsc"),
        ] {
            let plan = chosen(platform, firmware, has);
            assert_eq!(plan.findings[0].id, "linux-kernel-no-disk-driver");
            assert!(plan.is_blocked() && plan.devices.disks.is_empty());
            assert_eq!(plan.findings[1].id, "linux-kernel-no-nic-driver");
            assert!(plan.findings[1].says.contains(card), "{}", plan.findings[1].says);
        }
    }

    #[test]
    fn other_kernels_are_measured_by_what_was_chosen() {
        let tree = MemTree::new();
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let request = Request::default();
        of_default(&mut draft, &kernel("6"), Some(&modules("ahci e1000e", "sd_mod")), &request);
        of_other(&mut draft, &kernel("5"), Some(&modules("ahci e1000e", "sd_mod")), &request);
        of_other(&mut draft, &kernel("4"), Some(&modules("virtio_pci virtio_blk e1000", "sd_mod")), &request);
        let plan = draft.finish();
        let about_4: Vec<_> =
            plan.findings.iter().filter(|finding| finding.says.contains("Kernel 4")).map(|f| f.id).collect();
        assert_eq!(about_4, ["linux-old-kernel-no-disk-driver", "linux-kernel-no-nic-driver"]);
        assert!(!plan.findings.iter().any(|finding| finding.says.contains("Kernel 5")));
    }

    #[test]
    fn old_kernels_say_in_their_configuration_what_is_built_in() {
        let tree = MemTree::new().file(
            "/boot/config-2.6.32-38",
            "# CONFIG_SATA_AHCI=y\nCONFIG_ATA_PIIX=y\nCONFIG_BLK_DEV_SD=y\nCONFIG_E1000=m\n",
        );
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let mut known = modules("e1000", "");
        builtin_by_configuration(&mut draft, &kernel("2.6.32-38"), &mut known).unwrap();
        assert_eq!(known, modules("e1000", "ata_piix sd_mod"));
        let mut listed = modules("", "loop");
        builtin_by_configuration(&mut draft, &kernel("2.6.32-38"), &mut listed).unwrap();
        assert_eq!(listed, modules("", "loop"), "a list counts for itself");
    }
}
