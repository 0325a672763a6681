//! libvirt's domain XML.

pub mod write;
