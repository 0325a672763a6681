//! NTFS through the sandbox: made by ntfs-3g, read and written by the kernel's ntfs3, looked at by ntfs-3g again.

mod helper;

use helper::windows::{Fuse, cut, disk, is_sound, poke, volume_flags};
use helper::{FileDisk, one, sandbox};
use landfall_boot::Kind;
use landfall_boot::apply::Change;
use landfall_boot::sandbox::{Sandbox, Session};
use landfall_boot::tree::{GuestTree, GuestTreeExt, NodeKind};
use landfall_boot::volume::ntfs;
use landfall_image::Bytes;
use std::path::{Path, PathBuf};

fn put(path: &str, bytes: &[u8]) -> Change {
    Change::Put { path: path.into(), bytes: bytes.to_vec(), mode: 0o644 }
}

fn start(sandbox: &Sandbox, image: &Path, read_only: bool) -> Session {
    let session = sandbox.start(vec![("c".into(), FileDisk::open(image))]).unwrap();
    session.mount("c", "ntfs", "w", "/", read_only).unwrap();
    session
}

/// The volume C: of a disk, as a file.
fn volume(folder: &Path) -> Option<PathBuf> {
    let disk = disk(folder, "bios-one", &[])?;
    let image = folder.join("c.raw");
    cut(&disk, 1, &image);
    std::fs::remove_file(disk).unwrap();
    Some(image)
}

