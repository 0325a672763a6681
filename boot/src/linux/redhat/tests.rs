//! Guests of the family: golden plans, as an administrator would read them.

use super::*;
use crate::family::{Family, Scene};
use crate::guest::Mount;
use crate::linux::debian::tests::{Machine, request, show, usr_merged};
use crate::linux::device::tests::{mount, volume};
use crate::target::Firmware;
use crate::tree::mem::MemTree;
use crate::volume::{Volume, VolumeId};

/// Lines of the targeted policy that matter for what a plan makes anew.
pub(in crate::linux) const POLICY: &str = "\
/.*\tsystem_u:object_r:default_t:s0
/[^/]+\t--\tsystem_u:object_r:etc_runtime_t:s0
/boot/.*\tsystem_u:object_r:boot_t:s0
/etc/.*\tsystem_u:object_r:etc_t:s0
/usr/.*\tsystem_u:object_r:usr_t:s0
/etc/systemd/system(/.*)?\tsystem_u:object_r:systemd_unit_file_t:s0
/etc/modprobe\\.d(/.*)?\tsystem_u:object_r:modules_conf_t:s0
/etc/modprobe\\.conf.*\t--\tsystem_u:object_r:modules_conf_t:s0
/etc/sysconfig/network-scripts/.*resolv\\.conf\t--\tsystem_u:object_r:net_conf_t:s0
/etc/lvm(/.*)?\tsystem_u:object_r:lvm_etc_t:s0
/etc/multipath(/.*)?\tsystem_u:object_r:lvm_etc_t:s0
/etc/udev/rules\\.d(/.*)?\tsystem_u:object_r:udev_rules_t:s0
/boot/efi(/.*)?/System\\.map(-.*)?\t--\tsystem_u:object_r:system_map_t:s0
/etc\t-d\tsystem_u:object_r:etc_t:s0
";

/// A kernel as its package and the initramfs's tool leave it.
pub(in crate::linux) fn kernel(
    tree: MemTree,
    version: &str,
    archive: &str,
    folder: &str,
    modules: &str,
    builtin: &str,
) -> MemTree {
    let list = |names: &str, end: &str| {
        names.split_whitespace().map(|name| format!("kernel/drivers/x/{name}.ko{end}:\n")).collect::<String>()
    };
    tree.file(&format!("/boot/vmlinuz-{version}"), "")
        .file(archive, "")
        .file(&format!("{folder}/{version}/modules.dep"), list(modules, ".xz"))
        .file(&format!("{folder}/{version}/modules.builtin"), list(builtin, ""))
}

/// The beginning of a program for x86-64.
pub(in crate::linux) fn program() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(18, 0);
    elf.extend([62, 0]);
    elf
}

pub(in crate::linux) fn logical(group: &str, name: &str, file_system: &str, uuid: &str) -> Volume {
    Volume {
        id: VolumeId(format!("{group}/{name}")),
        device_names: vec![format!("/dev/{group}/{name}"), format!("/dev/mapper/{group}-{name}")],
        partition: None,
        offset: None,
        part_uuid: None,
        ..volume(0, 9, file_system, uuid)
    }
}

const MODULES: &str = "virtio_blk virtio_scsi virtio_net sd_mod ahci ata_piix nvme vmw_pvscsi mptspi mptsas hv_vmbus hv_storvsc xen-blkfront vmxnet3 e1000e";

