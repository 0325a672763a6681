//! A machine brought back from a recovery point, without a copy of its disks.
//!
//! ```text
//! point -> overlays -> patched -> a delta for each disk (over the point, read over NBD) + definition -> registered, started
//!          (or: deltas that were made ahead)
//! recovered -> commit (the disks are made whole) | rollback, remove (all that was made goes)
//! ```
//! The machine's folder has a temporary name until it is complete; what is done at the hypervisor is written down in it before
//! it is done. So the same command goes on with a recovery that was cut off, and [`ended::remove`] ends it, at any moment.
//!
//! Deliberately absent: other targets than KVM, whose hypervisors read no NBD (`convert point:NAME` is for them), and recovery
//! at another host than the vault's.

pub mod ended;
mod patched;
mod registered;
mod serve;
mod source;
pub mod there;

pub use serve::Serving;

use super::clock::Clock;
use super::define::{self, Defined};
use super::folder::{self, Folder, REPORT, write_bytes, write_file};
use super::source::point::PointName;
use super::{Context, Failure, GuestChoice};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::libvirt::write::NO_NETWORK;
use crate::hypervisor::{Artifact, Networks, PlacedDisk, Placement, Target};
use crate::machine::Machine;
use crate::recovery::{FILE, INSPECTED, Kept, Mode, Patched, RecoveredDisk, Recovery, Step};
use crate::registrar;
use crate::report::recovery::{Prepared, Recovered};
use crate::report::{Inspected, Kept as KeptReport, VERSION};
use landfall_boot::check::{Finding, Severity};
use landfall_image::{Bytes, Error, Result};
use registered::Surroundings;
use source::Source;
use std::collections::BTreeSet;
use std::path::Path;
use uuid::Uuid;

/// What is wanted.
pub struct Wanted {
    /// The point.
    pub point: PointName,
    /// Where it is to run.
    pub target: &'static Target,
    /// What for.
    pub mode: Mode,
    /// Its name there; `None` for its own, to which a test adds `-test`.
    pub name: Option<String>,
    /// The networks that its cards are plugged into. A test for which none are named gets one of its own.
    pub networks: Networks,
    /// How the guest is found.
    pub guest: GuestChoice,
    /// Where it is registered and started; `None` to leave it ready for that.
    pub register: Option<registrar::Wanted>,
    /// It gets another UUID than the machine that it is of.
    pub new_uuid: bool,
    /// Its processors are emulated, whatever the host has.
    pub emulated: bool,
    /// Where no service serves the point's disks: this process does, as long as it runs.
    pub serve: bool,
    /// In earnest, though its source runs, too.
    pub source_runs: bool,
}

/// A machine that was recovered.
pub struct Done {
    /// What was done.
    pub report: Recovered,
    /// The guest, as it was found and patched now; `None` where that was done before.
    pub inspected: Option<Box<Inspected>>,
    /// Serves the point that it runs from, as long as it lives.
    pub serving: Option<Serving>,
}

/// The only target whose disks lie over NBD.
const TARGET: &str = "kvm";

/// Brings a machine back into a folder of its name in `output`, and starts it where it is to be registered.
///
/// # Errors
/// Findings that stand in the way; then nothing was made. What fails after the folder is complete can be gone on with by the
/// same call.
pub fn recover(context: &Context<'_>, wanted: &Wanted, output: &Path) -> Result<Done, Failure> {
    wanted.guest.check()?;
    check(wanted)?;
    if let Some(points) = context.points.as_ref().filter(|_| wanted.mode == Mode::Live) {
        ended::check_source(&**points, &wanted.point.machine, wanted.source_runs)?;
    }
    let mut clock = Clock::default();
    let source = Source::open(context, &wanted.point, &wanted.guest, output)?;
    if source.disks.iter().any(|disk| disk.socket.is_some()) && !wanted.serve {
        return Err(unserved(&source).into());
    }
    ended::tidy(&*source.points, &source.output);
    let name = source.name(wanted);
    folder::check_name(&name)?;
    let place = source.output.join(&name);
    let key = source.patch_key(wanted)?;
    let made_of = made_of(wanted, &source, &name, &key);
    clock.lap("open the point");
    let (mut report, inspected) = match place.join(FILE).is_file() {
        true => (go_on(&source, &place, &made_of)?, None),
        false => write(context, wanted, &source, &name, &key, made_of, &mut clock)?,
    };
    let serving = Serving::begin(source.to_serve())?;
    if let Some(at) = &wanted.register {
        registered::register(context, &place, at, serving.as_ref(), &mut report)?;
        clock.lap("register and start it");
    }
    report.seconds = clock.laps;
    Ok(Done { report, inspected: inspected.map(Box::new), serving })
}

