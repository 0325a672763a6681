//! Against the corpus, against real Debian guests, against the real tools, and against damage.
//!
//! The guests are made by `tools/make-trees.sh`, below `target/guests` of the workspace.

mod dracut;
mod guests;
mod kinds;
pub(crate) mod resolve;

use super::*;
use crate::Kind;
use crate::tree::{Entry, Meta, NodeKind};
use guests::{Guest, HostTree, corpus, guests, run, text, tree, unpacked};
use sha2::{Digest, Sha256};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const DRIVERS: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "nvme",
    "ahci",
    "ata_piix",
    "vmw_pvscsi",
    "mptspi",
    "mptsas",
    "hv_vmbus",
    "hv_storvsc",
    "hv_netvsc",
    "hyperv_keyboard",
    "xen_blkfront",
    "no_such_driver",
];

#[test]
fn every_archive_of_the_corpus_is_read_as_its_manifest_says() {
    let Some((folder, manifest)) = corpus() else { return };
    let mut seen = 0;
    for row in manifest.lines().map(|line| line.split('\t').collect::<Vec<_>>()) {
        let &[path, kind, _, _, _, _, expected, ..] = row.as_slice() else { continue };
        if !matches!(kind, "initramfs" | "cpio") || !folder.join(path).exists() {
            continue;
        }
        seen += 1;
        let bytes = std::fs::read(folder.join(path)).expect(path);
        let split = segment::split(&bytes);
        if expected.starts_with("refuse: not an initramfs flavour") {
            assert_eq!(split.expect_err(path).kind(), Kind::Unsupported, "{path}");
            continue;
        }
        let segments = split.unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut shape = Vec::new();
        let mut lines = Vec::new();
        for segment in &segments {
            let archives = segment.archives(&bytes).expect(path);
            let inner: Vec<String> =
                archives.iter().map(|entries| format!("newc({})", entries.len())).collect();
            shape.push(match segment.compressor {
                Compressor::None => inner.concat(),
                // The manifest names the tool.
                Compressor::Lzo => format!("lzop[{}]", inner.join("+")),
                other => format!("{}[{}]", other.name(), inner.join("+")),
            });
            for entry in archives.iter().flatten() {
                let data = entry.data;
                let digest = Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect::<String>();
                lines.push(format!("{}\t{:o}\t{}\t{digest}", text(entry.name), entry.mode, data.len()));
            }
        }
        if let Some((_, expected)) = expected.split_once("cpio: ") {
            lines.sort();
            let digest = Sha256::digest(lines.iter().map(|l| format!("{l}\n")).collect::<String>());
            let other = Sha256::digest(lines.join("\n"));
            let hex = |d: &[u8]| d.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let (shape, entries) = (shape.join("+"), lines.len());
            let says = [hex(&digest), hex(&other)]
                .map(|digest| format!("{shape} entries={entries} digest={digest}"));
            assert!(says.iter().any(|says| says == expected), "{path}: {says:?} is not {expected}");
        }
        let outcome = inspect(&bytes);
        if expected.contains("refuse on extraction") {
            assert_eq!(outcome.expect_err(path).kind(), Kind::Refused, "{path}");
        } else {
            outcome.unwrap_or_else(|e| panic!("{path}: {e}"));
        }
    }
    assert!(seen > 10, "the corpus has {seen} archives");
}

