//! Software RAID of Linux (md): from members to arrays, and where an array's bytes lie.
//!
//! [`superblock`] says what one member says, [`assemble`](mod@assemble) which members may be believed and what they make,
//! [`behind`] what the rest say of members that are not written.
//!
//! Opened for reading and writing: level 1 (mirrors), 0 with members of one size, linear, and 10 in the near layout.
//! A mirror is read as the kernel reads one that it does not trust: from the first disk that is in sync, since this is the
//! one that all others are made equal to when the array starts. Writes go to every disk that is in sync. A write-intent
//! bitmap is left as it is: it marks what may differ between the disks, and what is written alike everywhere does not.
//! Superblocks are written only where a member is not here, or had failed: those of the rest then say that it is gone.
//!
//! Recognised and not opened: levels 4, 5 and 6 (writing needs parity), 10 in the far and offset layouts, arrays that are
//! being reshaped or rebuilt, members with bad blocks, journals, clusters. RAID of the firmware (IMSM, DDF) is another format.

pub mod assemble;
pub mod behind;
pub mod superblock;

pub use assemble::{Array, Member, Set, assemble, level_name, sets};
pub use behind::Behind;

#[cfg(test)]
mod tests;
