//! A small guest on a disk of its own, what is put into it, and a pass over it.

use crate::helper::*;
use landfall_boot::sandbox::Sandbox;
use landfall_boot::session::{Options, Patched, patch};
use landfall_boot::target::{Firmware, Nic, Platform, Request};
use landfall_boot::{Error, Result};
use landfall_image::luks::Secret;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A pass over a small guest takes seconds, without KVM too.
pub const WITHIN: Duration = Duration::from_secs(120);

/// Memory of this program at its peak. It holds an initramfs twice and what the guest's lists come to.
pub const MEMORY_KIB: u64 = 768 << 10;

pub const VERSION: &str = "6.1.0-9-amd64";

/// What makes a Debian that starts from BIOS, as far as anybody looks.
pub fn debian(root: &Path) {
    let text = |path: &str, text: &str| write(root, path, text);
    text("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
    text("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    text("etc/fstab", "/dev/sda / ext4 errors=remount-ro 0 1\n");
    text("etc/hostname", "web01\n");
    text(
        "etc/network/interfaces",
        "source /etc/network/interfaces.d/*\nauto ens192\niface ens192 inet static\n\taddress 10.20.30.40/24\n",
    );
    text("etc/default/grub", "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=\"root=/dev/sda\"\n");
    text("etc/initramfs-tools/modules", "ext4\n");
    text(
        "boot/grub/grub.cfg",
        &format!(
            "menuentry 'Debian' {{\n\tlinux /boot/vmlinuz-{VERSION} root=/dev/sda ro\n\tinitrd /boot/initrd.img-{VERSION}\n}}\n"
        ),
    );
    text("boot/grub/i386-pc/core.img", "core");
    text(&format!("boot/vmlinuz-{VERSION}"), "kernel");
    let list = "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_net.ko\nkernel/sd_mod.ko\n";
    text(&format!("lib/modules/{VERSION}/modules.dep"), "");
    text(&format!("lib/modules/{VERSION}/modules.builtin"), list);
    let package = |name: &str| {
        format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n\n")
    };
    let status: String =
        ["dpkg", "ifupdown", "initramfs-tools", "grub-pc", "udev", "systemd"].map(package).concat();
    text("var/lib/dpkg/status", &status);
    text("sbin/init", "");
    fs::write(root.join(format!("boot/initrd.img-{VERSION}")), initramfs()).unwrap();
}

/// An initramfs with next to nothing in it.
pub fn initramfs() -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode) in [("conf", 0o040_755), ("TRAILER!!!", 0)] {
        let (zero, name_size) = ("00000000", name.len() + 1);
        let (three, two) = (zero.repeat(3), zero.repeat(2));
        let header =
            format!("07070100000001{mode:08x}{three}00000001{three}{two}{name_size:08x}{zero}{name}\0");
        archive.extend(header.into_bytes());
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// A guest, and a folder of the host that it must not reach.
pub struct Guest {
    pub dir: tempfile::TempDir,
    pub image: PathBuf,
}

impl Guest {
    /// A Debian that `change` did something to, as ext4. `change` gets its root and the folder that it must not reach.
    pub fn new(change: impl FnOnce(&Path, &Path)) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside, image) =
            (dir.path().join("root"), dir.path().join("outside"), dir.path().join("disk"));
        fs::create_dir_all(&root).unwrap();
        for (path, text) in [
            ("fstab", "/dev/sda / ext4 d 0 1\n"),
            ("grub.cfg", "linux /v root=/dev/sda\n"),
            ("file", "mine\n"),
        ] {
            write(&outside, path, text);
        }
        debian(&root);
        change(&root, &outside);
        sparse(&image, 256);
        run(&format!("mke2fs -q -F -t ext4 -d {} {}", root.display(), image.display()));
        fs::remove_dir_all(&root).unwrap();
        Guest { dir, image }
    }

    /// The whole pass, whose outcome may be anything that is bounded and clean.
    #[track_caller]
    pub fn pass(&self, sandbox: &Sandbox) -> Result<Patched> {
        self.pass_beside(sandbox, &[], &[])
    }

    /// As [`pass`](Self::pass), with other disks behind the guest's own.
    #[track_caller]
    pub fn pass_beside(&self, sandbox: &Sandbox, others: &[&Path], keys: &[Secret]) -> Result<Patched> {
        let outside = self.dir.path().join("outside");
        let before = listing(&outside);
        let begin = Instant::now();
        let disks: Vec<&Path> = [self.image.as_path()].into_iter().chain(others.iter().copied()).collect();
        let outcome = pass_with(&disks, sandbox, keys);
        eprintln!("{:.1} s", begin.elapsed().as_secs_f64());
        assert!(begin.elapsed() < WITHIN, "{:?}", begin.elapsed());
        assert_eq!(listing(&outside), before, "a file of the host was touched");
        assert!(peak_kib("self") < MEMORY_KIB, "{} KiB", peak_kib("self"));
        match &outcome {
            Ok(seen) => {
                for finding in &seen.inspection.plan.findings {
                    let text = format!("{} {}", finding.says, finding.remedy);
                    assert!(!text.chars().any(char::is_control), "{text:?}");
                    assert!(text.len() < 8000, "{} bytes: {text:.200}", text.len());
                    eprintln!("  {}: {}", finding.id, finding.says);
                }
                assert!(seen.inspection.plan.findings.len() < 500);
            }
            Err(error) => eprintln!("  error: {error}"),
        }
        run(&format!("e2fsck -fn {}", self.image.display()));
        outcome
    }

    pub fn cat(&self, path: &str) -> String {
        let out =
            Command::new("debugfs").arg("-R").arg(format!("cat {path}")).arg(&self.image).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

pub fn pass(disks: &[&Path], sandbox: &Sandbox) -> Result<Patched> {
    pass_with(disks, sandbox, &[])
}

pub fn pass_with(disks: &[&Path], sandbox: &Sandbox, keys: &[Secret]) -> Result<Patched> {
    let disks: Vec<_> = disks.iter().map(|disk| FileDisk::open(disk)).collect();
    let nic =
        Nic { mac: Some("00:50:56:20:30:40".into()), source_name: Some("ens192".into()), new_mac: None };
    let request =
        Request { platform: Platform::Kvm, firmware: Firmware::Bios, nics: vec![nic], ..Request::default() };
    patch(&disks, &request, &Options { sandbox: Some(sandbox), keys, ..Options::default() })
}

/// Every path below a folder with its content and its time of change.
pub fn listing(folder: &Path) -> Vec<(PathBuf, String, i64)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read_to_string(&path).unwrap_or_default();
        found.push((path.clone(), content, path.symlink_metadata().unwrap().ctime()));
    }
    found.sort();
    found
}

