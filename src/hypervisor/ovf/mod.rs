//! OVF, the open virtualisation format: descriptors of VMware, VirtualBox, oVirt, Cisco and others, and the one that is written.
//!
//! Source: DMTF DSP0243 1.1.1 and 2.1.1; VMware's OVF 0.9; the extensions of VMware (`vmw:`), VirtualBox (`vbox:`) and oVirt as
//! their own exports show them. Deliberately absent: the archive around it (`landfall_image::ova`), properties that a guest
//! is told at its deployment, placement of several machines, certificates.

mod envelope;
mod hardware;
mod items;
mod units;
mod vendor;
pub mod write;

pub use envelope::File;

use super::xml::Element;
use super::{Choice, Parsed};
use landfall_image::{Error, Result};

/// True for text that looks like one: an envelope in one of OVF's namespaces.
pub fn recognise(bytes: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(16 << 10)).unwrap_or_default();
    let text = String::from_utf8_lossy(head).replace('\0', "");
    text.contains("Envelope") && text.contains("/ovf/")
}

/// Reads a descriptor.
///
/// # Errors
/// Refused where several machines are in it and none is chosen, or the choice is not there; unsupported for versions that are
/// not known and sizes that are asked for at the deployment; corrupt for what refers to nothing.
pub fn parse(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    if choice.snapshot.is_some() {
        return Err(Error::refused("holds one state of its machines: no snapshot can be chosen")
            .hint("leave out --snapshot"));
    }
    let root = Element::parse(bytes)?;
    let envelope = envelope::read(&root, choice)?;
    hardware::machine(&envelope)
}

/// The files that a descriptor refers to, in its order, so that their lengths can be compared.
pub fn files(bytes: &[u8]) -> Result<Vec<File>> {
    let root = Element::parse(bytes)?;
    envelope::check(&root)?;
    Ok(envelope::files(&root)?.into_iter().map(|(_, file)| file).collect())
}

#[cfg(test)]
mod tests;
