//! `landfall convert`, `landfall inspect`.

use super::args::{self, Convert, GuestArgs, HardwareArgs, Inspect, Prove, ServiceArgs, TargetArgs};
use super::map::{self, line::shown};
use super::text::{self, print_json};
use super::{Surroundings, register};
use crate::hypervisor::text::shell_word;
use crate::hypervisor::{self, Choice, Networks};
use crate::machine::Machine;
use crate::ops::convert::{self, Wanted};
use crate::ops::load_registry;
use crate::ops::map::load as load_map;
use crate::ops::{self, Context, Failure, GuestChoice, inspect, prove, source};
use crate::proof::{Outcome, Proof, hardware};
use crate::report::failure::Failed;
use crate::report::registration::Afterwards;
use crate::report::{Converted, Inspected};
use landfall_boot::network_map::What;
use landfall_boot::windows::agents::AgentInstaller;
use landfall_boot::windows::facts::Windows;
use landfall_boot::windows::services::Start;
use landfall_image::Error;
use landfall_image::create::{CreateOptions, FileOptions};
use std::fmt::Write;
use std::time::Duration;

/// What the arguments say of how a guest is found.
pub fn choice(guest: &GuestArgs) -> GuestChoice {
    let choice = Choice {
        snapshot: guest.snapshot.clone(),
        system: guest.system.clone(),
        configuration: guest.configuration.clone(),
    };
    let disks = guest.disk.iter().map(|(slot, file)| (slot.clone(), file.into())).collect();
    GuestChoice {
        root: guest.root.clone(),
        discard_hibernation: guest.discard_hibernation,
        source: source::Wanted {
            choice,
            disks,
            variables: guest.nvram.clone(),
            skipped: guest.skip_disk.clone(),
            hardware: hardware_of(&guest.hardware),
        },
        ..GuestChoice::default()
    }
}

fn hardware_of(args: &HardwareArgs) -> source::Hardware {
    source::Hardware {
        memory: args.memory,
        cpus: args.cpus,
        firmware: args.firmware,
        nics: args.nic.iter().map(|nic| Some(nic.clone()).filter(|nic| nic != args::NEW)).collect(),
    }
}

/// The same, with what is to become of its services and its network.
pub fn choice_with(guest: &GuestArgs, services: &ServiceArgs, at: &TargetArgs) -> Result<GuestChoice, Error> {
    Ok(GuestChoice {
        keep: services.keep.clone(),
        drop: services.drop.clone(),
        map: at.map.as_deref().map(load_map).transpose()?,
        virtio_win: at.virtio_win.clone(),
        agent_installers: at
            .agent_installer
            .iter()
            .map(|path| AgentInstaller::open(path))
            .collect::<Result<_, _>>()?,
        registry: at.registry.as_deref().map(load_registry).transpose()?,
        ..choice(guest)
    })
}

/// The target of that name.
pub fn target(name: &str) -> Result<&'static hypervisor::Target, Error> {
    hypervisor::target(name).ok_or_else(|| Error::unsupported(format!("{name} is not a target")))
}

/// The networks that the arguments name.
pub fn networks(at: &TargetArgs) -> Networks {
    Networks { map: at.map_network.clone(), rest: at.network.clone() }
}

/// `landfall inspect`
pub fn inspect(args: &Inspect, as_json: bool, context: &Context<'_>) -> Result<u8, Failure> {
    let wanted = Wanted {
        source: &args.source,
        target: target(&args.to)?,
        name: None,
        kind: args.at.disk_format.clone(),
        create: CreateOptions::default(),
        networks: networks(&args.at),
        guest: choice_with(&args.guest, &args.services, &args.at)?,
        register: None,
    };
    let inspected = inspect::inspect(context, &wanted, None)?;
    if as_json {
        print_json(&inspected)?;
    } else {
        text::print(&inspected_text(&inspected, "Planned changes"))?;
    }
    Ok(u8::from(inspected.is_blocked()))
}

