//! What is put on the EFI system partition.

use super::super::device::tests::{mount, volume};
use super::*;
use crate::family::Scene;
use crate::guest::Fact;
use crate::patch::PatchPlan;
use crate::target::Platform;
use crate::tree::mem::MemTree;

fn run(tree: &MemTree, architecture: &str) -> PatchPlan {
    let volumes = [volume(0, 1, "vfat", "AB-CD"), volume(0, 2, "ext4", "r00t")];
    let mounts = [mount("/", &volumes[1], "UUID=r00t"), mount("/boot/efi", &volumes[0], "UUID=AB-CD")];
    let guest = Guest {
        family: "debian".into(),
        distribution: Fact::new("debian", ""),
        version: Fact::new("12", ""),
        name: Fact::new("", ""),
        architecture: Fact::new(architecture, ""),
        host_name: None,
        kernels: Vec::new(),
        mounts: mounts.to_vec(),
        init: None,
        boot_modes: vec![Fact::new("uefi", "")],
        interfaces: Vec::new(),
        agents: Vec::new(),
        windows: None,
    };
    let scene = Scene { tree, volumes: &volumes, mounts: &mounts };
    let mut draft = Draft::new(&scene);
    let request = Request { platform: Platform::Kvm, firmware: Firmware::Uefi, ..Request::default() };
    let copies = Copies::read(tree, &mounts).unwrap();
    plan(&mut draft, &guest, &request, &copies).unwrap();
    draft.finish()
}

