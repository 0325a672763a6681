//! Hypervisors: definitions in, definitions out. Text only; nothing here opens a disk or touches a file.
//!
//! ```text
//! bytes -> a row of READERS -> Parsed { machine, findings, unread }
//! adapted machine, Placement -> a row of TARGETS -> Rendered { artifacts, findings }
//! ```
//! To read another definition: write its parser and add a row to [`READERS`]. To write one: its renderer, and a row of
//! [`TARGETS`]. What a parser does not read it names in [`Parsed::unread`], what the target cannot hold a renderer says in a
//! finding: nothing is dropped in silence.

pub mod attach;
pub mod azure;
mod behind;
pub mod fit;
pub mod guests;
pub mod hyperv;
pub mod kubevirt;
pub mod libvirt;
pub mod nutanix;
pub mod openstack;
pub mod ovf;
pub mod ovirt;
pub mod proxmox;
pub mod text;
pub mod vmware;
pub mod xen;
pub mod xml;
pub mod yaml;

use crate::finding;
use crate::machine::{Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Platform;
use landfall_image::{Bytes, Result};

/// Which of several machines or states in a definition is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The snapshot with that name; the current state otherwise.
    pub snapshot: Option<String>,
    /// The machine with that id or name, of a definition with several.
    pub system: Option<String>,
    /// The deployment option (OVF's configuration); the default one otherwise.
    pub configuration: Option<String>,
}

/// A definition that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The machine.
    pub machine: Machine,
    /// What of the definition is lost, stands in the way, or is good to know.
    pub findings: Vec<Finding>,
    /// Settings that the neutral machine has no place for, by their names in the definition.
    pub unread: Vec<String>,
}

impl Parsed {
    /// A machine of which all was read.
    pub fn new(machine: Machine) -> Parsed {
        Parsed { machine, findings: Vec::new(), unread: Vec::new() }
    }

    /// The findings, those of what stays at the source whatever its hypervisor is, and one that names what was not read.
    pub fn all_findings(&self) -> Vec<Finding> {
        let mut names = self.unread.clone();
        names.sort();
        names.dedup();
        let mut out = self.findings.clone();
        out.extend(behind::findings(&self.machine));
        if !names.is_empty() {
            let count = names.len();
            out.push(finding::NOT_READ.finding(
                format!("{count} settings of the definition are not carried over: {}.", names.join(", ")),
                "",
            ));
        }
        out
    }
}

/// A definition that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Its files.
    pub artifacts: Vec<Artifact>,
    /// What it has no place for.
    pub findings: Vec<Finding>,
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

impl Artifact {
    /// A file that is read.
    pub fn file(name: impl Into<String>, text: impl Into<String>) -> Artifact {
        Artifact { name: name.into(), text: text.into(), executable: false }
    }

    /// A script that is run.
    pub fn script(name: impl Into<String>, text: impl Into<String>) -> Artifact {
        Artifact { executable: true, ..Artifact::file(name, text) }
    }
}

/// Where a machine's disks lie when its definition is written, and what is around it at the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Absolute path of the output folder.
    pub folder: String,
    /// Each disk in it, in the machine's order.
    pub disks: Vec<PlacedDisk>,
    /// The networks that its cards are plugged into.
    pub networks: Networks,
    /// The storage that takes its disks, where one was chosen: a datastore, a Proxmox storage, a container.
    pub storage: Option<String>,
    /// Its id at the target, where machines have one that is chosen: Proxmox VE's VMID.
    pub id: Option<u32>,
    /// File name of its UEFI variables in the output folder, where they come along.
    pub variables: Option<String>,
    /// Its processors are emulated: the host has no virtualisation of its own.
    pub emulated: bool,
    /// What whoever deploys the machine is asked for, where the definition can ask (OVF).
    pub asks: Vec<Property>,
    /// Whoever registers the machine says its network then: where a target has no usual one its script asks, instead of the machine being
    /// refused.
    pub asks_network: bool,
    /// Its guest has no agent of the hypervisor's.
    pub without_agent: bool,
}

/// Something that is asked for when a machine is deployed, and that its guest reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its key: `landfall.ip`.
    pub key: &'static str,
    /// What it is called in the form.
    pub label: &'static str,
    /// What to put in.
    pub says: &'static str,
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

/// UEFI variables as they lie in their file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variables {
    /// Whose format they have.
    pub format: VariablesFormat,
    /// The file's content.
    pub bytes: Vec<u8>,
}

/// Formats of UEFI variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariablesFormat {
    /// EDK II's firmware volume: OVMF.
    Edk2,
    /// VMware's.
    Vmware,
}

impl Variables {
    /// Length of `OVMF_VARS_4M.fd`, which the firmware of today's hosts goes with. It starts with no other.
    const EDK2_SIZE: usize = 0x84000;

    /// True where a firmware that takes this format starts with them.
    pub fn fit(&self, format: VariablesFormat) -> bool {
        self.format == format && (format != VariablesFormat::Edk2 || self.bytes.len() == Self::EDK2_SIZE)
    }
}

