//! Many machines: a queue that converts several at once within limits, goes on when one of them fails, and picks up where a
//! killed run ended.
//!
//! ```text
//! fleet file -> survey: load each, find collisions, skip what is done -> queue: convert, as room allows -> one report
//! ```
//! Nothing is kept between runs but the machines themselves: a machine whose folder is there, with the digest of its source and
//! options in its report, is done. Deliberately absent: an order among machines (recovery plans have one), and machines on
//! several hosts at once.

mod file;
mod pattern;
mod report;
mod survey;

pub(crate) use file::WrittenFleet;
pub use file::{Entry, Fleet, load};
pub use report::{BatchReport, MachineReport, Outcome, Totals};

use super::{Context, Failure, convert, inspect, register};
use crate::event::{FleetObserver, MachineEvent, OneOf};
use crate::registrar;
use crate::report::{Inspected, registration};
use landfall_image::create::{CreateOptions, FileOptions};
use landfall_image::{Bytes, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use survey::Surveyed;

/// Room that one machine's overlays take at most in practice: every initramfs of a guest written anew.
pub const SCRATCH_EACH: Bytes = Bytes::gib(1);

/// Machines that are converted at once where nobody says how many.
const AT_ONCE: usize = 4;

/// How a batch runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Replace earlier results of the same names that were made of something else.
    pub replace: bool,
    /// Plan only, and say how much room is needed.
    pub dry_run: bool,
    /// Where its machines are registered, each once it is converted.
    pub register: Option<registrar::Wanted>,
}

/// Converts a fleet. One machine's failure stops no other; what became of each is in the report, which also lies in the output
/// folder, for programs and for people.
///
/// # Errors
/// Only what stands in the way of all: the output folder cannot be made, the report cannot be written, the hypervisor that is to
/// register them cannot be reached.
pub fn run(
    context: &Context<'_>,
    fleet: &Fleet,
    options: &Options,
    observer: &dyn FleetObserver,
) -> Result<BatchReport> {
    let began = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let files = FileOptions { replace: options.replace, ..FileOptions::default() };
    let create = CreateOptions { files, ..CreateOptions::default() };
    let surveyed = survey::survey(
        &context.watched_by(&crate::event::Silent),
        fleet,
        &create,
        options.register.as_ref(),
    )?;
    let free = survey::free(&fleet.output)?;
    let queue = Queue {
        context,
        fleet,
        options,
        create,
        observer,
        next: AtomicUsize::new(0),
        room: Mutex::default(),
        changed: Condvar::new(),
        surveyed: &surveyed,
    };
    let results: Mutex<Vec<Option<MachineReport>>> =
        Mutex::new(fleet.machines.iter().map(|_| None).collect());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers =
        fleet.machines_at_once.unwrap_or(processors.min(AT_ONCE)).clamp(1, fleet.machines.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((index, report)) = queue.work() {
                    results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(report);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let machines = results
        .into_iter()
        .enumerate()
        .map(|(index, report)| report.unwrap_or_else(|| queue.blank(index, Outcome::NotStarted)));
    let report =
        BatchReport::new(started, began.elapsed(), &fleet.output, free, options.dry_run, machines.collect());
    if !options.dry_run {
        report.write(&fleet.output)?;
    }
    Ok(report)
}

/// What the machines under way take.
#[derive(Debug, Default, PartialEq, Eq)]
struct Room {
    running: usize,
    /// Bytes of the output folder that they may still fill.
    reserved: u64,
    /// Bytes that their overlays may take.
    scratch: u64,
}

/// Whether another machine may begin.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Begin,
    /// Others have to end first.
    Wait,
    /// It has no room even alone.
    Never,
}

impl Room {
    /// For a machine that needs `need` bytes where `free` are free and overlays may take `scratch_at_most`. One alone is only
    /// refused what cannot be.
    fn verdict(&self, need: u64, free: u64, scratch_at_most: u64) -> Verdict {
        let scratch = self.scratch.saturating_add(SCRATCH_EACH.0);
        match self.running {
            0 if need <= free => Verdict::Begin,
            0 => Verdict::Never,
            _ if need <= free.saturating_sub(self.reserved) && scratch <= scratch_at_most => Verdict::Begin,
            _ => Verdict::Wait,
        }
    }

    fn enter(&mut self, need: u64) {
        self.running += 1;
        self.reserved = self.reserved.saturating_add(need);
        self.scratch = self.scratch.saturating_add(SCRATCH_EACH.0);
    }

    fn leave(&mut self, need: u64) {
        self.running = self.running.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(need);
        self.scratch = self.scratch.saturating_sub(SCRATCH_EACH.0);
    }
}

struct Queue<'a> {
    context: &'a Context<'a>,
    fleet: &'a Fleet,
    options: &'a Options,
    create: CreateOptions,
    observer: &'a dyn FleetObserver,
    next: AtomicUsize,
    room: Mutex<Room>,
    changed: Condvar,
    surveyed: &'a [std::result::Result<Surveyed, Failure>],
}

