//! The main job: a machine read, patched, its disks converted, its definition written.
//!
//! All is written into a folder with a temporary name, which gets its final name when everything in it is complete
//! and synced. A run that was killed leaves only the temporary folder; the next run removes it.

use super::inspect::{self, Opened};
use super::packing::Packing;
use super::source;
use super::{Context, Failure, GuestChoice};
use crate::hypervisor::{Artifact, Networks, Package, PlacedDisk, Placement, Target};
use crate::machine::{Bus, DiskSlot, Machine, OsId};
use crate::registrar;
use crate::report::{Converted, WrittenDisk};
use landfall_boot::Guest;
use landfall_boot::target::{Firmware, Platform};
use landfall_image::create::{Adapter, CreateOptions, FileOptions};
use landfall_image::formats::KindRow;
use landfall_image::{Error, Format, Overlay, Result};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What is wanted.
pub struct Wanted<'a> {
    /// The definition.
    pub source: &'a Path,
    /// The target: a row with `render`.
    pub target: &'static Target,
    /// The machine's folder is made in this one.
    pub output: &'a Path,
    /// Its name at the target; `None` to keep it.
    pub name: Option<String>,
    /// Kind of image of its disks; `None` for the target's usual one.
    pub kind: Option<String>,
    /// How they are written.
    pub create: CreateOptions,
    /// The networks that its cards are plugged into.
    pub networks: Networks,
    /// How the guest is found.
    pub guest: GuestChoice,
    /// Where it is to be registered afterwards: what stands in the way there is known before the disks are copied.
    pub register: Option<registrar::Wanted>,
}

/// What was done.
pub struct Done {
    /// The machine's folder.
    pub folder: PathBuf,
    /// The report, as it lies there in `report.json`.
    pub report: Converted,
}

/// A digest of the state of a source and of all that is wanted of it: two runs with the same one write the same machine.
/// The disks' content is known by path, length and time of change, which costs no reading.
pub fn fingerprint(loaded: &source::Loaded, wanted: &Wanted<'_>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: String| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(loaded.digest.clone());
    for path in loaded.files() {
        let meta = fs::metadata(&path).map_err(|e| Error::io("cannot look at", e).in_file(&path))?;
        add(format!("{path:?} {} {:?}", meta.len(), meta.modified().ok()));
    }
    let create = (wanted.create.compression, wanted.create.level);
    add(format!("{} {:?} {:?} {create:?}", wanted.target.name, wanted.name, wanted.kind));
    add(format!("{:?} {:?}", wanted.networks, wanted.guest));
    Ok(hasher.finalize().to_hex().to_string())
}

