//! Linux guests.

pub mod debian;
pub mod fstab;
pub mod initramfs;
pub mod kmod;
