//! `landfall batch`: a table that lives while machines are converted, and what became of them.

use super::args::Batch;
use super::machine::target;
use super::text::{self, findings, print_json, say};
use super::{Surroundings, register};
use crate::event::{Event, FleetObserver, MachineEvent};
use crate::ops::batch::{self, BatchReport, Fleet, Options, Outcome};
use crate::ops::{Context, Failure};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use landfall_image::Bytes;
use landfall_image::convert::{Progress, RateLimit};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Converts the fleet of a file.
pub fn run(
    args: &Batch,
    as_json: bool,
    quiet: bool,
    context: &Context<'_>,
    surroundings: &Surroundings,
) -> Result<u8, Failure> {
    let to = args.to.as_deref().map(target).transpose()?;
    let mut fleet = batch::load(&args.fleet, args.output.as_deref(), to)?;
    if let Some(count) = args.machines {
        fleet.machines_at_once = Some(usize::from(count));
    }
    let mut context = context.watched_by(context.observer);
    // The command line counts before the file.
    context.rate_limit = context.rate_limit.or(fleet.rate_limit.map(RateLimit::new));
    let options = Options {
        replace: args.replace,
        dry_run: args.dry_run,
        register: args.register.as_ref().map(|at| register::wanted(at, &args.place, surroundings)),
    };
    let table = Table::new(&fleet, quiet || as_json);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| table.draw());
        let report = batch::run(&context, &fleet, &options, &table);
        table.end();
        report
    })?;
    if as_json {
        print_json(&report)?;
    } else {
        text::print(&summary(&report, args.dry_run))?;
    }
    Ok(report.exit_code())
}

/// What became of the fleet, the failures last, where they are seen.
fn summary(report: &BatchReport, dry_run: bool) -> String {
    let mut out = String::new();
    let totals = &report.totals;
    let mut order: Vec<_> = report.machines.iter().collect();
    order.sort_by_key(|one| match one.outcome {
        Outcome::Done | Outcome::AlreadyDone | Outcome::Planned => 0,
        Outcome::Refused => 1,
        Outcome::NotStarted => 2,
        Outcome::Failed => 3,
    });
    for one in order {
        let detail = match one.outcome {
            Outcome::Done => format!(" in {:.1} s, {} written", one.seconds, one.written),
            Outcome::Planned => format!(", {} of data on {}", one.data, one.virtual_size),
            _ => String::new(),
        };
        let _ = writeln!(out, "{:<24} {}{detail}{}", one.name, one.outcome.says(), one.registered());
        if let Some(error) = &one.error {
            let _ = writeln!(out, "    {error}");
        }
        if let Some(hint) = &one.hint {
            let _ = writeln!(out, "    hint: {hint}");
        }
        let of_note: Vec<_> = one
            .findings
            .iter()
            .filter(|finding| dry_run || finding.severity != landfall_boot::check::Severity::Notes)
            .cloned()
            .collect();
        findings(&of_note, &mut |line| {
            let _ = writeln!(out, "  {line}");
        });
        if let Some(plan) = &one.plan {
            for edit in &plan.edits {
                let _ = writeln!(out, "    {}: {}", edit.path, edit.what);
            }
        }
    }
    let all = report.machines.len();
    let _ = writeln!(
        out,
        "\n{} of {all} {}; {} refused, {} failed, {} not started.",
        totals.done,
        if dry_run { "can be converted" } else { "are done" },
        totals.refused,
        totals.failed,
        totals.not_started
    );
    let _ = match dry_run {
        true => writeln!(
            out,
            "At most {} are needed in {}, and {} for each machine under way; {} are free.",
            totals.data,
            report.output,
            batch::SCRATCH_EACH,
            report.free
        ),
        false => writeln!(
            out,
            "{} written in {:.1} s. The report is {}/batch-report.html.",
            totals.written, report.seconds, report.output
        ),
    };
    out
}

/// The machines under way, on a terminal; lines elsewhere.
struct Table {
    quiet: bool,
    names: Vec<String>,
    bars: Option<MultiProgress>,
    rows: Mutex<BTreeMap<usize, Row>>,
    /// Ended, and bytes read by the copies that ended.
    ended: Mutex<(usize, u64)>,
    over: AtomicBool,
}

struct Row {
    bar: ProgressBar,
    says: String,
    copy: Option<Progress>,
}

impl Table {
    fn new(fleet: &Fleet, quiet: bool) -> Table {
        let name = |entry: &batch::Entry| match &entry.name {
            Some(name) => name.clone(),
            None => entry.source.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let on_terminal = !quiet && std::io::stderr().is_terminal();
        Table {
            quiet,
            names: fleet.machines.iter().map(name).collect(),
            bars: on_terminal
                .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10))),
            rows: Mutex::default(),
            ended: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Refreshes the rows until the batch is over.
    fn draw(&self) {
        let Some(bars) = &self.bars else { return };
        let total = bars.add(ProgressBar::new(self.names.len() as u64));
        if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos} of {len} machines, {elapsed} {msg}")
        {
            total.set_style(style.progress_chars("=> "));
        }
        let (mut last, mut rate) = (0, 0);
        while !self.over.load(Ordering::Relaxed) {
            let (ended, mut read) = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            for row in self.rows.lock().unwrap_or_else(PoisonError::into_inner).values() {
                let Some(copy) = &row.copy else { continue };
                let now = copy.snapshot();
                read += now.read.0;
                if now.size.0 > 0 {
                    row.bar.set_message(format!(
                        "{} {:>3.0}%, {} of {}",
                        row.says,
                        now.fraction() * 100.0,
                        now.read,
                        now.total
                    ));
                }
            }
            // Four looks a second; a rate that does not jump.
            rate = (rate * 3 + read.saturating_sub(last) * 4) / 4;
            last = read;
            total.set_position(ended as u64);
            total.set_message(format!("{}/s", Bytes(rate)));
            std::thread::sleep(Duration::from_millis(250));
        }
        let _ = bars.clear();
    }
}

impl FleetObserver for Table {
    fn machine(&self, index: usize, event: MachineEvent) {
        if self.quiet {
            return;
        }
        let name = self.names.get(index).map_or("", String::as_str);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match (event, &self.bars) {
            (MachineEvent::Ended(line), bars) => {
                let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
                ended.0 += 1;
                if let Some(row) = rows.remove(&index) {
                    ended.1 += row.copy.map_or(0, |copy| copy.snapshot().read.0);
                    row.bar.finish_and_clear();
                }
                let line = format!("[{}/{}] {line}", ended.0, self.names.len());
                match bars {
                    Some(bars) => drop(bars.println(text::plain(&line))),
                    None => say(&line),
                }
            }
            (_, None) => {}
            (MachineEvent::Began, Some(bars)) => {
                let bar = bars.insert(0, ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("  {prefix:24!} {msg}") {
                    bar.set_style(style);
                }
                bar.set_prefix(text::plain(name));
                rows.insert(index, Row { bar, says: String::new(), copy: None });
            }
            (MachineEvent::Event(event), Some(_)) => {
                let Some(row) = rows.get_mut(&index) else { return };
                match event {
                    Event::Step(says) => row.bar.set_message(text::plain(&says)),
                    Event::CopyStarted { disk, progress } => {
                        row.says = text::plain(&disk);
                        let before = row.copy.replace(progress);
                        let read = before.map_or(0, |copy| copy.snapshot().read.0);
                        self.ended.lock().unwrap_or_else(PoisonError::into_inner).1 += read;
                    }
                    Event::CopyFinished => {}
                }
            }
        }
    }
}
