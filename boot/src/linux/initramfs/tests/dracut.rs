//! dracut's images as dracut makes them: with systemd and without, for this host strictly, without a kernel, squashed.

use super::resolve::resolves;
use super::*;

/// Every image of every tree: suite, tree, kernel, name, bytes.
pub(super) fn images() -> Vec<(Guest, String)> {
    let mut found = Vec::new();
    for suite in ["bullseye", "bookworm", "trixie"] {
        let Some((root, kernel)) = tree("dracut", suite) else { continue };
        let mut names: Vec<String> = std::fs::read_dir(root.join("boot"))
            .expect("a folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".img"))
            .collect();
        names.sort();
        for name in names {
            let archive = std::fs::read(root.join("boot").join(&name)).expect("an image");
            let (root, kernel) = (root.clone(), kernel.clone());
            found.push((Guest { suite, root, kernel, archive }, name));
        }
    }
    found
}

#[test]
fn every_kind_of_image_gets_drivers_that_kmod_finds() {
    for (guest, name) in images() {
        let shown = format!("{} {name}", guest.suite);
        let before = inspect(&guest.archive).expect(&shown);
        assert_eq!(
            before.generator,
            if before.squashed && name.contains("erofs") { before.generator } else { Generator::Dracut },
            "{shown}"
        );
        assert_eq!(before.squashed, name.contains("squash"), "{shown}");
        let start = Instant::now();
        let new = match rewrite(&guest.archive, &guest.edit(), &guest.tree()) {
            Err(error) if name.contains("erofs") => {
                assert!(error.kind() == Kind::Unsupported && error.says().contains("EROFS"), "{error}");
                continue;
            }
            other => other.expect(&shown),
        };
        eprintln!(
            "{shown}: {} {} -> {} as {} in {:?}, {} added",
            before.entries,
            new.old_size,
            new.new_size,
            new.compressor.name(),
            start.elapsed(),
            new.added.len()
        );
        assert!(new.changed && new.added.contains(&"virtio_blk".into()), "{shown}");
        assert_eq!(new.warnings, Vec::<String>::new(), "{shown}");
        let after = inspect(&new.bytes).expect(&shown);
        // What only the outer system needs goes with it.
        let loader = ["loop", "squashfs", "overlay"];
        let lost: Vec<_> = before.modules.difference(&after.modules).collect();
        assert!(
            !after.squashed && lost.iter().all(|name| loader.contains(&name.as_str())),
            "{shown}: {lost:?}"
        );
        assert_ne!(new.compressor, Compressor::None, "{shown}");
        resolves(&new.bytes, &guest.root, &guest.kernel, DRIVERS);
        let again = rewrite(&new.bytes, &guest.edit(), &guest.tree()).expect(&shown);
        assert!(!again.changed && again.bytes == new.bytes, "{shown}");
        let inside = |path: &str| {
            let segments = segment::split(&new.bytes).expect("sound");
            let mut content = Content::new();
            merge(&new.bytes, &segments, 0, &mut content).expect("sound");
            content.get(path.as_bytes()).expect("sound").map(|file| text(&file.data))
        };
        let listed = match inside("usr/lib/systemd/systemd") {
            Some(_) => inside("etc/modules-load.d/landfall.conf"),
            None => inside("etc/cmdline.d/20-landfall.conf"),
        };
        assert!(listed.expect(&shown).contains("virtio_blk"), "{shown}");
    }
}

/// What the real unsquashfs finds in dracut's image is in the archive that is written, and nothing is lost.
#[test]
fn a_squashed_image_is_unfolded_completely() {
    for (guest, name) in images() {
        if !name.starts_with("squash") || name.contains("erofs") {
            continue;
        }
        let segments = segment::split(&guest.archive).expect("sound");
        let mut content = Content::new();
        merge(&guest.archive, &segments, 0, &mut content).expect("sound");
        let dir = tempfile::tempdir().expect("temporary folder");
        let image = dir.path().join("image");
        let found = ["squash-root.img", "squashfs-root.img", "squash/root.img"]
            .into_iter()
            .find_map(|path| content.get(path.as_bytes()).expect("sound").map(|file| file.data.to_vec()));
        std::fs::write(&image, found.expect("an image")).expect("write");
        let out = dir.path().join("out");
        let Some(output) = run(Command::new("unsquashfs").args(["-no-progress", "-d"]).arg(&out).arg(&image))
        else {
            return;
        };
        assert!(output.status.success(), "{}", text(&output.stderr));
        let new = rewrite(&guest.archive, &guest.edit(), &guest.tree()).expect("rewritten");
        let segments = segment::split(&new.bytes).expect("sound");
        let mut content = Content::new();
        merge(&new.bytes, &segments, 0, &mut content).expect("sound");
        let mut seen = 0;
        let mut folders = vec![out.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                let meta = std::fs::symlink_metadata(&path).expect("there");
                let below = path.strip_prefix(&out).expect("below").to_string_lossy().into_owned();
                let inside =
                    content.get(below.as_bytes()).expect("sound").unwrap_or_else(|| panic!("no {below}"));
                seen += 1;
                if below.contains("/modules.") || below == "init" {
                    continue;
                }
                assert_eq!(inside.mode, meta.mode(), "{below}");
                if meta.is_dir() {
                    folders.push(path);
                } else if meta.is_symlink() {
                    let target = std::fs::read_link(&path).expect("a link");
                    assert_eq!(text(&inside.data), target.to_string_lossy(), "{below}");
                } else if meta.is_file() {
                    assert!(*inside.data == *std::fs::read(&path).expect("a file"), "{below}");
                }
            }
        }
        assert!(seen > 300, "{} {name}: {seen} files", guest.suite);
    }
}

