//! Boots a machine in isolation on the target's virtual hardware and keeps the evidence. A recovery point is booted as its recovery will be,
//! patched, and the evidence is attached to it.

use super::define;
use super::inspect::{self, Opened};
use super::map::Mapped;
use super::source::point::{At, PointName};
use super::source::{self, Loaded};
use super::{Context, Failure, GuestChoice};
use crate::event::Event;
use crate::hypervisor::{self, Target, VariablesFormat, attach};
use crate::machine::Machine;
use crate::moment::Moment;
use crate::proof::hardware::{self, Hardware};
use crate::proof::trial::{EARLIER_LOG, SERIAL_LOG, Trial};
use crate::proof::{Outcome, Proof, probe};
use crate::report::protection::{Evidence, Proven};
use crate::report::{self, Kept};
use landfall_boot::check::Severity;
use landfall_boot::sandbox::{Accelerator, Sandbox};
use landfall_boot::session;
use landfall_boot::target::Devices;
use landfall_image::{Error, OpenOptions, Result, formats};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is wanted.
pub struct Wanted<'a> {
    /// A folder that `convert` wrote, or the definition of a source.
    pub machine: &'a Path,
    /// The target's hardware, for a source; a converted machine knows its own.
    pub target: &'static Target,
    /// Other devices than the target's own.
    pub hardware: Option<Hardware>,
    /// From power-on to giving up.
    pub within: Duration,
    /// Where the evidence goes; `None` for `proof/` in the machine's folder, or `NAME-proof` here.
    pub output: Option<PathBuf>,
    /// How the guest is found.
    pub guest: GuestChoice,
}

/// Evidence, and where it lies.
pub struct Proved {
    /// The folder.
    pub folder: PathBuf,
    /// What is in its `proof.json`.
    pub proof: Proof,
    /// The recovery point that it is attached to, or why it cannot be; `None` where the machine is none.
    pub attached: Option<Result<PointName>>,
}

