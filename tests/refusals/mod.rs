//! Machines that must not be converted: each is refused with a reason and a remedy, leaves nothing behind, and stays as
//! it is. The guests here have no kernel that runs; they hold what is looked at before one would.

use crate::boots::{fingerprint, landfall, place, text, watched};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// A machine's folder, beside the one that it would be converted into.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// One disk of this size with nothing on it, as a flat VMDK.
    fn new(disk_mib: u64) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        let machine = Machine { folder };
        File::create(machine.disk()).unwrap().set_len(disk_mib * MIB).unwrap();
        let descriptor = format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n\
             RW {} FLAT \"web01-flat.vmdk\" 0\n",
            disk_mib * MIB / 512
        );
        fs::write(machine.source().join("web01.vmdk"), descriptor).unwrap();
        machine.define("web01.vmdk");
        machine
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn disk(&self) -> PathBuf {
        self.source().join("web01-flat.vmdk")
    }

    fn define(&self, disk: &str) {
        let vmx = format!(
            "config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web01\"\nmemSize = \"1024\"\n\
             scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\nscsi0:0.present = \"TRUE\"\n\
             scsi0:0.fileName = \"{disk}\"\nethernet0.present = \"TRUE\"\nethernet0.addressType = \"static\"\n\
             ethernet0.address = \"00:50:56:20:30:40\"\nethernet0.pciSlotNumber = \"192\"\n"
        );
        fs::write(self.source().join("web01.vmx"), vmx).unwrap();
    }

    /// Primary partitions: start and length in MiB, type.
    fn partitions(&self, partitions: &[(u64, u64, u8)]) {
        let mut table = [0; 66];
        for (entry, (start, len, kind)) in table.chunks_exact_mut(16).zip(partitions) {
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&u32::try_from(start * MIB / 512).unwrap().to_le_bytes());
            entry[12..16].copy_from_slice(&u32::try_from(len * MIB / 512).unwrap().to_le_bytes());
        }
        table[64..].copy_from_slice(&[0x55, 0xaa]);
        self.write_at(446, &table);
    }

    fn write_at(&self, at: u64, bytes: &[u8]) {
        let mut disk = File::options().write(true).open(self.disk()).unwrap();
        disk.seek(SeekFrom::Start(at)).unwrap();
        disk.write_all(bytes).unwrap();
    }

    /// What `make` makes of a file of `mib`, at `at_mib` of the disk.
    fn put(&self, at_mib: u64, mib: u64, make: impl FnOnce(&str)) {
        let file = self.folder.path().join("volume");
        File::create(&file).unwrap().set_len(mib * MIB).unwrap();
        make(file.to_str().unwrap());
        let mut bytes = Vec::new();
        File::open(&file).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, mib * MIB);
        self.write_at(at_mib * MIB, &bytes);
    }

    /// An ext4 with these files.
    fn put_ext4(&self, at_mib: u64, mib: u64, files: &BTreeMap<&str, Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let from = folder.path().to_str().unwrap();
        self.put(at_mib, mib, |file| run("mke2fs", &["-q", "-F", "-t", "ext4", "-m", "0", "-d", from, file]));
    }

    /// Converts it, which must fail with this exit code and say all of this, and leave nothing behind: no folder of the
    /// machine, half or whole, no process, no change of the source.
    #[track_caller]
    fn is_refused(&self, code: i32, says: &[&str]) {
        let before = fingerprint(&self.source());
        let out = self.folder.path().join("out");
        let mut command = landfall();
        command.args(["convert", "--to", "kvm", "-o"]).arg(&out).arg(self.source().join("web01.vmx"));
        let (output, left) = watched(command);
        let all = text(&output);
        assert_eq!(output.status.code(), Some(code), "{all}");
        for part in says {
            assert!(all.contains(part), "{part:?} is not in: {all}");
        }
        assert!(all.contains("hint: ") || all.contains("fix: "), "there is no remedy: {all}");
        assert_eq!(left, Vec::<u32>::new(), "processes are left");
        let names: Vec<_> = fs::read_dir(&out).map(|names| names.flatten().collect()).unwrap_or_default();
        assert!(names.is_empty(), "{names:?} is left");
        assert_eq!(fingerprint(&self.source()), before, "the source was changed");
    }
}

