//! Recoveries: machines that run from a recovery point, and how far each has come.
//!
//! ```text
//! FOLDER/recovery.json   what it is of, what was made for it, the step that was reached
//! FOLDER/diskN.qcow2     what the patching changed, and what the machine writes, over the point
//! ```
//! Each step is written down before it is taken, so that a recovery can be gone on with or removed whenever its process ended:
//! what the file names may or may not be there, and what it does not name is none of its own.
//!
//! Text in, text out: nothing here opens a disk or asks a hypervisor; `ops::recover` does.

pub mod below;

use crate::machine::Machine;
use crate::moment::Moment;
use crate::report::{VERSION, WrittenDisk};
use crate::vault::journal::Consistency;
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Name of the file in a recovery's folder.
pub const FILE: &str = "recovery.json";

/// What a machine is recovered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "RecoveryMode")]
pub enum Mode {
    /// To see whether it works: alone, in a network of its own; it is thrown away afterwards.
    Test,
    /// In earnest.
    Live,
}

/// How far a recovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "RecoveryStep")]
pub enum Step {
    /// Its folder is complete.
    Written,
    /// It is being registered: its network and the machine may be at the hypervisor, or not.
    Registering,
    /// The hypervisor has the machine.
    Registered,
    /// Its disks are being made whole.
    Committing,
    /// Its disks are whole: it needs the recovery point no more, and is a machine like others.
    Committed,
    /// It is being removed.
    Removing,
}

/// A recovery, as it is kept in [`FILE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recovery {
    /// Version of the document.
    pub version: u32,
    /// The machine's name in the vault.
    pub machine: String,
    /// The point's number.
    pub point: u64,
    /// When the point was set.
    pub at: Moment,
    /// How far the point can be trusted.
    pub consistency: Consistency,
    /// The name that somebody gave to the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What for.
    pub mode: Mode,
    /// The machine's name where it runs.
    pub name: String,
    /// Name of the target.
    pub target: String,
    /// The point and all choices, as a digest: the same command goes on where it was.
    pub made_of: String,
    /// Its disks, in the machine's order.
    pub disks: Vec<RecoveredDisk>,
    /// The files that were made in its folder.
    pub files: BTreeSet<String>,
    /// How far it is.
    pub step: Step,
    /// The network that is to be made for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_network: Option<String>,
    /// Where it runs, or is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
}

/// A disk of a recovered machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecoveredDisk {
    /// Its file in the folder.
    pub file: String,
    /// Its name in the vault.
    pub disk: String,
    /// Bytes, as the guest sees it.
    pub size: Bytes,
    /// Where the point is read below it; `None` where it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
}

/// The hypervisor that runs a recovered machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RecoveryHost")]
pub struct Host {
    /// Its address.
    pub address: String,
    /// The machine's id there, once it is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// The network that was made for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// A network that was made for a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RecoveryNetwork")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uuid: Uuid,
}

impl Recovery {
    /// Reads the recovery in `folder`.
    ///
    /// # Errors
    /// Refused where the folder holds none; corrupt where its file cannot be read; unsupported where another version wrote it.
    pub fn read(folder: &Path) -> Result<Recovery> {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                Error::refused("holds no recovered machine")
                    .in_file(folder)
                    .hint("landfall recover list shows those that there are")
            }
            _ => Error::io("cannot read", e).in_file(&path),
        })?;
        let corrupt = |e: serde_json::Error| {
            Error::corrupt(format!("cannot be read: {e}")).in_file(&path).hint(
                "its machine and network, if it is registered, have to be removed by hand; then the folder",
            )
        };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(corrupt)?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version.is_some_and(|version| version != u64::from(VERSION)) {
            return Err(Error::unsupported(format!(
                "is of version {}, this program reads {VERSION}",
                version.unwrap_or_default()
            ))
            .in_file(&path)
            .hint("use the version of landfall that wrote it, or a later one"));
        }
        serde_json::from_value(value).map_err(corrupt)
    }

    /// The text of its file.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|e| Error::corrupt(format!("the recovery cannot be written as JSON: {e}")))
    }

    /// True where it needs its recovery point.
    pub fn needs_point(&self) -> bool {
        self.step != Step::Committed && self.disks.iter().any(|disk| disk.over.is_some())
    }
}

/// What patching a point for a target gave: the same for each recovery of it, whatever the machine is called then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patched {
    /// Version of the document.
    pub version: u32,
    /// The machine's name in the vault.
    pub machine: String,
    /// The point's number.
    pub point: u64,
    /// When the point was set.
    pub at: Moment,
    /// Name of the target.
    pub target: String,
    /// The point and the choices that the patching depends on, as a digest.
    pub made_of: String,
    /// The machine on the target's devices.
    pub adapted: Machine,
    /// What was found.
    pub findings: Vec<Kept>,
    /// Its disks.
    pub disks: Vec<WrittenDisk>,
}

