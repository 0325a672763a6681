//! What is done with points by the clock, ahead of the day on which they are needed: they are booted in isolation, and patched.
//!
//! ```text
//! due? -> landfall prove point:M@N    (a process of its own) -> evidence, attached to the point over the API -> status, alarms
//! due? -> landfall recover M --prepare (likewise)            -> .prepared, the point is held               -> status, alarms
//! ```
//! A process of its own, because what is in a guest is hostile, and a trial that dies must not take the service with it. One trial at a
//! time, and one preparation: machines stand in line, the most overdue first.
//!
//! Absent: how it is done, which is the same as by hand (`ops::prove`, `ops::recover`).

mod trial;

pub use trial::serve;

use super::watched::Watched;
use super::{Service, now};
use crate::moment::Moment;
use crate::name::Name;
use crate::recovery::{self, Patched};
use crate::report::protection::{Evidence, Point, PreparedPoint, Proven, ProvenPoint};
use landfall_image::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trial::Running;

/// How often it is looked at what is due.
const TICK: Duration = Duration::from_secs(1);
/// How soon a trial that could not run is tried again, at the earliest.
const AGAIN: Duration = Duration::from_secs(600);
/// What looking into a guest and patching it may take, besides a trial's own time: emulated, on a busy machine.
const PATCHING: Duration = Duration::from_secs(3600);

/// Why it did not work, out of the document of a run that failed.
fn why(document: &serde_json::Value) -> String {
    if let Some(says) = document["error"]["says"].as_str() {
        let hint = document["error"]["hint"].as_str().map(|hint| format!(" ({hint})"));
        return format!("{says}{}", hint.unwrap_or_default());
    }
    let blocks = document["findings"].as_array().into_iter().flatten().find(|it| it["severity"] == "blocks");
    match blocks.and_then(|finding| finding["says"].as_str()) {
        Some(says) => says.to_owned(),
        None => {
            "it ended without saying why; by hand, landfall prove and landfall recover --prepare say more"
                .to_owned()
        }
    }
}

impl Service {
    /// A trial from its start to its end: its document, and whether all went well.
    fn trial(&self, arguments: &[&str], within: Duration) -> Result<(serde_json::Value, bool)> {
        let running =
            Running::start(self.config.drill.through.as_deref(), &self.config.api_socket(), arguments)?;
        running.finish(&|| self.is_stopping(), within)
    }

