//! What this crate's tests share: real tools, images, disks in memory. Compiled for tests only.

use crate::Result;
use crate::patch::{Action, PatchPlan};
use landfall_image::disk::{check_bounds, clip};
use landfall_image::{Bytes, Disk, DiskMut, Extent, ExtentKind, GuestOffset, GuestRange};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// The tool's path, or a loud skip.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

/// The folder of real files, or a loud skip.
pub fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let folder = std::env::var_os("LANDFALL_CORPUS").map_or(beside, PathBuf::from);
    if !folder.is_dir() {
        eprintln!("SKIPPED: there is no corpus at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The folder of readers of network configuration (tools/fetch-readers.sh), or a loud skip.
pub fn network_readers() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/network-readers");
    let folder = std::env::var_os("LANDFALL_NETWORK_READERS").map_or(beside, PathBuf::from);
    if !folder.join("complete").is_file() {
        eprintln!("SKIPPED: tools/fetch-readers.sh has put nothing into {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The folder of unpacked packages of boot loaders (tools/fetch-readers.sh), which need not exist.
pub fn loaders() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/loaders");
    std::env::var_os("LANDFALL_LOADERS").map_or(beside, PathBuf::from)
}

/// dpkg's status file with these packages, each with its version.
pub fn dpkg_status(packages: &[(&str, &str)]) -> String {
    let entry = |(name, version): &(&str, &str)| {
        format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n")
    };
    packages.iter().map(entry).collect()
}

/// What a plan writes into this file.
pub fn written(plan: &PatchPlan, path: &str) -> Option<String> {
    plan.edits.iter().find(|edit| edit.path == path).map(|edit| match &edit.action {
        Action::Write { contents, .. } => String::from_utf8_lossy(&contents.0).into_owned(),
        other => panic!("{other:?}"),
    })
}

/// A command line of a real tool that must succeed.
pub struct Tool {
    line: String,
    input: Vec<u8>,
}

impl Tool {
    /// Words separated by spaces.
    pub fn line(line: &str) -> Tool {
        Tool { line: line.to_owned(), input: Vec::new() }
    }
    /// With this on standard input.
    pub fn input(mut self, input: &[u8]) -> Tool {
        self.input = input.to_vec();
        self
    }
    /// What it prints.
    #[track_caller]
    pub fn run(self) -> String {
        let mut words = self.line.split_whitespace();
        let name = words.next().unwrap();
        let mut child = Command::new(tool(name).unwrap_or_else(|| name.into()))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(&self.input);
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}: {}", self.line, String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

/// A new file of zeros.
pub fn sparse(path: &Path, len: u64) {
    std::fs::File::create(path).unwrap().set_len(len).unwrap();
}

/// Writes into an existing file.
pub fn patch(path: &Path, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// `folder/name`, or `folder/name.zst` unpacked into `into`.
pub fn unpack(folder: &Path, name: &str, into: &Path) -> PathBuf {
    let out = into.join(name);
    match std::fs::File::open(folder.join(format!("{name}.zst"))) {
        Ok(packed) => {
            let mut file = std::fs::File::create(&out).unwrap();
            zstd::stream::copy_decode(packed, &mut file).unwrap();
        }
        Err(_) => std::fs::copy(folder.join(name), &out).map(drop).unwrap(),
    }
    out
}

/// A raw image as a disk.
pub fn open(path: &Path) -> Arc<dyn Disk> {
    let source = landfall_image::Source::open(path).unwrap();
    landfall_image::raw::open(source, &landfall_image::Gate::own_folder()).unwrap().disk
}

/// A raw image as a disk with an overlay, as the session has it.
pub fn overlay(path: &Path) -> Arc<landfall_image::Overlay> {
    let folder = path.parent().unwrap();
    Arc::new(landfall_image::Overlay::new(open(path), folder).unwrap())
}

/// A disk in memory.
pub struct Memory(Mutex<Vec<u8>>);

impl Memory {
    /// With these bytes.
    pub fn new(bytes: Vec<u8>) -> Memory {
        Memory(Mutex::new(bytes))
    }
    /// `len` bytes that differ from each other and, by `salt`, from other disks'.
    pub fn patterned(len: usize, salt: u8) -> Arc<dyn DiskMut> {
        Arc::new(Memory::new((0..len).map(|i| u8::try_from(i % 251).unwrap() ^ salt).collect()))
    }
}

impl Disk for Memory {
    fn size(&self) -> Bytes {
        Bytes(self.0.lock().unwrap().len() as u64)
    }
    fn extents(&self, range: GuestRange, _at_most: usize) -> Result<Vec<Extent>> {
        let range = clip(range, self.size());
        Ok(if range.is_empty() { Vec::new() } else { vec![Extent { range, kind: ExtentKind::Data }] })
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        check_bounds(self.size(), at, buf.len())?;
        let at = usize::try_from(at.0).unwrap();
        buf.copy_from_slice(&self.0.lock().unwrap()[at..at + buf.len()]);
        Ok(())
    }
}

impl DiskMut for Memory {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        check_bounds(self.size(), at, data.len())?;
        let at = usize::try_from(at.0).unwrap();
        self.0.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn zero_at(&self, range: GuestRange) -> Result<()> {
        self.write_at(range.start(), &vec![0; usize::try_from(range.len().0).unwrap()])
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
