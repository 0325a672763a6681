//! Initramfs kinds whose tools are not at hand, built after their documented layouts around real modules of a kernel.

use super::resolve::{resolves, unpack_modules};
use super::*;
use std::io::Write as _;

/// A folder that becomes one archive.
struct Layout<'g> {
    dir: tempfile::TempDir,
    guest: &'g Guest,
}

impl<'g> Layout<'g> {
    fn new(guest: &'g Guest) -> Self {
        Layout { dir: tempfile::tempdir().expect("temporary folder"), guest }
    }
    fn path(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("below")).expect("folder");
        path
    }
    fn file(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path(path), data).expect("write");
        self
    }
    fn link(self, path: &str, target: &str) -> Self {
        std::os::unix::fs::symlink(target, self.path(path)).expect("link");
        self
    }
    /// The drivers of VMware with all they need, as files of `place(path below the modules folder)`.
    fn modules(self, place: impl Fn(&str) -> String, pack: bool) -> Self {
        let set = self.set();
        let wanted = ["vmw_pvscsi", "sd_mod", "ext4"].map(str::to_string);
        for name in set.closure(&wanted).modules {
            let module = set.module(&name).expect("listed");
            let host = self.guest.root.join("lib/modules").join(&self.guest.kernel).join(&module.path);
            let plain = elf::unpack(std::fs::read(host).expect("a module")).expect("sound");
            let path = packing(&module.path)
                .map_or(module.path.clone(), |suffix| module.path.trim_end_matches(&suffix).to_string());
            let (path, bytes) = match pack {
                true => (format!("{path}.zst"), zstd::encode_all(plain.as_slice(), 3).expect("memory")),
                false => (path, plain),
            };
            std::fs::write(self.path(&place(&path)), bytes).expect("write");
        }
        self
    }
    fn set(&self) -> ModuleSet {
        kmod::available(&self.guest.tree(), &format!("/lib/modules/{}", self.guest.kernel)).expect("sound")
    }
    /// The folder's lists by depmod itself, without those whose name is in `without`.
    fn depmod(self, base: &str, without: &[&str]) -> Option<Self> {
        let folder = format!("{base}/modules/{}", self.guest.kernel);
        for list in ["modules.builtin", "modules.order"] {
            let host = self.guest.root.join("lib/modules").join(&self.guest.kernel).join(list);
            std::fs::copy(host, self.path(&format!("{folder}/{list}"))).expect("copy");
        }
        let is_usr = base.starts_with("usr") && !self.dir.path().join("lib").exists();
        let link = self.dir.path().join("lib");
        if is_usr {
            std::os::unix::fs::symlink("usr/lib", &link).expect("link");
        }
        let output = run(Command::new("depmod").arg("-b").arg(self.dir.path()).arg(&self.guest.kernel))?;
        assert!(output.status.success(), "{}", text(&output.stderr));
        if is_usr {
            std::fs::remove_file(link).expect("remove");
        }
        for name in without {
            let _ = std::fs::remove_file(self.path(&format!("{folder}/{name}")));
        }
        Some(self)
    }
    /// The archive, made by cpio.
    fn cpio(&self) -> Option<Vec<u8>> {
        let script = "chmod -R u+x . && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0";
        let output = run(Command::new("sh").arg("-c").arg(script).current_dir(self.dir.path()))?;
        assert!(output.status.success() && !output.stdout.is_empty(), "{}", text(&output.stderr));
        Some(output.stdout)
    }
}

fn pack(compressor: Compressor, plain: &[u8], head: Vec<u8>) -> Vec<u8> {
    let mut packer = Packer::new(compressor, Effort::Quick, Bytes(0), 1, head).expect("encoder");
    packer.write_all(plain).expect("memory");
    packer.finish().expect("memory")
}

/// A file of an archive as text.
fn inside(archive: &[u8], path: &str) -> Option<String> {
    let segments = segment::split(archive).expect("sound");
    let mut content = Content::new();
    merge(archive, &segments, 0, &mut content).expect("sound");
    content.get(path.as_bytes()).expect("sound").map(|file| text(&file.data))
}

