//! Linux guests.
//!
//! A family (`debian`) reads the facts and calls the parts that plan: `rename` (device names), `loader` and `efi`,
//! `drivers`, `network`, `storage` (multipath, LVM), `agents`. Each part takes the plan as it stands (`draft`) and
//! adds its edits and findings.

mod agents;
pub(crate) mod boot_code;
pub mod debian;
mod device;
mod dpkg;
mod draft;
mod drivers;
mod efi;
mod facts;
pub mod fstab;
mod grub_image;
pub mod initramfs;
pub mod kmod;
mod lenient;
pub(crate) mod loader;
mod network;
mod rename;
pub(crate) mod secure_boot;
mod storage;
mod text;
mod version;

/// Volumes and mounts for tests outside of this folder.
#[cfg(test)]
pub(crate) mod test_volumes {
    pub use super::device::tests::{mount, volume};
}