fn run(tool: &str, args: &[&str]) {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(tool).args(args).env("PATH", path).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{tool} {args:?}: {}", text(&output));
}

/// True where all of them are installed; a loud line for each that is not.
fn have(tools: &[&str]) -> bool {
    let mut all = true;
    for tool in tools {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(tool).exists());
        if !found {
            eprintln!("SKIPPED: {tool} is not here: run make test, which installs it");
        }
        all &= found;
    }
    all
}

/// What makes a root file system of Debian that starts from BIOS, as far as anybody looks; `/boot` is apart.
fn debian(fstab: &str) -> BTreeMap<&'static str, Vec<u8>> {
    let files = [
        ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
        ("etc/fstab", fstab),
        ("etc/network/interfaces", "auto ens192\niface ens192 inet static\n\taddress 10.20.30.40/24\n"),
        ("sbin/init", ""),
        (
            "var/lib/dpkg/status",
            "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n\nPackage: ifupdown\nStatus: install ok installed\nVersion: 0.8\n\nPackage: initramfs-tools\nStatus: install ok installed\nVersion: 0.142\n",
        ),
        ("lib/modules/6.1.0-9-amd64/modules.dep", ""),
        (
            "lib/modules/6.1.0-9-amd64/modules.builtin",
            "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_net.ko\n",
        ),
        ("boot/README", "the partition is mounted here\n"),
    ];
    files.into_iter().map(|(path, text)| (path, text.as_bytes().to_vec())).collect()
}

/// What lies in `/boot` beside the initramfs.
fn boot() -> BTreeMap<&'static str, Vec<u8>> {
    let grub = "menuentry 'Debian' {\n\tlinux /vmlinuz-6.1.0-9-amd64 root=/dev/sda2 ro console=ttyS0\n\tinitrd /initrd.img-6.1.0-9-amd64\n}\n";
    let files = [("vmlinuz-6.1.0-9-amd64", ""), ("grub/grub.cfg", grub), ("grub/i386-pc/core.img", "core")];
    files.into_iter().map(|(path, text)| (path, text.as_bytes().to_vec())).collect()
}

/// Bytes that no compression makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len).collect()
}

/// An initramfs with one file of noise in it.
fn initramfs(len: usize) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, data) in
        [("lib", 0o040_755, Vec::new()), ("noise", 0o100_644, noise(len)), ("TRAILER!!!", 0, Vec::new())]
    {
        let (size, name_size) = (data.len(), name.len() + 1);
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}{name}\0",
            1, 0, 0, 1, 0, 0, 0, 0, 0, 0
        );
        archive.extend(header.as_bytes());
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

#[test]
fn an_empty_disk() {
    let _place = place();
    let machine = Machine::new(8);
    machine.is_refused(1, &["no-operating-system", "disk0 ("]);
}

#[test]
fn a_disk_with_files_but_no_system() {
    let _place = place();
    if !have(&["mke2fs"]) {
        return;
    }
    let machine = Machine::new(32);
    machine.partitions(&[(1, 16, 0x83)]);
    machine.put_ext4(1, 16, &BTreeMap::from([("photos/beach.jpg", noise(1000))]));
    machine.is_refused(1, &["no-operating-system", "disk0p1 (ext4)"]);
}

/// It may well hold one, where this version does not look.
#[test]
fn a_system_in_a_subvolume_of_btrfs() {
    let _place = place();
    if !have(&["mkfs.btrfs"]) {
        return;
    }
    let machine = Machine::new(160);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("@/etc")).unwrap();
    fs::write(folder.path().join("@/etc/os-release"), "ID=debian\n").unwrap();
    let from = folder.path().to_str().unwrap();
    machine.partitions(&[(1, 150, 0x83)]);
    machine.put(1, 150, |file| run("mkfs.btrfs", &["-q", "--rootdir", from, file]));
    machine.is_refused(1, &["no-operating-system", "disk0p1 (btrfs)"]);
}