#[test]
fn real_guests_get_drivers_that_the_real_modprobe_resolves() {
    for guest in guests() {
        let before = inspect(&guest.archive).expect("sound");
        assert_eq!(before.generator, Generator::InitramfsTools);
        assert!(before.modules.contains("vmw_pvscsi") && !before.modules.contains("virtio_blk"));
        assert!(before.kernels.contains(&guest.kernel) && !before.microcode && !before.squashed);
        let start = Instant::now();
        let new = rewrite(&guest.archive, &guest.edit(), &guest.tree()).expect("rewritten");
        eprintln!(
            "{}: {} -> {} as {} in {:?}, added {:?}, builtin {:?}",
            guest.suite,
            new.old_size,
            new.new_size,
            new.compressor.name(),
            start.elapsed(),
            new.added,
            new.builtin
        );
        assert_eq!(new.missing, ["no_such_driver"]);
        assert_eq!(new.warnings, Vec::<String>::new());
        assert!(new.added.contains(&"virtio_blk".to_string()), "{:?}", new.added);
        let after = inspect(&new.bytes).expect("sound");
        assert_eq!(after.compressors, before.compressors, "as many archives, packed the same way");
        assert!(after.modules.is_superset(&before.modules));
        assert_eq!(rewrite(&new.bytes, &guest.edit(), &guest.tree()).expect("again").bytes, new.bytes);
        resolve::resolves(&new.bytes, &guest.root, &guest.kernel, DRIVERS);

        let (Some(old_dir), Some(dir)) = (unpacked(&guest.archive), unpacked(&new.bytes)) else { continue };
        compare_with_depmod(&guest, &dir.path().join("merged"), &new);
        compare_unedited(&old_dir.path().join("merged"), &dir.path().join("merged"));
    }
}

/// What each platform's devices call themselves, as udev hands it to kmod, and the driver that has to answer. The ids are
/// those of the devices (Hyper-V: the GUID of the VMBus channel), not of the modules' own lists.
const DEVICES: &[(&str, &str)] = &[
    ("pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc80i00", "virtio_pci"),
    ("virtio:d00000002v00001AF4", "virtio_blk"),
    ("virtio:d00000008v00001AF4", "virtio_scsi"),
    ("pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00", "vmw_pvscsi"),
    ("pci:v00001000d00000054sv000015ADsd00001976bc01sc07i00", "mptsas"),
    ("pci:v00001000d00000030sv000015ADsd00001976bc01sc00i00", "mptspi"),
    ("pci:v000015ADd000007F0sv000015ADsd000007F0bc01sc08i02", "nvme"),
    ("pci:v000015ADd000007E0sv000015ADsd000007E0bc01sc06i01", "ahci"),
    ("pci:v00008086d00007111sv000015ADsd00001976bc01sc01i8a", "ata_piix"),
    ("acpi:VMBUS:", "hv_vmbus"),
    ("vmbus:d96361baa104294db60572e2ffb1dc7f", "hv_storvsc"),
    ("vmbus:32264132cb86a2449b5c50d1417354f5", "hv_storvsc"),
    ("vmbus:1df6c444444400449d52802e27ede19f", "pci_hyperv"),
    ("vmbus:6dad12f9172bea48bd65f927a61c7684", "hyperv_keyboard"),
    ("xen:vbd", "xen_blkfront"),
];

/// QEMU has neither Hyper-V's devices nor Xen's. The real modprobe shows that they would find their drivers.
#[test]
fn the_devices_of_every_target_find_their_drivers() {
    for guest in guests() {
        let mut edit = guest.edit();
        edit.drivers = crate::target::EVERY_TARGET.iter().map(|name| (*name).to_owned()).collect();
        let new = rewrite(&guest.archive, &edit, &guest.tree()).expect("rewritten");
        assert_eq!(new.missing, Vec::<String>::new(), "{}", guest.suite);
        let (Some(before), Some(after)) = (unpacked(&guest.archive), unpacked(&new.bytes)) else { continue };
        let resolve = |folder: &Path, device: &str| {
            let folder = folder.join("merged");
            let asked = run(Command::new("modprobe")
                .arg("-d")
                .arg(folder)
                .arg("-S")
                .arg(&guest.kernel)
                .args(["-R", device]));
            asked.map(|output| text(&output.stdout).trim().replace('-', "_"))
        };
        let mut news = 0;
        for (device, driver) in DEVICES {
            let Some(found) = resolve(after.path(), device) else { return };
            let is_builtin = new.builtin.iter().any(|name| name == driver);
            assert!(
                is_builtin || found.lines().any(|line| line == *driver),
                "{}: {device}: {found:?}",
                guest.suite
            );
            news += usize::from(resolve(before.path(), device).as_deref() != Some(found.as_str()));
        }
        assert!(news > 5, "{}: the initramfs knew nearly all of them before", guest.suite);
        compare_with_depmod(&guest, &after.path().join("merged"), &new);
    }
}