#[test]
fn names_of_any_case_are_one_file() {
    let Some(sandbox) = sandbox("names_of_any_case_are_one_file") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path()) else { return };
    let mnt = dir.path().join("mnt");
    {
        let Some(fuse) = Fuse::new(&image, 0, &mnt, "") else { return };
        std::fs::create_dir(fuse.at.join("Grüße")).unwrap();
        std::fs::write(fuse.at.join("Grüße/Ärger.txt"), "alt").unwrap();
        std::fs::write(fuse.at.join("Grüße/ЖУК.txt"), "alt").unwrap();
    }
    let session = start(&sandbox, &image, false);
    let tree = session.tree("w");
    for path in [
        "/Windows/System32/config/SYSTEM",
        "/windows/SYSTEM32/Config/system",
        "/WINDOWS/system32/CONFIG/sYsTeM",
    ] {
        assert_eq!(tree.read_text(path).unwrap().as_deref(), Some("stand-in of a hive\r\n"), "{path}");
        assert_eq!(tree.metadata(path).unwrap().unwrap().kind, NodeKind::File);
    }
    let inf = tree.names("/WINDOWS/inf").unwrap();
    assert!(inf.contains(&"mshdc.inf".to_owned()), "{inf:?}");
    assert_eq!(tree.read_text("/grÜßE/äRGER.TXT").unwrap().as_deref(), Some("alt"));
    assert_eq!(tree.read_text("/GRÜßE/жук.TXT").unwrap().as_deref(), Some("alt"));
    // ß has no capital letter on NTFS.
    assert!(!tree.exists("/GRÜSSE/жук.TXT").unwrap());
    // To ask ntfs3 for a short name damages the volume; it is no name here.
    assert!(tree.exists("/PROGRAM FILES/common files").unwrap());
    assert!(!tree.exists("/PROGRA~1").unwrap() && !tree.exists("/PROGRA~1/Common Files").unwrap());
    let refused = session.apply("w", &[put("/PROGRA~1", b"")]).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported, "{refused}");
    session
        .apply(
            "w",
            &[
                put("/WINDOWS/system32/CONFIG/system", b"a new hive"),
                put("/windows/WIN.INI", b"new"),
                put("/grüße/ärger.txt", b"neu"),
                put("/GRÜßE/жук.TXT", b"neu"),
                put("/windows/System32/DRIVERS/viostor.sys", b"driver"),
                put("/Program FILES/landfall/Marker.txt", b"marker"),
                // A hard link of the store.
                put("/WINDOWS/system32/drivers/STORAHCI.SYS", b"another driver"),
                Change::Remove { path: "/windows/system32/CONFIG/sam.log1".into() },
                Change::Remove { path: "/windows/absent".into() },
            ],
        )
        .unwrap();
    for path in ["/Windows/System32/config/SYSTEM", "/windows/system32/config/system"] {
        assert_eq!(tree.read_text(path).unwrap().as_deref(), Some("a new hive"), "{path}");
    }
    session.finish().unwrap();
    is_sound(&image, 0);
    let fuse = Fuse::new(&image, 0, &mnt, "ro").unwrap();
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(fuse.at.join(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let read = |path: &str| std::fs::read_to_string(fuse.at.join(path)).unwrap();
    assert_eq!(read("Windows/System32/config/SYSTEM"), "a new hive");
    assert_eq!(read("Windows/win.ini"), "new");
    assert_eq!(names("Grüße"), ["Ärger.txt", "ЖУК.txt"]);
    assert_eq!((read("Grüße/Ärger.txt").as_str(), read("Grüße/ЖУК.txt").as_str()), ("neu", "neu"));
    assert_eq!(read("Program Files/landfall/Marker.txt"), "marker");
    let config = names("Windows/System32/config");
    assert!(config.contains(&"SYSTEM".into()) && !config.contains(&"system".into()), "{config:?}");
    assert!(!config.contains(&"SAM.LOG1".into()) && config.contains(&"SAM.LOG2".into()), "{config:?}");
    let drivers = names("Windows/System32/drivers");
    assert!(
        drivers.contains(&"storahci.sys".into()) && drivers.contains(&"viostor.sys".into()),
        "{drivers:?}"
    );
    assert!(!drivers.iter().any(|name| name.contains("tmp")), "{drivers:?}");
    assert_eq!(read("Windows/System32/drivers/storahci.sys"), "another driver");
    let store = "Windows/System32/DriverStore/FileRepository/mshdc.inf_amd64_0123456789abcdef/storahci.sys";
    assert!(std::fs::read(fuse.at.join(store)).unwrap().starts_with(b"MZ"), "the store's copy is untouched");
}

/// Rights, attributes, streams and times stay; a link is broken and not written through; nothing of Linux is noted down.
#[test]
fn a_file_is_more_than_its_content() {
    let Some(sandbox) = sandbox("a_file_is_more_than_its_content") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path()) else { return };
    let mnt = dir.path().join("mnt");
    let hive = "Windows/System32/config/SYSTEM";
    let driver = "Windows/System32/drivers/storahci.sys";
    let store = "Windows/System32/DriverStore/FileRepository/mshdc.inf_amd64_0123456789abcdef/storahci.sys";
    let of_file = ["system.ntfs_acl", "system.ntfs_attrib_be"];
    let seen = |fuse: &Fuse, path: &str| of_file.map(|name| fuse.attribute(path, name).unwrap());
    let (before, created, folder) = {
        let Some(fuse) = Fuse::new(&image, 0, &mnt, "") else { return };
        std::fs::write(fuse.at.join(format!("{hive}:note")), "a stream").unwrap();
        // Hidden, system, read-only.
        fuse.set_attribute(driver, "system.ntfs_attrib_be", "0x00000027");
        let acl = fuse.attribute(hive, "system.ntfs_acl").unwrap();
        assert!(acl.starts_with("01000480"), "{acl}");
        fuse.set_attribute(driver, "system.ntfs_acl", &format!("0x{acl}"));
        let created = fuse.attribute(hive, "system.ntfs_crtime").unwrap();
        (
            [hive, driver].map(|path| seen(&fuse, path)),
            created,
            fuse.attribute("Windows/System32/drivers", "system.ntfs_acl"),
        )
    };
    let session = start(&sandbox, &image, false);
    let long = vec![7; 300_000];
    let changes = [
        put(&format!("/{hive}"), &long),
        put(&format!("/{driver}"), b"another driver"),
        put("/Windows/System32/drivers/viostor.sys", b"new"),
        put("/Windows/landfall/deep/new.txt", b"new"),
    ];
    session.apply("w", &changes).unwrap();
    session.finish().unwrap();
    is_sound(&image, 0);
    let fuse = Fuse::new(&image, 0, &mnt, "ro").unwrap();
    assert!(std::fs::read(fuse.at.join(hive)).unwrap() == long);
    assert_eq!(std::fs::read_to_string(fuse.at.join(format!("{hive}:note"))).unwrap(), "a stream");
    assert_eq!(fuse.attribute(hive, "system.ntfs_crtime").unwrap(), created, "it is still the same file");
    assert_eq!([hive, driver].map(|path| seen(&fuse, path)), before);
    assert!(std::fs::read(fuse.at.join(store)).unwrap().starts_with(b"MZ"), "the store is untouched");
    assert_eq!(
        fuse.attribute("Windows/System32/drivers/viostor.sys", "system.ntfs_acl"),
        folder,
        "as its folder"
    );
    for path in [
        "Windows/System32/drivers/viostor.sys",
        "Windows/landfall",
        "Windows/landfall/deep/new.txt",
        hive,
        driver,
    ] {
        assert_eq!(fuse.attribute(path, "system.ntfs_ea"), None, "{path}");
    }
}

