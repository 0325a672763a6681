//! From metadata texts to volume groups: which physical volumes they need, and where each logical volume lies.

use super::text::{self, Section};
use super::{Label, Texts, dashed, mirror, raid, thin};
use crate::volume::VolumeId;
use crate::volume::thin::Pool;
use crate::volume::view::{Place, Segment, View};
use crate::{Error, Finding, Result, limits};
use landfall_image::{Bytes, DiskMut, GuestOffset, GuestRange, Sectors};
use std::collections::{BTreeMap, BTreeSet};
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
    uuid: String,
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

pub(super) struct Assembly<'a> {
    pub(super) metadata: &'a Metadata,
    by_uuid: &'a BTreeMap<&'a str, Vec<&'a Physical>>,
    budget: &'a mut usize,
    /// Thin pools that were opened, or why they were not.
    pub(super) pools: BTreeMap<&'a str, Result<Arc<Pool>, NotOpened>>,
}

/// A physical volume as the metadata describes it.
pub(super) struct Described<'a> {
    uuid: String,
    here: Option<&'a Physical>,
    twice: bool,
    /// First extent, in bytes from the beginning of the physical volume.
    start: Option<Bytes>,
    extents: u64,
}

/// Bytes of a chunk, where a segment says so under this name (in sectors).
pub(super) fn chunk(piece: &Section, name: &str) -> Option<Bytes> {
    number(piece, name).map(Sectors).and_then(Sectors::to_bytes)
}

/// To how many places a write to a segment may go. The parts of thin and cached volumes may be mirrors, of which each counts as
/// the widest that is taken.
fn legs(piece: &Section) -> usize {
    match mirror::legs(piece).len() {
        0 if kind(piece) == "thin" || kind(piece).starts_with("cache") => limits::LVM_LEGS,
        legs => legs.max(1),
    }
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
    fn group(&mut self) -> Group {
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

/// Old-style snapshots of a group: a hidden volume ties the origin to the store of what was overwritten.
#[derive(Default)]
struct Snapshots {
    /// Origin to its snapshots.
    origins: BTreeMap<String, Vec<String>>,
    /// Store to its origin.
    stores: BTreeMap<String, String>,
    /// Origins that a snapshot is being merged into.
    merging: BTreeMap<String, String>,
    /// What those merge from.
    merged: BTreeSet<String>,
    /// The hidden volumes.
    ties: BTreeSet<String>,
}

impl Snapshots {
    fn of(volumes: &Section) -> Snapshots {
        let mut out = Snapshots::default();
        let pieces = volumes
            .iter()
            .filter_map(|(name, volume)| Some((name, volume.section()?)))
            .flat_map(|(name, volume)| volume.values().map(move |piece| (name, piece)));
        for (name, piece) in pieces.filter_map(|(name, piece)| Some((name, piece.section()?))) {
            let field = |name: &str| piece.get(name).and_then(text::Value::text).map(str::to_owned);
            if field("type").as_deref() != Some("snapshot") {
                continue;
            }
            out.ties.insert(name.clone());
            let Some(origin) = field("origin") else { continue };
            if let Some(store) = field("cow_store") {
                out.origins.entry(origin.clone()).or_default().push(store.clone());
                out.stores.insert(store, origin);
            } else if let Some(store) = field("merging_store") {
                out.stores.insert(store.clone(), origin.clone());
                out.merged.insert(store.clone());
                out.merging.insert(origin, store);
            }
        }
        out
    }

    /// What a user sees: a snapshot goes by the name of its store, which has no flag of its own.
    fn is_visible(&self, name: &str, has_flag: bool) -> bool {
        (has_flag || self.stores.contains_key(name))
            && !self.merged.contains(name)
            && !self.ties.contains(name)
    }

    fn objection(&self, name: &str) -> Option<NotOpened> {
        if let Some(origin) = self.stores.get(name) {
            return Some(("lvm-snapshot".into(), format!("it is a snapshot of {origin}")).into());
        }
        let store = self.merging.get(name)?;
        Some(("lvm-merging".into(), format!("the snapshot {store} is being merged into it")).into())
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
