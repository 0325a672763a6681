//! What each tool is told, in the cases that whole guests do not show.

use super::*;
use crate::family::Scene;
use crate::linux::facts;
use crate::linux::packages::World;
use crate::patch::PatchPlan;
use crate::target::{Firmware, Platform};
use crate::testing::written;
use crate::tree::mem::MemTree;
use proptest::prelude::*;

fn run(tree: &MemTree, builder: Builder) -> PatchPlan {
    let scene = Scene { tree, volumes: &[], mounts: &[] };
    let mut draft = Draft::new(&scene);
    draft.builder = builder;
    let kernels = facts::kernels(tree, &[], World::Rpm.order()).unwrap();
    let request = Request { platform: Platform::Kvm, firmware: Firmware::Bios, ..Request::default() };
    let known = drivers::plan(&mut draft, &kernels, None, &request, &[]).unwrap();
    plan(&mut draft, &kernels, &known, &request).unwrap();
    draft.finish()
}

fn kernel(tree: MemTree, version: &str, modules: &str) -> MemTree {
    let list: String = modules.split_whitespace().map(|name| format!("kernel/x/{name}.ko:\n")).collect();
    tree.file(&format!("/boot/vmlinuz-{version}"), "")
        .file(&format!("/lib/modules/{version}/modules.dep"), list)
}

/// The file after a run, and that a second run leaves it alone.
fn once(tree: &MemTree, builder: Builder, path: &str) -> Option<String> {
    let new = written(&run(tree, builder), path)?;
    let again = run(&tree.clone().file(path, &new), builder);
    assert_eq!(written(&again, path), None, "once is enough");
    Some(new)
}

const MODULES: &str = "virtio_pci virtio_blk sd_mod ata_piix hv_vmbus virtio_net";

#[test]
fn modprobe_conf_gets_what_the_newest_kernel_has() {
    let path = "/etc/modprobe.conf";
    let tree = kernel(MemTree::new(), "2.6.18-398.el5", MODULES);
    let one = once(&tree.clone().file(path, "# eth\nalias eth0 e1000\nalias eth1 virtio_net\nalias scsi_hostadapter mptspi\nalias scsi_hostadapter7 ata_piix\noptions x y\n"), Builder::MkinitrdRedHat, path);
    assert_eq!(
        one.as_deref(),
        Some(
            "# eth\nalias eth0 e1000\nalias eth1 virtio_net\nalias scsi_hostadapter mptspi\nalias scsi_hostadapter7 ata_piix\noptions x y\nalias scsi_hostadapter8 virtio_pci\nalias scsi_hostadapter9 virtio_blk\nalias scsi_hostadapter10 sd_mod\nalias eth0 virtio_net\n"
        )
    );
    let none = once(&tree, Builder::MkinitrdRedHat, path).unwrap();
    assert!(
        none.starts_with("alias scsi_hostadapter virtio_pci\nalias scsi_hostadapter1 virtio_blk\n"),
        "{none}"
    );
    // mkinitrd stops where a kernel lacks a module that is named: only the next kernel counts, which is like the newest.
    let two = kernel(tree, "2.6.18-8.el5", "sd_mod ahci");
    assert_eq!(once(&two, Builder::MkinitrdRedHat, path).as_deref(), Some(none.as_str()));
    assert_eq!(once(&MemTree::new(), Builder::MkinitrdRedHat, path), None);
}

#[test]
fn initrd_modules_are_added_to() {
    let path = "/etc/sysconfig/kernel";
    let tree = kernel(MemTree::new(), "3.0.101-108-default", MODULES);
    for (old, new) in [
        (
            "INITRD_MODULES=\"ata-piix ext3\"\nDOMU_INITRD_MODULES=\"xenblk\"\n",
            "INITRD_MODULES=\"ata-piix ext3 virtio_pci virtio_blk sd_mod\"\nDOMU_INITRD_MODULES=\"xenblk\"\n",
        ),
        ("INITRD_MODULES=\"\"\n", "INITRD_MODULES=\"virtio_pci virtio_blk sd_mod ata_piix\"\n"),
        ("# nothing\n", "# nothing\nINITRD_MODULES=\"virtio_pci virtio_blk sd_mod ata_piix\"\n"),
    ] {
        assert_eq!(once(&tree.clone().file(path, old), Builder::MkinitrdSuse, path).as_deref(), Some(new));
    }
}