#[test]
fn packed_and_sparse_files_and_links() {
    let Some(sandbox) = sandbox("packed_and_sparse_files_and_links") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path()) else { return };
    let mnt = dir.path().join("mnt");
    let text: String = (0..20_000).map(|number| format!("line {}\n", number / 7)).collect();
    {
        let Some(fuse) = Fuse::new(&image, 0, &mnt, "") else { return };
        let at = |path: &str| fuse.at.join(path);
        std::fs::create_dir(at("packed")).unwrap();
        fuse.set_attribute("packed", "system.ntfs_attrib_be", "0x00000810");
        for name in ["packed/kept.txt", "packed/replaced.txt"] {
            std::fs::write(at(name), &text).unwrap();
            let attributes = fuse.attribute(name, "system.ntfs_attrib_be").unwrap();
            assert_eq!(&attributes[4..5], "0", "{attributes}");
            assert_eq!(&attributes[4..6], "08", "it is compressed: {attributes}");
        }
        std::fs::File::create(at("sparse.bin")).unwrap().set_len(8 << 20).unwrap();
        // A program of CompactOS: no data, a reparse point (MS-FSCC 2.1.2.? WOF), the packed data in a stream.
        std::fs::write(at("wof.exe"), "").unwrap();
        std::fs::write(at("wof.exe:WofCompressedData"), "stored").unwrap();
        fuse.set_attribute(
            "wof.exe",
            "system.ntfs_reparse_data",
            "0x170000801000000001000000020000000100000000000000",
        );
        // Junctions that would lead out, and round and round.
        for (name, target) in
            [("out", "C:\\..\\..\\..\\etc"), ("loop", "C:\\loop"), ("people", "C:\\USERS\\public")]
        {
            std::fs::create_dir(at(name)).unwrap();
            fuse.set_attribute(name, "system.ntfs_reparse_data", &junction(target));
        }
    }
    let session = start(&sandbox, &image, false);
    let tree = session.tree("w");
    let packed = tree.read("/packed/KEPT.txt", Bytes::mib(1)).unwrap().unwrap();
    assert!(packed == text.as_bytes(), "LZNT1");
    assert_eq!(tree.read("/sparse.bin", Bytes::mib(9)).unwrap().unwrap(), vec![0; 8 << 20]);
    let error = tree.read("/wof.exe", Bytes::mib(1)).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.hint_text().unwrap().contains("compact"), "{error}");
    assert!(tree.exists("/documents AND settings/PUBLIC/desktop").unwrap());
    assert!(tree.names("/Users/all users").unwrap().contains(&"Microsoft".to_owned()));
    assert!(tree.exists("/People/DESKTOP").unwrap(), "a link's target is of any case, too");
    assert!(!tree.exists("/out/passwd").unwrap() && !tree.exists("/out/hostname").unwrap());
    assert!(tree.exists("/loop/x").is_err());
    assert!(tree.names("/").unwrap().contains(&"loop".to_owned()), "it does not fail the walk");
    assert_eq!(tree.link_metadata("/LOOP").unwrap().unwrap().kind, NodeKind::Symlink);
    session
        .apply(
            "w",
            &[
                put("/packed/replaced.TXT", text.as_bytes()),
                put("/WOF.exe", b"plain"),
                put("/sparse.bin", b"short"),
            ],
        )
        .unwrap();
    assert_eq!(tree.read_text("/wof.exe").unwrap().as_deref(), Some("plain"));
    session.finish().unwrap();
    is_sound(&image, 0);
    let fuse = Fuse::new(&image, 0, &mnt, "ro").unwrap();
    for name in ["packed/kept.txt", "packed/replaced.txt"] {
        assert!(std::fs::read_to_string(fuse.at.join(name)).unwrap() == text, "{name}");
    }
    assert_eq!(std::fs::read_to_string(fuse.at.join("wof.exe")).unwrap(), "plain");
    assert_eq!(fuse.attribute("wof.exe", "system.ntfs_reparse_data"), None);
    assert_eq!(std::fs::read_to_string(fuse.at.join("sparse.bin")).unwrap(), "short");
}

