//! Guests of the family: golden plans, as an administrator would read them.

use super::*;
use crate::family::{Family, Scene};
use crate::linux::debian::tests::{Machine, request, show, usr_merged};
use crate::linux::device::tests::{mount, volume};
use crate::linux::redhat::tests::program;
use crate::target::Firmware;
use crate::tree::mem::MemTree;

/// Arch on ESXi: BIOS with GRUB, two kernels with a fallback image each, systemd-networkd, an old preset.
fn arch() -> Machine {
    let list = |names: &str| {
        names.split_whitespace().map(|name| format!("kernel/x/{name}.ko.zst:\n")).collect::<String>()
    };
    let modules = list(
        "virtio_pci virtio_blk virtio_scsi virtio_net sd_mod ahci ata_piix nvme vmw_pvscsi mptspi mptsas hv_vmbus hv_storvsc xen-blkfront",
    );
    let entry = |name: &str| {
        format!(
            "menuentry 'Arch Linux, with Linux {name}' --class arch {{\n\tsearch --no-floppy --fs-uuid --set=root r00t\n\tlinux\t/boot/vmlinuz-{name} root=/dev/sda1 rw  loglevel=3 quiet\n\tinitrd\t/boot/initramfs-{name}.img\n}}\n"
        )
    };
    let preset = |name: &str| {
        format!(
            "# mkinitcpio preset file for the '{name}' package\n\nALL_config=\"/etc/mkinitcpio.conf\"\nALL_kver=\"/boot/vmlinuz-{name}\"\n\nPRESETS=('default' 'fallback')\n\ndefault_image=\"/boot/initramfs-{name}.img\"\nfallback_image=\"/boot/initramfs-{name}-fallback.img\"\nfallback_options=\"-S autodetect\"\n"
        )
    };
    let tree = usr_merged().files(&[
        ("/usr/lib/os-release", "NAME=\"Arch Linux\"\nPRETTY_NAME=\"Arch Linux\"\nID=arch\nBUILD_ID=rolling\n"),
        ("/etc/arch-release", ""),
        ("/etc/hostname", "build01\n"),
        ("/etc/fstab", "# /dev/sda1\n/dev/sda1\t/\text4\trw,relatime\t0 1\n/dev/sda2\tnone\tswap\tdefaults\t0 0\n"),
        ("/etc/systemd/network/20-wired.network", "[Match]\nName=ens192\n\n[Network]\nAddress=10.1.2.30/24\nGateway=10.1.2.1\n"),
        ("/etc/mkinitcpio.conf", "# vim:set ft=sh\n# MODULES\n# MODULES=(usbhid xhci_hcd)\nMODULES=(vmw_pvscsi)\nBINARIES=()\nFILES=()\nHOOKS=(base udev autodetect microcode modconf kms keyboard keymap consolefont block filesystems fsck)\n"),
        ("/etc/mkinitcpio.d/linux.preset", &preset("linux")),
        ("/etc/mkinitcpio.d/linux-lts.preset", &preset("linux-lts")),
        ("/usr/bin/mkinitcpio", ""),
        ("/boot/grub/grub.cfg", &(entry("linux") + &entry("linux-lts"))),
        ("/boot/grub/i386-pc/core.img", ""),
        ("/etc/default/grub", "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"loglevel=3 quiet\"\n"),
        ("/boot/vmlinuz-linux", ""),
        ("/boot/vmlinuz-linux-lts", ""),
        ("/boot/initramfs-linux.img", ""),
        ("/boot/initramfs-linux-fallback.img", ""),
        ("/boot/initramfs-linux-lts.img", ""),
        ("/boot/initramfs-linux-lts-fallback.img", ""),
        ("/usr/lib/modules/6.11.5-arch1-1/pkgbase", "linux\n"),
        ("/usr/lib/modules/6.11.5-arch1-1/modules.dep", &modules),
        ("/usr/lib/modules/6.6.58-1-lts/pkgbase", "linux-lts\n"),
        ("/usr/lib/modules/6.6.58-1-lts/modules.dep", &modules),
        ("/usr/lib/modules/6.10.10-arch1-1/modules.dep", ""),
    ]);
    let tree = tree
        .symlink("/etc/os-release", "../usr/lib/os-release")
        .file("/usr/bin/sh", program())
        .dir("/var/lib/pacman/local/pacman-7.0.0.r3.g7736133-1")
        .dir("/var/lib/pacman/local/linux-6.11.5.arch1-1")
        .dir("/var/lib/pacman/local/qemu-guest-agent-9.1.1-1")
        .dir("/var/lib/pacman/local/open-vm-tools-6:12.5.0-1");
    let volumes = vec![volume(0, 1, "ext4", "r00t"), volume(0, 2, "swap", "5wap")];
    let mounts = vec![mount("/", &volumes[0], "/dev/sda1")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:30", "ens192")]) }
}

#[test]
fn arch_mkinitcpio_fallback_networkd() {
    let machine = arch();
    let (guest, plan) = machine.plan();
    assert!(!plan.is_blocked(), "{:#?}", plan.findings);
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn releases_are_recognised() {
    let known = |path: &str, text: &str| {
        let tree = MemTree::new().file(path, text);
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        Arch.recognise(&scene).unwrap().map(|guest| guest.distribution.value)
    };
    assert_eq!(known("/etc/os-release", "ID=arch\n").as_deref(), Some("arch"));
    assert_eq!(known("/etc/os-release", "ID=manjaro\nID_LIKE=arch\n").as_deref(), Some("manjaro"));
    assert_eq!(known("/etc/arch-release", "").as_deref(), Some("arch"));
    assert_eq!(known("/etc/os-release", "ID=alpine\n"), None);
}
