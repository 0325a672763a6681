//! Hypervisors: definitions in, definitions out. Text only; nothing here opens a disk or touches a file.
//!
//! To add one: write its module and add a row to [`TABLE`].

pub mod attach;
pub mod by_hand;
pub mod libvirt;
pub mod vmx;

use crate::machine::{Machine, NicSlot};
use landfall_boot::target::Platform;
use landfall_image::Result;

/// A definition that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The machine.
    pub machine: Machine,
    /// What the definition says that the neutral machine cannot carry, one sentence each.
    pub left_out: Vec<String>,
}

/// One file of a definition that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// File name in the machine's output folder.
    pub name: String,
    /// Its content.
    pub text: String,
    /// True for a script that is to be run.
    pub executable: bool,
}

/// Where a machine's disks lie when its definition is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Absolute path of the output folder.
    pub folder: String,
    /// File name of each disk in it, in the machine's order.
    pub disks: Vec<PlacedDisk>,
    /// The networks that its cards are plugged into.
    pub networks: Networks,
}

/// What the source's networks become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Pairs of source name and target name.
    pub map: Vec<(String, String)>,
    /// Target network of every card that `map` does not name, where one was chosen.
    pub rest: Option<String>,
}

impl Networks {
    /// The target network that was chosen for a card.
    pub fn chosen(&self, nic: &NicSlot) -> Option<&str> {
        let named = nic.network.as_ref().and_then(|source| self.map.iter().find(|(from, _)| from == source));
        named.map(|(_, to)| to).or(self.rest.as_ref()).map(String::as_str)
    }
}

/// One written disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedDisk {
    /// File name in the output folder.
    pub file: String,
    /// `qcow2` or `raw`.
    pub format: String,
}

/// Reads a definition.
pub type Parse = fn(&[u8]) -> Result<Parsed>;

/// Writes a definition.
pub type Render = fn(&Machine, &Placement) -> Result<Vec<Artifact>>;

/// One hypervisor.
pub struct Row {
    /// Its name after `--to`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Virtual hardware that the guest is patched for; `None` where it is only read from.
    pub platform: Option<Platform>,
    /// File name endings of its definitions.
    pub endings: &'static [&'static str],
    /// Reads a definition's bytes.
    pub parse: Option<Parse>,
    /// Kinds of image that it takes (`landfall_image::formats::KINDS`), the usual one first.
    pub kinds: &'static [&'static str],
    /// Writes the definition and how to register it.
    pub render: Option<Render>,
    /// Its definition is not written: a person makes the machine, see [`by_hand`].
    pub by_hand: bool,
}

const fn by_hand(
    name: &'static str,
    title: &'static str,
    platform: Platform,
    kinds: &'static [&'static str],
) -> Row {
    Row {
        name,
        title,
        platform: Some(platform),
        endings: &[],
        parse: None,
        kinds,
        render: Some(by_hand::render),
        by_hand: true,
    }
}

/// All of them.
pub const TABLE: &[Row] = &[
    Row {
        name: "vmware",
        title: "VMware",
        platform: None,
        endings: &["vmx"],
        parse: Some(vmx::parse),
        kinds: &[],
        render: None,
        by_hand: false,
    },
    Row {
        name: "kvm",
        title: "KVM with libvirt",
        platform: Some(Platform::Kvm),
        endings: &[],
        parse: None,
        kinds: &["qcow2", "raw"],
        render: Some(libvirt::render),
        by_hand: false,
    },
    by_hand("ahv", "Nutanix AHV", Platform::Ahv, &["qcow2", "raw"]),
    by_hand("esxi", "VMware ESXi", Platform::Esxi, &["vmdk-esxi", "vmdk-stream", "vmdk"]),
    by_hand("hyperv", "Hyper-V", Platform::Hyperv, &["vhdx", "vhdx-fixed", "vhd", "vhd-fixed"]),
    by_hand("azure", "Azure", Platform::Azure, &["vhd-azure"]),
    by_hand("xen", "Xen (XCP-ng, XenServer)", Platform::Xen, &["raw", "qcow2", "vhd"]),
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name && row.render.is_some())
}

/// Names of all targets.
pub fn target_names() -> Vec<&'static str> {
    TABLE.iter().filter(|row| row.render.is_some()).map(|row| row.name).collect()
}

/// The hypervisor whose definitions have that ending.
pub fn by_ending(ending: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.parse.is_some() && row.endings.contains(&ending))
}

/// Kinds of image that any target takes.
pub fn disk_kinds() -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for kind in TABLE.iter().flat_map(|row| row.kinds) {
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_is_a_target_and_every_kind_is_written() {
        for platform in Platform::ALL {
            assert!(TABLE.iter().any(|row| row.platform == Some(*platform) && row.render.is_some()));
        }
        for row in TABLE.iter().filter(|row| row.render.is_some()) {
            assert!(!row.kinds.is_empty(), "{}", row.name);
        }
        for kind in disk_kinds() {
            assert!(landfall_image::formats::kind(kind).is_ok(), "{kind}");
        }
    }
}
