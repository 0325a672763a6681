//! The data disk at each start, and whenever a disk appears: found, waited for, made or taken back.
//!
//! Which disk it is says [`super::disks`]; where the state lies, [`super::disc`].

use super::disks::{self, Choice, Claim, FoundDisk, Holds, Layout};
use super::problems::{self, Problem};
use super::start::service_file;
use super::{disc, places, programs, state};
use landfall_boot::appliance::init::Boot;
use landfall_image::{Error, Result};
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The step of the data disk, among those that say what stands in the way.
pub const DATA: &str = "3-data";
/// With no new disk in this time there is none to come, before a vault is made: controllers of servers take some seconds.
const DISKS_QUIET: Duration = Duration::from_secs(5);
/// Disks that come, and choices, while disks are looked at: so often it is done again.
const LOOKS_AT_MOST: usize = 8;

/// The data disk, and what the service needs.
///
/// # Errors
/// Where this is no appliance.
pub fn data() -> Result<()> {
    let boot = state::boot()?;
    let mut found = Vec::new();
    let mut always = service_file();
    if has_gone(Path::new("/")) {
        always.extend(let_go().err().iter().map(Problem::from));
    }
    for _ in 0..LOOKS_AT_MOST {
        found.clear();
        let seen = disks::names();
        if !is_mounted(places::VAULT) {
            found.extend(vault(&boot));
        }
        // Whoever asks while this runs is not heard: a disk that has come meanwhile, or was chosen.
        if is_mounted(places::VAULT) || (disks::names() == seen && !Path::new(places::CLAIM).exists()) {
            break;
        }
    }
    if is_mounted(places::VAULT) {
        // Chosen while the vault was found by itself: at the next start it would count.
        match claim() {
            Ok(None) => {}
            Ok(Some(claim)) => found.push(Problem::new(
                format!("{} was not taken: this appliance has found its vault on another disk meanwhile", claim.disk),
                "To go on with that one instead, power off, detach the disk with the vault, start, and choose again.",
            )),
            Err(error) => found.push(Problem::from(&error)),
        }
    }
    found.extend(always);
    problems::tell(DATA, &found);
    if is_mounted(places::VAULT) && Path::new(places::SERVICE_FILE).exists() {
        // At a start it is waited for anyway; a disk that came later starts it.
        programs::must(programs::SYSTEMCTL, &["start", "--no-block", "landfall.service"])?;
    }
    Ok(())
}

/// The vault's disk in its place; what stands in the way.
fn vault(boot: &Boot) -> Vec<Problem> {
    let mut found = Vec::new();
    let claim = claim().unwrap_or_else(|error| {
        found.push(Problem::from(&error));
        None
    });
    if let Some(claim) = claim {
        match chosen(boot, &claim) {
            Ok(None) => return found,
            Ok(Some(problem)) => found.push(problem),
            Err(error) => found.push(Problem::from(&error)),
        }
    }
    // A choice that cannot be had is no reason to leave the vault that is known.
    match usual(boot) {
        Ok(problem) => found.extend(problem),
        Err(error) => found.push(Problem::from(&error)),
    }
    found
}

/// What the administrator chose, once: what is refused now must not be tried at each start.
fn claim() -> Result<Option<Claim>> {
    let path = Path::new(places::CLAIM);
    let Some(bytes) = state::read(path)? else { return Ok(None) };
    fs::remove_file(path).map_err(|e| Error::io("cannot remove", e).in_file(path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::corrupt(format!("the choice of a disk cannot be understood: {e}"))
            .in_file(path)
            .hint("choose it again")
    })
}

fn chosen(boot: &Boot, claim: &Claim) -> Result<Option<Problem>> {
    let disks = disks::list(boot);
    let in_memory = disc::is_in_memory(boot);
    if in_memory && let Some(problem) = late(&disks)? {
        return Ok(Some(problem));
    }
    let layout = if in_memory { Layout::StateAndVault } else { Layout::Vault };
    let choice = disks::claimed(&disks, claim, layout)?;
    if let Choice::Make(device) = &choice
        && disks.iter().any(|disk| disk.device == *device && disk.holds == Holds::Nothing)
    {
        disks::search(device)?;
    }
    take(choice, in_memory, layout)
}

fn late(disks: &[FoundDisk]) -> Result<Option<Problem>> {
    let damaged = state::read(Path::new(places::DAMAGED_STATE))?;
    let damaged = damaged.as_deref().map(|bytes| Path::new(std::ffi::OsStr::from_bytes(bytes)));
    Ok(disc::late(disks, damaged))
}

