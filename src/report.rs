//! The report of a run: one JSON document, the same that `--json` prints and `report.json` keeps.
//!
//! Here are the documents of machines; [`images`] has those of the disk verbs, [`failure`] those of what was not done and
//! of explanations, [`registration`] that of `register`, [`receiving`] those of `receive`, [`recovery`] those of `recover`. Their schemas are [`crate::schema`].

pub mod api;
pub mod failure;
pub mod images;
pub mod protection;
pub mod receiving;
pub mod recovery;
pub mod registration;
pub mod sending;
pub mod serving;

use crate::machine::Machine;
use images::PartitionTable;
use landfall_boot::Guest;
use landfall_boot::check::{Finding, Severity};
use landfall_boot::network_map::Moved;
use landfall_boot::patch::{Action, Edit, RegistryChange, RegistryEdit};
use landfall_boot::target::Devices;
use landfall_boot::volume::{Array, Volume, VolumeGroup};
use landfall_image::Bytes;
use landfall_image::formats::LayerInfo;
use landfall_image::{Error, Result};
use registration::Afterwards;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};
use std::path::Path;

/// Version of every JSON document that landfall prints. Grows when a field changes its meaning or its type or goes away; new
/// fields, and new words where a field has one of several, do not change it.
pub const VERSION: u32 = 1;

/// Name of the report in a machine's folder.
pub const REPORT: &str = "report.json";

/// What was found in a machine, and what is to be (or was) done to it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Inspected {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The source's definition file.
    pub source: String,
    /// The machine at the source.
    pub machine: Machine,
    /// Its disks' images, in the machine's order, each with its layers.
    pub disks: Vec<SourceDisk>,
    /// What lies on its disks.
    pub volumes: Vec<Volume>,
    /// Volume groups of LVM on them.
    pub groups: Vec<VolumeGroup>,
    /// Arrays of md on them.
    pub arrays: Vec<Array>,
    /// The system on them.
    pub guest: Option<Guest>,
    /// What stands between it and a boot at the target.
    pub findings: Vec<Finding>,
    /// What the target offers and the guest can drive, the best first.
    pub devices: Devices,
    /// What is changed.
    pub edits: Vec<Change>,
    /// What the network map makes of its addresses; these changes are among the edits.
    pub readdressed: Vec<Moved>,
    /// How the guest's files were read: `ext4 read from the disk`, `sandbox (tcg)`.
    pub read_through: String,
}

impl Inspected {
    /// True where something stands in the way.
    pub fn is_blocked(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Blocks)
    }
}

/// A disk of the source.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct SourceDisk {
    /// Size as the guest sees it; 0 where it cannot be read.
    pub virtual_size: Bytes,
    /// The named image first, its base last. Empty where it cannot be opened.
    pub layers: Vec<LayerInfo>,
    /// Its partition table, where it has one that can be read. Of a disk that an array mirrors as a whole, the array's.
    pub partitions: Option<PartitionTable>,
    /// Why its partition table cannot be read, where the reason is damage.
    pub partition_error: Option<String>,
    /// Why it cannot be read. What lies on it is then not among the volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<Unreadable>,
}

/// Why a disk cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Unreadable {
    /// In a sentence, with the file.
    pub says: String,
    /// What can be done about it, where that is known.
    pub hint: Option<String>,
}

/// One edit, for reading.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Change {
    /// Guest path.
    pub path: String,
    /// What is done to it: one line.
    pub what: String,
    /// Why.
    pub why: String,
    /// Lines that go (`-…`) and lines that come (`+…`), of files that are text and of the registry.
    pub lines: Vec<String>,
    /// Length of a file that comes from this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// SHA-256 of such a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// It is a hive of the registry.
    #[serde(skip)]
    pub is_registry: bool,
}

