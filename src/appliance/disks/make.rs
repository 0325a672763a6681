//! Making a data disk: its table, and the vault's file system.
//!
//! Whatever moment power is lost at, what is found next is one of these, and is gone on with:
//!
//! | table | on it | what is done |
//! |---|---|---|
//! | none, or its backup alone | zeros | the table is written |
//! | vault without the bit | nothing of ours | the vault is made |
//! | state, vault without the bit | a state or none | the vault is made; the state's partition is left alone |
//! | vault with the bit | a vault | nothing |
//!
//! Who wants a state on a disk that was begun without one lays it out anew: there can be nothing in it yet.

use super::{COMPLETE, Holds, Layout, START, at_device};
use crate::appliance::programs;
use landfall_boot::appliance::init::partition_device;
use landfall_boot::appliance::layout;
use landfall_image::partition::create::{GptLayout, NewPartition};
use landfall_image::partition::{Table, TypeId};
use landfall_image::{Bytes, Error, GuestOffset, GuestRange, Result};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a partition's device may take to appear.
const DEVICE_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(100);

/// A data disk with its table, and no more yet.
pub struct Laid {
    device: PathBuf,
    size: Bytes,
    table: GptLayout,
}

/// Makes a vault on an empty disk, or ends what was begun on it; gives its partition and its identity.
///
/// # Errors
/// `Refused` where the disk is not empty by now, `Io`.
pub fn make(device: &Path, layout: Layout) -> Result<(PathBuf, Uuid)> {
    let laid = lay_out(device, layout)?;
    let (partition, id) = laid.vault()?;
    tracing::info!("making a vault on {} ({})", device.display(), laid.size);
    let uuid = format!("uuid={id}");
    programs::must(
        programs::MKFS_XFS,
        &["-q", "-f", "-L", layout::VAULT_LABEL, "-m", &uuid, &partition.to_string_lossy()],
    )?;
    File::open(&partition)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io("cannot sync", e).in_file(&partition))?;
    write_table(device, &complete(&laid.table), laid.size)?;
    Ok((partition, id))
}

/// Writes the table of an empty disk, which was searched ([`search`](super::search)); of one that was begun only what its table lacks.
///
/// # Errors
/// As [`make`].
pub fn lay_out(device: &Path, layout: Layout) -> Result<Laid> {
    let name = device.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let about = |what: &str| fs::read_to_string(format!("/sys/block/{name}/{what}")).unwrap_or_default();
    let size = Bytes(about("size").trim().parse::<u64>().unwrap_or(0).saturating_mul(512));
    let sector = Bytes(about("queue/logical_block_size").trim().parse().unwrap_or(512));
    let found = at_device(device, &name, true)?;
    if !matches!(found.holds, Holds::Nothing | Holds::Unfinished) {
        return Err(Error::refused("is not empty: it is left alone")
            .in_file(device)
            .hint("attach an empty disk"));
    }
    let begun = found.table.as_ref().and_then(|table| begun(table, layout, sector));
    let is_new = begun.is_none();
    let table = match begun {
        Some(table) => table,
        None => new(layout, sector, size)?,
    };
    // One that was begun may have lost half of it.
    write_table(device, &table, size)?;
    let laid = Laid { device: device.to_owned(), size, table };
    let devices: Vec<PathBuf> = (1..).zip(&laid.table.partitions).map(|(n, _)| laid.partition(n)).collect();
    if is_new || !devices.iter().all(|device| device.exists()) {
        read_anew(device)?;
    }
    devices.iter().try_for_each(|device| wait_for(device))?;
    Ok(laid)
}

impl Laid {
    fn partition(&self, number: u32) -> PathBuf {
        let name = self.device.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        partition_device(name, number)
    }

    fn of_type(&self, kind: Uuid) -> Result<(PathBuf, Uuid)> {
        let found = (1..).zip(&self.table.partitions).find(|(_, partition)| partition.type_guid == kind);
        found
            .map(|(number, partition)| (self.partition(number), partition.guid))
            .ok_or_else(|| Error::corrupt("the table has not what it was made with").in_file(&self.device))
    }

