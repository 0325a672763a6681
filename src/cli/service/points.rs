//! `landfall points`

use super::Run;
use super::protect::set_in_words;
use super::shown::{self, Side, count, table, wrapped};
use crate::cli::args::PointsVerb;
use crate::event::Event;
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::service::Service;
use crate::ops::source::point::{At, PointName, which};
use crate::report::api::{
    PointShown, SetPoint, Verdict, Verification, VerificationState, VerifiedDisk, Verify,
};
use crate::report::protection::{History, Point, Points, Proven, Statement};
use crate::service::evidence;
use crate::vault::journal::Consistency;
use landfall_image::convert::Progress;
use landfall_image::{Bytes, Error, Result};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// The newest points are shown one by one.
const NEWEST: usize = 12;
/// As many as this in a row, of which there is nothing to say, are one line.
const RUN: usize = 4;
/// How often it is asked how far a verification is.
const ASK: Duration = Duration::from_millis(300);

pub fn run(run: &Run<'_>, verb: &PointsVerb) -> Result<u8> {
    match verb {
        PointsVerb::List { name, all, since, until, at } => {
            let points = run.service(at)?.points(name, *since, *until)?;
            run.show(&points, |points| list_text(points, *all))?;
        }
        PointsVerb::Show { point, at } => {
            let PointName { machine, at: wanted } = point.named()?;
            let mut shown = run.service(at)?.point(&machine, &which(&wanted))?;
            if run.is_alone() {
                shown.disks.iter_mut().for_each(|disk| disk.uri.clear());
            }
            run.show(&shown, point_text)?;
        }
        PointsVerb::Create { name, tag, application, at } => {
            let consistency = if *application { Consistency::Application } else { Consistency::Crash };
            let wanted = SetPoint { consistency, tag: tag.clone() };
            run.show(&run.service(at)?.set_point(name, &wanted)?, set_in_words)?;
        }
        PointsVerb::Verify { point, background, last, at } => {
            let PointName { machine, at: wanted } = point.named()?;
            let service = run.service(at)?;
            let number = service.point(&machine, &which(&wanted))?.point.number;
            let how = Verify { rate_limit: run.rate_limit.map(|rate| rate.0) };
            let verification = match last {
                true => service.verification(&machine, number)?,
                false => {
                    let begun = service.verify(&machine, &number.to_string(), &how)?;
                    if *background { begun } else { wait(run, &service, &machine, begun)? }
                }
            };
            run.show(&verification, verification_text)?;
            return Ok(match (verification.state, verification.verdict) {
                (VerificationState::Done, Some(Verdict::Matched)) => 0,
                (VerificationState::Done, Some(Verdict::Differed)) => 1,
                (VerificationState::Done, _) => 2,
                (VerificationState::Waiting | VerificationState::Running, _) => 0,
            });
        }
        PointsVerb::Evidence { name, output, check, key, at } => {
            let history = match (check, name) {
                (Some(file), _) => history_in(file)?,
                (None, Some(name)) => run.service(at)?.evidence(name)?,
                (None, None) => return Err(Error::refused("no machine is named")),
            };
            let statements = evidence::check(&history, key.as_deref())?;
            if let Some(file) = output {
                let text = serde_json::to_vec_pretty(&history)
                    .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
                let mut new = std::fs::File::create_new(file)
                    .map_err(|error| Error::io("cannot make", error).in_file(file))?;
                std::io::Write::write_all(&mut new, &text)
                    .map_err(|error| Error::io("cannot write", error).in_file(file))?;
            }
            run.show(&history, |history| evidence_text(history, &statements))?;
        }
        // Also of a vault without a service: `cli::receive`.
        PointsVerb::Export(_) => {}
        PointsVerb::Tag { name, point, tag, remove, at } => {
            let (named, tag) = to_tag(name, point.as_deref(), tag.as_deref(), *remove)?;
            run.show(&run.service(at)?.tag(&named.machine, &which(&named.at), tag)?, set_in_words)?;
        }
        PointsVerb::Delete { name, point, at } => {
            let PointName { machine, at: wanted } =
                PointName::of_words(name, point.as_deref(), Moment::now())?;
            let service = run.service(at)?;
            let At::Number(number) = wanted else {
                return Err(only_numbers(&service.point(&machine, &which(&wanted))?, &wanted));
            };
            service.give_up(&machine, number)?;
            if !run.as_json {
                crate::cli::text::print(&format!(
                    "Point {number} of {machine} is given up; its room is given back by and by.\n"
                ))?;
            }
        }
    }
    Ok(0)
}

