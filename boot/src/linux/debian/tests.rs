//! Whole guests: golden plans, the facts behind them, and that a patched guest needs nothing more.

use super::*;
use crate::apply::Change;
use crate::family::{Family, Scene};
use crate::guest::{Guest, Mount};
use crate::linux::device::tests::{mount, volume};
use crate::patch::{Action, PatchPlan};
use crate::target::{DiskModel, Firmware, Nic, Platform, Request};
use crate::tree::GuestTree;
use crate::tree::mem::MemTree;
use crate::volume::{Volume, VolumeId};
use landfall_image::Bytes;
use std::fmt::Write;
use std::path::Path;

pub(in crate::linux) struct Machine {
    pub(in crate::linux) tree: MemTree,
    pub(in crate::linux) volumes: Vec<Volume>,
    pub(in crate::linux) mounts: Vec<Mount>,
    pub(in crate::linux) request: Request,
}

impl Machine {
    pub(in crate::linux) fn plan(&self) -> (Guest, PatchPlan) {
        let scene = Scene { tree: &self.tree, volumes: &self.volumes, mounts: &self.mounts };
        let (family, guest) = crate::family::recognise(&scene).unwrap().expect("a family knows the guest");
        let plan = family.plan(&scene, &guest, &self.request).unwrap();
        (guest, plan)
    }

    /// Carries a plan out, initramfs edits aside.
    fn apply(&mut self, plan: &PatchPlan) {
        let mut changes = Vec::new();
        for edit in &plan.edits {
            let path = edit.path.clone();
            match &edit.action {
                Action::Write { contents, mode } => {
                    changes.push(Change::Put { path, bytes: contents.0.clone(), mode: *mode });
                }
                Action::Copy { from } => {
                    let bytes = self.tree.read(from, Bytes::mib(1)).unwrap().unwrap();
                    changes.push(Change::Put { path, bytes, mode: 0o644 });
                }
                Action::Symlink { target } => changes.push(Change::Symlink { path, target: target.clone() }),
                Action::Remove => changes.push(Change::Remove { path }),
                Action::Initramfs(_) | Action::Registry(_) | Action::Stage(_) => {}
            }
        }
        self.tree.apply(&changes).unwrap();
    }

    /// The plan of a guest that was patched already has initramfs edits only, whose files are the same.
    pub(in crate::linux) fn no_more_after_one_run(mut self) {
        let (_, first) = self.plan();
        let paths: std::collections::BTreeSet<_> = first.edits.iter().map(|edit| &edit.path).collect();
        assert_eq!(paths.len(), first.edits.len(), "one edit per path");
        self.apply(&first);
        let (_, second) = self.plan();
        let left: Vec<_> =
            second.edits.iter().filter(|edit| !matches!(edit.action, Action::Initramfs(_))).collect();
        assert!(left.is_empty(), "{left:#?}");
        assert!(!second.is_blocked() || first.is_blocked());
    }
}

/// A plan as people read it.
pub(in crate::linux) fn show(guest: &Guest, plan: &PatchPlan) -> String {
    let mut text = String::new();
    writeln!(
        text,
        "{} | {} | {}",
        guest.name.value,
        guest.architecture.value,
        guest.init.as_ref().map_or("", |init| &init.value)
    )
    .unwrap();
    for kernel in &guest.kernels {
        writeln!(text, "kernel {} {:?}", kernel.version, kernel.initramfs).unwrap();
    }
    for mode in &guest.boot_modes {
        writeln!(text, "starts by {} ({})", mode.value, mode.proof).unwrap();
    }
    for interface in &guest.interfaces {
        writeln!(
            text,
            "interface {} {:?} {:?} ({})",
            interface.name, interface.mac, interface.addresses, interface.proof
        )
        .unwrap();
    }
    for agent in &guest.agents {
        writeln!(text, "agent {} ({})", agent.value, agent.proof).unwrap();
    }
    for edit in &plan.edits {
        writeln!(text, "\n== {}\n-- {}", edit.path, edit.why).unwrap();
        match &edit.action {
            Action::Write { contents, .. } => text.push_str(&String::from_utf8_lossy(&contents.0)),
            Action::Initramfs(edit) => {
                writeln!(text, "drivers {}\nload {}", edit.drivers.join(" "), edit.load.join(" ")).unwrap();
                for path in &edit.remove {
                    writeln!(text, "remove {path}").unwrap();
                }
                for file in &edit.files {
                    writeln!(text, "file {}", file.path).unwrap();
                }
            }
            other => writeln!(text, "{other:?}").unwrap(),
        }
        for label in &edit.labels {
            writeln!(text, "label {} {}", label.path, label.context).unwrap();
        }
    }
    text.push('\n');
    for finding in &plan.findings {
        writeln!(text, "{:?} {}: {} {}", finding.severity, finding.id, finding.says, finding.remedy).unwrap();
    }
    text
}

