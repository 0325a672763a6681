//! The machine's disks: which one holds the vault, which one may hold it, and making it so.
//!
//! ```text
//! data disk:  GPT, a partition of the type VAULT        attribute bit 48: its file system is complete
//!             XFS, labelled "landfall"                  mounted at /var/lib/landfall
//!             before it, where the system is on a disc, one of the type STATE: super::disc
//! ```
//! **Never a disk with content.** A disk counts as empty where zeros only are found on it (see [`blank`]; the one that is to be written to is
//! searched), but for a partition table that lists
//! nothing or nothing but a vault whose file system was never completed (and a state): that is what a lost power leaves of our own work, and is
//! gone on with (see [`make`](mod@make)). A vault that is complete and cannot be mounted is told, never made anew.
//!
//! **Order.** Table (backup first, then primary) -> file system -> sync -> the bit. Whatever moment power is lost at, the next start sees
//! one of the states above.
//!
//! Deliberately absent: several disks for one vault, encryption, and repairing a damaged file system: `xfs_repair` is there, for
//! somebody who decides it.

mod blank;
mod make;

use blank::Blank;
pub use make::{lay_out, make};

use super::problems::Problem;
use super::{places, programs};
use landfall_boot::appliance::init::Boot;
use landfall_boot::appliance::layout;
use landfall_image::partition::{self, Table, TypeId};
use landfall_image::{Bytes, Disk, Error, FileOffset, Gate, Kind, Result, Source};
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The attribute of a vault whose file system is complete.
const COMPLETE: u64 = 1 << 48;
/// A vault on less would be full at once.
pub const SMALLEST: Bytes = Bytes::gib(1);
/// Disks that are looked at side by side.
const AT_ONCE: usize = 32;
/// Between two looks for new ones.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a disk is searched for content before it is written to.
const SEARCH_WITHIN: Duration = Duration::from_secs(20);
/// Letters of a device's words.
const WORDS: usize = 128;
/// Where the partition begins.
const START: Bytes = Bytes::mib(1);
/// What a data disk is made to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The vault: the state is on the system's own disk.
    Vault,
    /// The state and the vault: the system is on a disc.
    StateAndVault,
}

impl Layout {
    /// No smaller disk is taken.
    pub fn smallest(self) -> Bytes {
        match self {
            Layout::Vault => SMALLEST,
            Layout::StateAndVault => Bytes(SMALLEST.0 + layout::STATE_SIZE.0),
        }
    }
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Holds {
    /// Nothing at all.
    Nothing,
    /// This appliance's system.
    System,
    /// A vault.
    Vault {
        /// Its identity.
        id: Uuid,
        /// Its partition.
        partition: PathBuf,
    },
    /// A vault whose making was cut off before there was anything in it.
    Unfinished,
    /// Something else, which is left alone.
    Something {
        /// What it looks like.
        what: String,
    },
    /// It cannot be told.
    Unreadable {
        /// Why.
        why: String,
    },
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FoundDisk {
    /// `/dev/sdb`
    pub device: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// Bytes of a logical sector.
    pub sector: Bytes,
    /// As its maker calls it; may be empty.
    pub model: String,
    /// May be empty.
    pub serial: String,
    /// What is on it.
    pub holds: Holds,
    /// Its partition for an appliance's state, where it has one.
    pub state: Option<PathBuf>,
}

/// What the kernel calls disks: all but discs, floppies and what is made of other devices.
pub fn names() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let other = ["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd"];
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !other.iter().any(|prefix| name.starts_with(prefix)))
        .collect()
}

/// All disks, and whether anything is on them.
pub fn list(boot: &Boot) -> Vec<FoundDisk> {
    look_at_all(boot, true)
}

/// All disks by their partition tables alone: one without counts as something.
pub fn tables(boot: &Boot) -> Vec<FoundDisk> {
    look_at_all(boot, false)
}

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

/// Side by side: one that turns takes seconds.
fn look_at_all(boot: &Boot, whole: bool) -> Vec<FoundDisk> {
    let names: Vec<String> = names().into_iter().collect();
    let mut found = Vec::new();
    for some in names.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let looks: Vec<_> =
                some.iter().map(|name| scope.spawn(move || look(boot, name, whole))).collect();
            found.extend(looks.into_iter().filter_map(|look| look.join().ok().flatten()));
        });
    }
    found
}

