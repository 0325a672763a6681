//! Whole plans of each loader.

use super::super::device::tests::{mount, volume};
use super::*;
use crate::family::Scene;
use crate::guest::{Fact, Mount};
use crate::patch::{Action, PatchPlan};
use crate::target::Platform;
use crate::tree::mem::MemTree;
use proptest::prelude::*;

pub fn guest(modes: &[&str], mounts: &[Mount]) -> Guest {
    Guest {
        family: "debian".into(),
        distribution: Fact::new("debian", ""),
        version: Fact::new("12", ""),
        name: Fact::new("", ""),
        architecture: Fact::new("x86_64", ""),
        host_name: None,
        kernels: Vec::new(),
        mounts: mounts.to_vec(),
        init: None,
        boot_modes: modes.iter().map(|mode| Fact::new(*mode, "")).collect(),
        interfaces: Vec::new(),
        agents: Vec::new(),
        windows: None,
    }
}

fn run(tree: &MemTree, firmware: Firmware, modes: &[&str]) -> PatchPlan {
    let volumes = [volume(0, 1, "ext4", "r00t"), volume(0, 5, "swap", "5wap")];
    let mounts = [mount("/", &volumes[0], "/dev/sda1")];
    let scene = Scene { tree, volumes: &volumes, mounts: &mounts };
    let mut draft = Draft::new(&scene);
    let packages = Packages::parse(b"Package: grub-pc\nStatus: install ok installed\nVersion: 2\n");
    let request = Request { platform: Platform::Kvm, firmware, ..Request::default() };
    let copies = Copies::read(tree, &mounts).unwrap();
    plan(&mut draft, &copies, &guest(modes, &mounts), &request, &packages).unwrap();
    draft.finish()
}

/// The drivers of the target's devices; what else is forbidden is the owner's affair.
#[test]
fn drivers_that_parameters_forbid_are_said() {
    let cfg = CFG.replace("quiet", "quiet modprobe.blacklist=nouveau,virtio-blk module_blacklist=virtio_net");
    let tree = MemTree::new()
        .file("/boot/grub/grub.cfg", &cfg)
        .file("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"rd.driver.blacklist=virtio_pci\"\n");
    let plan = run(&tree, Firmware::Bios, &["bios"]);
    let said: Vec<&str> = plan
        .findings
        .iter()
        .filter(|finding| finding.id == "linux-driver-forbidden")
        .map(|finding| finding.remedy.as_str())
        .collect();
    assert_eq!(
        said,
        [
            "Remove virtio_blk from modprobe.blacklist= in /boot/grub/grub.cfg in the guest, and convert again.",
            "Remove virtio_net from module_blacklist= in /boot/grub/grub.cfg in the guest, and convert again.",
            "Remove virtio_pci from rd.driver.blacklist= in /etc/default/grub in the guest, and convert again.",
        ]
    );
}

const CFG: &str = "### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian {
\tinsmod ext2
\tset root='hd0,msdos1'
\tif [ x$feature_platform_search_hint = xy ]; then
\t  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  r00t
\telse
\t  search --no-floppy --fs-uuid --set=root r00t
\tfi
\techo\t'Loading Linux 6.1.0-43-amd64 ...'
\tlinux\t/boot/vmlinuz-6.1.0-43-amd64 root=/dev/sda1 ro resume=/dev/sda5 quiet
\tinitrd\t/boot/initrd.img-6.1.0-43-amd64
}
submenu 'Advanced options' {
\tmenuentry 'old' {
\t\tlinux\t/boot/vmlinuz-4.19-custom root=/dev/sda1 ro
\t}
\tmenuentry 'gone' {
\t\tlinux\t/boot/vmlinuz-6.1.0-43-amd64 root=/dev/sdb7 ro single
\t\tinitrd\t/boot/initrd.img-6.1.0-43-amd64
\t}
}
### END /etc/grub.d/10_linux ###
### BEGIN /etc/grub.d/30_os-prober ###
menuentry 'Other' {
\tlinux /vmlinuz root=/dev/sdc1
\tinitrd /initrd
}
### END /etc/grub.d/30_os-prober ###
";