/// A real system's root on a virtio disk is found only after the rewrite.
#[test]
fn a_real_kernel_mounts_its_root_only_after_the_rewrite() {
    for (guest, name) in images() {
        // Without systemd is the quickest; the squashed one is another system before and after.
        if !(name.starts_with("strict") || name.starts_with("squash")) || name.contains("erofs") {
            continue;
        }
        let new = rewrite(&guest.archive, &guest.edit(), &guest.tree()).expect("rewritten");
        for (archive, expected) in [(&guest.archive, false), (&new.bytes, true)] {
            let Some(console) = mount_root(&guest, archive) else { return };
            let mounted = console.contains("ROOT-MOUNTED");
            assert_eq!(mounted, expected, "{} {name}\n{console}", guest.suite);
        }
    }
}

/// The console of the guest's kernel with this initramfs and a small root on a virtio disk.
fn mount_root(guest: &Guest, archive: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let root = dir.path().join("root");
    for folder in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "usr/lib"] {
        std::fs::create_dir_all(root.join(folder)).expect("folder");
    }
    let busybox = guest.root.join("bin/busybox");
    std::fs::copy(&busybox, root.join("bin/busybox")).expect("the tree's static busybox");
    let init = "#!/bin/busybox sh\n/bin/busybox echo ROOT-MOUNTED >/dev/console\n\
        /bin/busybox sleep 1\n/bin/busybox poweroff -f\n";
    std::fs::write(root.join("sbin/init"), init).expect("write");
    std::fs::write(root.join("etc/os-release"), "ID=test\nNAME=test\n").expect("write");
    std::fs::write(root.join("usr/lib/os-release"), "ID=test\nNAME=test\n").expect("write");
    let output =
        run(Command::new("chmod").arg("755").arg(root.join("sbin/init")).arg(root.join("bin/busybox")))?;
    assert!(output.status.success());
    let disk = dir.path().join("disk");
    let mkfs = run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-U", "11111111-2222-3333-4444-555555555555", "-d"])
        .arg(&root)
        .arg(&disk)
        .arg("64M"))?;
    assert!(mkfs.status.success(), "{}", text(&mkfs.stderr));
    let append = "root=UUID=11111111-2222-3333-4444-555555555555 ro console=ttyS0 panic=-1 rd.shell=0 rd.retry=10 \
        rd.timeout=20 systemd.show_status=1";
    let ends = ["ROOT-MOUNTED", "Refusing to continue", "dracut: FATAL", "Could not boot", "emergency"];
    start(guest, archive, &disk, append, &ends)
}
