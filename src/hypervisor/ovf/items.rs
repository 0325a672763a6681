//! The items of a machine's virtual hardware, those of the chosen configuration.
//!
//! Source: DMTF DSP0243, section 8 "Virtual hardware description"; the properties of CIM_ResourceAllocationSettingData and its
//! relatives for storage and network ports in OVF 2.

use super::envelope::{Envelope, kind};
use crate::hypervisor::xml::Element;
use landfall_image::{Error, Result};
use std::collections::HashMap;

/// ResourceType, as CIM numbers it.
pub(super) mod types {
    pub(in super::super) const OTHER: u32 = 1;
    pub(in super::super) const PROCESSOR: u32 = 3;
    pub(in super::super) const MEMORY: u32 = 4;
    pub(in super::super) const IDE: u32 = 5;
    pub(in super::super) const SCSI: u32 = 6;
    pub(in super::super) const FIBRE_CHANNEL: u32 = 7;
    pub(in super::super) const ISCSI: u32 = 8;
    pub(in super::super) const ETHERNET: u32 = 10;
    pub(in super::super) const FLOPPY: u32 = 14;
    pub(in super::super) const CD: u32 = 15;
    pub(in super::super) const DVD: u32 = 16;
    pub(in super::super) const DISK: u32 = 17;
    pub(in super::super) const TAPE: u32 = 18;
    pub(in super::super) const STORAGE: u32 = 20;
    pub(in super::super) const SERIAL: u32 = 21;
    pub(in super::super) const PARALLEL: u32 = 22;
    pub(in super::super) const USB: u32 = 23;
    pub(in super::super) const GRAPHICS: u32 = 24;
    pub(in super::super) const LOGICAL_DISK: u32 = 31;
    pub(in super::super) const SOUND: u32 = 35;
}

/// One item.
pub(super) struct Item<'a> {
    element: &'a Element,
    /// Its id, by which others name it as their parent.
    pub(super) id: &'a str,
    /// Its ResourceType.
    pub(super) resource: u32,
}

impl<'a> Item<'a> {
    /// The text of a property, where it is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.element.text_at(name)
    }

    /// What people call it.
    pub(super) fn name(&self) -> &'a str {
        self.text("ElementName").or(self.text("Caption")).unwrap_or("an item without a name")
    }

    /// Its kind, in lower case; the first of several that would do.
    pub(super) fn sub_type(&self) -> String {
        let first = self.text("ResourceSubType").and_then(|all| all.split_whitespace().next());
        first.unwrap_or_default().to_ascii_lowercase()
    }

    /// A property that is a small number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>> {
        let number = |text: &str| {
            text.parse().map_err(|_| {
                Error::corrupt(format!(
                    "says {name} = {text:?} of {:?}, where a number is wanted",
                    self.name()
                ))
            })
        };
        self.text(name).map(number).transpose()
    }

    /// The machine can do without it.
    pub(super) fn is_optional(&self) -> bool {
        matches!(self.element.attribute("required"), Some("false" | "0"))
    }

    /// VMware's settings of it: keys and values.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.element
            .all("Config")
            .filter_map(|config| Some((config.attribute("key")?, config.attribute("value")?)))
    }
}

/// The hardware of a machine: of several sections VMware's own, else the first.
pub(super) fn section<'a>(envelope: &Envelope<'a>, unread: &mut Vec<String>) -> Result<&'a Element> {
    let all: Vec<&Element> =
        envelope.system.children.iter().filter(|child| kind(child) == "VirtualHardwareSection").collect();
    let families =
        |section: &Element| section.text_at("System/VirtualSystemType").unwrap_or_default().to_owned();
    let own = all.iter().position(|section| families(section).contains("vmx-")).unwrap_or(0);
    let Some(chosen) = all.get(own) else {
        return Err(Error::unsupported(format!(
            "describes no virtual hardware for {:?}",
            super::envelope::name(envelope.system)
        )));
    };
    let others = all.iter().enumerate().filter(|(index, _)| *index != own);
    unread.extend(others.map(|(_, section)| format!("VirtualHardwareSection ({})", families(section))));
    Ok(chosen)
}

/// Its items. One that is meant for the chosen configuration takes the place of one with the same id that is meant for all;
/// those that only bound a range are left out.
pub(super) fn items<'a>(envelope: &Envelope<'_>, section: &'a Element) -> Result<Vec<Item<'a>>> {
    let mut out: Vec<Item<'a>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for element in &section.children {
        let is_item = matches!(element.name.as_str(), "Item" | "StorageItem" | "EthernetPortItem");
        let is_bound = element.attribute("bound").is_some_and(|bound| bound != "normal");
        if !is_item || is_bound || !envelope.is_chosen(element) {
            continue;
        }
        let id = element.text_at("InstanceID").or(element.text_at("InstanceId")).unwrap_or_default();
        let resource = element.text_at("ResourceType").unwrap_or("1");
        let resource = resource.parse().map_err(|_| {
            Error::corrupt(format!(
                "has an item {id:?} with the ResourceType {resource:?}, where a number is wanted"
            ))
        })?;
        let item = Item { element, id, resource };
        let specific = element.attribute("configuration").is_some();
        match places.get(id).copied().filter(|_| !id.is_empty()) {
            // The special one counts, wherever it stands.
            Some(place) if specific => out[place] = item,
            Some(place) if out[place].element.attribute("configuration").is_some() => {}
            Some(_) => return Err(Error::corrupt(format!("has two items with the id {id:?}"))),
            None => {
                places.insert(id, out.len());
                out.push(item);
            }
        }
    }
    Ok(out)
}