/// Rewrites, and again: the second time nothing changes. Modules are where kmod finds them.
fn rewritten(guest: &Guest, archive: &[u8], expected: Generator) -> Rewritten {
    let before = inspect(archive).expect("sound");
    assert_eq!(before.generator, expected);
    let new = rewrite(archive, &guest.edit(), &guest.tree()).expect("rewritten");
    assert!(new.changed && new.added.contains(&"virtio_blk".into()), "{:?}", new.added);
    assert_eq!(new.warnings, Vec::<String>::new());
    let again = rewrite(&new.bytes, &guest.edit(), &guest.tree()).expect("again");
    assert!(!again.changed && again.bytes == new.bytes, "{expected:?}: once is enough");
    assert_eq!(inspect(&new.bytes).expect("sound").generator, expected);
    new
}

fn guest() -> Option<Guest> {
    guests().into_iter().find(|guest| guest.suite == "bookworm")
}

#[test]
fn mkinitcpio_with_modules_in_the_early_archive_and_binary_lists_only() {
    let Some(guest) = guest() else { return };
    let kernel = &guest.kernel;
    let text_lists = ["modules.dep", "modules.alias", "modules.symbols", "modules.builtin", "modules.order"];
    let in_modules = |path: &str| format!("usr/lib/modules/{kernel}/{path}");
    for systemd in [false, true] {
        let Some(whole) = Layout::new(&guest).modules(in_modules, true).depmod("usr/lib", &text_lists) else {
            return;
        };
        // The modules go to the early archive, what describes them to the main one.
        let early = Layout::new(&guest)
            .file("early_cpio", "1\n")
            .file("kernel/x86/microcode/GenuineIntel.bin", [7; 4096])
            .modules(in_modules, true);
        let mut main = Layout::new(&guest)
            .file("buildconfig", "MODULES=()\nHOOKS=(base udev autodetect modconf block filesystems)\n")
            .file("config", "EARLYHOOKS=\"udev\"\nHOOKS=\"udev\"\nLATEHOOKS=\"\"\nCLEANUPHOOKS=\"udev\"\n")
            .file("VERSION", "39")
            .link("lib", "usr/lib");
        main = match systemd {
            true => main.file("usr/lib/systemd/systemd", "\x7fELF").link("init", "usr/lib/systemd/systemd"),
            false => main.file("init", "#!/usr/bin/ash\n").file("init_functions", "#!/usr/bin/ash\n"),
        };
        for name in [
            "modules.dep.bin",
            "modules.alias.bin",
            "modules.symbols.bin",
            "modules.softdep",
            "modules.builtin.bin",
        ] {
            let bytes = std::fs::read(whole.path(&in_modules(name))).expect(name);
            main = main.file(&in_modules(name), bytes);
        }
        let (Some(early), Some(main)) = (early.cpio(), main.cpio()) else { return };
        let archive = pack(Compressor::Zstd, &main, early.clone());
        let new = rewritten(&guest, &archive, Generator::Mkinitcpio);
        assert_eq!(
            new.bytes.get(..early.len()),
            Some(early.as_slice()),
            "microcode and modules stay as they are"
        );
        assert_eq!(new.compressor, Compressor::Zstd);
        resolves(&new.bytes, &guest.root, kernel, DRIVERS);
        resolves(&new.bytes, &guest.root, kernel, &["ext4", "vmw_pvscsi", "sd_mod"]);
        if systemd {
            let list = inside(&new.bytes, "etc/modules-load.d/landfall.conf").expect("a list");
            assert_eq!(list, "virtio_blk\nvirtio_scsi\n");
        } else {
            let config = inside(&new.bytes, "config").expect("config");
            assert!(config.starts_with("MODULES=\"virtio_blk virtio_scsi\"\nEARLYHOOKS="), "{config}");
        }
    }
}

