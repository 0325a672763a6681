//! Discs as other programs, the kernel, GRUB and a BIOS read them, and what cannot be.

use super::bytes::Civil;
use super::*;
use crate::error::Kind;
use crate::iso::{EntryKind, Iso};
use crate::source::Source;
use crate::testing::{MemDisk, noise_bytes, read_all};
use crate::{Disk, ExtentKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn options() -> IsoOptions {
    IsoOptions {
        volume: "LANDFALL_1".into(),
        // 2024-02-29 12:34:56
        time: 1_709_210_096,
        bios: Some("boot/bios.img".into()),
        efi: Some("boot/efi.img".into()),
    }
}

fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("boot/bios.img".to_owned(), noise_bytes(1, 30_001)),
        ("boot/efi.img".into(), noise_bytes(2, 1 << 20)),
        ("boot/grub/grub.cfg".into(), b"set x=1\n".to_vec()),
        ("live/Root File System.squashfs".into(), noise_bytes(3, 3_000_001)),
        ("live/root file system.squashfs".into(), noise_bytes(4, 2048)),
        ("empty".into(), Vec::new()),
        ("Größe.tar.gz".into(), noise_bytes(5, 2049)),
        ("n".repeat(NAME), b"long".to_vec()),
        ("1/2/3/4/5/6/file".into(), b"deep".to_vec()),
    ];
    // More than one sector of names, all alike to ISO 9660.
    files.extend((0..200u8).map(|n| (format!("many/a name that is longer than others {n}.txt"), vec![n])));
    files
}

fn new(options: IsoOptions, files: &[(String, Vec<u8>)]) -> Result<IsoImage> {
    let mut iso = NewIso::new(options)?;
    for (path, content) in files {
        iso.file(path, content.clone())?;
    }
    iso.finish()
}

fn file(folder: &Path, image: &IsoImage) -> PathBuf {
    use std::os::unix::fs::FileExt;
    let path = folder.join("disc.iso");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(image.disk.size().0).unwrap();
    for extent in image.disk.extents(GuestRange::new(GuestOffset(0), image.disk.size()), usize::MAX).unwrap()
    {
        if extent.kind == ExtentKind::Data {
            let mut bytes = vec![0; index(extent.range.len().0)];
            image.disk.read_at(extent.range.start(), &mut bytes).unwrap();
            file.write_all_at(&bytes, extent.range.start().0).unwrap();
        }
    }
    path
}

/// The files as they are in the image: the one for a BIOS with its table.
fn wanted(image: &IsoImage) -> Vec<(String, Vec<u8>)> {
    let mut files = files();
    boot_table(&mut files[0].1, image.files["boot/bios.img"].start().0 / SECTOR);
    files
}

/// What a tool prints; `None` (and a loud word) where it is missing.
fn told(tool: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new(tool).args(arguments).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").output() {
        Ok(output) => {
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
            Some([output.stdout, output.stderr].concat())
        }
        Err(e) => {
            eprintln!("SKIPPED: {tool}: {e}");
            None
        }
    }
}

#[test]
fn our_own_reader_finds_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let image = new(options(), &files()).unwrap();
    let iso = Iso::open(Source::open(&file(folder.path(), &image)).unwrap()).unwrap();
    for (path, content) in wanted(&image) {
        let entry = iso.find(&path).unwrap().unwrap();
        assert_eq!(entry.kind, EntryKind::File);
        assert!(iso.read(&entry, Bytes::mib(4)).unwrap() == content, "{path}");
        let mut bytes = vec![0; content.len()];
        image.disk.read_at(image.files[&path].start(), &mut bytes).unwrap();
        assert!(bytes == content, "{path}");
    }
    let names = |path: &str| iso.list(&iso.find(path).unwrap().unwrap()).unwrap().len();
    assert_eq!((names(""), names("many"), names("boot/grub"), names("1/2/3/4/5/6")), (7, 200, 1, 1));
}

#[test]
fn others_find_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let image = new(options(), &files()).unwrap();
    let path = file(folder.path(), &image);
    let path = path.to_str().unwrap();
    let wanted = wanted(&image);
    let to = folder.path().join("unpacked");
    std::fs::create_dir(&to).unwrap();
    if told("bsdtar", &["-xf", path, "-C", to.to_str().unwrap()]).is_some() {
        for (path, content) in &wanted {
            assert!(std::fs::read(to.join(path)).unwrap() == *content, "{path}");
        }
    }
    if let Some(list) = told("isoinfo", &["-R", "-f", "-i", path]) {
        let list = String::from_utf8(list).unwrap();
        for (path, _) in &wanted {
            assert!(list.lines().any(|line| line == format!("/{path}")), "{path}: {list}");
        }
        let head = String::from_utf8(told("isoinfo", &["-d", "-i", path]).unwrap()).unwrap();
        assert!(head.contains("Volume id: LANDFALL_1") && head.contains("Rock Ridge signatures"), "{head}");
        assert!(head.contains("Eltorito validation header"), "{head}");
    }
    if let Some(report) =
        told("xorriso", &["-indev", path, "-report_el_torito", "plain", "-find", "/", "-exec", "lsdl"])
    {
        let report = String::from_utf8(report).unwrap();
        assert!(!report.contains("WARNING") && !report.contains("FAILURE"), "{report}");
        let sector = |path: &str| image.files[path].start().0 / SECTOR;
        let bios = format!(
            "El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4  {:>10}",
            sector("boot/bios.img")
        );
        let efi = format!(
            "El Torito boot img :   2  UEFI  y   none  0x0000  0x00   2048  {:>10}",
            sector("boot/efi.img")
        );
        assert!(report.contains(&bios) && report.contains(&efi), "{report}");
        // It recognises the table by its sum.
        assert!(report.contains("El Torito img opts :   1  boot-info-table"), "{report}");
        assert!(report.contains("El Torito img path :   2  /boot/efi.img"), "{report}");
        assert!(report.contains("-r--r--r--    1 0        0            2049 Feb 29 "), "{report}");
    }
}