/// More is no history of one machine.
const HISTORY_AT_MOST: u64 = 256 << 20;

fn history_in(file: &Path) -> Result<History> {
    let source = landfall_image::Source::open(file)?;
    if source.len().0 > HISTORY_AT_MOST {
        return Err(Error::refused(format!("has {}, and is no evidence", source.len())).in_file(file));
    }
    let raw = source.head(usize::try_from(source.len().0).unwrap_or(usize::MAX))?;
    serde_json::from_slice(&raw).map_err(|error| {
        Error::corrupt(format!("is no evidence: {error}"))
            .in_file(file)
            .hint("name a file that landfall points evidence MACHINE --output has written")
    })
}

fn evidence_text(history: &History, statements: &[Statement]) -> String {
    if statements.is_empty() {
        return format!(
            "No point of {} was tried yet: landfall prove point:{}@latest\n",
            history.machine, history.machine
        );
    }
    let mut out = format!(
        "{} of {}, each as it was signed, none missing between them:\n",
        count(statements.len(), "statement"),
        history.machine
    );
    for statement in statements {
        let seen = &statement.evidence;
        let says = format!(
            "point {} of {}: {} on {}: {}",
            statement.point,
            seen.at,
            seen.outcome.word(),
            seen.target,
            seen.says
        );
        out.push_str(&wrapped(&format!("{:>4}  ", statement.number), 6, &says));
    }
    let mut keys: Vec<&str> = history.statements.iter().map(|signed| signed.key.as_str()).collect();
    keys.dedup();
    for key in keys {
        let _ = writeln!(out, "key   {key}");
    }
    out
}

/// The point that is to get a name, and the name; `None` where its own is taken back.
fn to_tag<'a>(
    name: &str,
    point: Option<&'a str>,
    tag: Option<&'a str>,
    remove: bool,
) -> Result<(PointName, Option<&'a str>)> {
    let (at, tag) = match (point, tag) {
        (Some(at), Some(tag)) => (Some(at), Some(tag)),
        (at, None) if remove => (at, None),
        // MACHINE@AT NAME
        (Some(tag), None) if name.contains('@') => (None, Some(tag)),
        _ => {
            return Err(Error::refused("nothing says which name the point is to get")
                .hint(format!("landfall points tag {name} POINT NAME; or --remove takes its name back")));
        }
    };
    if at.is_none() && !name.contains('@') {
        return Err(Error::refused(format!("nothing says which point of {name} is meant")).hint(format!(
            "landfall points tag {name} POINT --remove; landfall points list {name} shows them"
        )));
    }
    Ok((PointName::of_words(name, at, Moment::now())?, tag))
}

/// What is given up is gone: it is said by its number.
fn only_numbers(shown: &PointShown, wanted: &At) -> Error {
    let (number, machine) = (shown.point.number, &shown.machine);
    let says = format!("a point is given up by its number; {wanted} is point {number}, {}", shown.point.at);
    Error::refused(says).hint(match wanted {
        At::Latest => format!(
            "a machine keeps its newest point; landfall points list {machine} shows the numbers of the others"
        ),
        _ => format!("where that is the one: landfall points delete {machine} {number}"),
    })
}

