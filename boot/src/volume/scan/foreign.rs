//! Storage of Windows that is known by the partition table and not opened: Dynamic Disks (LDM) and Storage Spaces.
//!
//! A partition of theirs may look like the file system that lies in it, and be one side of a mirror or a piece of a stripe:
//! what it belongs to goes before what it seems to hold.
//!
//! ```text
//! MBR   type 0x42 on a disk with "PRIVHEAD" in sector 6 or in its last sector (without: Linux swap beside DR-DOS, SFS)
//! GPT   5808c8aa-… metadata and af9b60a0-… data of LDM, e75caf8f-… Storage Spaces
//! ```
//! Sources: the kernel's `block/partitions/ldm.c`; Microsoft, PARTITION_INFORMATION_GPT.

use crate::Result;
use landfall_image::partition::{Entry, TypeId};
use landfall_image::{Disk, GuestOffset};

/// What the partitions of a Dynamic Disk are members of.
pub const DYNAMIC: &str = "Dynamic Disk";
/// What the partitions of a storage pool are members of.
pub const SPACES: &str = "Storage Spaces";

/// What partition `entry` of `disk` belongs to.
pub(super) fn owner(disk: &dyn Disk, entry: &Entry) -> Result<Option<&'static str>> {
    Ok(match entry.kind {
        TypeId::Mbr(0x42) if has_private_header(disk)? => Some(DYNAMIC),
        TypeId::Mbr(_) => None,
        TypeId::Gpt(kind) => match kind.to_string().as_str() {
            "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3" | "af9b60a0-1431-4f62-bc68-3311714a69ad" => Some(DYNAMIC),
            "e75caf8f-f680-4cee-afa3-b001e56efc2d" => Some(SPACES),
            _ => None,
        },
    })
}

fn has_private_header(disk: &dyn Disk) -> Result<bool> {
    let size = disk.size().0;
    for at in [6 * 512, (size / 512).saturating_sub(1) * 512] {
        let mut mark = [0; 8];
        if at + 8 <= size {
            disk.read_at(GuestOffset(at), &mut mark)?;
        }
        if &mark == b"PRIVHEAD" {
            return Ok(true);
        }
    }
    Ok(false)
}
