//! VMware: ESXi, vCenter, Workstation and Fusion.

mod disks;
mod keys;
mod known;
mod nics;
pub mod vmsd;
pub mod vmx;
pub mod write;

pub(in crate::hypervisor) use known::has_no_meaning_elsewhere;
pub(in crate::hypervisor) use nics::linux_name;
