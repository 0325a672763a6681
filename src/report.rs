//! The report of a run: one JSON document, the same that `--json` prints and `report.json` keeps.

use crate::machine::Machine;
use landfall_boot::check::Finding;
use landfall_boot::patch::{Action, Edit};
use landfall_boot::{Guest, volume::Volume};
use landfall_image::Bytes;
use landfall_image::formats::LayerInfo;
use serde::{Deserialize, Serialize};

/// Version of every JSON document that landfall prints. Grows when a field changes its meaning or goes away; new
/// fields do not change it.
pub const VERSION: u32 = 1;

/// What was found in a machine, and what is to be (or was) done to it.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// [`VERSION`]
    pub version: u32,
    /// The source's definition file.
    pub source: String,
    /// The machine at the source.
    pub machine: Machine,
    /// What its definition says and the neutral machine cannot carry.
    pub left_out: Vec<String>,
    /// Its disks' images, in the machine's order, each with its layers.
    pub disks: Vec<SourceDisk>,
    /// What lies on its disks.
    pub volumes: Vec<Volume>,
    /// The system on them.
    pub guest: Option<Guest>,
    /// What stands between it and a boot at the target.
    pub findings: Vec<Finding>,
    /// What is changed.
    pub edits: Vec<Change>,
    /// How the guest's files were read: `ext4 read from the disk`, `sandbox (tcg)`.
    pub read_through: String,
}

/// A disk of the source.
#[derive(Debug, Serialize)]
pub struct SourceDisk {
    /// Size as the guest sees it.
    pub virtual_size: Bytes,
    /// The named image first, its base last.
    pub layers: Vec<LayerInfo>,
}

/// One edit, for reading.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Guest path.
    pub path: String,
    /// What is done to it: one line.
    pub what: String,
    /// Why.
    pub why: String,
}

impl From<&Edit> for Change {
    fn from(edit: &Edit) -> Self {
        let what = match &edit.action {
            Action::Write { contents, .. } => {
                let lines = contents.0.iter().filter(|&&byte| byte == b'\n').count();
                format!("write {lines} lines")
            }
            Action::Copy { from } => format!("copy of {from}"),
            Action::Initramfs(edit) => {
                let mut what = format!("add drivers: {}", edit.drivers.join(", "));
                if !edit.files.is_empty() {
                    let files: Vec<&str> = edit.files.iter().map(|file| file.path.as_str()).collect();
                    what.push_str(&format!("; files: {}", files.join(", ")));
                }
                what
            }
            Action::Symlink { target } => format!("link to {target}"),
            Action::Remove => "remove".to_owned(),
        };
        Change { path: edit.path.clone(), what, why: edit.why.clone() }
    }
}

/// A conversion that was done. What `prove` needs is read back from it.
#[derive(Debug, Serialize)]
pub struct Converted {
    /// What was found and changed.
    #[serde(flatten)]
    pub inspected: Inspected,
    /// Name of the target: `kvm`.
    pub target: String,
    /// The machine as it was written.
    pub written: Machine,
    /// Its disks.
    pub written_disks: Vec<WrittenDisk>,
    /// Files of the definition, in the output folder.
    pub files: Vec<String>,
    /// Seconds that each step took.
    pub seconds: Vec<(String, f64)>,
    /// Version of the program.
    pub landfall: String,
}

/// A disk that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenDisk {
    /// File name in the output folder.
    pub file: String,
    /// `qcow2` or `raw`.
    pub format: String,
    /// Size as the guest sees it, in bytes.
    pub virtual_size: Bytes,
    /// Bytes stored as data.
    pub data: Bytes,
    /// Bytes that the host's file system holds for it.
    pub allocated: Bytes,
    /// BLAKE3 over what the guest reads (see `landfall disk info --digest`).
    pub content_digest: String,
}

/// The part of a kept report that is read back.
#[derive(Debug, Deserialize)]
pub struct Kept {
    /// [`VERSION`] of its writer.
    pub version: u32,
    /// Name of the target.
    pub target: String,
    /// The machine as it was written.
    pub written: Machine,
    /// Its disks.
    pub written_disks: Vec<WrittenDisk>,
}
