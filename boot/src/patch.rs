//! The patch plan: plain data that can be printed, compared, tested against a golden file and approved before
//! anything is applied.

use crate::check::{Finding, Severity};
use crate::host_file::HostFile;
use crate::network_map::Moved;
use crate::target::{Clock, Devices};
use crate::windows::data::Data;
use serde::Serialize;

/// Everything that will be done to a guest, and everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PatchPlan {
    /// In the order in which they are applied; at most one per path.
    pub edits: Vec<Edit>,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// What the machine's definition has to offer, so that the guest finds its disks and its network.
    #[serde(skip_serializing_if = "Devices::is_empty")]
    pub devices: Devices,
    /// What the network map changes in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
    /// What the guest takes the virtual real-time clock for, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
}

/// One path and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// Absolute guest path. A symbolic link in its last component is followed, so that links stay links.
    pub path: String,
    /// What is done.
    pub action: Action,
    /// Why, in one sentence for the report.
    pub why: String,
    /// Labels of what it makes anew: missing folders on the way, then the path itself. What exists keeps its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
}

/// The SELinux context of a new path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// Absolute guest path.
    pub path: String,
    /// `system_u:object_r:etc_t:s0`
    pub context: String,
}

/// What can be done to a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The file gets this content. Owner, mode and extended attributes of an existing file are kept; a new one is
    /// root's with `mode`, and missing folders are made with 0755.
    Write {
        /// The whole new content.
        contents: Text,
        /// Permission bits of a new file.
        mode: u32,
    },
    /// The file becomes a copy of another guest file.
    Copy {
        /// Absolute guest path.
        from: String,
    },
    /// The file becomes a copy of a file of this host.
    Stage(HostFile),
    /// An initramfs is rewritten with more in it.
    Initramfs(InitramfsEdit),
    /// Keys and values of the registry hive in this file.
    Registry(RegistryEdits),
    /// The path becomes a symbolic link.
    Symlink {
        /// As it is written into the link.
        target: String,
    },
    /// The path is removed if it exists. Never a folder with content.
    Remove,
}

/// File content in a plan: text shows as text in reports.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(#[serde(serialize_with = "as_lossy_text")] pub Vec<u8>);

fn as_lossy_text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match is_text(bytes) {
        true => serializer.serialize_str(&String::from_utf8_lossy(bytes)),
        false => {
            serializer.collect_str(&format_args!("{} bytes, blake3 {}", bytes.len(), blake3::hash(bytes)))
        }
    }
}

/// No text holds a zero; programs and signatures would fill a report with what nobody can read.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0)
}

impl Text {
    /// False for programs, signatures and the like.
    pub fn is_text(&self) -> bool {
        is_text(&self.0)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text(text.into_bytes())
    }
}

/// What is added to an initramfs, and taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InitramfsEdit {
    /// Kernel version that it belongs to.
    pub kernel: String,
    /// That kernel starts where nobody chooses. Without its drivers the guest does not boot; the others may stay as they are.
    #[serde(skip)]
    pub starts_by_default: bool,
    /// Folder of the kernel's modules in the guest.
    pub modules: String,
    /// Modules to add with all that they depend on (those already inside, or built in, cost nothing).
    pub drivers: Vec<String>,
    /// Modules to load early by name, for initramfs types that do not go by device alone. Subset of `drivers`.
    pub load: Vec<String>,
    /// Files to add or replace inside (path without leading `/`, content, mode): network names, a multipath blacklist.
    pub files: Vec<InitramfsFile>,
    /// Files and links to take out (path without leading `/`): lists of the old hardware.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Device names in its lists of encrypted volumes, old and new.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renames: Vec<(String, String)>,
    /// Names of plain partitions in kernel parameters that it carries with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRename>,
    /// Hardware addresses of network cards in its files, old and new.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<(String, String)>,
}

/// What is changed in one hive, in the order in which it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RegistryEdits(pub Vec<RegistryEdit>);

/// A key of a registry hive, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistryEdit {
    /// Below the hive's root: `ControlSet001\Services\viostor`.
    pub key: String,
    /// What is done.
    pub change: RegistryChange,
    /// Why, in one sentence for the report.
    pub why: String,
}

/// What can be done to a registry key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryChange {
    /// It is made, with those above it.
    Create,
    /// A value of it is set; missing keys are made.
    Set {
        /// Name of the value, empty for the default one.
        name: String,
        /// What it becomes.
        data: Data,
        /// What it was, where it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        was: Option<Data>,
    },
    /// A value of it is removed.
    DeleteValue {
        /// Name of the value.
        name: String,
        /// What it was.
        was: Data,
    },
    /// It is removed with all below it.
    Delete {
        /// Values that it had.
        was: Vec<(String, Data)>,
    },
}

/// A name that changes with the hypervisor, and one that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceRename {
    /// `/dev/sda2`
    pub old: String,
    /// `UUID=…`
    pub new: String,
    /// It is swap space; else a file system.
    pub is_swap: bool,
}

/// One file inside an initramfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InitramfsFile {
    /// Path without leading `/`.
    pub path: String,
    /// Content.
    pub contents: Text,
    /// Permission bits.
    pub mode: u32,
}

impl PatchPlan {
    /// True where something in it stands in the way.
    pub fn is_blocked(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Blocks)
    }
}