/// Waits for the end of a verification; Ctrl-C leaves it to the service.
fn wait(run: &Run<'_>, service: &Service, machine: &Name, mut seen: Verification) -> Result<Verification> {
    let observer = run.context.observer;
    let mut drawn: Option<(String, Bytes, Progress)> = None;
    while seen.state != VerificationState::Done {
        if let Some(now) = &seen.progress {
            let is_same = drawn.as_ref().is_some_and(|(disk, ..)| *disk == now.disk);
            if !is_same && !now.disk.is_empty() {
                if drawn.take().is_some() {
                    observer.event(Event::CopyFinished);
                }
                let progress = Progress::default();
                let disk = format!("{} ({} of {})", now.disk, now.number, now.disks);
                observer.event(Event::CopyStarted { disk, progress: progress.clone() });
                drawn = Some((now.disk.clone(), Bytes(0), progress));
            }
            if let Some((_, total, progress)) = &mut drawn {
                if *total != now.total {
                    *total = now.total;
                    progress.start(now.total);
                    progress.advance(now.read);
                } else {
                    progress.advance(Bytes(now.read.0.saturating_sub(progress.snapshot().read.0)));
                }
            }
        }
        if run.context.cancel.is_cancelled() {
            return Err(Error::interrupted().hint(format!(
                "the service goes on with it: landfall points verify {} {} --last",
                seen.machine, seen.point
            )));
        }
        std::thread::sleep(ASK);
        seen = service.verification(machine, seen.point)?;
    }
    if drawn.is_some() {
        observer.event(Event::CopyFinished);
    }
    Ok(seen)
}

/// True where there is something to say of a point.
fn is_special(point: &Point) -> bool {
    point.tag.is_some()
        || point.proof.is_some()
        || point.verified.is_some()
        || point.consistency != Consistency::Crash
}

fn list_text(points: &Points, all: bool) -> String {
    let list = &points.points;
    let Some(last) = list.last() else {
        return format!("{} has no point; landfall status {} says why.\n", points.machine, points.machine);
    };
    let mut rows: Vec<[String; 3]> = Vec::new();
    let mut plain: Vec<&Point> = Vec::new();
    let tail = list.len().saturating_sub(NEWEST);
    let flush = |plain: &mut Vec<&Point>, rows: &mut Vec<[String; 3]>| {
        match plain[..] {
            [first, .., last] if !all && plain.len() >= RUN => rows.push(run_row(plain, first, last)),
            _ => rows.extend(plain.iter().map(|point| row(point))),
        }
        plain.clear();
    };
    for (at, point) in list.iter().enumerate() {
        if is_special(point) || at >= tail {
            flush(&mut plain, &mut rows);
            rows.push(row(point));
        } else {
            plain.push(point);
        }
    }
    flush(&mut plain, &mut rows);
    let mut out = table([("NUMBER", Side::Right), ("TIME", Side::Left), ("WHAT", Side::Left)], &rows, 12);
    let _ = writeln!(
        out,
        "{}, the newest {} old",
        count(list.len(), "point"),
        shown::between(last.at, Moment::now())
    );
    out
}

fn row(point: &Point) -> [String; 3] {
    let mut what: Vec<String> = Vec::new();
    what.extend(point.tag.as_ref().map(|tag| format!("{tag:?}")));
    if point.consistency == Consistency::Application {
        what.push("application-consistent".to_owned());
    }
    if let Some(verified) = &point.verified {
        let verdict = match verified.verdict {
            Verdict::Matched => "verified",
            Verdict::Differed => "DIFFERED",
            Verdict::CouldNotRun => "not verified (could not run)",
        };
        what.push(format!("{verdict} {}", shown::minute(verified.at)));
    }
    if let Some(proof) = &point.proof {
        let word = match proof.outcome {
            Proven::Booted => "booted",
            Proven::Stopped => "DID NOT BOOT",
            Proven::TimedOut => "DID NOT BOOT IN TIME",
            Proven::Blocked => "CANNOT BE RECOVERED",
            Proven::CouldNotRun => "could not be tried",
        };
        what.push(format!("{word} on {} {}", proof.target, shown::minute(proof.at)));
    }
    [point.number.to_string(), point.at.to_string(), what.join(", ")]
}

fn run_row(plain: &[&Point], first: &Point, last: &Point) -> [String; 3] {
    let mut gaps: Vec<u64> = plain.windows(2).map(|pair| pair[1].at.0.saturating_sub(pair[0].at.0)).collect();
    gaps.sort_unstable();
    let usual = Duration::from_millis(gaps.get(gaps.len() / 2).copied().unwrap_or_default()).as_secs_f64();
    let says = format!("{} to {}, one every {}", first.number, last.number, shown::span(usual));
    ["…".to_owned(), format!("to {}", last.at), format!("{} points, {says}", plain.len())]
}