fn kernel(tree: MemTree, version: &str, modules: &str, builtin: &str) -> MemTree {
    let list = |names: &str| {
        names.split_whitespace().map(|name| format!("kernel/drivers/x/{name}.ko:\n")).collect::<String>()
    };
    tree.file(&format!("/boot/vmlinuz-{version}"), "")
        .file(&format!("/boot/initrd.img-{version}"), "")
        .file(&format!("/usr/lib/modules/{version}/modules.dep"), list(modules))
        .file(&format!("/usr/lib/modules/{version}/modules.builtin"), list(builtin))
}

const DEBIAN_MODULES: &str = "virtio_pci virtio_blk virtio_scsi virtio_net sd_mod ahci ata_piix nvme vmw_pvscsi mptspi mptsas hv_vmbus hv_storvsc xen-blkfront vmxnet3 e1000";

fn packages(names: &[&str]) -> String {
    let mut status = String::new();
    for name in names {
        writeln!(
            status,
            "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n"
        )
        .unwrap();
    }
    status
}

pub(in crate::linux) fn request(firmware: Firmware, nics: &[(&str, &str)]) -> Request {
    let nic = |(mac, name): &(&str, &str)| Nic {
        mac: Some((*mac).to_owned()),
        source_name: (!name.is_empty()).then(|| (*name).to_owned()),
        ..Nic::default()
    };
    Request { platform: Platform::Kvm, firmware, nics: nics.iter().map(nic).collect(), ..Request::default() }
}

fn grub_entry(version: &str, root: &str) -> String {
    format!(
        "menuentry 'Debian GNU/Linux, with Linux {version}' --class debian --class gnu-linux --class gnu --class os {{\n\tload_video\n\tinsmod gzio\n\tinsmod part_msdos\n\tinsmod ext2\n\tset root='hd0,msdos1'\n\tsearch --no-floppy --fs-uuid --set=root 4b0ee76e-0c62-4f8e-a0d1-3d1d6f0a0001\n\techo\t'Loading Linux {version} ...'\n\tlinux\t/boot/vmlinuz-{version} root={root} ro  quiet\n\techo\t'Loading initial ramdisk ...'\n\tinitrd\t/boot/initrd.img-{version}\n}}\n"
    )
}

const ROOT: &str = "4b0ee76e-0c62-4f8e-a0d1-3d1d6f0a0001";
const SWAP: &str = "4b0ee76e-0c62-4f8e-a0d1-3d1d6f0a0005";

pub(in crate::linux) fn usr_merged() -> MemTree {
    MemTree::new()
        .symlink("/lib", "usr/lib")
        .symlink("/sbin", "usr/sbin")
        .symlink("/bin", "usr/bin")
        .symlink("/usr/sbin/init", "../lib/systemd/systemd")
        .file("/usr/lib/systemd/systemd", "")
}

