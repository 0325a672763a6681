//! Linux guests.
//!
//! A family (`debian`) reads the facts and calls the parts that plan: `rename` (device names), `loader` and `efi`,
//! `drivers`, `network`, `storage` (multipath, LVM), `agents`. Each part takes the plan as it stands (`draft`) and
//! adds its edits and findings.

mod agents;
pub mod debian;
mod device;
mod dpkg;
mod draft;
mod drivers;
mod efi;
mod facts;
pub mod fstab;
pub mod initramfs;
pub mod kmod;
pub(crate) mod lenient;
mod loader;
mod network;
mod rename;
mod storage;
mod text;
