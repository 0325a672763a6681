//! Waiting until all disks are there, and searching the one that a vault would be made on.

use super::blank::Blank;
use super::{FoundDisk, Holds, list, names};
use landfall_boot::appliance::init::Boot;
use landfall_image::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks for new ones.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a disk is searched for content before it is written to.
const SEARCH_WITHIN: Duration = Duration::from_secs(20);

/// The disks, once no new ones come for `quiet`, or `is_enough`; and why the last one was not taken that `to_make` would have made a vault of.
///
/// Such a disk is searched for content meanwhile. Where there is some, or it cannot be read, it counts as what it is, and another one may be
/// chosen.
pub fn settled(
    boot: &Boot,
    quiet: Duration,
    is_enough: impl Fn(&[FoundDisk]) -> bool,
    to_make: impl Fn(&[FoundDisk]) -> Option<PathBuf>,
) -> (Vec<FoundDisk>, Option<Error>) {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    let mut searched = Vec::new();
    let mut refused = None;
    let mut last = Instant::now();
    loop {
        let now = names();
        if now != seen {
            found = list(boot);
            mark(&mut found, &searched);
            (seen, last) = (now, Instant::now());
            if is_enough(&found) {
                return (found, refused);
            }
        }
        if let Some(disk) = to_search(&found, &searched, &to_make) {
            let held = match search(&disk.device) {
                Ok(()) => Holds::Nothing,
                Err(error) => {
                    let held = match error.kind() {
                        Kind::Refused => Holds::Something { what: error.says().to_owned() },
                        _ => Holds::Unreadable { why: error.to_string() },
                    };
                    refused = Some(error);
                    held
                }
            };
            searched.push(FoundDisk { holds: held, ..disk.clone() });
            mark(&mut found, &searched);
        } else if last.elapsed() > quiet {
            return (found, refused);
        } else {
            std::thread::sleep(PAUSE);
        }
    }
}

/// The disk that would be made a vault of, where it was not searched yet. What was begun has our own work on it.
fn to_search(
    found: &[FoundDisk],
    searched: &[FoundDisk],
    to_make: impl Fn(&[FoundDisk]) -> Option<PathBuf>,
) -> Option<FoundDisk> {
    let device = to_make(found)?;
    let disk = found.iter().find(|disk| disk.device == device && disk.holds == Holds::Nothing)?;
    (!searched.contains(disk)).then(|| disk.clone())
}

/// What searches have found counts more than a look does.
fn mark(found: &mut [FoundDisk], searched: &[FoundDisk]) {
    for disk in found.iter_mut().filter(|disk| disk.holds == Holds::Nothing) {
        let same = |other: &&FoundDisk| FoundDisk { holds: Holds::Nothing, ..(*other).clone() } == *disk;
        if let Some(other) = searched.iter().find(same) {
            disk.holds = other.holds.clone();
        }
    }
}

/// Searches a disk that looks empty, before it is written to.
///
/// # Errors
/// `Refused` where there is content, `Io`.
pub fn search(device: &Path) -> Result<()> {
    match Blank::open(device)?.search(SEARCH_WITHIN)? {
        None => Ok(()),
        Some(at) => {
            Err(Error::refused(format!("is not empty, there is data at byte {}: it is left alone", at.0))
                .in_file(device)
                .hint("attach an empty disk"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::disk;
    use super::super::{Choice, Layout};
    use super::*;

    #[test]
    fn each_disk_is_searched_once_and_the_next_one_where_there_is_content() {
        let choose = |disks: &[FoundDisk]| match super::super::choose(disks, None, Layout::Vault) {
            Choice::Make(device) => Some(device),
            _ => None,
        };
        let (small, large) = (disk("/dev/sdc", 20, Holds::Nothing), disk("/dev/sdd", 30, Holds::Nothing));
        let fresh = || vec![small.clone(), large.clone()];
        let mut found = fresh();
        assert_eq!(to_search(&found, &[], choose), Some(large.clone()));
        let full = FoundDisk { holds: Holds::Something { what: "data".into() }, ..large.clone() };
        let mut searched = vec![full.clone()];
        mark(&mut found, &searched);
        assert_eq!(found, [small.clone(), full.clone()]);
        assert_eq!(to_search(&found, &searched, choose), Some(small.clone()));
        searched.push(small.clone());
        assert_eq!(to_search(&found, &searched, choose), None);
        // A disk that comes does not make what was searched empty again; another one under the same name is searched anew.
        let mut found = fresh();
        mark(&mut found, &searched);
        assert_eq!(to_search(&found, &searched, choose), None);
        let other = FoundDisk { serial: "2".into(), ..large.clone() };
        let mut found = vec![small.clone(), other.clone()];
        mark(&mut found, &searched);
        assert_eq!(to_search(&found, &searched, choose), Some(other));
        // What was begun has our own work on it.
        let begun = disk("/dev/sde", 5, Holds::Unfinished);
        assert_eq!(to_search(&[begun], &[], choose), None);
    }
}
