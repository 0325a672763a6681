//! `landfall recover …`

use super::args::{Recover, RecoverPlace, RecoverVerb};
use super::machine::{choice_with, inspected_text, networks, target};
use super::register;
use super::text::{self, print_json};
use super::{Cli, Surroundings};
use crate::hypervisor::text::shell_word;
use crate::moment::Moment;
use crate::ops::recover::{self, Wanted, ended, there};
use crate::ops::source::point::{At, PointName};
use crate::ops::{Context, Failure};
use crate::recovery::{Mode, Step};
use crate::registrar;
use crate::report::recovery::{Ended, EndedOutcome, Prepared, Recovered, Recoveries, State};
use crate::report::registration::Afterwards;
use landfall_image::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// `landfall recover`
pub fn run(
    args: &Recover,
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> Result<u8, Failure> {
    let as_json = cli.common.json;
    let Some(verb) = &args.verb else { return begin(args, cli, context, surroundings) };
    let place =
        |place: &RecoverPlace| there::find(context.points.as_deref(), &place.folder, &surroundings.recovered);
    let done = match verb {
        RecoverVerb::List(list) => {
            let output = list.output.as_ref().unwrap_or(&surroundings.recovered);
            let list = there::list(context, output)?;
            match as_json {
                true => print_json(&list)?,
                false => text::print(&list_text(&list))?,
            }
            return Ok(0);
        }
        RecoverVerb::Commit(commit) => ended::commit(context, &place(&commit.place)?, commit.source_runs)?,
        RecoverVerb::Rollback(folder) => ended::rollback(context, &place(folder)?)?,
        RecoverVerb::Remove(folder) => ended::remove(context, &place(folder)?)?,
        RecoverVerb::Resume(folder) => ended::resume(context, &place(folder)?)?,
    };
    match as_json {
        true => print_json(&done)?,
        false => text::print(&ended_text(&done))?,
    }
    Ok(0)
}

/// The newest point of a machine that was patched ahead for a target.
const AHEAD: &str = "prepared";

fn point(args: &Recover, context: &Context<'_>, output: &Path) -> Result<PointName, Error> {
    let text = args.machine.as_deref().unwrap_or_default();
    let now = Moment::now();
    let named = PointName::parse(text, now)?;
    match &args.at {
        None => Ok(named),
        Some(at) => {
            let at = match at.as_str() {
                AHEAD => {
                    let points = context.points.as_deref();
                    At::Number(there::newest_prepared(points, output, &named.machine, &args.to)?)
                }
                at => At::parse(at, now)?,
            };
            // A name may have an @ of its own.
            match text.contains('@') && named.at != At::Latest {
                true => Err(Error::refused(format!("{text:?} names a point, and --at another"))
                    .hint("leave one of them out")),
                false => Ok(PointName { at, ..named }),
            }
        }
    }
}

fn begin(
    args: &Recover,
    cli: &Cli,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> Result<u8, Failure> {
    if args.target.disk_format.as_deref().is_some_and(|kind| kind != "qcow2") {
        return Err(Error::refused("the disks of a recovered machine are written as qcow2, over its point")
            .hint("leave -O out; convert point:MACHINE writes disks of every kind")
            .into());
    }
    let output = args.output.as_ref().unwrap_or(&surroundings.recovered);
    let wanted = Wanted {
        point: point(args, context, output)?,
        target: target(&args.to)?,
        mode: args.mode.map_or(Mode::Test, Into::into),
        name: args.name.clone(),
        networks: networks(&args.target),
        guest: choice_with(&args.guest, &args.services, &args.target)?,
        register: args
            .register
            .as_ref()
            .map(|at| registrar::Wanted { at: at.clone(), ..registrar::Wanted::default() }),
        new_uuid: args.new_uuid,
        emulated: args.emulated,
        serve: args.serve,
        source_runs: args.source_runs,
    };
    if args.prepare {
        let prepared = recover::prepare(context, &wanted, output)?;
        match cli.common.json {
            true => print_json(&prepared)?,
            false => text::print(&prepared_text(&prepared))?,
        }
        return Ok(0);
    }
    let done = recover::recover(context, &wanted, output)?;
    let code = match &done.report.registration {
        Some(Afterwards::Told(registration)) => register::code(registration),
        _ => 0,
    };
    if cli.common.json {
        print_json(&done.report)?;
    } else {
        if let Some(inspected) = &done.inspected {
            text::print(&inspected_text(inspected, "Changed"))?;
        }
        text::print(&recovered_text(&done.report, done.inspected.is_some(), done.serving.is_some()))?;
    }
    if let Some(serving) = done.serving.filter(|_| code == 0) {
        let folder = PathBuf::from(&done.report.folder);
        let mut look = || match ended::wake(context, &folder) {
            Ok(false) => {}
            Ok(true) => tracing::info!("{} goes on: its recovery point can be read again", folder.display()),
            Err(error) => tracing::debug!(%error, "the machine could not be looked after"),
        };
        serving.wait(&context.cancel, &mut look)?;
    }
    Ok(code)
}

fn when(report: &crate::recovery::Recovery) -> String {
    let tag = report.tag.as_ref().map(|tag| format!(", {tag:?}")).unwrap_or_default();
    format!("as it was at {} (point {}{tag})", report.at, report.point)
}

fn steps_text(seconds: &[(String, f64)]) -> String {
    let all: f64 = seconds.iter().map(|(_, seconds)| seconds).sum();
    let steps: Vec<String> = seconds.iter().map(|(step, took)| format!("{step} {took:.2}")).collect();
    format!("in {all:.2} s ({})", steps.join(", "))
}

fn recovered_text(report: &Recovered, is_told: bool, is_served: bool) -> String {
    let mut out = String::new();
    let recovery = &report.recovery;
    let what = if recovery.mode == Mode::Test { "a test" } else { "live" };
    let _ =
        writeln!(out, "\n{} is recovered {}: {what}, {}", recovery.machine, when(recovery), report.folder);
    for disk in &report.written_disks {
        let _ = writeln!(
            out,
            "  {}: {}, {} changed; the rest is read from the point",
            disk.file, disk.virtual_size, disk.data
        );
    }
    let _ = writeln!(out, "  {}", steps_text(&report.seconds));
    // Otherwise they stand with the guest.
    if !is_told && !report.findings.is_empty() {
        let _ = writeln!(out, "\nFindings");
        text::findings(&report.findings, &mut |line| {
            let _ = writeln!(out, "{line}");
        });
    }
    if let Some(Afterwards::Told(registration)) = &report.registration {
        out.push_str(&register::registration_text(registration));
    }
    let folder = shell_word(&report.folder);
    let _ = writeln!(out, "\nNext:");
    if recovery.step < Step::Registered {
        let _ = writeln!(
            out,
            "  run it with libvirt:     the same command again, with --register qemu:///system"
        );
        let _ = writeln!(out, "  run it with QEMU alone:  {folder}/qemu.sh");
    }
    match recovery.mode {
        Mode::Test => {
            let _ = writeln!(out, "  remove all of it:        landfall recover remove {folder}");
        }
        Mode::Live => {
            let _ = writeln!(out, "  keep it:                 landfall recover commit {folder}");
            let _ = writeln!(out, "  throw it away:           landfall recover rollback {folder}");
        }
    }
    if is_served {
        let _ = writeln!(
            out,
            "\nServing the recovery point to {}. When this ends, the machine stops at its next read; the same command goes on.",
            recovery.name
        );
    }
    out
}

fn prepared_text(report: &Prepared) -> String {
    let mut out = String::new();
    let was = if report.was_there { "was prepared already" } else { "is prepared" };
    let _ = writeln!(
        out,
        "\n{} as it was at {} (point {}) {was} for {}: {} changed, in {}",
        report.machine,
        report.at,
        report.point,
        report.target,
        recover::data(&report.disks),
        report.folder
    );
    let _ = writeln!(out, "  {}", steps_text(&report.seconds));
    if !report.findings.is_empty() {
        let _ = writeln!(out, "\nFindings");
        text::findings(&report.findings, &mut |line| {
            let _ = writeln!(out, "{line}");
        });
    }
    out
}

fn ended_text(done: &Ended) -> String {
    let mut out = String::new();
    let name = done.recovery.as_ref().map_or("What was left of a recovery", |recovery| &recovery.name);
    let says = match done.outcome {
        EndedOutcome::Committed => "is kept: its disks are whole, and it needs its recovery point no more",
        EndedOutcome::Removed => "is removed, with all that was made for it",
        EndedOutcome::Running => "runs",
    };
    let _ = writeln!(out, "\n{name} {says}, in {:.1} s ({})", done.seconds, done.folder);
    if !done.left.is_empty() {
        let _ = writeln!(out, "  these files are none of its own, and stay: {}", done.left.join(", "));
    }
    out
}

fn list_text(list: &Recoveries) -> String {
    let mut out = String::new();
    if list.recoveries.is_empty() && list.prepared.is_empty() {
        let _ = writeln!(out, "\nNo machine is recovered in {}", list.folder);
    }
    for listed in &list.recoveries {
        let Some(recovery) = &listed.recovery else {
            let _ = writeln!(out, "\n{}\n  {}", listed.folder, listed.trouble.as_deref().unwrap_or_default());
            continue;
        };
        let mode = if recovery.mode == Mode::Test { "test" } else { "live" };
        let state = match listed.state {
            State::Running => "runs",
            State::Paused => "is paused",
            State::Off => "is off",
            State::NotRegistered => "is registered nowhere",
            State::Unknown => "may run or not: its hypervisor does not answer",
        };
        let _ = writeln!(out, "\n{} ({mode}) {state}", recovery.name);
        let _ = writeln!(out, "  {} {}", recovery.machine, when(recovery));
        if let Some(host) = &recovery.host {
            let _ = writeln!(out, "  at {}", host.address);
        }
        match recovery.step {
            Step::Committing => {
                let _ = writeln!(
                    out,
                    "  is being committed: landfall recover commit {} goes on",
                    shell_word(&listed.folder)
                );
            }
            Step::Removing => {
                let _ = writeln!(
                    out,
                    "  is being removed: {} goes on",
                    ended::removal(recovery, listed.folder.as_ref())
                );
            }
            Step::Committed => {
                let _ = writeln!(out, "  is committed");
            }
            Step::Registering => {
                let _ = writeln!(
                    out,
                    "  was not registered to the end: run its command again, or {}",
                    ended::removal(recovery, listed.folder.as_ref())
                );
            }
            Step::Written | Step::Registered => {}
        }
        let _ = writeln!(out, "  {}", listed.folder);
    }
    if !list.prepared.is_empty() {
        let _ = writeln!(out, "\nPrepared");
        for prepared in &list.prepared {
            let _ = writeln!(
                out,
                "  {} at point {} of {}, for {}: {} changed",
                prepared.machine, prepared.point, prepared.at, prepared.target, prepared.data
            );
        }
    }
    out
}
