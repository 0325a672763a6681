//! The sandbox for real: QEMU, a distribution's kernel, file systems made by their own tools and checked by them.
//!
//! The kernel is looked for in `LANDFALL_SANDBOX_KERNEL`, then in `target/sandbox` (`tools/fetch-sandbox-kernel.sh
//! target/sandbox`), then on this machine.

mod helper;
#[path = "sandbox/parts.rs"]
mod parts;

use helper::FileDisk;
use landfall_boot::Kind;
use landfall_boot::apply::Change;
use landfall_boot::sandbox::Settings;
use landfall_boot::tree::{GuestTree, GuestTreeExt, NodeKind};
use landfall_image::Bytes;
use landfall_image::disk::DiskMut;
use parts::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn ext4_is_mounted_read_and_written() {
    let Some(mut settings) = settings("ext4_is_mounted_read_and_written") else { return };
    settings.saved_state = false;
    let (_dir, path) = ext4(64);
    let session = start(&settings, &path);
    assert!(!session.restored());
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    let tree = session.tree("a");
    assert_eq!(tree.read_text("/etc/hostname").unwrap().as_deref(), Some("web01\n"));
    assert_eq!(tree.read_text("/etc/link").unwrap().as_deref(), Some("web01\n"));
    assert_eq!(tree.read_text("/etc/absent").unwrap(), None);
    assert_eq!(tree.read_link("/etc/link").unwrap().as_deref(), Some("/etc/hostname"));
    assert_eq!(tree.metadata("/etc").unwrap().unwrap().kind, NodeKind::Dir);
    assert_eq!(tree.names("/etc").unwrap(), ["escape", "fstab", "hostname", "link", "loop"]);
    assert!(tree.free_space("/").unwrap().unwrap() > Bytes::mib(10));
    let big: Vec<u8> = (0..3_000_000u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
    session
        .apply(
            "a",
            &[
                put("/etc/fstab", b"UUID=1 / ext4 defaults 0 1\n"),
                put("/etc/link", b"db01\n"),
                put("/var/lib/deep/big", &big),
                Change::Symlink { path: "/etc/new-link".into(), target: "../etc/fstab".into() },
                Change::Remove { path: "/etc/loop".into() },
                Change::Remove { path: "/etc/absent".into() },
            ],
        )
        .unwrap();
    assert_eq!(tree.read_text("/etc/hostname").unwrap().as_deref(), Some("db01\n"));
    assert_eq!(tree.read_text("/etc/new-link").unwrap().as_deref(), Some("UUID=1 / ext4 defaults 0 1\n"));
    assert!(tree.read("/var/lib/deep/big", Bytes::mib(4)).unwrap().unwrap() == big);
    let finished = session.finish().unwrap();
    eprintln!("{finished:?}");
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
    let listing = run("debugfs", &["-R", "cat /etc/fstab", path.to_str().unwrap()]);
    assert!(listing.contains("UUID=1"), "{listing}");
}

#[test]
fn the_second_start_is_restored_and_a_damaged_state_is_thrown_away() {
    let test = "the_second_start_is_restored_and_a_damaged_state_is_thrown_away";
    let Some(mut settings) = settings(test) else { return };
    let cache = tempfile::tempdir().unwrap();
    settings.cache_folder = cache.path().to_owned();
    let (_dir, path) = ext4(64);
    let state = || {
        let names = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
        let states = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("state-"));
        states.collect::<Vec<_>>()
    };
    let mut restored = Vec::new();
    for n in 0..6u8 {
        if n == 3 {
            // One bit in the middle of the machine's memory.
            let path = &state()[0];
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        if n == 5 {
            // No state at all, under a name and a hash that are right.
            let path = state().pop().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let key = name.rsplit_once('-').unwrap().0;
            let hash = &hash(b"no state")[..32];
            std::fs::remove_file(&path).unwrap();
            std::fs::write(cache.path().join(format!("{key}-{hash}")), b"no state").unwrap();
        }
        let session = start(&settings, &path);
        restored.push(session.restored());
        session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
        session.apply("a", &[put("/etc/n", &[n])]).unwrap();
        let meta = session.tree("a").metadata("/etc/n").unwrap().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let age = i64::try_from(now).unwrap() - meta.mtime_seconds;
        assert!((-5..120).contains(&age), "the clock is right after a restore: {age} s");
        eprintln!("{:?}", session.finish().unwrap());
        run("e2fsck", &["-fn", path.to_str().unwrap()]);
    }
    assert_eq!(restored, [false, true, true, false, true, false]);
    assert_eq!(state().len(), 1);
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[test]
fn owner_mode_and_attributes_of_a_file_are_kept() {
    let Some(settings) = settings("owner_mode_and_attributes_of_a_file_are_kept") else { return };
    let (_dir, path) = ext4(64);
    debugfs(
        &path,
        &[
            "ea_set /etc/fstab security.selinux system_u:object_r:etc_t:s0",
            "ea_set /etc/fstab user.note kept",
            "set_inode_field /etc/fstab uid 12",
            "set_inode_field /etc/fstab gid 34",
            "set_inode_field /etc/fstab mode 0106755",
        ],
    );
    let session = start(&settings, &path);
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    session.apply("a", &[put("/etc/fstab", b"new"), put("/etc/created", b"new")]).unwrap();
    let meta = session.tree("a").metadata("/etc/fstab").unwrap().unwrap();
    assert_eq!((meta.mode, meta.uid, meta.gid, meta.size), (0o6755, 12, 34, Bytes(3)));
    let meta = session.tree("a").metadata("/etc/created").unwrap().unwrap();
    assert_eq!((meta.mode, meta.uid), (0o640, 0));
    session.finish().unwrap();
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
    let attributes =
        debugfs(&path, &["ea_get /etc/fstab security.selinux", "ea_get /etc/fstab user.note", "ls /etc"]);
    assert!(attributes.contains("etc_t:s0") && attributes.contains("kept"), "{attributes}");
    assert!(!attributes.contains(".landfall"), "{attributes}");
}

#[test]
fn new_files_folders_and_links_get_their_label() {
    let Some(settings) = settings("new_files_folders_and_links_get_their_label") else { return };
    let (_dir, path) = ext4(64);
    let (_esp_dir, esp) = image(64);
    run("mkfs.vfat", &["-F", "32", esp.to_str().unwrap()]);
    let volumes: Vec<(String, Arc<dyn DiskMut>)> =
        vec![("disk0p1".into(), FileDisk::open(&path)), ("esp".into(), FileDisk::open(&esp))];
    let session = start_with(&settings, volumes).unwrap();
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    session.mount("esp", "vfat", "a", "/boot/efi", false).unwrap();
    let label = |path: &str, kind: &str| Change::Label {
        path: path.into(),
        context: format!("system_u:object_r:{kind}:s0"),
    };
    session
        .apply(
            "a",
            &[
                put("/etc/multipath/conf.d/landfall.conf", b"new"),
                label("/etc/multipath", "folder_t"),
                label("/etc/multipath/conf.d", "folder_t"),
                label("/etc/multipath/conf.d/landfall.conf", "file_t"),
                Change::Symlink { path: "/etc/masked".into(), target: "/etc/hostname".into() },
                label("/etc/masked", "link_t"),
                // The link itself, not what it would lead to outside.
                label("/etc/escape", "link_t"),
                put("/boot/efi/x", b"new"),
                label("/boot/efi/x", "none_t"),
            ],
        )
        .unwrap();
    for bad in ["/", "/etc/..", "/etc/absent", "/absent/x", "relative"] {
        assert!(session.apply("a", &[label(bad, "x_t")]).is_err(), "{bad}");
    }
    session.finish().unwrap();
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
    for (path_inside, kind) in [
        ("/etc/multipath", "folder_t"),
        ("/etc/multipath/conf.d", "folder_t"),
        ("/etc/multipath/conf.d/landfall.conf", "file_t"),
        ("/etc/masked", "link_t"),
        ("/etc/escape", "link_t"),
    ] {
        let command = format!("ea_get -V {path_inside} security.selinux");
        let shown = run("debugfs", &["-R", &command, path.to_str().unwrap()]);
        assert!(shown.contains(&format!("system_u:object_r:{kind}:s0\0")), "{path_inside}: {shown:?}");
    }
    let shown = run("debugfs", &["-R", "ea_list /etc/hostname", path.to_str().unwrap()]);
    assert!(!shown.contains("selinux"), "the link's target has no label: {shown}");
}

#[test]
fn hostile_paths_stay_inside_and_are_errors_or_absent() {
    let Some(settings) = settings("hostile_paths_stay_inside_and_are_errors_or_absent") else { return };
    let (_dir, path) = ext4(64);
    debugfs(&path, &["cd /etc", "mknod pipe p", "mknod device c 1 5", "symlink proc /proc/self/environ"]);
    let session = start(&settings, &path);
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    let tree = session.tree("a");
    let small = Bytes::kib(4);
    // There is no /etc/passwd in this guest: the sandbox's own root must not be seen.
    for absent in ["/etc/escape", "/../../../init", "/etc/../../init", "/etc/proc", "/etc/fstab/x", ""] {
        assert_eq!(tree.read(absent, small).unwrap(), None, "{absent}");
    }
    for refused in ["/etc", "/etc/pipe", "/etc/device"] {
        assert_eq!(tree.read(refused, small).unwrap_err().kind(), Kind::Refused, "{refused}");
        assert_eq!(session.apply("a", &[put(refused, b"x")]).unwrap_err().kind(), Kind::Refused, "{refused}");
    }
    for bad in ["/etc/loop", "/etc/a\0b", &"/x".repeat(5000), &format!("/{}", "n".repeat(256))] {
        assert!(tree.read(bad, small).is_err(), "{bad:.20}");
        assert!(session.apply("a", &[put(bad, b"x")]).is_err(), "{bad:.20}");
    }
    for bad in ["/", "relative", "/etc/..", "", "/etc/fstab/x"] {
        assert!(session.apply("a", &[put(bad, b"x")]).is_err(), "{bad}");
    }
    let error = tree.read("/etc/fstab", Bytes(3)).unwrap_err();
    assert!(error.says().contains("/etc/fstab") && error.says().contains("3 bytes"), "{error}");
    let many = tree.read_many(&["/etc/hostname".into(), "/absent".into()], small).unwrap();
    assert_eq!(many, [Some(b"web01\n".to_vec()), None]);
    assert!(tree.read_many(&["/etc/loop".into(), "/etc/hostname".into()], small).is_err());
    // Through a link that leads out: written where it leads inside.
    session.apply("a", &[put("/etc/escape", b"inside")]).unwrap();
    assert_eq!(tree.read("/etc/passwd", small).unwrap().as_deref(), Some(&b"inside"[..]));
    for root in ["b", "", "..", "a/../a", "."] {
        assert!(session.tree(root).metadata("/").is_err(), "{root}");
        assert!(session.mount("disk0p1", "ext4", root, "/", false).is_err() || root == "b", "{root}");
    }
    assert!(session.mount("disk9", "ext4", "a", "/", false).is_err());
    session.finish().unwrap();
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
}

#[test]
fn xfs_vfat_and_btrfs_are_written_and_check_clean() {
    let Some(settings) = settings("xfs_vfat_and_btrfs_are_written_and_check_clean") else { return };
    let (_d1, root) = ext4(64);
    let (_d2, xfs) = image(320);
    let (_d3, vfat) = image(64);
    let (_d4, btrfs) = image(128);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run("mkfs.xfs", &["-q", &text(&xfs)]);
    run("mkfs.vfat", &["-F", "32", &text(&vfat)]);
    run("mmd", &["-i", &text(&vfat), "::EFI"]);
    run("mkfs.btrfs", &["-q", &text(&btrfs)]);
    let volume = |id: &str, path: &Path| -> (String, Arc<dyn DiskMut>) { (id.into(), FileDisk::open(path)) };
    let volumes =
        vec![volume("root", &root), volume("xfs", &xfs), volume("esp", &vfat), volume("btrfs", &btrfs)];
    let session = start_with(&settings, volumes).unwrap();
    session.mount("root", "ext4", "a", "/", false).unwrap();
    let error = session.mount("xfs", "xfs", "a", "/absent", false).unwrap_err();
    assert!(error.says().contains("/absent"), "{error}");
    session.apply("a", &[put("/data/.keep", b""), put("/srv/.keep", b"")]).unwrap();
    session.mount("xfs", "xfs", "a", "/data", false).unwrap();
    session.mount("esp", "vfat", "a", "/boot/efi", false).unwrap();
    session.mount("btrfs", "btrfs", "a", "/srv", false).unwrap();
    let content = vec![7; 3 << 20];
    let files = ["/data/x/file", "/boot/efi/EFI/BOOT/Long name über.efi", "/srv/file"];
    for file in files {
        session.apply("a", &[put(file, &content)]).unwrap();
        // Once more, over what is there.
        session.apply("a", &[put(file, &content[1..])]).unwrap();
    }
    for file in files {
        assert!(session.tree("a").read(file, Bytes::mib(3)).unwrap().unwrap() == content[1..], "{file}");
    }
    assert!(session.tree("a").exists("/boot/efi/efi/boot").unwrap(), "FAT takes no notice of case");
    let link = Change::Symlink { path: "/boot/efi/link".into(), target: "x".into() };
    assert!(session.apply("a", &[link]).is_err(), "FAT has no links");
    session.unmount("a", "/data").unwrap();
    assert!(!session.tree("a").exists("/data/x").unwrap());
    session.finish().unwrap();
    run("e2fsck", &["-fn", &text(&root)]);
    run("xfs_repair", &["-n", &text(&xfs)]);
    run("fsck.vfat", &["-n", &text(&vfat)]);
    run("btrfs", &["check", &text(&btrfs)]);
    let listing = run("mdir", &["-b", "-/", "-i", &text(&vfat), "::"]);
    assert!(listing.contains("Long name"), "{listing}");
}

#[test]
fn a_dirty_journal_is_replayed_also_read_only() {
    let Some(settings) = settings("a_dirty_journal_is_replayed_also_read_only") else { return };
    for (fs, mib) in [("ext4", 64), ("xfs", 320)] {
        let (_dir, path) = image(mib);
        run(&format!("mkfs.{fs}"), &["-q", path.to_str().unwrap()]);
        let session = start(&settings, &path);
        session.mount("disk0p1", fs, "a", "/", false).unwrap();
        let changes: Vec<Change> = (0..50).map(|n| put(&format!("/d{n}/file"), &[7; 5000])).collect();
        session.apply("a", &changes).unwrap();
        // Now it is in the journal, and nowhere else when the machine is gone.
        session.sync().unwrap();
        let id = session.process_id().unwrap();
        drop(session);
        gone(id);
        for read_only in [true, false] {
            let session = start(&settings, &path);
            session.mount("disk0p1", fs, "a", "/", read_only).unwrap();
            assert_eq!(session.tree("a").read("/d49/file", Bytes::mib(1)).unwrap().unwrap(), [7; 5000]);
            let written = session.apply("a", &[put("/new", b"x")]);
            assert_eq!(written.is_err(), read_only, "{written:?}");
            session.finish().unwrap();
        }
        match fs {
            "ext4" => drop(run("e2fsck", &["-fn", path.to_str().unwrap()])),
            _ => drop(run("xfs_repair", &["-n", path.to_str().unwrap()])),
        }
    }
}

#[test]
fn damaged_and_foreign_file_systems_are_errors() {
    let Some(settings) = settings("damaged_and_foreign_file_systems_are_errors") else { return };
    let (_dir, path) = ext4(16);
    let write = |at: u64, bytes: &[u8]| {
        File::options().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
    };
    let sound = std::fs::read(&path).unwrap();
    let session = start(&settings, &path);
    for (what, at, bytes) in [
        ("magic", 1024 + 0x38, &[0, 0][..]),
        ("block count", 1024 + 4, &[0xff; 4]),
        ("block size", 1024 + 0x18, &[99]),
        ("inodes per group", 1024 + 0x28, &[0xff; 4]),
        ("features", 1024 + 0x60, &[0xff; 4]),
        ("whole superblock", 1024, &[0xa5; 1024]),
    ] {
        // In place: a file that is cut off for a moment is another error, for whoever reads just then.
        write(0, &sound);
        write(at, bytes);
        let error = session.mount("disk0p1", "ext4", "a", "/", false).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error}");
        assert!(error.says().contains("kernel says"), "{what}: {error}");
        eprintln!("{what}: {error}");
    }
    assert_eq!(session.mount("disk0p1", "xfs", "a", "/", false).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(session.mount("disk0p1", "zfs", "a", "/", false).unwrap_err().kind(), Kind::Unsupported);
    // It goes on all the same. (A machine of its own, since the kernel remembers what it has read.)
    write(0, &sound);
    session.finish().unwrap();
    // Damage behind the superblock shows when it is met; a superblock that asks for a panic gets none.
    run("tune2fs", &["-e", "panic", path.to_str().unwrap()]);
    let session = start(&settings, &path);
    let root = run("debugfs", &["-R", "blocks /", path.to_str().unwrap()]);
    let block: u64 = root.lines().next().unwrap().split_whitespace().next().unwrap().parse().unwrap();
    write(block * 1024, &[0xff; 1024]);
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    let error = session.tree("a").list("/").unwrap_err();
    eprintln!("behind the superblock: {error}");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert_eq!(session.finish().unwrap_err().kind(), Kind::Corrupt, "it must not pass for done");
}

#[test]
fn a_full_file_system_keeps_the_old_file() {
    let Some(settings) = settings("a_full_file_system_keeps_the_old_file") else { return };
    let (_dir, path) = ext4(16);
    let session = start(&settings, &path);
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    let free = session.tree("a").free_space("/etc/fstab").unwrap().unwrap().0;
    // Known beforehand; and found out late, since the file's own blocks take some of what is free.
    for size in [free + 1, free] {
        let error =
            session.apply("a", &[put("/etc/fstab", &vec![1; usize::try_from(size).unwrap()])]).unwrap_err();
        assert_eq!(error.io_error().unwrap().raw_os_error(), Some(28), "{error}");
        assert!(error.hint_text().unwrap().contains("running guest"), "{error}");
        assert!(error.says().contains("/etc/fstab"), "{error}");
    }
    let tree = session.tree("a");
    assert!(tree.read_text("/etc/fstab").unwrap().unwrap().contains("defaults"));
    assert!(tree.names("/etc").unwrap().iter().all(|name| !name.contains("landfall")));
    session.finish().unwrap();
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
}

/// A /boot that is nearly full, as many are: what has no room beside its predecessor is written over it.
#[test]
fn a_long_file_takes_the_place_of_its_predecessor() {
    let Some(settings) = settings("a_long_file_takes_the_place_of_its_predecessor") else { return };
    for kind in ["ext4", "vfat", "xfs"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        // The least that mkfs.xfs makes.
        File::create(&path).unwrap().set_len(300 << 20).unwrap();
        match kind {
            "vfat" => run("mkfs.vfat", &["-F", "32", path.to_str().unwrap()]),
            _ => run(&format!("mkfs.{kind}"), &["-q", path.to_str().unwrap()]),
        };
        let session = start(&settings, &path);
        session.mount("disk0p1", kind, "a", "/", false).unwrap();
        let free = session.tree("a").free_space("/").unwrap().unwrap().0;
        let old = vec![7; 40 << 20];
        let filler = vec![0; usize::try_from(free).unwrap() - old.len() - (20 << 20)];
        session.apply("a", &[put("/filler", &filler), put("/initrd", &old)]).unwrap();
        let free = session.tree("a").free_space("/").unwrap().unwrap().0;
        let new: Vec<u8> = (0..50_u32 << 18).flat_map(u32::to_le_bytes).collect();
        assert!(free < new.len() as u64, "{kind}: {free}");
        session.apply("a", &[put("/initrd", &new)]).unwrap();
        assert!(session.tree("a").read("/initrd", Bytes::gib(1)).unwrap().unwrap() == new, "{kind}");
        // Twice its room is not there in any way, and the file stays.
        let error = session.apply("a", &[put("/initrd", &[new.clone(), new.clone()].concat())]).unwrap_err();
        assert_eq!(error.io_error().unwrap().raw_os_error(), Some(28), "{kind}: {error}");
        session.finish().unwrap();
        let session = start(&settings, &path);
        session.mount("disk0p1", kind, "a", "/", true).unwrap();
        assert!(session.tree("a").read("/initrd", Bytes::gib(1)).unwrap().unwrap() == new, "{kind}");
        session.finish().unwrap();
        match kind {
            "ext4" => run("e2fsck", &["-fn", path.to_str().unwrap()]),
            "xfs" => run("xfs_repair", &["-n", path.to_str().unwrap()]),
            _ => run("fsck.vfat", &["-n", path.to_str().unwrap()]),
        };
    }
}

#[test]
fn a_disk_that_fails_outside_says_so() {
    let Some(settings) = settings("a_disk_that_fails_outside_says_so") else { return };
    let (_dir, path) = ext4(64);
    let disk = Arc::new(Filling { disk: FileDisk::open(&path), full: AtomicBool::new(false) });
    let session =
        start_with(&settings, vec![("root".into(), Arc::clone(&disk) as Arc<dyn DiskMut>)]).unwrap();
    session.mount("root", "ext4", "a", "/", false).unwrap();
    disk.full.store(true, Ordering::Relaxed);
    let error = session.apply("a", &[put("/etc/fstab", &[1; 100_000])]).unwrap_err();
    assert_eq!(error.says(), "cannot write scratch", "{error}");
    assert!(session.finish().is_err(), "what was written is not complete");
}

#[test]
fn the_end_of_qemu_and_a_stop_are_told_and_nothing_is_left() {
    let test = "the_end_of_qemu_and_a_stop_are_told_and_nothing_is_left";
    let Some(mut settings) = settings(test) else { return };
    let (_dir, path) = ext4(64);
    let session = start(&settings, &path);
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    let id = session.process_id().unwrap();
    run("kill", &["-9", &id.to_string()]);
    let error = session.apply("a", &[put("/etc/fstab", b"x")]).unwrap_err();
    assert!(error.says().contains("QEMU ended"), "{error}");
    gone(id);
    let error = session.sync().unwrap_err();
    assert!(error.says().contains("has ended"), "{error}");
    assert!(session.finish().is_err());

    settings.cancel = Arc::default();
    let session = start(&settings, &path);
    let id = session.process_id().unwrap();
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    settings.cancel.store(true, Ordering::Relaxed);
    // The flag is looked at whenever something is waited for; a quick answer may come first.
    let stopped = (0..10_000).find_map(|_| session.sync().err());
    assert!(stopped.is_none_or(|error| error.kind() == Kind::Interrupted));
    drop(session);
    gone(id);
    let error = start_with(&settings, vec![]).err().unwrap();
    assert_eq!(error.kind(), Kind::Interrupted);
}

#[test]
fn what_is_missing_is_named_with_what_helps() {
    let Some(good) = settings("what_is_missing_is_named_with_what_helps") else { return };
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = good.clone();
        settings.saved_state = false;
        change(&mut settings);
        let error = start_with(&settings, vec![]).err().unwrap();
        eprintln!("{error} ({})", error.hint_text().unwrap_or_default());
        error
    };
    let error = with(&|settings| settings.kernel_folder = Some(empty.clone()));
    assert!(error.says().contains("no kernel") && error.hint_text().is_some());
    let error = with(&|settings| settings.qemu = "qemu-system-none".into());
    assert!(error.hint_text().unwrap().contains("qemu-system-x86"));
    let error = with(&|settings| settings.bwrap = "bwrap-none".into());
    assert!(error.hint_text().unwrap().contains("bubblewrap"));
    // A bwrap that cannot do its work, and one that is killed before QEMU answers.
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::os::unix::fs::PermissionsExt::set_mode(&mut path.metadata().unwrap().permissions(), 0o755);
        run("chmod", &["755", dir.path().to_str().unwrap(), path.to_str().unwrap()]);
        path
    };
    let fails = script("fails", "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1");
    let error = with(&|settings| settings.bwrap = fails.clone());
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.hint_text().unwrap().contains("user namespaces"), "{error}");
    let dies = script("dies", "echo 'out of luck' >&2; kill -9 $$");
    let error = with(&|settings| settings.bwrap = dies.clone());
    assert!(error.says().contains("out of luck"), "{error}");
    // A program that cannot be PID 1.
    let dynamic = script("dynamic", "");
    let error = with(&|settings| settings.agent = dynamic.clone());
    assert!(error.says().contains("static"), "{error}");
}