/// The unpacked result against modprobe and depmod.
fn compare_with_depmod(guest: &Guest, merged: &Path, new: &Rewritten) {
    let modprobe = |arguments: &[&str]| {
        run(Command::new("modprobe").arg("-d").arg(merged).arg("-S").arg(&guest.kernel).args(arguments))
    };
    let inside = inspect(&new.bytes).expect("sound").modules;
    for driver in inside.iter().map(String::as_str) {
        let Some(output) = modprobe(&["--show-depends", driver]) else { return };
        assert!(output.status.success(), "{}: modprobe {driver}: {}", guest.suite, text(&output.stderr));
        let paths: Vec<String> = text(&output.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("insmod ").map(|path| path.trim().to_string()))
            .collect();
        assert!(!paths.is_empty());
        for path in paths {
            assert!(Path::new(&path).exists(), "{}: modprobe {driver} wants {path}", guest.suite);
        }
    }
    let output =
        modprobe(&["-R", "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00"]).expect("ran before");
    let found = text(&output.stdout);
    let builtin = new.builtin.contains(&"virtio_pci".to_string());
    assert!(builtin || found.contains("virtio_pci"), "{}: {found}", guest.suite);
    let output = modprobe(&["-R", "virtio:d00000002v00001AF4"]).expect("ran before");
    assert_eq!(text(&output.stdout).trim(), "virtio_blk");
    assert!(std::fs::read_to_string(merged.join("conf/modules")).expect("file").contains("virtio_blk"));

    // depmod over the same modules makes the same lists.
    let folder = merged.join("usr/lib/modules").join(&guest.kernel);
    let ours: Vec<(&str, Vec<u8>)> = [
        "modules.dep",
        "modules.dep.bin",
        "modules.alias",
        "modules.alias.bin",
        "modules.symbols",
        "modules.symbols.bin",
        "modules.softdep",
    ]
    .map(|name| (name, std::fs::read(folder.join(name)).expect(name)))
    .into();
    let Some(output) = run(Command::new("depmod").arg("-b").arg(merged).arg(&guest.kernel)) else { return };
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (name, ours) in ours {
        let theirs = std::fs::read(folder.join(name)).expect(name);
        if ours == theirs {
            continue;
        }
        assert!(name.starts_with("modules.dep"), "{}: {name} is not depmod's byte for byte", guest.suite);
        // Lines as sets; and dependencies that do not need each other stand in either order.
        let order = |line: &str| match line.split_once(": ") {
            Some((path, needs)) if name.starts_with("modules.dep") => {
                let mut needs: Vec<&str> = needs.split_ascii_whitespace().collect();
                needs.sort_unstable();
                format!("{path}: {}", needs.join(" "))
            }
            _ => line.to_string(),
        };
        let sorted = |bytes: &[u8]| -> BTreeSet<String> {
            match name.ends_with(".bin") {
                true => {
                    let rows = kmod::index::read(bytes).expect(name);
                    rows.iter().map(|r| format!("{} {} {}", r.key, r.priority, order(&r.value))).collect()
                }
                false => text(bytes).lines().map(order).collect(),
            }
        };
        let (ours, theirs) = (sorted(&ours), sorted(&theirs));
        let extra: Vec<_> = ours.difference(&theirs).take(5).collect();
        let lacking: Vec<_> = theirs.difference(&ours).take(5).collect();
        assert!(lacking.is_empty() && extra.is_empty(), "{}: {name}: {extra:?} {lacking:?}", guest.suite);
    }
}

