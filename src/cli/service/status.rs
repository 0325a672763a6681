//! `landfall status`

use super::Run;
use super::shown::{self, Side, count, table, whole_span, wrapped};
use crate::cli::args::StatusArgs;
use crate::cli::text;
use crate::moment::Moment;
use crate::ops::Failure;
use crate::ops::service::Service;
use crate::report::api::MachineShown;
use crate::report::protection::{
    Alarm, DiskStatus, Gravity, MachineStatus, ProofStatus, Protection, SendStatus, Status,
};
use landfall_image::{Error, Kind, Result};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);
/// Columns that names have in the table; longer ones stand alone.
const NAME: usize = 22;

/// Shows it, and again; the exit code. What fails is 2: nobody knows how things are; a machine that is not
/// there is 1, as with other verbs.
pub fn run(run: &Run<'_>, args: &StatusArgs) -> u8 {
    let failed = |error| failed(error, run.as_json);
    let service = match run.service(&args.at) {
        Ok(service) => service,
        Err(error) => return failed(error),
    };
    loop {
        let looked = look(run, args, &service);
        let code = looked.unwrap_or_else(failed);
        let until = Instant::now() + AGAIN;
        while args.watch && !run.context.cancel.is_cancelled() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        if !args.watch || run.context.cancel.is_cancelled() {
            return code;
        }
    }
}

/// Says why it cannot be shown; the exit code.
pub fn failed(error: Error, as_json: bool) -> u8 {
    text::failure(&Failure::Error(error), as_json);
    2
}

fn look(run: &Run<'_>, args: &StatusArgs, service: &Service) -> Result<u8> {
    let status = service.status()?;
    let mut one = match args.machine.as_ref().map(|name| service.machine(name)).transpose() {
        Err(error) if error.kind() == Kind::Refused => {
            failed(error, run.as_json);
            return Ok(1);
        }
        one => one?,
    };
    if let Some(one) = one.as_mut().filter(|_| run.is_alone()) {
        one.receive.clear();
    }
    if args.watch && !run.as_json && std::io::stdout().is_terminal() {
        text::clear_screen()?;
    }
    match one {
        Some(one) => {
            let is_of_it = |alarm: &&Alarm| alarm.machine.as_ref() == Some(&one.machine.name);
            let alarms: Vec<&Alarm> = status.alarms.iter().filter(is_of_it).collect();
            run.show(&one, |one| machine_text(one, &status, &alarms))?;
            Ok(u8::from(one.machine.protection != Protection::Protected || !alarms.is_empty()))
        }
        None => {
            run.show(&status, in_words)?;
            Ok(u8::from(status.protection != Protection::Protected || !status.alarms.is_empty()))
        }
    }
}

fn word(protection: Protection) -> &'static str {
    match protection {
        Protection::Protected => "protected",
        Protection::AtRisk => "AT RISK",
        Protection::Unprotected => "UNPROTECTED",
    }
}

