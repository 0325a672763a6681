//! Facts of guests in memory.

use super::*;
use crate::guest::Kernel;
use crate::linux::dpkg;
use crate::tree::mem::MemTree;
use crate::tree::{Entry, Meta};
use std::cell::RefCell;

/// A tree that counts what is read of it.
pub struct Counted(MemTree, RefCell<Vec<String>>);

impl Counted {
    pub fn new(tree: MemTree) -> Self {
        Counted(tree, RefCell::default())
    }
    /// Reads of paths that end so.
    pub fn reads(&self, end: &str) -> usize {
        self.1.borrow().iter().filter(|path| path.ends_with(end)).count()
    }
}

impl GuestTree for Counted {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.0.metadata(path)
    }
    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.0.link_metadata(path)
    }
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        self.1.borrow_mut().push(path.to_owned());
        self.0.read(path, at_most)
    }
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        self.0.list(path)
    }
    fn read_link(&self, path: &str) -> Result<Option<String>> {
        self.0.read_link(path)
    }
    fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
        self.0.free_space(path)
    }
}

#[test]
fn kernels_come_newest_first_and_leftovers_are_told_apart() {
    let tree = MemTree::new().symlink("/lib", "usr/lib").files(&[
        ("/boot/vmlinuz-6.1.0-9-amd64", ""),
        ("/boot/initrd.img-6.1.0-9-amd64", ""),
        ("/boot/vmlinuz-6.1.0-43-amd64", ""),
        ("/boot/initrd.img-6.1.0-43-amd64", ""),
        ("/boot/vmlinuz-6.1.0-43-amd64.dpkg-tmp", ""),
        ("/boot/vmlinuz-4.19.0-custom", ""),
        ("/boot/vmlinuz", ""),
        ("/usr/lib/modules/6.1.0-9-amd64/modules.dep", "kernel/drivers/block/virtio-blk.ko.xz: a.ko\n"),
        ("/usr/lib/modules/6.1.0-9-amd64/modules.builtin", "kernel/drivers/scsi/sd_mod.ko\n"),
        ("/usr/lib/modules/6.1.0-43-amd64/modules.dep", ""),
        ("/usr/lib/modules/5.10.0-1-amd64/modules.dep", ""),
    ]);
    let found = kernels(&tree, &[], dpkg::compare_part).unwrap();
    let versions: Vec<_> = found.found.iter().map(|kernel| kernel.version.as_str()).collect();
    assert_eq!(versions, ["6.1.0-43-amd64", "6.1.0-9-amd64", "4.19.0-custom"]);
    assert_eq!(found.leftovers, ["/usr/lib/modules/5.10.0-1-amd64"]);
    assert_eq!(found.found[2].initramfs, None);
    let modules = Modules::read(&tree, &found.found[1].modules).unwrap().unwrap();
    assert!(modules.has("virtio_blk") && modules.has("sd_mod") && !modules.loadable.contains("sd_mod"));
    assert_eq!(Modules::read(&tree, &found.found[2].modules).unwrap(), None);
}

fn found(tree: &MemTree) -> Vec<(String, String, Vec<String>)> {
    let kernels = kernels(tree, &[], dpkg::compare_part).unwrap();
    let row = |kernel: Kernel| {
        let archives = kernel.initramfs.into_iter().chain(kernel.more_initramfs).collect();
        (kernel.version, kernel.image.unwrap_or_default(), archives)
    };
    kernels.found.into_iter().map(row).collect()
}

fn row(version: &str, image: &str, archives: &[&str]) -> (String, String, Vec<String>) {
    (version.into(), image.into(), archives.iter().map(|path| (*path).to_owned()).collect())
}

/// A bzImage's header with a version string where the kernel has it.
pub fn bzimage(version: &str) -> Vec<u8> {
    let mut image = vec![0; 0x3000];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x2c00u16.to_le_bytes());
    let text = format!("{version} (build@host) #1 SMP\0");
    image[0x2e00..0x2e00 + text.len()].copy_from_slice(text.as_bytes());
    image
}