/// Nothing but what was edited differs: content, type, mode, owner, link target and device numbers.
fn compare_unedited(old: &Path, new: &Path) {
    let list = |root: &Path| {
        let script = "find . -printf '%p %y %#m %U %G %l %T@ %n\\n' | sort";
        text(&run(Command::new("sh").arg("-c").arg(script).current_dir(root)).expect("sh").stdout)
    };
    let edited = |line: &str| {
        ["/modules.", "conf/modules", ".ko", "etc/systemd", "landfall"].iter().any(|part| line.contains(part))
    };
    // Link counts and times of folders change with what is put in them; cpio does not set the times of links.
    let plain = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        match words.get(1) {
            Some(&"d") => words.truncate(5),
            Some(&"l") => words.truncate(6),
            _ => {}
        }
        words.join(" ")
    };
    let old_lines: BTreeSet<String> = list(old).lines().filter(|l| !edited(l)).map(plain).collect();
    let new_lines: BTreeSet<String> = list(new).lines().filter(|l| !edited(l)).map(plain).collect();
    let lost: Vec<_> = old_lines.difference(&new_lines).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let output = run(Command::new("diff").arg("-r").arg("--no-dereference").arg(old).arg(new)).expect("diff");
    for line in
        text(&output.stdout).lines().filter(|line| line.starts_with("Only in") || line.contains("differ"))
    {
        let there = line.starts_with("Only in") && line.contains(&*new.to_string_lossy());
        assert!(there || edited(line), "{line}");
    }
}

#[test]
fn every_compressor_and_layout_is_rewritten() {
    let Some(guest) = guests().pop() else { return };
    let gathered = gather(&guest.edit(), &guest.tree()).expect("gathered");
    let segments = segment::split(&guest.archive).expect("sound");
    let mut content = Content::new();
    merge(&guest.archive, &segments, 0, &mut content).expect("sound");
    let early = {
        let mut content = Content::new();
        content.put(b"kernel/x86/microcode/GenuineIntel.bin", 0o644, vec![7; 5000]).expect("put");
        content.write(Vec::new()).expect("memory")
    };
    for compressor in [
        Compressor::None,
        Compressor::Gzip,
        Compressor::Xz,
        Compressor::Zstd,
        Compressor::Lz4,
        Compressor::Lzma,
        Compressor::Lzo,
        Compressor::Bzip2,
    ] {
        let packer = Packer::new(compressor, Effort::Quick, Bytes(0), 2, early.clone()).expect("encoder");
        let archive = content.write(packer).and_then(Packer::finish).expect("memory");
        let new = gathered.rewrite(&archive, Effort::Quick, 2).expect("rewritten");
        assert_eq!(new.bytes.get(..early.len()), Some(early.as_slice()), "{compressor:?}: microcode stays");
        let after = inspect(&new.bytes).expect("sound");
        assert_eq!(after.compressors, [Compressor::None, compressor]);
        assert!(after.microcode && after.modules.contains("virtio_blk"));
        eprintln!("{}: {} -> {}", compressor.name(), new.old_size, new.new_size);
        // unmkinitramfs takes plain archives only in front of a compressed one.
        let readable = compressor != Compressor::None;
        if let Some(dir) = readable.then(|| unpacked(&new.bytes)).flatten() {
            compare_with_depmod(&guest, &dir.path().join("merged"), &new);
        }
        if compressor == Compressor::Lz4 {
            let small = gathered.rewrite(&archive, Effort::Small, 2).expect("rewritten");
            assert!(small.new_size < new.new_size && small.compressor == Compressor::Zstd);
        }
    }
}