#[test]
fn mkinitfs_has_text_lists_for_busybox() {
    let Some(guest) = guest() else { return };
    let kernel = &guest.kernel;
    let layout = Layout::new(&guest)
        .file("init", "#!/bin/sh\n# this is the init script version\nVERSION=3.8.1\n")
        .file("sbin/nlplug-findfs", "\x7fELF")
        .file("bin/busybox", "\x7fELF")
        .file("etc/modules", "# kept\naf_packet\n")
        .modules(|path| format!("lib/modules/{kernel}/{path}"), false);
    let Some(main) = layout.depmod("lib", &[]).and_then(|layout| layout.cpio()) else { return };
    for compressor in [Compressor::Gzip, Compressor::Zstd] {
        let new = rewritten(&guest, &pack(compressor, &main, Vec::new()), Generator::Mkinitfs);
        assert_eq!(new.compressor, compressor);
        resolves(&new.bytes, &guest.root, kernel, DRIVERS);
        let text = |name: &str| inside(&new.bytes, &format!("lib/modules/{kernel}/{name}")).expect(name);
        assert!(text("modules.dep").contains("virtio_blk.ko:"));
        assert!(text("modules.alias").contains("alias virtio:d00000002v* virtio_blk"));
        assert_eq!(
            inside(&new.bytes, "etc/modules").as_deref(),
            Some("# kept\naf_packet\nvirtio_blk\nvirtio_scsi\n")
        );
    }
}

