//! Watched folders: each is looked at again and again by a thread of its own; what stands in the way of a drop is an alarm until the drop is
//! taken, mended or gone.

use super::Service;
use super::alarms::Wrong;
use super::config::Folder;
use super::deltas::context;
use super::receipts::On;
use crate::name::Name;
use crate::receive::folder::{Became, Hands, Outcome, Trouble, Watcher};
use crate::report::protection::Gravity;
use crate::report::receiving::{Receipt, Received};
use landfall_image::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked whether a folder is due, or the service stops.
const TICK: Duration = Duration::from_millis(100);
/// A drop that waits longer than this for its seal has been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// A folder of the service's file.
#[derive(Debug)]
pub(super) struct Watching {
    config: Folder,
    /// One at a time looks at it; there once the folder is.
    watcher: Mutex<Option<Watcher>>,
    found: Mutex<Found>,
}

/// What the last look has found.
#[derive(Debug, Default)]
struct Found {
    /// Why it could not be looked at.
    trouble: Option<String>,
    drops: Vec<Outcome>,
    /// Drops that wait, since when.
    waiting: BTreeMap<PathBuf, Instant>,
}

impl Watching {
    pub(super) fn new(config: &Folder) -> Watching {
        Watching { config: config.clone(), watcher: Mutex::default(), found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, folder: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        self.config.path == folder || real(&self.config.path).is_some_and(|own| Some(own) == real(folder))
    }
}

/// The watchers of folders that are there at the start: for drops that were cut off.
pub(super) fn watchers(folders: &[Folder]) -> Vec<Watcher> {
    folders.iter().filter_map(|folder| Watcher::new(&folder.path, folder.options).ok()).collect()
}

impl Service {
    /// Looks at watched folders until the service stops. Takes a thread, and one for each folder.
    pub fn watch_folders(&self) {
        if self.folders.is_empty() {
            while !self.is_stopping() {
                std::thread::sleep(TICK);
            }
            return;
        }
        std::thread::scope(|scope| {
            for folder in &self.folders {
                scope.spawn(move || {
                    let mut next = Instant::now();
                    while !self.is_stopping() {
                        if Instant::now() >= next {
                            if let Err(error) = self.look_into(folder) {
                                tracing::warn!(folder = %folder.config.path.display(), %error, "a watched folder cannot be looked at");
                            }
                            next = Instant::now() + folder.config.every;
                        }
                        std::thread::sleep(TICK);
                    }
                });
            }
        });
    }

    /// Looks at a folder now.
    fn look_into(&self, folder: &Watching) -> Result<Vec<Outcome>> {
        let mut watcher = folder.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = self.scan_with(folder, &mut watcher);
        let mut found = folder.found();
        match &looked {
            Ok(drops) => {
                found.trouble = None;
                found.drops.clone_from(drops);
                let waits: BTreeSet<&PathBuf> = drops
                    .iter()
                    .filter(|drop| matches!(drop.became, Became::Waiting { .. }))
                    .map(|drop| &drop.drop)
                    .collect();
                found.waiting.retain(|path, _| waits.contains(path));
                for path in waits {
                    found.waiting.entry(path.clone()).or_insert_with(Instant::now);
                }
            }
            Err(_) if self.is_stopping() => {}
            Err(error) => {
                found.trouble = Some(error.to_string());
                // It may be another one when it is there again.
                *watcher = None;
            }
        }
        drop(found);
        looked
    }

    fn scan_with(&self, folder: &Watching, watcher: &mut Option<Watcher>) -> Result<Vec<Outcome>> {
        let watcher = match watcher {
            Some(watcher) => watcher,
            None => watcher.insert(Watcher::new(&folder.config.path, folder.config.options)?),
        };
        let context = context(&self.config, &self.deltas.cancel);
        let batches = &self.incoming().batches;
        let hands = Hands { vault: &self.vault, batches, context: &context, now: super::now() };
        let drops = watcher.scan(&hands)?;
        let machines: BTreeSet<&Name> = drops
            .iter()
            .filter(|drop| !matches!(drop.became, Became::Waiting { .. }))
            .filter_map(|drop| drop.machine.as_ref())
            .collect();
        machines.into_iter().for_each(|machine| self.meet_again(machine));
        for drop in &drops {
            if let (Became::Taken(taken), Some(machine)) = (&drop.became, &drop.machine) {
                let place = drop.drop.display();
                tracing::info!(%machine, point = taken.point, drop = %place, "a drop is taken");
                taken.notes.iter().for_each(|note| tracing::warn!(%machine, drop = %place, "{note}"));
            }
        }
        Ok(drops)
    }

