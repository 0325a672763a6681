//! The proof for hardware that cannot be emulated here: kmod's own tools find each driver in what was written.

use super::*;
use std::collections::BTreeMap;

/// What udev sees of a device that wants the driver, as `modalias` has it.
const DEVICES: &[(&str, &str)] = &[
    ("virtio_blk", "virtio:d00000002v00001AF4"),
    ("virtio_scsi", "virtio:d00000008v00001AF4"),
    ("virtio_net", "virtio:d00000001v00001AF4"),
    ("virtio_pci", "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00"),
    ("nvme", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02"),
    ("ahci", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"),
    ("ata_piix", "pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80"),
    ("vmw_pvscsi", "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00"),
    ("mptspi", "pci:v00001000d00000030sv000015ADsd00001976bc01sc00i00"),
    ("mptsas", "pci:v00001000d00000054sv000015ADsd00001976bc01sc07i00"),
    ("hv_vmbus", "acpi:VMBUS:VMBUS:"),
    ("hv_storvsc", "vmbus:d96361baa104294db60572e2ffb1dc7f"),
    ("hv_netvsc", "vmbus:635161f83edfc546913ff2d2f965ed0e"),
    ("hyperv_keyboard", "vmbus:6dad12f9172bea48bd65f927a61c7684"),
    ("xen_blkfront", "xen:vbd"),
];

/// What kmod reads, unpacked as the kernel would: module folders, its configuration, and the links that lead there.
pub(crate) fn unpack_modules(archive: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    let segments = segment::split(archive).expect("sound");
    let mut content = Content::new();
    merge(archive, &segments, 0, &mut content).expect("sound");
    for (path, inode) in content.iter() {
        let path = text(path);
        let host = dir.path().join(&path);
        let wanted = path.contains("lib/modules/") || path.contains("modprobe.d/");
        if inode.is(cpio::SYMLINK) && matches!(path.as_str(), "lib" | "usr/lib" | "etc" | "lib/modules") {
            let target = text(&inode.data);
            let inside = target.strip_prefix('/').map(|below| dir.path().join(below));
            std::os::unix::fs::symlink(inside.unwrap_or(PathBuf::from(target)), host).expect("link");
        } else if inode.is(cpio::REGULAR) && wanted {
            std::fs::create_dir_all(host.parent().expect("below the root")).expect("folder");
            std::fs::write(host, &inode.data).expect("file");
        } else if inode.is(cpio::DIRECTORY) && matches!(path.as_str(), "usr" | "usr/lib") {
            std::fs::create_dir_all(host).expect("folder");
        }
    }
    if !dir.path().join("lib").exists() && dir.path().join("usr/lib").exists() {
        // kmod looks below /lib, and some are built for /usr/lib.
        std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).expect("link");
    }
    dir
}

/// Proves that each of `names` that the kernel has is loadable in this initramfs: by name, by the device that wants it,
/// with all it needs, and built for this kernel. Those that are built in are so for kmod, too. Gives the modules' files.
pub(crate) fn resolves(
    archive: &[u8],
    root: &Path,
    kernel: &str,
    names: &[&str],
) -> Option<BTreeMap<String, Vec<PathBuf>>> {
    let dir = unpack_modules(archive);
    let set = kmod::available(
        &HostTree { root: root.to_path_buf(), free: None },
        &format!("/lib/modules/{kernel}"),
    )
    .expect("the guest's own list");
    let modprobe = |arguments: &[&str]| {
        run(Command::new("modprobe").arg("-d").arg(dir.path()).arg("-S").arg(kernel).args(arguments))
    };
    let mut found = BTreeMap::new();
    for name in names.iter().filter(|name| set.place(name) == kmod::Place::Module) {
        let output = modprobe(&["--show-depends", name])?;
        assert!(output.status.success(), "modprobe {name}: {}", text(&output.stderr));
        let files: Vec<PathBuf> = text(&output.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
            .map(|line| PathBuf::from(line.split(' ').next().unwrap_or(line)))
            .collect();
        assert!(!files.is_empty(), "modprobe {name}: {}", text(&output.stdout));
        for file in &files {
            assert!(file.exists(), "modprobe {name} wants {}", file.display());
            let output = run(Command::new("modinfo").arg("-F").arg("vermagic").arg(file))?;
            let vermagic = text(&output.stdout);
            assert!(vermagic.starts_with(&format!("{kernel} ")), "{}: {vermagic}", file.display());
        }
        let output = run(Command::new("modinfo")
            .arg("-b")
            .arg(dir.path())
            .args(["-k", kernel, "-F", "filename", name]))?;
        assert!(Path::new(text(&output.stdout).trim()).exists(), "modinfo {name}: {output:?}");
        if let Some((_, device)) = DEVICES.iter().find(|(driver, _)| driver == name) {
            let output = modprobe(&["-R", device])?;
            let answer = text(&output.stdout);
            assert!(
                answer.lines().any(|line| kmod::normal(line) == **name),
                "{device} gives {answer:?}, not {name}: {}",
                text(&output.stderr)
            );
        }
        found.insert(name.to_string(), files);
    }
    assert!(!found.is_empty(), "the kernel has none of {names:?}");
    Some(found)
}