fn look(boot: &Boot, name: &str, whole: bool) -> Option<FoundDisk> {
    let about = |what: &str| {
        let text = fs::read_to_string(format!("/sys/block/{name}/{what}")).unwrap_or_default();
        shown(text.trim())
    };
    let sectors: u64 = about("size").parse().ok().filter(|sectors| *sectors > 0)?;
    let device = Path::new("/dev").join(name);
    let sector = Bytes(about("queue/logical_block_size").parse().unwrap_or(512));
    let (holds, state) = match device == boot.system {
        true => (Holds::System, None),
        false if about("ro") == "1" => (Holds::Something { what: "read-only".into() }, None),
        false => match at_device(&device, name, whole) {
            Ok(found) => (found.holds, found.state),
            Err(error) => (Holds::Unreadable { why: error.to_string() }, None),
        },
    };
    Some(FoundDisk {
        size: Bytes(sectors.saturating_mul(512)),
        sector,
        model: about("device/model"),
        serial: serial(Path::new("/"), name).unwrap_or_default(),
        holds,
        state,
        device,
    })
}

/// A disk's serial number, as the kernel has it, or as udev has read it off the disk (`/run/udev/data`); both are below `root`.
pub fn serial(root: &Path, name: &str) -> Option<String> {
    let text = |path: String| fs::read_to_string(root.join(path)).ok();
    let kernel = ["device/serial", "serial"]
        .into_iter()
        .filter_map(|key| text(format!("sys/block/{name}/{key}")))
        .map(|text| shown(text.trim()))
        .find(|text| !text.is_empty());
    kernel.or_else(|| {
        let number = text(format!("sys/block/{name}/dev"))?;
        let known = text(format!("run/udev/data/b{}", number.trim()))?;
        let value = |key: &str| known.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value("E:ID_SERIAL_SHORT")
            .or_else(|| value("E:ID_SCSI_SERIAL"))
            .map(shown)
            .filter(|text| !text.is_empty())
    })
}

/// A device's words for a terminal: they may be hostile, or broken.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS).collect::<String>().trim().to_owned()
}

/// What is on a device.
struct AtDevice {
    holds: Holds,
    state: Option<PathBuf>,
    table: Option<Table>,
}

/// What is on it; without `whole` by its table alone.
fn at_device(device: &Path, name: &str, whole: bool) -> Result<AtDevice> {
    let disk = landfall_image::raw::open(Source::open(device)?, &Gate::own_folder())?.disk;
    let table = partition::read(disk.as_ref())?;
    let is_state = |entry: &&partition::Entry| entry.kind == TypeId::Gpt(layout::STATE);
    let state = table.iter().flat_map(|table| &table.entries).find(is_state);
    let state = state.map(|entry| landfall_boot::appliance::init::partition_device(name, entry.number));
    let holds = match (&table, whole) {
        (None, false) => Holds::Something { what: "data without a partition table, or nothing".into() },
        (table, _) => holds(disk.as_ref(), &Blank::open(device)?, table.as_ref(), name)?,
    };
    Ok(AtDevice { holds, state, table })
}

