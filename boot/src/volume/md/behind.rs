//! Members that are not written with the rest of their array: the superblocks of the rest say so before the first write.
//!
//! Without that the kernel would take a disk that was merely not here for as good as the others, and would copy to one
//! that had failed only what the array's own bitmap marks. It does neither once a member's count of events is two ahead:
//! it leaves the others out when the array starts, takes the bitmap for outdated, and fills anew what is added. (kernel:
//! `super_90_validate`, `super_1_validate` in `drivers/md/md.c`, `md_bitmap_read_sb` in `md-bitmap.c`)

use super::assemble::Member;
use super::superblock::{self, Role};
use crate::Result;
use landfall_image::{DiskMut, GuestOffset};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// By how much the count of events grows: members one behind the freshest are as good as it.
pub const EVENTS: u64 = 2;

/// What is to be said by the members that are written.
pub struct Behind {
    members: Vec<(Arc<dyn DiskMut>, GuestOffset)>,
    /// Numbers of members that are not written, though their superblocks count them as in sync.
    gone: Vec<u32>,
}

impl Behind {
    /// For the members that are written, by their disk of the array.
    pub(super) fn new(written: &BTreeMap<u32, &Member>) -> Behind {
        let numbers: BTreeSet<u32> = written.values().map(|member| member.superblock.number).collect();
        let roles = written.values().flat_map(|member| (0_u32..).zip(&member.superblock.roles));
        let in_sync = roles.filter(|(_, role)| matches!(role, Role::Disk(_))).map(|(number, _)| number);
        let gone = in_sync.filter(|number| !numbers.contains(number)).collect::<BTreeSet<u32>>();
        let gone = gone.into_iter().collect();
        let members = written.values().map(|member| (member.device.clone(), member.superblock.place));
        Behind { members: members.collect(), gone }
    }

    /// Writes it into the superblocks.
    ///
    /// # Errors
    /// Where a member cannot be read or written, or its superblock is no longer what was found.
    pub fn write(&self) -> Result<()> {
        for (device, place) in &self.members {
            superblock::leave_behind(&**device, *place, &self.gone, EVENTS)?;
        }
        Ok(())
    }
}
