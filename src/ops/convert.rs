//! The main job: a machine read, patched, its disks converted, its definition written.
//!
//! All is written into a folder with a temporary name, which gets its final name when everything in it is complete
//! and synced. A run that was killed leaves only the temporary folder; the next run removes it.

use super::folder::{Folder, MANIFEST, REPORT, write_file};
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
use std::fs;
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
    patched.findings.extend(rendered.findings);
    if let Some(at) = &wanted.register {
        let coming = registrar::Coming {
            identity: registrar::Identity::of(&machine),
            artifacts: &rendered.artifacts,
            disks: &placement.disks,
            kind: kind.name,
            data: &|| super::disk::stored_by(context, &overlays),
        };
        patched.findings.extend(super::register::ready(context, at, wanted.target.name, &coming)?);
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