/// The kernel's own reader, where it is there and we may mount.
#[test]
fn the_kernel_mounts_it() {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("iso9660");
    if !known || !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: the kernel knows no iso9660, or we are not root");
    }
    let folder = tempfile::tempdir().unwrap();
    let image = new(options(), &files()).unwrap();
    let (path, to) = (file(folder.path(), &image), folder.path().join("mounted"));
    std::fs::create_dir(&to).unwrap();
    let mounted = Command::new("mount").args(["-o", "loop,ro", "-t", "iso9660"]).arg(&path).arg(&to).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: cannot mount here");
    }
    let wanted = wanted(&image);
    let wrong: Vec<_> = wanted
        .iter()
        .filter(|(path, content)| std::fs::read(to.join(path)).ok().as_ref() != Some(content))
        .collect();
    assert!(Command::new("umount").arg(&to).status().unwrap().success());
    assert!(wrong.is_empty(), "{} files differ", wrong.len());
}

/// GRUB is made for it, started by the firmware of a virtual machine, and reads a file by its name.
#[test]
fn a_bios_starts_grub_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (config, core) = (folder.path().join("config"), folder.path().join("core"));
    let script = "serial --unit=0\nterminal_output serial\nsearch --fs-uuid --set=root 2024-02-29-12-34-56-00\n\
        cat \"/live/Some File.txt\"\nhalt\n";
    std::fs::write(&config, script).unwrap();
    let modules =
        ["biosdisk", "iso9660", "search", "search_fs_uuid", "serial", "terminal", "cat", "halt", "echo"];
    let make = ["-O", "i386-pc-eltorito", "-p", "/boot/grub", "-c", config.to_str().unwrap(), "-o"];
    if !Path::new("/usr/lib/grub/i386-pc/cdboot.img").exists() {
        return eprintln!("SKIPPED: no GRUB for i386-pc");
    }
    if told("grub-mkimage", &[&make[..], &[core.to_str().unwrap()], &modules[..]].concat()).is_none() {
        return;
    }
    let files = [
        ("boot/bios.img".to_owned(), std::fs::read(&core).unwrap()),
        ("live/some file.txt".to_owned(), b"the other one".to_vec()),
        ("live/Some File.txt".to_owned(), b"read from the disc\n".to_vec()),
    ];
    let image = new(IsoOptions { efi: None, ..options() }, &files).unwrap();
    let path = file(folder.path(), &image);
    let machine =
        ["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none", "-no-reboot", "-cdrom"];
    let machine =
        [&["60", "qemu-system-x86_64", "-m", "128"], &machine[..], &[path.to_str().unwrap()]].concat();
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: no qemu-system-x86_64");
    }
    let output = Command::new("timeout").args(machine).output().unwrap();
    let says = String::from_utf8_lossy(&output.stdout);
    assert!(says.contains("read from the disc"), "{says} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_boot_record_leads_to_the_volume_for_uefi() {
    let mut image = new(options(), &files()).unwrap();
    for (code, efi) in [(441, "boot/efi.img"), (440, "empty"), (440, "no")] {
        assert_eq!(image.boot_from_disk(&vec![1; code], 7, efi).unwrap_err().kind(), Kind::Refused);
    }
    image.boot_from_disk(&[0xeb; 440], 0x1234_abcd, "boot/efi.img").unwrap();
    let table = crate::partition::read(&image.disk).unwrap().unwrap();
    assert_eq!((table.scheme, &*table.disk_id), (crate::partition::Scheme::Mbr, "0x1234abcd"));
    let [entry] = &table.entries[..] else { panic!("{table:?}") };
    assert_eq!((entry.range, entry.bootable), (image.files["boot/efi.img"], true));
    assert_eq!(entry.kind, crate::partition::TypeId::Mbr(0xef));
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &image);
    // Still the same disc.
    let iso = Iso::open(Source::open(&path).unwrap()).unwrap();
    assert_eq!(iso.volume(), "LANDFALL_1");
    if let Some(list) = told("fdisk", &["-l", path.to_str().unwrap()]) {
        let list = String::from_utf8(list).unwrap();
        assert!(list.contains("EFI (FAT-12/16/32)") && list.contains("0x1234abcd"), "{list}");
    }
}

