//! The metadata of a machine's physical volumes, each read once and each text parsed once, within bounds for all of them.

use super::group::{Metadata, Physical, metadata_of};
use super::read_metadata;
use crate::volume::VolumeId;
use crate::volume::view::View;
use crate::{Finding, Kind, Result, limits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one physical volume says; `None` where it carries nothing.
type Said = std::result::Result<Option<Arc<Metadata>>, Finding>;

/// What was read so far.
pub struct Texts {
    said: BTreeMap<VolumeId, Said>,
    /// The physical volumes of a group have the same text.
    parsed: Vec<(String, Arc<Metadata>)>,
    /// What may still be read and kept.
    left: Left,
}

/// Bounds on the metadata of a machine.
pub struct Left {
    /// Bytes of text.
    pub bytes: u64,
    /// Values, lists and sections.
    pub values: usize,
}

impl Default for Texts {
    fn default() -> Self {
        let left = Left { bytes: limits::LVM_METADATA_IN_ALL.0, values: limits::LVM_VALUES };
        Texts { said: BTreeMap::new(), parsed: Vec::new(), left }
    }
}

impl Texts {
    /// What the metadata of a physical volume say, or why they do not.
    ///
    /// # Errors
    /// Where the disk cannot be read.
    pub(super) fn of(&mut self, physical: &Physical) -> Result<&Said> {
        if !self.said.contains_key(&physical.volume) {
            let said = match self.read(physical) {
                Ok(metadata) => Ok(metadata),
                Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
                Err(error) => Err(Finding::new(
                    "lvm-metadata-unreadable",
                    format!("the LVM physical volume {} cannot be read: {error}", physical.volume.0),
                    "repair it in the source machine with `vgck --updatemetadata` or `vgcfgrestore`, then convert again",
                )),
            };
            self.said.insert(physical.volume.clone(), said);
        }
        Ok(self.said.get(&physical.volume).unwrap_or(&Ok(None)))
    }

    fn read(&mut self, physical: &Physical) -> Result<Option<Arc<Metadata>>> {
        let view = View::part(physical.disk.1.clone(), physical.range)?;
        let Some(raw) = read_metadata(&view, &physical.label, &mut self.left.bytes)? else { return Ok(None) };
        if let Some((_, known)) = self.parsed.iter().find(|(text, _)| *text == raw) {
            return Ok(Some(known.clone()));
        }
        let Some(metadata) = metadata_of(&raw, &mut self.left.values)? else { return Ok(None) };
        let metadata = Arc::new(metadata);
        self.parsed.push((raw, metadata.clone()));
        Ok(Some(metadata))
    }
}