    /// Has a watched folder looked at now.
    ///
    /// # Errors
    /// Refused where it is none of the service's file; what comes of it is in the [receipt](super::receipts).
    pub fn scan_folder(&self, path: &Path) -> Result<Receipt> {
        let Some(at) = self.folders.iter().position(|folder| folder.is(path)) else {
            let all: Vec<String> =
                self.folders.iter().map(|folder| folder.config.path.display().to_string()).collect();
            let hint = match all.is_empty() {
                true => "watch it: [[folder]] path = … in the service's file".to_owned(),
                false => format!(
                    "watched are {}; another is added as [[folder]] to the service's file",
                    all.join(", ")
                ),
            };
            return Err(Error::refused("is not watched by the service").in_file(path).hint(hint));
        };
        self.receipts.add(format!("the folder {}", path.display()), On::Folder(at), move |service| {
            let drops = service.look_into(&service.folders[at])?;
            Ok(Received::Folder { drops })
        })
    }

    /// What is wrong with folders and drops: one of a kind for each machine.
    pub(super) fn wrong_with_folders(&self, put: &mut dyn FnMut(Wrong)) {
        type Told = (Option<String>, &'static str);
        let mut drops: BTreeMap<Told, Vec<(PathBuf, Trouble)>> = BTreeMap::new();
        let (mut away, mut forgotten) = (Vec::new(), Vec::new());
        for folder in &self.folders {
            let found = folder.found();
            away.extend(found.trouble.iter().map(|why| (folder.config.path.clone(), why.clone())));
            for drop in &found.drops {
                let machine = drop.machine.as_ref().map(ToString::to_string);
                let (id, trouble) = match &drop.became {
                    Became::Refused(trouble) => ("drop-refused", trouble),
                    Became::Failed(trouble) => ("drop-failed", trouble),
                    Became::Taken(_) | Became::Waiting { .. } => continue,
                };
                let trouble = Trouble { says: drop.says().unwrap_or_default().to_owned(), ..trouble.clone() };
                drops.entry((machine, id)).or_default().push((drop.drop.clone(), trouble));
            }
            let old = found.waiting.iter().filter(|(_, since)| since.elapsed() > FORGOTTEN);
            forgotten.extend(old.map(|(path, _)| path.clone()));
        }
        for ((machine, id), list) in drops {
            let Some((path, trouble)) = list.first() else { continue };
            let more = match list.len() {
                1 => String::new(),
                2 => " One more drop of it is not taken either.".to_owned(),
                many => format!(" {} more drops of it are not taken either.", many - 1),
            };
            let remedy = trouble.remedy.clone().unwrap_or_else(|| match id {
                "drop-failed" => {
                    "It is tried again by itself; look at the medium and at the service's log.".to_owned()
                }
                _ => "REFUSED.txt beside the drop says what is wrong; mend it or take the drop away."
                    .to_owned(),
            });
            put(Wrong {
                id,
                gravity: Gravity::Warning,
                machine,
                says: format!(
                    "The drop {} is not taken: {}.{more}",
                    path.display(),
                    trouble.says.trim_end_matches('.')
                ),
                remedy: sentence(&remedy),
            });
        }
        if let Some((path, why)) = away.first() {
            put(Wrong {
                id: "folder-away",
                gravity: Gravity::Critical,
                machine: None,
                says: format!("The watched folder {} cannot be looked at: {why}.", path.display()),
                remedy: "Mount or make it, and let the service's user read and write it; it is tried again by itself.".to_owned(),
            });
        }
        if let Some(path) = forgotten.first() {
            put(Wrong {
                id: "drop-forgotten",
                gravity: Gravity::Warning,
                machine: None,
                says: format!("{} drops wait for their seal for more than a day; one is {}.", forgotten.len(), path.display()),
                remedy: "Rename it without .partial or complete its manifest; or take it away. landfall receive folder says what it waits for.".to_owned(),
            });
        }
    }
}

/// Begins with a capital and ends with a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    let text = format!("{first}{}", letters.as_str());
    if text.ends_with(['.', '!', '?']) { text } else { format!("{text}.") }
}

/// All folders of the service's file.
pub(super) fn all(folders: &[Folder]) -> Vec<Watching> {
    folders.iter().map(Watching::new).collect()
}
