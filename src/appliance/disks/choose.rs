//! Which disk holds the vault, and which one it may be made on.

use super::{FoundDisk, Holds, Layout};
use crate::appliance::problems::Problem;
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Which vault is to be mounted, and whether one may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Mount(PathBuf, Uuid),
    /// Make one on this disk.
    Make(PathBuf),
    /// Neither.
    Nothing(Problem),
}

/// What disks with one and the same vault are: a path cannot always be told from a copy.
pub const SEVERAL: &str = "copies of a disk, or one disk over several paths";

/// For people.
pub fn names_of<'a>(disks: impl Iterator<Item = &'a FoundDisk>) -> String {
    disks.map(|disk| disk.device.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The disk that a data disk may be made of: the largest empty one, never one with content.
pub fn empty(disks: &[FoundDisk], layout: Layout) -> Option<&FoundDisk> {
    let may = |disk: &&FoundDisk| {
        matches!(disk.holds, Holds::Nothing | Holds::Unfinished) && disk.size >= layout.smallest()
    };
    // What was begun is finished before anything else is.
    disks.iter().filter(may).max_by_key(|disk| (disk.holds == Holds::Unfinished, disk.size))
}

/// Chooses among the disks; `known` is the vault that this appliance had before.
pub fn choose(disks: &[FoundDisk], known: Option<Uuid>, layout: Layout) -> Choice {
    let vaults: Vec<(&FoundDisk, &PathBuf, Uuid)> = disks
        .iter()
        .filter_map(|disk| match &disk.holds {
            Holds::Vault { id, partition } => Some((disk, partition, *id)),
            _ => None,
        })
        .collect();
    if let Some(id) = known {
        let ours: Vec<_> = vaults.iter().filter(|(_, _, vault)| *vault == id).collect();
        return match &ours[..] {
            [(_, partition, id)] => Choice::Mount((*partition).clone(), *id),
            [] => Choice::Nothing(Problem::new(
                format!("the data disk with the vault {id} is not there"),
                "Attach it to this machine: it is taken as soon as it appears. To go on with another disk instead, choose it under Disks.",
            )),
            several => Choice::Nothing(Problem::new(
                format!(
                    "there are several data disks with the vault {id} ({}): {SEVERAL}",
                    names_of(several.iter().map(|(disk, ..)| *disk))
                ),
                "Detach the copies; of one disk's paths leave one.",
            )),
        };
    }
    match &vaults[..] {
        [(_, partition, id)] => return Choice::Mount((*partition).clone(), *id),
        [] => {}
        [(_, _, id), others @ ..] if others.iter().all(|(_, _, other)| other == id) => {
            return Choice::Nothing(Problem::new(
                format!(
                    "there are several data disks with one vault ({}): {SEVERAL}",
                    names_of(vaults.iter().map(|(disk, ..)| *disk))
                ),
                "Choose one under Disks, or detach the others; of one disk's paths leave one.",
            ));
        }
        several => {
            return Choice::Nothing(Problem::new(
                format!(
                    "there are {} data disks, and none of them was this appliance's before",
                    several.len()
                ),
                "Choose one under Disks, or detach the others.",
            ));
        }
    }
    match empty(disks, layout) {
        Some(disk) => Choice::Make(disk.device.clone()),
        None => {
            let others = disks.iter().filter(|disk| disk.holds != Holds::System).count();
            let least = layout.smallest();
            let seen = match others {
                0 => "there is no data disk".to_owned(),
                1 => {
                    format!("there is no data disk: the one other disk is not empty, or smaller than {least}")
                }
                n => {
                    format!("there is no data disk: of {n} other disks none is empty and of {least} or more")
                }
            };
            Choice::Nothing(Problem::new(
                seen,
                "Attach an empty disk to this machine: it is taken as soon as it appears. A disk with content is never taken.",
            ))
        }
    }
}

/// What the administrator chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its name in `/dev`.
    pub disk: String,
    /// Its serial number as it was shown; may be empty.
    pub serial: String,
}

/// What becomes of a choice: an empty disk is made a vault, one with a vault is taken as it is.
///
/// # Errors
/// `Refused` where the disk is not there, is another one by now, or has content.
pub fn claimed(disks: &[FoundDisk], claim: &Claim, layout: Layout) -> Result<Choice> {
    let device = Path::new("/dev").join(&claim.disk);
    let refused =
        |says: &str, hint: &str| Err(Error::refused(says.to_owned()).in_file(&device).hint(hint.to_owned()));
    // Every path is shown.
    let Some(disk) = disks.iter().find(|disk| disk.device == device || disk.paths.contains(&device)) else {
        return refused("is no disk of this machine", "choose one of those that are shown under Disks");
    };
    if disk.serial != claim.serial {
        return refused(
            "is another disk than the one that was chosen",
            "look at the disks again: their names have changed",
        );
    }
    match &disk.holds {
        Holds::Nothing | Holds::Unfinished if disk.size >= layout.smallest() => {
            Ok(Choice::Make(disk.device.clone()))
        }
        Holds::Nothing | Holds::Unfinished => {
            refused(&format!("is smaller than {}", layout.smallest()), "attach a larger one")
        }
        Holds::Vault { id, partition } => Ok(Choice::Mount(partition.clone(), *id)),
        Holds::System => refused("has the appliance's own system", "choose another disk"),
        Holds::Something { what } => refused(
            &format!("is not empty ({what}): a disk with content is never taken"),
            "attach an empty disk; or empty this one elsewhere, where it can be seen what is lost",
        ),
        Holds::Unreadable { why } => refused(&format!("cannot be read: {why}"), "replace it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::disk;
    use super::*;

    fn vault(device: &str, id: u128) -> FoundDisk {
        disk(device, 10, Holds::Vault { id: Uuid::from_u128(id), partition: format!("{device}1").into() })
    }

    #[test]
    fn a_disk_is_chosen_and_never_one_with_content() {
        let system = disk("/dev/sda", 3, Holds::System);
        let full = disk("/dev/sdb", 900, Holds::Something { what: "2 partitions".into() });
        let bad = disk("/dev/sdx", 900, Holds::Unreadable { why: "I/O".into() });
        let (small, large) = (disk("/dev/sdc", 20, Holds::Nothing), disk("/dev/sdd", 30, Holds::Nothing));
        let tiny = disk("/dev/sde", 0, Holds::Nothing);
        let begun = disk("/dev/sdf", 5, Holds::Unfinished);
        let choose = |disks: &[&FoundDisk], known: Option<u128>| {
            super::choose(
                &disks.iter().map(|disk| (*disk).clone()).collect::<Vec<_>>(),
                known.map(Uuid::from_u128),
                Layout::Vault,
            )
        };
        assert_eq!(choose(&[&system, &full, &small, &large], None), Choice::Make("/dev/sdd".into()));
        assert_eq!(choose(&[&system, &full, &large, &begun], None), Choice::Make("/dev/sdf".into()));
        for disks in [&[&system, &full, &bad, &tiny][..], &[&system]] {
            let Choice::Nothing(problem) = choose(disks, None) else { panic!("{disks:?}") };
            assert!(problem.says.contains("no data disk"), "{problem:?}");
        }
        let one = vault("/dev/sdg", 1);
        assert_eq!(choose(&[&one, &large], None), Choice::Mount("/dev/sdg1".into(), Uuid::from_u128(1)));
        assert!(matches!(choose(&[&one, &vault("/dev/sdh", 2)], None), Choice::Nothing(_)));
        assert_eq!(
            choose(&[&one, &vault("/dev/sdh", 2)], Some(2)),
            Choice::Mount("/dev/sdh1".into(), Uuid::from_u128(2))
        );
        let empty = [disk("/dev/sdh", 1, Holds::Nothing)];
        assert_eq!(super::choose(&empty, None, Layout::Vault), Choice::Make("/dev/sdh".into()));
        let Choice::Nothing(problem) = super::choose(&empty, None, Layout::StateAndVault) else { panic!() };
        assert!(problem.says.contains("smaller than 2.0 GiB"), "{problem:?}");
        // A vault that is missing is waited for; no other is made in its place.
        assert!(matches!(choose(&[&large, &one], Some(3)), Choice::Nothing(_)));
        for known in [Some(1), None] {
            let Choice::Nothing(problem) = choose(&[&one, &vault("/dev/sdh", 1)], known) else { panic!() };
            assert!(
                problem.says.contains("(/dev/sdg, /dev/sdh): copies of a disk, or one disk over"),
                "{problem:?}"
            );
            assert!(problem.fix.contains("etach") && problem.fix.contains("paths"), "{problem:?}");
        }
    }

    #[test]
    fn a_disk_is_chosen_by_any_of_its_paths() {
        let empty = FoundDisk { paths: vec!["/dev/sdc".into()], ..disk("/dev/sda", 20, Holds::Nothing) };
        let claimed = |name: &str| {
            let claim = Claim { disk: name.into(), serial: String::new() };
            super::claimed(std::slice::from_ref(&empty), &claim, Layout::Vault)
        };
        for name in ["sda", "sdc"] {
            assert_eq!(claimed(name).unwrap(), Choice::Make("/dev/sda".into()));
        }
        assert!(claimed("sdb").is_err());
    }
}
