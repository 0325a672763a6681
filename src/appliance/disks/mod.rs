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
//! A disk over several paths is listed once: see [`paths`].
//!
//! Deliberately absent: several disks for one vault, encryption, and repairing a damaged file system: `xfs_repair` is there, for
//! somebody who decides it.

mod blank;
mod choose;
mod make;
mod paths;
mod settle;

use blank::Blank;
pub use choose::{Choice, Claim, SEVERAL, choose, claimed, empty, names_of};
pub use make::{lay_out, make};
use paths::Looked;
pub use settle::{search, settled};

use super::{places, programs};
use landfall_boot::appliance::init::Boot;
use landfall_boot::appliance::layout;
use landfall_image::partition::{self, Table, TypeId};
use landfall_image::{Bytes, Disk, Error, FileOffset, Gate, Result, Source};
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The attribute of a vault whose file system is complete.
pub(super) const COMPLETE: u64 = 1 << 48;
/// A vault on less would be full at once.
pub const SMALLEST: Bytes = Bytes::gib(1);
/// Disks that are looked at side by side.
const AT_ONCE: usize = 32;
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
    /// What else it is called, where it is attached over several paths.
    pub paths: Vec<PathBuf>,
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
    paths::joined(found)
}

fn look(boot: &Boot, name: &str, whole: bool) -> Option<Looked> {
    let about = |what: &str| {
        let text = fs::read_to_string(format!("/sys/block/{name}/{what}")).unwrap_or_default();
        shown(text.trim())
    };
    let sectors: u64 = about("size").parse().ok().filter(|sectors| *sectors > 0)?;
    // A path of an NVMe disk, which the kernel joins itself.
    if about("hidden") == "1" {
        return None;
    }
    let device = Path::new("/dev").join(name);
    let sector = Bytes(about("queue/logical_block_size").parse().unwrap_or(512));
    let (holds, state, table) = match device == boot.system {
        true => (Holds::System, None, None),
        false if about("ro") == "1" => (Holds::Something { what: "read-only".into() }, None, None),
        false => match at_device(&device, name, whole) {
            Ok(found) => (found.holds, found.state, found.table.map(|table| table.disk_id)),
            Err(error) => (Holds::Unreadable { why: error.to_string() }, None, None),
        },
    };
    let disk = FoundDisk {
        size: Bytes(sectors.saturating_mul(512)),
        sector,
        model: about("device/model"),
        serial: serial(Path::new("/"), name).unwrap_or_default(),
        holds,
        state,
        device,
        paths: Vec::new(),
    };
    Some(Looked { disk, unit: paths::unit(Path::new("/"), name), table })
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

    pub(super) fn disk(device: &str, gib: u64, holds: Holds) -> FoundDisk {
        FoundDisk {
            device: device.into(),
            size: Bytes::gib(gib),
            sector: Bytes(512),
            model: String::new(),
            serial: String::new(),
            holds,
            state: None,
            paths: Vec::new(),
        }
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
