//! Linux guests.
//!
//! The `planner` reads the facts and calls the parts that plan: `rename` (device names), `loader` and `efi`, `drivers` and
//! `hardware`, `keep` (the next initramfs), `network`, `storage` (multipath, LVM), `console`, `agents` (by `services`),
//! `selinux`. Each part takes the plan as it stands (`draft`) and adds its edits and findings. A family (`debian`, `redhat`,
//! …) says what is its own.

pub mod agents;
pub mod alpine;
pub mod arch;
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
mod keep;
pub mod kmod;
pub(crate) mod lenient;
mod loader;
mod network;
mod packages;
mod planner;
pub mod redhat;
mod rename;
mod selinux;
mod services;
mod storage;
pub mod suse;
pub(crate) mod text;