fn copies(plan: &PatchPlan) -> Vec<String> {
    plan.edits
        .iter()
        .map(|edit| match &edit.action {
            Action::Copy { from } => format!("{} <- {from}", edit.path),
            Action::Write { contents, .. } => format!("{} = {contents:?}", edit.path),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn shim_and_its_company_are_copied() {
    let tree = MemTree::new()
        .file("/boot/efi/EFI/debian/shimx64.efi", "s")
        .file("/boot/efi/EFI/debian/grubx64.efi", "g")
        .file("/boot/efi/EFI/debian/mmx64.efi", "m")
        .file("/boot/efi/EFI/debian/fbx64.efi", "f")
        .file("/boot/efi/EFI/debian/BOOTX64.CSV", "c");
    assert_eq!(
        copies(&run(&tree, "x86_64")),
        [
            "/boot/efi/EFI/debian/grub.cfg = \"search.fs_uuid r00t root\\nset prefix=($root)'/boot/grub'\\nconfigfile $prefix/grub.cfg\\n\"",
            "/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/debian/shimx64.efi",
            "/boot/efi/EFI/BOOT/grubx64.efi <- /boot/efi/EFI/debian/grubx64.efi",
            "/boot/efi/EFI/BOOT/mmx64.efi <- /boot/efi/EFI/debian/mmx64.efi",
            "/boot/efi/EFI/BOOT/fbx64.efi <- /boot/efi/EFI/debian/fbx64.efi",
        ]
    );
}

#[test]
fn grub_alone_becomes_the_fallback() {
    let tree = MemTree::new().file("/boot/efi/EFI/debian/grubaa64.efi", "g");
    assert_eq!(
        copies(&run(&tree, "aarch64")),
        ["/boot/efi/EFI/BOOT/BOOTAA64.EFI <- /boot/efi/EFI/debian/grubaa64.efi"]
    );
}

#[test]
fn what_is_there_in_any_case_is_kept() {
    let stub =
        "search.fs_uuid r00t root hd0,gpt2\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";
    let tree = MemTree::new()
        .file("/boot/efi/EFI/debian/shimx64.efi", "s")
        .file("/boot/efi/EFI/debian/grubx64.efi", "g")
        .file("/boot/efi/EFI/debian/grub.cfg", stub)
        .file("/boot/efi/EFI/boot/bootx64.efi", "something else");
    let plan = run(&tree, "x86_64");
    assert!(plan.edits.is_empty() && plan.findings[0].id == "linux-efi-fallback-unknown", "{plan:?}");
    // A shim whose GRUB is missing gets it.
    let tree = tree.file("/boot/efi/EFI/boot/bootx64.efi", "s");
    assert_eq!(
        copies(&run(&tree, "x86_64")),
        ["/boot/efi/EFI/boot/grubx64.efi <- /boot/efi/EFI/debian/grubx64.efi"]
    );
}

fn shim(maker: &str, version: &str) -> Vec<u8> {
    let sbat = format!("sbat,1,x\nshim,3,UEFI shim,shim,1,x\nshim.{maker},1,x,shim,{version},x\n");
    let sections = [(".text", &b"UEFI SHIM\n$Version: 15 $\n"[..]), (".sbat", sbat.as_bytes())];
    super::super::loader::pe::tests::program(&sections, true)
}

fn systemd_boot(version: &str) -> Vec<u8> {
    let magic = format!("#### LoaderInfo: systemd-boot {version} ####");
    super::super::loader::pe::tests::program(&[(".sdmagic", magic.as_bytes())], false)
}

fn windows() -> Vec<u8> {
    let name: Vec<u8> = "bootmgfw.efi".encode_utf16().flat_map(u16::to_le_bytes).collect();
    super::super::loader::pe::tests::program(&[(".rsrc", &name)], true)
}

/// A guest with Debian's signed loaders.
fn debian() -> MemTree {
    MemTree::new()
        .file("/boot/grub/grub.cfg", "")
        .file("/boot/efi/EFI/debian/shimx64.efi", shim("debian", "15.8"))
        .file("/boot/efi/EFI/debian/grubx64.efi", grub("/EFI/debian"))
        .file("/boot/efi/EFI/debian/grub.cfg", "")
        .file("/boot/efi/EFI/debian/fbx64.efi", "fb")
        .file("/boot/efi/EFI/debian/BOOTX64.CSV", "c")
}

const FALLBACK: &str = "/boot/efi/EFI/BOOT/BOOTX64.EFI";

#[test]
fn what_cannot_start_the_guest_is_replaced_and_kept() {
    for (other, what) in [
        (windows(), "the boot manager of Windows"),
        (systemd_boot("252"), "systemd-boot"),
        (shim("fedora", "15.8"), "the shim of fedora"),
        (grub("/EFI/fedora"), "the GRUB of EFI/fedora"),
    ] {
        let plan =
            run(&debian().file(FALLBACK, other).file("/boot/efi/EFI/BOOT/grubx64.efi", "another"), "x86_64");
        assert_eq!(
            copies(&plan),
            [
                "/boot/efi/EFI/BOOT/BOOTX64.EFI.landfall-old <- /boot/efi/EFI/BOOT/BOOTX64.EFI",
                "/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/debian/shimx64.efi",
                "/boot/efi/EFI/BOOT/grubx64.efi.landfall-old <- /boot/efi/EFI/BOOT/grubx64.efi",
                "/boot/efi/EFI/BOOT/grubx64.efi <- /boot/efi/EFI/debian/grubx64.efi",
                "/boot/efi/EFI/BOOT/fbx64.efi <- /boot/efi/EFI/debian/fbx64.efi",
            ],
            "{what}"
        );
        assert_eq!(plan.findings[0].id, "linux-efi-fallback-replaced");
        assert!(plan.findings[0].says.contains(what), "{:?}", plan.findings);
    }
    // Unsigned GRUB fits the modules of its own version only.
    let own = |version: &str| [grub("(,gpt2)/boot/grub"), version.into()].concat();
    let alone = MemTree::new()
        .file("/boot/grub/grub.cfg", "")
        .file("/boot/efi/EFI/debian/grubx64.efi", own("2.12"))
        .file(FALLBACK, own("2.04"));
    let plan = run(&alone, "x86_64");
    assert_eq!(copies(&plan).len(), 2);
    assert_eq!(plan.findings[0].id, "linux-efi-fallback-replaced");
    // A second pass finds a copy.
    assert_eq!(run(&alone.file(FALLBACK, own("2.12")), "x86_64").edits, []);
}

#[test]
fn what_starts_the_guest_is_right_as_it_is() {
    for (present, beside) in [
        (shim("debian", "15.8"), "grubx64.efi"),
        (shim("debian", "15.4"), "grubx64.efi"),
        // The restorer makes the entries of every list anew.
        (shim("fedora", "15.8"), "fbx64.efi"),
        (grub("/EFI/debian"), "x"),
        ([grub("/EFI/debian"), b"2.04".to_vec()].concat(), "x"),
    ] {
        let tree = debian().file(FALLBACK, present).file(&format!("/boot/efi/EFI/BOOT/{beside}"), "x");
        let plan = run(&tree, "x86_64");
        assert!(plan.edits.is_empty() && plan.findings.is_empty(), "{beside}: {plan:?}");
    }
    // An older shim alone gets what it starts.
    assert_eq!(
        copies(&run(&debian().file(FALLBACK, shim("debian", "15.4")), "x86_64")),
        ["/boot/efi/EFI/BOOT/grubx64.efi <- /boot/efi/EFI/debian/grubx64.efi"]
    );
    // The owner's own way to secure boot: a distribution without shim, started by another one's.
    let arch = MemTree::new()
        .file("/boot/grub/grub.cfg", "")
        .file("/boot/efi/EFI/arch/grubx64.efi", grub("(,gpt2)/grub"));
    let plan = run(&arch.file(FALLBACK, shim("fedora", "15.8")), "x86_64");
    assert_eq!((plan.edits.len(), plan.findings[0].id), (0, "linux-efi-fallback-unknown"));
    let systemd = MemTree::new().file("/boot/efi/EFI/systemd/systemd-bootx64.efi", systemd_boot("257"));
    let plan = run(&systemd.clone().file(FALLBACK, systemd_boot("252")), "x86_64");
    assert!(plan.edits.is_empty() && plan.findings.is_empty(), "{plan:?}");
    let plan = run(&systemd.clone().file(FALLBACK, windows()), "x86_64");
    assert_eq!(copies(&plan).len(), 2);
    let plan = run(&systemd.file(FALLBACK, "refind"), "x86_64");
    assert_eq!((plan.edits.len(), plan.findings[0].id), (0, "linux-efi-fallback-unknown"));
}

/// GRUB's program with this prefix.
fn grub(prefix: &str) -> Vec<u8> {
    let size = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
    let object = [&3u32.to_le_bytes()[..], &size(prefix.len() + 9), prefix.as_bytes(), b"\0"].concat();
    let zero = [0u8; 4];
    let head = [b"mimg", &zero[..], &24u32.to_le_bytes(), &zero, &size(24 + object.len()), &zero].concat();
    super::super::loader::pe::tests::program(&[("mods", &[head, object].concat())], false)
}

#[test]
fn grub_of_debian_in_the_folder_of_a_relative() {
    let tree = MemTree::new()
        .file("/boot/efi/EFI/kali/shimx64.efi", "s")
        .file("/boot/efi/EFI/kali/grubx64.efi", grub("/EFI/debian"))
        .file("/boot/efi/EFI/kali/grub.cfg", "");
    let made = copies(&run(&tree, "x86_64"));
    assert!(made[0].starts_with("/boot/efi/EFI/debian/grub.cfg = "), "{made:?}");
}

#[test]
fn suse_takes_its_configuration_along() {
    let tree = MemTree::new()
        .file("/boot/efi/EFI/opensuse/shim.efi", "s")
        .file("/boot/efi/EFI/opensuse/grub.efi", grub(""))
        .file("/boot/efi/EFI/opensuse/MokManager.efi", "m")
        .file(
            "/boot/efi/EFI/opensuse/grub.cfg",
            "set btrfs_relative_path=\"yes\"\nsearch --fs-uuid --set=root r00t\n",
        );
    assert_eq!(
        copies(&run(&tree, "x86_64")),
        [
            "/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/opensuse/shim.efi",
            "/boot/efi/EFI/BOOT/grub.efi <- /boot/efi/EFI/opensuse/grub.efi",
            "/boot/efi/EFI/BOOT/grub.cfg <- /boot/efi/EFI/opensuse/grub.cfg",
            "/boot/efi/EFI/BOOT/MokManager.efi <- /boot/efi/EFI/opensuse/MokManager.efi",
        ]
    );
}

#[test]
fn every_vendors_folder() {
    for folder in
        ["redhat", "fedora", "centos", "rocky", "almalinux", "amzn", "arch", "GRUB", "alpine", "sles"]
    {
        let tree = MemTree::new()
            .file(&format!("/boot/efi/EFI/{folder}/grubx64.efi"), grub("(,gpt2)/boot/grub"))
            .file(&format!("/boot/efi/EFI/{folder}/grub.cfg"), "");
        assert_eq!(
            copies(&run(&tree, "x86_64")),
            [format!("/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/{folder}/grubx64.efi")]
        );
    }
    // RHEL 6: GRUB legacy reads the file that is called like itself.
    let tree = MemTree::new()
        .file("/boot/efi/EFI/redhat/grub.efi", "g")
        .file("/boot/efi/EFI/redhat/grub.conf", "default=0\n");
    assert_eq!(
        copies(&run(&tree, "x86_64")),
        [
            "/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/redhat/grub.efi",
            "/boot/efi/EFI/BOOT/BOOTX64.conf <- /boot/efi/EFI/redhat/grub.conf",
        ]
    );
}

#[test]
fn systemd_boot_becomes_the_fallback_where_it_is_the_loader() {
    let tree = MemTree::new().file("/boot/efi/EFI/systemd/systemd-bootx64.efi", "s");
    let copy = "/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/systemd/systemd-bootx64.efi";
    assert_eq!(copies(&run(&tree, "x86_64")), [copy]);
    let tree = tree.file("/boot/efi/EFI/debian/grubx64.efi", "g");
    assert_eq!(copies(&run(&tree, "x86_64")), [copy], "GRUB is a leftover without a configuration");
    let both = run(&tree.file("/boot/grub/grub.cfg", ""), "x86_64");
    assert_eq!(copies(&both), ["/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/debian/grubx64.efi"]);
}

#[test]
fn loaders_of_32_bit_firmware_block() {
    let tree = MemTree::new().file("/boot/efi/EFI/debian/grubia32.efi", "g");
    for architecture in ["x86_64", "i686"] {
        let plan = run(&tree, architecture);
        assert!(plan.is_blocked() && plan.findings[0].id == "linux-efi-bits", "{plan:?}");
    }
    let both = tree.file("/boot/efi/EFI/debian/grubx64.efi", "g");
    assert_eq!(
        copies(&run(&both, "i686")),
        ["/boot/efi/EFI/BOOT/BOOTX64.EFI <- /boot/efi/EFI/debian/grubx64.efi"]
    );
}

#[test]
fn an_empty_partition_blocks() {
    assert!(run(&MemTree::new().file("/boot/efi/EFI/x/y.efi", ""), "x86_64").is_blocked());
}

/// An image that only a boot entry started, and one that lies in the fallback's place itself.
#[test]
fn images_that_the_firmware_starts() {
    use crate::linux::loader::pe::tests::program;
    let image = |kernel: &[u8]| program(&[(".uname", b"6.12"), (".linux", kernel), (".initrd", b"i")], false);
    let with_modules = MemTree::new().file("/usr/lib/modules/6.12/modules.dep", "");
    let alone = with_modules.clone().file("/boot/efi/EFI/Linux/debian.efi", image(b"k"));
    let plan = run(&alone, "x86_64");
    let found: Vec<_> = plan.findings.iter().map(|finding| finding.id).collect();
    assert_eq!((plan.edits.len(), found), (0, vec!["linux-no-efi-loader"]));
    let packaged = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    let expected = [format!("/boot/efi/EFI/BOOT/BOOTX64.EFI <- {packaged}")];
    assert_eq!(copies(&run(&alone.file(packaged, "s"), "x86_64")), expected);

    let long = image(&vec![7; 5 << 20]);
    let tree = with_modules.file("/boot/efi/EFI/BOOT/BOOTX64.EFI", &long).file(packaged, "s");
    let plan = run(&tree, "x86_64");
    assert_eq!((plan.edits.len(), plan.findings.len()), (0, 0), "{:?}", plan.findings);
    // Beside systemd-boot it is still what the guest starts by; another system's is not.
    let beside = tree.file("/boot/efi/EFI/systemd/systemd-bootx64.efi", "s");
    assert_eq!(run(&beside, "x86_64").findings.len(), 0);
    let foreign = MemTree::new()
        .file("/boot/efi/EFI/BOOT/BOOTX64.EFI", &long)
        .file("/boot/efi/EFI/systemd/systemd-bootx64.efi", "s");
    let found: Vec<_> = run(&foreign, "x86_64").findings.iter().map(|finding| finding.id).collect();
    assert_eq!(found, ["linux-efi-fallback-unknown"]);
}