/// `landfall convert`
pub fn convert(
    args: &Convert,
    as_json: bool,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> Result<u8, Failure> {
    let wanted = Wanted {
        source: &args.source,
        target: target(&args.to)?,
        name: args.name.clone(),
        kind: args.at.disk_format.clone(),
        create: CreateOptions {
            compression: args.compress.map(Into::into),
            files: FileOptions { replace: args.replace, ..FileOptions::default() },
            ..CreateOptions::default()
        },
        networks: networks(&args.at),
        guest: choice_with(&args.guest, &args.services, &args.at)?,
        register: args.register.as_ref().map(|at| register::wanted(at, &args.place, surroundings)),
    };
    let done = convert::convert(context, &wanted, &args.output)?;
    if !as_json {
        text::print(&inspected_text(&done.report.inspected, "Changed"))?;
        text::print(&converted_text(
            &done.report,
            &done.folder.display().to_string(),
            wanted.register.is_some(),
        ))?;
    }
    let Some(at) = &wanted.register else {
        if as_json {
            print_json(&done.report)?;
        }
        return Ok(0);
    };
    // The conversion is there, whatever comes of the registration.
    let registered = ops::register::register(context, &done.folder, at, false);
    if !as_json {
        let registration = registered?;
        text::print(&register::registration_text(&registration))?;
        return Ok(register::code(&registration));
    }
    let (afterwards, code) = match registered {
        Ok(registration) => {
            let code = register::code(&registration);
            (Afterwards::Told(registration), code)
        }
        Err(error) => {
            let failure = Failure::from(error);
            (Afterwards::Failed(Failed::from(&failure)), failure.exit_code())
        }
    };
    print_json(&Converted { registration: Some(afterwards), ..done.report })?;
    Ok(code)
}

/// `landfall prove`
pub fn prove(args: &Prove, as_json: bool, context: &Context<'_>) -> Result<u8, Failure> {
    let wanted = prove::Wanted {
        machine: &args.machine,
        target: target(&args.to)?,
        hardware: args.hardware,
        within: Duration::from_secs(args.timeout.into()),
        output: args.output.clone(),
        guest: choice(&args.guest),
    };
    let proved = prove::prove(context, &wanted)?;
    if !as_json {
        text::print(&proof_text(&proved.proof, &proved.folder.display().to_string()))?;
    }
    let attached = proved.attached.transpose()?;
    match (as_json, attached) {
        (true, _) => print_json(&proved.proof)?,
        (false, Some(point)) => {
            text::print(&format!("  attached to point {} of {}\n", point.at, point.machine))?;
        }
        (false, None) => {}
    }
    let booted = proved.proof.outcome == Outcome::Booted;
    Ok(u8::from(booted == args.expect_failure))
}

fn proof_text(proof: &Proof, folder: &str) -> String {
    let mut out = String::new();
    let verdict = match proof.outcome {
        Outcome::Booted => "BOOTS",
        Outcome::Stopped => "DOES NOT BOOT",
        Outcome::TimedOut => "DID NOT BOOT IN TIME",
    };
    let hardware = proof.hardware.as_ref().unwrap_or(&proof.target);
    let _ = writeln!(out, "\n{} {verdict} on {hardware}: {}", proof.machine, proof.because);
    let _ = writeln!(out, "  on: {}", proof.devices.join(", "));
    let mut times = Vec::new();
    if let Some(seconds) = proof.seconds_to_multi_user {
        times.push(format!("multi-user target after {seconds:.0} s"));
    }
    if let Some(seconds) = proof.seconds_to_login {
        times.push(format!("login prompt after {seconds:.0} s"));
    }
    if !times.is_empty() {
        let _ = writeln!(out, "  {} ({})", times.join(", "), proof.accelerator);
    }
    if let Some(guest) = &proof.guest {
        if let (Some(kernel), Some(root)) = (&guest.kernel, &guest.root) {
            let _ = writeln!(out, "  kernel {kernel}, root file system {root}");
        }
        for interface in &guest.interfaces {
            let addresses = match interface.addresses.is_empty() {
                true => "no address".to_owned(),
                false => interface.addresses.join(", "),
            };
            let _ =
                writeln!(out, "  {} ({}, {}): {addresses}", interface.name, interface.mac, interface.driver);
        }
        if !guest.failed_units.is_empty() {
            let _ = writeln!(out, "  failed units: {}", guest.failed_units.join(", "));
        }
    }
    let _ = writeln!(out, "  evidence: {folder}: {}", proof.files.join(", "));
    out
}

fn converted_text(report: &Converted, folder: &str, is_registered: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "\nWritten to {folder}");
    for disk in &report.written_disks {
        let _ = writeln!(
            out,
            "  {}: {}, {} of data, {} on the host",
            disk.file, disk.virtual_size, disk.data, disk.allocated
        );
    }
    let _ = writeln!(out, "  {}", report.files.join(", "));
    let seconds: f64 = report.seconds.iter().map(|(_, seconds)| seconds).sum();
    let steps: Vec<String> = report.seconds.iter().map(|(step, took)| format!("{step} {took:.1}")).collect();
    let _ = writeln!(out, "  in {seconds:.1} s ({})", steps.join(", "));
    let _ = writeln!(out, "\nNext:");
    // Xen's own devices are not to be had here, and its firmware offers others beside them.
    let hardware = match report.target == "xen" {
        true => trial_hardware(&report.written),
        false => "",
    };
    let _ = writeln!(out, "  prove that it boots:  landfall prove {}{hardware}", shell_word(folder));
    if !is_registered {
        let scripts = report.files.iter().filter(|file| file.starts_with("register."));
        for script in scripts {
            let script = shell_word(&format!("{folder}/{script}"));
            let _ = writeln!(out, "  register it:          {script}");
        }
    }
    out
}

/// What has to be said for a trial on hardware that is not to be had here.
fn trial_hardware(machine: &Machine) -> &'static str {
    match hardware::check(machine) {
        Ok(()) => "",
        Err(_) => " --hardware sata,e1000e",
    }
}