/// The most memory that a process has had.
pub fn peak_kib(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// All that is said: findings, or the error.
pub fn said(outcome: &Result<Patched>) -> String {
    match outcome {
        Ok(seen) => {
            let findings = seen.inspection.plan.findings.iter();
            findings.map(|finding| format!("{}: {}\n", finding.id, finding.says)).collect()
        }
        Err(error) => full(error),
    }
}

pub fn full(error: &Error) -> String {
    format!("{error} {}", error.hint_text().unwrap_or_default())
}

pub fn ready(test: &str) -> Option<Sandbox> {
    if !tools(&["mke2fs", "e2fsck", "debugfs", "mknod", "mkfifo"]) {
        return None;
    }
    sandbox(test)
}

/// What plans read and write.
pub const CONFIGS: &[&str] = &[
    "etc/fstab",
    "etc/crypttab",
    "etc/default/grub",
    "etc/hostname",
    "etc/initramfs-tools/modules",
    "etc/initramfs-tools/conf.d/resume",
    "etc/mdadm/mdadm.conf",
    "etc/lvm/lvm.conf",
    "etc/multipath.conf",
    "etc/network/interfaces",
    "etc/network/interfaces.d/x",
    "etc/netplan/x.yaml",
    "etc/NetworkManager/system-connections/x.nmconnection",
    "etc/systemd/network/10-x.network",
    "etc/systemd/network/10-x.link",
    "etc/systemd/system/boot.mount",
    "etc/udev/rules.d/70-persistent-net.rules",
    "etc/modprobe.d/x.conf",
    "etc/smartd.conf",
    "boot/grub/grub.cfg",
    "boot/grub/device.map",
    "boot/grub/custom.cfg",
    "boot/extlinux/extlinux.conf",
    "boot/loader/entries/x.conf",
    "lib/modules/6.1.0-9-amd64/modules.dep",
    "lib/modules/6.1.0-9-amd64/modules.softdep",
    "var/lib/dpkg/status",
];

pub fn clear(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
}
