//! Guests that mean harm, as a whole pass sees them: the real family, the real sandbox. Nothing outside of the disk is
//! touched, nothing hangs, nothing takes memory without bound, no file of the guest is ever run, and what is said names
//! the path and holds nothing that could steer a terminal.

mod crafted;
#[path = "hostile/guest.rs"]
mod guest;
mod helper;

use crafted::{many_slots, nested_arrays, physical_volume};
use guest::*;
use helper::*;
use landfall_image::luks::Secret;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn an_ordinary_guest_is_patched() {
    let _one = one();
    let Some(sandbox) = ready("an_ordinary_guest_is_patched") else { return };
    // Hard links: the other name keeps the old content.
    let guest = Guest::new(|root, _| fs::hard_link(root.join("etc/fstab"), root.join("etc/twin")).unwrap());
    let seen = guest.pass(&sandbox).unwrap();
    assert!(seen.applied.is_some(), "{:?}", seen.inspection.plan.findings);
    assert!(guest.cat("/etc/fstab").starts_with("UUID="));
    assert!(guest.cat("/etc/twin").starts_with("/dev/sda "));
}

#[test]
fn links_out_of_the_root_lead_inside() {
    let _one = one();
    let Some(sandbox) = ready("links_out_of_the_root_lead_inside") else { return };
    // Every file of configuration, absolutely and by way of `..`.
    for up in ["", "../../../../../../../../../../../.."] {
        let guest = Guest::new(|root, outside| {
            for path in CONFIGS {
                clear(&root.join(path));
                symlink(format!("{up}{}/fstab", outside.display()), root.join(path)).unwrap();
            }
        });
        let outcome = guest.pass(&sandbox);
        assert!(outcome.is_ok(), "{}", said(&outcome));
    }
    // Every folder, to where the agent and the host have theirs.
    for target in ["/proc/1/root", "/proc/self/root/etc", "../../../../proc/1/cwd", "/dev", "/sys", "/guest"]
    {
        let folders = [
            "etc/network",
            "etc/default",
            "etc/initramfs-tools",
            "etc/systemd",
            "etc/udev",
            "boot/grub",
            "lib/modules",
            "var/lib/dpkg",
        ];
        for folder in folders.map(Some).into_iter().chain([None]) {
            if folder.is_some() && target != "/proc/1/root" {
                // One at a time only for the worst of them.
                continue;
            }
            let guest = Guest::new(|root, _| {
                for path in folders.iter().filter(|path| folder.is_none_or(|folder| folder == **path)) {
                    clear(&root.join(path));
                    symlink(target, root.join(path)).unwrap();
                }
            });
            let _ = guest.pass(&sandbox);
        }
    }
    for (path, target) in [
        ("boot", "../../.."),
        ("boot", "/proc/1/root"),
        ("etc", "/proc/1/root"),
        ("lib", "."),
        ("boot", "boot"),
    ] {
        let guest = Guest::new(|root, _| {
            clear(&root.join(path));
            symlink(target, root.join(path)).unwrap();
        });
        let outcome = guest.pass(&sandbox);
        // Without its modules' lists a kernel is left alone, and that is said.
        let is_told = said(&outcome).contains("linux-kernel-unchecked");
        let is_refused = outcome.is_err() || outcome.is_ok_and(|seen| seen.inspection.plan.is_blocked());
        assert!(is_refused || path == "lib" && is_told, "{path} {target}");
    }
}