#[test]
fn mkinitcpio_conf_gets_modules_in_its_own_syntax() {
    let path = "/etc/mkinitcpio.conf";
    let tree = kernel(MemTree::new(), "6.6.58-1-lts", MODULES);
    let added = "'virtio_pci?' 'sd_mod?' 'ata_piix?' 'hv_vmbus?'";
    let note = "# Added by landfall: disk drivers of other hypervisors, which autodetect would leave out.";
    let new =
        once(&tree.clone().file(path, "# virtio_pci\nMODULES=(virtio-blk)\n"), Builder::Mkinitcpio, path);
    assert_eq!(new.unwrap(), format!("# virtio_pci\nMODULES=(virtio-blk)\n{note}\nMODULES+=({added})\n"));
    let new = once(&tree.clone().file(path, "MODULES=\"virtio_blk\"\n"), Builder::Mkinitcpio, path);
    assert_eq!(
        new.unwrap(),
        format!("MODULES=\"virtio_blk\"\n{note}\nMODULES+=\" {}\"\n", added.replace('\'', ""))
    );
    // A preset may name another file: then that one is read.
    let tree = tree
        .file(path, "MODULES=()\n")
        .file("/etc/mkinitcpio.d/a.preset", "#ALL_config=\"/etc/not\"\nALL_config=\"/etc/other.conf\"\n")
        .file("/etc/other.conf", "MODULES=()\n");
    assert_eq!(once(&tree, Builder::Mkinitcpio, path), None);
    assert!(once(&tree, Builder::Mkinitcpio, "/etc/other.conf").is_some());
}

#[test]
fn drop_ins_of_mkinitcpio_that_set_the_list_are_done_too() {
    let (own, other) = ("/etc/mkinitcpio.conf.d/nvidia.conf", "/etc/mkinitcpio.conf.d/hooks.conf");
    let tree = kernel(MemTree::new(), "6.6.58-1-lts", MODULES)
        .file("/etc/mkinitcpio.conf", "MODULES=()\n")
        .file(own, "MODULES=(nvidia)\n")
        .file(other, "HOOKS=(base udev)\nMODULES+=(x)\n");
    for path in ["/etc/mkinitcpio.conf", own] {
        assert!(once(&tree, Builder::Mkinitcpio, path).unwrap().contains("'virtio_blk?'"), "{path}");
    }
    assert_eq!(once(&tree, Builder::Mkinitcpio, other), None);
}

#[test]
fn what_dracut_leaves_out_is_said() {
    let tree = kernel(MemTree::new(), "5.14.0-427.el9.x86_64", MODULES)
        .file("/etc/dracut.conf", "#omit_drivers+=\" sd_mod \"\n")
        .file(
            "/etc/dracut.conf.d/a.conf",
            "omit_drivers+=\" nouveau virtio-blk \"\nadd_drivers+=\" sd_mod \"\n",
        );
    let findings = run(&tree, Builder::Dracut).findings;
    let said: Vec<_> = findings.iter().filter(|finding| finding.id == "linux-driver-forbidden").collect();
    assert!(said.len() == 1 && said[0].says.contains("driver virtio_blk out of"), "{said:?}");
}

#[test]
fn mkinitfs_gets_a_feature() {
    let conf = "/etc/mkinitfs/mkinitfs.conf";
    let tree = kernel(MemTree::new(), "6.6.58-0-lts", MODULES);
    assert_eq!(run(&tree, Builder::Mkinitfs).edits, []);
    let tree = tree.file(conf, "# features=\"\"\nfeatures=\"base scsi\"\n");
    assert_eq!(
        once(&tree, Builder::Mkinitfs, conf).unwrap(),
        "# features=\"\"\nfeatures=\"base scsi landfall\"\n"
    );
    assert_eq!(
        once(&tree, Builder::Mkinitfs, MKINITFS_FEATURE).unwrap(),
        "kernel/x/ata_piix.ko*\nkernel/x/hv_vmbus.ko*\nkernel/x/sd_mod.ko*\nkernel/x/virtio_blk.ko*\nkernel/x/virtio_pci.ko*\n"
    );
}

#[test]
fn the_tool_is_found_by_its_program() {
    let found = |path: &str| {
        let candidates = [Builder::Dracut, Builder::MkinitrdRedHat];
        Builder::found(&MemTree::new().file(path, ""), &candidates).unwrap()
    };
    assert_eq!(found("/sbin/dracut"), Builder::Dracut);
    assert_eq!(found("/sbin/mkinitrd"), Builder::MkinitrdRedHat);
    assert_eq!(found("/usr/bin/booster"), Builder::Unknown);
    let tree = kernel(MemTree::new(), "6.6.58-1-lts", MODULES);
    let plan = run(&tree, Builder::Unknown);
    let finding = plan.findings.iter().find(|finding| finding.id == "linux-initramfs-tool-unknown");
    assert!(finding.unwrap().remedy.contains("virtio_blk"));
}

proptest! {
    #[test]
    fn no_file_panics_and_once_is_enough(text in "(MODULES=|INITRD_MODULES=|features=|alias |scsi_hostadapter|eth0|99999999999|[0-9 \"'()\n#]){0,30}") {
        for (path, builder) in [
            ("/etc/modprobe.conf", Builder::MkinitrdRedHat),
            ("/etc/sysconfig/kernel", Builder::MkinitrdSuse),
            ("/etc/mkinitcpio.conf", Builder::Mkinitcpio),
        ] {
            let tree = kernel(MemTree::new(), "1", MODULES).file(path, &text);
            if let Some(new) = written(&run(&tree, builder), path) {
                prop_assert!(new.len() > text.len());
            }
        }
    }
}
