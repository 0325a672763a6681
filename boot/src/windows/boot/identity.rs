//! How Windows knows a partition: by the disk signature and its place (MBR), or by its GUID (GPT).
//!
//! Source: the boot configuration and MountedDevices of real machines; GUIDs lie there as Windows stores them, with the first
//! three fields little-endian.

use crate::volume::scan::opened_id;
use crate::volume::{Content, Volume};
use landfall_image::Bytes;
use std::fmt::{self, Display, Formatter};
use uuid::Uuid;

/// A partition as Windows names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    /// Of a disk with an MBR.
    Mbr {
        /// The disk's, at byte 440 of its first sector.
        signature: u32,
        /// Where it begins, in bytes.
        offset: u64,
    },
    /// Of a disk with a GPT.
    Gpt {
        /// Its own GUID.
        guid: Uuid,
    },
}

impl Partition {
    /// Its volume, where it is encrypted and was opened what lies in it; `None` where it is on none of the given disks.
    pub fn find<'v>(&self, volumes: &'v [Volume]) -> Option<&'v Volume> {
        let found = volumes.iter().find(|volume| Partition::of(volume) == Some(*self))?;
        let Content::Encrypted { scheme } = &found.content else { return Some(found) };
        let inner = opened_id(&found.id, scheme);
        Some(volumes.iter().find(|volume| volume.id == inner).unwrap_or(found))
    }

    /// How Windows names a volume that is a partition of a disk.
    pub fn of(volume: &Volume) -> Option<Partition> {
        volume.partition?;
        let uuid = volume.part_uuid.as_deref()?;
        match Uuid::try_parse(uuid) {
            Ok(guid) => Some(Partition::Gpt { guid }),
            Err(_) => {
                let (signature, _) = uuid.split_once('-')?;
                let signature = u32::from_str_radix(signature, 16).ok()?;
                Some(Partition::Mbr { signature, offset: volume.offset?.0 })
            }
        }
    }
}

/// A GUID in the order in which Windows stores it.
pub(super) fn guid(bytes: &[u8]) -> Option<Uuid> {
    Some(Uuid::from_bytes_le(bytes.try_into().ok()?))
}

impl Display for Partition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Partition::Mbr { signature, offset } => {
                write!(
                    f,
                    "the partition at {} of the disk with the signature {signature:08x}",
                    Bytes(*offset)
                )
            }
            Partition::Gpt { guid } => write!(f, "the partition {guid}"),
        }
    }
}