    /// Boots points until the service stops. Takes a thread.
    pub fn prove_points(&self) {
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            let Some((name, watched)) = self.most_overdue(|name, watched| self.proof_due(name, watched))
            else {
                continue;
            };
            let Some(point) = self.points(&name).ok().and_then(|points| points.last().cloned()) else {
                continue;
            };
            if let Err(error) = self.prove_point(&name, &watched, &point) {
                tracing::error!(machine = %name, point = point.number, %error, "what came of a trial boot cannot be kept");
            }
        }
    }

    /// The machine whose time was first, and is over.
    fn most_overdue(&self, due: impl Fn(&Name, &Watched) -> Option<u64>) -> Option<(Name, Arc<Watched>)> {
        let machines = self.watched().into_iter();
        let due = machines.filter_map(|(name, watched)| Some((due(&name, &watched)?, name, watched)));
        let (_, name, watched) = due.filter(|(at, ..)| *at <= now()).min_by_key(|(at, ..)| *at)?;
        Some((name, watched))
    }

    /// When the next trial is due, in milliseconds since 1970.
    fn proof_due(&self, name: &Name, watched: &Watched) -> Option<u64> {
        let every = self.config.protect(name).prove?;
        watched.points().last()?;
        let [last, _] = watched.proofs();
        Some(last.map_or(0, |last| {
            let wait = match last.evidence.outcome {
                Proven::CouldNotRun => every.min(AGAIN),
                _ => every,
            };
            last.evidence.at.0.saturating_add(ms(wait))
        }))
    }

    fn prove_point(&self, name: &Name, watched: &Watched, point: &Point) -> Result<()> {
        let drill = &self.config.drill;
        let of_machine = drill.evidence.join(name.as_str());
        let began = Moment::now();
        let folder = of_machine.join(format!("{}-{}", began.0, point.number));
        tracing::info!(machine = %name, point = point.number, target = drill.target, "a trial boot begins");
        let tried = || -> Result<(serde_json::Value, bool)> {
            let made = std::fs::create_dir_all(&of_machine);
            made.map_err(|error| Error::io("cannot make the folder", error).in_file(&of_machine))?;
            let source = format!("point:{name}@{}", point.number);
            let within = drill.within.as_secs().to_string();
            let place = folder.to_str().ok_or_else(|| Error::unsupported("is not UTF-8").in_file(&folder))?;
            let arguments = ["prove", &source, "--to", &drill.target, "--timeout", &within, "-o", place];
            self.trial(&arguments, drill.within * 2 + PATCHING)
        };
        let ended = tried();
        tidy(&of_machine, drill.keep);
        let failed = match ended {
            // What it saw it has attached to the point itself.
            Ok(_) if watched.proofs()[0].as_ref().is_some_and(|last| last.evidence.at >= began) => {
                return Ok(());
            }
            Ok((document, _)) => why(&document),
            Err(error) if error.kind() == Kind::Interrupted => return Ok(()),
            Err(error) => error.to_string(),
        };
        let evidence = Evidence {
            at: Moment::now(),
            target: drill.target.clone(),
            outcome: Proven::CouldNotRun,
            says: failed,
            seconds_to_login: None,
            accelerator: None,
            folder: folder.display().to_string(),
        };
        self.attach_proof(name, point.number, &evidence)
    }

    /// Attaches what a trial boot of a point showed to it. Nothing that is attached is ever taken away.
    ///
    /// # Errors
    /// Refused where there is no such machine.
    pub fn attach_proof(&self, name: &Name, number: u64, evidence: &Evidence) -> Result<()> {
        let watched = self.machine(name)?;
        self.catalog.add_evidence(name.as_str(), &watched.machine().home().machine, number, evidence)?;
        match evidence.outcome {
            Proven::Booted => {
                tracing::info!(machine = %name, point = number, "a point has booted: {}", evidence.says)
            }
            Proven::CouldNotRun => {
                tracing::warn!(machine = %name, point = number, "a point could not be tried, which says nothing about it: {}", evidence.says)
            }
            Proven::Blocked => {
                tracing::warn!(machine = %name, point = number, "a point cannot be recovered: {}", evidence.says)
            }
            _ => tracing::warn!(machine = %name, point = number, "a point has not booted: {}", evidence.says),
        }
        watched.proven(&ProvenPoint { point: number, evidence: evidence.clone() });
        Ok(())
    }

    /// Patches points ahead until the service stops. Takes a thread.
    pub fn prepare_points(&self) {
        let mut last: BTreeMap<Name, u64> = BTreeMap::new();
        for (name, watched) in self.watched() {
            watched.prepared(Ok(self.prepared_of(&name)));
        }
        let every = ms(self.config.drill.prepare_every);
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            let due = |name: &Name, watched: &Watched| {
                let wanted = !self.config.protect(name).prepare.is_empty() && !watched.points().is_empty();
                wanted.then(|| last.get(name).map_or(0, |last| last.saturating_add(every)))
            };
            let Some((name, watched)) = self.most_overdue(due) else { continue };
            last.insert(name.clone(), now());
            let Some(point) = self.points(&name).ok().and_then(|points| points.last().cloned()) else {
                continue;
            };
            // What is there already needs no other.
            let missing = |target: &&String| {
                !watched.ahead().0.iter().any(|there| there.target == **target && there.point == point.number)
            };
            let targets = &self.config.protect(&name).prepare;
            let done = targets
                .iter()
                .filter(missing)
                .try_for_each(|target| self.prepare_point(&name, &point, target));
            match &done {
                Err(error) if error.kind() == Kind::Interrupted => return,
                Err(error) => {
                    tracing::error!(machine = %name, point = point.number, %error, "a point cannot be patched ahead")
                }
                Ok(()) => tracing::info!(machine = %name, point = point.number, "a point is patched ahead"),
            }
            watched.prepared(done.map(|()| self.prepared_of(&name)));
        }
    }

    fn prepare_point(&self, name: &Name, point: &Point, target: &str) -> Result<()> {
        let recovered = &self.config.drill.recovered;
        let number = point.number.to_string();
        let output =
            recovered.to_str().ok_or_else(|| Error::unsupported("is not UTF-8").in_file(recovered))?;
        let arguments =
            ["recover", name.as_str(), "--at", &number, "--to", target, "--prepare", "-o", output];
        let (document, is_done) = self.trial(&arguments, PATCHING)?;
        let folder = document["folder"].as_str().filter(|_| is_done);
        let folder = folder.ok_or_else(|| Error::refused(why(&document)))?;
        // It is of use as long as its point is there.
        self.hold(name, point.number, folder)?;
        for (holder, number, old) in self.ours(name) {
            if old.as_ref().is_none_or(|old| old.target == target) && number != point.number {
                old.map_or(Ok(()), |old| old.remove(&holder))?;
                self.release(name, number, &holder.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Takes away what was patched ahead of a machine's points by this service.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub(super) fn drop_prepared(&self, name: &Name) -> Result<()> {
        for (holder, point, old) in self.ours(name) {
            old.map_or(Ok(()), |old| old.remove(&holder))?;
            self.release(name, point, &holder.display().to_string())?;
        }
        Ok(())
    }

    /// What was patched ahead by this service, by its holds: where, of which point, and what it is, if it is there.
    fn ours(&self, name: &Name) -> Vec<(PathBuf, u64, Option<Patched>)> {
        let folder = recovery::prepared_folder(&self.config.drill.recovered);
        let folder = folder.canonicalize().unwrap_or(folder);
        let Ok(watched) = self.machine(name) else { return Vec::new() };
        let held = watched.machine().holds().all().into_iter();
        held.map(|hold| (PathBuf::from(hold.holder), hold.point))
            .filter(|(holder, _)| holder.parent() == Some(folder.as_path()))
            .map(|(holder, point)| {
                let read = Patched::read(&holder).ok();
                (holder, point, read)
            })
            .collect()
    }

    fn prepared_of(&self, name: &Name) -> Vec<PreparedPoint> {
        let there = self.ours(name).into_iter().filter_map(|(_, _, patched)| patched);
        there.map(|it| PreparedPoint { target: it.target, point: it.point, at: it.at }).collect()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Keeps the files of the last trials of a machine. Folders of trials are named after the moment of their beginning.
fn tidy(of_machine: &Path, keep: usize) {
    let began = |name: &str| name.split_once('-')?.0.parse::<u64>().ok();
    let mut trials: Vec<(u64, PathBuf)> = std::fs::read_dir(of_machine)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((began(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    trials.sort();
    let old = trials.len().saturating_sub(keep);
    for (_, folder) in trials.drain(..old) {
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "the files of an older trial boot cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_last_trials_stay_and_what_is_no_trial_too() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["900-7", "1000-9", "1001-8", "notes", "x-1"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        tidy(dir.path(), 2);
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["1000-9", "1001-8", "notes", "x-1"]);
    }

    #[test]
    fn why_a_run_failed_is_found_in_its_document() {
        for (document, says) in [
            (serde_json::json!({"error": {"says": "a", "hint": "b"}}), "a (b)"),
            (
                serde_json::json!({"findings": [{"severity": "note", "says": "n"}, {"severity": "blocks", "says": "c"}]}),
                "c",
            ),
            (serde_json::Value::Null, "without saying why"),
        ] {
            assert!(why(&document).contains(says), "{document}");
        }
    }
}
