//! The state of a system that runs from a disc: on a data disk, as nothing can be written to the disc.
//!
//! ```text
//! a state partition beside a vault's (or its beginning)  -> that one
//! else one on a disk with another system of landfall     -> that one: the disc stands in for that system
//! else the largest empty disk, by the vault's own rule   -> the table with both, the state; the vault follows (super::disks)
//! else                                                   -> memory, and that is told with what fixes it
//! ```
//! Disks may come later than the disc. One with a state is taken at once; only where there is none by then is waited, so that
//! no other state is begun beside the one that counts. A disk that comes when the state is in memory already:
//!
//! | the disk | what is done |
//! |---|---|
//! | is empty | it takes what is in memory, and from then on everything |
//! | has a state | nothing: a restart is asked for. The machine is another one until then, and must not serve that vault |
//!
//! Deliberately absent: copies of the state, and moving it to another disk.

use super::disks::{self, FoundDisk, Holds, Layout};
use super::problems::{self, Problem};
use super::{places, programs, state};
use landfall_boot::appliance::init::Boot;
use landfall_image::{Error, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// With no new disk in this time there is none to come: controllers of servers take some seconds.
const QUIET: Duration = Duration::from_secs(10);
/// Folders in what is kept.
const DEPTH: usize = 8;

/// What a system that runs from a disc keeps its state on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This partition.
    Take(PathBuf),
    /// A disk that is to be made.
    Make(PathBuf),
    /// Memory.
    Nothing(Problem),
}

/// Chooses among the disks.
pub fn choose(disks: &[FoundDisk]) -> Choice {
    let is_data = |disk: &&FoundDisk| matches!(disk.holds, Holds::Vault { .. } | Holds::Unfinished);
    let with_state: Vec<&FoundDisk> = disks.iter().filter(|disk| disk.state.is_some()).collect();
    let (data, others): (Vec<&FoundDisk>, Vec<&FoundDisk>) = with_state.into_iter().partition(is_data);
    let which = if data.is_empty() { others } else { data };
    match &which[..] {
        [FoundDisk { state: Some(partition), .. }] => return Choice::Take(partition.clone()),
        [] => {}
        several => {
            let names = disks::names_of(several.iter().copied());
            let says = format!("there are several disks with settings of an appliance: {names}");
            return Choice::Nothing(match have_one_vault(several) {
                true => Problem::new(
                    format!("{says}. They are {}", disks::SEVERAL),
                    "Detach the copies, of one disk's paths leave one, and restart.",
                ),
                false => Problem::new(says, "Detach those that are not this one's, and restart."),
            });
        }
    }
    match disks::empty(disks, Layout::StateAndVault) {
        Some(disk) => Choice::Make(disk.device.clone()),
        None => Choice::Nothing(Problem::new(
            "a system on a disc keeps them on its data disk, and no disk has room for them",
            format!(
                "Attach an empty disk of {} or more, and restart. A disk with content is never taken, and a data disk that a system \
                 with a disk of its own has made has no room for settings: attach an empty one beside it.",
                Layout::StateAndVault.smallest()
            ),
        )),
    }
}

/// True where all have the same vault.
fn have_one_vault(disks: &[&FoundDisk]) -> bool {
    let vault = |disk: &&FoundDisk| match &disk.holds {
        Holds::Vault { id, .. } => Some(*id),
        _ => None,
    };
    let first = disks.first().and_then(vault);
    first.is_some() && disks.iter().all(|disk| vault(disk) == first)
}

/// The partition for the state of a system that runs from a disc: found, or made.
///
/// # Errors
/// `Refused` with what fixes it, `Io`.
pub fn place(boot: &Boot) -> Result<PathBuf> {
    // One with a state is taken at once.
    let has_state = |disks: &[FoundDisk]| disks.iter().any(|disk| disk.state.is_some());
    let to_make = |disks: &[FoundDisk]| match choose(disks) {
        Choice::Make(device) => Some(device),
        _ => None,
    };
    let (disks, refused) = disks::settled(boot, QUIET, has_state, to_make);
    match choose(&disks) {
        Choice::Take(partition) => {
            tracing::info!("the state is on {}", partition.display());
            Ok(partition)
        }
        Choice::Make(device) => disks::lay_out(&device, Layout::StateAndVault)?.state(),
        Choice::Nothing(problem) => {
            Err(refused.unwrap_or_else(|| Error::refused(problem.says).hint(problem.fix)))
        }
    }
}