/// A small server as the Debian 12 installer leaves it on ESXi, with device names.
fn debian_12() -> Machine {
    let tree = usr_merged().files(&[
        ("/usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"),
        ("/etc/hostname", "web01\n"),
        ("/etc/fstab", "# /etc/fstab: static file system information.\n#\n# <file system> <mount point>   <type>  <options>       <dump>  <pass>\n/dev/sda1 /               ext4    errors=remount-ro 0       1\n/dev/sda5 none            swap    sw              0       0\n/dev/sr0        /media/cdrom0   udf,iso9660 user,noauto     0       0\n"),
        ("/etc/initramfs-tools/initramfs.conf", "MODULES=dep\nBUSYBOX=auto\n"),
        ("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/sda5\n"),
        ("/etc/initramfs-tools/modules", "# List of modules that you want to include in your initramfs.\n#\n# Examples:\n#\n# raid1\n# sd_mod\n"),
        ("/etc/network/interfaces", "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\nallow-hotplug ens192\niface ens192 inet static\n\taddress 192.168.7.10/24\n\tgateway 192.168.7.1\n"),
        ("/etc/default/grub", "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n#GRUB_DISABLE_LINUX_UUID=true\n"),
        ("/var/lib/dpkg/status", &packages(&["dpkg", "ifupdown", "initramfs-tools", "grub-pc", "open-vm-tools"])),
        ("/boot/grub/grub.cfg", &(grub_entry("6.1.0-43-amd64", "/dev/sda1") + &grub_entry("6.1.0-9-amd64", "/dev/sda1"))),
        ("/boot/grub/i386-pc/core.img", ""),
    ]);
    let tree = tree.symlink("/etc/os-release", "../usr/lib/os-release");
    let tree = kernel(tree, "6.1.0-43-amd64", DEBIAN_MODULES, "");
    let tree = kernel(tree, "6.1.0-9-amd64", DEBIAN_MODULES, "");
    let volumes = vec![volume(0, 1, "ext4", ROOT), volume(0, 5, "swap", SWAP)];
    let mounts = vec![mount("/", &volumes[0], "/dev/sda1")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &[("00:50:56:aa:bb:01", "ens192")]) }
}

/// Ubuntu 24.04 server: UEFI without fallback, LVM, netplan, cloud-init, multipath-tools.
fn ubuntu_24_04() -> Machine {
    let fstab = "/dev/disk/by-id/dm-uuid-LVM-abc / ext4 defaults 0 1\n/dev/disk/by-uuid/b00t /boot ext4 defaults 0 1\n/dev/disk/by-uuid/AB-CD /boot/efi vfat defaults 0 1\n/swap.img\tnone\tswap\tsw\t0\t0\n/dev/sdb1 /srv xfs defaults 0 2\n";
    let tree = usr_merged().files(&[
        ("/etc/os-release", "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n"),
        ("/etc/fstab", fstab),
        ("/etc/netplan/50-cloud-init.yaml", "# This file is generated from information provided by the datasource.\nnetwork:\n    ethernets:\n        ens160:\n            addresses:\n            - 10.1.2.3/24\n            nameservers:\n                addresses: [10.1.2.1]\n            routes:\n            -   to: default\n                via: 10.1.2.1\n    version: 2\n"),
        ("/var/lib/dpkg/status", &packages(&["dpkg", "netplan.io", "initramfs-tools", "multipath-tools", "cloud-init", "open-vm-tools", "lvm2"])),
        ("/etc/multipath.conf", "defaults {\n    user_friendly_names yes\n}\n"),
        ("/etc/lvm/devices/system.devices", "IDTYPE=sys_wwid IDNAME=naa.6000c29abc DEVNAME=/dev/sda3 PVID=x\n"),
        ("/etc/default/grub", "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200\"\nGRUB_TERMINAL=serial\n"),
        ("/boot/grub/grub.cfg", "linux\t/vmlinuz-6.8.0-49-generic root=/dev/mapper/ubuntu--vg-ubuntu--lv ro console=ttyS0\ninitrd\t/initrd.img-6.8.0-49-generic\n"),
        ("/boot/efi/EFI/ubuntu/shimx64.efi", "shim"),
        ("/boot/efi/EFI/ubuntu/grubx64.efi", "grub"),
        ("/boot/efi/EFI/ubuntu/mmx64.efi", "mm"),
        ("/boot/efi/EFI/ubuntu/BOOTX64.CSV", "csv"),
        ("/boot/efi/EFI/ubuntu/grub.cfg", "search.fs_uuid b00t root hd0,gpt2 \nset prefix=($root)'/grub'\nconfigfile $prefix/grub.cfg\n"),
    ]);
    let tree = kernel(
        tree,
        "6.8.0-49-generic",
        "virtio_scsi ahci nvme vmw_pvscsi mptspi",
        "virtio_pci virtio_blk virtio_net sd_mod ata_piix hv_vmbus",
    );
    let mut volumes = vec![
        volume(0, 1, "vfat", "AB-CD"),
        volume(0, 2, "ext4", "b00t"),
        volume(0, 3, "lvm", ""),
        volume(1, 1, "xfs", "5a5a"),
    ];
    volumes.push(Volume {
        id: VolumeId("ubuntu-vg/ubuntu-lv".into()),
        device_names: vec!["/dev/ubuntu-vg/ubuntu-lv".into(), "/dev/mapper/ubuntu--vg-ubuntu--lv".into()],
        partition: None,
        offset: None,
        part_uuid: None,
        ..volume(0, 9, "ext4", "1v1v")
    });
    let mounts = vec![
        mount("/", &volumes[4], "/dev/disk/by-id/dm-uuid-LVM-abc"),
        mount("/boot", &volumes[1], "/dev/disk/by-uuid/b00t"),
        mount("/boot/efi", &volumes[0], "/dev/disk/by-uuid/AB-CD"),
        mount("/srv", &volumes[3], "/dev/sdb1"),
    ];
    Machine { tree, mounts, volumes, request: request(Firmware::Uefi, &[("00:50:56:aa:bb:02", "ens160")]) }
}

