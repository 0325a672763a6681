//! What is in a machine, what has to change for a target, and the change itself, in overlays.

use super::convert::Wanted;
use super::map::Mapped;
use super::source::{self, Loaded};
use super::{Context, Failure, GuestChoice};
use super::{define, folder, register};
use crate::event::Event;
use crate::finding;
use crate::machine::Machine;
use crate::report::{self, Change, Inspected, SourceDisk, Unreadable};
use landfall_boot::check::Finding;
use landfall_boot::patch::Edit;
use landfall_boot::sandbox::Sandbox;
use landfall_boot::session::{self, Inspection, Options, Reader};
use landfall_boot::target::{Nic, Platform, Request, Services};
use landfall_boot::volume::VolumeId;
use landfall_image::formats::Image;
use landfall_image::luks::Secret;
use landfall_image::{Disk, DiskMut, Error, GuestOffset, Kind, Overlay, Result, partition};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// A machine whose guest is to be looked at.
pub struct Opened<'a> {
    /// The machine and its disks.
    pub loaded: &'a Loaded,
    /// Its disks, to be written to.
    pub overlays: &'a [Arc<Overlay>],
    /// Where it will run.
    pub platform: Platform,
    /// How its guest is found.
    pub choice: &'a GuestChoice,
    /// What the map makes of the machine.
    pub mapped: &'a Mapped,
    /// Tried on its encrypted volumes.
    pub keys: &'a [Secret],
}

impl Opened<'_> {
    /// The disks as a session takes them.
    pub fn disks(&self) -> Vec<Arc<dyn DiskMut>> {
        self.overlays.iter().map(|overlay| Arc::clone(overlay) as Arc<dyn DiskMut>).collect()
    }

    /// What is to be made of the guest.
    pub fn request(&self) -> Request {
        let machine = &self.loaded.machine;
        let nics = machine.nics.iter().enumerate().map(|(index, nic)| Nic {
            mac: nic.mac.clone(),
            source_name: nic.predictable_name.clone(),
            new_mac: self.mapped.macs.get(index).cloned().flatten(),
        });
        Request {
            platform: self.platform,
            firmware: machine.firmware,
            nics: nics.collect(),
            services: Services { keep: self.choice.keep.clone(), drop: self.choice.drop.clone() },
            // A map that says nothing of addresses leaves none of them out, either.
            network_map: self
                .choice
                .map
                .as_ref()
                .map(|map| map.resolve(&self.loaded.source_name, machine))
                .filter(|map| !map.rules.is_empty()),
            virtio_win: self.choice.virtio_win.clone(),
            agent_installers: self.choice.agent_installers.clone(),
            registry: self.choice.registry.clone(),
        }
    }

    /// What a session may use.
    pub fn options<'s>(&'s self, sandbox: Option<&'s Sandbox>) -> Options<'s> {
        let root = self.choice.root.clone().map(VolumeId);
        Options {
            sandbox,
            root,
            keys: self.keys,
            secure_boot: self.loaded.machine.secure_boot,
            discard_hibernation: self.choice.discard_hibernation,
            ..Options::default()
        }
    }

    fn report(&self, inspection: Inspection) -> Inspected {
        let disks = self.loaded.images.iter().map(source_disk);
        let before: HashMap<&str, &[u8]> =
            inspection.before.iter().map(|(path, text)| (path.as_str(), text.0.as_slice())).collect();
        let change = |edit: &Edit| Change::of(edit, before.get(edit.path.as_str()).copied());
        Inspected {
            version: report::VERSION,
            source: self.loaded.path.display().to_string(),
            machine: Machine {
                boot_disk: inspection.boot_disk.or(self.loaded.machine.boot_disk),
                // The guest knows best what it takes the clock for.
                clock: inspection.plan.clock.unwrap_or(self.loaded.machine.clock),
                ..self.loaded.machine.clone()
            },
            disks: disks.collect(),
            volumes: inspection.volumes,
            groups: inspection.groups,
            arrays: inspection.arrays,
            edits: inspection.plan.edits.iter().map(change).collect(),
            findings: [&self.loaded.findings, &self.mapped.findings, &inspection.plan.findings]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            devices: inspection.plan.devices,
            readdressed: inspection.plan.moved,
            guest: inspection.guest,
            read_through: match inspection.reader {
                None => "nothing: there is no guest to read".to_owned(),
                Some(Reader::Direct) => "this program, straight from the disk".to_owned(),
                Some(Reader::Sandbox) => "the patch sandbox".to_owned(),
            },
        }
    }
}

