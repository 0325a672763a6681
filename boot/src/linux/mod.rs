//! Linux guests.
//!
//! The `planner` reads the facts and calls the parts that plan: `rename` (device names), `loader` and `efi`, `drivers` and
//! `hardware`, `keep` (the next initramfs), `network`, `storage` (LVM) and `multipath`, `console`, `agents` (by `services`),
//! `selinux`. Each part takes the plan as it stands (`draft`) and adds its edits and findings. A family (`debian`, `redhat`,
//! …) says what is its own.

pub mod agents;
pub mod alpine;
pub mod arch;
pub(crate) mod boot_code;
mod console;
pub mod debian;
mod device;
mod dpkg;
mod draft;
mod drivers;
mod efi;
mod facts;
pub mod fstab;
mod grub_image;
mod hardware;
pub mod initramfs;
mod keep;
pub mod kmod;
pub(crate) mod lenient;
pub(crate) mod loader;
pub(crate) mod mac;
mod multipath;
pub(crate) mod network;
mod packages;
mod planner;
pub mod redhat;
mod rename;
pub(crate) mod secure_boot;
mod selinux;
mod services;
mod storage;
pub mod suse;
pub(crate) mod text;
mod version;

pub use network::yaml;

/// Volumes and mounts for tests outside of this folder.
#[cfg(test)]
pub(crate) mod test_volumes {
    pub use super::device::tests::{mount, volume};
}
