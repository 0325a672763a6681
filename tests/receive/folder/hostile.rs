//! Whoever can write into the folder is a stranger.

use super::{Became, Options, content, fs, program, qemu_img, yard};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn nothing_but_files_of_its_own_is_taken() {
    let (dir, yard) = yard(Options::default());
    let outside = dir.path().join("secret.raw");
    fs::write(&outside, content(3)).unwrap();
    let make = |work: &dyn Fn(&Path)| {
        let folder = yard.drops().join("web01");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        work(&folder);
        let refused = yard.refused();
        assert!(folder.join("REFUSED.txt").is_file());
        refused
    };
    for (words, work) in [
        (
            "symbolic link",
            &(|folder: &Path| symlink(&outside, folder.join("a.raw")).unwrap()) as &dyn Fn(&Path),
        ),
        ("symbolic link", &|folder: &Path| {
            fs::write(folder.join("a.raw"), content(1)).unwrap();
            symlink("a.raw", folder.join("b.raw")).unwrap();
        }),
        ("symbolic link", &|folder: &Path| {
            fs::write(folder.join("a.raw"), content(1)).unwrap();
            symlink("/etc", folder.join("more")).unwrap();
        }),
        ("neither a file nor a folder", &|folder: &Path| {
            assert!(Command::new("mkfifo").arg(folder.join("a.raw")).status().unwrap().success());
        }),
        ("is no text", &|folder: &Path| {
            fs::write(folder.join(std::ffi::OsStr::from_bytes(b"a\xff.raw")), content(1)).unwrap();
        }),
        ("control characters", &|folder: &Path| fs::write(folder.join("a\x1b[2J.raw"), content(1)).unwrap()),
        ("folders deep", &|folder: &Path| {
            let deep = folder.join("1/2/3/4/5/6/7/8/9/10");
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("a.raw"), "").unwrap();
            fs::write(folder.join("a.raw"), "").unwrap();
        }),
        ("more than 10000", &|folder: &Path| {
            (0..10_001).for_each(|n| drop(fs::write(folder.join(format!("{n}.raw")), "")));
        }),
        ("neither a machine's definition nor a disk image", &|folder: &Path| {
            fs::write(folder.join("README"), "hello").unwrap();
        }),
        ("no file in the drop", &|folder: &Path| {
            let sum = "0".repeat(64);
            fs::write(folder.join("a.raw"), "").unwrap();
            fs::write(folder.join("SHA256SUMS"), format!("{sum}  ../../secret.raw\n")).unwrap();
        }),
        ("no file in the drop", &|folder: &Path| {
            let text = format!(
                "{{\"landfall_drop\": 1, \"files\": {{\"/etc/passwd\": {{\"sha256\": \"{}\"}}}}}}",
                "0".repeat(64)
            );
            fs::write(folder.join("landfall.json"), text).unwrap();
        }),
        ("of format 9", &|folder: &Path| {
            fs::write(folder.join("landfall.json"), "{\"landfall_drop\": 9, \"files\": {}}").unwrap();
        }),
    ] {
        let refused = make(work);
        assert!(refused.contains(words), "{words}: {refused}");
    }
    assert!(yard.vault.machines().is_empty());
}

/// Names of images that lead out of the drop reach nothing: they are deltas over what is not there.
#[test]
fn images_reach_nothing_outside() {
    if program("qemu-img", "qemu-utils").is_none() {
        return;
    }
    let (dir, yard) = yard(Options::default());
    let outside = dir.path().join("secret.raw");
    fs::write(&outside, content(3)).unwrap();
    let folder = yard.drops().join("web01");
    for path in [outside.to_str().unwrap(), "../../secret.raw"] {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", path, "-F", "raw", "a.qcow2", "8M"], &folder);
        let refused = yard.refused();
        assert!(refused.contains("is a delta over"), "{refused}");
        // A definition does not, either.
        fs::remove_file(folder.join("a.qcow2")).unwrap();
        fs::write(folder.join("web01.vmx"), super::vmx("web01", &[path])).unwrap();
        let refused = yard.refused();
        assert!(refused.contains("secret.raw"), "{refused}");
    }
    assert!(yard.vault.machines().is_empty());
}

/// Our own notes are not written through what somebody put in their place.
#[test]
fn notes_follow_no_links() {
    let (dir, yard) = yard(Options::default());
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    let folder = yard.drops().join("web01");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("README"), "no image").unwrap();
    symlink(&target, folder.join("REFUSED.txt")).unwrap();
    symlink(&target, folder.join("._REFUSED.txt")).unwrap();
    yard.refused();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert!(fs::symlink_metadata(folder.join("REFUSED.txt")).unwrap().is_file());
    // Nor is anything put away through one.
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let _ = fs::remove_dir(yard.drops().join(".done"));
    symlink(&elsewhere, yard.drops().join(".done")).unwrap();
    fs::remove_file(folder.join("README")).unwrap();
    fs::write(folder.join("a.raw"), content(1)).unwrap();
    assert!(yard.refused().contains("is no folder"));
    assert!(fs::read_dir(&elsewhere).unwrap().next().is_none() && yard.points("web01") == 0);
}

#[test]
fn folders_that_name_no_machine_are_told_of() {
    let (_dir, yard) = yard(Options::default());
    for name in ["..x", "a:b", "x  y", &"n".repeat(150)] {
        let folder = yard.drops().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.raw"), content(1)).unwrap();
        let outcomes = yard.scan();
        // What begins with a dot is hidden, and not looked at.
        match name.starts_with('.') {
            true => assert!(outcomes.is_empty()),
            false => assert!(
                matches!(&outcomes[0].became, Became::Refused(_)) && folder.join("REFUSED.txt").exists()
            ),
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::write(yard.drops().join("a.raw"), content(1)).unwrap();
    assert!(yard.waits().contains("no machine's folder"));
    symlink("/etc", yard.drops().join("link")).unwrap();
    assert_eq!(yard.scan().len(), 2);
    assert!(yard.vault.machines().is_empty());
}