/// Patches a point ahead, so that a recovery of it starts at once: `mode`, name and networks can be chosen then.
///
/// # Errors
/// Findings that stand in the way.
pub fn prepare(context: &Context<'_>, wanted: &Wanted, output: &Path) -> Result<Prepared, Failure> {
    wanted.guest.check()?;
    check(wanted)?;
    let mut clock = Clock::default();
    let source = Source::open(context, &wanted.point, &wanted.guest, output)?;
    let key = source.patch_key(wanted)?;
    clock.lap("open the point");
    let (folder, made) = patched::prepare(context, wanted, &source, &key)?;
    clock.lap("find the guest and patch it");
    let patched = match &made {
        Some((patched, _)) => patched.clone(),
        None => Patched::read(&folder)?,
    };
    Ok(Prepared {
        version: VERSION,
        folder: folder.display().to_string(),
        machine: source.machine.to_string(),
        point: source.number,
        at: source.at,
        target: wanted.target.name.to_owned(),
        was_there: made.is_none(),
        findings: patched.findings.iter().filter_map(Kept::finding).collect(),
        disks: patched.disks,
        seconds: clock.laps,
    })
}

fn check(wanted: &Wanted) -> Result<()> {
    if wanted.target.name != TARGET {
        return Err(Error::unsupported(format!(
            "{} cannot run a machine from a recovery point without a copy of its disks",
            wanted.target.title
        ))
        .hint(format!(
            "convert it: landfall convert point:{}@{} --to {} -o FOLDER",
            wanted.point.machine, wanted.point.at, wanted.target.name
        )));
    }
    match wanted.register.as_ref().is_some_and(|at| at.storage.is_some()) {
        true => Err(Error::refused("the disks of a recovered machine stay where they are, over its recovery point")
            .hint("leave --register-storage out; landfall recover commit makes them whole, and then they can be moved")),
        false => Ok(()),
    }
}

fn unserved(source: &Source) -> Error {
    Error::refused(format!(
        "nobody would serve the recovery point to {} once this command has ended",
        source.loaded.machine.name
    ))
    .hint(
        "stay and serve it from here, as long as the machine runs: --serve; or recover it on the machine of the service (without \
         --vault and --service), which serves it then",
    )
}

/// A digest of the point and of all choices.
fn made_of(wanted: &Wanted, source: &Source, name: &str, key: &str) -> String {
    let mapped = source.mapped(wanted);
    let networks = mapped.networks(&wanted.networks);
    let said = serde_json::json!({
        "patched": key,
        "mode": wanted.mode,
        "name": name,
        "networks": networks.map,
        "rest": networks.rest,
        "new uuid": wanted.new_uuid,
        "emulated": wanted.emulated,
    });
    blake3::hash(said.to_string().as_bytes()).to_hex().to_string()
}

/// By what a vault knows who holds a point.
fn holder(place: &Path) -> Result<String> {
    define::utf8(place)
}

