//! Guests of the family: golden plans, as an administrator would read them.

use super::*;
use crate::family::{Family, Scene};
use crate::linux::debian::tests::{Machine, request, show};
use crate::linux::device::tests::{mount, volume};
use crate::target::Firmware;
use crate::tree::mem::MemTree;

/// Alpine 3.20 on ESXi as setup-alpine leaves it, with the kernel for hardware: extlinux, ext4, a data disk by name.
fn alpine_3_20() -> Machine {
    let version = "6.6.58-0-lts";
    let modules = "kernel/drivers/virtio/virtio_pci.ko.gz: kernel/drivers/virtio/virtio.ko.gz\nkernel/drivers/virtio/virtio.ko.gz:\nkernel/drivers/block/virtio_blk.ko.gz: kernel/drivers/virtio/virtio.ko.gz\nkernel/drivers/net/virtio_net.ko.gz:\nkernel/drivers/scsi/virtio_scsi.ko.gz:\nkernel/drivers/scsi/sd_mod.ko.gz:\nkernel/drivers/scsi/vmw_pvscsi.ko.gz:\nkernel/drivers/ata/ahci.ko.gz:\nkernel/drivers/nvme/host/nvme.ko.gz:\nkernel/drivers/hv/hv_vmbus.ko.gz:\nkernel/drivers/scsi/hv_storvsc.ko.gz:\nkernel/drivers/block/xen-blkfront.ko.gz:\n";
    let tree = MemTree::new().files(&[
        ("/etc/os-release", "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME=\"Alpine Linux v3.20\"\n"),
        ("/etc/alpine-release", "3.20.3\n"),
        ("/etc/hostname", "edge01\n"),
        ("/etc/fstab", "UUID=r00t\t/\text4\trw,relatime 0 1\nUUID=b00t\t/boot\text4\trw,relatime 0 2\n/dev/sda2\tswap\tswap\tdefaults\t0 0\n/dev/sdb1\t/srv\text4\tdefaults 0 2\n/dev/cdrom\t/media/cdrom\tiso9660\tnoauto,ro 0 0\n"),
        ("/etc/network/interfaces", "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n\taddress 10.1.2.20/24\n\tgateway 10.1.2.1\n"),
        ("/lib/apk/db/installed", "P:apk-tools\nV:2.14.4-r0\nA:x86_64\n\nP:linux-lts\nV:6.6.58-r0\nA:x86_64\n\nP:mkinitfs\nV:3.10.1-r0\nA:x86_64\n\nP:open-vm-tools\nV:12.4.0-r0\nA:x86_64\n"),
        ("/etc/mkinitfs/mkinitfs.conf", "features=\"ata base cdrom ext4 keymap kms mmc nvme raid scsi usb virtio\"\n"),
        ("/sbin/mkinitfs", ""),
        ("/sbin/openrc-run", ""),
        ("/boot/vmlinuz-lts", ""),
        ("/boot/initramfs-lts", ""),
        ("/usr/share/kernel/lts/kernel.release", &format!("{version}\n")),
        (&format!("/lib/modules/{version}/modules.dep"), modules),
        (&format!("/lib/modules/{version}/modules.builtin"), "kernel/drivers/ata/ata_piix.ko\n"),
        ("/boot/extlinux.conf", "DEFAULT menu.c32\nPROMPT 0\nTIMEOUT 10\n\nLABEL lts\n  MENU DEFAULT\n  MENU LABEL Linux lts\n  LINUX vmlinuz-lts\n  INITRD initramfs-lts\n  APPEND root=UUID=r00t modules=sd-mod,usb-storage,ext4 quiet rootfstype=ext4\n"),
        ("/etc/update-extlinux.conf", "overwrite=1\nroot=UUID=r00t\nmodules=sd-mod,usb-storage,ext4\ndefault=lts\n"),
    ]);
    let tree = tree.symlink("/sbin/init", "/bin/busybox").dir("/etc/mkinitfs/features.d");
    let volumes = vec![
        volume(0, 1, "ext4", "b00t"),
        volume(0, 2, "swap", "5wap"),
        volume(0, 3, "ext4", "r00t"),
        volume(1, 1, "ext4", "5a5a"),
    ];
    let mounts = vec![
        mount("/", &volumes[2], "UUID=r00t"),
        mount("/boot", &volumes[0], "UUID=b00t"),
        mount("/srv", &volumes[3], "/dev/sdb1"),
    ];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:20", "")]) }
}

#[test]
fn alpine_3_20_extlinux() {
    let machine = alpine_3_20();
    let (guest, plan) = machine.plan();
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn releases_are_recognised() {
    let known = |path: &str, text: &str| {
        let tree = MemTree::new().file(path, text);
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let guest = Alpine.recognise(&scene).unwrap()?;
        Some((guest.distribution.value, guest.version.value))
    };
    assert_eq!(
        known("/etc/os-release", "ID=alpine\nVERSION_ID=3.20.3\n"),
        Some(("alpine".into(), "3.20.3".into()))
    );
    assert_eq!(known("/etc/alpine-release", "2.1.6\n"), Some(("alpine".into(), "2.1.6".into())));
    assert_eq!(known("/etc/os-release", "ID=arch\n"), None);
}
