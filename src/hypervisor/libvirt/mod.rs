//! libvirt's domain XML.

pub mod read;
pub mod write;