/// Debian 11 with a bond on two of three cards, whose slots are unknown; the default kernel is a bare one.
fn debian_11_bond() -> Machine {
    let tree = usr_merged().files(&[
        ("/etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 11 (bullseye)\"\nVERSION_ID=\"11\"\nID=debian\n"),
        ("/etc/fstab", "UUID=4b0ee76e-0c62-4f8e-a0d1-3d1d6f0a0001 / xfs defaults 0 0\n/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1 /data ext4 nofail 0 2\n"),
        ("/etc/network/interfaces", "auto bond0\niface bond0 inet static\n  address 10.0.0.2/24\n  bond-slaves ens192 ens224\n  bond-mode active-backup\n"),
        ("/var/lib/dpkg/status", &packages(&["dpkg", "ifupdown", "qemu-guest-agent"])),
        ("/boot/grub/grub.cfg", &grub_entry("5.10.0-32-amd64", "UUID=4b0ee76e-0c62-4f8e-a0d1-3d1d6f0a0001")),
        ("/boot/grub/i386-pc/core.img", ""),
        ("/usr/lib/modules/4.19.0-27-amd64/kernel/x.ko", ""),
        ("/etc/vmware-tools/services.sh", ""),
        ("/etc/init.d/vmware-tools", ""),
    ]);
    let tree = kernel(tree, "5.10.0-32-amd64", "ahci sd_mod", "");
    let volumes = vec![volume(0, 1, "xfs", ROOT)];
    let mounts = vec![mount("/", &volumes[0], "UUID=4b0ee76e-0c62-4f8e-a0d1-3d1d6f0a0001")];
    let nics = [("00:50:56:00:00:01", ""), ("00:50:56:00:00:02", ""), ("00:50:56:00:00:03", "")];
    Machine { tree, mounts, volumes, request: request(Firmware::Bios, &nics) }
}