    /// The vault's partition, and its identity.
    ///
    /// # Errors
    /// `Corrupt`, which cannot be.
    pub fn vault(&self) -> Result<(PathBuf, Uuid)> {
        self.of_type(layout::VAULT)
    }

    /// The state's partition.
    ///
    /// # Errors
    /// `Corrupt` where it was laid out without one.
    pub fn state(&self) -> Result<PathBuf> {
        Ok(self.of_type(layout::STATE)?.0)
    }
}

/// A new table.
pub(super) fn new(layout: Layout, sector: Bytes, size: Bytes) -> Result<GptLayout> {
    let usable = GptLayout::usable(sector, size)?;
    let end = GuestOffset(usable.end().0 / START.0 * START.0);
    let partition = |name: &str, type_guid, from: u64, to: GuestOffset| NewPartition {
        name: name.to_owned(),
        type_guid,
        guid: Uuid::new_v4(),
        range: GuestRange::between(GuestOffset(from), to),
        attributes: 0,
    };
    let mut partitions = Vec::new();
    let mut at = START.0;
    if layout == Layout::StateAndVault {
        let end = at + layout::STATE_SIZE.0;
        partitions.push(partition(layout::STATE_LABEL, layout::STATE, at, GuestOffset(end)));
        at = end;
    }
    // The last one: it is what grows with the disk.
    partitions.push(partition("landfall-vault", layout::VAULT, at, end));
    Ok(GptLayout { disk_guid: Uuid::new_v4(), sector_size: sector, boot_code: Vec::new(), partitions })
}

/// The table that was begun, where it has all that is wanted.
pub(super) fn begun(table: &Table, layout: Layout, sector: Bytes) -> Option<GptLayout> {
    let partitions: Option<Vec<NewPartition>> = (1..)
        .zip(&table.entries)
        .map(|(number, entry)| {
            let TypeId::Gpt(type_guid) = entry.kind else { return None };
            let guid = entry.part_uuid.parse().ok()?;
            let (name, range, attributes) = (entry.name.clone(), entry.range, entry.attributes);
            (entry.number == number).then_some(NewPartition { name, type_guid, guid, range, attributes })
        })
        .collect();
    let partitions = partitions?;
    let has = |kind: Uuid| partitions.iter().any(|partition| partition.type_guid == kind);
    let is_enough = has(layout::VAULT) && (layout == Layout::Vault || has(layout::STATE));
    let disk_guid = table.disk_id.parse().ok()?;
    (is_enough && table.sector_size == sector).then_some(GptLayout {
        disk_guid,
        sector_size: sector,
        boot_code: Vec::new(),
        partitions,
    })
}

/// The table of a vault whose file system is complete.
pub(super) fn complete(table: &GptLayout) -> GptLayout {
    let mut table = table.clone();
    for partition in table.partitions.iter_mut().filter(|partition| partition.type_guid == layout::VAULT) {
        partition.attributes |= COMPLETE;
    }
    table
}

fn write_table(device: &Path, table: &GptLayout, size: Bytes) -> Result<()> {
    let failed = |e| Error::io("cannot write the partition table", e).in_file(device);
    let file = File::options().write(true).open(device).map_err(failed)?;
    for (at, bytes) in table.areas(size)? {
        file.write_all_at(&bytes, at.0).map_err(failed)?;
        // One copy is whole before the other is touched.
        file.sync_all().map_err(failed)?;
    }
    Ok(())
}

/// Lets the kernel read the table. It does not while somebody looks at the disk, as udev does at one that was written to.
fn read_anew(device: &Path) -> Result<()> {
    let end = Instant::now() + DEVICE_WITHIN;
    loop {
        match programs::must(programs::BLOCKDEV, &[Path::new("--rereadpt"), device]) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Waits for a device.
pub(super) fn wait_for(path: &Path) -> Result<()> {
    let end = Instant::now() + DEVICE_WITHIN;
    while !path.exists() {
        if Instant::now() > end {
            return Err(Error::io("did not appear", io::ErrorKind::NotFound.into()).in_file(path));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
