//! KubeVirt: a VirtualMachine and DataVolumes for its disks.
pub mod write;