#[test]
fn debian_12_with_device_names() {
    let machine = debian_12();
    let (guest, plan) = machine.plan();
    assert!(!plan.is_blocked());
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn ubuntu_24_04_uefi_lvm_netplan_multipath() {
    let machine = ubuntu_24_04();
    let (guest, plan) = machine.plan();
    assert!(!plan.is_blocked());
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

/// The card's name stays, on the new address, in the guest and in its initramfs.
#[test]
fn a_card_with_another_address() {
    let mut machine = debian_12();
    let new = "52:54:00:aa:bb:01";
    machine.request.nics[0].new_mac = Some(new.to_owned());
    let (_, plan) = machine.plan();
    let link = crate::testing::written(&plan, "/etc/systemd/network/10-landfall-ens192.link").unwrap();
    assert!(link.contains(&format!("\nMACAddress={new}\n")), "{link}");
    let mut count = 0;
    for edit in &plan.edits {
        let Action::Initramfs(inside) = &edit.action else { continue };
        count += 1;
        assert_eq!(inside.addresses, [("00:50:56:aa:bb:01".to_owned(), new.to_owned())]);
        let copies = inside.files.iter().filter(|file| file.path.contains("landfall-"));
        assert_eq!(copies.filter(|file| format!("{:?}", file.contents).contains(new)).count(), 2);
    }
    assert_eq!(count, 2);
    machine.no_more_after_one_run();
}

#[test]
fn debian_11_that_cannot_be_done_wholly() {
    let machine = debian_11_bond();
    let (guest, plan) = machine.plan();
    assert!(!plan.is_blocked());
    assert_eq!(plan.devices.disks, [DiskModel::Sata], "its kernel knows nothing better");
    insta::assert_snapshot!(show(&guest, &plan));
    machine.no_more_after_one_run();
}

#[test]
fn derivatives_and_old_releases_are_recognised_and_others_are_not() {
    let known = |tree: MemTree| {
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        Debian.recognise(&scene).unwrap().map(|guest| (guest.distribution.value, guest.name.value))
    };
    let release = |text: &str| known(MemTree::new().file("/etc/os-release", text));
    assert_eq!(
        release("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nNAME='Linux Mint'\n"),
        Some(("linuxmint".into(), "Linux Mint".into()))
    );
    assert_eq!(release("ID=fedora\n"), None);
    assert_eq!(known(MemTree::new()), None);
    assert_eq!(
        known(MemTree::new().file("/etc/debian_version", "6.0.10\n")),
        Some(("debian".into(), "Debian GNU/Linux 6.0.10".into()))
    );
}

/// A guest that is nothing but damage still gives findings and no panic.
#[test]
fn damage_gives_findings() {
    let tree = MemTree::new()
        .file("/etc/os-release", "ID=debian\n\u{0}\n")
        .dir("/etc/fstab")
        .symlink("/etc/crypttab", "/etc/crypttab")
        .symlink("/sbin", "/sbin")
        .symlink("/usr/bin/cloud-init", "cloud-init")
        .dir("/etc/network/interfaces")
        .file("/etc/default/grub", vec![b'x'; 5 << 20])
        .file("/boot/grub/grub.cfg", [0xff, 0xfe, 0, b'\n'])
        .file("/var/lib/dpkg/status", [0xff; 100])
        .file("/boot/vmlinuz-1", "");
    let machine =
        Machine { tree, volumes: Vec::new(), mounts: Vec::new(), request: request(Firmware::Bios, &[]) };
    let (_, plan) = machine.plan();
    for id in [
        "linux-file-unreadable",
        "linux-no-fstab",
        "linux-packages-unchecked",
        "linux-default-kernel-unchecked",
        "linux-no-loader",
    ] {
        assert!(plan.findings.iter().any(|finding| finding.id == id), "{id}: {:#?}", plan.findings);
    }
}

#[test]
fn a_flood_of_findings_is_cut_short() {
    let fstab: String = (1..2000).map(|n| format!("/dev/sdz{n} /x{n} ext4 defaults 0 2\n")).collect();
    let mut machine = debian_12();
    machine.tree = machine.tree.file("/etc/fstab", fstab);
    assert!(machine.plan().1.findings.len() < 100);
}

/// The default files of real releases, unpacked by `tools/make-trees.sh`.
#[test]
fn real_default_files() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
    for (suite, version) in [("bullseye", "11"), ("bookworm", "12"), ("trixie", "13")] {
        let folder = guests.join(format!("files-{suite}"));
        if !folder.join("etc").is_dir() {
            eprintln!(
                "SKIPPED: no {}; run tools/make-trees.sh to plan for the real files of Debian {version}",
                folder.display()
            );
            continue;
        }
        let mut tree = MemTree::new();
        load(&folder, &folder, &mut tree);
        let synthetic = debian_12();
        // What the installer writes, on top of what the packages ship.
        for path in [
            "/etc/fstab",
            "/etc/network/interfaces",
            "/boot/grub/grub.cfg",
            "/boot/grub/i386-pc/core.img",
            "/etc/initramfs-tools/conf.d/resume",
        ] {
            tree = tree.file(path, synthetic.tree.read(path, Bytes::mib(1)).unwrap().unwrap());
        }
        let names = [
            "dpkg",
            "ifupdown",
            "initramfs-tools",
            "grub-pc",
            "open-vm-tools",
            "cloud-init",
            "multipath-tools",
            "multipath-tools-boot",
            "lvm2",
            "mdadm",
            "netplan.io",
        ];
        tree = tree.file("/var/lib/dpkg/status", packages(&names));
        let version_of_kernel = tree
            .names("/usr/lib/modules")
            .unwrap()
            .into_iter()
            .chain(tree.names("/lib/modules").unwrap())
            .next()
            .unwrap();
        tree = tree.file(&format!("/boot/initrd.img-{version_of_kernel}"), "");
        let machine = Machine { tree, ..synthetic };
        let (guest, plan) = machine.plan();
        assert_eq!(guest.version.value, version);
        assert_eq!(guest.init.as_ref().unwrap().value, "systemd");
        assert_eq!(guest.kernels.len(), 1, "{suite}");
        assert!(!plan.is_blocked(), "{suite}: {:#?}", plan.findings);
        let initramfs = plan.edits.iter().find_map(|edit| match &edit.action {
            Action::Initramfs(edit) => Some(edit),
            _ => None,
        });
        let drivers = &initramfs.expect("an initramfs edit").drivers;
        for driver in [
            "virtio_blk",
            "virtio_scsi",
            "ahci",
            "ata_piix",
            "nvme",
            "vmw_pvscsi",
            "hv_storvsc",
            "xen_blkfront",
        ] {
            assert!(drivers.iter().any(|name| name == driver), "{suite}: {driver} in {drivers:?}");
        }
        let ids: Vec<_> = plan.findings.iter().map(|finding| finding.id).collect();
        for id in [
            "linux-lvm-filter",
            "linux-multipath-in-use",
            "linux-smart-devices",
            "linux-file-unreadable",
            "linux-driver-forbidden",
        ] {
            assert!(
                !ids.contains(&id),
                "{suite}: nothing of the kind is in the default files: {:#?}",
                plan.findings
            );
        }
        machine.no_more_after_one_run();
    }
}

/// Configuration with content, programs as names.
fn load(root: &Path, folder: &Path, tree: &mut MemTree) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let inner = format!("/{}", path.strip_prefix(root).unwrap().display());
        let kind = entry.file_type().unwrap();
        let wanted = ["/etc", "/lib", "/boot", "/usr", "/sbin", "/bin", "/var"]
            .iter()
            .any(|start| inner.starts_with(start));
        if !wanted
            || inner.starts_with("/usr/share/")
            || inner.starts_with("/usr/lib/x86_64-linux-gnu/")
            || inner.contains("/python3")
        {
            continue;
        }
        *tree = if kind.is_symlink() {
            std::mem::take(tree).symlink(&inner, &std::fs::read_link(&path).unwrap().to_string_lossy())
        } else if kind.is_dir() {
            if !inner.ends_with("/kernel") {
                load(root, &path, tree);
            }
            continue;
        } else if kind.is_file() {
            let small = entry.metadata().unwrap().len() < 1 << 20;
            let is_program = inner.contains("/bin/") || inner.contains("/sbin/");
            let contents = if small && !is_program { std::fs::read(&path).unwrap() } else { Vec::new() };
            std::mem::take(tree).file(&inner, contents)
        } else {
            continue;
        };
    }
}