/// The system on the disks.
fn guest_text(out: &mut String, report: &Inspected) {
    let Some(guest) = &report.guest else {
        let _ = writeln!(out, "\nGuest: none was found; the findings say what was looked for");
        return;
    };
    let _ = writeln!(out, "\nGuest: {}, {}", shown(&guest.name.value), shown(&guest.architecture.value));
    if let Some(host_name) = &guest.host_name {
        let _ = writeln!(out, "  host name: {}", shown(&host_name.value));
    }
    for mount in &guest.mounts {
        let spec =
            mount.spec.as_ref().map(|spec| format!(", as {} in fstab", shown(spec))).unwrap_or_default();
        let subvolume = mount.subvolume.as_ref().map(|path| format!(":{}", shown(path))).unwrap_or_default();
        let (at, file_system, volume) = (shown(&mount.at), &mount.file_system, shown(&mount.volume.0));
        let _ = writeln!(out, "  {at}: {file_system} on {volume}{subvolume}{spec}");
    }
    if let Some(windows) = &guest.windows {
        windows_text(out, windows);
    }
    for kernel in &guest.kernels {
        let initramfs = kernel.initramfs.as_deref().map_or("no initramfs".to_owned(), shown);
        let _ = writeln!(out, "  kernel {}: {initramfs}", shown(&kernel.version));
    }
    for interface in &guest.interfaces {
        let addresses: Vec<_> = interface.addresses.iter().map(|address| shown(address)).collect();
        let (name, proof) = (shown(&interface.name), shown(&interface.proof));
        let _ = writeln!(out, "  network {name}: {} ({proof})", addresses.join(", "));
    }
    let _ = writeln!(out, "  read through: {}", report.read_through);
}

/// What a Windows guest has beside that.
fn windows_text(out: &mut String, windows: &Windows) {
    let (build, edition) = (shown(&windows.build.value), shown(&windows.edition.value));
    let _ = writeln!(out, "  version {build}, edition {edition}, starts from {}", windows.control_set.value);
    let clock = if windows.clock_is_universal.value { "universal" } else { "local" };
    let _ = writeln!(out, "  takes the machine's clock for {clock} time");
    for letter in &windows.letters {
        let device = match (&letter.volume, &letter.partition) {
            (Some(volume), _) => shown(&volume.0),
            (None, Some(_)) => format!("on none of the given disks: {}", shown(&letter.device)),
            (None, None) => shown(&letter.device),
        };
        let _ = writeln!(out, "  {} {device}", shown(&letter.letter));
    }
    let of = |start: Start| {
        let those = windows.drivers.iter().filter(move |driver| driver.is_there && driver.start == start);
        those.map(|driver| driver.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (start, says) in [(Start::Boot, "start with the machine"), (Start::Demand, "start on demand")] {
        let names = of(start);
        if !names.is_empty() {
            let _ = writeln!(out, "  drivers that {says}: {names}");
        }
    }
}

/// Changed lines of one file that are shown.
const LINES_SHOWN: usize = 12;

/// Of a registry, in which every line is an edit of its own.
const REGISTRY_LINES_SHOWN: usize = 90;

/// A machine and what is changed, for people.
pub fn inspected_text(report: &Inspected, changes: &str) -> String {
    let mut out = format!("\n{}", map::text(report));
    guest_text(&mut out, report);
    if !report.readdressed.is_empty() {
        let _ = writeln!(out, "\nAt the other site");
        for moved in &report.readdressed {
            let whose = if moved.interface.is_empty() { "machine" } else { &moved.interface };
            let what = match moved.what {
                What::Address => "address",
                What::Gateway => "gateway",
                What::Dns => "name servers",
                What::Search => "search domains",
                What::Route => "route",
                What::Method => "address by",
                What::Source => "source",
                What::Peer => "peer",
            };
            let _ = writeln!(out, "  {whose}: {what} {} -> {} ({})", moved.before, moved.after, moved.path);
        }
    }
    if !report.findings.is_empty() {
        let _ = writeln!(out, "\nFindings");
        text::findings(&report.findings, &mut |line| {
            let _ = writeln!(out, "{line}");
        });
    }
    if !report.edits.is_empty() {
        let _ = writeln!(out, "\n{changes}");
        for edit in &report.edits {
            let _ = writeln!(out, "  {}\n      {}: {}", edit.path, edit.what, edit.why);
            let most = if edit.is_registry { REGISTRY_LINES_SHOWN } else { LINES_SHOWN };
            for line in edit.lines.iter().take(most) {
                let _ = writeln!(out, "      {line}");
            }
            if edit.lines.len() > most {
                let _ = writeln!(out, "      … {} more lines (--json has all)", edit.lines.len() - most);
            }
        }
    } else {
        let _ = writeln!(out, "\n{changes}: nothing");
    }
    out
}