#[test]
fn rescue_and_kdump_images_are_left_alone() {
    let tree = MemTree::new().symlink("/lib", "usr/lib").files(&[
        ("/boot/vmlinuz-5.14.0-427.el9.x86_64", ""),
        ("/boot/initramfs-5.14.0-427.el9.x86_64.img", ""),
        ("/boot/initramfs-5.14.0-427.el9.x86_64kdump.img", ""),
        ("/boot/vmlinuz-0-rescue-0123456789abcdef0123456789abcdef", ""),
        ("/boot/initramfs-0-rescue-0123456789abcdef0123456789abcdef.img", ""),
        ("/boot/.vmlinuz-5.14.0-427.el9.x86_64.hmac", ""),
        ("/boot/vmlinuz-2.6.18-8.el5kdump", ""),
        ("/boot/vmlinuz-6.4.0-150600.23.7-default", ""),
        ("/boot/vmlinux-6.4.0-150600.23.7-default.gz", ""),
        ("/boot/initrd-6.4.0-150600.23.7-default", ""),
        ("/boot/initrd-6.4.0-150600.23.7-default-kdump", ""),
        ("/boot/vmlinuz-2.6.18-398.el5", ""),
        ("/boot/initrd-2.6.18-398.el5.img", ""),
        ("/boot/initrd-2.6.18-398.el5kdump.img", ""),
    ]);
    assert_eq!(
        found(&tree),
        [
            row(
                "6.4.0-150600.23.7-default",
                "/boot/vmlinuz-6.4.0-150600.23.7-default",
                &["/boot/initrd-6.4.0-150600.23.7-default"]
            ),
            row(
                "5.14.0-427.el9.x86_64",
                "/boot/vmlinuz-5.14.0-427.el9.x86_64",
                &["/boot/initramfs-5.14.0-427.el9.x86_64.img"]
            ),
            row("2.6.18-398.el5", "/boot/vmlinuz-2.6.18-398.el5", &["/boot/initrd-2.6.18-398.el5.img"]),
        ]
    );
}

#[test]
fn kernels_named_after_their_flavour() {
    let alpine = MemTree::new()
        .file("/boot/vmlinuz-lts", "")
        .file("/boot/initramfs-lts", "")
        .dir("/lib/modules/6.6.58-0-lts")
        .dir("/lib/modules/6.6.31-0-lts");
    let lts = |version| row(version, "/boot/vmlinuz-lts", &["/boot/initramfs-lts"]);
    // Two folders fit, and nothing says which: the kernel stays unchecked rather than guessed.
    assert_eq!(found(&alpine), [lts("lts")]);
    let by_image = alpine.clone().file("/boot/vmlinuz-lts", bzimage("6.6.31-0-lts"));
    assert_eq!(found(&by_image), [lts("6.6.31-0-lts")]);
    let by_package = by_image.file("/usr/share/kernel/lts/kernel.release", "6.6.58-0-lts\n");
    assert_eq!(found(&by_package), [lts("6.6.58-0-lts")]);
    let arch = MemTree::new()
        .symlink("/lib", "usr/lib")
        .file("/boot/vmlinuz-linux", "")
        .file("/boot/initramfs-linux.img", "")
        .file("/boot/initramfs-linux-fallback.img", "")
        .file("/usr/lib/modules/6.11.5-arch1-1/pkgbase", "linux\n")
        .file("/boot/vmlinuz-linux-lts", "")
        .file("/boot/initramfs-linux-lts.img", "")
        .file("/usr/lib/modules/6.6.58-1-lts/pkgbase", "linux-lts\n");
    let archives = &["/boot/initramfs-linux.img", "/boot/initramfs-linux-fallback.img"][..];
    assert_eq!(
        found(&arch),
        [
            row("6.11.5-arch1-1", "/boot/vmlinuz-linux", archives),
            row("6.6.58-1-lts", "/boot/vmlinuz-linux-lts", &["/boot/initramfs-linux-lts.img"])
        ]
    );
    let kernels = kernels(&arch, &[], dpkg::compare_part).unwrap();
    assert_eq!(kernels.version_of("linux-lts"), Some("6.6.58-1-lts"));
    assert_eq!(kernels.version_of("6.6.58-1-lts"), Some("6.6.58-1-lts"));
    assert_eq!(kernels.version_of("x"), None);
}