/// A recovery whose folder is complete.
fn go_on(source: &Source, place: &Path, made_of: &str) -> Result<Recovered> {
    let recovery = Recovery::read(place)?;
    let other = |says: String, hint: String| Err(Error::refused(says).in_file(place).hint(hint));
    let remove = ended::removal(&recovery, place);
    if recovery.machine != source.machine.as_str() || recovery.point != source.number {
        return other(
            format!(
                "holds {} as it was at {} (point {}) already",
                recovery.machine, recovery.at, recovery.point
            ),
            match recovery.machine == source.machine.as_str() {
                true => format!(
                    "go on with that one with --at {}, remove it with {remove}, or choose another name with --name",
                    recovery.point
                ),
                false => format!("remove that one with {remove}, or choose another name with --name"),
            },
        );
    }
    if recovery.made_of != made_of {
        return other(
            format!("holds this point of {} already, recovered with other options", recovery.machine),
            format!("remove it with {remove}, or choose another name with --name"),
        );
    }
    if recovery.step >= Step::Committing {
        return other(
            match recovery.step {
                Step::Removing => "is being removed".to_owned(),
                _ => "is being committed, or was: it is no recovery any more".to_owned(),
            },
            match recovery.step {
                Step::Removing => format!("end that first: {remove}"),
                _ => "choose another name with --name".to_owned(),
            },
        );
    }
    source.points.hold(&source.machine, source.number, &holder(place)?)?;
    let kept = KeptReport::read(&place.join(REPORT))?;
    Ok(report(place, recovery, kept.written, kept.written_disks, Vec::new(), true))
}

fn report(
    place: &Path,
    recovery: Recovery,
    written: Machine,
    written_disks: Vec<crate::report::WrittenDisk>,
    findings: Vec<Finding>,
    was_prepared: bool,
) -> Recovered {
    Recovered {
        version: VERSION,
        folder: place.display().to_string(),
        target: recovery.target.clone(),
        recovery,
        written,
        written_disks,
        findings,
        was_prepared,
        seconds: Vec::new(),
        landfall: env!("CARGO_PKG_VERSION").to_owned(),
        registration: None,
    }
}

/// Gives a hold on the point back, unless the recovery came to be.
struct Held<'a> {
    source: &'a Source,
    holder: String,
    is_kept: bool,
}

impl<'a> Held<'a> {
    fn new(source: &'a Source, place: &Path) -> Result<Held<'a>> {
        let holder = holder(place)?;
        source.points.hold(&source.machine, source.number, &holder)?;
        Ok(Held { source, holder, is_kept: false })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) =
                self.source.points.release(&self.source.machine, self.source.number, &self.holder)
        {
            tracing::warn!("the recovery point stays held by {}: {error}", self.holder);
        }
    }
}

