//! libvirt's domain XML, and QEMU's command line.

mod qemu;
pub mod read;
pub mod write;