#[test]
fn the_accelerator_is_found_out() {
    let Some(mut settings) = settings("the_accelerator_is_found_out") else { return };
    let (_dir, path) = ext4(64);
    settings.accelerator = None;
    for _ in 0..2 {
        let session = start(&settings, &path);
        eprintln!("runs by {:?}", session.accelerator());
        session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
        session.finish().unwrap();
    }
}

#[test]
fn an_ordinary_user_can_do_it_too() {
    let test = "an_ordinary_user_can_do_it_too";
    if settings(test).is_none() {
        return;
    }
    let program = std::env::current_exe().unwrap();
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(args);
        command
    };
    let may_run = as_nobody(&["test", "-x", program.to_str().unwrap()]).status();
    if run("id", &["-u"]).trim() != "0" || !may_run.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {test}: not root, or nobody cannot run {}", program.display());
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    run("chown", &["65534:65534", cache.path().to_str().unwrap()]);
    let mut command =
        as_nobody(&[program.to_str().unwrap(), "--exact", "ext4_is_mounted_read_and_written", "--nocapture"]);
    command.env("LANDFALL_SANDBOX_CACHE", cache.path()).env("TMPDIR", cache.path());
    let out = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    assert!(text.contains("SKIPPED") || text.contains("Finished"), "{text}");
    eprintln!("{text}");
}