/// Writes the recovery's folder.
fn write(
    context: &Context<'_>,
    wanted: &Wanted,
    source: &Source,
    name: &str,
    key: &str,
    made_of: String,
    clock: &mut Clock,
) -> Result<(Recovered, Option<Inspected>), Failure> {
    let around = Surroundings::of(context, wanted)?;
    let place = source.output.join(name);
    // In this order: a hold without a folder that somebody works on is known to be left over.
    let folder = Folder::begin(&source.output, name, false, &[])?;
    let mut held = Held::new(source, &place)?;
    let sync = wanted.mode == Mode::Live;
    let (patched, inspected) = match patched::reuse(source, wanted, key, &folder.partial, sync) {
        Some(patched) => (patched, None),
        None => {
            let (patched, inspected) = patched::make(context, wanted, source, key, &folder.partial, sync)?;
            (patched, Some(inspected))
        }
    };
    let was_prepared = inspected.is_none();
    clock.lap(if was_prepared { "take what was prepared" } else { "find the guest and patch it" });

    let mut findings: Vec<Finding> = patched.findings.iter().filter_map(Kept::finding).collect();
    // What a map says of the name is not in what was prepared.
    for finding in source.mapped(wanted).findings {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    let own_network = around.own_network(wanted, name);
    let machine = renamed(&patched, wanted, name, own_network.is_some());
    let placement = Placement {
        folder: define::utf8(&place)?,
        disks: patched
            .disks
            .iter()
            .zip(&source.disks)
            .map(|(disk, over)| PlacedDisk {
                file: disk.file.clone(),
                format: disk.format.clone(),
                virtual_size: disk.virtual_size,
                stored: None,
                below: Some(over.below.clone()),
            })
            .collect(),
        networks: match &own_network {
            Some(own) => Networks { map: Vec::new(), rest: Some(own.clone()) },
            None => source.mapped(wanted).networks(&wanted.networks),
        },
        emulated: around.emulated,
        ..Placement::default()
    };
    if own_network.as_deref() == Some(NO_NETWORK) {
        findings.push(finding::TEST_UNPLUGGED.finding(
            "The cards of the test are plugged into nothing: a libvirt of one user makes no networks.",
            "Recover it at qemu:///system for a network of its own.",
        ));
    }
    let variables = source.loaded.variables.as_ref();
    let defined = define::write(machine, placement, wanted.target, variables, &mut findings)?;
    findings.extend(registered::look(context, wanted, &defined, own_network.is_some())?);
    if findings.iter().any(|finding| finding.severity == Severity::Blocks) {
        return Err(Failure::Findings(findings));
    }

    let mut files: BTreeSet<String> =
        patched.disks.iter().map(|disk| disk.file.clone()).chain([INSPECTED.to_owned()]).collect();
    let Defined { machine, placement, artifacts } = defined;
    // It registers with this program alone, which knows what is to be made and removed with it.
    for artifact in artifacts.iter().filter(|artifact| artifact.name != REGISTER_SCRIPT) {
        write_file(&folder.partial, artifact)?;
        files.insert(artifact.name.clone());
    }
    if let Some((file, variables)) = placement.variables.as_deref().zip(variables) {
        write_bytes(&folder.partial, file, &variables.bytes, false)?;
        files.insert(file.to_owned());
    }
    files.extend([REPORT.to_owned(), FILE.to_owned()]);
    let recovery = Recovery {
        version: VERSION,
        machine: source.machine.to_string(),
        point: source.number,
        at: source.at,
        consistency: source.consistency,
        tag: source.tag.clone(),
        mode: wanted.mode,
        name: name.to_owned(),
        target: wanted.target.name.to_owned(),
        made_of,
        disks: patched.disks.iter().zip(&source.disks).map(recovered_disk).collect(),
        files,
        step: Step::Written,
        own_network: own_network.filter(|own| own != NO_NETWORK),
        host: None,
    };
    let mut report = report(&place, recovery, machine, patched.disks, findings, was_prepared);
    report.seconds.clone_from(&clock.laps);
    let text = serde_json::to_string_pretty(&report)
        .map_err(|e| Error::corrupt(format!("the report cannot be written as JSON: {e}")))?;
    write_bytes(&folder.partial, REPORT, (text + "\n").as_bytes(), false)?;
    let text = report.recovery.text()?;
    write_file(&folder.partial, &Artifact::file(FILE, text))?;
    context.check_cancelled()?;
    folder.complete(&[])?;
    held.is_kept = true;
    context.observer.event(Event::Step(format!("{} is ready in {}", report.recovery.name, place.display())));
    clock.lap("write the machine");
    Ok((report, inspected))
}

/// The script that registers a machine without this program.
const REGISTER_SCRIPT: &str = "register.sh";

fn recovered_disk((disk, over): (&crate::report::WrittenDisk, &source::SourceDisk)) -> RecoveredDisk {
    RecoveredDisk {
        file: disk.file.clone(),
        disk: over.name.clone(),
        size: disk.virtual_size,
        over: Some(over.uri.clone()),
    }
}

/// The machine as it is called where it runs.
fn renamed(patched: &Patched, wanted: &Wanted, name: &str, is_alone: bool) -> Machine {
    let mut machine = patched.adapted.clone();
    name.clone_into(&mut machine.name);
    if wanted.new_uuid {
        machine.smbios.uuid = Some(Uuid::new_v4());
    }
    if is_alone {
        // A network of its own has no others beside it.
        for nic in &mut machine.nics {
            nic.vlan = None;
        }
    }
    machine
}

/// Bytes of data in all deltas.
pub fn data(disks: &[crate::report::WrittenDisk]) -> Bytes {
    Bytes(disks.iter().fold(0, |sum, disk| sum.saturating_add(disk.data.0)))
}