/// A pipe blocks whoever opens it, and a device does what devices do.
#[test]
fn what_is_no_file_is_not_opened() {
    let _one = one();
    let Some(sandbox) = ready("what_is_no_file_is_not_opened") else { return };
    let make = |kind: &str, path: &Path| {
        clear(path);
        let path = path.display();
        match kind {
            "pipe" => drop(run(&format!("mkfifo {path}"))),
            "zero" => drop(run(&format!("mknod {path} c 1 5"))),
            "disk" => drop(run(&format!("mknod {path} b 8 0"))),
            "tty" => drop(run(&format!("mknod {path} c 5 0"))),
            "socket" => drop(std::os::unix::net::UnixListener::bind(path.to_string()).unwrap()),
            _ => fs::create_dir_all(path.to_string()).unwrap(),
        }
    };
    for kind in ["pipe", "zero", "disk", "tty", "socket", "folder"] {
        let guest = Guest::new(|root, _| CONFIGS.iter().for_each(|path| make(kind, &root.join(path))));
        let outcome = guest.pass(&sandbox);
        let said = said(&outcome);
        assert!(said.contains("/etc/fstab") && said.contains("/etc/default/grub"), "{kind}: {said}");
    }
    // One at a time, what the pass goes on to write.
    let initrd = format!("boot/initrd.img-{VERSION}");
    for kind in ["pipe", "folder"] {
        for path in [
            initrd.as_str(),
            "etc/systemd/network",
            "etc/systemd/network/10-landfall-ens192.link",
            "etc/network/interfaces",
            "etc/systemd",
            "etc/default/grub",
        ] {
            let guest = Guest::new(|root, _| make(kind, &root.join(path)));
            let outcome = guest.pass(&sandbox);
            eprintln!("{kind} {path}: {}", said(&outcome));
            if path == initrd {
                assert!(said(&outcome).contains(path), "{kind} {path}");
            }
        }
    }
    // A file where a folder should be.
    for path in [
        "etc/network",
        "etc/default",
        "etc/systemd",
        "etc/systemd/network",
        "lib/modules",
        "boot/grub",
        "boot",
        "etc",
    ] {
        let guest = Guest::new(|root, _| {
            clear(&root.join(path));
            fs::write(root.join(path), "a file\n").unwrap();
        });
        eprintln!("file {path}: {}", said(&guest.pass(&sandbox)));
    }
}

#[test]
fn absurd_files_and_loops_are_refused_by_name() {
    let _one = one();
    let Some(sandbox) = ready("absurd_files_and_loops_are_refused_by_name") else { return };
    let huge = |path: &Path| {
        clear(path);
        File::create(path).unwrap().set_len(10 << 30).unwrap();
    };
    let guest = Guest::new(|root, _| huge(&root.join("etc/fstab")));
    let outcome = guest.pass(&sandbox);
    assert!(said(&outcome).contains("/etc/fstab"), "{}", said(&outcome));
    let guest = Guest::new(|root, _| CONFIGS.iter().for_each(|path| huge(&root.join(path))));
    let outcome = guest.pass(&sandbox);
    assert!(said(&outcome).contains("/etc/network/interfaces"), "{}", said(&outcome));
    let guest = Guest::new(|root, _| huge(&root.join(format!("boot/initrd.img-{VERSION}"))));
    assert!(said(&guest.pass(&sandbox)).contains("initrd.img"));
    let guest = Guest::new(|root, _| {
        // Loops, chains, folders in themselves, and files that name one another.
        symlink("resolv.conf", root.join("etc/resolv.conf")).unwrap();
        symlink(".", root.join("boot/boot")).unwrap();
        symlink("..", root.join("etc/network/up")).unwrap();
        let folder = root.join("etc/network/interfaces.d");
        fs::create_dir_all(&folder).unwrap();
        symlink("../interfaces", folder.join("again")).unwrap();
        symlink("../../network/interfaces.d", folder.join("folder")).unwrap();
        write(
            &folder,
            "source",
            "source /etc/network/interfaces.d/*\nsource /etc/network/up/network/interfaces.d/*\nsource-directory /etc/network/up/network/up/network/interfaces.d\n",
        );
        clear(&root.join("etc/crypttab"));
        symlink("chain0", root.join("etc/crypttab")).unwrap();
        for n in 0..60 {
            symlink(format!("chain{}", n + 1), root.join(format!("etc/chain{n}"))).unwrap();
        }
        // As deep as a path can be named, and deeper.
        let mut deep = root.join("etc/modprobe.d");
        for _ in 0..400 {
            deep.push("deep");
        }
        fs::create_dir_all(&deep).unwrap();
    });
    let outcome = guest.pass(&sandbox);
    assert!(said(&outcome).contains("/etc/crypttab"), "{}", said(&outcome));
    assert!(outcome.unwrap().applied.is_some());
}