/// All machines, the worst first.
pub fn in_words(status: &Status) -> String {
    let mut out = String::new();
    let machines = &status.machines;
    let of = |protection| machines.iter().filter(|machine| machine.protection == protection).count();
    let parts: Vec<String> = [Protection::Unprotected, Protection::AtRisk, Protection::Protected]
        .into_iter()
        .filter(|protection| of(*protection) > 0)
        .map(|protection| format!("{} {}", of(protection), word(protection)))
        .collect();
    let _ = match machines.is_empty() {
        true => {
            writeln!(out, "No machine is protected yet: landfall protect NAME DEFINITION   ({})", status.at)
        }
        false => {
            writeln!(out, "{}: {}   ({})", count(machines.len(), "machine"), parts.join(", "), status.at)
        }
    };
    let vault = &status.vault;
    let percent = u128::from(vault.free.0) * 100 / u128::from(vault.size.0.max(1));
    out.push_str(&wrapped(
        "",
        0,
        &format!("Vault {}: {} of {} free ({percent} %)", vault.folder, vault.free, vault.size),
    ));
    let coverage = &status.coverage;
    if coverage.scheduled > 0 || coverage.proven > 0 {
        let unproven = coverage.scheduled.saturating_sub(coverage.proven);
        let open = if unproven > 0 { format!("; {unproven} not, or too long ago") } else { String::new() };
        let _ =
            writeln!(out, "Seen to boot: {} of {}{open}", coverage.proven, count(machines.len(), "machine"));
    }
    let sent: Vec<_> = machines.iter().filter(|machine| !machine.sends.is_empty()).collect();
    if !sent.is_empty() {
        let is_there = |send: &SendStatus| send.at.is_some() && send.failed.is_none() && !send.late;
        let there = sent.iter().filter(|machine| machine.sends.iter().all(is_there)).count();
        let behind = if there < sent.len() { "; the others are behind" } else { "" };
        let _ =
            writeln!(out, "At another landfall, too: {there} of {}{behind}", count(sent.len(), "machine"));
    }
    if !machines.is_empty() {
        out.push('\n');
        let mut order: Vec<&MachineStatus> = machines.iter().collect();
        order.sort_by_key(|machine| (std::cmp::Reverse(machine.protection), &machine.name));
        let rows: Vec<[String; 8]> = order.iter().map(|machine| row(machine)).collect();
        let heads = [
            ("MACHINE", Side::Left),
            ("PROTECTION", Side::Left),
            ("RPO NOW", Side::Right),
            ("MOST", Side::Right),
            ("P95", Side::Right),
            ("POINTS", Side::Right),
            ("OLDEST", Side::Left),
            ("NEWEST", Side::Left),
        ];
        let drawn = table(heads, &rows, NAME);
        // Reasons stand below their rows; a long name has a line of its own before them.
        let mut lines = drawn.lines();
        let _ = writeln!(out, "{}", lines.next().unwrap_or_default());
        for (machine, [name, ..]) in order.iter().zip(&rows) {
            for _ in 0..=usize::from(unicode_width::UnicodeWidthStr::width(name.as_str()) > NAME) {
                let _ = writeln!(out, "{}", lines.next().unwrap_or_default());
            }
            if machine.protection != Protection::Protected {
                out.push_str(&wrapped("", 4, &machine.because));
            }
        }
    }
    let alarms: Vec<&Alarm> = status.alarms.iter().collect();
    out.push_str(&alarms_text(&alarms, status));
    out
}

fn row(machine: &MachineStatus) -> [String; 8] {
    let age = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), shown::span);
    let moment = |moment| Option::map_or(moment, "-".to_owned(), shown::minute);
    [
        machine.name.clone(),
        word(machine.protection).to_owned(),
        age(machine.rpo.actual),
        whole_span(machine.rpo.target),
        age(machine.rpo.p95),
        machine.points.to_string(),
        moment(machine.oldest),
        moment(machine.newest),
    ]
}

/// What is wrong, each with what to do about it.
pub fn alarms_text(alarms: &[&Alarm], status: &Status) -> String {
    let mut out = String::new();
    if alarms.is_empty() {
        return out;
    }
    let _ = writeln!(out, "\n{}", count(alarms.len(), "alarm"));
    for alarm in alarms {
        out.push_str(&alarm_text(
            alarm,
            &format!("since {} ({})", alarm.since, shown::between(alarm.since, status.at)),
        ));
    }
    out
}

/// An alarm in three lines or more.
pub fn alarm_text(alarm: &Alarm, when: &str) -> String {
    let gravity = match alarm.gravity {
        Gravity::Critical => "CRITICAL",
        Gravity::Warning => "warning ",
    };
    let machine = alarm.machine.as_ref().map(|machine| format!("{machine}, ")).unwrap_or_default();
    let mut out = format!("  {gravity}  {machine}{when} [{}]\n", alarm.id);
    out.push_str(&wrapped("", 12, &alarm.says));
    out.push_str(&wrapped("       fix: ", 12, &alarm.remedy));
    out
}

/// What the last delta of a disk was.
fn fed(disk: &DiskStatus, status: &Status) -> String {
    let Some(delta) = &disk.delta else { return String::new() };
    let way = match delta.way.as_str() {
        "rbd" => "RBD",
        "drop" => "drops",
        "pull" => "pulls",
        other => other,
    };
    let source = delta.source.as_ref().map(|source| format!(" {source:?}")).unwrap_or_default();
    let point = delta.point.map(|point| format!(", point {point}")).unwrap_or_default();
    let ago = delta.at.map(|at| format!(", {} ago", shown::between(at, status.at))).unwrap_or_default();
    let colon = if delta.source.is_some() { ":" } else { "" };
    let unverified = if delta.unverified { "; not compared with a digest" } else { "" };
    format!("fed by {way}{colon}{source}{point}{ago}{unverified}")
}

