//! Where the bytes of a logical volume lie: its segments on physical volumes, or the volumes that it is made of.

use super::assembly::{Assembly, Described, NotOpened};
use super::text::{self, Section};
use super::{mirror, raid};
use crate::volume::view::{Place, Segment, View};
use crate::{Result, limits};
use landfall_image::{Bytes, GuestOffset, Sectors};
use std::collections::BTreeMap;
use std::sync::Arc;

impl<'a> Assembly<'a> {
    /// Where the bytes of a volume lie, whatever it is made of.
    pub(super) fn mapping(
        &mut self,
        name: &str,
        volume: &'a Section,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
        depth: usize,
    ) -> Result<Vec<Segment>, NotOpened> {
        let extent = self.extent().unwrap_or(Bytes(0));
        if depth > limits::LVM_NESTING {
            let why = format!(
                "it is made of volumes that are made of volumes, deeper than {}",
                limits::LVM_NESTING
            );
            return Err(("lvm".to_owned(), why).into());
        }
        match pieces(volume).as_slice() {
            [only] if mirror::is_one(only) => self.mirror(name, only, physical, oddities),
            [only] if raid::level(only).is_some() => self.raid(name, only, physical, oddities),
            [only] if kind(only) == "thin" => self.thin(only, physical, oddities, depth),
            [only] if matches!(kind(only), "cache" | "cache+CACHE_USES_CACHEVOL") => {
                self.cache(only, physical, oddities, depth)
            }
            pieces => self.segments(pieces, extent, physical),
        }
    }

    /// The volume of that name, which another is made of, as a disk.
    pub(super) fn part(
        &mut self,
        name: &str,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
        depth: usize,
    ) -> Result<Arc<View>, NotOpened> {
        let not = |why: String| NotOpened::from(("lvm".to_owned(), why));
        let section = self.hidden(name).ok_or_else(|| not(format!("its metadata lack {name}")))?;
        let segments = self.mapping(name, section, physical, oddities, depth + 1)?;
        View::new(segments).map(Arc::new).map_err(|error| not(format!("{name}: {error}")))
    }

    pub(super) fn segments(
        &mut self,
        pieces: &[&Section],
        extent: Bytes,
        physical: &BTreeMap<&str, Described<'_>>,
    ) -> Result<Vec<Segment>, NotOpened> {
        let corrupt = |why: String| NotOpened::from(("lvm".to_owned(), why));
        let mut next = 0_u64;
        let mut segments = Vec::new();
        for piece in pieces {
            let kind = kind(piece);
            if kind != "striped" && kind != "linear" {
                return Err((format!("lvm-{kind}"), format!("its segment type is {kind}")).into());
            }
            let start = number(piece, "start_extent");
            if start != Some(next) {
                return Err(corrupt(format!("its segments leave a gap at extent {next}")));
            }
            let count = number(piece, "extent_count").unwrap_or(0);
            next = next.saturating_add(count);
            segments.push(self.segment(piece, count, extent, physical)?);
        }
        Ok(segments)
    }

    fn segment(
        &mut self,
        piece: &Section,
        count: u64,
        extent: Bytes,
        physical: &BTreeMap<&str, Described<'_>>,
    ) -> Result<Segment, NotOpened> {
        let corrupt = |why: String| NotOpened::from(("lvm".to_owned(), why));
        let stripes = piece.get("stripes").map_or(&[][..], text::Value::list);
        let stripe_count = stripes.len() as u64 / 2;
        *self.budget = self.budget.checked_sub(stripes.len()).ok_or_else(|| {
            corrupt(format!("the groups of this machine hold more than {} stripes", limits::LVM_STRIPES))
        })?;
        if stripe_count == 0
            || number(piece, "stripe_count") != Some(stripe_count)
            || !count.is_multiple_of(stripe_count)
        {
            return Err(corrupt(format!("{count} extents do not divide into {stripe_count} stripes")));
        }
        let each = count / stripe_count;
        let stripe_size = number(piece, "stripe_size").and_then(|sectors| Sectors(sectors).to_bytes());
        let mut places: Vec<Place> = Vec::new();
        for pair in stripes.chunks_exact(2) {
            let [name, first] = pair else { continue };
            let name = name.text().unwrap_or_default();
            let Some(pv) = physical.get(name) else {
                return Err(
                    ("lvm-move".into(), format!("it lies on the volume {name}: a move in progress")).into()
                );
            };
            let Some(here) = pv.here else {
                return Err((
                    "lvm-partial".into(),
                    format!("its physical volume {} is not on the machine's disks", pv.uuid),
                )
                    .into());
            };
            if pv.twice {
                return Err((
                    "lvm-duplicate".into(),
                    format!("its physical volume {} is on the machine's disks twice", pv.uuid),
                )
                    .into());
            }
            // Everything inside the physical volume, which itself lies inside its disk.
            let inside =
                first.number().filter(|first| first.checked_add(each).is_some_and(|end| end <= pv.extents));
            let at = inside.and_then(|first| pv.start?.checked_add(Bytes(first.checked_mul(extent.0)?)));
            let end = at.and_then(|at| at.checked_add(Bytes(each.checked_mul(extent.0)?)));
            match (at, end) {
                (Some(at), Some(end)) if end <= here.range.len() => {
                    let at = GuestOffset(here.range.start().0 + at.0);
                    places.push(Place(vec![(here.disk.1.clone(), at)]));
                }
                _ => {
                    return Err(corrupt(format!(
                        "it passes the end of its physical volume {}",
                        here.volume.0
                    )));
                }
            }
        }
        let len = count.checked_mul(extent.0).map(Bytes);
        let stripe_size = if stripe_count == 1 { len } else { stripe_size };
        match (len, stripe_size) {
            (Some(len), Some(stripe_size))
                if stripe_size.0 > 0 && (len.0 / stripe_count).is_multiple_of(stripe_size.0) =>
            {
                Ok(Segment::striped(len, stripe_size, places))
            }
            _ => Err(corrupt(format!("its stripe size does not divide {each} extents"))),
        }
    }
}

/// Bytes of a chunk, where a segment says so under this name (in sectors).
pub(super) fn chunk(piece: &Section, name: &str) -> Option<Bytes> {
    number(piece, name).map(Sectors).and_then(Sectors::to_bytes)
}

/// The segments of a volume, in order.
pub(super) fn pieces(volume: &Section) -> Vec<&Section> {
    let mut pieces: Vec<&Section> = volume
        .iter()
        .filter(|(name, _)| name.starts_with("segment") && *name != "segment_count")
        .filter_map(|(_, piece)| piece.section())
        .collect();
    pieces.sort_by_key(|piece| number(piece, "start_extent"));
    pieces
}

/// A name in a segment.
pub(super) fn named<'s>(piece: &'s Section, field: &str) -> Option<&'s str> {
    piece.get(field).and_then(text::Value::text)
}

/// The type of a segment, with flags that change its meaning behind a `+`.
pub(super) fn kind(piece: &Section) -> &str {
    piece.get("type").and_then(text::Value::text).unwrap_or("?")
}

pub(super) fn number(section: &Section, name: &str) -> Option<u64> {
    section.get(name)?.number()
}