/// One written disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedDisk {
    /// File name in the output folder.
    pub file: String,
    /// `qcow2`, `raw`, `vmdk`.
    pub format: String,
    /// Size as the guest sees it.
    pub virtual_size: Bytes,
    /// Length of its file, once it is written.
    pub stored: Option<Bytes>,
    /// What it is a delta over; `None` where it is whole.
    pub below: Option<Below>,
}

/// An export of NBD, as a raw disk that does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// Where its server is.
    pub server: Server,
    /// Its name.
    pub export: String,
}

/// A server of NBD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// A socket of the machine's host, by its absolute path.
    Socket(String),
    /// A host and port.
    Host(String, u16),
}

/// For so many seconds a lost export is waited for before its reads fail. Linux gives a SCSI or ATA disk 30 s for an answer.
pub const RECONNECT_SECONDS: u32 = 25;

/// Reads a definition.
pub type Parse = fn(&[u8], &Choice) -> Result<Parsed>;

/// Writes a definition for a machine that was adapted to the target's devices (see [`attach::adapt`]).
pub type Render = fn(&Machine, &Placement) -> Result<Rendered>;

/// The name of a file that belongs to a machine.
pub type FileName = fn(&Machine) -> String;

/// A kind of definition that is read.
pub struct Reader {
    /// Short, for reports: `vmx`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// File name endings of its definitions.
    pub endings: &'static [&'static str],
    /// True for bytes that are such a definition by their looks: several kinds share an ending.
    pub recognise: fn(&[u8]) -> bool,
    /// Reads a definition's bytes.
    pub parse: Parse,
    /// What lies beside its definitions and belongs to them, the disks apart.
    pub beside: Beside,
}

/// What lies beside a definition and belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// The list of its snapshots, with the ending `vmsd`.
    Snapshots,
    /// A manifest of its files, with the ending `mf`. Its disks may be compressed or cut into pieces as a whole, which their
    /// format then says.
    Manifest,
}

/// A target.
pub struct Target {
    /// Its name after `--to`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Virtual hardware that the guest is patched for.
    pub platform: Platform,
    /// Kinds of image that it takes (`landfall_image::formats::KINDS`), the usual one first.
    pub kinds: &'static [&'static str],
    /// Writes the definition and how to register it.
    pub render: Render,
    /// What its files are put into.
    pub package: Package,
    /// Its definition, or the script beside it, chooses a storage: [`Placement::storage`].
    pub takes_storage: bool,
    /// It chooses an id: [`Placement::id`].
    pub takes_id: bool,
    /// The format of UEFI variables that its firmware starts with, and the name of their file beside the machine: [`Placement::variables`].
    pub variables: Option<(VariablesFormat, FileName)>,
    /// What a machine of that name, or its files, are called there. Two machines must differ in it, in more than capitals.
    pub called: fn(&str) -> String,
}

/// What the files of a written machine are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// A folder.
    Folder,
    /// An OVA: the first of its definition's files, which ends in `.ovf`, and its disks in one archive, in the folder.
    Ova,
    /// An XVA: `ova.xml` of its definition's files, and its disks in one archive, in the folder.
    Xva,
}

const fn written(
    name: &'static str,
    title: &'static str,
    platform: Platform,
    kinds: &'static [&'static str],
    render: Render,
) -> Target {
    Target {
        name,
        title,
        platform,
        kinds,
        render,
        package: Package::Folder,
        takes_storage: true,
        takes_id: false,
        variables: None,
        called: str::to_owned,
    }
}

/// The name that [`libvirt`]'s `qemu.sh` has for them, too.
fn variables_file(_: &Machine) -> String {
    "uefi-variables.fd".to_owned()
}

/// Definitions that are read.
pub const READERS: &[Reader] = &[
    Reader {
        name: "vmx",
        title: "VMware configuration (.vmx)",
        endings: &["vmx"],
        recognise: vmware::vmx::recognise,
        parse: vmware::vmx::parse,
        beside: Beside::Snapshots,
    },
    Reader {
        name: "proxmox",
        title: "Proxmox VE configuration (.conf)",
        endings: &["conf"],
        recognise: proxmox::conf::recognise,
        parse: proxmox::read::parse,
        beside: Beside::Nothing,
    },
    Reader {
        name: "ahv",
        title: "Nutanix AHV (JSON of Prism or acli)",
        endings: &["json"],
        recognise: nutanix::read::recognise,
        parse: nutanix::read::parse,
        beside: Beside::Nothing,
    },
    Reader {
        name: "vmcx",
        title: "Hyper-V configuration of 2016 and later (.vmcx)",
        endings: &["vmcx"],
        recognise: hyperv::read::recognise_vmcx,
        parse: hyperv::read::parse_vmcx,
        beside: Beside::Nothing,
    },
    Reader {
        name: "hyperv-xml",
        title: "Hyper-V configuration of 2008 to 2012 R2 (.xml)",
        endings: &["xml"],
        recognise: hyperv::read::recognise_xml,
        parse: hyperv::read::parse_xml,
        beside: Beside::Nothing,
    },
    Reader {
        name: "libvirt",
        title: "libvirt domain (.xml)",
        endings: &["xml"],
        recognise: libvirt::read::recognise,
        parse: libvirt::read::parse,
        beside: Beside::Nothing,
    },
    Reader {
        name: "ovf",
        title: "Open Virtualisation Format (.ovf, .ova)",
        endings: &["ovf", "ova"],
        recognise: ovf::recognise,
        parse: ovf::parse,
        beside: Beside::Manifest,
    },
    Reader {
        name: "xva",
        title: "XenServer and XCP-ng export (.xva)",
        endings: &["xva"],
        recognise: xen::read::recognise,
        parse: xen::read::parse,
        beside: Beside::Nothing,
    },
];