/// Reparse data of a junction (MS-FSCC 2.1.2.5).
fn junction(target: &str) -> String {
    let units = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let (real, shown) = (units(&format!("\\??\\{target}")), units(target));
    let len = |bytes: &[u8], more: usize| u16::try_from(bytes.len() + more).unwrap().to_le_bytes();
    let head = [[0, 0], len(&real, 0), len(&real, 2), len(&shown, 0)].concat();
    let data = [&head[..], &real, &[0, 0], &shown, &[0, 0]].concat();
    let all = [&0xa000_0003_u32.to_le_bytes()[..], &len(&data, 0), &[0, 0], &data].concat();
    format!("0x{}", all.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[test]
fn a_dirty_volume_is_read_and_not_written() {
    let Some(sandbox) = sandbox("a_dirty_volume_is_read_and_not_written") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path()) else { return };
    let flags = volume_flags(&image, 0);
    poke(&image, flags, &[1, 0]);
    let is_dirty = || ntfs::state(&*FileDisk::open(&image)).unwrap().unwrap().is_dirty;
    assert!(is_dirty());
    let session = sandbox.start(vec![("c".into(), FileDisk::open(&image))]).unwrap();
    let error = session.mount("c", "ntfs", "w", "/", false).unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.says().contains("dirty"), "{error}");
    assert!(error.hint_text().unwrap().contains("chkdsk"));
    session.mount("c", "ntfs", "w", "/", true).unwrap();
    assert!(session.tree("w").exists("/windows/system32/CONFIG/system").unwrap());
    assert!(session.apply("w", &[put("/x", b"x")]).is_err());
    session.finish().unwrap();
    assert!(is_dirty(), "it is never marked clean");
}

/// A mounted volume's files in the order of a walk, whatever is wrong with them.
fn walk(session: &Session, folder: &str, left: &mut usize) {
    let tree = session.tree("w");
    for entry in tree.list(folder).unwrap_or_default().unwrap_or_default() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
        let _ = tree.metadata(&path);
        match entry.kind {
            NodeKind::Dir => walk(session, &path, left),
            _ => drop(tree.read(&path, Bytes::kib(64))),
        }
    }
}