impl Change {
    /// The edit, with what its file holds `before`.
    pub fn of(edit: &Edit, before: Option<&[u8]>) -> Self {
        let mut lines = Vec::new();
        let what = match &edit.action {
            Action::Write { contents, .. } => {
                if contents.is_text() {
                    lines = changed_lines(before.unwrap_or_default(), &contents.0);
                }
                if before.is_some() { "edit".to_owned() } else { "new file".to_owned() }
            }
            Action::Copy { from } => format!("copy of {from}"),
            Action::Stage(file) => format!("copy of this host's {}", file.shown()),
            Action::Initramfs(edit) => {
                let mut what = format!("add drivers: {}", edit.drivers.join(", "));
                if !edit.files.is_empty() {
                    let files: Vec<&str> = edit.files.iter().map(|file| file.path.as_str()).collect();
                    what.push_str(&format!("; files: {}", files.join(", ")));
                }
                what
            }
            Action::Registry(edits) => {
                lines = edits.0.iter().flat_map(registry_lines).collect();
                "edit of the registry".to_owned()
            }
            Action::Symlink { target } => format!("link to {target}"),
            Action::Remove => "remove".to_owned(),
        };
        let is_registry = matches!(edit.action, Action::Registry(_));
        let staged = match &edit.action {
            Action::Stage(file) => Some(file),
            _ => None,
        };
        Change {
            path: edit.path.clone(),
            what,
            why: edit.why.clone(),
            lines,
            size: staged.map(|file| file.size),
            sha256: staged.map(|file| file.sha256.clone()),
            is_registry,
        }
    }
}

/// An edit of the registry: its reason, then lines that go and lines that come.
fn registry_lines(edit: &RegistryEdit) -> Vec<String> {
    let key = &edit.key;
    let value = |name: &str| match name {
        "" => "(default)".to_owned(),
        name => format!("{name:?}"),
    };
    let mut lines = vec![format!(" [{key}] {}", edit.why)];
    match &edit.change {
        RegistryChange::Create => lines.push("+(a new key)".to_owned()),
        RegistryChange::Set { name, data, was } => {
            lines.extend(was.iter().map(|was| format!("-{} = {was}", value(name))));
            lines.push(format!("+{} = {data}", value(name)));
        }
        RegistryChange::DeleteValue { name, was } => lines.push(format!("-{} = {was}", value(name))),
        RegistryChange::Delete { was } => {
            lines.push("-(the key, with all below it)".to_owned());
            lines.extend(was.iter().map(|(name, was)| format!("-{} = {was}", value(name))));
        }
    }
    lines
}

/// Lines that go and lines that come, in order.
fn changed_lines(before: &[u8], after: &[u8]) -> Vec<String> {
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    // Hostile files can make the shortest difference take hours; a longer one will do.
    TextDiff::configure()
        .timeout(std::time::Duration::from_secs(1))
        .diff_lines(before.as_ref(), after.as_ref())
        .iter_all_changes()
        .filter_map(|change| {
            let sign = match change.tag() {
                ChangeTag::Equal => return None,
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            // A guest's bytes are not let loose on a terminal.
            let line: String = change
                .value()
                .trim_end()
                .chars()
                .map(|c| if c.is_control() && c != '\t' { '.' } else { c })
                .collect();
            Some(format!("{sign}{line}"))
        })
        .collect()
}

/// A conversion that was done. What `prove` needs is read back from it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
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
    /// What of the source and of the options it was made of, as a digest: a batch that is run again does not convert it again.
    pub fingerprint: String,
    /// Its id at the target, where one was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Version of the program.
    pub landfall: String,
    /// What came of the registration that `convert --register` was to do afterwards; never in `report.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Afterwards>,
}

/// A disk that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WrittenDisk {
    /// File name in the output folder.
    pub file: String,
    /// Its format: `qcow2`, `vmdk`.
    pub format: String,
    /// The kind of that format, as `-O` names it: `vmdk-esxi`.
    #[serde(default)]
    pub kind: String,
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
    /// As in [`Converted`].
    #[serde(default)]
    pub fingerprint: String,
    /// As in [`Converted`].
    #[serde(default)]
    pub id: Option<u32>,
}

impl Kept {
    /// Reads it back.
    ///
    /// # Errors
    /// I/O; corrupt where it is no report; unsupported where its version is another than [`VERSION`].
    pub fn read(path: &Path) -> Result<Kept> {
        let text = std::fs::read(path).map_err(|e| {
            Error::io("cannot read", e).in_file(path).hint("name a folder that landfall convert wrote")
        })?;
        let kept: Kept = serde_json::from_slice(&text)
            .map_err(|e| Error::corrupt(format!("is not a report of landfall: {e}")).in_file(path))?;
        if kept.version != VERSION {
            return Err(Error::unsupported(format!(
                "is a report of version {}, this program reads {VERSION}",
                kept.version
            ))
            .in_file(path));
        }
        Ok(kept)
    }
}