fn point_text(shown: &PointShown) -> String {
    let point = &shown.point;
    let mut out = String::new();
    let [number, at, what] = row(point);
    let _ = writeln!(out, "Point {number} of {}, {at}", shown.machine);
    let consistency = match point.consistency {
        Consistency::Crash => "as after a loss of power: every write up to that moment, on all disks",
        Consistency::Application => "the applications had written down what they had in memory",
    };
    let _ = writeln!(out, "  {consistency}");
    if !what.is_empty() {
        let _ = writeln!(out, "  {what}");
    }
    if let Some(group) = point.group {
        let _ = writeln!(out, "  one cut with others of its group ({group})");
    }
    for disk in &shown.disks {
        let _ = writeln!(
            out,
            "disk {}, {}, sectors of {} bytes{}{}",
            disk.name,
            disk.size,
            disk.sector,
            disk.snapshot.as_ref().map(|name| format!(", the RBD snapshot {name:?}")).unwrap_or_default(),
            if disk.unverified { "; NOT compared with a digest" } else { "" },
        );
        if !disk.uri.is_empty() {
            let _ = writeln!(out, "    {}", disk.uri);
        }
    }
    let defined = match &shown.definition {
        Some(machine) => format!(
            "{}, {:?}, {} of {} memory, {}",
            machine.name,
            machine.firmware,
            count(usize::try_from(machine.cpus.count).unwrap_or(0), "processor"),
            machine.memory,
            count(machine.nics.len(), "card"),
        ),
        None => "not known: a recovery has to guess".to_owned(),
    };
    out.push_str(&wrapped("definition: ", 12, &defined));
    let _ = writeln!(out, "UEFI variables: {}", if shown.variables { "kept" } else { "none" });
    out
}

fn verification_text(seen: &Verification) -> String {
    let mut out = String::new();
    let place = format!("point {} of {}", seen.point, seen.machine);
    let Some(verdict) = seen.verdict.filter(|_| seen.state == VerificationState::Done) else {
        let far = seen.progress.as_ref().map(|now| {
            format!(" ({}, {} of {}: {} of {} read)", now.disk, now.number, now.disks, now.read, now.total)
        });
        return format!(
            "The verification of {place} is under way: {}{}\n",
            seen.says,
            far.unwrap_or_default()
        );
    };
    let head = match verdict {
        Verdict::Matched => "matched",
        Verdict::Differed => "DIFFERED",
        Verdict::CouldNotRun => "COULD NOT RUN",
    };
    out.push_str(&wrapped("", 0, &format!("{head}: {place}: {}", seen.says)));
    for disk in &seen.disks {
        out.push_str(&disk_text(disk));
    }
    match verdict {
        Verdict::Matched => {}
        Verdict::Differed => out.push_str(&wrapped(
            "fix: ",
            5,
            "Recover another point (landfall points list shows which were verified); check the medium of the vault. Damage of the base is in all \
             points of the machine that do not write over it: copy the machine anew.",
        )),
        Verdict::CouldNotRun => out.push_str(&wrapped("fix: ", 5, "See above why, and ask again.")),
    }
    out
}

fn disk_text(disk: &VerifiedDisk) -> String {
    let mut out = String::new();
    let digest = disk.digest.as_deref().unwrap_or("could not be digested");
    let _ = writeln!(out, "  {}, {}: {digest}", disk.name, disk.size);
    if let Some(earlier) = &disk.earlier {
        let _ = writeln!(out, "      was {earlier}");
    }
    if let Some(error) = &disk.error {
        out.push_str(&wrapped("", 6, error));
    }
    for damage in disk.damage.iter().take(10) {
        let _ = writeln!(out, "      damaged: {} at offset {}", Bytes(damage.length), damage.offset);
    }
    let more = disk.damage.len().saturating_sub(10) + disk.more_damage;
    if more > 0 {
        let _ = writeln!(out, "      and {more} more places (--json has the first hundred)");
    }
    out
}