/// Boots it. That the machine does not boot is a result, not a failure.
pub fn prove(context: &Context<'_>, wanted: &Wanted<'_>) -> Result<Proved, Failure> {
    let (loaded, mut machine, target) = load(context, wanted)?;
    if let Some(hardware) = wanted.hardware {
        machine = hardware.apply(&machine);
    }
    let point = point_of(&loaded.path);
    // A point is tried as its recovery will be: patched. On devices that somebody names it is tried as it is.
    let is_recovered = point.is_some() && wanted.hardware.is_none();
    if !is_recovered {
        hardware::check(&machine).map_err(|e| e.in_file(wanted.machine))?;
    }
    let folder = match &wanted.output {
        Some(folder) => folder.clone(),
        // Nothing is written into a source's folder.
        None if wanted.machine.join(super::folder::REPORT).is_file() => wanted.machine.join("proof"),
        None if super::is_folder_name(&machine.name) => PathBuf::from(format!("{}-proof", machine.name)),
        None => {
            return Err(Error::unsupported(format!(
                "no folder can have the machine's name {:?}",
                machine.name
            ))
            .hint("name a folder for the evidence with -o")
            .into());
        }
    };
    let at: &Path = &folder;
    let cannot = |doing: &'static str| move |e| Error::io(doing, e).in_file(at);
    fs::create_dir_all(&folder).map_err(cannot("cannot create"))?;
    let real = folder.canonicalize().map_err(cannot("cannot resolve"))?;
    let _lock = super::folder::lock(&real)?.ok_or_else(|| {
        Error::refused("another boot trial writes its evidence there at this moment")
            .in_file(&folder)
            .hint("wait for it to end, or choose another folder with -o")
    })?;
    // An earlier verdict must not lie beside the log of a trial that is cut short, nor its log beside a new verdict.
    for earlier in [PROOF, EARLIER_LOG] {
        match fs::remove_file(folder.join(earlier)) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(cannot("cannot remove the earlier proof in")(e).into());
            }
            _ => {}
        }
    }

    let sandbox = Sandbox::new(context.sandbox.clone())?;
    let platform = target.platform;
    let attempt = || -> Result<_, Failure> {
        let overlays = loaded.overlays(&folder)?;
        let keys = context.key.as_slice();
        let mapped = Mapped::default();
        let opened = Opened {
            loaded: &loaded,
            overlays: &overlays,
            platform,
            choice: &wanted.guest,
            mapped: &mapped,
            keys,
        };
        let machine = match is_recovered {
            true => recovered(context, &opened, target)?,
            false => machine.clone(),
        };
        context.observer.event(Event::Step("Preparing a throw-away copy that tells how far it comes".into()));
        let (instrumented, accelerator) = instrument(&opened, &sandbox)?;

        context.observer.event(Event::Step(format!(
            "Booting {} on {}{}, without a way out; at most {} s",
            machine.name,
            match wanted.hardware {
                Some(hardware) => hardware.to_string(),
                None => format!("the hardware of {}", target.title),
            },
            if accelerator == Accelerator::Tcg { ", emulated (slow)" } else { "" },
            wanted.within.as_secs()
        )));
        let trial = Trial {
            machine: &machine,
            disks: opened.disks(),
            sandbox: &sandbox,
            accelerator,
            within: wanted.within,
            probed: probe::speaks(&instrumented),
            variables: loaded
                .variables
                .as_ref()
                .filter(|variables| variables.fit(VariablesFormat::Edk2))
                .map(|variables| variables.bytes.as_slice()),
            folder: &folder,
        };
        Ok((trial.run()?, instrumented, accelerator))
    };
    let first = attempt();
    if let (Some(point), Err(Failure::Findings(findings))) = (&point, &first)
        && let Some(why) = findings.iter().find(|finding| finding.severity == Severity::Blocks)
    {
        let evidence = evidence(target.name, Proven::Blocked, &why.says, &real);
        attach(context, point, &evidence)?;
    }
    let (mut seen, mut instrumented, mut accelerator) = first?;
    let mut earlier = None;
    if accelerator == Accelerator::Tcg && seen.may_be_the_emulators_fault() {
        context.observer.event(Event::Step(
            "The kernel died of what the emulation can be to blame for: trying once more".into(),
        ));
        fs::rename(folder.join(SERIAL_LOG), folder.join(EARLIER_LOG))
            .map_err(cannot("cannot rename a log in"))?;
        earlier = Some(seen.because);
        (seen, instrumented, accelerator) = attempt()?;
        seen.files.push(EARLIER_LOG.to_owned());
    }
    let seconds = |duration: Duration| (duration.as_secs_f64() * 10.0).round() / 10.0;
    let mut files = seen.files;
    files.push(PROOF.to_owned());
    let proof = Proof {
        version: report::VERSION,
        machine: machine.name.clone(),
        target: target.name.to_owned(),
        hardware: wanted.hardware.map(|hardware| hardware.to_string()),
        outcome: seen.outcome,
        because: seen.because,
        earlier,
        seconds_to_login: seen.login.map(seconds),
        seconds_to_multi_user: seen.multi_user.map(seconds),
        seconds: seconds(seen.took),
        accelerator: if accelerator == Accelerator::Kvm { "kvm" } else { "tcg" }.to_owned(),
        devices: seen.devices,
        guest: seen.inside,
        instrumented,
        files,
        ended_unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    let text = serde_json::to_string_pretty(&proof)
        .map_err(|e| Error::corrupt(format!("the proof cannot be written as JSON: {e}")))?;
    let path = folder.join(PROOF);
    fs::write(&path, text + "\n").map_err(|e| Error::io("cannot write", e).in_file(&path))?;
    let attached = point.map(|point| {
        let outcome = match proof.outcome {
            Outcome::Booted => Proven::Booted,
            Outcome::Stopped => Proven::Stopped,
            Outcome::TimedOut => Proven::TimedOut,
        };
        let on = proof.hardware.as_ref().unwrap_or(&proof.target);
        let evidence = Evidence {
            seconds_to_login: proof.seconds_to_login,
            accelerator: Some(proof.accelerator.clone()),
            ..evidence(on, outcome, &proof.because, &real)
        };
        attach(context, &point, &evidence).map(|()| point)
    });
    Ok(Proved { folder, proof, attached })
}

/// The point that a source is.
fn point_of(source: &Path) -> Option<PointName> {
    PointName::of_source(source.to_str()?, Moment::now()).ok().flatten()
}

