//! One volume group by its metadata: its physical volumes, its logical ones that a user sees, and the extents that are free.
//! Where the bytes of a logical volume lie is in `segments.rs`.

use super::group::{Group, Logical, Mapping, Metadata, Physical, is_name};
use super::segments::{kind, named, number, pieces};
use super::snapshots::Snapshots;
use super::text::{self, Section};
use super::{mirror, thin};
use crate::volume::thin::Pool;
use crate::{Error, Result, limits};
use landfall_image::{Bytes, Sectors};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct Assembly<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) by_uuid: &'a BTreeMap<&'a str, Vec<&'a Physical>>,
    pub(super) budget: &'a mut usize,
    /// Thin pools that were opened, or why they were not.
    pub(super) pools: BTreeMap<&'a str, Result<Arc<Pool>, NotOpened>>,
}

/// A physical volume as the metadata describes it.
pub(super) struct Described<'a> {
    pub(super) uuid: String,
    pub(super) here: Option<&'a Physical>,
    pub(super) twice: bool,
    /// First extent, in bytes from the beginning of the physical volume.
    pub(super) start: Option<Bytes>,
    pub(super) extents: u64,
}

/// Why a logical volume is not opened.
#[derive(Clone, Debug)]
pub(super) struct NotOpened {
    /// `lvm-thin`
    pub of: String,
    /// As the end of a sentence.
    pub why: String,
    /// What to do, where that is known.
    pub hint: Option<String>,
}

impl From<(String, String)> for NotOpened {
    fn from((of, why): (String, String)) -> NotOpened {
        NotOpened { of, why, hint: None }
    }
}