/// Converts a machine.
pub fn convert(context: &Context<'_>, wanted: &Wanted<'_>) -> Result<Done, Failure> {
    let platform = wanted.target.platform;
    let kind = kind(wanted)?;
    let mut clock = Clock::default();
    let mut loaded = source::load(context, wanted.source, &wanted.guest.source)?;
    let fingerprint = fingerprint(&loaded, wanted)?;
    let mapped = wanted.guest.mapped(&loaded, platform);
    if let Some(name) = wanted.name.as_ref().or(mapped.name.as_ref()) {
        loaded.rename(name);
    }
    let networks = mapped.networks(&wanted.networks);
    check_kind(wanted.target, kind, &loaded.machine)?;
    clock.lap("read the definition");

    for (source, _) in &wanted.networks.map {
        if !loaded.machine.nics.iter().any(|nic| nic.network.as_ref() == Some(source)) {
            tracing::warn!("no network card of {} is in a network {source:?}", loaded.machine.name);
        }
    }
    let folder =
        Folder::begin(wanted.output, &loaded.machine.name, wanted.create.files.replace, &loaded.files())?;
    let overlays = loaded.overlays(&folder.partial)?;
    let keys = context.key.as_slice();
    let opened = Opened {
        loaded: &loaded,
        overlays: &overlays,
        platform,
        choice: &wanted.guest,
        mapped: &mapped,
        keys,
    };
    let mut patched = inspect::patch(context, &opened)?;
    clock.lap("find the guest and patch it");

    let mut machine = inspect::adapt(&mut patched, wanted.target, kind.name, &networks, &mapped)?;
    if patched.is_blocked() {
        return Err(Failure::Findings(patched.findings));
    }
    machine.os = patched.guest.as_ref().map(os_id);
    let format = kind.format.name();
    let placed = |(disk, overlay): (&DiskSlot, &Arc<Overlay>)| PlacedDisk {
        file: disk.file.clone(),
        format: format.to_owned(),
        virtual_size: landfall_image::Disk::size(&**overlay),
        stored: None,
    };
    let mut placement = Placement {
        folder: utf8(&folder.final_name)?,
        disks: machine.disks.iter().zip(&overlays).map(placed).collect(),
        networks,
        storage: mapped.storage.clone(),
        id: mapped.id,
    };
    // What the target cannot express is refused now, not after hours of copying.
    let rendered = (wanted.target.render)(&machine, &placement)?;
    let more = rendered.findings_besides(&patched.findings);
    patched.findings.extend(more);
    if let Some(at) = &wanted.register {
        patched.findings.extend(super::register::ready(context, at, wanted.target.name, &machine)?);
    }
    if patched.is_blocked() {
        return Err(Failure::Findings(patched.findings));
    }
    let mut artifacts = rendered.artifacts;
    let mut packing = match wanted.target.package {
        Package::Folder => None,
        Package::Ova => Some(Packing::begin(&folder.partial, wanted.target, &machine, &placement)?),
    };

    let adapter = (kind.format == Format::Vmdk).then(|| match machine.disks.first().map(|disk| disk.bus) {
        Some(Bus::Ide) => Adapter::Ide,
        _ => Adapter::LsiLogic,
    });
    let mut written_disks = Vec::new();
    for ((slot, overlay), placed) in machine.disks.iter().zip(&overlays).zip(&mut placement.disks) {
        context.check_cancelled()?;
        // The machine's folder takes its name last, when everything in it is on stable storage.
        let files = FileOptions { replace: true, resume: false, sync: true };
        let mut options = CreateOptions { files, adapter, ..wanted.create.clone() };
        let place = match &mut packing {
            Some(packing) => packing.disk(&slot.file, &mut options)?,
            None => folder.partial.join(&slot.file),
        };
        let sink = (kind.create)(&place, landfall_image::Disk::size(&**overlay), &options)?;
        let done = super::disk::copy(context, &**overlay, sink, &slot.file)?;
        if let Some(packing) = &mut packing {
            placed.stored = Some(packing.disk_done()?);
        }
        written_disks.push(WrittenDisk {
            file: packing.as_ref().map_or_else(|| slot.file.clone(), |packing| packing.path_of(&slot.file)),
            format: format.to_owned(),
            kind: kind.name.to_owned(),
            virtual_size: done.size,
            data: done.copied,
            allocated: done.receipt.allocated,
            content_digest: done.digest.to_hex().to_string(),
        });
    }
    clock.lap("convert the disks");

    let mut files = Vec::new();
    if let Some(packing) = packing {
        // The lengths of its files are known now.
        files.push(packing.finish(context, (wanted.target.render)(&machine, &placement)?)?);
        artifacts.retain(|artifact| !artifact.name.ends_with(".ovf"));
    }
    for artifact in &artifacts {
        write_file(&folder.partial, artifact)?;
    }
    clock.lap("write the definition");

    files.extend(artifacts.iter().map(|artifact| artifact.name.clone()));
    files.extend([REPORT.to_owned(), MANIFEST.to_owned()]);
    let report = Converted {
        inspected: patched,
        target: wanted.target.name.to_owned(),
        written: machine,
        written_disks,
        files,
        seconds: clock.laps,
        fingerprint,
        landfall: env!("CARGO_PKG_VERSION").to_owned(),
        registration: None,
    };
    let text = serde_json::to_string_pretty(&report)
        .map_err(|e| Error::corrupt(format!("the report cannot be written as JSON: {e}")))?;
    let report_file = Artifact { name: REPORT.into(), text: text + "\n", executable: false };
    write_file(&folder.partial, &report_file)?;
    let mut named: Vec<&Artifact> = artifacts.iter().collect();
    named.push(&report_file);
    write_file(&folder.partial, &manifest(&named, &report.written_disks))?;
    context.check_cancelled()?;
    let folder = folder.complete()?;
    Ok(Done { folder, report })
}