#[test]
fn kernels_where_kernel_install_puts_them() {
    let id = "0123456789abcdef0123456789abcdef";
    let tree = MemTree::new()
        .symlink("/lib", "usr/lib")
        .file(
            &format!("/efi/loader/entries/{id}-6.11.4.conf"),
            format!("linux /{id}/6.11.4/linux\ninitrd /{id}/6.11.4/initrd\n"),
        )
        .file(
            "/boot/efi/loader/entries/opensuse-tumbleweed-6.11.3-1-default-1.conf",
            "version 12@6.11.3-1-default\nlinux /opensuse-tumbleweed/6.11.3-1-default/linux-ab12\ninitrd /opensuse-tumbleweed/6.11.3-1-default/initrd-cd34\n",
        )
        .file(&format!("/efi/{id}/6.11.4/linux"), "")
        .file(&format!("/efi/{id}/6.11.4/initrd"), "")
        .file("/boot/efi/opensuse-tumbleweed/6.11.3-1-default/linux-ab12", "")
        .file("/boot/efi/opensuse-tumbleweed/6.11.3-1-default/initrd-cd34", "")
        .file("/boot/efi/EFI/6.11.4/linux", "no entry names it")
        .dir("/usr/lib/modules/6.11.4")
        .dir("/usr/lib/modules/6.11.3-1-default")
        .dir("/usr/lib/modules/6.10.0");
    let at = |name: &str| format!("/boot/efi/opensuse-tumbleweed/6.11.3-1-default/{name}");
    assert_eq!(
        found(&tree),
        [
            row("6.11.4", &format!("/efi/{id}/6.11.4/linux"), &[&format!("/efi/{id}/6.11.4/initrd")]),
            row("6.11.3-1-default", &at("linux-ab12"), &[&at("initrd-cd34")]),
        ]
    );
    assert_eq!(kernels(&tree, &[], dpkg::compare_part).unwrap().leftovers, ["/usr/lib/modules/6.10.0"]);
}

#[test]
fn entries_whose_kernels_name_no_version() {
    let arch = MemTree::new()
        .file(
            "/efi/loader/entries/arch.conf",
            "linux /EFI/arch/vmlinuz-linux\ninitrd /EFI/arch/initramfs-linux.img\n",
        )
        .file("/efi/EFI/arch/vmlinuz-linux", "")
        .file("/efi/EFI/arch/initramfs-linux.img", "")
        .file("/usr/lib/modules/6.11.5-arch1-1/pkgbase", "linux\n");
    let row_of_arch =
        row("6.11.5-arch1-1", "/efi/EFI/arch/vmlinuz-linux", &["/efi/EFI/arch/initramfs-linux.img"]);
    assert_eq!(found(&arch), [row_of_arch]);
    let pop = "/boot/efi/EFI/Pop_OS-5e1f";
    let tree = MemTree::new()
        .file(
            "/boot/efi/loader/entries/Pop_OS-current.conf",
            "title Pop!_OS\nlinux /EFI/Pop_OS-5e1f/vmlinuz.efi\ninitrd /EFI/Pop_OS-5e1f/initrd.img\n",
        )
        .file(&format!("{pop}/vmlinuz.efi"), bzimage("6.9.3-76060903-generic"))
        .file(&format!("{pop}/initrd.img"), "")
        .dir("/lib/modules/6.9.3-76060903-generic");
    let (image, archive) = (format!("{pop}/vmlinuz.efi"), format!("{pop}/initrd.img"));
    assert_eq!(found(&tree), [row("6.9.3-76060903-generic", &image, &[&archive])]);
    // The ESP, where else it may be.
    let esp = MemTree::new()
        .file("/boot/esp/loader/entries/a.conf", "linux /a/6.1/linux\ninitrd /a/6.1/initrd\n")
        .file("/boot/esp/a/6.1/linux", "")
        .file("/boot/esp/a/6.1/initrd", "")
        .dir("/lib/modules/6.1");
    let volume = crate::linux::device::tests::volume(0, 1, "vfat", "AB-CD");
    let mounts = [crate::linux::device::tests::mount("/boot/esp", &volume, "UUID=AB-CD")];
    let kernels = kernels(&esp, &mounts, dpkg::compare_part).unwrap();
    assert_eq!(kernels.found[0].initramfs.as_deref(), Some("/boot/esp/a/6.1/initrd"));
}