/// True where a system that runs from a disc has its state in memory.
pub fn is_in_memory(boot: &Boot) -> bool {
    boot.slot.is_none() && is_memory(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn is_memory(mounts: &str) -> bool {
    // The last one lies over those before it.
    let state = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(places::STATE));
    state.is_some_and(|line| line.split(' ').nth(2) == Some("tmpfs"))
}

/// What stands in the way of every vault while the state is in memory: a disk with another state, which is that of the machine that the vault
/// belongs to. `damaged` is the partition whose state could not be used at the start: its vault is taken as it is.
pub fn late(disks: &[FoundDisk], damaged: Option<&Path>) -> Option<Problem> {
    let disk = disks.iter().find(|disk| disk.state.is_some() && disk.state.as_deref() != damaged)?;
    Some(match choose(disks) {
        // They are there at the next start as they are now: a restart alone changes nothing.
        Choice::Nothing(problem) => {
            Problem::new(format!("no data disk is used: {}", problem.says), problem.fix)
        }
        _ => Problem::new(
            format!(
                "{} has settings and certificates of an appliance, and those in memory are others",
                disk.device.display()
            ),
            "Restart: it is used from the beginning then. Or detach it.",
        ),
    })
}

/// Lets an empty disk take what is in memory, and mounts it in its place.
///
/// # Errors
/// `Refused` where the disk is not empty by now, `Io`.
pub fn keep_on(device: &Path) -> Result<()> {
    let partition = disks::lay_out(device, Layout::StateAndVault)?.state()?;
    state::make(&partition)?;
    let at = Path::new(places::RUN).join("state");
    let failed = |e: std::io::Error| Error::io("cannot keep what is in memory", e).in_file(&partition);
    fs::create_dir_all(&at).map_err(failed)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount(&partition, &at, "ext4", flags, None).map_err(|e| failed(e.into()))?;
    let below = places::KEPT.trim_start_matches(places::STATE).trim_start_matches('/');
    let copied = fs::create_dir_all(at.join("lib"))
        .and_then(|()| copy(Path::new(places::KEPT), &at.join(below), 0))
        .and_then(|()| Ok(rustix::fs::syncfs(fs::File::open(&at)?)?));
    // It is written out whole before it counts.
    let unmounted = unmount(&at, UnmountFlags::empty());
    copied.map_err(failed)?;
    unmounted.map_err(|e| failed(e.into()))?;
    // Just made: there is nothing to mend.
    state::mount_state(&partition)?;
    state::folders()?;
    problems::tell(state::IN_MEMORY, &[]);
    tracing::info!("settings, certificates and logs are on {} from now on", partition.display());
    // It goes on writing to what is covered now.
    programs::run(programs::SYSTEMCTL, &["restart", "--no-block", "systemd-journald.service"])?;
    Ok(())
}

fn copy(from: &Path, to: &Path, depth: usize) -> std::io::Result<()> {
    if depth > DEPTH {
        return Err(std::io::Error::other("folders lie deeper than they do"));
    }
    let meta = fs::symlink_metadata(from)?;
    if meta.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()), depth + 1)?;
        }
    } else if meta.is_file() {
        fs::copy(from, to)?;
    } else {
        return Ok(());
    }
    std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Bytes;
    use uuid::Uuid;

    fn disk(device: &str, gib: u64, holds: Holds, has_state: bool) -> FoundDisk {
        FoundDisk {
            device: device.into(),
            size: Bytes::gib(gib),
            sector: Bytes(512),
            model: String::new(),
            serial: String::new(),
            holds,
            state: has_state.then(|| format!("{device}1").into()),
            paths: Vec::new(),
        }
    }

    #[test]
    fn the_state_is_found_where_it_is_and_begun_only_where_there_is_none() {
        let vault = || Holds::Vault { id: Uuid::from_u128(1), partition: "/dev/x2".into() };
        let something = || Holds::Something { what: "5 partitions of a GPT table".into() };
        let empty = disk("/dev/sdb", 90, Holds::Nothing, false);
        let both = disk("/dev/sdc", 10, vault(), true);
        let begun = disk("/dev/sdd", 10, Holds::Unfinished, true);
        let system = disk("/dev/sde", 3, something(), true);
        let only_vault = disk("/dev/sdf", 10, vault(), false);
        let full = disk("/dev/sdg", 900, something(), false);
        let small = disk("/dev/sdh", 1, Holds::Nothing, false);
        let cut_off = disk("/dev/sdi", 4, Holds::Unfinished, false);
        let choose =
            |disks: &[&FoundDisk]| super::choose(&disks.iter().map(|d| (*d).clone()).collect::<Vec<_>>());
        let take = |device: &str| Choice::Take(device.into());
        assert_eq!(choose(&[&empty, &both, &system, &full]), take("/dev/sdc1"));
        assert_eq!(choose(&[&empty, &begun]), take("/dev/sdd1"));
        // A system whose own disk does not start any more.
        assert_eq!(choose(&[&empty, &system, &only_vault]), take("/dev/sde1"));
        for disks in [&[&both, &begun][..], &[&system, &disk("/dev/sdz", 3, something(), true)]] {
            let Choice::Nothing(problem) = choose(disks) else { panic!("{disks:?}") };
            assert!(problem.says.contains("several") && problem.fix.contains("Detach"), "{problem:?}");
        }
        let second = FoundDisk { device: "/dev/sdy".into(), state: Some("/dev/sdy1".into()), ..both.clone() };
        let Choice::Nothing(problem) = choose(&[&both, &second]) else { panic!() };
        assert!(problem.says.contains("/dev/sdc, /dev/sdy. They are copies"), "{problem:?}");
        assert!(problem.fix.contains("paths"), "{problem:?}");
        assert_eq!(choose(&[&full, &small, &empty]), Choice::Make("/dev/sdb".into()));
        assert_eq!(choose(&[&empty, &cut_off]), Choice::Make("/dev/sdi".into()));
        // Beside a vault that has none.
        assert_eq!(choose(&[&only_vault, &empty]), Choice::Make("/dev/sdb".into()));
        for disks in [&[&only_vault][..], &[&full, &small], &[]] {
            let Choice::Nothing(problem) = choose(disks) else { panic!("{disks:?}") };
            assert!(problem.fix.contains("empty disk of 2.0 GiB"), "{problem:?}");
        }
        let came = late(&[empty.clone(), both.clone()], None).unwrap();
        assert!(came.says.contains("/dev/sdc") && came.fix.contains("Restart: it is used"), "{came:?}");
        // Several, that are there at every start.
        let several = late(&[empty.clone(), both.clone(), begun], None).unwrap();
        assert!(several.says.contains("several") && several.fix.contains("Detach"), "{several:?}");
        assert!(late(&[empty, both], Some(Path::new("/dev/sdc1"))).is_none());
    }

    #[test]
    fn what_lies_above_counts() {
        let memory = "proc /proc proc rw 0 0\ntmpfs /var tmpfs rw 0 0\ntmpfs /var/x tmpfs rw 0 0\n";
        assert!(is_memory(memory));
        assert!(!is_memory(&format!("{memory}/dev/sdb1 /var ext4 rw 0 0\n")) && !is_memory(""));
    }

    #[test]
    fn what_is_kept_is_copied_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("authority")).unwrap();
        fs::write(from.join("authority/ca.key"), "secret").unwrap();
        fs::set_permissions(from.join("authority/ca.key"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::set_permissions(from.join("authority"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        copy(&from, &to, 0).unwrap();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("authority"), mode("authority/ca.key")), (0o700, 0o400));
        assert_eq!(fs::read(to.join("authority/ca.key")).unwrap(), b"secret");
        assert!(!to.join("link").exists());
    }
}