#[test]
fn every_entry_of_grub_is_done() {
    let tree = MemTree::new()
        .file("/boot/grub/grub.cfg", CFG)
        .file("/boot/grub/device.map", "(hd0)\t/dev/disk/by-id/ata-VMware_1\n")
        .file(
            "/etc/default/grub",
            "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=\"root=/dev/sda1 resume=/dev/sda5\"\n#GRUB_DISABLE_LINUX_UUID=true\nGRUB_DISABLE_LINUX_UUID=true\nGRUB_TERMINAL=\"console serial\"\n",
        )
        .file("/var/cache/debconf/config.dat", "Name: a/b\nValue: /dev/x\n\nName: grub-pc/install_devices\nTemplate: grub-pc/install_devices\nValue: /dev/sda\nOwners: grub-pc\n");
    let plan = run(&tree, Firmware::Bios, &["bios"]);
    insta::assert_json_snapshot!(plan);
    // Nothing is left to do on the result.
    let text = |path: &str| match plan.edits.iter().find(|edit| edit.path == path).map(|edit| &edit.action) {
        Some(Action::Write { contents, .. }) => contents.0.clone(),
        other => panic!("{other:?}"),
    };
    let patched = MemTree::new()
        .file("/boot/grub/grub.cfg", text("/boot/grub/grub.cfg"))
        .file("/etc/default/grub", text("/etc/default/grub"));
    assert!(run(&patched, Firmware::Bios, &["bios"]).edits.is_empty());
}

#[test]
fn firmware_that_the_guest_cannot_start_from_blocks() {
    let tree = MemTree::new().file("/boot/grub/grub.cfg", "");
    for (firmware, modes, id) in [
        (Firmware::Uefi, &["bios"][..], Some("linux-firmware-mismatch")),
        (Firmware::Bios, &["uefi"], Some("linux-firmware-mismatch")),
        (Firmware::Bios, &[], Some("linux-no-loader")),
        (Firmware::Bios, &["bios", "uefi"], None),
    ] {
        let plan = run(&tree, firmware, modes);
        assert_eq!(plan.is_blocked(), id.is_some());
        assert!(id.is_none_or(|id| plan.findings.iter().any(|finding| finding.id == id)));
    }
}

#[test]
fn legacy_and_extlinux() {
    let tree = MemTree::new()
        .file("/boot/grub/menu.lst", "# kopt=root=/dev/sda1 ro\r\ntitle Debian\r\nroot (hd0,0)\r\nkernel /vmlinuz-2.6 root=/dev/sda1 ro\r\ninitrd /initrd.img-2.6\r\n")
        .file("/boot/extlinux/extlinux.conf", "label l\n kernel /vmlinuz\n append initrd=/initrd root=/dev/sda1 ro");
    let plan = run(&tree, Firmware::Bios, &["bios"]);
    let texts: Vec<_> = plan.edits.iter().map(|edit| format!("{:?}", edit.action)).collect();
    assert!(
        texts[0].contains("# kopt=root=UUID=r00t ro\\r\\n")
            && texts[0].contains("vmlinuz-2.6 root=UUID=r00t ro\\r\\n"),
        "{texts:?}"
    );
    assert!(texts[1].contains("append initrd=/initrd root=UUID=r00t ro"), "{texts:?}");
}

#[test]
fn systemd_boot_alone_blocks_and_beside_grub_warns() {
    let tree = MemTree::new()
        .file("/boot/efi/loader/loader.conf", "")
        .file("/boot/efi/EFI/systemd/systemd-bootx64.efi", "");
    assert!(run(&tree, Firmware::Uefi, &["uefi"]).is_blocked());
    let plan = run(&tree.file("/boot/grub/grub.cfg", ""), Firmware::Uefi, &["uefi"]);
    assert!(!plan.is_blocked() && plan.findings.iter().any(|finding| finding.id == "linux-second-loader"));
}

/// A plan on these volumes, by what it writes.
fn plan_on(
    tree: &MemTree,
    volumes: &[crate::volume::Volume],
    mounts: &[Mount],
    firmware: Firmware,
) -> (PatchPlan, Option<String>) {
    let scene = Scene { tree, volumes, mounts };
    let mut draft = Draft::new(&scene);
    let copies = Copies::read(tree, mounts).unwrap();
    let default = default_kernel(&mut draft, &copies).unwrap();
    let request = Request { platform: Platform::Kvm, firmware, ..Request::default() };
    plan(&mut draft, &copies, &guest(&["bios", "uefi"], mounts), &request, &Packages::default()).unwrap();
    (draft.finish(), default)
}