#[test]
fn manjaro_names_its_kernels_by_series() {
    let tree = MemTree::new()
        .symlink("/lib", "usr/lib")
        .file("/boot/vmlinuz-6.6-x86_64", "")
        .file("/boot/initramfs-6.6-x86_64.img", "")
        .file("/usr/lib/modules/6.6.54-1-MANJARO/pkgbase", "linux66\n")
        .file("/usr/lib/modules/6.6.54-1-MANJARO/kernelbase", "6.6-x86_64\n");
    let expected = row("6.6.54-1-MANJARO", "/boot/vmlinuz-6.6-x86_64", &["/boot/initramfs-6.6-x86_64.img"]);
    assert_eq!(found(&tree), [expected]);
}

#[test]
fn a_kernel_says_its_version() {
    assert_eq!(image_version(&bzimage("6.1.0-43-amd64")).as_deref(), Some("6.1.0-43-amd64"));
    assert_eq!(image_version(&bzimage("../x")), None);
    let mut image = bzimage("6.1.0");
    for length in [0, 0x206, 0x20f, 0x210, 0x2e00, 0x2e03] {
        assert_eq!(image_version(&image[..length]), None, "{length:#x}");
    }
    image[0x20e..0x210].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(image_version(&image), None);
    // A real one, where this machine has it.
    let kernels = std::fs::read_dir("/boot").into_iter().flatten().flatten();
    let mut seen = false;
    for path in kernels.map(|entry| entry.path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("vmlinuz-") else { continue };
        let Ok(image) = std::fs::read(&path) else { continue };
        if image.get(0x202..0x206) == Some(b"HdrS") {
            assert_eq!(image_version(&image).as_deref(), Some(version));
            seen = true;
        }
    }
    if !seen {
        eprintln!("SKIPPED: there is no readable kernel in /boot whose version could be compared");
    }
}

#[test]
fn host_names_of_every_age() {
    let name = |path: &str, text: &str| {
        host_name(&MemTree::new().file(path, text)).unwrap().map(|fact| (fact.value, fact.proof))
    };
    for (path, text) in [
        ("/etc/hostname", "# x\n\nweb01\n"),
        ("/etc/HOSTNAME", "web01\n"),
        ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=\"web01\"\n"),
    ] {
        assert_eq!(name(path, text), Some(("web01".into(), path.into())));
    }
    assert_eq!(name("/etc/sysconfig/network", "NETWORKING=yes\n"), None);
}

#[test]
fn a_flood_of_kernels_is_cut_off() {
    let tree =
        (0..=KERNELS_AT_MOST).fold(MemTree::new(), |tree, n| tree.file(&format!("/boot/vmlinuz-{n}"), ""));
    let found = kernels(&tree, &[], dpkg::compare_part).unwrap();
    assert!(found.cut_off && found.found.len() == KERNELS_AT_MOST && found.found[0].version == "64");
}

/// Names that cost nothing to make must not cost much to read.
#[test]
fn names_without_end_are_not_read_one_by_one() {
    let tree = (0..2000).fold(MemTree::new(), |tree, n| tree.file(&format!("/boot/vmlinuz-a{n}"), "x"));
    let tree = (0..80).fold(tree, |tree, n| tree.file(&format!("/lib/modules/{n}/pkgbase"), "linux\n"));
    let tree = Counted::new(tree);
    assert!(kernels(&tree, &[], dpkg::compare_part).unwrap().cut_off);
    assert!(tree.reads("") <= 512, "{} reads", tree.reads(""));
}

#[test]
fn architecture_from_elf() {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(18, 0);
    elf.extend([183, 0]);
    let tree = MemTree::new().file("/usr/bin/dash", &elf).symlink("/bin/sh", "/usr/bin/dash");
    assert_eq!(elf_architecture(&tree).unwrap(), Some(Fact::new("aarch64", "/bin/sh")));
    for length in 0..20 {
        let tree = MemTree::new().file("/bin/sh", &elf[..length]);
        assert_eq!(elf_architecture(&tree).unwrap(), None);
    }
}

#[test]
fn efi_folders_are_found_in_any_case() {
    let tree = MemTree::new().file("/boot/efi/efi/Debian/shimx64.EFI", "");
    assert_eq!(boot_modes(&tree, &[]).unwrap(), [Fact::new("uefi", "/boot/efi/efi/Debian/shimx64.EFI")]);
}