/// The kind of image that is wanted.
fn kind(wanted: &Wanted<'_>) -> Result<&'static KindRow> {
    let usual = wanted.target.kinds.first().copied().unwrap_or_default();
    landfall_image::formats::kind(wanted.kind.as_deref().unwrap_or(usual))
}

/// Refuses what the target cannot start from.
fn check_kind(target: &Target, kind: &KindRow, machine: &Machine) -> Result<()> {
    if !target.kinds.contains(&kind.name) {
        return Err(Error::refused(format!(
            "{} does not take disks of the kind {}",
            target.title, kind.name
        ))
        .hint(format!("choose one of {}", target.kinds.join(", "))));
    }
    let is_second_generation = target.platform == Platform::Hyperv && machine.firmware == Firmware::Uefi;
    if is_second_generation && kind.format == Format::Vhd {
        return Err(Error::refused("a machine with UEFI is of generation 2, which starts from VHDX only")
            .hint("choose vhdx or vhdx-fixed"));
    }
    Ok(())
}

/// Name of the file that lists the digests of everything in the folder.
const MANIFEST: &str = "manifest.json";

/// Name of the report in the folder.
pub(super) const REPORT: &str = "report.json";

/// BLAKE3 of every file of the definition, and the content digest of every disk.
fn manifest(artifacts: &[&Artifact], disks: &[WrittenDisk]) -> Artifact {
    let files: Vec<_> = artifacts
        .iter()
        .map(|artifact| {
            let digest = blake3::hash(artifact.text.as_bytes()).to_hex().to_string();
            serde_json::json!({ "file": artifact.name, "blake3": digest })
        })
        .collect();
    let manifest = serde_json::json!({
        "version": crate::report::VERSION,
        "disks": disks,
        "files": files,
    });
    Artifact { name: MANIFEST.into(), text: format!("{manifest:#}\n"), executable: false }
}

fn os_id(guest: &Guest) -> OsId {
    OsId { distribution: guest.distribution.value.clone(), version: guest.version.value.clone() }
}

fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::unsupported("is not UTF-8: a definition cannot name it")
            .in_file(path)
            .hint("choose another folder with -o")
    })
}

fn write_file(folder: &Path, artifact: &Artifact) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(&artifact.name);
    let mode = if artifact.executable { 0o755 } else { 0o644 };
    let written =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).and_then(|mut file| {
            std::io::Write::write_all(&mut file, artifact.text.as_bytes()).and_then(|()| file.sync_all())
        });
    written.map_err(|e| Error::io("cannot write", e).in_file(&path))
}

/// The output folder while it has its temporary name. Dropped before it is complete, it is removed.
struct Folder {
    partial: PathBuf,
    final_name: PathBuf,
    /// The name of an earlier result while it is being replaced, where that takes two steps.
    old: PathBuf,
    /// Held as long as the folder is ours: a second run must not remove it.
    _lock: File,
    replace: bool,
    complete: bool,
}

impl Folder {
    /// Begins the folder `name` in `output`. `source` are the files that the machine is read from, by their real paths:
    /// a folder with one of them in it is never replaced.
    fn begin(output: &Path, name: &str, replace: bool, source: &[PathBuf]) -> Result<Folder> {
        if !super::is_folder_name(name) {
            return Err(Error::unsupported(format!("no folder can have the machine's name {name:?}"))
                .hint("give it another name with --name"));
        }
        let cannot = |doing: &'static str| move |e| Error::io(doing, e).in_file(output);
        fs::create_dir_all(output).map_err(cannot("cannot create the output folder"))?;
        let output = output.canonicalize().map_err(cannot("cannot resolve the output folder"))?;
        let final_name = output.join(name);
        let partial = output.join(format!(".{name}.landfall-partial"));
        let old = output.join(format!(".{name}.landfall-old"));
        check_free(&final_name, replace, source)?;
        let lock = lock(&partial)?.ok_or_else(|| {
            Error::refused("is being written by another landfall at this moment")
                .in_file(&final_name)
                .hint("wait for it to end, or stop it")
        })?;
        let folder = Folder { partial, final_name, old, _lock: lock, replace, complete: false };
        folder.clear(source)?;
        Ok(folder)
    }

