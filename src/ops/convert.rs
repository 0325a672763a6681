//! The main job: a machine read, patched, its disks converted, its definition written.
//!
//! All is written into a folder with a temporary name, which gets its final name when everything in it is complete
//! and synced. A run that was killed leaves only the temporary folder; the next run removes it.

use super::inspect::{self, Opened};
use super::source;
use super::{Context, Failure, GuestChoice};
use crate::hypervisor::{Artifact, PlacedDisk, Placement, Row};
use crate::machine::OsId;
use crate::report::{Converted, WrittenDisk};
use landfall_boot::Guest;
use landfall_image::formats::{self, CreateOptions};
use landfall_image::{Error, Format, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is wanted.
pub struct Wanted<'a> {
    /// The definition.
    pub source: &'a Path,
    /// The target: a row with `render`.
    pub target: &'static Row,
    /// The machine's folder is made in this one.
    pub output: &'a Path,
    /// Its name at the target; `None` to keep it.
    pub name: Option<String>,
    /// Format of its disks.
    pub format: Format,
    /// How they are written.
    pub create: CreateOptions,
    /// Source network to target network.
    pub networks: Vec<(String, String)>,
    /// Network of all other cards.
    pub network: String,
    /// How the guest is found.
    pub guest: GuestChoice,
}

/// What was done.
pub struct Done {
    /// The machine's folder.
    pub folder: PathBuf,
    /// The report, as it lies there in `report.json`.
    pub report: Converted,
}

/// Converts a machine.
pub fn convert(context: &Context<'_>, wanted: &Wanted<'_>) -> Result<Done, Failure> {
    let (Some(platform), Some(adapt), Some(render)) =
        (wanted.target.platform, wanted.target.adapt, wanted.target.render)
    else {
        return Err(Error::unsupported(format!("{} is not a target", wanted.target.name)).into());
    };
    let mut clock = Clock::default();
    let mut loaded = source::load(context, wanted.source)?;
    if let Some(name) = &wanted.name {
        loaded.machine.name.clone_from(name);
    }
    clock.lap("read the definition");

    let folder = Folder::begin(wanted.output, &loaded.machine.name, wanted.create.replace)?;
    let overlays = loaded.overlays(&folder.partial)?;
    let opened = Opened { loaded: &loaded, overlays: &overlays, platform, choice: &wanted.guest };
    let patched = inspect::patch(context, &opened)?;
    clock.lap("find the guest and patch it");

    let mut machine = adapt(&loaded.machine);
    machine.os = patched.guest.as_ref().map(os_id);
    let mut written_disks = Vec::new();
    for (index, overlay) in overlays.iter().enumerate() {
        context.check_cancelled()?;
        let file = format!("disk{index}.{}", wanted.format.name());
        let sink = formats::create(
            &folder.partial.join(&file),
            wanted.format,
            landfall_image::Disk::size(&**overlay),
            &CreateOptions { replace: true, ..wanted.create },
        )?;
        let done = super::disk::copy(context, &**overlay, sink, &file)?;
        written_disks.push(WrittenDisk {
            file: file.clone(),
            format: wanted.format.name().to_owned(),
            virtual_size: done.size,
            data: done.copied,
            allocated: done.receipt.allocated,
            content_digest: done.digest.to_hex().to_string(),
        });
        machine.disks[index].file = file;
    }
    clock.lap("convert the disks");

    let placement = Placement {
        folder: utf8(&folder.final_name)?,
        disks: written_disks
            .iter()
            .map(|disk| PlacedDisk { file: disk.file.clone(), format: disk.format.clone() })
            .collect(),
        networks: wanted.networks.clone(),
        network: wanted.network.clone(),
    };
    let artifacts = render(&machine, &placement)?;
    for artifact in &artifacts {
        write_file(&folder.partial, artifact)?;
    }
    clock.lap("write the definition");

    let mut files: Vec<String> = artifacts.iter().map(|artifact| artifact.name.clone()).collect();
    files.extend(["report.json".to_owned(), MANIFEST.to_owned()]);
    let report = Converted {
        inspected: patched,
        target: wanted.target.name.to_owned(),
        written: machine,
        written_disks,
        files,
        seconds: clock.laps,
        landfall: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let text = serde_json::to_string_pretty(&report)
        .map_err(|e| Error::corrupt(format!("the report cannot be written as JSON: {e}")))?;
    let report_file = Artifact { name: "report.json".into(), text: text + "\n", executable: false };
    write_file(&folder.partial, &report_file)?;
    let mut named: Vec<&Artifact> = artifacts.iter().collect();
    named.push(&report_file);
    write_file(&folder.partial, &manifest(&named, &report.written_disks))?;
    context.check_cancelled()?;
    let folder = folder.complete()?;
    Ok(Done { folder, report })
}

/// Name of the file that lists the digests of everything in the folder.
const MANIFEST: &str = "manifest.json";

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
    /// Held as long as the folder is ours: a second run must not remove it.
    _lock: File,
    replace: bool,
    complete: bool,
}

