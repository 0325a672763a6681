//! What tests with real guests share: disks, tools, the sandbox, a family that knows every guest.

#![allow(dead_code, reason = "each test program uses its part")]

pub mod windows;

use landfall_boot::family::{Family, Scene};
use landfall_boot::guest::{Fact, Guest};
use landfall_boot::patch::{Action, Edit, PatchPlan};
use landfall_boot::sandbox::{Accelerator, Sandbox, Settings};
use landfall_boot::session::{Inspection, Options, Patched, patch};
use landfall_boot::target::{Firmware, Platform, Request};
use landfall_boot::tree::GuestTreeExt;
use landfall_boot::volume::VolumeId;
use landfall_boot::{Error, Result};
use landfall_image::disk::{Disk, DiskMut, Extent, ExtentKind};
use landfall_image::{Bytes, GuestOffset, GuestRange};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file as a disk, written in place: other tools look at it afterwards.
pub struct FileDisk(File);

impl FileDisk {
    pub fn open(path: &Path) -> Arc<dyn DiskMut> {
        Arc::new(FileDisk(File::options().read(true).write(true).open(path).unwrap()))
    }
}

impl Disk for FileDisk {
    fn size(&self) -> Bytes {
        Bytes(self.0.metadata().unwrap().len())
    }
    fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
        Ok(vec![Extent { range, kind: ExtentKind::Data }])
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(buf, at.0).map_err(|e| Error::io("cannot read", e))
    }
}

impl DiskMut for FileDisk {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.0.write_all_at(data, at.0).map_err(|e| Error::io("cannot write", e))
    }
    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut at = range.start().0;
        while at < range.end().0 {
            let len = (range.end().0 - at).min(1 << 20);
            self.write_at(GuestOffset(at), &zeros[..usize::try_from(len).unwrap()])?;
            at += len;
        }
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A family that knows every guest and writes a line into each of these files.
pub struct Anything(pub Vec<String>);

pub const TEXT: &str = "written by a test\n";

impl Family for Anything {
    fn name(&self) -> &'static str {
        "anything"
    }
    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        any_guest(scene)
    }
    fn plan(&self, _: &Scene<'_>, _: &Guest, _: &Request) -> Result<PatchPlan> {
        let edit = |path: &String| Edit {
            path: path.clone(),
            action: Action::Write { contents: TEXT.to_owned().into(), mode: 0o640 },
            why: "a test".into(),
            labels: Vec::new(),
        };
        Ok(PatchPlan { edits: self.0.iter().map(edit).collect(), ..PatchPlan::default() })
    }
}

/// Facts of a guest of which only the name is known.
pub fn any_guest(scene: &Scene<'_>) -> Result<Option<Guest>> {
    let name = scene.tree.read_text("/etc/os-release")?.unwrap_or_default();
    Ok(Some(Guest {
        family: "anything".into(),
        distribution: Fact::new("test".to_owned(), "x"),
        version: Fact::new("1".to_owned(), "x"),
        name: Fact::new(name.trim().to_owned(), "/etc/os-release"),
        architecture: Fact::new("x86_64".to_owned(), "x"),
        host_name: None,
        kernels: Vec::new(),
        mounts: scene.mounts.to_vec(),
        init: None,
        boot_modes: Vec::new(),
        interfaces: Vec::new(),
        agents: Vec::new(),
        windows: None,
    }))
}

/// One machine at a time: without KVM they are slow enough.
pub fn one() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sandbox, where there is one; a loud line where there is none.
pub fn sandbox(test: &str) -> Option<Sandbox> {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_sandbox_agent"));
    let target = agent.ancestors().find(|folder| folder.ends_with("target")).unwrap().to_owned();
    let mut settings = Settings::new(agent, target.join("sandbox-cache"));
    settings.accelerator = Some(Accelerator::Tcg);
    settings.data_folder = Some(target);
    if let Some(folder) = std::env::var_os("LANDFALL_SANDBOX_KERNEL") {
        settings.kernel_folder = Some(folder.into());
    }
    match Sandbox::new(settings) {
        Ok(sandbox) => Some(sandbox),
        Err(error) => {
            eprintln!("SKIPPED: {test}: {error} ({})", error.hint_text().unwrap_or_default());
            None
        }
    }
}

/// True where all of these are installed; a loud line where one is not.
pub fn tools(names: &[&str]) -> bool {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let missing = |name: &&&str| !folders.iter().any(|folder| Path::new(folder).join(name).is_file());
    match names.iter().find(missing) {
        Some(name) => {
            eprintln!("SKIPPED: {name} is not installed");
            false
        }
        None => true,
    }
}

/// Runs a command line of plain words that must succeed.
#[track_caller]
pub fn run(line: &str) -> String {
    try_run(line).unwrap_or_else(|text| panic!("{line}: {text}"))
}

/// Runs a command line of plain words.
pub fn try_run(line: &str) -> std::result::Result<String, String> {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().unwrap())
        .args(words)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.success() { Ok(text) } else { Err(text) }
}

pub fn sparse(path: &Path, mib: u64) {
    File::create(path).unwrap().set_len(mib << 20).unwrap();
}

/// Writes one file and its folders.
pub fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A small root file system's files, in a folder.
pub fn root_files(folder: &Path, fstab: &str) {
    write(folder, "etc/fstab", fstab);
    write(folder, "etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    write(folder, "etc/os-release", "PRETTY_NAME=Test\n");
    write(folder, "etc/motd", "old\n");
    std::fs::create_dir_all(folder.join("boot/efi")).unwrap();
}

pub fn request(firmware: Firmware) -> Request {
    Request { platform: Platform::Kvm, firmware, ..Request::default() }
}

/// The whole pass, by a family that writes these files.
pub fn patched(disks: &[&Path], sandbox: &Sandbox, writes: &[&str], root: Option<&str>) -> Patched {
    let disks: Vec<_> = disks.iter().map(|disk| FileDisk::open(disk)).collect();
    let family = Anything(writes.iter().map(|path| (*path).to_owned()).collect());
    let options = Options {
        sandbox: Some(sandbox),
        families: &[&family],
        root: root.map(|root| VolumeId(root.into())),
        ..Options::default()
    };
    let seen = patch(&disks, &request(Firmware::Uefi), &options).unwrap();
    let inspection = &seen.inspection;
    eprintln!(
        "scan {:.3} s, plan {:.3} s, {:?}, {:?}",
        inspection.scan_seconds, inspection.plan_seconds, inspection.plan.findings, seen.applied
    );
    seen
}

pub fn ids(inspection: &Inspection) -> Vec<&str> {
    inspection.plan.findings.iter().map(|finding| finding.id).collect()
}

/// A file system on a loop device, unmounted when dropped.
pub struct Mounted(pub PathBuf);

impl Mounted {
    /// `None`, and a loud line, where this may not be done here.
    pub fn new(image: &Path, at: &Path, options: &str) -> Option<Mounted> {
        std::fs::create_dir_all(at).unwrap();
        match try_run(&format!("mount -o loop,{options} {} {}", image.display(), at.display())) {
            Ok(_) => Some(Mounted(at.to_owned())),
            Err(error) => {
                eprintln!("SKIPPED: mounting needs root: {error}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = try_run(&format!("umount {}", self.0.display()));
    }
}
