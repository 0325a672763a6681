//! The appliance: a machine of our own, laid out from a distribution's packages and started by our own program.
//!
//! ```text
//! list -> package -> root (files, without what is not needed) -> modules (indexes) -> a compressed file system
//!                      |-> initrd: our program as PID 1, the drivers of disks
//!                      |-> grub: for BIOS; for UEFI the distribution's signed shim, GRUB and kernel
//! ```
//! Nothing here runs a program of the packages, needs root or mounts: the same packages give the same bytes. What the running
//! appliance does beyond its first second is the program's.

pub mod grub;
pub mod init;
pub mod initrd;
pub mod layout;
pub mod modules;
pub mod package;
pub mod pattern;
pub mod root;