    /// Puts in order what a killed run left.
    fn clear(&self, source: &[PathBuf]) -> Result<()> {
        let cannot = |e| Error::io("cannot read", e).in_file(&self.partial);
        for entry in fs::read_dir(&self.partial).map_err(cannot)? {
            remove(&entry.map_err(cannot)?.path())?;
        }
        if self.old.symlink_metadata().is_ok() && self.final_name.symlink_metadata().is_err() {
            fs::rename(&self.old, &self.final_name).map_err(|e| {
                Error::io("cannot bring the earlier result back", e).in_file(&self.final_name)
            })?;
            check_free(&self.final_name, self.replace, source)?;
        }
        Ok(())
    }

    fn complete(mut self) -> Result<PathBuf> {
        sync(&self.partial)?;
        let replaces = self.replace && self.final_name.symlink_metadata().is_ok();
        // Nobody else may take what is removed below for the leavings of a killed run.
        let _old_lock = if replaces { lock(&self.final_name)? } else { None };
        let cwd = rustix::fs::CWD;
        let how = if replaces { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let cannot =
            |e: std::io::Error| Error::io("cannot give it its final name", e).in_file(&self.final_name);
        let gone = match rustix::fs::renameat_with(cwd, &self.partial, cwd, &self.final_name, how) {
            Ok(()) => &self.partial,
            // A file system that cannot do this at once.
            Err(Errno::INVAL | Errno::NOSYS) => {
                if replaces {
                    remove(&self.old)?;
                    fs::rename(&self.final_name, &self.old).map_err(cannot)?;
                }
                fs::rename(&self.partial, &self.final_name).map_err(cannot)?;
                &self.old
            }
            Err(e) => return Err(cannot(e.into())),
        };
        self.complete = true;
        if let Some(output) = self.final_name.parent() {
            sync(output)?;
        }
        if replaces && let Err(error) = remove(gone) {
            tracing::warn!("the earlier result is replaced, but not all of it is gone: {error}");
        }
        Ok(self.final_name.clone())
    }
}

/// Refuses what is at `final_name` already, unless it is an earlier result that may be replaced.
fn check_free(final_name: &Path, replace: bool, source: &[PathBuf]) -> Result<()> {
    let Ok(there) = final_name.symlink_metadata() else { return Ok(()) };
    let refused = |says: &str, hint: &str| Err(Error::refused(says).in_file(final_name).hint(hint));
    let real = final_name.canonicalize().unwrap_or_else(|_| final_name.to_owned());
    if source.iter().any(|file| file.starts_with(&real)) {
        return refused(
            "is the folder that the machine is read from",
            "choose another folder with -o, or another name with --name",
        );
    }
    let is_result = there.is_dir() && [MANIFEST, REPORT].iter().all(|name| final_name.join(name).is_file());
    match (is_result, replace) {
        (true, true) => Ok(()),
        (true, false) => refused(
            "exists already",
            "choose another folder with -o, another name with --name, or replace it with --replace",
        ),
        (false, _) => refused(
            "exists already, and landfall did not write it: it is not replaced",
            "choose another folder with -o, or another name with --name",
        ),
    }
}

/// Makes the folder, or takes over what a killed run left, and locks it. `None` where another run holds it.
pub(super) fn lock(partial: &Path) -> Result<Option<File>> {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    use std::os::unix::fs::MetadataExt;
    let cannot = |e| Error::io("cannot create", e).in_file(partial);
    loop {
        match fs::create_dir(partial) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(cannot(e)),
            _ => {}
        }
        // What lies behind a link is none of ours to empty.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(partial, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(Error::refused("is in the way and is no folder").in_file(partial));
            }
            other => File::from(other.map_err(|e| cannot(e.into()))?),
        };
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(None);
        }
        // A file system without locks: nothing more can be done. The other run may have renamed or removed the folder
        // between the two steps.
        let ours = folder.metadata().map_err(cannot)?.ino();
        if fs::metadata(partial).is_ok_and(|meta| meta.ino() == ours) {
            return Ok(Some(folder));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.complete
            && let Err(error) = remove(&self.partial)
        {
            tracing::warn!("{error}");
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    let gone = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    gone.map_err(|e| Error::io("cannot remove", e).in_file(path))
}

fn sync(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot sync a folder.
        Err(e) if e.raw_os_error() != Some(Errno::INVAL.raw_os_error()) => {
            Err(Error::io("cannot sync", e).in_file(folder))
        }
        _ => Ok(()),
    }
}