/// Not a test by itself: what the next one starts and kills.
#[test]
fn waits_in_a_sandbox() {
    let Some(report_to) = std::env::var_os("LANDFALL_TEST_WAITS") else { return };
    let Some(settings) = settings("waits_in_a_sandbox") else { return };
    let session = start_with(&settings, vec![]).unwrap();
    std::fs::write(report_to, session.process_id().unwrap().to_string()).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(300));
}

#[test]
fn nothing_is_left_when_the_program_is_killed() {
    let Some(_) = settings("nothing_is_left_when_the_program_is_killed") else { return };
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("id");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "waits_in_a_sandbox"])
        .env("LANDFALL_TEST_WAITS", &report)
        .spawn()
        .unwrap();
    let id = loop {
        match std::fs::read_to_string(&report).unwrap_or_default().parse::<u32>() {
            Ok(id) => break id,
            Err(_) => assert!(child.try_wait().unwrap().is_none(), "it did not start"),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    // The confiner, the first process of its name space, and QEMU.
    let mut family = vec![id];
    for n in 0..2 {
        let path = format!("/proc/{0}/task/{0}/children", family[n]);
        family.push(std::fs::read_to_string(path).unwrap().trim().parse().unwrap());
    }
    let name = std::fs::read_to_string(format!("/proc/{}/comm", family[2])).unwrap();
    assert!(name.starts_with("qemu"), "{name}");
    // What QEMU may do: an ordinary user, no way up, a filter, no network.
    let status = std::fs::read_to_string(format!("/proc/{}/status", family[2])).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line} of {status}");
    }
    assert!(!status.contains("Uid:\t0\t"), "{status}");
    let net = std::fs::read_to_string(format!("/proc/{}/net/dev", family[2])).unwrap();
    assert!(net.lines().skip(2).all(|line| line.trim().starts_with("lo:")), "{net}");
    child.kill().unwrap();
    child.wait().unwrap();
    family.into_iter().for_each(gone);
}

