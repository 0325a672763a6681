//! Guests of the family: golden plans, as an administrator would read them.

use super::*;
use crate::family::{Family, Scene};
use crate::linux::debian::tests::{Machine, request, show};
use crate::linux::device::tests::{mount, volume};
use crate::linux::redhat::tests::{kernel, program};
use crate::target::Firmware;
use crate::tree::mem::MemTree;

const MODULES: &str = "virtio_scsi virtio_net sd_mod ahci ata_piix nvme vmw_pvscsi mptspi mptsas hv_vmbus hv_storvsc xen-blkfront vmxnet3 e1000e";

/// SLES 15 on ESXi: BIOS, btrfs with subvolumes, wicked, dracut, a LVM filter, multipathd enabled without a file of its
/// own, smartd, and swap by the old disk's id.
fn sles_15() -> Machine {
    let (new, old) = ("6.4.0-150600.23.22-default", "6.4.0-150600.21-default");
    let entry = |version: &str| {
        format!(
            "menuentry 'SLES 15-SP6, with Linux {version}' --class sles {{\n\tset root='hd0,msdos2'\n\tsearch --no-floppy --fs-uuid --set=root r00t\n\tlinux /boot/vmlinuz-{version} root=UUID=r00t ${{extra_cmdline}} splash=silent resume=/dev/disk/by-id/scsi-36000c29f0a1b2c3d4e5f60718293a4b5-part1 mitigations=auto quiet\n\tinitrd /boot/initrd-{version}\n}}\n"
        )
    };
    let tree = MemTree::new().files(&[
        ("/usr/lib/os-release", "NAME=\"SLES\"\nVERSION=\"15-SP6\"\nVERSION_ID=\"15.6\"\nPRETTY_NAME=\"SUSE Linux Enterprise Server 15 SP6\"\nID=\"sles\"\nID_LIKE=\"suse\"\n"),
        ("/etc/hostname", "app01\n"),
        ("/etc/fstab", "UUID=r00t  /                       btrfs  defaults                      0  0\nUUID=r00t  /var                    btrfs  subvol=/@/var                 0  0\nUUID=r00t  /.snapshots             btrfs  subvol=/@/.snapshots          0  0\n/dev/disk/by-id/scsi-36000c29f0a1b2c3d4e5f60718293a4b5-part1  swap  swap  defaults  0  0\n"),
        ("/etc/sysconfig/network/ifcfg-eth0", "BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='10.1.2.15/24'\n"),
        ("/etc/udev/rules.d/70-persistent-net.rules", "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:aa:bb:15\", ATTR{dev_id}==\"0x0\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n"),
        ("/etc/default/grub", "GRUB_DEFAULT=saved\nGRUB_CMDLINE_LINUX_DEFAULT=\"splash=silent resume=/dev/disk/by-id/scsi-36000c29f0a1b2c3d4e5f60718293a4b5-part1 mitigations=auto quiet\"\nSUSE_BTRFS_SNAPSHOT_BOOTING=\"true\"\n"),
        ("/boot/grub2/grub.cfg", &(entry(new) + &entry(old))),
        ("/boot/grub2/device.map", "(hd0)\t/dev/disk/by-id/scsi-36000c29f0a1b2c3d4e5f60718293a4b5\n"),
        ("/boot/grub2/i386-pc/core.img", ""),
        ("/usr/bin/dracut", ""),
        ("/sbin/mkinitrd", "#!/bin/bash\n# a wrapper around dracut\n"),
        ("/usr/lib/systemd/systemd", ""),
        ("/sbin/multipathd", ""),
        ("/usr/lib/systemd/system/multipathd.service", "[Unit]\nDescription=Device-Mapper Multipath Device Controller\n"),
        ("/etc/lvm/lvm.conf", "devices {\n\tfilter = [ \"a|/dev/disk/by-id/.*|\", \"r|.*|\" ]\n}\n"),
        (&format!("/boot/initrd-{new}-kdump"), ""),
        (&format!("/boot/vmlinux-{new}.gz"), ""),
        ("/usr/bin/vmtoolsd", ""),
        ("/usr/lib/systemd/system/vmtoolsd.service", "[Unit]\nConditionVirtualization=vmware\n"),
    ]);
    let tree = tree
        .symlink("/etc/os-release", "../usr/lib/os-release")
        .symlink("/sbin/init", "../usr/lib/systemd/systemd")
        .symlink("/boot/vmlinuz", &format!("vmlinuz-{new}"))
        .symlink("/boot/initrd", &format!("initrd-{new}"))
        .symlink(
            "/etc/systemd/system/sysinit.target.wants/multipathd.service",
            "/usr/lib/systemd/system/multipathd.service",
        )
        .file("/bin/sh", program())
        .dir("/etc/dracut.conf.d");
    let builtin = "virtio_pci virtio_blk";
    let tree = kernel(tree, new, &format!("/boot/initrd-{new}"), "/lib/modules", MODULES, builtin);
    let tree = kernel(tree, old, &format!("/boot/initrd-{old}"), "/lib/modules", MODULES, builtin);
    let volumes = vec![volume(0, 1, "swap", "5wap"), volume(0, 2, "btrfs", "r00t")];
    let mounts = vec![mount("/", &volumes[1], "UUID=r00t")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:15", "")]) }
}

/// SLES 11: mkinitrd with INITRD_MODULES, GRUB legacy, everything by the id of the old disk.
fn sles_11() -> Machine {
    let version = "3.0.101-108.144-default";
    let disk = "/dev/disk/by-id/scsi-36000c29f0a1b2c3d4e5f60718293a4b5";
    let tree = MemTree::new().files(&[
        ("/etc/SuSE-release", "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n"),
        ("/etc/HOSTNAME", "old02.example.com\n"),
        ("/etc/fstab", &format!("{disk}-part1 swap                 swap       defaults              0 0\n{disk}-part2 /                    ext3       acl,user_xattr        1 1\nproc                 /proc                proc       defaults              0 0\n")),
        ("/etc/sysconfig/kernel", "## Path: System/Kernel\n## Type: string\n## ServiceRestart: mkinitrd\n#\n# This variable contains the list of modules to be added to the initial\n# ramdisk by calling the script \"mkinitrd\"\n#\nINITRD_MODULES=\"mptspi ata_piix processor thermal fan jbd ext3 edd\"\nDOMU_INITRD_MODULES=\"xennet xenblk\"\n"),
        ("/etc/sysconfig/network/ifcfg-eth0", "BOOTPROTO='static'\nIPADDR='10.1.2.11/24'\nSTARTMODE='auto'\n"),
        ("/etc/udev/rules.d/70-persistent-net.rules", "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:aa:bb:11\", ATTR{dev_id}==\"0x0\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n"),
        ("/boot/grub/menu.lst", &format!("default 0\ntimeout 8\ngfxmenu (hd0,1)/boot/message\n\ntitle SUSE Linux Enterprise Server 11 SP4 - {version}\n    root (hd0,1)\n    kernel /boot/vmlinuz-{version} root={disk}-part2 resume={disk}-part1 splash=silent showopts\n    initrd /boot/initrd-{version}\n")),
        ("/boot/grub/device.map", &format!("(hd0)\t{disk}\n")),
        ("/boot/grub/stage2", ""),
        ("/etc/inittab", "id:3:initdefault:\n"),
        ("/sbin/mkinitrd", ""),
    ]);
    let tree = tree.file("/bin/sh", program());
    let modules = "virtio_pci virtio_blk virtio_net sd_mod ahci ata_piix mptspi mptsas vmw_pvscsi hv_vmbus hv_storvsc e1000 e1000e";
    let tree = kernel(tree, version, &format!("/boot/initrd-{version}"), "/lib/modules", modules, "");
    let volumes = vec![volume(0, 1, "swap", "5wap"), volume(0, 2, "ext3", "r00t")];
    let mounts = vec![mount("/", &volumes[1], &format!("{disk}-part2"))];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:11", "")]) }
}

#[test]
fn sles_15_btrfs_wicked_multipath() {
    let machine = sles_15();
    let (guest, plan) = machine.plan();
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn sles_11_mkinitrd() {
    let machine = sles_11();
    let (guest, plan) = machine.plan();
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn every_release_is_recognised() {
    let known = |tree: MemTree| {
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let guest = Suse.recognise(&scene).unwrap()?;
        Some((guest.distribution.value, guest.version.value))
    };
    let is = |id: &str, version: &str| Some((id.to_owned(), version.to_owned()));
    for (text, expected) in [
        ("ID=\"sles\"\nVERSION_ID=\"12.5\"\n", is("sles", "12.5")),
        ("ID=\"sles_sap\"\nVERSION_ID=\"12.5\"\n", is("sles_sap", "12.5")),
        (
            "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\nVERSION_ID=\"15.6\"\n",
            is("opensuse-leap", "15.6"),
        ),
        (
            "ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\nVERSION_ID=\"20241101\"\n",
            is("opensuse-tumbleweed", "20241101"),
        ),
        ("ID=fedora\n", None),
    ] {
        assert_eq!(known(MemTree::new().file("/etc/os-release", text)), expected, "{text}");
    }
    for (text, expected) in [
        ("SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 3\n", is("sles", "11.3")),
        ("SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 0\n", is("sles", "11")),
        ("SUSE Linux Enterprise Desktop 11 (x86_64)\nVERSION = 11\n", is("sled", "11")),
        ("openSUSE 11.4 (x86_64)\nVERSION = 11.4\nCODENAME = Celadon\n", is("opensuse", "11.4")),
    ] {
        assert_eq!(known(MemTree::new().file("/etc/SuSE-release", text)), expected, "{text}");
    }
}
