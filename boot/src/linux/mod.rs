//! Linux guests.
//!
//! A family (`debian`) reads the facts and calls the parts that plan: `rename` (device names), `loader` and `efi`,
//! `drivers` and `hardware`, `network`, `storage` (multipath, LVM), `console`, `agents` (by `services`). Each part takes
//! the plan as it stands (`draft`) and adds its edits and findings.

pub mod agents;
mod console;
pub mod debian;
mod device;
mod dpkg;
mod draft;
mod drivers;
mod efi;
mod facts;
pub mod fstab;
mod hardware;
pub mod initramfs;
pub mod kmod;
pub(crate) mod lenient;
mod loader;
mod network;
mod rename;
mod services;
mod storage;
pub(crate) mod text;