/// Looks at a machine and plans what is wanted. Changes nothing. What would stop the conversion into `output` is a finding that
/// blocks.
pub fn inspect(
    context: &Context<'_>,
    wanted: &Wanted<'_>,
    output: Option<&Path>,
) -> Result<Inspected, Failure> {
    wanted.guest.check()?;
    let (platform, choice) = (wanted.target.platform, &wanted.guest);
    // What can be told of a machine is told, though a disk of it is lost.
    let mut unreadable: Vec<(usize, Unreadable)> = Vec::new();
    let mut tell = |disk, error| {
        unreadable.push((disk, unreadable_by(error)?));
        Ok(())
    };
    let how = source::How { digests: true, unreadable: &mut tell };
    let mut loaded = source::load_with(context, wanted.source, &choice.source, how)?;
    for (index, image) in loaded.images.iter_mut().enumerate() {
        if let Err(error) = ends(&*image.disk) {
            let slot = loaded.machine.disks.get(index).map_or("", |disk| disk.slot.as_str());
            unreadable.push((index, unreadable_by(source::with_another_file(error, slot))?));
            image.disk = Arc::new(source::Nothing);
        }
    }
    for (index, why) in &unreadable {
        loaded.findings.push(lost(&loaded.machine, *index, why));
    }
    let overlays = loaded.overlays(&context.scratch)?;
    let mapped = choice.mapped(&loaded, wanted.name.as_deref(), platform);
    let opened = Opened {
        loaded: &loaded,
        overlays: &overlays,
        platform,
        choice,
        mapped: &mapped,
        keys: context.key.as_slice(),
    };
    context.observer.event(Event::Step("Looking at the guest".into()));
    // Much can be read without a sandbox; where there is none, the session says what could not be.
    let sandbox = match Sandbox::new(context.sandbox.clone()) {
        Ok(sandbox) => Some(sandbox),
        Err(error) => {
            tracing::info!(%error, "there is no sandbox");
            None
        }
    };
    let inspection = session::inspect(&opened.disks(), &opened.request(), &opened.options(sandbox.as_ref()))?;
    let mut inspected = opened.report(inspection);
    let lost_disks: HashSet<usize> = unreadable.iter().map(|(index, _)| *index).collect();
    if !lost_disks.is_empty() && lost_disks.len() == inspected.disks.len() {
        // That no system is on disks which nobody could look at is not known.
        inspected.findings.retain(|finding| finding.id != "no-operating-system");
    }
    for (index, why) in unreadable {
        if let Some(disk) = inspected.disks.get_mut(index) {
            disk.unreadable = Some(why);
        }
    }
    let sizes: Vec<_> = overlays.iter().map(|overlay| overlay.size()).collect();
    let name = mapped.name.as_ref().unwrap_or(&loaded.machine.name);
    let folder = output.unwrap_or(Path::new("/")).join(name);
    let defined = define::kind(wanted).and_then(|kind| {
        define::check_kind(wanted.target, kind, &loaded.machine)?;
        define::define(&mut inspected, wanted, kind, &mapped, &folder, &sizes, loaded.variables.as_ref())
    });
    let free = output
        .map_or(Ok(()), |output| folder::check(output, name, wanted.create.files.replace, &loaded.files()));
    if let (Ok(defined), Ok(kind)) = (&defined, define::kind(wanted)) {
        inspected.findings.extend(register::ready(context, wanted, kind, defined, &overlays)?);
    }
    for error in [defined.map(drop), free].into_iter().filter_map(Result::err) {
        inspected.findings.push(define::refused(&error));
    }
    Ok(inspected)
}

