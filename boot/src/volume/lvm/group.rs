//! From metadata texts to volume groups: the newest text of each, which physical volumes it needs, and what is odd about them.
//! What a group is made of is put together in `assembly.rs`.

use super::assembly::Assembly;
use super::text::{self, Section};
use super::{Label, Texts, dashed};
use crate::volume::VolumeId;
use crate::volume::view::Segment;
use crate::{Error, Finding, Result, limits};
use landfall_image::{Bytes, DiskMut, GuestRange};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A physical volume that was found.
#[derive(Clone)]
pub struct Physical {
    /// The volume that it is.
    pub volume: VolumeId,
    /// Its label.
    pub label: Label,
    /// The disk that it lies on, and its index.
    pub disk: (usize, Arc<dyn DiskMut>),
    /// Where on that disk.
    pub range: GuestRange,
}

/// A volume group.
#[derive(Clone)]
pub struct Group {
    /// Name; not necessarily the only one of that name.
    pub name: String,
    /// UUID as the tools print it.
    pub uuid: String,
    /// Its physical volumes that are here.
    pub physical: Vec<VolumeId>,
    /// UUIDs of those that are not.
    pub missing: Vec<String>,
    /// All of its extents; `None` where the metadata does not tell.
    pub size: Option<Bytes>,
    /// Extents that no logical volume has, hidden ones included.
    pub free: Option<Bytes>,
    /// Its logical volumes that a user sees, by name.
    pub logical: Vec<Logical>,
}

/// A logical volume.
#[derive(Clone)]
pub struct Logical {
    /// Name, unique in its group.
    pub name: String,
    /// UUID as the tools print it.
    pub uuid: String,
    /// Size.
    pub size: Bytes,
    /// Index of the disk that it begins on, as far as that is known.
    pub disk: usize,
    /// Where it lies.
    pub mapping: Mapping,
    /// Snapshots of it, which writing to it from outside would damage.
    pub snapshots: Vec<String>,
    /// Legs of a mirror; 1 of anything else.
    pub legs: usize,
    /// A thin snapshot that is not activated with its group: what it is a snapshot of.
    pub inactive_of: Option<String>,
    /// What is odd about it, as sentences that begin with its name, each with a remedy.
    pub oddities: Vec<(String, &'static str)>,
}

/// How a logical volume lies on the disks.
#[derive(Clone)]
pub enum Mapping {
    /// On these runs.
    Segments(Vec<Segment>),
    /// In a way that is not opened.
    NotOpened {
        /// For [`Content::Member`](crate::volume::Content::Member): `lvm-thin`, `lvm-raid1`.
        of: String,
        /// Why, for people.
        why: String,
        /// What to do about it, where that is known.
        hint: Option<String>,
    },
}

/// One metadata text, parsed.
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) uuid: String,
    seqno: u64,
    pub(super) group: Section,
}

/// Reads the metadata of all physical volumes and puts the groups together. Groups come sorted by name.
pub fn assemble(found: &[Physical], texts: &mut Texts) -> Result<(Vec<Group>, Vec<Finding>)> {
    let mut findings = Vec::new();
    let mut newest: BTreeMap<String, Arc<Metadata>> = BTreeMap::new();
    for physical in found {
        match texts.of(physical)? {
            Ok(None) => {}
            Ok(Some(metadata)) => {
                let known = newest.get(&metadata.uuid);
                if known.is_none_or(|known| known.seqno < metadata.seqno) {
                    newest.insert(metadata.uuid.clone(), metadata.clone());
                }
            }
            Err(finding) => findings.push(finding.clone()),
        }
    }
    let mut by_uuid: BTreeMap<&str, Vec<&Physical>> = BTreeMap::new();
    for physical in found {
        by_uuid.entry(physical.label.pv_uuid.as_str()).or_default().push(physical);
    }
    for (uuid, twins) in by_uuid.iter().filter(|(_, twins)| twins.len() > 1) {
        let names: Vec<_> = twins.iter().map(|twin| twin.volume.0.as_str()).collect();
        findings.push(Finding::new(
            "lvm-duplicate-pv",
            format!("{} are the same LVM physical volume, {}", names.join(" and "), dashed(uuid)),
            "leave the copied disk out of the conversion",
        ));
    }
    let mut budget = limits::LVM_STRIPES;
    let mut groups: Vec<Group> = Vec::new();
    for metadata in newest.values() {
        let pools = BTreeMap::new();
        groups.push(Assembly { metadata, by_uuid: &by_uuid, budget: &mut budget, pools }.group());
    }
    groups.sort_by(|a, b| (&a.name, &a.uuid).cmp(&(&b.name, &b.uuid)));
    for group in &groups {
        if !group.missing.is_empty() {
            findings.push(Finding::new(
                "lvm-missing-pv",
                format!(
                    "the volume group {} lacks {} of its {} physical volumes: {}",
                    group.name,
                    group.missing.len(),
                    group.missing.len() + group.physical.len(),
                    group.missing.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ")
                ),
                "name all disks of the machine, or remove the lost ones in the source with `vgreduce --removemissing`",
            ));
        }
    }
    for pair in groups.windows(2) {
        if let [a, b] = pair
            && a.name == b.name
        {
            findings.push(Finding::new(
                "lvm-duplicate-name",
                format!("two volume groups are named {}: {} and {}", a.name, a.uuid, b.uuid),
                "leave the disk that does not belong to this machine out of the conversion, or rename its group with `vgrename`",
            ));
        }
    }
    Ok((groups, findings))
}

pub(super) fn metadata_of(raw: &str, left: &mut usize) -> Result<Option<Metadata>> {
    let mut parsed = text::parse(raw, left)?;
    let name = parsed
        .iter()
        .find(|(_, value)| value.section().is_some_and(|group| group.contains_key("extent_size")))
        .map(|(name, _)| name.clone())
        .ok_or_else(|| Error::corrupt("the LVM metadata holds no volume group"))?;
    let group = match parsed.remove(&name) {
        Some(text::Value::Section(group)) => group,
        _ => return Ok(None),
    };
    let uuid = group.get("id").and_then(text::Value::text).unwrap_or_default().to_owned();
    let seqno = group.get("seqno").and_then(text::Value::number).unwrap_or(0);
    if !is_name(&name) || uuid.is_empty() {
        return Err(Error::corrupt(format!("the LVM metadata names a volume group {name:?}")));
    }
    Ok(Some(Metadata { name, uuid, seqno, group }))
}

/// What lvm2 allows as the name of a group or volume. Nothing else may become part of a path.
pub(super) fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 127
        && !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte))
}