/// Processes of sandboxes that nobody waits for any more.
fn orphans() -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let is_named = ["Name:\tbwrap\n", "Name:\tqemu-system"].iter().any(|name| status.contains(name));
        if is_named && status.contains("PPid:\t1\n") && !status.contains("State:\tZ") {
            out.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    out
}

/// The confiner asks the kernel to end with the program, and so does its child: but while it builds, not yet.
#[test]
fn nothing_is_left_when_the_program_is_killed_while_it_starts() {
    let Some(_) = settings("nothing_is_left_when_the_program_is_killed_while_it_starts") else { return };
    let before = orphans();
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("id");
    // From before the confiner is there until after QEMU is.
    let mut started = 0;
    for step in 0..60 {
        let _ = std::fs::remove_file(&report);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "waits_in_a_sandbox"])
            .env("LANDFALL_TEST_WAITS", &report)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{}/task", child.id());
        // A thread of it starts the confiner.
        let has_child = || {
            let Ok(threads) = std::fs::read_dir(&children) else { return false };
            threads.flatten().any(|thread| {
                std::fs::read_to_string(thread.path().join("children")).is_ok_and(|list| !list.is_empty())
            })
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !has_child() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        started += usize::from(has_child());
        std::thread::sleep(std::time::Duration::from_millis(step));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(started > 30, "only {started} had begun");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let left: Vec<String> = orphans().into_iter().filter(|id| !before.contains(id)).collect();
        if left.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "left behind: {left:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