impl Folder {
    fn begin(output: &Path, name: &str, replace: bool) -> Result<Folder> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Error::unsupported(format!("no folder can have the machine's name {name:?}"))
                .hint("give it another name with --name"));
        }
        let cannot = |doing: &'static str| move |e| Error::io(doing, e).in_file(output);
        fs::create_dir_all(output).map_err(cannot("cannot create the output folder"))?;
        let output = output.canonicalize().map_err(cannot("cannot resolve the output folder"))?;
        let final_name = output.join(name);
        if final_name.symlink_metadata().is_ok() && !replace {
            return Err(Error::refused("exists already")
                .in_file(&final_name)
                .hint("choose another folder with -o, or replace it with --replace"));
        }
        let partial = output.join(format!(".{name}.landfall-partial"));
        let lock = Folder::lock(&partial)?.ok_or_else(|| {
            Error::refused("is being written by another landfall at this moment").in_file(&final_name)
        })?;
        // What a killed run left.
        let cannot = |e| Error::io("cannot read", e).in_file(&partial);
        for entry in fs::read_dir(&partial).map_err(cannot)? {
            remove(&entry.map_err(cannot)?.path())?;
        }
        Ok(Folder { partial, final_name, _lock: lock, replace, complete: false })
    }

    /// Makes the folder, or takes over what a killed run left. `None` where another run holds it.
    fn lock(partial: &Path) -> Result<Option<File>> {
        use std::os::unix::fs::MetadataExt;
        let cannot = |e| Error::io("cannot create", e).in_file(partial);
        loop {
            match fs::create_dir(partial) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(cannot(e)),
                _ => {}
            }
            let folder = match File::open(partial) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(cannot)?,
            };
            if rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
                return Ok(None);
            }
            // The other run may have renamed or removed it between the two steps.
            let ours = folder.metadata().map_err(cannot)?.ino();
            if fs::metadata(partial).is_ok_and(|meta| meta.ino() == ours) {
                return Ok(Some(folder));
            }
        }
    }

    fn complete(mut self) -> Result<PathBuf> {
        sync(&self.partial)?;
        let cannot = |e| Error::io("cannot give it its final name", e).in_file(&self.final_name);
        let old = self.partial.with_extension("landfall-old");
        if self.replace && self.final_name.symlink_metadata().is_ok() {
            remove(&old)?;
            fs::rename(&self.final_name, &old).map_err(cannot)?;
        }
        fs::rename(&self.partial, &self.final_name).map_err(cannot)?;
        self.complete = true;
        if let Some(output) = self.final_name.parent() {
            sync(output)?;
        }
        remove(&old)?;
        Ok(self.final_name.clone())
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
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io("cannot sync", e).in_file(folder))
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