#[test]
fn names_that_steer_terminals_are_shown_and_not_obeyed() {
    let _one = one();
    let Some(sandbox) = ready("names_that_steer_terminals_are_shown_and_not_obeyed") else { return };
    let evil = "x\n\u{1b}]0;owned\u{7}\u{1b}[2J\rroot-several: choose";
    let guest = Guest::new(|root, _| {
        for (folder, end) in [
            ("boot", ""),
            ("lib/modules", ""),
            ("etc/network/interfaces.d", ""),
            ("etc/netplan", ".yaml"),
            ("etc/modprobe.d", ".conf"),
            ("etc/systemd/network", ".network"),
            ("etc/systemd/system", ".mount"),
            ("etc/auto.master.d", ".autofs"),
            ("boot/loader/entries", ".conf"),
        ] {
            write(
                root,
                &format!("{folder}/{evil}{end}"),
                "[Match]\nName=\u{1b}[2J\nDriver=x\u{1b}\niface \u{1b}[2J inet dhcp\ninstall virtio_blk /bin/\u{1b}true\nnetwork: {ethernets: {\"\u{1b}x\": {dhcp4: true}}}\n",
            );
        }
        write(root, &format!("boot/vmlinuz-9.9{evil}"), "kernel");
        fs::write(root.join(format!("boot/initrd.img-9.9{evil}")), initramfs()).unwrap();
        fs::create_dir_all(root.join(format!("lib/modules/9.9{evil}"))).unwrap();
        write(
            root,
            "etc/fstab",
            "/dev/sda / ext4 d 0 1\n/dev/sd\u{1b}[2Jx9 /srv\\012\\033[2J ext4 d 0 2\nUUID=\u{1b}x /boot\\033 ext4 d 0 2\n/dev/sdz1\u{7} /opt ext4 nofail 0 0\n",
        );
        write(root, "etc/hostname", "web\u{1b}[2J01\n");
        write(root, "etc/crypttab", "data\u{1b} /dev/sdb7\u{1b} none luks\n");
        write(
            root,
            "boot/grub/grub.cfg",
            &format!("linux /boot/vmlinuz-{VERSION} root=/dev/sd\u{1b}[2Jq1 resume=/dev/sdx\u{1b}1 ro\n"),
        );
    });
    let _ = guest.pass(&sandbox);
}

#[test]
fn a_hundred_thousand_names_are_bounded() {
    let _one = one();
    let Some(sandbox) = ready("a_hundred_thousand_names_are_bounded") else { return };
    let guest = Guest::new(|_, _| {});
    run(&format!("mke2fs -q -F -t ext4 -N 400000 {} 700M", guest.image.display()));
    let at = guest.dir.path().join("mnt");
    let Some(mounted) = Mounted::new(&guest.image, &at, "rw") else { return };
    debian(&at);
    for (folder, prefix, end) in [
        ("boot", "vmlinuz-6.1.0-", "-amd64"),
        ("etc/network/interfaces.d", "if", ""),
        ("etc/modprobe.d", "m", ".conf"),
    ] {
        fs::create_dir_all(at.join(folder)).unwrap();
        for n in 0..100_000 {
            fs::write(at.join(format!("{folder}/{prefix}{n}{end}")), "").unwrap();
        }
    }
    drop(mounted);
    let outcome = guest.pass(&sandbox);
    assert!(said(&outcome).contains("linux-too-many-kernels"), "{}", said(&outcome));
}