#[test]
fn a_module_that_is_none_is_an_error_not_a_driver() {
    let Some(guest) = guests().pop() else { return };
    let mut gathered = gather(&guest.edit(), &guest.tree()).expect("gathered");
    for bytes in &mut gathered.files {
        *bytes = b"<html>404</html>".to_vec();
    }
    let error = gathered.rewrite(&guest.archive, Effort::Quick, 1).expect_err("no module");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("/lib/modules/"), "{error}");
}

#[test]
fn damaged_archives_never_panic() {
    let Some((folder, _)) = corpus() else { return };
    for name in
        ["bigdata", "bzip2", "gzip", "lz4", "lzma", "lzop", "xz", "zstd", "path-traversal", "shell", "single"]
    {
        let bytes = std::fs::read(folder.join(format!("3cpio/{name}.cpio"))).expect(name);
        for at in (0..bytes.len()).step_by(bytes.len() / 60 + 1) {
            for value in [0, b'0', b'f', 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = inspect(&damaged);
            }
            let _ = inspect(&bytes[..at]);
        }
    }
}

#[test]
fn a_bomb_is_refused() {
    // 3 GiB of NUL in a zstd frame of a few hundred KiB.
    let mut packer = Packer::new(Compressor::Zstd, Effort::Quick, Bytes(0), 1, Vec::new()).expect("encoder");
    let block = vec![0; 1 << 20];
    for _ in 0..3 << 10 {
        std::io::Write::write_all(&mut packer, &block).expect("memory");
    }
    let error = inspect(&packer.finish().expect("memory")).expect_err("a bomb");
    assert_eq!(error.kind(), Kind::Refused, "{error}");
}

#[test]
fn plans_become_changes_and_respect_free_space() {
    use crate::apply::{Change, materialise, materialise_with_report};
    use crate::patch::{Action, Edit, PatchPlan};
    let Some(guest) = guests().into_iter().find(|guest| guest.suite == "bookworm") else { return };
    let path = format!("/boot/initrd.img-{}", guest.kernel);
    let edit =
        |path: &str, action| Edit { path: path.into(), action, why: String::new(), labels: Vec::new() };
    let write = Action::Write { contents: "x".to_string().into(), mode: 0o600 };
    let edits = vec![
        edit("/etc/a", write),
        edit("/etc/b", Action::Copy { from: "/etc/a".into() }),
        edit("/etc/c", Action::Copy { from: "/etc/debian_version".into() }),
        edit(&path, Action::Initramfs(guest.edit())),
        edit("/etc/d", Action::Symlink { target: "a".into() }),
        edit("/etc/e", Action::Remove),
    ];
    let mut plan = PatchPlan { edits, ..PatchPlan::default() };
    let mut tree = guest.tree();
    let done = materialise_with_report(&plan, &tree).expect("materialised");
    let quick = done.archives[0].1.new_size;
    assert_eq!(done.changes.len(), 6);
    assert_eq!(done.changes[1], Change::Put { path: "/etc/b".into(), bytes: b"x".to_vec(), mode: 0o600 });
    assert!(
        matches!(&done.changes[3], Change::Put { path: p, bytes, .. } if *p == path && bytes.len() as u64 == quick.0)
    );

    tree.free = Some(Bytes(quick.0 - 1));
    let done = materialise_with_report(&plan, &tree).expect("packed tighter");
    assert!(done.archives[0].1.new_size < quick && done.archives[0].1.compressor == Compressor::Zstd);
    // No room beside the old one, but in its place.
    tree.free = Some(Bytes::mib(1));
    assert!(materialise(&plan, &tree).is_ok());
    // What is new has no such place.
    tree.free = Some(Bytes(0));
    let error = materialise(&plan, &tree).map(|_| ()).expect_err("no space");
    assert!(error.kind() == Kind::Refused && error.to_string().contains("/etc/c"), "{error}");

    plan.edits[2] = edit("/etc/c", Action::Copy { from: "/no/such/file".into() });
    materialise(&plan, &guest.tree()).expect_err("nothing to copy");
}