/// RHEL 9 on ESXi as its installer leaves it: UEFI, XFS on LVM, BLS, NetworkManager, SELinux, two kernels and the rescue
/// image, kdump; multipathd configured by `mpathconf --enable` and not needed; a data disk by name.
fn rhel_9() -> Machine {
    let entry = |version: &str| {
        format!(
            "title Red Hat Enterprise Linux ({version}) 9.4 (Plow)\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /initramfs-{version}.img $tuned_initrd\noptions root=/dev/mapper/rhel-root ro crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M resume=/dev/mapper/rhel-swap rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap $tuned_params\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class rhel\n"
        )
    };
    let id = "8f1d4c0be0fb4a6c9a6a5a0d4d0f1c11";
    let (new, old) = ("5.14.0-427.40.1.el9_4.x86_64", "5.14.0-427.el9.x86_64");
    let tree = usr_merged().files(&[
        ("/usr/lib/os-release", "NAME=\"Red Hat Enterprise Linux\"\nVERSION=\"9.4 (Plow)\"\nID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.4\"\nPLATFORM_ID=\"platform:el9\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.4 (Plow)\"\n"),
        ("/etc/redhat-release", "Red Hat Enterprise Linux release 9.4 (Plow)\n"),
        ("/etc/hostname", "db01.example.com\n"),
        ("/etc/machine-id", &format!("{id}\n")),
        ("/etc/fstab", "\n#\n# /etc/fstab\n# Created by anaconda on Mon Jun  3 09:12:01 2024\n#\n/dev/mapper/rhel-root   /                       xfs     defaults        0 0\nUUID=b00t               /boot                   xfs     defaults        0 0\nUUID=AB-CD              /boot/efi               vfat    umask=0077,shortname=winnt 0 2\n/dev/mapper/rhel-swap   none                    swap    defaults        0 0\n/dev/sdb1               /srv                    xfs     defaults        0 0\n"),
        ("/etc/NetworkManager/system-connections/ens192.nmconnection", "[connection]\nid=ens192\nuuid=5d3bfd9f-1f4c-35a6-9d3a-0a1f0e5a7e11\ntype=ethernet\nautoconnect-priority=-999\ninterface-name=ens192\n\n[ethernet]\n\n[ipv4]\naddress1=10.1.2.10/24,10.1.2.1\ndns=10.1.2.2;\nmethod=manual\n\n[ipv6]\naddr-gen-mode=eui64\nmethod=auto\n"),
        ("/etc/default/grub", "GRUB_TIMEOUT=5\nGRUB_DISTRIBUTOR=\"$(sed 's, release .*$,,g' /etc/system-release)\"\nGRUB_DEFAULT=saved\nGRUB_DISABLE_SUBMENU=true\nGRUB_TERMINAL_OUTPUT=\"console\"\nGRUB_CMDLINE_LINUX=\"crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M resume=/dev/mapper/rhel-swap rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap\"\nGRUB_DISABLE_RECOVERY=\"true\"\nGRUB_ENABLE_BLSCFG=true\n"),
        (&format!("/boot/loader/entries/{id}-{new}.conf"), &entry(new)),
        (&format!("/boot/loader/entries/{id}-{old}.conf"), &entry(old)),
        ("/boot/grub2/grub.cfg", "set timeout=5\ninsmod blscfg\nblscfg\n"),
        ("/boot/efi/EFI/redhat/shimx64.efi", "shim"),
        ("/boot/efi/EFI/redhat/grubx64.efi", "grub"),
        ("/boot/efi/EFI/redhat/mmx64.efi", "mm"),
        ("/boot/efi/EFI/redhat/BOOTX64.CSV", "csv"),
        ("/boot/efi/EFI/redhat/grub.cfg", "search --no-floppy --fs-uuid --set=dev b00t\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n"),
        ("/boot/efi/EFI/BOOT/BOOTX64.EFI", "shim"),
        ("/boot/efi/EFI/BOOT/fbx64.efi", "fb"),
        (&format!("/boot/vmlinuz-0-rescue-{id}"), ""),
        (&format!("/boot/initramfs-0-rescue-{id}.img"), ""),
        (&format!("/boot/initramfs-{new}kdump.img"), ""),
        ("/etc/lvm/devices/system.devices", "VERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.6000c29f0a1b2c3d4e5f60718293a4b5 DEVNAME=/dev/sda3 PVID=aZ PART=3\n"),
        ("/etc/lvm/lvm.conf", "config {\n}\ndevices {\n\t# use_devicesfile = 1\n}\n"),
        ("/etc/multipath.conf", "# device-mapper-multipath configuration file\n\ndefaults {\n\tuser_friendly_names yes\n\tfind_multipaths yes\n}\n\nblacklist {\n}\n"),
        ("/usr/lib/systemd/system/multipathd.service", "[Unit]\nConditionPathExists=/etc/multipath.conf\n"),
        ("/usr/sbin/multipathd", ""),
        ("/usr/bin/dracut", ""),
        ("/usr/bin/vmtoolsd", ""),
        ("/usr/lib/systemd/system/vmtoolsd.service", "[Unit]\nConditionVirtualization=vmware\n"),
        ("/etc/selinux/config", "# This file controls the state of SELinux on the system.\nSELINUX=enforcing\nSELINUXTYPE=targeted\n"),
        ("/etc/selinux/targeted/contexts/files/file_contexts", POLICY),
    ]);
    let tree = tree
        .symlink("/etc/os-release", "../usr/lib/os-release")
        .symlink("/etc/system-release", "redhat-release")
        .file("/usr/bin/sh", program())
        .dir("/etc/dracut.conf.d")
        .dir("/etc/udev/rules.d")
        .dir("/etc/systemd/system");
    let tree =
        kernel(tree, new, &format!("/boot/initramfs-{new}.img"), "/usr/lib/modules", MODULES, "virtio_pci");
    let tree =
        kernel(tree, old, &format!("/boot/initramfs-{old}.img"), "/usr/lib/modules", MODULES, "virtio_pci");
    let volumes = vec![
        volume(0, 1, "vfat", "AB-CD"),
        volume(0, 2, "xfs", "b00t"),
        volume(0, 3, "lvm", ""),
        volume(1, 1, "xfs", "5a5a"),
        logical("rhel", "root", "xfs", "r00t"),
        logical("rhel", "swap", "swap", "5wap"),
    ];
    let mounts = vec![
        mount("/", &volumes[4], "/dev/mapper/rhel-root"),
        mount("/boot", &volumes[1], "UUID=b00t"),
        mount("/boot/efi", &volumes[0], "UUID=AB-CD"),
        mount("/srv", &volumes[3], "/dev/sdb1"),
    ];
    Machine { tree, mounts, volumes, request: request(Firmware::Uefi, &[("00:50:56:aa:bb:09", "ens192")]) }
}