impl Patched {
    /// What was patched ahead in a folder.
    ///
    /// # Errors
    /// Where it cannot be read; corrupt where it is none.
    pub fn read(folder: &Path) -> Result<Patched> {
        let path = folder.join(PREPARED);
        let text = std::fs::read(&path).map_err(|e| Error::io("cannot read", e).in_file(&path))?;
        serde_json::from_slice(&text)
            .map_err(|e| Error::corrupt(format!("cannot be read: {e}")).in_file(&path))
    }

    /// Removes what was patched ahead in a folder, and the folder, where nothing else is in it. What names it goes first: nobody
    /// takes half of it.
    ///
    /// # Errors
    /// Where something stays.
    pub fn remove(&self, folder: &Path) -> Result<()> {
        let disks = self.disks.iter().map(|disk| disk.file.as_str()).filter(|file| !file.contains('/'));
        let files = [PREPARED].into_iter().chain(disks).chain([INSPECTED]);
        let removed = files.map(|file| std::fs::remove_file(folder.join(file))).collect::<Vec<_>>();
        for removed in removed.into_iter().chain([std::fs::remove_dir(folder)]) {
            match removed {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("cannot remove", e).in_file(folder));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A finding that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    id: String,
    says: String,
    remedy: String,
}

impl From<&Finding> for Kept {
    fn from(finding: &Finding) -> Kept {
        Kept { id: finding.id.to_owned(), says: finding.says.clone(), remedy: finding.remedy.clone() }
    }
}

impl Kept {
    /// It again; `None` for an id that is not known any more.
    pub fn finding(&self) -> Option<Finding> {
        crate::finding::explain(&self.id).map(|row| row.finding(self.says.clone(), self.remedy.clone()))
    }
}

/// Name of the file in the folder of a point that was patched ahead.
pub const PREPARED: &str = "prepared.json";

/// Name of the document that tells what was found and changed in the guest.
pub const INSPECTED: &str = "inspected.json";

/// Where points that were patched ahead lie, in the folder of recoveries.
pub fn prepared_folder(output: &Path) -> PathBuf {
    output.join(".prepared")
}

/// The name of such a point's folder.
pub fn prepared_name(machine: &str, point: u64, target: &str, made_of: &str) -> String {
    let made_of: String = made_of.chars().take(16).collect();
    format!("{machine}@{point}-{target}-{made_of}")
}

/// A network of a test's own, named after its machine. An interface's name has 15 letters; libvirt chooses that.
pub fn network_name(machine: &str) -> String {
    format!("landfall-{machine}")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn recovery() -> Recovery {
        Recovery {
            version: VERSION,
            machine: "web01".into(),
            point: 1234,
            at: Moment(1_795_960_985_123),
            consistency: Consistency::Crash,
            tag: None,
            mode: Mode::Test,
            name: "web01-test".into(),
            target: "kvm".into(),
            made_of: "x".into(),
            disks: vec![RecoveredDisk {
                file: "disk0.qcow2".into(),
                disk: "sda".into(),
                size: Bytes::gib(10),
                over: Some("nbd+unix:///web01/sda@1234?socket=/run/landfall/points.sock".into()),
            }],
            files: BTreeSet::from(["disk0.qcow2".to_owned()]),
            step: Step::Registering,
            own_network: Some("landfall-web01-test".into()),
            host: Some(Host {
                address: "qemu:///system".into(),
                id: None,
                network: Some(Network { name: "landfall-web01-test".into(), uuid: Uuid::from_u128(7) }),
            }),
        }
    }

    #[test]
    fn a_recovery_is_kept_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let recovery = recovery();
        std::fs::write(dir.path().join(FILE), recovery.text().unwrap()).unwrap();
        assert_eq!(Recovery::read(dir.path()).unwrap(), recovery);
        assert!(recovery.needs_point());
        assert!(!Recovery { step: Step::Committed, ..recovery.clone() }.needs_point());
        for (text, kind) in [
            ("", landfall_image::Kind::Corrupt),
            ("{}", landfall_image::Kind::Corrupt),
            ("{\"version\": 2}", landfall_image::Kind::Unsupported),
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = Recovery::read(dir.path()).unwrap_err();
            assert!(error.kind() == kind && error.hint_text().is_some(), "{text}: {error}");
        }
        let error = Recovery::read(Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.kind(), landfall_image::Kind::Refused);
    }

    #[test]
    fn findings_come_back_with_their_severity() {
        let finding = crate::finding::TPM.finding("It has one.", "Look.");
        assert_eq!(Kept::from(&finding).finding(), Some(finding));
        let unknown = Kept { id: "of-a-later-version".into(), says: String::new(), remedy: String::new() };
        assert_eq!(unknown.finding(), None);
    }
}
