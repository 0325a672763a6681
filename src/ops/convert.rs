//! The main job: a machine read, patched, its disks converted, its definition written.
//!
//! All is written into a folder with a temporary name, which gets its final name when everything in it is complete
//! and synced. A run that was killed leaves only the temporary folder; the next run removes it.

use super::clock::Clock;
use super::define::{self, Defined};
use super::folder::{Folder, MANIFEST, REPORT, write_bytes, write_file};
use super::inspect::{self, Opened};
use super::map::Mapped;
use super::packing::Packing;
use super::source;
use super::{Context, Failure, GuestChoice};
use crate::hypervisor::{Artifact, Networks, Package, Target};
use crate::machine::Bus;
use crate::registrar;
use crate::report::{Converted, WrittenDisk};
use landfall_boot::network_map::Rule;
use landfall_image::create::{Adapter, CreateOptions, FileOptions};
use landfall_image::{Error, Format, Result};
use std::path::{Path, PathBuf};

/// What is wanted.
pub struct Wanted<'a> {
    /// The definition.
    pub source: &'a Path,
    /// The target: a row with `render`.
    pub target: &'static Target,
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

/// A digest of the state of a source and of all that is wanted of it: two runs with the same one write the same machine. `None`
/// where the source can change unseen.
pub fn fingerprint(loaded: &source::Loaded, wanted: &Wanted<'_>, mapped: &Mapped) -> Option<String> {
    /// Grows when the same words come to mean another machine.
    const MEANING: u32 = 2;
    let map = wanted.guest.map.as_ref().map(|map| map.resolve(&loaded.source_name, &loaded.machine));
    // Where a rule stands is not what it does.
    let rules = map.into_iter().flat_map(|map| map.rules).map(|rule| Rule { place: String::new(), ..rule });
    let guest = &wanted.guest;
    let hardware = &guest.source.hardware;
    let mut said = serde_json::json!({
        "meaning": MEANING,
        "source": loaded.state()?,
        "target": wanted.target.name,
        "kind": wanted.kind,
        "compression": wanted.create.compression,
        "level": wanted.create.level,
        "networks": { "map": mapped.networks(&wanted.networks).map, "rest": wanted.networks.rest },
        "root": guest.root,
        "keep": guest.keep,
        "drop": guest.drop,
        "snapshot": guest.source.choice.snapshot,
        "system": guest.source.choice.system,
        "configuration": guest.source.choice.configuration,
        "skipped": guest.source.skipped,
        "hardware": {
            "memory": hardware.memory,
            "cpus": hardware.cpus,
            "firmware": hardware.firmware,
            "nics": hardware.nics,
        },
        "rules": rules.collect::<Vec<_>>(),
        "name": mapped.name,
        "storage": mapped.storage,
        "id": mapped.id,
        "cpus": mapped.cpus,
        "memory": mapped.memory,
        "macs": mapped.macs,
        "uuid": mapped.uuid,
    });
    if let Some(path) = &guest.virtio_win {
        said["virtio_win"] = serde_json::json!(path);
    }
    if !guest.agent_installers.is_empty() {
        let files = guest.agent_installers.iter().map(|one| (&one.name, &one.file.sha256));
        said["agent_installers"] = serde_json::json!(files.collect::<Vec<_>>());
    }
    if guest.discard_hibernation {
        said["discard_hibernation"] = serde_json::json!(true);
    }
    if let Some(file) = &guest.registry {
        said["registry"] = serde_json::json!(file.changes);
    }
    Some(blake3::hash(said.to_string().as_bytes()).to_hex().to_string())
}