/// Targets.
pub const TARGETS: &[Target] = &[
    Target {
        takes_storage: false,
        variables: Some((VariablesFormat::Edk2, variables_file)),
        ..written("kvm", "KVM with libvirt", Platform::Kvm, &["qcow2", "raw"], libvirt::write::render)
    },
    Target {
        takes_id: true,
        variables: Some((VariablesFormat::Edk2, variables_file)),
        called: proxmox::write::called,
        ..written("proxmox", "Proxmox VE", Platform::Kvm, &["qcow2", "raw", "vmdk"], proxmox::write::render)
    },
    Target {
        called: openstack::write::called,
        ..written("openstack", "OpenStack", Platform::Kvm, &["qcow2", "raw"], openstack::write::render)
    },
    Target {
        called: kubevirt::write::called,
        ..written("kubevirt", "KubeVirt", Platform::Kvm, &["qcow2", "raw"], kubevirt::write::render)
    },
    Target {
        called: ovirt::write::called,
        ..written("ovirt", "oVirt", Platform::Kvm, &["qcow2", "raw"], ovirt::write::render)
    },
    Target {
        called: nutanix::write::called,
        ..written("ahv", "Nutanix AHV", Platform::Ahv, &["qcow2", "raw"], nutanix::write::render)
    },
    Target {
        variables: Some((VariablesFormat::Vmware, vmware::write::variables_file)),
        called: vmware::write::stem,
        ..written(
            "esxi",
            "VMware ESXi",
            Platform::Esxi,
            &["vmdk-esxi", "vmdk-stream", "vmdk"],
            vmware::write::render,
        )
    },
    Target {
        package: Package::Ova,
        takes_storage: false,
        called: vmware::write::stem,
        ..written("ova", "OVA for VMware vSphere", Platform::Esxi, &["vmdk-stream"], ovf::write::render)
    },
    Target {
        called: hyperv::write::called,
        ..written(
            "hyperv",
            "Hyper-V",
            Platform::Hyperv,
            &["vhdx", "vhdx-fixed", "vhd", "vhd-fixed"],
            hyperv::write::render,
        )
    },
    Target {
        takes_storage: false,
        called: azure::write::called,
        ..written("azure", "Azure", Platform::Azure, &["vhd-azure"], azure::write::render)
    },
    Target {
        package: Package::Xva,
        ..written("xen", "Xen (XCP-ng, XenServer)", Platform::Xen, &["xva"], xen::write::render)
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|row| row.name == name)
}

/// Names of all targets.
pub fn target_names() -> Vec<&'static str> {
    TARGETS.iter().map(|row| row.name).collect()
}

/// What reads `bytes` of a file with that ending (in lower case): a row that has the ending and recognises them, else one that
/// recognises them, else one that has the ending, so that its parser says what is wrong.
pub fn reader(ending: &str, bytes: &[u8]) -> Option<&'static Reader> {
    let has = |row: &&Reader| row.endings.contains(&ending);
    let sees = |row: &&Reader| (row.recognise)(bytes);
    let find = |wanted: &dyn Fn(&&Reader) -> bool| READERS.iter().find(|row| wanted(row));
    find(&|row| has(row) && sees(row)).or_else(|| find(&sees)).or_else(|| find(&has))
}

/// File name endings of all definitions that are read.
pub fn endings() -> Vec<&'static str> {
    let mut endings: Vec<&str> = Vec::new();
    for ending in READERS.iter().flat_map(|row| row.endings) {
        if !endings.contains(ending) {
            endings.push(ending);
        }
    }
    endings
}

/// Kinds of image that any target takes.
pub fn disk_kinds() -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for kind in TARGETS.iter().flat_map(|row| row.kinds) {
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
            assert!(TARGETS.iter().any(|row| row.platform == *platform));
        }
        for row in TARGETS {
            assert!(!row.kinds.is_empty(), "{}", row.name);
        }
        for kind in disk_kinds() {
            assert!(landfall_image::formats::kind(kind).is_ok(), "{kind}");
        }
    }
}