fn holds(disk: &dyn Disk, blank: &Blank, table: Option<&Table>, name: &str) -> Result<Holds> {
    let Some(table) = table else {
        return Ok(match blank.is_blank(false)? {
            true => Holds::Nothing,
            false if blank::is_remains(disk)? && blank.is_blank(true)? => Holds::Unfinished,
            false => Holds::Something { what: "data without a partition table".into() },
        });
    };
    let of_type = |kind: Uuid| table.entries.iter().filter(move |entry| entry.kind == TypeId::Gpt(kind));
    let vaults: Vec<_> = of_type(layout::VAULT).collect();
    let states = of_type(layout::STATE).count();
    match (&vaults[..], table.entries.len()) {
        ([vault], count) if states <= 1 && count == 1 + states && vault.attributes & COMPLETE == 0 => {
            // Up to the moment of the bit nothing but our own work can be there.
            Ok(Holds::Unfinished)
        }
        ([vault, ..], _) if vault.attributes & COMPLETE != 0 => Ok(Holds::Vault {
            id: vault.part_uuid.parse().unwrap_or(Uuid::nil()),
            partition: landfall_boot::appliance::init::partition_device(name, vault.number),
        }),
        (_, 0) => Ok(match blank.is_blank(true)? {
            true => Holds::Nothing,
            false => Holds::Something { what: "data behind an empty partition table".into() },
        }),
        (_, count) => Ok(Holds::Something {
            what: format!(
                "{count} partitions of a {} table",
                match table.scheme {
                    partition::Scheme::Gpt => "GPT",
                    partition::Scheme::Mbr => "MBR",
                }
            ),
        }),
    }
}

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
    let vaults: Vec<(&PathBuf, Uuid)> = disks
        .iter()
        .filter_map(|disk| match &disk.holds {
            Holds::Vault { id, partition } => Some((partition, *id)),
            _ => None,
        })
        .collect();
    if let Some(id) = known {
        let ours: Vec<_> = vaults.iter().filter(|(_, vault)| *vault == id).collect();
        return match &ours[..] {
            [(partition, id)] => Choice::Mount((*partition).clone(), *id),
            [] => Choice::Nothing(Problem::new(
                format!("the data disk with the vault {id} is not there"),
                "Attach it to this machine: it is taken as soon as it appears. To go on with another disk instead, choose it under Disks.",
            )),
            _ => Choice::Nothing(Problem::new(
                format!("there are several data disks with the vault {id}: one is a copy of the other"),
                "Detach the copy.",
            )),
        };
    }
    match &vaults[..] {
        [(partition, id)] => return Choice::Mount((*partition).clone(), *id),
        [] => {}
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

/// Mounts a vault, for the service's user.
///
/// # Errors
/// `Corrupt` where the file system is damaged, `Io`.
pub fn mount_vault(partition: &Path) -> Result<()> {
    let at = Path::new(places::VAULT);
    let failed = |e: std::io::Error| Error::io("cannot prepare", e).in_file(at);
    make::wait_for(partition)?;
    fs::create_dir_all(at).map_err(failed)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NOATIME;
    mount(partition, at, "xfs", flags, None).map_err(|e| {
        // EUCLEAN and EFSCORRUPTED are one.
        let damaged = matches!(e, rustix::io::Errno::UCLEAN | rustix::io::Errno::INVAL | rustix::io::Errno::IO);
        let error = match damaged {
            true => Error::corrupt(format!("the vault's file system cannot be mounted: {}", std::io::Error::from(e))),
            false => Error::io("cannot mount the vault", e.into()),
        };
        error.in_file(partition).hint(
            "look at the disk's own messages first (support bundle, journal/kernel.txt); then xfs_repair, run by somebody who knows it: nothing is repaired by itself",
        )
    })?;
    let user = rustix::fs::Uid::from_raw(places::SERVICE_USER);
    rustix::fs::chown(at, Some(user), Some(rustix::fs::Gid::from_raw(places::SERVICE_USER)))
        .map_err(|e| failed(e.into()))?;
    fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)
}