/// Converts a machine.
///
/// The machine's folder is made in `output`.
pub fn convert(context: &Context<'_>, wanted: &Wanted<'_>, output: &Path) -> Result<Done, Failure> {
    wanted.guest.check()?;
    let platform = wanted.target.platform;
    let kind = define::kind(wanted)?;
    let mut clock = Clock::default();
    let mut loaded = source::load(context, wanted.source, &wanted.guest.source)?;
    let state = loaded.state();
    let mapped = wanted.guest.mapped(&loaded, wanted.name.as_deref(), platform);
    let fingerprint = fingerprint(&loaded, wanted, &mapped);
    if let Some(name) = &mapped.name {
        loaded.rename(name);
    }
    define::check_kind(wanted.target, kind, &loaded.machine)?;
    clock.lap("read the definition");

    for (source, _) in &wanted.networks.map {
        if !loaded.machine.nics.iter().any(|nic| nic.network.as_ref() == Some(source)) {
            tracing::warn!("no network card of {} is in a network {source:?}", loaded.machine.name);
        }
    }
    let folder = Folder::begin(output, &loaded.machine.name, wanted.create.files.replace, &loaded.files())?;
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

    let sizes: Vec<_> = overlays.iter().map(|overlay| landfall_image::Disk::size(&**overlay)).collect();
    // What the target cannot express is refused now, not after hours of copying.
    let (place, variables) = (&folder.final_name, loaded.variables.as_ref());
    let defined = define::define(&mut patched, wanted, kind, &mapped, place, &sizes, variables)?;
    patched.findings.extend(super::register::ready(context, wanted, kind, &defined, &overlays)?);
    let Defined { machine, mut placement, mut artifacts } = defined;
    if patched.is_blocked() {
        return Err(Failure::Findings(patched.findings));
    }
    let mut packing = match wanted.target.package {
        Package::Folder => None,
        Package::Ova | Package::Xva => {
            Some(Packing::begin(&folder.partial, wanted.target, &machine, &placement)?)
        }
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
            format: kind.format.name().to_owned(),
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
        artifacts.retain(|artifact| !Packing::is_inside(artifact));
    }
    for artifact in &artifacts {
        write_file(&folder.partial, artifact)?;
    }
    let variables = placement.variables.as_deref().zip(loaded.variables.as_ref());
    if let Some((name, variables)) = variables {
        write_bytes(&folder.partial, name, &variables.bytes, false)?;
        files.push(name.to_owned());
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
        fingerprint: fingerprint.unwrap_or_default(),
        id: mapped.id,
        landfall: env!("CARGO_PKG_VERSION").to_owned(),
        registration: None,
    };
    let text = serde_json::to_string_pretty(&report)
        .map_err(|e| Error::corrupt(format!("the report cannot be written as JSON: {e}")))?;
    let report_file = Artifact { name: REPORT.into(), text: text + "\n", executable: false };
    write_file(&folder.partial, &report_file)?;
    let texts = artifacts.iter().chain([&report_file]);
    let mut named: Vec<(&str, &[u8])> =
        texts.map(|artifact| (artifact.name.as_str(), artifact.text.as_bytes())).collect();
    named.extend(variables.map(|(name, variables)| (name, variables.bytes.as_slice())));
    write_file(&folder.partial, &manifest(&named, &report.written_disks))?;
    context.check_cancelled()?;
    if loaded.state() != state {
        return Err(Error::refused(
            "the source changed while it was read: what was written would be a mixture",
        )
        .in_file(wanted.source)
        .hint("shut the machine down, or wait until the copy of it is complete, and run it again")
        .into());
    }
    let folder = folder.complete(&loaded.files())?;
    Ok(Done { folder, report })
}

/// BLAKE3 of every file of the definition, and the content digest of every disk.
fn manifest(files: &[(&str, &[u8])], disks: &[WrittenDisk]) -> Artifact {
    let files: Vec<_> = files
        .iter()
        .map(|(name, bytes)| {
            let digest = blake3::hash(bytes).to_hex().to_string();
            serde_json::json!({ "file": name, "blake3": digest })
        })
        .collect();
    let manifest = serde_json::json!({
        "version": crate::report::VERSION,
        "disks": disks,
        "files": files,
    });
    Artifact { name: MANIFEST.into(), text: format!("{manifest:#}\n"), executable: false }
}
