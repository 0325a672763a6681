//! Hypervisors: definitions in, definitions out. Text only; nothing here opens a disk or touches a file.
//!
//! To add one: write its module and add a row to [`TABLE`].

pub mod libvirt;
pub mod vmx;

use crate::machine::Machine;
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
    /// What each network of the source becomes: pairs of source name and target name; the rest gets `network`.
    pub networks: Vec<(String, String)>,
    /// Target network of every card that `networks` does not name.
    pub network: String,
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
    /// Makes the machine one for this hypervisor's virtual hardware.
    pub adapt: Option<fn(&Machine) -> Machine>,
    /// Writes the definition and how to register it.
    pub render: Option<Render>,
}

/// All of them.
pub const TABLE: &[Row] = &[
    Row {
        name: "vmware",
        title: "VMware",
        platform: None,
        endings: &["vmx"],
        parse: Some(vmx::parse),
        adapt: None,
        render: None,
    },
    Row {
        name: "kvm",
        title: "KVM with libvirt",
        platform: Some(Platform::Kvm),
        endings: &[],
        parse: None,
        adapt: Some(libvirt::adapt),
        render: Some(libvirt::render),
    },
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
