//! What images that store a disk in blocks of one size have in common: VHDX, VHD, VDI.

pub mod bits;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
#[path = "tests/libvhdi.rs"]
pub mod libvhdi;
pub mod read;
pub mod taken;
pub mod write;