impl NotOpened {
    /// As `of`, by an error in its metadata.
    pub(super) fn by(of: impl Into<String>, error: &Error) -> NotOpened {
        NotOpened { of: of.into(), why: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl<'a> Assembly<'a> {
    /// The whole of it.
    pub(super) fn group(&mut self) -> Group {
        let metadata = self.metadata;
        let empty = Section::new();
        let sub = |name: &str| metadata.group.get(name).and_then(text::Value::section).unwrap_or(&empty);
        let described: BTreeMap<&str, Described<'a>> =
            sub("physical_volumes").iter().map(|(name, pv)| (name.as_str(), self.described(pv))).collect();
        let logical_volumes = metadata.group.get("logical_volumes").and_then(text::Value::section);
        let snapshots = logical_volumes.map(Snapshots::of).unwrap_or_default();
        let mut logical = Vec::new();
        for (name, volume) in logical_volumes.into_iter().flatten() {
            let Some(volume) = volume.section() else { continue };
            if logical.len() >= limits::VOLUMES {
                break;
            }
            let has_flag = volume
                .get("status")
                .is_some_and(|status| status.list().iter().any(|flag| flag.text() == Some("VISIBLE")));
            // A pool has no bytes of its own.
            let is_pool = pieces(volume)
                .iter()
                .any(|piece| matches!(kind(piece).split('+').next(), Some("thin-pool" | "cache-pool")));
            if snapshots.is_visible(name, has_flag) && is_name(name) && !is_pool {
                logical.push(self.logical(name, volume, &described, &snapshots));
            }
        }
        let mut missing: Vec<String> = Vec::new();
        let mut physical = Vec::new();
        for pv in described.values() {
            match pv.here {
                Some(here) => physical.push(here.volume.clone()),
                None => missing.push(pv.uuid.clone()),
            }
        }
        let in_bytes = |extents: u64| Some(Bytes(extents.checked_mul(self.extent()?.0)?));
        let all = described.values().try_fold(0_u64, |sum, pv| sum.checked_add(pv.extents));
        let taken = logical_volumes.map_or(Some(0), |volumes| taken(volumes, &described));
        Group {
            name: metadata.name.clone(),
            uuid: metadata.uuid.clone(),
            physical,
            missing,
            size: all.and_then(in_bytes),
            free: all.zip(taken).and_then(|(all, taken)| all.checked_sub(taken)).and_then(in_bytes),
            logical,
        }
    }

    fn described(&self, pv: &text::Value) -> Described<'a> {
        let empty = Section::new();
        let pv = pv.section().unwrap_or(&empty);
        let uuid = pv.get("id").and_then(text::Value::text).unwrap_or_default().to_owned();
        let plain = uuid.replace('-', "");
        let twins = self.by_uuid.get(plain.as_str()).map_or(&[][..], Vec::as_slice);
        Described {
            uuid,
            here: twins.first().copied(),
            twice: twins.len() > 1,
            start: number(pv, "pe_start").and_then(|sectors| Sectors(sectors).to_bytes()),
            extents: number(pv, "pe_count").unwrap_or(0),
        }
    }

    fn logical(
        &mut self,
        name: &str,
        volume: &'a Section,
        physical: &BTreeMap<&str, Described<'_>>,
        snapshots: &Snapshots,
    ) -> Logical {
        let extent = self.extent();
        let pieces = pieces(volume);
        let mut oddities = Vec::new();
        let extents = pieces
            .iter()
            .try_fold(0_u64, |sum, piece| sum.checked_add(number(piece, "extent_count").unwrap_or(0)));
        let size = extents.zip(extent).and_then(|(extents, extent)| extents.checked_mul(extent.0));
        let mapping = match (extent, size) {
            (Some(_), Some(_)) => match snapshots.objection(name) {
                Some(objection) => Err(objection),
                None => self.mapping(name, volume, physical, &mut oddities, 0),
            },
            _ => Err(("lvm".to_owned(), "its size is not to be told from the metadata".to_owned()).into()),
        };
        let disk = pieces
            .iter()
            .flat_map(|piece| self.first_places(piece, 0))
            .find_map(|name| physical.get(name)?.here)
            .map_or(0, |here| here.disk.0);
        Logical {
            name: name.to_owned(),
            uuid: volume.get("id").and_then(text::Value::text).unwrap_or_default().to_owned(),
            size: Bytes(size.unwrap_or(0)),
            disk,
            mapping: match mapping {
                Ok(segments) => Mapping::Segments(segments),
                Err(NotOpened { of, why, hint }) => Mapping::NotOpened { of, why, hint },
            },
            snapshots: snapshots.origins.get(name).cloned().unwrap_or_default(),
            legs: pieces.iter().map(|piece| legs(piece)).max().unwrap_or(1),
            inactive_of: thin::inactive_of(volume).map(str::to_owned),
            oddities,
        }
    }

    /// Length of a segment.
    pub(super) fn length(&self, piece: &Section) -> Option<Bytes> {
        number(piece, "extent_count")?.checked_mul(self.extent()?.0).map(Bytes)
    }

    pub(super) fn extent(&self) -> Option<Bytes> {
        number(&self.metadata.group, "extent_size")
            .and_then(|sectors| Sectors(sectors).to_bytes())
            .filter(|extent| extent.0 > 0)
    }

    /// The hidden volume of that name, which another is made of.
    pub(super) fn hidden(&self, name: &str) -> Option<&'a Section> {
        let volumes = self.metadata.group.get("logical_volumes")?.section()?;
        volumes.get(name).filter(|_| is_name(name))?.section()
    }

    /// Names of the physical volumes that a segment, or what it is made of, begins on.
    fn first_places(&self, piece: &'a Section, depth: usize) -> Vec<&'a str> {
        if depth > limits::LVM_NESTING {
            return Vec::new();
        }
        let first_stripe = piece.get("stripes").and_then(|stripes| stripes.list().first()?.text());
        let legs = mirror::legs(piece).into_iter().map(|leg| leg.image);
        // Of a cached volume, the slow one.
        let is_cached = piece.contains_key("cache_pool");
        let fields = if is_cached { &["origin"][..] } else { &["thin_pool", "pool"] };
        let parts = fields.iter().filter_map(|field| named(piece, field));
        let below = legs.chain(parts).filter_map(|name| self.hidden(name)).flat_map(|part| pieces(part));
        let below = below.flat_map(|piece| self.first_places(piece, depth + 1));
        first_stripe.into_iter().chain(below).collect()
    }
}

/// To how many places a write to a segment may go. The parts of thin and cached volumes may be mirrors, of which each counts as
/// the widest that is taken.
fn legs(piece: &Section) -> usize {
    match mirror::legs(piece).len() {
        0 if kind(piece) == "thin" || kind(piece).starts_with("cache") => limits::LVM_LEGS,
        legs => legs.max(1),
    }
}

/// Extents of physical volumes that logical ones have. `None` where there are more than can be.
fn taken(volumes: &Section, physical: &BTreeMap<&str, Described<'_>>) -> Option<u64> {
    let pieces = volumes.values().filter_map(text::Value::section).flat_map(|volume| pieces(volume));
    let on_physical = pieces.filter(|piece| {
        let first = piece.get("stripes").and_then(|stripes| stripes.list().first()?.text());
        first.is_some_and(|name| physical.contains_key(name))
    });
    on_physical.map(|piece| number(piece, "extent_count").unwrap_or(0)).try_fold(0_u64, u64::checked_add)
}