fn usual(boot: &Boot) -> Result<Option<Problem>> {
    let known = disks::known()?;
    let in_memory = disc::is_in_memory(boot);
    let layout = if in_memory { Layout::StateAndVault } else { Layout::Vault };
    if boot.slot.is_some() && !is_mounted_from_a_disk(places::STATE) {
        let choice = disks::choose(&disks::list(boot), None, layout);
        return take(without_state(choice), false, layout);
    }
    if known.is_some() && !in_memory {
        // By the tables alone: disks without one are many reads.
        if let choice @ Choice::Mount(..) = disks::choose(&disks::tables(boot), known, layout) {
            return take(choice, in_memory, layout);
        }
    }
    let mut disks = disks::list(boot);
    let mut refused = None;
    if known.is_none() && matches!(disks::choose(&disks, known, layout), Choice::Make(_)) {
        // Nothing is made while a disk that has a vault may still come.
        let has_vault =
            |disks: &[FoundDisk]| disks.iter().any(|disk| matches!(disk.holds, Holds::Vault { .. }));
        let to_make = |disks: &[FoundDisk]| match disks::choose(disks, known, layout) {
            Choice::Make(device) => Some(device),
            _ => None,
        };
        (disks, refused) = disks::settled(boot, DISKS_QUIET, has_vault, to_make);
    }
    if in_memory && let Some(problem) = late(&disks)? {
        return Ok(Some(problem));
    }
    match (disks::choose(&disks, known, layout), refused) {
        // Why a disk that looks empty is not taken says more than that there is none.
        (Choice::Nothing(_), Some(error)) => Err(error),
        (choice, _) => take(choice, in_memory, layout),
    }
}

/// Where nobody knows which vault there was: one that is there is taken, none is made.
fn without_state(choice: Choice) -> Choice {
    match choice {
        Choice::Make(device) => Choice::Nothing(Problem::new(
            format!(
                "{} is empty and is not taken: as the state cannot be used, it is not known whether there is a vault on another disk",
                device.display()
            ),
            "Attach the data disk that this appliance had: it is taken as soon as it appears. If it had none, choose this disk under Disks.",
        )),
        choice => choice,
    }
}

fn take(choice: Choice, in_memory: bool, layout: Layout) -> Result<Option<Problem>> {
    match choice {
        Choice::Mount(partition, id) => {
            disks::mount_vault(&partition)?;
            disks::keep(id)?;
        }
        Choice::Make(device) => {
            if in_memory {
                disc::keep_on(&device)?;
            }
            let (partition, id) = disks::make(&device, layout)?;
            disks::mount_vault(&partition)?;
            disks::keep(id)?;
        }
        Choice::Nothing(problem) => return Ok(Some(problem)),
    }
    Ok(None)
}

/// True where what is mounted there last is on a disk.
pub(super) fn is_mounted_from_a_disk(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .rfind(|line| line.split(' ').nth(1) == Some(path))
        .is_some_and(|line| line.starts_with("/dev/"))
}

/// True where the data disk went away while it was used.
pub fn has_gone(root: &Path) -> bool {
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    is_gone(places::VAULT, &mounts, &root.join("sys/dev/block"))
}

/// True where what is mounted there stands on a device that this machine has no longer; by `/proc/self/mountinfo`, see proc(5).
fn is_gone(path: &str, mounts: &str, devices: &Path) -> bool {
    let last = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .rfind(|fields| fields.get(4) == Some(&path));
    let device = last.and_then(|fields| fields.get(2).copied().map(str::to_owned));
    // Without a device: 0.
    device.is_some_and(|device| !device.starts_with("0:") && !devices.join(device).exists())
}

/// The data disk went away under the service and may be this one that has come: the mount of the old one is in its way.
fn let_go() -> Result<()> {
    tracing::error!("the data disk went away: the service is stopped, and it is looked for anew");
    programs::must(programs::SYSTEMCTL, &["stop", "landfall.service"])?;
    unmount(places::VAULT, UnmountFlags::DETACH).map_err(|e| {
        Error::io("cannot unmount the data disk that went away", e.into()).in_file(Path::new(places::VAULT))
    })
}

/// True where something is mounted there.
pub fn is_mounted(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_state_a_vault_is_taken_and_none_is_made() {
        let Choice::Nothing(problem) = without_state(Choice::Make("/dev/sdb".into())) else { panic!("made") };
        assert!(problem.says.contains("/dev/sdb") && problem.fix.contains("Disks"), "{problem:?}");
        let there = || Choice::Mount("/dev/sdc1".into(), uuid::Uuid::nil());
        assert_eq!(without_state(there()), there());
    }

    #[test]
    fn a_disk_that_went_away_is_known_by_its_number() {
        let devices = tempfile::tempdir().unwrap();
        fs::create_dir(devices.path().join("8:17")).unwrap();
        let mounts =
            "22 1 8:2 / / ro - squashfs /dev/sda2 ro\n23 22 8:17 / /var/lib/landfall rw - xfs /dev/sdb1 rw\n";
        assert!(!is_gone("/var/lib/landfall", mounts, devices.path()));
        assert!(!is_gone("/var/lib/landfall", "", devices.path()));
        assert!(!is_gone("/tmp", "30 22 0:40 / /tmp rw - tmpfs tmpfs rw\n", devices.path()));
        let came_back = format!("{mounts}24 22 8:33 / /var/lib/landfall rw - xfs /dev/sdc1 rw\n");
        assert!(is_gone("/var/lib/landfall", &came_back, devices.path()), "the last one counts");
        fs::remove_dir(devices.path().join("8:17")).unwrap();
        assert!(is_gone("/var/lib/landfall", mounts, devices.path()));
    }
}