#[test]
fn sles_11_has_a_list_in_two_scripts() {
    let Some(guest) = guest() else { return };
    let kernel = &guest.kernel;
    let list = "RESOLVED_INITRD_MODULES='thermal mptspi ata_piix processor fan jbd ext3 edd'\n";
    let run_all = format!(
        "source boot/01-devfunctions.sh\n[ \"$modules\" ] && load_modules\n[ \"$RESOLVED_INITRD_MODULES\" ] || {list}\n\
         modules=\" $RESOLVED_INITRD_MODULES\"\nsource boot/02-start.sh\n[ \"$modules\" ] && load_modules\n"
    );
    let layout = Layout::new(&guest)
        .file("init", "#!/bin/bash\n. /run_all.sh\n")
        .file("run_all.sh", &run_all)
        .file("config/start.sh", format!("[ \"$RESOLVED_INITRD_MODULES\" ] || {list}"))
        .file("boot/02-start.sh", "#!/bin/bash\n")
        .file("lib/udev/rules.d/80-drivers.rules", "")
        .modules(|path| format!("lib/modules/{kernel}/{path}"), false);
    let Some(main) = layout.depmod("lib", &[]).and_then(|layout| layout.cpio()) else { return };
    let new = rewritten(&guest, &pack(Compressor::Gzip, &main, Vec::new()), Generator::SuseMkinitrd);
    resolves(&new.bytes, &guest.root, kernel, DRIVERS);
    for path in ["run_all.sh", "config/start.sh"] {
        let script = inside(&new.bytes, path).expect(path);
        assert!(
            script.contains("|| RESOLVED_INITRD_MODULES='virtio_blk virtio_scsi thermal mptspi"),
            "{script}"
        );
    }
    // The script is one that a shell still takes.
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::write(dir.path().join("run_all.sh"), inside(&new.bytes, "run_all.sh").expect("there"))
        .expect("write");
    let output = run(Command::new("sh").arg("-n").arg(dir.path().join("run_all.sh"))).expect("sh");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn rhel_5_loads_by_path_and_needs_come_first() {
    let Some(guest) = guest() else { return };
    let flat = |path: &str| format!("lib/{}", path.rsplit('/').next().unwrap_or(path));
    let layout = Layout::new(&guest).modules(flat, false);
    let set = layout.set();
    let wanted = ["vmw_pvscsi", "sd_mod", "ext4"].map(str::to_string);
    let loads: String = set
        .closure(&wanted)
        .modules
        .iter()
        .map(|name| {
            let file = flat(&set.module(name).expect("listed").path);
            format!("echo \"Loading {name}.ko module\"\ninsmod /{file} \n")
        })
        .collect();
    let init = format!(
        "#!/bin/nash\n\nmount -t proc /proc /proc\nsetquiet\nhotplug\necho Creating block device nodes.\nmkblkdevs\n{loads}\
         echo Waiting for driver initialization.\nstabilized --hash --interval 250 /proc/scsi/scsi\nmkblkdevs\n\
         echo Scanning logical volumes\nlvm vgscan --ignorelockingfailure\nresume /dev/VolGroup00/LogVol01\n\
         echo Creating root device.\nmkrootdev -t ext3 -o defaults,ro /dev/VolGroup00/LogVol00\nmount /sysroot\nswitchroot\n"
    );
    let layout = layout.file("bin/nash", "\x7fELF").file("init", &init).link("sbin", "bin");
    let Some(main) = layout.cpio() else { return };
    let new = rewritten(&guest, &pack(Compressor::Gzip, &main, Vec::new()), Generator::Nash);
    let script = inside(&new.bytes, "init").expect("init");
    let mut loaded = BTreeSet::new();
    for line in script.lines().take_while(|line| !line.starts_with("stabilized")) {
        let Some(path) = line.strip_prefix("insmod /") else { continue };
        let name = kmod::name_of_file(path.trim()).expect("a module");
        assert!(inside(&new.bytes, path.trim()).is_some(), "{path} is inside");
        let module = set.module(&name).expect("listed");
        let missing: Vec<_> = module.needs.iter().filter(|need| !loaded.contains(*need)).collect();
        assert!(missing.is_empty(), "{name} is loaded before {missing:?}");
        assert!(loaded.insert(name), "{path} is loaded once");
    }
    for name in DRIVERS.iter().filter(|name| set.place(name) == kmod::Place::Module) {
        assert!(loaded.contains(*name), "{name} is loaded before the root is looked for");
    }
    assert!(inside(&new.bytes, &format!("lib/modules/{}/modules.dep", guest.kernel)).is_none());
    let tail = |script: &str| script.split_once("echo Waiting").map(|(_, tail)| tail.to_owned());
    assert_eq!(tail(&script), tail(&init), "what comes after is as it was");
}

#[test]
fn rhel_6_is_dracut_without_a_folder_of_its_own() {
    let Some(guest) = guest() else { return };
    let kernel = &guest.kernel;
    let layout = Layout::new(&guest)
        .file("init", "#!/bin/sh\n")
        .file("lib/dracut-lib.sh", "getarg() {\n")
        .file("dracut-004-409.el6_8.2", "")
        .file("cmdline/30parse-lvm.sh", "")
        .file("initqueue/.keep", "")
        .file("sbin/modprobe", "\x7fELF")
        .file("etc/modprobe.d/dist.conf", "alias block-major-8-* sd_mod\n")
        .file("etc/lvm/devices/system.devices", "IDTYPE=sys_wwid IDNAME=naa.6000c29\n")
        .modules(|path| format!("lib/modules/{kernel}/{path}"), false);
    let Some(main) = layout.depmod("lib", &[]).and_then(|layout| layout.cpio()) else { return };
    let archive = pack(Compressor::Gzip, &main, Vec::new());
    let new = rewritten(&guest, &archive, Generator::Dracut);
    resolves(&new.bytes, &guest.root, kernel, DRIVERS);
    let list = "etc/lvm/devices/system.devices";
    assert!(inside(&new.bytes, list).is_some());
    let mut edit = guest.edit();
    edit.remove.push(list.into());
    let new = rewrite(&new.bytes, &edit, &guest.tree()).expect("rewritten");
    assert!(new.changed && inside(&new.bytes, list).is_none());
    let again = rewrite(&new.bytes, &edit, &guest.tree()).expect("again");
    assert!(!again.changed);
}

#[test]
fn ubuntu_has_three_early_archives_before_the_main_one() {
    let Some(guest) = guest() else { return };
    let kernel = &guest.kernel;
    let in_modules = |path: &str| format!("usr/lib/modules/{kernel}/{path}");
    let microcode =
        |name: &str| Layout::new(&guest).file(&format!("kernel/x86/microcode/{name}.bin"), [9; 3001]).cpio();
    let modules = Layout::new(&guest).modules(in_modules, false).depmod("usr/lib", &[]);
    let main = Layout::new(&guest)
        .file("conf/initramfs.conf", "MODULES=most\n")
        .file("conf/arch.conf", "DPKG_ARCH=amd64\n")
        .file("conf/modules", "")
        .file("init", "#!/bin/sh\n")
        .link("lib", "usr/lib");
    let parts = [microcode("AuthenticAMD"), microcode("GenuineIntel"), modules.and_then(|part| part.cpio())];
    let (Some(parts), Some(main)) = (parts.into_iter().collect::<Option<Vec<_>>>(), main.cpio()) else {
        return;
    };
    let early = parts.concat();
    let new = rewritten(&guest, &pack(Compressor::Zstd, &main, early.clone()), Generator::InitramfsTools);
    assert_eq!(new.bytes.get(..early.len()), Some(early.as_slice()));
    let shape = inspect(&new.bytes).expect("sound").compressors;
    assert_eq!(shape, [Compressor::None, Compressor::None, Compressor::None, Compressor::Zstd]);
    resolves(&new.bytes, &guest.root, kernel, DRIVERS);
    resolves(&new.bytes, &guest.root, kernel, &["ext4", "vmw_pvscsi"]);
    if let Some(dir) = unpacked(&new.bytes) {
        compare_with_depmod(&guest, &dir.path().join("merged"), &new);
    }
}

#[test]
fn what_is_not_for_booting_is_left_alone() {
    let Some(guest) = guest() else { return };
    let layout = Layout::new(&guest)
        .file("usr/lib/dracut/modules.txt", "kdumpbase\n")
        .file("etc/kdump.conf", "path /\n");
    let Some(archive) = layout.cpio() else { return };
    let new = rewrite(&archive, &guest.edit(), &guest.tree()).expect("left alone");
    assert!(!new.changed && new.bytes == archive && new.warnings[0].contains("kdump"), "{:?}", new.warnings);
    assert!(inspect(&archive).expect("sound").kdump);
    // A script that nothing is known of is refused with a way out; an unknown tool's image gets the files, and a warning.
    let nash = Layout::new(&guest).file("init", "#!/bin/nash\necho nothing\n").cpio().expect("made before");
    let error = rewrite(&nash, &guest.edit(), &guest.tree()).expect_err("no place");
    assert!(error.kind() == Kind::Unsupported && error.hint_text().is_some(), "{error}");
    let other = Layout::new(&guest).file("init", "#!/bin/sh\nexec /own\n").cpio().expect("made before");
    let new = rewrite(&other, &guest.edit(), &guest.tree()).expect("rewritten");
    assert!(new.warnings.iter().any(|says| says.contains("not known")), "{:?}", new.warnings);
    assert!(
        unpack_modules(&new.bytes)
            .path()
            .join("lib/modules")
            .join(&guest.kernel)
            .join("modules.builtin")
            .exists()
    );
}

#[test]
fn lists_that_an_early_archive_brings_are_emptied() {
    let Some(guest) = guest() else { return };
    let list = "etc/lvm/devices/system.devices";
    let early =
        Layout::new(&guest).file("kernel/x86/microcode/GenuineIntel.bin", [1; 99]).file(list, "old\n").cpio();
    let main =
        Layout::new(&guest).file("usr/lib/dracut/modules.txt", "lvm\n").file("init", "#!/bin/sh\n").cpio();
    let (Some(early), Some(main)) = (early, main) else { return };
    let mut edit = guest.edit();
    edit.remove.push(list.into());
    let new = rewrite(&pack(Compressor::Gzip, &main, early), &edit, &guest.tree()).expect("rewritten");
    assert_eq!(inside(&new.bytes, list).as_deref(), Some(""));
    assert!(new.warnings.iter().any(|says| says.contains("early archive")), "{:?}", new.warnings);
    assert!(!rewrite(&new.bytes, &edit, &guest.tree()).expect("again").changed);
}