fn proof_text(proof: &ProofStatus, now: Moment) -> String {
    let every = proof.every.map(|every| format!(", every {}", whole_span(every)));
    let every = every.unwrap_or_default();
    let Some(last) = &proof.last else { return format!("none yet{every}") };
    let seen = &last.evidence;
    let word = seen.outcome.word();
    let login =
        seen.seconds_to_login.map(|seconds| format!(", login after {seconds:.0} s")).unwrap_or_default();
    let mut out = format!(
        "point {} {word} on {} {} ago{login}{every}: {}",
        last.point,
        seen.target,
        shown::between(seen.at, now),
        seen.says
    );
    match &proof.booted {
        Some(booted) if booted.evidence.at != seen.at => {
            let _ = write!(out, "; the last that booted is {} of {}", booted.point, booted.evidence.at);
        }
        Some(_) => {}
        None => out.push_str("; none has booted yet"),
    }
    out
}

fn sent_text(send: &SendStatus, now: Moment) -> String {
    let there = match (send.point, send.at) {
        (Some(point), Some(at)) => format!("point {point} arrived {} ago", shown::between(at, now)),
        _ => "nothing has arrived yet".to_owned(),
    };
    let late = if send.late { ", LATE" } else { "" };
    let failed = send.failed.as_ref().map(|why| format!("; the last send failed: {why}")).unwrap_or_default();
    format!("{}: {there}{late}{failed}", send.to)
}

fn machine_text(one: &MachineShown, status: &Status, alarms: &[&Alarm]) -> String {
    let machine = &one.machine;
    let mut out = String::new();
    let mut line = |name: &str, text: &str| out.push_str(&wrapped(&format!("{name:<12}"), 12, text));
    line(&machine.name, &format!("{}: {}", word(machine.protection), machine.because));
    let rpo = &machine.rpo;
    let most = format!("{} at most", whole_span(rpo.target));
    let now = rpo.actual.map(|actual| format!("{} now, ", shown::span(actual))).unwrap_or_default();
    let usual =
        rpo.p95.map(|p95| format!(", {} for 95 % of the last day", shown::span(p95))).unwrap_or_default();
    line("RPO", &format!("{now}{most}{usual}"));
    line(
        "points",
        &match (machine.oldest, machine.newest) {
            (Some(oldest), Some(newest)) => format!("{}, from {oldest} to {newest}", machine.points),
            _ => "none".to_owned(),
        },
    );
    if let Some(group) = &machine.group {
        line("group", group);
    }
    if let Some((role, at)) = machine.role.as_ref().and_then(|role| Some((role, role.promoted_at?))) {
        let holder = role.holder.as_deref().unwrap_or_default();
        line(
            "promoted",
            &format!(
                "{at} from point {}, to {holder} (epoch {})",
                role.point.unwrap_or_default(),
                role.epoch
            ),
        );
    }
    if let Some(proof) = &machine.proof {
        line("proof", &proof_text(proof, status.at));
    }
    for prepared in &machine.prepared {
        line(
            "prepared",
            &format!(
                "for {}: point {} of {} (landfall recover {} --at prepared)",
                prepared.target, prepared.point, prepared.at, machine.name
            ),
        );
    }
    for send in &machine.sends {
        line("sent to", &sent_text(send, status.at));
    }
    let defined = match (machine.defined, one.variables) {
        (true, true) => "known, with its UEFI variables".to_owned(),
        (true, false) => "known".to_owned(),
        (false, _) => format!(
            "NOT known: a recovery has to guess processors, memory and cards (landfall protect {} DEFINITION)",
            machine.name
        ),
    };
    line("definition", &defined);
    for disk in &machine.disks {
        let stream = match (disk.connections, &disk.from) {
            (0, _) if disk.delta.is_some() => fed(disk, status),
            (0, _) => "nobody sends it".to_owned(),
            (connections, from) => {
                format!("{} from {}", count(connections, "connection"), from.as_deref().unwrap_or("somebody"))
            }
        };
        let written =
            disk.written.map(|written| format!(", last write {} ago", shown::between(written, status.at)));
        let copying = disk.copying.as_ref().map(|why| format!("; being copied: {why}"));
        let _ = write!(
            out,
            "{}",
            wrapped(
                "disk",
                12,
                &format!(
                    "{}, {}: {stream}{}{}",
                    disk.name,
                    disk.size,
                    written.unwrap_or_default(),
                    copying.unwrap_or_default()
                )
            )
        );
    }
    if let Some(says) = &machine.receiving {
        out.push_str(&wrapped("receiving", 12, says));
    }
    for inlet in &one.receive {
        for (place, uri) in inlet.uris.iter().enumerate() {
            let name = if place == 0 { format!("{} to", inlet.disk) } else { String::new() };
            // To be copied: never broken.
            let _ = writeln!(out, "{name:<12}{uri}");
        }
    }
    out.push_str(&alarms_text(alarms, status));
    out
}