/// Seconds per step.
struct Clock {
    last: Instant,
    laps: Vec<(String, f64)>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { last: Instant::now(), laps: Vec::new() }
    }
}

impl Clock {
    fn lap(&mut self, step: &str) {
        let took = self.last.elapsed().as_secs_f64();
        self.laps.push((step.to_owned(), (took * 1000.0).round() / 1000.0));
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for name in [MANIFEST, REPORT, "disk0.qcow2"] {
            fs::write(folder.join(name), "old").unwrap();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_an_earlier_result_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().canonicalize().unwrap();
        result(&out.join("a"));
        fs::create_dir(out.join("photos")).unwrap();
        fs::write(out.join("photos/1.jpg"), "precious").unwrap();
        fs::write(out.join("file"), "precious").unwrap();
        std::os::unix::fs::symlink("a", out.join("link")).unwrap();
        let source = [out.join("a/web01.vmdk")];
        let begin = |name: &str, replace, source: &[PathBuf]| {
            Folder::begin(&out, name, replace, source)
                .map_err(|e| (e.kind(), e.hint_text().unwrap().to_owned()))
        };
        for (name, replace, source) in [
            ("photos", true, &[][..]),
            ("file", true, &[]),
            ("link", true, &[]),
            ("a", true, &source),
            ("a", false, &source),
            ("link", true, &source),
        ] {
            let (kind, hint) = begin(name, replace, source).err().unwrap();
            assert_eq!(kind, landfall_image::Kind::Refused, "{name}");
            assert!(!hint.contains("--replace"), "{name}: {hint}");
        }
        let (_, hint) = begin("a", false, &[]).err().unwrap();
        assert!(hint.contains("--replace"), "{hint}");
        let folder = begin("a", true, &[]).unwrap();
        assert!(begin("a", true, &[]).is_err(), "two at once");
        fs::write(folder.partial.join("new"), "new").unwrap();
        assert_eq!(names(&out.join("a")).len(), 3, "the old one stays until the new one is complete");
        folder.complete().unwrap();
        assert_eq!(names(&out.join("a")), ["new"]);
        assert_eq!(names(&out), ["a", "file", "link", "photos"]);
    }

    #[test]
    fn what_appears_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::begin(dir.path(), "a", false, &[]).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(folder.complete().is_err());
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn what_a_killed_run_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("x"), "x").unwrap();
        let partial = dir.path().join(".a.landfall-partial");
        std::os::unix::fs::symlink(&precious, &partial).unwrap();
        assert!(Folder::begin(dir.path(), "a", false, &[]).is_err(), "a link is not followed");
        assert_eq!(names(&precious), ["x"]);
        fs::remove_file(&partial).unwrap();
        fs::create_dir_all(partial.join("left")).unwrap();
        // Killed between the two steps of a replacement.
        result(&dir.path().join(".a.landfall-old"));
        assert!(Folder::begin(dir.path(), "a", false, &[]).is_err(), "the earlier result is back");
        assert_eq!(names(&dir.path().join("a")).len(), 3);
        drop(Folder::begin(dir.path(), "a", true, &[]).unwrap());
        assert_eq!(names(dir.path()), ["a", "precious"]);
        for name in ["", ".", "..", "a/b", "a\0b", "a\nb", &"x".repeat(300)] {
            assert!(Folder::begin(dir.path(), name, false, &[]).is_err(), "{name:?}");
        }
    }
}