/// CentOS 5: mkinitrd, modprobe.conf, GRUB legacy, ifcfg, no os-release; two kernels, the older without virtio.
fn centos_5() -> Machine {
    let (new, old) = ("2.6.18-398.el5", "2.6.18-8.el5");
    let entry = |version: &str| {
        format!(
            "title CentOS ({version})\n\troot (hd0,0)\n\tkernel /vmlinuz-{version} ro root=/dev/VolGroup00/LogVol00 rhgb quiet\n\tinitrd /initrd-{version}.img\n"
        )
    };
    let tree = MemTree::new().files(&[
        ("/etc/redhat-release", "CentOS release 5.11 (Final)\n"),
        ("/etc/sysconfig/network", "NETWORKING=yes\nNETWORKING_IPV6=no\nHOSTNAME=old01.example.com\nGATEWAY=10.1.2.1\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-eth0", "# VMware VMXNET3 Ethernet Controller\nDEVICE=eth0\nBOOTPROTO=static\nHWADDR=00:50:56:AA:BB:05\nIPADDR=10.1.2.5\nNETMASK=255.255.255.0\nONBOOT=yes\n"),
        ("/etc/modprobe.conf", "alias eth0 vmxnet3\nalias scsi_hostadapter mptbase\nalias scsi_hostadapter1 mptspi\nalias scsi_hostadapter2 ata_piix\n"),
        ("/etc/fstab", "/dev/VolGroup00/LogVol00 /                       ext3    defaults        1 1\nLABEL=/boot             /boot                   ext3    defaults        1 2\ntmpfs                   /dev/shm                tmpfs   defaults        0 0\nsysfs                   /sys                    sysfs   defaults        0 0\nproc                    /proc                   proc    defaults        0 0\n/dev/VolGroup00/LogVol01 swap                    swap    defaults        0 0\n"),
        ("/boot/grub/grub.conf", &format!("# grub.conf generated by anaconda\n#boot=/dev/sda\ndefault=0\ntimeout=5\nhiddenmenu\n{}{}", entry(new), entry(old))),
        ("/boot/grub/device.map", "# this device map was generated by anaconda\n(hd0)     /dev/sda\n"),
        ("/boot/grub/stage2", ""),
        ("/etc/inittab", "id:3:initdefault:\n"),
        ("/sbin/mkinitrd", ""),
        ("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
        ("/etc/selinux/targeted/contexts/files/file_contexts", POLICY),
        ("/etc/vmware-tools/services.sh", ""),
        ("/etc/init.d/vmware-tools", ""),
        ("/etc/blkid/blkid.tab", "<device DEVNO=\"0x0801\">/dev/sda1</device>\n"),
        ("/boot/initrd-2.6.18-398.el5kdump.img", ""),
    ]);
    let tree = tree
        .symlink("/boot/grub/menu.lst", "./grub.conf")
        .symlink("/etc/grub.conf", "../boot/grub/grub.conf")
        .file("/bin/sh", program())
        .symlink("/etc/rc3.d/S19vmware-tools", "../init.d/vmware-tools")
        .dir("/etc/udev/rules.d");
    let modern =
        "virtio virtio_ring virtio_pci virtio_blk virtio_net sd_mod ahci ata_piix mptspi mptsas e1000";
    let tree = kernel(tree, new, &format!("/boot/initrd-{new}.img"), "/lib/modules", modern, "");
    let tree = kernel(
        tree,
        old,
        &format!("/boot/initrd-{old}.img"),
        "/lib/modules",
        "sd_mod ahci ata_piix mptspi mptsas e1000",
        "",
    );
    let boot = Volume { label: Some("/boot".into()), ..volume(0, 1, "ext3", "b00t") };
    let volumes = vec![
        boot,
        volume(0, 2, "lvm", ""),
        logical("VolGroup00", "LogVol00", "ext3", "r00t"),
        logical("VolGroup00", "LogVol01", "swap", "5wap"),
    ];
    let mounts =
        vec![mount("/", &volumes[2], "/dev/VolGroup00/LogVol00"), mount("/boot", &volumes[0], "LABEL=/boot")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:05", "")]) }
}

#[test]
fn rhel_9_uefi_lvm_multipath_selinux() {
    let machine = rhel_9();
    let (guest, plan) = machine.plan();
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn centos_5_mkinitrd() {
    let machine = centos_5();
    let (guest, plan) = machine.plan();
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn relatives_and_old_releases_are_recognised_and_others_are_not() {
    let known = |tree: MemTree| {
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let guest = RedHat.recognise(&scene).unwrap()?;
        Some((guest.distribution.value, guest.version.value))
    };
    let release = |text: &str| known(MemTree::new().file("/etc/os-release", text));
    let is = |id: &str, version: &str| Some((id.to_owned(), version.to_owned()));
    for (text, expected) in [
        ("ID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"10.0\"\n", is("rhel", "10.0")),
        ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n", is("rocky", "9.4")),
        ("ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"8.10\"\n", is("almalinux", "8.10")),
        ("ID=\"ol\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"7.9\"\n", is("ol", "7.9")),
        ("ID=\"amzn\"\nID_LIKE=\"centos rhel fedora\"\nVERSION_ID=\"2\"\n", is("amzn", "2")),
        ("ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n", is("amzn", "2023")),
        ("ID=fedora\nVERSION_ID=41\n", is("fedora", "41")),
        ("ID=debian\n", None),
        ("ID=\"sles\"\nID_LIKE=\"suse\"\n", None),
    ] {
        assert_eq!(release(text), expected, "{text}");
    }
    for (path, text, expected) in [
        (
            "/etc/redhat-release",
            "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
            is("rhel", "6.10"),
        ),
        ("/etc/redhat-release", "CentOS release 6.10 (Final)\n", is("centos", "6.10")),
        ("/etc/redhat-release", "Scientific Linux release 6.10 (Carbon)\n", is("scientific", "6.10")),
        ("/etc/oracle-release", "Oracle Linux Server release 5.11\n", is("ol", "5.11")),
        ("/etc/system-release", "Amazon Linux AMI release 2018.03\n", is("amzn", "2018.03")),
        ("/etc/redhat-release", "\n", None),
    ] {
        assert_eq!(known(MemTree::new().file(path, text)), expected, "{text}");
    }
    assert_eq!(known(MemTree::new()), None);
}

/// A guest whose RPM database is damaged is planned for as any other: nothing reads it.
#[test]
fn a_damaged_package_database_changes_nothing() {
    let (_, sound) = rhel_9().plan();
    let mut machine = rhel_9();
    machine.tree = machine
        .tree
        .file("/var/lib/rpm/rpmdb.sqlite", [0xff; 4096])
        .symlink("/var/lib/rpm/Packages", "/var/lib/rpm/Packages");
    assert_eq!(machine.plan().1, sound);
}

#[test]
fn damage_gives_findings() {
    let tree = MemTree::new()
        .file("/etc/redhat-release", "CentOS release 5.11 \u{0}(Final)\n")
        .symlink("/etc/selinux/config", "/etc/selinux/config")
        .dir("/etc/modprobe.conf")
        .symlink("/sbin/mkinitrd", "/usr/bin/mkinitrd")
        .file("/boot/vmlinuz-1", "");
    let mounts: Vec<Mount> = Vec::new();
    let machine = Machine { tree, volumes: Vec::new(), mounts, request: request(Firmware::Bios, &[]) };
    let (_, plan) = machine.plan();
    for id in [
        "linux-file-unreadable",
        "linux-no-fstab",
        "linux-default-kernel-unchecked",
        "linux-initramfs-tool-unknown",
    ] {
        assert!(plan.findings.iter().any(|finding| finding.id == id), "{id}: {:#?}", plan.findings);
    }
}

mod relatives;