#[test]
fn three_kernels_are_a_matter_of_seconds() {
    use crate::apply::materialise_with_report;
    use crate::patch::{Action, Edit, PatchPlan};
    let own = guests().into_iter().map(|guest| (format!("initrd.img-{}", guest.kernel), guest));
    let dracuts = dracut::images().into_iter().map(|(guest, name)| (name, guest));
    for (name, guest) in own.chain(dracuts.filter(|(name, _)| !name.contains("erofs"))) {
        let edit = Edit {
            path: format!("/boot/{name}"),
            action: Action::Initramfs(guest.edit()),
            why: String::new(),
            labels: Vec::new(),
        };
        let plan = PatchPlan { edits: vec![edit; 3], ..PatchPlan::default() };
        let start = Instant::now();
        let done = materialise_with_report(&plan, &guest.tree()).expect("materialised");
        let took = start.elapsed();
        eprintln!("{} {name}: three of {} in {took:?}", guest.suite, done.archives[0].1.old_size);
        assert!(done.archives.iter().all(|(_, new)| new.changed));
    }
}

#[test]
fn a_real_kernel_finds_its_disk_only_after_the_rewrite() {
    for guest in guests() {
        let script = "#!/bin/sh\nexport PATH=/bin:/sbin:/usr/bin:/usr/sbin\nmkdir -p /proc /sys\nmount -t devtmpfs d /dev; mount -t proc p /proc\n\
            mount -t sysfs s /sys\nfor m in $(sed 's/#.*//' /conf/modules); do modprobe $m; done\n\
            for a in $(cat /sys/bus/*/devices/*/modalias); do modprobe -q $a; done; sleep 2\n\
            test -b /dev/vda && echo DISK-FOUND || echo DISK-MISSING\necho o > /proc/sysrq-trigger; sleep 60\n";
        let probe = crate::patch::InitramfsFile {
            path: "probe".into(),
            contents: script.to_string().into(),
            mode: 0o755,
        };
        for with_drivers in [false, true] {
            let mut edit = guest.edit();
            edit.files.push(probe.clone());
            if !with_drivers {
                edit.drivers.clear();
                edit.load.clear();
            }
            let new = rewrite(&guest.archive, &edit, &guest.tree()).expect("rewritten");
            let Some(console) = boot(&guest, &new.bytes) else { return };
            let expected = if with_drivers { "DISK-FOUND" } else { "DISK-MISSING" };
            assert!(console.contains(expected), "{} with drivers: {with_drivers}\n{console}", guest.suite);
        }
    }
}

/// The console of the guest's kernel with this initramfs and an empty virtio disk.
fn boot(guest: &Guest, archive: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let disk = dir.path().join("disk");
    std::fs::File::create(&disk).and_then(|file| file.set_len(1 << 20)).expect("disk");
    start(guest, archive, &disk, "console=ttyS0 rdinit=/probe quiet panic=-1", &["DISK-"])
}