/// The vault that this appliance had before.
///
/// # Errors
/// `Corrupt` where the file cannot be understood: then no other vault is made.
pub fn known() -> Result<Option<Uuid>> {
    let path = Path::new(places::VAULT_ID);
    match fs::read(path) {
        Ok(bytes) => {
            let known: Known = serde_json::from_slice(&bytes).map_err(|e| {
                Error::corrupt(format!("cannot be understood: {e}")).in_file(path).at(FileOffset(0))
            })?;
            Ok(Some(known.vault))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot read", e).in_file(path)),
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
    let Some(disk) = disks.iter().find(|disk| disk.device == device) else {
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

/// Lets the vault use all of its disk, after the disk has become larger.
///
/// # Errors
/// `Refused` where there is no vault or nothing to gain, `Io`.
pub fn grow(boot: &Boot) -> Result<()> {
    let known = known()?;
    let disks = list(boot);
    let ours = disks.iter().find_map(|disk| match &disk.holds {
        Holds::Vault { id, partition } if Some(*id) == known => Some((disk, partition)),
        _ => None,
    });
    let (disk, _) =
        ours.ok_or_else(|| Error::refused("there is no data disk to grow").hint("attach it first"))?;
    let raw = landfall_image::raw::open(Source::open(&disk.device)?, &Gate::own_folder())?.disk;
    let grown = partition::create::grown(raw.as_ref())?;
    drop(raw);
    if let Some(grown) = grown {
        let failed = |e| Error::io("cannot write the partition table", e).in_file(&disk.device);
        let file = File::options().write(true).open(&disk.device).map_err(failed)?;
        for (at, bytes) in &grown.areas {
            file.write_all_at(bytes, at.0).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        drop(file);
        // The partition is in use: only its new length is told to the kernel.
        let (number, device) = (grown.number.to_string(), disk.device.to_string_lossy().into_owned());
        programs::must(programs::PARTX, &["--update", "--nr", &number, &device])?;
    }
    programs::must(programs::GROW_XFS, &[places::VAULT])?;
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Known {
    vault: Uuid,
}

/// Keeps which vault is ours.
///
/// # Errors
/// `Io`
pub fn keep(vault: Uuid) -> Result<()> {
    let bytes = serde_json::to_vec(&Known { vault }).map_err(|e| Error::corrupt(e.to_string()))?;
    super::state::write(Path::new(places::VAULT_ID), &bytes, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(device: &str, gib: u64, holds: Holds) -> FoundDisk {
        FoundDisk {
            device: device.into(),
            size: Bytes::gib(gib),
            sector: Bytes(512),
            model: String::new(),
            serial: String::new(),
            holds,
            state: None,
        }
    }

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
        assert!(matches!(choose(&[&one, &vault("/dev/sdh", 1)], Some(1)), Choice::Nothing(_)));
    }

    #[test]
    fn each_disk_is_searched_once_and_the_next_one_where_there_is_content() {
        let choose = |disks: &[FoundDisk]| match super::choose(disks, None, Layout::Vault) {
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

    #[test]
    fn a_byte_at_either_end_is_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let size = Bytes::gib(2);
        let file = File::create(&path).unwrap();
        file.set_len(size.0).unwrap();
        assert_eq!(at_device(&path, "disk", true).unwrap().holds, Holds::Nothing);
        for at in [0u64, 5000, (16 << 20) - 1, size.0 - 1, size.0 - (16 << 20)] {
            file.write_all_at(&[1], at).unwrap();
            assert!(matches!(at_device(&path, "disk", true).unwrap().holds, Holds::Something { .. }), "{at}");
            file.write_all_at(&[0], at).unwrap();
        }
        // A file system without a table, somewhere in the middle.
        file.write_all_at(&vec![1; 17 << 20], 1 << 30).unwrap();
        assert!(matches!(at_device(&path, "disk", true).unwrap().holds, Holds::Something { .. }));
        file.write_all_at(&vec![0; 17 << 20], 1 << 30).unwrap();
    }

    #[test]
    fn a_table_that_was_cut_off_is_one_that_was_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let size = Bytes::gib(3);
        for layout in [Layout::Vault, Layout::StateAndVault] {
            let file = File::options().create(true).truncate(true).write(true).open(&path).unwrap();
            file.set_len(size.0).unwrap();
            let table = make::new(layout, Bytes(512), size).unwrap();
            let number = table.partitions.len();
            let id = table.partitions[number - 1].guid;
            for (table, is_complete) in [(table.clone(), false), (make::complete(&table), true)] {
                for (at, bytes) in table.areas(size).unwrap() {
                    file.write_all_at(&bytes, at.0).unwrap();
                    let now = at_device(&path, "sdb", true).unwrap().holds;
                    assert!(
                        matches!(now, Holds::Unfinished | Holds::Vault { .. }),
                        "{layout:?} {is_complete} {now:?}"
                    );
                }
                let now = at_device(&path, "sdb", true).unwrap();
                let vault = Holds::Vault { id, partition: format!("/dev/sdb{number}").into() };
                assert_eq!(now.holds, if is_complete { vault } else { Holds::Unfinished });
                let state = (layout == Layout::StateAndVault).then(|| PathBuf::from("/dev/sdb1"));
                assert_eq!(now.state, state);
                // What was begun is gone on with, and not made anew where somebody may have used its state.
                let begun = make::begun(now.table.as_ref().unwrap(), Layout::Vault, Bytes(512)).unwrap();
                assert_eq!(begun, table);
                let both = make::begun(now.table.as_ref().unwrap(), Layout::StateAndVault, Bytes(512));
                assert_eq!(both.is_some(), layout == Layout::StateAndVault);
            }
            // Another's state is nothing that may be made anew.
            let mut others = make::complete(&table);
            others.partitions.pop();
            if others.partitions.is_empty() {
                continue;
            }
            for (at, bytes) in others.areas(size).unwrap() {
                file.write_all_at(&bytes, at.0).unwrap();
            }
            assert!(matches!(at_device(&path, "sdb", true).unwrap().holds, Holds::Something { .. }));
        }
    }
}