impl Queue<'_> {
    /// The next machine, done; `None` when there is no other, or the user has asked to stop.
    fn work(&self) -> Option<(usize, MachineReport)> {
        if self.context.cancel.is_cancelled() {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let surveyed = self.surveyed.get(index)?;
        self.observer.machine(index, MachineEvent::Began);
        let began = Instant::now();
        let mut report = match surveyed {
            Err(failure) | Ok(Surveyed { refused: Some(failure), .. }) => self.failed(index, failure),
            // A defect that one machine brings to light must not take the others along.
            Ok(one) => catch_unwind(AssertUnwindSafe(|| self.one(index, one))).unwrap_or_else(|_| {
                MachineReport { outcome: Outcome::Failed, ..self.failed(index, &unforeseen().into()) }
            }),
        };
        report.seconds = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.observer.machine(index, MachineEvent::Ended(report.line()));
        Some((index, report))
    }

    fn one(&self, index: usize, surveyed: &Surveyed) -> MachineReport {
        let watcher = OneOf { index, fleet: self.observer };
        let context = self.context.watched_by(&watcher);
        let register = surveyed.to_register(self.options.register.as_ref());
        let Some(entry) = self.fleet.machines.get(index) else {
            return self.blank(index, Outcome::NotStarted);
        };
        if self.options.dry_run {
            // Nor is what is registered there.
            let wanted = survey::wanted(entry, &self.create, register);
            // What is done already is no obstacle.
            let output = Some(self.fleet.output.as_path()).filter(|_| !surveyed.done);
            return match inspect::inspect(&context, &wanted, output) {
                Ok(inspected) => self.planned(index, inspected),
                Err(failure) => self.failed(index, &failure),
            };
        }
        if surveyed.done {
            return self.registered(&context, register, self.blank(index, Outcome::AlreadyDone));
        }
        let need = surveyed.data.0.saturating_add(SCRATCH_EACH.0);
        if let Err(error) = self.admit(need) {
            return self.failed(index, &error.into());
        }
        let wanted = survey::wanted(entry, &self.create, register);
        // Given back even where the conversion panics.
        let _leave = Leave { queue: self, need };
        match convert::convert(&context, &wanted, &self.fleet.output) {
            Err(failure) => self.failed(index, &failure),
            Ok(done) => {
                let report = MachineReport {
                    folder: Some(done.folder.display().to_string()),
                    findings: done.report.inspected.findings,
                    written: Bytes(done.report.written_disks.iter().map(|disk| disk.allocated.0).sum()),
                    ..self.blank(index, Outcome::Done)
                };
                self.registered(&context, register, report)
            }
        }
    }

    /// Registers a machine that is converted, where that is wanted. It stays converted, whatever comes of it.
    fn registered(
        &self,
        context: &Context<'_>,
        at: Option<&registrar::Wanted>,
        report: MachineReport,
    ) -> MachineReport {
        let Some(at) = at else { return report };
        let folder = report.folder.clone().unwrap_or_default();
        match register::register(context, Path::new(&folder), at, false) {
            Ok(done) => {
                let is_blocked = done.outcome != registration::Outcome::Registered;
                let mut findings = report.findings;
                findings.extend(done.findings.iter().cloned());
                MachineReport {
                    outcome: if is_blocked { Outcome::Failed } else { report.outcome },
                    error: is_blocked.then(|| NOT_REGISTERED.to_owned()),
                    findings,
                    registration: Some(done),
                    ..report
                }
            }
            Err(error) => MachineReport {
                outcome: Outcome::Failed,
                error: Some(format!("{NOT_REGISTERED}: {error}")),
                hint: error.hint_text().map(str::to_owned),
                ..report
            },
        }
    }

    /// Waits until there is room for a machine that needs `need` bytes.
    fn admit(&self, need: u64) -> Result<()> {
        let scratch = self.fleet.scratch_at_most.map_or(u64::MAX, |most| most.0);
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.context.check_cancelled()?;
            let free = survey::free(&self.fleet.output)?;
            match room.verdict(need, free.0, scratch) {
                Verdict::Begin => {
                    room.enter(need);
                    return Ok(());
                }
                Verdict::Wait => {}
                Verdict::Never => {
                    return Err(Error::refused(format!(
                        "may need {} with what is changed in it, and {free} are free",
                        Bytes(need)
                    ))
                    .in_file(&self.fleet.output)
                    .hint("free some space, or choose another folder with -o"));
                }
            }
            let waited = self.changed.wait_timeout(room, std::time::Duration::from_millis(500));
            room = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A report with what is known before anything is done.
    fn blank(&self, index: usize, outcome: Outcome) -> MachineReport {
        let entry = self.fleet.machines.get(index);
        let surveyed = self.surveyed.get(index).and_then(|one| one.as_ref().ok());
        let source = entry.map(|entry| entry.source.display().to_string()).unwrap_or_default();
        let folder = surveyed.map(|one| self.fleet.output.join(&one.name).display().to_string());
        MachineReport {
            name: surveyed.map_or_else(|| source.clone(), |one| one.name.clone()),
            source,
            target: entry.map(|entry| entry.target.name.to_owned()).unwrap_or_default(),
            outcome,
            folder: folder.filter(|_| outcome == Outcome::AlreadyDone),
            findings: Vec::new(),
            error: None,
            hint: None,
            virtual_size: surveyed.map_or(Bytes(0), |one| one.virtual_size),
            data: surveyed.map_or(Bytes(0), |one| one.data),
            written: Bytes(0),
            seconds: 0.0,
            registration: None,
            plan: None,
        }
    }

    fn failed(&self, index: usize, failure: &Failure) -> MachineReport {
        let outcome = if failure.exit_code() == 1 { Outcome::Refused } else { Outcome::Failed };
        let mut report = self.blank(index, outcome);
        match failure {
            Failure::Findings(findings) => report.findings.clone_from(findings),
            Failure::Error(error) => {
                report.error = Some(error.to_string());
                report.hint = error.hint_text().map(in_fleets_words);
            }
        }
        report
    }

    fn planned(&self, index: usize, inspected: Inspected) -> MachineReport {
        let blocks = inspected.is_blocked();
        MachineReport {
            findings: inspected.findings.clone(),
            plan: Some(inspected),
            ..self.blank(index, if blocks { Outcome::Refused } else { Outcome::Planned })
        }
    }
}

/// A hint that names options of `convert`, with the keys that stand for them in a fleet file.
fn in_fleets_words(hint: &str) -> String {
    const WORDS: &[(&str, &str)] = &[
        ("--skip-disk", "skip_disks"),
        ("--nvram", "nvram"),
        ("--disk", "disks"),
        ("--name", "name"),
        ("--snapshot", "snapshot"),
        ("--system", "system"),
        ("--configuration", "configuration"),
        ("--root", "root"),
    ];
    let keys: Vec<&str> =
        WORDS.iter().filter(|(option, _)| hint.contains(option)).map(|(_, key)| *key).collect();
    match keys.as_slice() {
        [] => hint.to_owned(),
        keys => format!("{hint} (in the fleet file: {} of the machine)", keys.join(", ")),
    }
}

const NOT_REGISTERED: &str = "it is converted, and not registered; a second run tries that again";

/// A defect of landfall itself.
fn unforeseen() -> Error {
    Error::refused("landfall failed in an unforeseen way on this machine")
        .hint("run landfall convert on it alone with -vv, and report what it prints")
}

/// Gives a machine's room back.
struct Leave<'a> {
    queue: &'a Queue<'a>,
    need: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.queue.room.lock().unwrap_or_else(PoisonError::into_inner).leave(self.need);
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_begin_as_room_allows() {
        let gib = |n: u64| n << 30;
        let mut room = Room::default();
        assert_eq!(room.verdict(gib(10), gib(9), u64::MAX), Verdict::Never);
        // Alone it may, whatever the limit for overlays says.
        assert_eq!(room.verdict(gib(10), gib(10), 1), Verdict::Begin);
        room.enter(gib(10));
        assert_eq!(room.verdict(gib(5), gib(14), u64::MAX), Verdict::Wait);
        assert_eq!(room.verdict(gib(5), gib(15), u64::MAX), Verdict::Begin);
        assert_eq!(room.verdict(gib(5), gib(15), gib(1)), Verdict::Wait);
        assert_eq!(room.verdict(gib(5), gib(15), gib(2)), Verdict::Begin);
        room.leave(gib(10));
        assert_eq!(room, Room::default());
    }
}
