//! Linux guests.

pub mod debian;
pub mod initramfs;
pub mod kmod;
