//! Azure: a Bicep template that makes the machine of its uploaded disks, and the script that uploads and deploys.

pub mod size;
pub mod write;
