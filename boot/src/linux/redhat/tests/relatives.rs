//! Relatives and releases that boot or find their network otherwise than RHEL 9: Fedora, Amazon Linux, RHEL 8 and 6.

use super::*;

const FEDORA: &str = "Fedora Linux 41 (Server Edition)";

/// SELinux as Red Hat's installer leaves it.
fn with_selinux(tree: MemTree) -> MemTree {
    tree.file("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
        .file("/etc/selinux/targeted/contexts/files/file_contexts", POLICY)
        .dir("/etc/dracut.conf.d")
        .dir("/etc/udev/rules.d")
}

/// GRUB's environment block.
fn grubenv(variables: &str) -> String {
    format!("{:#<1024}", format!("# GRUB Environment Block\n{variables}"))
}

/// Fedora 41 on ESXi: UEFI, subvolumes of one btrfs, BLS, keyfiles, systemd-resolved, zram; a data disk by name.
fn fedora_41() -> Machine {
    let id = "0649288e52434223afde4c36460a375e";
    let (new, old) = ("6.11.9-300.fc41.x86_64", "6.11.4-301.fc41.x86_64");
    let entry = |version: &str| {
        format!(
            "title Fedora Linux ({version}) 41 (Server Edition)\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /initramfs-{version}.img $tuned_initrd\noptions root=UUID=b7f5 ro rootflags=subvol=root rhgb quiet $tuned_params\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n"
        )
    };
    let tree = usr_merged().files(&[
        ("/usr/lib/os-release", &format!("NAME=\"Fedora Linux\"\nVERSION=\"41 (Server Edition)\"\nID=fedora\nVERSION_ID=41\nPLATFORM_ID=\"platform:f41\"\nPRETTY_NAME=\"{FEDORA}\"\n")),
        ("/etc/hostname", "fedora01\n"),
        ("/etc/fstab", "#\n# /etc/fstab\n# Created by anaconda on Tue Nov 19 10:11:12 2024\n#\nUUID=b7f5 /                       btrfs   subvol=root,compress=zstd:1 0 0\nUUID=b007 /boot                   ext4    defaults        1 2\nUUID=AB-CD          /boot/efi               vfat    umask=0077,shortname=winnt 0 2\nUUID=b7f5 /home                   btrfs   subvol=home,compress=zstd:1 0 0\n/dev/sdb1 /srv                    ext4    defaults        1 2\n"),
        ("/usr/lib/systemd/zram-generator.conf", "[zram0]\nzram-size = min(ram, 8192)\n"),
        ("/etc/NetworkManager/system-connections/ens192.nmconnection", "[connection]\nid=ens192\nuuid=0a1f3d5b-6c7e-3f10-9d3a-5e7a1d3bfd9f\ntype=ethernet\ninterface-name=ens192\n\n[ipv4]\naddress1=10.1.2.41/24,10.1.2.1\ndns=10.1.2.2;\nmethod=manual\n\n[ipv6]\naddr-gen-mode=eui64\nmethod=auto\n"),
        ("/etc/default/grub", "GRUB_TIMEOUT=5\nGRUB_DEFAULT=saved\nGRUB_DISABLE_SUBMENU=true\nGRUB_TERMINAL_OUTPUT=\"console\"\nGRUB_CMDLINE_LINUX=\"rhgb quiet\"\nGRUB_DISABLE_RECOVERY=\"true\"\nGRUB_ENABLE_BLSCFG=true\n"),
        (&format!("/boot/loader/entries/{id}-{new}.conf"), &entry(new)),
        (&format!("/boot/loader/entries/{id}-{old}.conf"), &entry(old)),
        (&format!("/boot/loader/entries/{id}-0-rescue.conf"), &format!("title Fedora Linux (0-rescue-{id}) 41 (Server Edition)\nversion 0-rescue-{id}\nlinux /vmlinuz-0-rescue-{id}\ninitrd /initramfs-0-rescue-{id}.img\noptions root=UUID=b7f5 ro rootflags=subvol=root rhgb quiet\n")),
        (&format!("/boot/vmlinuz-0-rescue-{id}"), ""),
        (&format!("/boot/initramfs-0-rescue-{id}.img"), ""),
        ("/boot/grub2/grub.cfg", "set default=\"${saved_entry}\"\ninsmod blscfg\nblscfg\n"),
        ("/boot/grub2/grubenv", &grubenv(&format!("saved_entry={id}-{new}\nmenu_auto_hide=1\nboot_success=0\n"))),
        ("/boot/efi/EFI/fedora/shimx64.efi", "shim"),
        ("/boot/efi/EFI/fedora/grubx64.efi", "grub"),
        ("/boot/efi/EFI/fedora/mmx64.efi", "mm"),
        ("/boot/efi/EFI/fedora/BOOTX64.CSV", "csv"),
        ("/boot/efi/EFI/fedora/grub.cfg", "search --no-floppy --root-dev-only --fs-uuid --set=dev b007\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n"),
        ("/boot/efi/EFI/BOOT/BOOTX64.EFI", "shim"),
        ("/boot/efi/EFI/BOOT/fbx64.efi", "fb"),
        ("/usr/bin/dracut", ""),
        ("/usr/bin/vmtoolsd", ""),
        ("/usr/lib/systemd/system/vmtoolsd.service", "[Unit]\nConditionVirtualization=vmware\n"),
    ]);
    let tree = with_selinux(tree)
        .symlink("/etc/os-release", "../usr/lib/os-release")
        .symlink("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
        .file("/usr/bin/sh", program());
    let modules = "virtio_blk virtio_scsi virtio_net nvme vmw_pvscsi mptspi mptsas hv_vmbus hv_storvsc xen-blkfront vmxnet3 e1000e";
    let builtin = "virtio_pci sd_mod ahci ata_piix";
    let tree = [new, old].into_iter().fold(tree, |tree, version| {
        kernel(tree, version, &format!("/boot/initramfs-{version}.img"), "/usr/lib/modules", modules, builtin)
    });
    let volumes = vec![
        volume(0, 1, "vfat", "AB-CD"),
        volume(0, 2, "ext4", "b007"),
        volume(0, 3, "btrfs", "b7f5"),
        volume(1, 1, "ext4", "5a5a"),
    ];
    let on = |at: &str, subvolume: &str| Mount {
        subvolume: Some(subvolume.into()),
        ..mount(at, &volumes[2], "UUID=b7f5")
    };
    let mounts = vec![
        on("/", "/root"),
        mount("/boot", &volumes[1], "UUID=b007"),
        mount("/boot/efi", &volumes[0], "UUID=AB-CD"),
        on("/home", "/home"),
        mount("/srv", &volumes[3], "/dev/sdb1"),
    ];
    Machine { tree, mounts, volumes, request: request(Firmware::Uefi, &[("00:50:56:aa:bb:41", "ens192")]) }
}

/// The image of Amazon Linux 2 for VMware: BIOS, XFS, GRUB 2 without BLS, ifcfg and cloud-init.
fn amazon_2() -> Machine {
    let (new, old) = ("4.14.355-276.639.amzn2.x86_64", "4.14.355-275.603.amzn2.x86_64");
    let parameters = "console=tty0 console=ttyS0,115200n8 net.ifnames=0 biosdevname=0 nvme_core.io_timeout=4294967295 rd.emergency=poweroff rd.shell=0";
    let entry = |version: &str| {
        format!(
            "menuentry 'Amazon Linux ({version}) 2' --class amzn --class gnu-linux --class gnu --class os --unrestricted {{\n\tload_video\n\tset gfxpayload=keep\n\tinsmod gzio\n\tinsmod part_gpt\n\tinsmod xfs\n\tset root='hd0,gpt1'\n\tsearch --no-floppy --fs-uuid --set=root r00t\n\tlinux /boot/vmlinuz-{version} root=UUID=r00t ro {parameters} \n\tinitrd /boot/initramfs-{version}.img\n}}\n"
        )
    };
    let tree = usr_merged().files(&[
        ("/etc/os-release", "NAME=\"Amazon Linux\"\nVERSION=\"2\"\nID=\"amzn\"\nID_LIKE=\"centos rhel fedora\"\nVERSION_ID=\"2\"\nPRETTY_NAME=\"Amazon Linux 2\"\n"),
        ("/etc/hostname", "amazon01\n"),
        ("/etc/fstab", "#\nUUID=r00t     /           xfs    defaults,noatime  1   1\n/dev/sdb1     /data       xfs    defaults,nofail   0   2\n"),
        ("/etc/sysconfig/network", "NETWORKING=yes\nNOZEROCONF=yes\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\nTYPE=Ethernet\nUSERCTL=yes\nPEERDNS=yes\nDHCPV6C=yes\nDHCPV6C_OPTIONS=-nw\nPERSISTENT_DHCLIENT=yes\nRES_OPTIONS=\"timeout:2 attempts:5\"\nDHCP_ARP_CHECK=no\n"),
        ("/etc/default/grub", &format!("GRUB_CMDLINE_LINUX_DEFAULT=\"{parameters}\"\nGRUB_TIMEOUT=0\nGRUB_DISABLE_RECOVERY=\"true\"\n")),
        ("/boot/grub2/grub.cfg", &format!("set default=\"0\"\n### BEGIN /etc/grub.d/10_linux ###\n{}{}### END /etc/grub.d/10_linux ###\n", entry(new), entry(old))),
        ("/boot/grub2/i386-pc/normal.mod", ""),
        ("/boot/grub2/device.map", "(hd0)\t/dev/sda\n"),
        ("/usr/bin/cloud-init", ""),
        ("/etc/cloud/cloud.cfg", "datasource_list: [ VMware, NoCloud, ConfigDrive, None ]\n"),
        ("/usr/sbin/dracut", ""),
        ("/usr/bin/vmtoolsd", ""),
        ("/usr/lib/systemd/system/vmtoolsd.service", "[Unit]\nConditionVirtualization=vmware\n"),
        ("/etc/selinux/config", "SELINUX=disabled\nSELINUXTYPE=targeted\n"),
    ]);
    let tree = tree.file("/usr/bin/sh", program()).dir("/etc/udev/rules.d");
    let modules = "virtio virtio_ring virtio_pci virtio_blk virtio_scsi virtio_net ahci ata_piix vmw_pvscsi mptspi mptsas hv_vmbus hv_storvsc vmxnet3 e1000e";
    let tree = [new, old].into_iter().fold(tree, |tree, version| {
        let archive = format!("/boot/initramfs-{version}.img");
        kernel(tree, version, &archive, "/usr/lib/modules", modules, "sd_mod nvme xen-blkfront")
    });
    let volumes = vec![volume(0, 1, "xfs", "r00t"), volume(1, 1, "xfs", "da7a")];
    let mounts = vec![mount("/", &volumes[0], "UUID=r00t"), mount("/data", &volumes[1], "/dev/sdb1")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:02", "")]) }
}

/// Amazon Linux 2023: UEFI, the kernels on the root file system, BLS, systemd-networkd by cloud-init.
fn amazon_2023() -> Machine {
    let id = "ec2f3c1d8a9b4e5f8a7b6c5d4e3f2a1b";
    let (new, old) = ("6.1.170-213.321.amzn2023.x86_64", "6.1.166-197.305.amzn2023.x86_64");
    let entry = |version: &str| {
        format!(
            "title Amazon Linux ({version}) 2023\nversion {version}\nlinux /boot/vmlinuz-{version}\ninitrd /boot/initramfs-{version}.img\noptions root=UUID=r00t ro console=tty0 console=ttyS0,115200n8 nvme_core.io_timeout=4294967295 rd.emergency=poweroff rd.shell=0 selinux=1 security=selinux quiet\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class amzn\n"
        )
    };
    let tree = usr_merged().files(&[
        ("/usr/lib/os-release", "NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\nPLATFORM_ID=\"platform:al2023\"\nPRETTY_NAME=\"Amazon Linux 2023.8.20250707\"\n"),
        ("/etc/hostname", "amazon02\n"),
        ("/etc/fstab", "#\nUUID=r00t     /           xfs    defaults,noatime  1   1\nUUID=AB-CD        /boot/efi       vfat    defaults,noatime,uid=0,gid=0,umask=0077,shortname=winnt,x-systemd.automount 0 2\n"),
        ("/etc/systemd/network/10-cloud-init-ens192.network", "[Match]\nName=ens192\n\n[Network]\nDHCP=no\nAddress=10.1.2.23/24\nGateway=10.1.2.1\nDNS=10.1.2.2\n"),
        ("/usr/lib/systemd/network/80-ec2.network", "[Match]\nDriver=ena ixgbevf vif\n\n[Network]\nDHCP=yes\n"),
        ("/etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=\"console=tty0 console=ttyS0,115200n8 nvme_core.io_timeout=4294967295 rd.emergency=poweroff rd.shell=0 selinux=1 security=selinux quiet\"\nGRUB_TIMEOUT=0\nGRUB_DISABLE_RECOVERY=\"true\"\nGRUB_ENABLE_BLSCFG=\"true\"\n"),
        (&format!("/boot/loader/entries/{id}-{new}.conf"), &entry(new)),
        (&format!("/boot/loader/entries/{id}-{old}.conf"), &entry(old)),
        ("/boot/grub2/grub.cfg", "set default=\"${saved_entry}\"\ninsmod blscfg\nblscfg\n"),
        ("/boot/grub2/grubenv", &grubenv(&format!("saved_entry={id}-{new}\n"))),
        ("/boot/grub2/i386-pc/normal.mod", ""),
        ("/boot/efi/EFI/amzn/shimx64.efi", "shim"),
        ("/boot/efi/EFI/amzn/grubx64.efi", "grub"),
        ("/boot/efi/EFI/amzn/grub.cfg", "search --no-floppy --fs-uuid --set=dev r00t\nset prefix=($dev)/boot/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n"),
        ("/boot/efi/EFI/BOOT/BOOTX64.EFI", "shim"),
        ("/boot/efi/EFI/BOOT/grubx64.efi", "grub"),
        ("/usr/bin/cloud-init", ""),
        ("/usr/bin/dracut", ""),
        ("/usr/bin/vmtoolsd", ""),
        ("/usr/lib/systemd/system/vmtoolsd.service", "[Unit]\nConditionVirtualization=vmware\n"),
    ]);
    let tree = with_selinux(tree)
        .symlink("/etc/os-release", "../usr/lib/os-release")
        .file("/etc/selinux/config", "SELINUX=permissive\nSELINUXTYPE=targeted\n")
        .file("/usr/bin/sh", program());
    let tree = [new, old].into_iter().fold(tree, |tree, version| {
        let archive = format!("/boot/initramfs-{version}.img");
        kernel(tree, version, &archive, "/usr/lib/modules", MODULES, "virtio_pci")
    });
    let volumes = vec![volume(0, 1, "xfs", "r00t"), volume(0, 128, "vfat", "AB-CD")];
    let mounts = vec![mount("/", &volumes[0], "UUID=r00t"), mount("/boot/efi", &volumes[1], "UUID=AB-CD")];
    Machine { tree, mounts, volumes, request: request(Firmware::Uefi, &[("00:50:56:aa:bb:23", "ens192")]) }
}

/// RHEL 8 in FIPS mode, BIOS: entries take their parameters from GRUB's environment, where /boot is named by its device.
fn rhel_8() -> Machine {
    let id = "6f7d2c3b1a0948e7b6a5c4d3e2f10987";
    let (new, old) = ("4.18.0-553.el8_10.x86_64", "4.18.0-513.24.1.el8_9.x86_64");
    let parameters = "root=/dev/mapper/rhel-root ro crashkernel=auto resume=/dev/mapper/rhel-swap rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap rhgb quiet fips=1 boot=/dev/sda1 ";
    let entry = |version: &str| {
        format!(
            "title Red Hat Enterprise Linux ({version}) 8.10 (Ootpa)\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /initramfs-{version}.img $tuned_initrd\noptions $kernelopts $tuned_params\nid rhel-{version}\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class kernel\n"
        )
    };
    let tree = usr_merged().files(&[
        ("/usr/lib/os-release", "NAME=\"Red Hat Enterprise Linux\"\nVERSION=\"8.10 (Ootpa)\"\nID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"8.10\"\nPLATFORM_ID=\"platform:el8\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 8.10 (Ootpa)\"\n"),
        ("/etc/hostname", "app08.example.com\n"),
        ("/etc/fstab", "#\n# /etc/fstab\n# Created by anaconda on Wed May 29 08:00:00 2024\n#\n/dev/mapper/rhel-root   /                       xfs     defaults        0 0\nUUID=b007               /boot                   xfs     defaults        0 0\n/dev/mapper/rhel-swap   none                    swap    defaults        0 0\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-ens192", "TYPE=Ethernet\nPROXY_METHOD=none\nBROWSER_ONLY=no\nBOOTPROTO=none\nDEFROUTE=yes\nNAME=ens192\nUUID=6d3a0a1f-1f4c-35a6-9d3a-5d3bfd9f7e11\nDEVICE=ens192\nONBOOT=yes\nIPADDR=10.1.2.8\nPREFIX=24\nGATEWAY=10.1.2.1\nDNS1=10.1.2.2\n"),
        ("/etc/default/grub", "GRUB_TIMEOUT=5\nGRUB_DEFAULT=saved\nGRUB_DISABLE_SUBMENU=true\nGRUB_TERMINAL_OUTPUT=\"console\"\nGRUB_CMDLINE_LINUX=\"crashkernel=auto resume=/dev/mapper/rhel-swap rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap rhgb quiet fips=1 boot=/dev/sda1\"\nGRUB_DISABLE_RECOVERY=\"true\"\nGRUB_ENABLE_BLSCFG=true\n"),
        (&format!("/boot/loader/entries/{id}-{new}.conf"), &entry(new)),
        (&format!("/boot/loader/entries/{id}-{old}.conf"), &entry(old)),
        ("/boot/grub2/grub.cfg", &format!("set default=\"${{saved_entry}}\"\nif [ -z \"${{kernelopts}}\" ]; then\n  set kernelopts=\"{parameters}\"\nfi\ninsmod blscfg\nblscfg\n")),
        ("/boot/grub2/grubenv", &grubenv(&format!("saved_entry={id}-{new}\nkernelopts={parameters}\nboot_success=0\nboot_indeterminate=0\n"))),
        ("/boot/grub2/i386-pc/normal.mod", ""),
        ("/boot/grub2/device.map", "# this device map was generated by anaconda\n(hd0)      /dev/sda\n"),
        (&format!("/boot/initramfs-{new}kdump.img"), ""),
        ("/etc/lvm/lvm.conf", "devices {\n\t# filter = [ \"a|.*/|\" ]\n}\n"),
        ("/usr/bin/dracut", ""),
        ("/usr/bin/vmtoolsd", ""),
        ("/usr/lib/systemd/system/vmtoolsd.service", "[Unit]\nConditionVirtualization=vmware\n"),
    ]);
    let tree =
        with_selinux(tree).symlink("/etc/os-release", "../usr/lib/os-release").file("/usr/bin/sh", program());
    let tree = [new, old].into_iter().fold(tree, |tree, version| {
        let archive = format!("/boot/initramfs-{version}.img");
        kernel(tree, version, &archive, "/usr/lib/modules", MODULES, "virtio_pci")
    });
    let volumes = vec![
        volume(0, 1, "xfs", "b007"),
        volume(0, 2, "lvm", ""),
        logical("rhel", "root", "xfs", "r00t"),
        logical("rhel", "swap", "swap", "5wap"),
    ];
    let mounts =
        vec![mount("/", &volumes[2], "/dev/mapper/rhel-root"), mount("/boot", &volumes[0], "UUID=b007")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:08", "ens192")]) }
}

/// RHEL 6: GRUB legacy, upstart, dracut, udev's persistent names; the kernel has no list of what is built in.
fn rhel_6() -> Machine {
    let (new, old) = ("2.6.32-754.35.1.el6.x86_64", "2.6.32-71.el6.x86_64");
    let entry = |version: &str| {
        format!(
            "title Red Hat Enterprise Linux Server ({version})\n\troot (hd0,0)\n\tkernel /vmlinuz-{version} ro root=/dev/mapper/vg_db-lv_root rd_NO_LUKS rd_LVM_LV=vg_db/lv_root LANG=en_US.UTF-8 rd_NO_MD SYSFONT=latarcyrheb-sun16 crashkernel=auto rd_LVM_LV=vg_db/lv_swap  KEYBOARDTYPE=pc KEYTABLE=us rd_NO_DM rhgb quiet\n\tinitrd /initramfs-{version}.img\n"
        )
    };
    let tree = MemTree::new().files(&[
        ("/etc/redhat-release", "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n"),
        ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=db06.example.com\nGATEWAY=10.1.2.1\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=00:50:56:AA:BB:06\nTYPE=Ethernet\nONBOOT=yes\nNM_CONTROLLED=no\nBOOTPROTO=none\nIPADDR=10.1.2.6\nPREFIX=24\n"),
        ("/etc/udev/rules.d/70-persistent-net.rules", "# PCI device 0x15ad:0x07b0 (vmxnet3)\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:aa:bb:06\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n"),
        ("/etc/fstab", "#\n# /etc/fstab\n#\n/dev/mapper/vg_db-lv_root /                       ext4    defaults        1 1\nUUID=b007 /boot                   ext4    defaults        1 2\n/dev/mapper/vg_db-lv_swap swap                    swap    defaults        0 0\n/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1 /data xfs defaults 1 2\ntmpfs                   /dev/shm                tmpfs   defaults        0 0\n"),
        ("/boot/grub/grub.conf", &format!("# grub.conf generated by anaconda\n#boot=/dev/sda\ndefault=0\ntimeout=5\nsplashimage=(hd0,0)/grub/splash.xpm.gz\nhiddenmenu\n{}{}", entry(new), entry(old))),
        ("/boot/grub/device.map", "# this device map was generated by anaconda\n(hd0)     /dev/sda\n"),
        ("/boot/grub/stage2", ""),
        (&format!("/boot/config-{new}"), "CONFIG_BLK_DEV_INITRD=y\nCONFIG_BLK_DEV_SD=m\nCONFIG_VIRTIO_PCI=m\nCONFIG_XEN=y\n"),
        (&format!("/boot/initrd-{new}kdump.img"), ""),
        ("/etc/inittab", "id:3:initdefault:\n"),
        ("/etc/init/rcS.conf", "start on startup\n"),
        ("/sbin/dracut", ""),
        ("/usr/bin/vmtoolsd", ""),
        ("/etc/init/vmtoolsd.conf", "start on started\nexec /usr/bin/vmtoolsd\n"),
    ]);
    let tree = with_selinux(tree)
        .symlink("/boot/grub/menu.lst", "./grub.conf")
        .symlink("/etc/grub.conf", "../boot/grub/grub.conf")
        .file("/bin/sh", program());
    let modern = "virtio virtio_ring virtio_pci virtio_blk virtio_scsi virtio_net sd_mod ahci ata_piix nvme vmw_pvscsi mptspi mptsas hv_vmbus hv_storvsc xen-blkfront vmxnet3 e1000e e1000";
    let first = "virtio virtio_ring virtio_pci virtio_blk virtio_net sd_mod ahci ata_piix vmw_pvscsi mptspi mptsas vmxnet3 e1000e e1000";
    let tree = kernel(tree, new, &format!("/boot/initramfs-{new}.img"), "/lib/modules", modern, "");
    let tree = kernel(tree, old, &format!("/boot/initramfs-{old}.img"), "/lib/modules", first, "");
    let volumes = vec![
        volume(0, 1, "ext4", "b007"),
        volume(0, 2, "lvm", ""),
        volume(1, 1, "xfs", "da7a"),
        logical("vg_db", "lv_root", "ext4", "r00t"),
        logical("vg_db", "lv_swap", "swap", "5wap"),
    ];
    let mounts =
        vec![mount("/", &volumes[3], "/dev/mapper/vg_db-lv_root"), mount("/boot", &volumes[0], "UUID=b007")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:06", "")]) }
}

#[test]
fn golden_plans() {
    for (name, machine) in [
        ("fedora_41_btrfs_resolved", fedora_41()),
        ("amazon_2_cloud_init", amazon_2()),
        ("amazon_2023_networkd", amazon_2023()),
        ("rhel_8_kernelopts", rhel_8()),
        ("rhel_6_grub_legacy_upstart", rhel_6()),
    ] {
        let (guest, plan) = machine.plan();
        assert!(!plan.is_blocked(), "{name}: {:#?}", plan.findings);
        insta::assert_snapshot!(name, show(&guest, &plan));
        machine.no_more_after_one_run();
    }
}