/// Damage to the first records, to folders and to the journal: errors, and an end in time.
#[test]
fn a_damaged_volume_ends_in_time() {
    let Some(sandbox) = sandbox("a_damaged_volume_ends_in_time") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path()) else { return };
    let whole = std::fs::read(&image).unwrap();
    let mft = usize::try_from(u64::from_le_bytes(whole[0x30..0x38].try_into().unwrap())).unwrap() * 4096;
    let mut number = 77_u64;
    let mut next = |below: usize| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(number >> 33).unwrap() % below
    };
    let (mut mounted, mut written) = (0, 0);
    for round in 0..12 {
        let mut bad = whole.clone();
        for _ in 0..30 {
            let at = match round % 3 {
                0 => mft + next(200 << 10),
                // Beyond the header of a record: it is still one.
                1 => mft + next(200) * 1024 + 0x38 + next(400),
                _ => next(2 << 20),
            };
            bad[at] = u8::try_from(next(256)).unwrap();
        }
        std::fs::write(&image, &bad).unwrap();
        let begin = std::time::Instant::now();
        let session = sandbox.start(vec![("c".into(), FileDisk::open(&image))]).unwrap();
        if session.mount("c", "ntfs", "w", "/", false).is_ok() {
            mounted += 1;
            walk(&session, "/", &mut 200);
            written +=
                usize::from(session.apply("w", &[put("/Windows/System32/config/SYSTEM", b"new")]).is_ok());
        }
        let _ = ntfs::state(&*FileDisk::open(&image)).unwrap();
        let _ = session.finish();
        eprintln!("round {round}: {:?}", begin.elapsed());
        assert!(begin.elapsed().as_secs() < 300);
    }
    eprintln!("{mounted} of 12 mounted, {written} written");
    assert!(mounted > 0);
}

/// A volume that Windows made, its journal left open as in a snapshot: replayed also where it is only read. The tables of this
/// journal are empty, so that what is proven is the way, and no change to a file.
#[test]
fn a_volume_that_was_in_use_is_replayed() {
    let Some(sandbox) = sandbox("a_volume_that_was_in_use_is_replayed") else { return };
    let _one = one();
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let corpus = std::env::var_os("LANDFALL_CORPUS").map_or(beside, PathBuf::from);
    let Ok(packed) = std::fs::read(corpus.join("dfvfs/ntfs-fixed.vhd.zst")) else {
        eprintln!("SKIPPED: there is no corpus at {}", corpus.display());
        return;
    };
    // The partition begins at 64 KiB; the footer of the image lies behind it.
    let mut raw = zstd::decode_all(&packed[..]).unwrap().split_off(64 << 10);
    let sectors = usize::try_from(u64::from_le_bytes(raw[0x28..0x30].try_into().unwrap())).unwrap();
    raw.truncate((sectors + 1) * 512);
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("c.raw");
    let state = |image: &Path| ntfs::state(&*FileDisk::open(image)).unwrap().unwrap();
    let mut opened = 0;
    for at in
        (0..raw.len() - 4096).step_by(4096).filter(|at| raw[*at..].starts_with(b"RSTR")).collect::<Vec<_>>()
    {
        let flags = at + usize::from(raw[at + 0x18]) + 0x0e;
        assert_eq!(raw[flags], 2, "Windows left it clean");
        raw[flags] = 0;
        opened += 1;
    }
    assert_eq!(opened, 2);
    std::fs::write(&image, &raw).unwrap();
    assert_eq!(state(&image).log, ntfs::Log::Pending { version: (1, 1) });
    let session = start(&sandbox, &image, true);
    let tree = session.tree("w");
    assert_eq!(tree.read("/PASSWORDS.TXT", Bytes(200)).unwrap().unwrap().len(), 126);
    assert!(tree.exists("/A_directory/another_FILE").unwrap());
    assert!(session.apply("w", &[put("/x", b"x")]).is_err(), "it is mounted to be read");
    session.finish().unwrap();
    assert_eq!(state(&image).log, ntfs::Log::Clean);
    is_sound(&image, 0);
}