fn written(plan: &PatchPlan, path: &str) -> String {
    match plan.edits.iter().find(|edit| edit.path == path).map(|edit| &edit.action) {
        Some(Action::Write { contents, .. }) => String::from_utf8(contents.0.clone()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

fn ids(plan: &PatchPlan) -> Vec<&str> {
    plan.findings.iter().map(|finding| finding.id).collect()
}

/// The guest after the plan: nothing is left to do.
fn assert_done(
    tree: &MemTree,
    plan: &PatchPlan,
    volumes: &[crate::volume::Volume],
    mounts: &[Mount],
    firmware: Firmware,
) {
    let mut tree = tree.clone();
    for edit in &plan.edits {
        match &edit.action {
            Action::Write { contents, .. } => tree = tree.file(&edit.path, &contents.0),
            Action::Remove => {
                tree.apply(&[crate::apply::Change::Remove { path: edit.path.clone() }]).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    let (again, _) = plan_on(&tree, volumes, mounts, firmware);
    assert!(again.edits.is_empty(), "{:#?}", again.edits);
}

fn grubenv(variables: &str) -> Vec<u8> {
    let mut block = format!("# GRUB Environment Block\n{variables}").into_bytes();
    block.resize(1024, b'#');
    block
}

/// RHEL 8: entries take their parameters from `kernelopts`, of which the configuration has a copy for emergencies.
#[test]
fn red_hat_8_with_kernelopts() {
    let volumes = [volume(0, 1, "xfs", "b007"), volume(0, 2, "xfs", "r00t"), volume(0, 3, "swap", "5wap")];
    let mounts = [mount("/", &volumes[1], "/dev/sda2"), mount("/boot", &volumes[0], "/dev/sda1")];
    let config = "set default=\"${saved_entry}\"\n\
        if [ -z \"${kernelopts}\" ]; then\n  set kernelopts=\"root=/dev/sda2 ro crashkernel=auto resume=/dev/sda3 rhgb quiet \"\nfi\n\
        search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  b007\ninsmod blscfg\nblscfg\n";
    let entry = |version: &str| {
        format!(
            "title Red Hat Enterprise Linux ({version}) 8.10 (Ootpa)\nversion {version}\nlinux /vmlinuz-{version}\n\
             initrd /initramfs-{version}.img $tuned_initrd\noptions $kernelopts $tuned_params\nid rhel-{version}\n"
        )
    };
    let (old, new) = ("4.18.0-477.10.1.el8_8.x86_64", "4.18.0-553.el8_10.x86_64");
    let tree = MemTree::new()
        .file("/boot/grub2/grub.cfg", config)
        .file(
            "/boot/grub2/grubenv",
            grubenv(&format!("saved_entry=6f-{old}\nkernelopts=root=/dev/sda2 ro crashkernel=auto resume=/dev/sda3 \nboot_success=0\n")),
        )
        .file(&format!("/boot/loader/entries/6f-{old}.conf"), entry(old))
        .file(&format!("/boot/loader/entries/6f-{new}.conf"), entry(new))
        .file("/boot/loader/entries/6f-0-rescue.conf", "title r\nlinux /vmlinuz-0-rescue-6f\ninitrd /initramfs-0-rescue-6f.img\noptions root=/dev/sda2 ro\n")
        .file("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"crashkernel=auto resume=/dev/sda3\"\nGRUB_DISABLE_RECOVERY=true\n")
        .symlink("/etc/grub2.cfg", "../boot/grub2/grub.cfg");
    let (plan, default) = plan_on(&tree, &volumes, &mounts, Firmware::Bios);
    assert_eq!(default.as_deref(), Some(old));
    assert_eq!(
        written(&plan, "/boot/grub2/grub.cfg"),
        config.replace("/dev/sda2", "UUID=r00t").replace("/dev/sda3", "UUID=5wap")
    );
    let environment = written(&plan, "/boot/grub2/grubenv");
    assert!(environment.len() == 1024 && environment.ends_with('#'));
    assert!(
        environment
            .contains("\nkernelopts=root=UUID=r00t ro crashkernel=auto resume=UUID=5wap \nboot_success=0\n#")
    );
    assert!(written(&plan, "/boot/loader/entries/6f-0-rescue.conf").ends_with("options root=UUID=r00t ro\n"));
    assert!(written(&plan, "/etc/default/grub").contains("resume=UUID=5wap\""));
    assert_eq!(plan.edits.len(), 4, "entries that take variables stay: {:?}", plan.edits);
    assert_eq!(ids(&plan), ["linux-no-serial-console"]);
    assert_done(&tree, &plan, &volumes, &mounts, Firmware::Bios);
}

/// fstab has UUIDs; the loader names the root as a kernel with another order of disks called it.
#[test]
fn a_root_by_a_name_of_another_disk() {
    let volumes = [volume(0, 1, "ext4", "da7a"), volume(1, 1, "ext4", "r00t")];
    let mounts = [mount("/", &volumes[1], "UUID=r00t"), mount("/data", &volumes[0], "UUID=da7a")];
    let config =
        |root: &str| format!("linux /boot/vmlinuz-6.1 root={root} ro\ninitrd /boot/initrd.img-6.1\n");
    let tree = MemTree::new().file("/boot/grub/grub.cfg", config("/dev/sda1"));
    let (plan, _) = plan_on(&tree, &volumes, &mounts, Firmware::Bios);
    assert_eq!(written(&plan, "/boot/grub/grub.cfg"), config("UUID=r00t"));
    // The same name, where it is right.
    let mounts = [mount("/", &volumes[0], "UUID=da7a")];
    let (plan, _) = plan_on(&tree, &volumes, &mounts, Firmware::Bios);
    assert_eq!(written(&plan, "/boot/grub/grub.cfg"), config("UUID=da7a"));
}

/// RHEL 9: what is on the ESP leads to /boot; parameters are in the entries and in /etc/kernel/cmdline.
#[test]
fn red_hat_9_with_a_wrapper_on_the_esp() {
    let volumes = [volume(0, 1, "vfat", "AB-CD"), volume(0, 2, "xfs", "b007"), volume(0, 3, "xfs", "r00t")];
    let mounts = [
        mount("/", &volumes[2], "/dev/sda3"),
        mount("/boot", &volumes[1], "/dev/sda2"),
        mount("/boot/efi", &volumes[0], "/dev/sda1"),
    ];
    let wrapper = "search --no-floppy --root-dev-only --fs-uuid --set=dev b007\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n";
    let tree = MemTree::new()
        .file("/boot/efi/EFI/rocky/grub.cfg", wrapper)
        .file("/boot/grub2/grub.cfg", "set default=\"${saved_entry}\"\nblscfg\n")
        .file("/boot/grub2/grubenv", grubenv("saved_entry=\n"))
        .file("/boot/loader/entries/6f-5.14.0-427.el9.conf", "title a\nversion 5.14.0-427.el9\nlinux /vmlinuz-5.14.0-427.el9\ninitrd /initramfs-5.14.0-427.el9.img\noptions root=/dev/sda3 ro console=ttyS0\n")
        .file("/boot/loader/entries/6f-5.14.0-70.el9.conf", "title b\nversion 5.14.0-70.el9\nlinux /vmlinuz-5.14.0-70.el9\noptions root=/dev/sda3 ro\n")
        .file("/etc/kernel/cmdline", "root=/dev/sda3 ro\n");
    let (plan, default) = plan_on(&tree, &volumes, &mounts, Firmware::Uefi);
    assert_eq!(default.as_deref(), Some("5.14.0-427.el9"));
    assert_eq!(written(&plan, "/etc/kernel/cmdline"), "root=UUID=r00t ro\n");
    assert!(
        written(&plan, "/boot/loader/entries/6f-5.14.0-70.el9.conf")
            .ends_with("options root=PARTUUID=10000000-03 ro\n")
    );
    assert_eq!((plan.edits.len(), ids(&plan)), (3, vec![]));
    assert_done(&tree, &plan, &volumes, &mounts, Firmware::Uefi);
    // The wrapper is checked, too.
    let (plan, _) = plan_on(
        &tree.file("/boot/efi/EFI/rocky/grub.cfg", wrapper.replace("b007", "90ne")),
        &volumes,
        &mounts,
        Firmware::Uefi,
    );
    assert_eq!(ids(&plan), ["linux-grub-uuid-unknown"]);
}

/// CentOS 7 on UEFI: the real configuration is on the ESP, and the environment in /boot is a link to there.
#[test]
fn red_hat_7_with_everything_on_the_esp() {
    let volumes = [volume(0, 1, "vfat", "AB-CD"), volume(0, 2, "xfs", "r00t")];
    let mounts = [mount("/", &volumes[1], "/dev/sda2"), mount("/boot/efi", &volumes[0], "/dev/sda1")];
    let config = "set default=\"${saved_entry}\"\nmenuentry 'CentOS Linux (3.10.0-1160.el7.x86_64) 7 (Core)' --class centos $menuentry_id_option 'gnulinux-3.10.0-1160' {\n\
        \tlinuxefi /boot/vmlinuz-3.10.0-1160.el7.x86_64 root=/dev/sda2 ro console=ttyS0\n\tinitrdefi /boot/initramfs-3.10.0-1160.el7.x86_64.img\n}\n\
        menuentry 'CentOS Linux (3.10.0-957.el7.x86_64) 7 (Core)' {\n\tlinuxefi /boot/vmlinuz-3.10.0-957.el7.x86_64 root=/dev/sda2 ro\n\tinitrdefi /i\n}\n";
    let tree = MemTree::new()
        .file("/boot/efi/EFI/centos/grub.cfg", config)
        .file(
            "/boot/efi/EFI/centos/grubenv",
            grubenv("saved_entry=CentOS Linux (3.10.0-957.el7.x86_64) 7 (Core)\n"),
        )
        .symlink("/boot/grub2/grubenv", "../efi/EFI/centos/grubenv");
    let (plan, default) = plan_on(&tree, &volumes, &mounts, Firmware::Uefi);
    assert_eq!(default.as_deref(), Some("3.10.0-957.el7.x86_64"));
    assert_eq!(written(&plan, "/boot/efi/EFI/centos/grub.cfg"), config.replace("/dev/sda2", "UUID=r00t"));
    assert_eq!((plan.edits.len(), ids(&plan)), (1, vec![]));
    assert_done(&tree, &plan, &volumes, &mounts, Firmware::Uefi);
}

/// SUSE keeps the disks that GRUB is installed to in a file of its own.
#[test]
fn suse_installs_grub_to_a_disk_by_name() {
    let tree = MemTree::new().file("/boot/grub2/grub.cfg", "");
    let ids_of = |disks: &str| {
        let tree = tree.clone().file("/etc/default/grub_installdevice", disks);
        let (plan, _) = plan_on(&tree, &[], &[], Firmware::Bios);
        ids(&plan).contains(&"linux-grub-install-devices")
    };
    assert!(ids_of("/dev/disk/by-id/scsi-36000c29f0a1b2c3d4e5f60718293a4b5-part2\nactivate\ngeneric_mbr\n"));
    assert!(!ids_of("/dev/md/boot\nactivate\n"));
    assert!(!ids_of("(hd0)\n"));
}

/// Debian's cryptsetup takes the device in the middle of its options.
#[test]
fn debian_with_cryptopts() {
    let volumes = [volume(0, 1, "ext4", "b007"), volume(0, 2, "luks", "1uk5")];
    let mounts = [mount("/boot", &volumes[0], "/dev/sda1")];
    let line = |source: &str| {
        format!(
            "linux /vmlinuz-6.1 root=/dev/mapper/x cryptopts=target=source,source={source},key=/dev/sda2 ro\ninitrd /i\n"
        )
    };
    let tree = MemTree::new()
        .file("/boot/grub/i386-pc/normal.mod", "")
        .file("/boot/grub/grub.cfg", line("/dev/sda2"));
    let (plan, _) = plan_on(&tree, &volumes, &mounts, Firmware::Bios);
    assert_eq!(written(&plan, "/boot/grub/grub.cfg"), line("UUID=1uk5"));
}

/// Arch with systemd-boot on the ESP at /boot and LUKS opened by mkinitcpio.
#[test]
fn arch_with_systemd_boot_and_cryptdevice() {
    let volumes = [volume(0, 1, "vfat", "AB-CD"), volume(0, 2, "luks", "1uk5")];
    let mounts = [mount("/boot", &volumes[0], "/dev/sda1")];
    let options =
        "options cryptdevice=/dev/sda2:root:allow-discards root=/dev/mapper/root rootflags=subvol=@ rw\n";
    let tree = MemTree::new()
        .file("/boot/EFI/systemd/systemd-bootx64.efi", "")
        .file("/boot/loader/loader.conf", "default arch.conf\n")
        .file(
            "/boot/loader/entries/arch.conf",
            format!("title Arch\nlinux /vmlinuz-linux\ninitrd /initramfs-linux.img\n{options}"),
        )
        .file("/etc/cmdline.d/root.conf", "cryptdevice=/dev/sda2:root\n");
    let (plan, default) = plan_on(&tree, &volumes, &mounts, Firmware::Uefi);
    assert_eq!(default.as_deref(), Some("linux"));
    assert!(written(&plan, "/boot/loader/entries/arch.conf").ends_with(
        "options cryptdevice=UUID=1uk5:root:allow-discards root=/dev/mapper/root rootflags=subvol=@ rw\n"
    ));
    assert_eq!(written(&plan, "/etc/cmdline.d/root.conf"), "cryptdevice=UUID=1uk5:root\n");
    assert_eq!(ids(&plan), ["linux-no-serial-console"]);
    assert_done(&tree, &plan, &volumes, &mounts, Firmware::Uefi);
}

#[test]
fn alpine_with_extlinux() {
    let volumes = [volume(0, 1, "ext4", "b007"), volume(0, 2, "swap", "5wap"), volume(0, 3, "ext4", "r00t")];
    let mounts = [mount("/", &volumes[2], "/dev/sda3"), mount("/boot", &volumes[0], "/dev/sda1")];
    let config = "SERIAL 0 115200\nDEFAULT menu.c32\nPROMPT 0\nLABEL lts\n  MENU DEFAULT\n  MENU LABEL Linux lts\n  LINUX vmlinuz-lts\n  INITRD initramfs-lts\n\
        \u{20} APPEND root=/dev/sda3 modules=sd-mod,usb-storage,ext4 quiet rootfstype=ext4 console=ttyS0\n\nMENU SEPARATOR\n";
    let tree = MemTree::new().file("/boot/extlinux.conf", config).file(
        "/etc/update-extlinux.conf",
        "overwrite=1\nroot=/dev/sda3\ndefault_kernel_opts=\"quiet resume=/dev/sda2\"\ndefault=lts\n",
    );
    let (plan, default) = plan_on(&tree, &volumes, &mounts, Firmware::Bios);
    assert_eq!(default.as_deref(), Some("lts"));
    assert_eq!(written(&plan, "/boot/extlinux.conf"), config.replace("/dev/sda3", "UUID=r00t"));
    assert_eq!(
        written(&plan, "/etc/update-extlinux.conf"),
        "overwrite=1\nroot=UUID=r00t\ndefault_kernel_opts=\"quiet resume=UUID=5wap\"\ndefault=lts\n"
    );
    assert_eq!(ids(&plan), Vec::<&str>::new());
    assert_done(&tree, &plan, &volumes, &mounts, Firmware::Bios);
}

/// SLES 11: GRUB legacy with names by id, which vanish with the hardware.
#[test]
fn suse_11_with_grub_legacy() {
    let volumes = [volume(0, 1, "swap", "5wap"), volume(0, 2, "ext3", "r00t")];
    let id = "/dev/disk/by-id/scsi-36000c29d7b0a3b9d9a0a5a0c4bbd4c9f";
    let mounts = [mount("/", &volumes[1], &format!("{id}-part2"))];
    let config = format!(
        "# Modified by YaST2.\ndefault 0\ntimeout 8\ngfxmenu (hd0,1)/boot/message\n\n###Don't change this comment - YaST2 identifier: Original name: linux###\n\
         title SUSE Linux Enterprise Server 11 SP4 - 3.0.101-63\n    root (hd0,1)\n    kernel /boot/vmlinuz-3.0.101-63-default root={id}-part2 resume={id}-part1 splash=silent crashkernel=256M-:128M showopts vga=0x31a\n    initrd /boot/initrd-3.0.101-63-default\n"
    );
    let tree = MemTree::new()
        .file("/boot/grub/menu.lst", &config)
        .file("/boot/grub/device.map", format!("(hd0)\t{id}\n"))
        .file("/boot/grub/stage2", "")
        .symlink("/boot/grub/grub.conf", "menu.lst");
    let (plan, default) = plan_on(&tree, &volumes, &mounts, Firmware::Bios);
    assert_eq!(default.as_deref(), Some("3.0.101-63-default"));
    assert_eq!(
        written(&plan, "/boot/grub/menu.lst"),
        config.replace(&format!("{id}-part2"), "UUID=r00t").replace(&format!("{id}-part1"), "UUID=5wap")
    );
    assert!(
        plan.edits.iter().any(|edit| edit.path == "/boot/grub/device.map" && edit.action == Action::Remove)
    );
    assert_eq!((plan.edits.len(), ids(&plan)), (2, vec!["linux-no-serial-console"]));
    assert_done(&tree, &plan, &volumes, &mounts, Firmware::Bios);
    // A root that is not on the first disk needs the order.
    let tree = MemTree::new().file("/boot/grub/menu.lst", config.replace("root (hd0,1)", "root (hd1,1)"));
    assert!(ids(&plan_on(&tree, &volumes, &mounts, Firmware::Bios).0).contains(&"linux-grub-by-disk-order"));
}

#[test]
fn loaders_that_are_not_edited_are_named() {
    let volumes = [volume(0, 1, "ext3", "r00t")];
    let mounts = [mount("/", &volumes[0], "/dev/sda1")];
    for path in ["/etc/lilo.conf", "/etc/elilo.conf", "/etc/zipl.conf", "/boot/efi/EFI/refind/refind.conf"] {
        let tree = MemTree::new().file(path, "image=/boot/vmlinuz\n");
        let (plan, _) = plan_on(&tree, &volumes, &mounts, Firmware::Bios);
        let path = path.trim_end_matches("/refind.conf");
        assert!(plan.is_blocked() && plan.findings[0].says.contains(path), "{plan:?}");
        let (plan, _) = plan_on(&tree.file("/boot/grub/grub.cfg", ""), &volumes, &mounts, Firmware::Bios);
        assert_eq!(ids(&plan)[0], "linux-second-loader", "{path}");
    }
    let tree = MemTree::new()
        .file("/boot/efi/EFI/refind/refind.conf", "")
        .file("/boot/refind_linux.conf", "\"Boot\"  \"root=/dev/sda1 ro\"\n");
    let (plan, _) = plan_on(&tree, &volumes, &mounts, Firmware::Uefi);
    assert_eq!(written(&plan, "/boot/refind_linux.conf"), "\"Boot\"  \"root=UUID=r00t ro\"\n");
    assert!(!plan.is_blocked());
}

/// What grub-mkconfig of Debian wrote (here by hand) is still the language of GRUB after it was edited.
#[test]
fn grubs_own_checker_takes_what_was_edited() {
    let Some(checker) = crate::testing::tool("grub-script-check") else { return };
    let tree = MemTree::new().file("/boot/grub/grub.cfg", CFG);
    let plan = run(&tree, Firmware::Bios, &["bios"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grub.cfg");
    for (text, is_fine) in [(written(&plan, "/boot/grub/grub.cfg"), true), ("menuentry {".to_owned(), false)]
    {
        std::fs::write(&path, text).unwrap();
        let out = std::process::Command::new(&checker).arg(&path).output().unwrap();
        assert_eq!(out.status.success(), is_fine, "{}", String::from_utf8_lossy(&out.stderr));
    }
}

mod images {
    use super::*;
    use crate::linux::loader::pe::Pe;
    use crate::linux::loader::pe::tests::program;

    fn tree(image: &[u8]) -> MemTree {
        MemTree::new()
            .file("/efi/EFI/Linux/arch-linux.efi", image)
            .file("/efi/EFI/systemd/systemd-bootx64.efi", "")
            .file("/usr/lib/modules/6.6.1-arch1-1/modules.dep", "")
    }

    fn image(cmdline: &str, is_signed: bool) -> Vec<u8> {
        let sections: [(&str, &[u8]); 4] = [
            (".uname", b"6.6.1-arch1-1\0"),
            (".cmdline", cmdline.as_bytes()),
            (".linux", b"k"),
            (".initrd", b"i"),
        ];
        program(&sections, is_signed)
    }

    #[test]
    fn open_ones_are_kernels_and_fixed_ones_are_said() {
        let volumes = [volume(0, 2, "ext4", "r00t")];
        let mounts = [mount("/", &volumes[0], "UUID=r00t")];
        let look = |tree: &MemTree| {
            let (plan, default) = plan_on(tree, &volumes, &mounts, Firmware::Uefi);
            let kernels = Copies::read(tree, &mounts).unwrap().kernels();
            let found: Vec<String> = ids(&plan).iter().map(|id| (*id).to_owned()).collect();
            (found, default, kernels.len())
        };
        let version = Some("6.6.1-arch1-1".to_owned());
        let open = tree(&image("root=UUID=r00t rw console=ttyS0", false));
        assert_eq!(look(&open), (vec![], version.clone(), 1));
        let silent = tree(&image("root=UUID=r00t rw", false));
        assert_eq!(look(&silent).0, ["linux-no-serial-console"]);
        let by_name = tree(&image("root=/dev/sda2 rw console=ttyS0", false));
        assert_eq!(look(&by_name), (vec!["linux-uki-parameters".to_owned()], version.clone(), 1));
        let signed = tree(&image("rw console=ttyS0", true));
        assert_eq!(look(&signed), (vec!["linux-uki-fixed".to_owned()], version, 0));
        let beside = signed.file("/boot/grub/grub.cfg", "");
        assert_eq!(look(&beside).0, ["linux-uki-left"]);
    }

    /// dracut writes no `.uname`: the kernel inside says its version, or the file's name does.
    #[test]
    fn images_that_do_not_say_their_version() {
        let volumes = [volume(0, 2, "ext4", "r00t")];
        let mounts = [mount("/", &volumes[0], "UUID=r00t")];
        let of = |kernel: &[u8]| {
            program(&[(".cmdline", b"root=UUID=r00t"), (".linux", kernel), (".initrd", b"i")], false)
        };
        let at = |name: &str, image: &[u8]| {
            MemTree::new()
                .file(&format!("/efi/EFI/Linux/{name}"), image)
                .file("/usr/lib/modules/6.6.1-arch1-1/modules.dep", "")
        };
        let kernel = crate::linux::facts::tests::bzimage("6.6.1-arch1-1");
        let named = "linux-6.6.1-arch1-1-0123456789abcdef0123456789abcdef.efi";
        for tree in [at("arch.efi", &of(&kernel)), at(named, &of(b"k"))] {
            let found = facts::kernels(&tree, &[], crate::linux::dpkg::compare_part).unwrap().found;
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].version, "6.6.1-arch1-1");
            assert!(
                plan_on(&tree, &volumes, &mounts, Firmware::Uefi)
                    .0
                    .findings
                    .iter()
                    .all(|f| f.id != "linux-uki-fixed")
            );
        }
        let unknown = at("arch.efi", &of(b"k"));
        let (plan, _) = plan_on(&unknown, &volumes, &mounts, Firmware::Uefi);
        assert!(ids(&plan).contains(&"linux-uki-fixed"), "{:?}", plan.findings);
    }

    /// What the firmware starts by itself is a kernel, too, and what it starts without boot entries is the default.
    #[test]
    fn images_outside_the_usual_folder() {
        let line = b"root=UUID=r00t console=ttyS0";
        let of = |version: &[u8], kernel: &[u8]| {
            let sections: [(&str, &[u8]); 4] =
                [(".uname", version), (".cmdline", line), (".linux", kernel), (".initrd", b"i")];
            program(&sections, false)
        };
        let long = vec![7; 5 << 20];
        let tree = MemTree::new()
            .file("/efi/EFI/boot/bootx64.efi", of(b"6.6.1", &long))
            .file("/efi/EFI/arch/linux.efi", of(b"6.6.2", &long))
            .file("/efi/EFI/arch/short.efi", of(b"6.6.2", b"k"))
            .file("/usr/lib/modules/6.6.1/modules.dep", "")
            .file("/usr/lib/modules/6.6.2/modules.dep", "");
        let volumes = [volume(0, 2, "ext4", "r00t")];
        let mounts = [mount("/", &volumes[0], "UUID=r00t")];
        let (plan, default) = plan_on(&tree, &volumes, &mounts, Firmware::Uefi);
        assert_eq!((default.as_deref(), ids(&plan)), (Some("6.6.1"), Vec::new()));
        let mut kernels: Vec<_> = Copies::read(&tree, &mounts).unwrap().kernels();
        kernels.sort_by(|a, b| a.version.cmp(&b.version));
        let paths: Vec<_> = kernels.iter().map(|kernel| kernel.image.as_str()).collect();
        assert_eq!(paths, ["/efi/EFI/boot/bootx64.efi", "/efi/EFI/arch/linux.efi"]);
    }

    /// Images are long: the facts take one look, and the plan another.
    #[test]
    fn images_are_read_once_a_pass() {
        use crate::family::Family;
        let tree = tree(&image("root=UUID=r00t rw", false)).file("/etc/os-release", "ID=arch\n");
        let tree = facts::tests::Counted::new(tree);
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let guest = crate::linux::arch::Arch.recognise(&scene).unwrap().unwrap();
        assert_eq!((guest.kernels.len(), tree.reads(".efi")), (1, 1));
        crate::linux::arch::Arch.plan(&scene, &guest, &Request::default()).unwrap();
        assert_eq!(tree.reads(".efi"), 2);
    }

    /// Parameters are part of the image; what they name by a hardware address is told.
    #[test]
    fn an_old_hardware_address_inside_is_said() {
        use crate::family::Family;
        let tree =
            tree(&image("rw ifname=lan0:00:50:56:00:00:0a", false)).file("/etc/os-release", "ID=arch\n");
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let guest = crate::linux::arch::Arch.recognise(&scene).unwrap().unwrap();
        for (new, count) in [(None, 0), (Some("52:54:00:00:00:0b"), 1)] {
            let mac = Some("00:50:56:00:00:0a".to_owned());
            let nic = crate::target::Nic { mac, new_mac: new.map(str::to_owned), source_name: None };
            let request = Request { nics: vec![nic], ..Request::default() };
            let plan = crate::linux::arch::Arch.plan(&scene, &guest, &request).unwrap();
            let mut found = plan.findings.iter().filter(|one| one.id == "linux-nic-old-address");
            assert_eq!(found.clone().count(), count, "{:?}", plan.findings);
            assert!(found.all(|one| one.says.contains("/efi/EFI/Linux/arch-linux.efi has")));
        }
    }

    #[test]
    fn an_image_with_a_new_initramfs() {
        use crate::linux::initramfs::{Compressor, Rewritten};
        let old = image("rw", false);
        let new = uki::rewrite(&old, |archive| {
            assert_eq!(archive, b"i");
            Ok(Rewritten {
                bytes: b"much longer".to_vec(),
                changed: true,
                added: Vec::new(),
                already: Vec::new(),
                builtin: Vec::new(),
                missing: Vec::new(),
                warnings: Vec::new(),
                names_left: Vec::new(),
                compressor: Compressor::None,
                old_size: landfall_image::Bytes(1),
                new_size: landfall_image::Bytes(11),
            })
        });
        let new = new.unwrap().bytes;
        let pe = Pe::parse(&new).unwrap();
        assert_eq!(pe.section(".initrd").unwrap(), b"much longer");
        assert_eq!(pe.section(".cmdline").unwrap(), b"rw");
    }
}

proptest! {
    /// What is no device name of a parameter stays byte for byte, and a second pass finds nothing to do.
    #[test]
    fn no_configuration_panics_and_nothing_else_changes(
        file in "(menuentry|linux|initrd|title|label|append|kernel|root=/dev/sda1|resume=/dev/sda5|[{}\n\r\t '\"=\\\\#]|\u{ff}){0,40}",
    ) {
        let volumes = [volume(0, 1, "ext4", "r00t"), volume(0, 5, "swap", "5wap")];
        let devices = Devices::new(&volumes, &[]);
        let edit = |file: &[u8]| {
            let mut parameters = parameters::Parameters::new(&devices);
            parameters::edit_entries(file, |body, place| parameters.line(body, place))
        };
        if let Some(once) = edit(file.as_bytes()) {
            prop_assert_eq!(edit(&once), None);
            let back = |text: &str| {
                text.replace("UUID=r00t", "/dev/sda1").replace("UUID=5wap", "/dev/sda5")
                    .replace("PARTUUID=10000000-01", "/dev/sda1").replace("PARTUUID=10000000-05", "/dev/sda5")
            };
            prop_assert_eq!(back(std::str::from_utf8(&once).unwrap()), file);
        }
    }
}
