//! VMware: ESXi, vCenter, Workstation and Fusion.

pub mod vmx;
