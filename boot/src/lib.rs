//! What makes a machine start: facts about an offline guest, the plan that makes it boot elsewhere, and the
//! sandbox that carries the plan out.
//!
//! ```text
//! Disk -> volume -> GuestTree -> Guest (facts) -> Family -> PatchPlan -> apply -> sandbox -> Overlay
//! ```
//!
//! Planning runs in the calling process and only ever reads, through [`tree::GuestTree`]. Which reader stands behind
//! it does not matter to the plan: ext4 straight from the disk, or any file system through the sandbox. Writing
//! is done by one thing only: the kernel inside the sandbox (see [`sandbox`]). No guest code is ever run.
//!
//! Two decisions differ from the first sketch of the design, for measured reasons:
//! - The sandbox's PID 1 is a small file agent, not the planner: compressing an initramfs under emulation takes ten
//!   times as long as outside, and the plan stays approvable before anything is applied.
//! - The sandbox gets one block device per *volume* (partition or logical volume), a view of the overlay made by
//!   [`volume`], not the whole disks: it needs no partition scan, no device-mapper and no `lvm`. Arrays with parity, thin
//!   pools and caches are views, too: an overlay that is thrown away on an error asks for none of the order and the journals
//!   that make them hard to write in a kernel, both readers then see the same bytes, and asking the kernel's device-mapper
//!   for them would take unsafe code.
//!
//! This crate names no disk-image format and no hypervisor product's definition format.

pub mod appliance;
pub mod apply;
pub mod check;
pub mod family;
pub mod guest;
pub mod host_file;
pub mod limits;
pub mod linux;
pub mod network_map;
pub mod patch;
pub mod sandbox;
pub mod session;
pub mod target;
#[cfg(test)]
mod testing;
pub mod tree;
pub mod volume;
pub mod windows;

pub use check::{Finding, Severity};
pub use guest::Guest;
pub use landfall_image::{Error, Kind, Result};
pub use patch::{Action, Edit, PatchPlan};
pub use tree::GuestTree;