fn source_disk(image: &Image) -> SourceDisk {
    let (partitions, partition_error) = match partition::read(&*image.disk) {
        Ok(table) => (table.as_ref().map(Into::into), None),
        Err(error) => (None, Some(error.to_string())),
    };
    SourceDisk {
        virtual_size: image.disk.size(),
        layers: image.layers.clone(),
        partitions,
        partition_error,
        unreadable: None,
    }
}

/// Reads the first and the last byte of a disk: an image that is cut off, or whose device is gone, is found out.
fn ends(disk: &dyn Disk) -> Result<()> {
    let Some(last) = disk.size().0.checked_sub(1) else { return Ok(()) };
    [0, last].into_iter().try_for_each(|at| disk.read_at(GuestOffset(at), &mut [0]))
}

/// The failure, unless it is none of the disk's.
fn unreadable_by(error: Error) -> Result<Unreadable> {
    match error.kind() {
        // What leads out of its folder is an attack or a mistake, and no lost disk.
        Kind::Interrupted | Kind::Refused => Err(error),
        _ => Ok(Unreadable { says: error.to_string(), hint: error.hint_text().map(str::to_owned) }),
    }
}

fn lost(machine: &Machine, index: usize, why: &Unreadable) -> Finding {
    let slot = machine.disks.get(index).map_or("", |disk| disk.slot.as_str());
    finding::DISK_UNREADABLE.finding(
        format!("disk{index} ({slot}) cannot be read, and what lies on it is not known: {}", why.says),
        why.hint.clone().unwrap_or_default(),
    )
}

/// Patches the guest in its overlays. Where something blocks, nothing is written.
pub fn patch(context: &Context<'_>, opened: &Opened<'_>) -> Result<Inspected, Failure> {
    context.observer.event(Event::Step("Patching the guest in an overlay".into()));
    let sandbox = Sandbox::new(context.sandbox.clone())?;
    let patched = session::patch(&opened.disks(), &opened.request(), &opened.options(Some(&sandbox)))?;
    if patched.inspection.plan.is_blocked() {
        return Err(Failure::Findings(patched.inspection.plan.findings));
    }
    Ok(opened.report(patched.inspection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor;
    use crate::ops::map;
    use std::path::PathBuf;

    #[test]
    fn a_network_map_knows_the_machine_by_its_name_at_the_source() {
        let vmx = b"config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web01\"\nmemSize = \"1024\"\n\
            scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n";
        let machine = hypervisor::vmware::vmx::parse(vmx, &Default::default()).unwrap().machine;
        let mut loaded = Loaded {
            variables: None,
            source_name: machine.name.clone(),
            machine,
            path: PathBuf::from("web01.vmx"),
            hypervisor: "vmx",
            images: Vec::new(),
            digest: String::new(),
            findings: Vec::new(),
        };
        loaded.rename("web01-b");
        let map = map::parse("[[rule]]\nmachine = \"web01\"\ndhcp = true\n", "map.toml").unwrap();
        let choice = GuestChoice { map: Some(map), ..GuestChoice::default() };
        let mapped = choice.mapped(&loaded, None, Platform::Kvm);
        let opened = Opened {
            loaded: &loaded,
            overlays: &[],
            platform: Platform::Kvm,
            choice: &choice,
            mapped: &mapped,
            keys: &[],
        };
        let request = opened.request();
        assert_eq!(request.network_map.map(|map| map.rules.len()), Some(1));
        assert_eq!(loaded.machine.name, "web01-b");
    }
}