/// Storage beside the guest's own disk that takes time, memory or the whole pass where nothing bounds it.
#[test]
fn storage_that_means_harm_is_left_alone() {
    let _one = one();
    let Some(sandbox) = ready("storage_that_means_harm_is_left_alone") else { return };
    let volumes = |count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("v{n} {{status=[\"VISIBLE\"]}}\n")).collect();
        physical_volume(&all.concat())
    };
    let leg = "segment1 { start_extent = 0 extent_count = 10 type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 0] }";
    let mirror = |len: u32, legs: usize| {
        let names: Vec<String> = (0..legs).map(|n| format!("\"m{n}\", 0")).collect();
        let hidden: Vec<String> = (0..legs).map(|n| format!("m{n} {{ {leg} }}\n")).collect();
        physical_volume(&format!(
            "root {{ status = [\"VISIBLE\"] segment1 {{ start_extent = 0 extent_count = {len} type = \"mirror\" mirrors = [{}] }} }} {}",
            names.join(", "),
            hidden.concat()
        ))
    };
    for (what, raw, says) in [
        ("a million volumes", volumes(1_000_000), "more than 1048576 values"),
        ("a hundred thousand volumes", volumes(100_000), "volumes-too-many"),
        ("a mirror longer than its legs", mirror(100, 2), "its legs are shorter"),
        ("a mirror of many legs", mirror(10, 1000), "it has 1000 legs"),
        ("nested arrays", nested_arrays(16), "lie on the same bytes of disk1"),
        ("many key slots", many_slots(10_000), "10000 key slots"),
    ] {
        eprintln!("{what}");
        let guest = Guest::new(|_, _| {});
        let disk = guest.dir.path().join("storage");
        fs::write(&disk, raw).unwrap();
        let outcome = guest.pass_beside(&sandbox, &[&disk], &[Secret::new(b"key".to_vec())]);
        let said = said(&outcome);
        assert!(said.contains(says), "{what}: {said}");
        assert!(outcome.unwrap().applied.is_some(), "{what}: {said}");
    }
}