#[test]
fn a_hibernated_guest() {
    let _place = place();
    if !have(&["mke2fs", "mkswap"]) {
        return;
    }
    let machine = Machine::new(64);
    machine.partitions(&[(1, 16, 0x83), (17, 16, 0x83), (33, 16, 0x82)]);
    machine.put_ext4(1, 16, &boot());
    machine.put_ext4(
        17,
        16,
        &debian("/dev/sda2 / ext4 d 0 1\n/dev/sda1 /boot ext4 d 0 2\n/dev/sda3 none swap sw 0 0\n"),
    );
    machine.put(33, 16, |file| run("mkswap", &["-q", file]));
    // What the kernel writes in the place of SWAPSPACE2 (kernel/power/swap.c).
    machine.write_at(33 * MIB + 4096 - 10, b"S1SUSPEND\0");
    machine.is_refused(1, &["guest-hibernated", "disk0p3", "shut it down"]);
}

#[test]
fn an_encrypted_root_beside_a_plain_boot() {
    let _place = place();
    if !have(&["mke2fs", "cryptsetup"]) {
        return;
    }
    let machine = Machine::new(64);
    machine.partitions(&[(1, 16, 0x83), (17, 32, 0x83)]);
    machine.put_ext4(1, 16, &boot());
    let key = machine.folder.path().join("key");
    fs::write(&key, "a passphrase").unwrap();
    let key = key.to_str().unwrap();
    let quick = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    machine.put(17, 32, |file| {
        let mut args = vec!["-q", "luksFormat", "--type", "luks2", "--key-file", key];
        args.extend(quick);
        args.push(file);
        run("cryptsetup", &args);
    });
    machine.is_refused(1, &["root-encrypted", "disk0p2", "LUKS"]);
}

/// The new initramfs has no room, not even in place of the old one.
#[test]
fn a_boot_partition_that_is_too_full() {
    let _place = place();
    if !have(&["mke2fs"]) {
        return;
    }
    let machine = Machine::new(64);
    machine.partitions(&[(1, 16, 0x83), (17, 16, 0x83)]);
    let mut files = boot();
    files.insert("initrd.img-6.1.0-9-amd64", initramfs(7 << 20));
    files.insert("filler", noise(6700 << 10));
    machine.put_ext4(1, 16, &files);
    machine.put_ext4(17, 16, &debian("/dev/sda2 / ext4 d 0 1\n/dev/sda1 /boot ext4 d 0 2\n"));
    machine.is_refused(1, &["/boot/initrd.img-6.1.0-9-amd64", "free", "hint: remove old kernels"]);
}

#[test]
fn a_disk_that_is_not_there() {
    let _place = place();
    let machine = Machine::new(8);
    machine.define("web02.vmdk");
    machine.is_refused(2, &["web01.vmx", "web02.vmdk", "hint: put web02.vmdk beside"]);
}

#[test]
fn an_extent_that_is_not_there_or_too_short() {
    let _place = place();
    let machine = Machine::new(8);
    File::options().write(true).open(machine.disk()).unwrap().set_len(4 * MIB).unwrap();
    machine.is_refused(1, &["web01-flat.vmdk"]);
    fs::remove_file(machine.disk()).unwrap();
    machine.is_refused(2, &["web01.vmdk", "web01-flat.vmdk"]);
}

/// A definition from elsewhere must not put the host's files into a disk.
#[test]
fn a_disk_outside_of_the_folder() {
    let _place = place();
    let machine = Machine::new(8);
    let secret = machine.folder.path().join("secret.img");
    fs::write(&secret, noise(4096)).unwrap();
    for name in [secret.to_str().unwrap(), "../secret.img"] {
        machine.define(name);
        machine.is_refused(1, &["web01.vmx", "secret.img", "outside", "--allow"]);
    }
    // From an ESXi host that is not here: its disk belongs beside the definition.
    machine.define("/vmfs/volumes/5f1e/web02/web02.vmdk");
    machine.is_refused(1, &["/vmfs/volumes/5f1e/web02/web02.vmdk", "hint: put web02.vmdk beside"]);
    machine.define(r"C:\VMs\web02.vmdk");
    machine.is_refused(2, &["hint: put web02.vmdk beside"]);
    // Where it lies there it is found, and what is said is about the disk.
    for name in [
        "/vmfs/volumes/5f1e/web01/web01.vmdk",
        r"C:\VMs\web01.vmdk",
        "[store] a/web01.vmdk",
        "[store] web01.vmdk",
    ] {
        machine.define(name);
        machine.is_refused(1, &["no-operating-system"]);
    }
}