/// The console of the guest's kernel under emulation, up to one of the words of `ends`.
fn start(guest: &Guest, archive: &[u8], disk: &Path, append: &str, ends: &[&str]) -> Option<String> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (initrd, console) = (dir.path().join("initrd"), dir.path().join("console"));
    std::fs::write(&initrd, archive).expect("write");
    let started = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-cpu", "max,cx16=off", "-m", "768", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-append", append])
        .arg("-kernel")
        .arg(guest.root.join(format!("boot/vmlinuz-{}", guest.kernel)))
        .arg("-initrd")
        .arg(&initrd)
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio", disk.display()))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .spawn();
    let mut machine = match started {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("SKIPPED: no boot of a real kernel: qemu-system-x86_64 cannot be run: {error}");
            return None;
        }
    };
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let says = std::fs::read(&console).map(|bytes| text(&bytes)).unwrap_or_default();
        let ended = machine.try_wait().expect("a child").is_some();
        if ended || ends.iter().any(|word| says.contains(word)) || Instant::now() > end {
            let _ = machine.kill();
            let _ = machine.wait();
            return Some(std::fs::read(&console).map(|bytes| text(&bytes)).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `CONFIG_RD_*` came with kernel 2.6.30: the configuration of an older one says nothing of what it unpacks.
#[test]
fn old_kernels_keep_their_compression() {
    use crate::patch::InitramfsFile;
    use crate::tree::mem::MemTree;
    let mut content = Content::new();
    content.put(b"bin/sh", 0o755, b"\x7fELF".to_vec()).expect("put");
    let packer = Packer::new(Compressor::Gzip, Effort::Quick, Bytes(0), 1, Vec::new()).expect("encoder");
    let archive = content.write(packer).and_then(Packer::finish).expect("memory");
    let edit = InitramfsEdit {
        kernel: "2.6.18-419.el5".into(),
        starts_by_default: true,
        modules: "/lib/modules/2.6.18-419.el5".into(),
        drivers: Vec::new(),
        load: Vec::new(),
        files: vec![InitramfsFile { path: "etc/x".into(), contents: "x".to_owned().into(), mode: 0o644 }],
        remove: Vec::new(),
        renames: Vec::new(),
        devices: Vec::new(),
        addresses: Vec::new(),
    };
    for (config, expected) in [
        ("CONFIG_BLK_DEV_INITRD=y\nCONFIG_ZLIB_INFLATE=y\n", Compressor::Gzip),
        ("CONFIG_RD_GZIP=y\n", Compressor::Gzip),
        ("CONFIG_RD_XZ=y\n# CONFIG_RD_GZIP is not set\n", Compressor::Xz),
    ] {
        let tree = MemTree::new()
            .file("/boot/config-2.6.18-419.el5", config)
            .file("/lib/modules/2.6.18-419.el5/modules.dep", "");
        let new = rewrite(&archive, &edit, &tree).expect("rewritten");
        assert_eq!(new.compressor, expected, "{config}");
    }
}

/// The addresses of the request are replaced in an archive as it is rewritten, once.
#[test]
fn hardware_addresses_inside_follow() {
    use crate::tree::mem::MemTree;
    let link = "etc/systemd/network/10-lan.link";
    let mut content = Content::new();
    content.put(link.as_bytes(), 0o644, b"[Match]\nMACAddress=00:50:56:AA:BB:0C\n".to_vec()).expect("put");
    let packer = Packer::new(Compressor::Gzip, Effort::Quick, Bytes(0), 1, Vec::new()).expect("encoder");
    let archive = content.write(packer).and_then(Packer::finish).expect("memory");
    let edit = InitramfsEdit {
        kernel: "6.1".into(),
        starts_by_default: true,
        modules: "/lib/modules/6.1".into(),
        drivers: Vec::new(),
        load: Vec::new(),
        files: Vec::new(),
        remove: Vec::new(),
        renames: Vec::new(),
        devices: Vec::new(),
        addresses: vec![("00:50:56:aa:bb:0c".into(), "52:54:00:ab:cd:ef".into())],
    };
    let tree = MemTree::new().file("/lib/modules/6.1/modules.dep", "");
    let new = rewrite(&archive, &edit, &tree).expect("rewritten");
    assert!(new.changed);
    let segments = segment::split(&new.bytes).expect("segments");
    let mut inside = Content::new();
    merge(&new.bytes, &segments, segments.len(), &mut inside).expect("content");
    let file = inside.get(link.as_bytes()).expect("path").expect("file");
    assert_eq!(String::from_utf8_lossy(&file.data), "[Match]\nMACAddress=52:54:00:AB:CD:EF\n");
    assert!(!rewrite(&new.bytes, &edit, &tree).expect("rewritten").changed, "once is enough");
}