/// More file systems than the sandbox takes: the guest's own are enough.
#[test]
fn more_file_systems_than_a_machine_takes_are_no_obstacle() {
    let _one = one();
    let Some(sandbox) = ready("more_file_systems_than_a_machine_takes_are_no_obstacle") else { return };
    if !tools(&["sgdisk"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (disk, part) = (dir.path().join("many"), dir.path().join("part"));
    sparse(&part, 1);
    run(&format!("mke2fs -q -F -t ext2 {}", part.display()));
    let part = fs::read(&part).unwrap();
    // Those that are cut off are left to the sandbox, which takes 200 of them and cannot mount those either.
    for kib in [1024, 1023] {
        let guest = Guest::new(|_, _| {});
        sparse(&disk, 232);
        let parts: Vec<String> = (1..=220).map(|n| format!("-n {n}:{}:+{kib}K", n * 2048)).collect();
        run(&format!("sgdisk -o -S 256 -a 8 {} {}", parts.join(" "), disk.display()));
        let file = File::options().write(true).open(&disk).unwrap();
        for n in 1..=220_u64 {
            std::os::unix::fs::FileExt::write_all_at(&file, &part, n << 20).unwrap();
        }
        let seen = guest.pass_beside(&sandbox, &[&disk], &[]).unwrap();
        assert_eq!(seen.inspection.volumes.len(), 221);
        assert!(seen.applied.is_some(), "{:?}", seen.inspection.plan.findings);
        let findings = seen.inspection.plan.findings.iter();
        let not_looked_at = findings.filter(|finding| finding.id == "volume-not-looked-at").count();
        assert_eq!(not_looked_at > 0, kib == 1023);
        assert!(not_looked_at < 50, "{not_looked_at}");
    }
}

/// The programs that a converter might be tempted to run in a guest, each of which would leave a mark.
const PROGRAMS: &[&str] = &[
    "sbin/init",
    "bin/sh",
    "bin/bash",
    "usr/bin/dash",
    "usr/bin/dracut",
    "usr/sbin/update-grub",
    "usr/sbin/update-initramfs",
    "usr/sbin/mkinitramfs",
    "usr/sbin/grub-install",
    "usr/sbin/grub-mkconfig",
    "sbin/modprobe",
    "sbin/depmod",
    "sbin/ldconfig",
    "sbin/fsck.ext4",
    "usr/bin/systemctl",
    "usr/bin/dpkg",
    "usr/sbin/chroot",
    "usr/lib/dracut/dracut-init.sh",
    "etc/kernel/postinst.d/x",
    "lib64/ld-linux-x86-64.so.2",
    "init",
];

/// The guest's programs leave marks if they run; and of this host nothing runs but what the sandbox consists of.
#[test]
fn no_program_of_the_guest_is_ever_run() {
    const IMAGE: &str = "LANDFALL_TEST_IMAGE";
    let test = "no_program_of_the_guest_is_ever_run";
    if let Some(image) = std::env::var_os(IMAGE) {
        // Under the eye of strace, below.
        let seen = pass(&[Path::new(&image)], &sandbox(test).unwrap()).unwrap();
        assert!(seen.applied.is_some(), "{:?}", seen.inspection.plan.findings);
        return;
    }
    let _one = one();
    let Some(sandbox) = ready(test) else { return };
    let guest = Guest::new(|root, outside| {
        let script = format!("#!/bin/sh\necho ran >>{}/mark\necho ran >>/mark\n", outside.display());
        for path in PROGRAMS {
            clear(&root.join(path));
            fs::write(root.join(path), &script).unwrap();
            fs::set_permissions(root.join(path), PermissionsExt::from_mode(0o755)).unwrap();
        }
    });
    let pristine = fs::read(&guest.image).unwrap();
    let seen = guest.pass(&sandbox).unwrap();
    assert!(seen.applied.is_some(), "{:?}", seen.inspection.plan.findings);
    let root = run(&format!("debugfs -R ls {}", guest.image.display()));
    assert!(root.contains("etc") && !root.contains("mark"), "{root}");
    assert!(!guest.dir.path().join("outside/mark").exists());
    if !tools(&["strace"]) {
        return;
    }
    fs::write(&guest.image, pristine).unwrap();
    let log = guest.dir.path().join("log");
    let out = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(IMAGE, &guest.image)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if text.contains("Operation not permitted") && !out.status.success() {
        eprintln!("SKIPPED: strace may not trace here: {text}");
        return;
    }
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    let log = fs::read_to_string(log).unwrap();
    let started = log.lines().filter(|line| line.trim_end().ends_with("= 0"));
    // The host's shell, which waits until QEMU may start, and does nothing else.
    let gates = started
        .clone()
        .filter(|line| line.contains("execve(\"/bin/sh\", [\"/bin/sh\", \"-c\", \"echo >&8 && read"));
    assert_eq!(gates.clone().count(), log.matches("/sh\", [").count(), "{log}");
    assert_eq!(gates.count(), log.matches("/bwrap\", [").count(), "one for each sandbox: {log}");
    let ran = started.filter_map(|line| line.split('"').nth(1));
    let ran: BTreeSet<&str> = ran.filter_map(|path| path.rsplit('/').next()).collect();
    let me = std::env::current_exe().unwrap();
    let expected = [me.file_name().unwrap().to_str().unwrap(), "bwrap", "sh", "qemu-system-x86_64"];
    assert_eq!(ran, BTreeSet::from(expected), "{log}");
}

/// What a pass over a guest with three kernels takes, where `tools/make-trees.sh` has made one.
#[test]
fn three_kernels_are_patched_in_time_and_in_bounded_memory() {
    let _one = one();
    let Some(sandbox) = ready("three_kernels_are_patched_in_time_and_in_bounded_memory") else { return };
    let Some(tree) = tree() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (kind, mib) in [("ext4", 2048), ("xfs", 2048), ("btrfs", 2048)] {
        if !tools(&[&*format!("mkfs.{kind}")]) {
            continue;
        }
        let (image, at) = (dir.path().join("disk"), dir.path().join("mnt"));
        sparse(&image, mib);
        run(&format!("mkfs.{kind} -q {}", image.display()));
        let Some(mounted) = Mounted::new(&image, &at, "rw") else { return };
        run(&format!("cp -a {}/. {}", tree.display(), at.display()));
        let kernels: Vec<String> = fs::read_dir(at.join("usr/lib/modules"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // The same kernel thrice, by other names.
        for n in 1..3 {
            let (old, new) = (&kernels[0], format!("{}.{n}", kernels[0]));
            run(&format!("cp -a {0}/usr/lib/modules/{old} {0}/usr/lib/modules/{new}", at.display()));
            for file in ["vmlinuz", "initrd.img"] {
                run(&format!("cp -a {0}/boot/{file}-{old} {0}/boot/{file}-{new}", at.display()));
            }
        }
        write(&at, "etc/fstab", &format!("/dev/sda / {kind} defaults 0 1\n"));
        write(
            &at,
            "boot/grub/grub.cfg",
            &format!(
                "menuentry x {{\n\tlinux /boot/vmlinuz-{0} root=/dev/sda ro\n\tinitrd /boot/initrd.img-{0}\n}}\n",
                kernels[0]
            ),
        );
        write(&at, "boot/grub/i386-pc/core.img", "core");
        drop(mounted);
        let stop = AtomicBool::new(false);
        let (seen, seconds, peak) = std::thread::scope(|scope| {
            let peak = scope.spawn(|| watch_qemu(&stop));
            let begin = Instant::now();
            let seen = pass(&[&image], &sandbox);
            let seconds = begin.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            (seen.unwrap(), seconds, peak.join().unwrap())
        });
        let applied = seen.applied.expect("nothing stands in the way");
        assert_eq!(applied.archives.len(), 3);
        assert!(applied.archives.iter().all(|(_, archive)| archive.changed));
        eprintln!(
            "{kind}: {seconds:.1} s (scan {:.2}, plan {:.2}, materialise {:.2}, write {:.2}, verify {:.2}), QEMU {} MiB, this program {} MiB, {:?}",
            seen.inspection.scan_seconds,
            seen.inspection.plan_seconds,
            applied.materialise_seconds,
            applied.write_seconds,
            applied.verify_seconds,
            peak >> 10,
            peak_kib("self") >> 10,
            applied.sandbox,
        );
        assert!(peak > 0 && peak <= 512 << 10, "{peak} KiB");
    }
}

/// A root file system with a kernel and an initramfs.
fn tree() -> Option<PathBuf> {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_sandbox_agent"));
    let target = agent.ancestors().find(|folder| folder.ends_with("target")).unwrap();
    let found = ["bookworm", "trixie"].map(|suite| target.join(format!("guests/initramfs-{suite}")));
    let found = found.into_iter().find(|tree| tree.join("boot").is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: no guest in {}/guests (make it with tools/make-trees.sh)", target.display());
    }
    found
}

/// The most memory that any QEMU below this process has had, in KiB.
fn watch_qemu(stop: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !stop.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            if name.starts_with("qemu") && is_below_this(id) {
                peak = peak.max(peak_kib(&id.to_string()));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    peak
}

fn is_below_this(mut id: u32) -> bool {
    for _ in 0..8 {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        match parent {
            Some(parent) if parent == std::process::id() => return true,
            Some(parent) if parent > 1 => id = parent,
            _ => return false,
        }
    }
    false
}