#[test]
fn same_input_same_bytes_and_contents_are_not_copied() {
    let image = |options| read_all(&new(options, &files()).unwrap().disk).unwrap();
    let one = image(options());
    assert!(one == image(options()));
    assert!(one != image(IsoOptions { time: 0, ..options() }));
    let mut iso = NewIso::new(IsoOptions { bios: None, efi: Some("a".into()), ..options() }).unwrap();
    // A file in three records, and what lies behind it.
    let size = 9 << 30;
    iso.file("a", Arc::new(MemDisk::new(Bytes(size)).data(size - 4, *b"last"))).unwrap();
    iso.file("b", b"behind".to_vec()).unwrap();
    let image = iso.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &image);
    let iso = Iso::open(Source::open(&path).unwrap()).unwrap();
    assert_eq!(iso.find("a").unwrap().unwrap().size, Bytes(size));
    assert_eq!(iso.read(&iso.find("b").unwrap().unwrap(), Bytes::mib(1)).unwrap(), b"behind");
    let mut last = [0; 4];
    let end = image.files["a"].end().0;
    image.disk.read_at(GuestOffset(end - 4), &mut last).unwrap();
    assert_eq!(&last, b"last");
    if let Some(list) = told("isoinfo", &["-l", "-R", "-i", path.to_str().unwrap()]) {
        let list = String::from_utf8(list).unwrap();
        assert!(list.contains("4294965248") && list.contains(" b"), "{list}");
    }
    // More sectors than 16 bits can say.
    let mut catalog = [0; 64];
    image.disk.read_at(GuestOffset(21 * SECTOR), &mut catalog).unwrap();
    assert_eq!((catalog[1], &catalog[32..40]), (0xef, &[0x88, 0, 0, 0, 0, 0, 0, 0][..]));
}

#[test]
fn days_and_leap_years() {
    let of = |time| {
        let Civil { year, month, day, hour, minute, second } = Civil::of(time);
        format!("{year}-{month}-{day} {hour}:{minute}:{second}")
    };
    for (time, text) in [
        (0, "1970-1-1 0:0:0"),
        (68_169_599, "1972-2-28 23:59:59"),
        (68_169_600, "1972-2-29 0:0:0"),
        (94_694_399, "1972-12-31 23:59:59"),
        (951_868_800, "2000-3-1 0:0:0"),
        (1_709_210_096, "2024-2-29 12:34:56"),
        (4_107_542_400, "2100-3-1 0:0:0"),
        (u32::MAX, "2106-2-7 6:28:15"),
    ] {
        assert_eq!(of(time), text);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let plain = || IsoOptions { bios: None, efi: None, ..options() };
    let kind = |options: IsoOptions, files: &[(&str, usize)]| {
        let files: Vec<_> = files.iter().map(|(path, len)| ((*path).to_owned(), vec![1; *len])).collect();
        new(options, &files).map(drop).map_err(|e| e.kind())
    };
    let refused = Err(Kind::Refused);
    assert_eq!(kind(plain(), &[]), Ok(()));
    for volume in ["", "lower", "A B", &"A".repeat(33)] {
        assert_eq!(kind(IsoOptions { volume: volume.into(), ..plain() }, &[]), refused, "{volume}");
    }
    assert_eq!(kind(IsoOptions { volume: "A".repeat(32), ..plain() }, &[]), Ok(()));
    let (long, longer) = ("n".repeat(NAME), "n".repeat(NAME + 1));
    for (paths, outcome) in [
        (&["a", "a"][..], refused),
        (&["a", "A"], Ok(())),
        (&["a", "a/b"], refused),
        (&["a/b", "a"], refused),
        (&["a//b"], refused),
        (&["/a"], refused),
        (&[""], refused),
        (&["a/./b"], refused),
        (&["../a"], refused),
        (&["a\0"], refused),
        (&[&long], Ok(())),
        (&[&longer], refused),
        (&["1/2/3/4/5/6/7"], Ok(())),
        (&["1/2/3/4/5/6/7/8"], refused),
    ] {
        let files: Vec<_> = paths.iter().map(|path| (*path, 1)).collect();
        assert_eq!(kind(plain(), &files), outcome, "{paths:?}");
    }
    let bios = || IsoOptions { bios: Some("x".into()), ..plain() };
    let efi = || IsoOptions { efi: Some("x".into()), ..plain() };
    assert_eq!(kind(bios(), &[("y", 100)]), refused);
    assert_eq!(kind(efi(), &[("y", 100)]), refused);
    assert_eq!(kind(efi(), &[("x", 0)]), refused);
    assert_eq!(kind(efi(), &[("x", 1)]), Ok(()));
    for (size, outcome) in [(63, refused), (64, Ok(())), (1 << 20, Ok(())), ((1 << 20) + 1, refused)] {
        assert_eq!(kind(bios(), &[("x", size)]), outcome, "{size}");
    }
    let mut huge = NewIso::new(plain()).unwrap();
    huge.file("x", Arc::new(MemDisk::new(Bytes(8 << 40)))).unwrap();
    assert_eq!(huge.finish().unwrap_err().kind(), Kind::Refused);
}