/// The machine of a recovery point as its recovery will be: patched in the overlays, and on the target's devices.
fn recovered(context: &Context<'_>, opened: &Opened<'_>, target: &Target) -> Result<Machine, Failure> {
    let kind = formats::kind(target.kinds.first().copied().unwrap_or_default())?;
    let mut inspected = inspect::patch(context, opened)?;
    let machine = define::adapted(&mut inspected, target, kind, opened.mapped)?;
    if inspected.is_blocked() {
        return Err(Failure::Findings(inspected.findings));
    }
    hardware::check(&machine)?;
    Ok(machine)
}

fn evidence(on: &str, outcome: Proven, because: &str, folder: &Path) -> Evidence {
    Evidence {
        at: Moment::now(),
        target: on.to_owned(),
        outcome,
        // What a guest shows may be anything.
        says: because.chars().filter(|letter| !letter.is_control()).take(1000).collect(),
        seconds_to_login: None,
        accelerator: None,
        folder: folder.display().to_string(),
    }
}

/// Attaches it to the recovery point that was tried.
fn attach(context: &Context<'_>, point: &PointName, evidence: &Evidence) -> Result<()> {
    let (At::Number(number), Some(points)) = (&point.at, &context.points) else { return Ok(()) };
    points.attach(&point.machine, *number, evidence).map_err(|error| {
        let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
        error
            .hint(format!("the evidence is in {}, and not attached to point {number}{hint}", evidence.folder))
    })
}

/// File name of the evidence in one document.
const PROOF: &str = "proof.json";

/// The machine as the target has it, with its disks.
fn load(context: &Context<'_>, wanted: &Wanted<'_>) -> Result<(Loaded, Machine, &'static Target)> {
    let path = wanted.machine.join(super::folder::REPORT);
    // A folder that Hyper-V exported has no report.
    if !path.is_file() {
        let loaded = source::load(context, wanted.machine, &wanted.guest.source)?;
        let platform = wanted.target.platform;
        // What the user names is put in place of it.
        let machine = match wanted.hardware {
            Some(_) => loaded.machine.clone(),
            None => attach::adapt(&loaded.machine, platform, &Devices::default())?,
        };
        return Ok((loaded, machine, wanted.target));
    }
    if wanted.guest.source != source::Wanted::default() {
        return Err(Error::refused(
            "is a machine that was converted: its disks and its state are what they are",
        )
        .in_file(wanted.machine)
        .hint("leave out --disk, --skip-disk, --nvram, --snapshot, --system and --configuration"));
    }
    let kept = Kept::read(&path)?;
    let target = hypervisor::target(&kept.target)
        .ok_or_else(|| Error::unsupported(format!("names the target {:?}", kept.target)).in_file(&path))?;
    let mut images = Vec::new();
    for disk in &kept.written_disks {
        let format = landfall_image::Format::from_name(&disk.format);
        let file = super::packing::resolve(context, &path, &disk.file)?;
        images.push(formats::open(
            &file,
            &OpenOptions {
                format,
                gate: context.gate.clone(),
                key: context.key.clone(),
                ..OpenOptions::default()
            },
        )?);
    }
    let machine = kept.written.clone();
    let variables = match target.variables {
        Some((_, name)) => source::variables_beside(wanted.machine, &name(&machine))?,
        None => None,
    };
    let loaded = Loaded {
        variables,
        source_name: kept.written.name.clone(),
        machine: kept.written,
        path,
        hypervisor: target.name,
        images,
        digest: String::new(),
        findings: Vec::new(),
    };
    Ok((loaded, machine, target))
}

/// Puts the probe into the overlays: guest paths, and how machines run here. A guest that cannot be opened is tried
/// as it is: its console may tell enough.
fn instrument(opened: &Opened<'_>, sandbox: &Sandbox) -> Result<(Vec<String>, Accelerator)> {
    let options = session::Options { families: &[&probe::Speaking], ..opened.options(Some(sandbox)) };
    let patched = session::patch(&opened.disks(), &opened.request(), &options)?;
    if let Some(applied) = patched.applied {
        let paths = applied.changes.into_iter().map(|change| change.path).collect();
        return Ok((paths, applied.sandbox.accelerator));
    }
    for finding in &patched.inspection.plan.findings {
        tracing::warn!("not instrumented: {}", finding.says);
    }
    let idle = sandbox.start(Vec::new())?;
    let accelerator = idle.accelerator();
    idle.finish()?;
    Ok((Vec::new(), accelerator))
}
