//! From members to arrays: which of them may be believed, and where the array's bytes lie on them.

use super::behind::{self, Behind};
use super::superblock::{Role, Superblock};
use crate::volume::VolumeId;
use crate::volume::parity::{self, Parity};
use crate::volume::view::{Place, Segment};
use crate::{Finding, limits};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A device with a superblock.
#[derive(Clone)]
pub struct Member {
    /// The volume that it is.
    pub volume: VolumeId,
    /// Index of the machine's disk that it lies on.
    pub disk: usize,
    /// Its bytes.
    pub device: Arc<dyn DiskMut>,
    /// What its superblock says.
    pub superblock: Superblock,
}

/// All members of one array that were found.
pub struct Set<'m> {
    /// Of the array.
    pub uuid: &'m str,
    /// At least one.
    pub members: Vec<&'m Member>,
}

/// An array that can be opened.
pub struct Array {
    /// Where its bytes lie.
    pub segments: Vec<Segment>,
    /// Every disk of it is here.
    pub is_complete: bool,
    /// What must be written before anything else is, where that is not so.
    pub behind: Option<Behind>,
    /// What is odd about it.
    pub findings: Vec<Finding>,
}

/// The sets of `members`, by UUID.
pub fn sets(members: &[Member]) -> Vec<Set<'_>> {
    let mut sets: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in members {
        sets.entry(member.superblock.uuid.as_str()).or_default().push(member);
    }
    sets.into_iter().map(|(uuid, members)| Set { uuid, members }).collect()
}

impl Set<'_> {
    /// The member that saw the array's latest state.
    pub fn freshest(&self) -> Option<&Member> {
        self.members.iter().copied().min_by_key(|member| (Reverse(member.superblock.events), member.disk))
    }
}

/// A level by the name that mdadm gives it.
pub fn level_name(level: i32) -> String {
    match level {
        -1 => "linear".into(),
        level => format!("RAID{level}"),
    }
}

/// Makes the array called `shown` of its members, or says why it stays closed.
pub fn assemble(set: &Set<'_>, shown: &str) -> Result<Array, Finding> {
    let uuid = set.uuid;
    let closed = |why: String, remedy: &str| {
        Finding::new("array-not-opened", format!("the array {shown} ({uuid}) is not opened: {why}"), remedy)
    };
    let Some(freshest) = set.freshest() else {
        return Err(closed("it has no members".into(), "name all disks of the machine"));
    };
    let truth = &freshest.superblock;
    let level = level_name(truth.level);
    let closed_level = |why: String| {
        closed(
            why,
            "install the target's drivers in the running guest, then convert; the array's disks are copied as they are",
        )
    };
    let near = truth.layout & 0xff;
    match truth.level {
        -1..=1 => {}
        10 if truth.layout & !0xff == 0x100 && near >= 1 && near <= truth.disks => {}
        10 => return Err(closed_level("RAID10 is opened in its near layout only".into())),
        4..=6 if parity::Layout::of(truth.level, truth.layout).is_some() => {}
        4..=6 => return Err(closed_level(format!("{level} in the layout {} is not opened", truth.layout))),
        _ => return Err(closed_level(format!("its level is {}", truth.level))),
    }
    let mut findings = Vec::new();
    let mut disks: BTreeMap<u32, &Member> = BTreeMap::new();
    for &member in &set.members {
        let known = &member.superblock;
        // The states before and after one change may both be found: the kernel writes the superblocks in turn, and data
        // only when all are written.
        let is_fresh = known.events.saturating_add(1) >= truth.events;
        let slot = match truth.role(known.number) {
            Role::Disk(slot) if is_fresh => slot,
            // Since Linux 4.12 a disk that is gone is written down like a spare; such a one takes itself for more.
            Role::Spare if is_fresh && !matches!(known.role(known.number), Role::Disk(_)) => continue,
            // Each took the other for gone, and nothing tells which went on for longer.
            _ if known.events == truth.events && matches!(known.role(known.number), Role::Disk(_)) => {
                return Err(closed(
                    format!("{} and {} each ran without the other", freshest.volume.0, member.volume.0),
                    "leave the disk with the older data out of the conversion",
                ));
            }
            _ => {
                findings.push(Finding::new(
                    "array-member-stale",
                    format!(
                        "{} left the array {shown} ({uuid}) earlier and is older than the rest (event {} of {}): it is left as it is",
                        member.volume.0, known.events, truth.events
                    ),
                    "add it again on the target with mdadm --manage --add: it is filled anew",
                ));
                continue;
            }
        };
        if let Some(objection) = &known.objection {
            return Err(closed(
                format!("{objection} ({})", member.volume.0),
                "let mdadm finish in the source machine (cat /proc/mdstat), then convert again",
            ));
        }
        let same = |a: &Superblock, b: &Superblock| {
            (a.level, a.layout, a.chunk, a.disks, a.size) == (b.level, b.layout, b.chunk, b.disks, b.size)
        };
        if !same(known, truth) {
            return Err(closed(
                format!("{} and {} do not agree on its shape", freshest.volume.0, member.volume.0),
                "leave the disk that does not belong to this machine out of the conversion",
            ));
        }
        if let Some(twin) = disks.insert(slot, member) {
            return Err(closed(
                format!("{} and {} are the same member of it", twin.volume.0, member.volume.0),
                "leave the copied disk out of the conversion",
            ));
        }
    }
    // As above, where a third disk saw more than either.
    for (&slot, member) in &disks {
        let contradicts = disks.values().find(|other| {
            other.superblock.events == truth.events
                && other.superblock.role(member.superblock.number) != Role::Disk(slot)
        });
        if let Some(other) = contradicts {
            return Err(closed(
                format!("{} and {} each ran without the other", other.volume.0, member.volume.0),
                "leave the disk with the older data out of the conversion",
            ));
        }
    }
    let layout = Layout { truth, disks: &disks };
    let segments = match layout.segments() {
        Ok(segments) => segments,
        Err(Trouble::Missing(missing)) => {
            return Err(Finding::new(
                "array-incomplete",
                format!(
                    "the array {shown} ({level}, {uuid}) cannot be opened: of its {} disks it lacks {}",
                    truth.disks,
                    missing.iter().map(|slot| format!("number {slot}")).collect::<Vec<_>>().join(" and ")
                ),
                "name all disks of the machine (mdadm --detail shows where each member lies)",
            ));
        }
        Err(Trouble::Shape(why)) => return Err(closed_level(why)),
    };
    let here = u32::try_from(disks.len()).unwrap_or(u32::MAX);
    let is_complete = here == truth.disks;
    if !is_complete && truth.events.checked_add(behind::EVENTS).is_none() {
        return Err(closed(
            format!("{} has counted {} events, and no more can be counted", freshest.volume.0, truth.events),
            "name all disks of the machine",
        ));
    }
    if !is_complete {
        findings.push(Finding::new(
            "array-degraded",
            format!(
                "the array {shown} ({level}, {uuid}) has {here} of its {} disks: the others do not get what is changed, and are marked as gone with the first change",
                truth.disks
            ),
            "name all disks of the machine, with the keys of those that are encrypted; or add the others to the array on the target with mdadm --manage --add: they are filled anew",
        ));
    }
    let has_parity = matches!(truth.level, 4..=6);
    if !truth.is_clean && has_parity && !is_complete {
        // What was being written when it ended is computed wrongly: the kernel does not start such an array either.
        return Err(closed(
            "it was not stopped in order, and disks are missing".into(),
            "name all disks of the machine; or start it in the source machine (mdadm --assemble --force), check its file systems, and convert again",
        ));
    }
    if !truth.is_clean && truth.level >= 1 {
        let counts = match has_parity {
            true => "the parity of what was being written may be wrong, and the data count",
            false => "what its first disk holds counts",
        };
        findings.push(Finding::new(
            "array-unclean",
            format!("the array {shown} ({level}, {uuid}) was not stopped in order; {counts}"),
            "nothing: its disks are made equal when it starts",
        ));
    }
    let behind = (!is_complete).then(|| Behind::new(&disks));
    Ok(Array { segments, is_complete, behind, findings })
}

enum Trouble {
    /// These disks are not here, and it takes them.
    Missing(Vec<u32>),
    /// As the end of a sentence.
    Shape(String),
}

struct Layout<'a> {
    truth: &'a Superblock,
    disks: &'a BTreeMap<u32, &'a Member>,
}

impl Layout<'_> {
    fn segments(&self) -> Result<Vec<Segment>, Trouble> {
        match self.truth.level {
            1 => self.mirror(),
            10 => self.near(),
            4..=6 => self.parity(),
            0 => self.stripes(),
            _ => self.row(),
        }
    }

    /// The beginning of a member's data.
    fn at(&self, member: &Member, inside: u64) -> (Arc<dyn DiskMut>, GuestOffset) {
        let at = member.superblock.data.start().0.saturating_add(inside);
        (member.device.clone(), GuestOffset(at))
    }

    fn absent(&self) -> Vec<u32> {
        (0..self.truth.disks).filter(|slot| !self.disks.contains_key(slot)).collect()
    }

    /// All disks, or which are missing.
    fn all(&self) -> Result<Vec<&Member>, Trouble> {
        let absent = self.absent();
        if absent.is_empty() {
            Ok(self.disks.values().copied().collect())
        } else {
            Err(Trouble::Missing(absent))
        }
    }

    /// Bytes of each disk that a level with redundancy uses.
    fn used(&self) -> Result<Bytes, Trouble> {
        let size = self.truth.size;
        let least = self.disks.values().map(|member| member.superblock.data.len()).min().unwrap_or(Bytes(0));
        if size.0 == 0 || size > least {
            return Err(Trouble::Shape(format!("it uses {size} of disks with {least}")));
        }
        Ok(size)
    }

    fn chunk(&self) -> Result<Bytes, Trouble> {
        let chunk = self.truth.chunk;
        if chunk.0 < 512 || !chunk.0.is_multiple_of(512) {
            return Err(Trouble::Shape(format!("its chunks have {} bytes", chunk.0)));
        }
        Ok(chunk)
    }

    fn mirror(&self) -> Result<Vec<Segment>, Trouble> {
        if self.disks.is_empty() {
            return Err(Trouble::Missing(self.absent()));
        }
        let mut members: Vec<(&u32, &&Member)> = self.disks.iter().collect();
        members.sort_by_key(|(slot, member)| {
            (member.superblock.is_write_mostly, Reverse(member.superblock.events), **slot)
        });
        let copies = members.into_iter().map(|(_, member)| self.at(member, 0)).collect();
        Ok(vec![Segment::mirrored(self.used()?, copies)])
    }

    fn parity(&self) -> Result<Vec<Segment>, Trouble> {
        let layout = parity::Layout::of(self.truth.level, self.truth.layout);
        let layout = layout.ok_or_else(|| Trouble::Shape("its layout is not known".into()))?;
        let absent = self.absent();
        if absent.len() > layout.parities() {
            return Err(Trouble::Missing(absent));
        }
        let members =
            (0..self.truth.disks).map(|slot| self.disks.get(&slot).map(|member| self.at(member, 0)));
        let array = Parity::new(members.collect(), layout, self.chunk()?, self.used()?)
            .map_err(|error| Trouble::Shape(error.to_string()))?;
        let whole = GuestRange::new(GuestOffset(0), array.size());
        Ok(vec![Segment::linear(Arc::new(array), whole)])
    }

    fn stripes(&self) -> Result<Vec<Segment>, Trouble> {
        let (members, chunk) = (self.all()?, self.chunk()?);
        let chunks: Vec<u64> =
            members.iter().map(|member| member.superblock.data.len().0 / chunk.0).collect();
        let (least, most) = (chunks.iter().min().copied(), chunks.iter().max().copied());
        if least != most {
            // What lies behind the end of the smallest disk is striped over fewer, in one of two ways.
            return Err(Trouble::Shape("its disks are not of one size".into()));
        }
        let places = members.into_iter().map(|member| Place(vec![self.at(member, 0)])).collect();
        let len =
            least.unwrap_or(0).checked_mul(chunk.0).and_then(|len| len.checked_mul(chunks.len() as u64));
        let len = len.ok_or_else(|| Trouble::Shape("it has more than 2^64 bytes".into()))?;
        Ok(vec![Segment::striped(Bytes(len), chunk, places)])
    }

    fn row(&self) -> Result<Vec<Segment>, Trouble> {
        let chunk = self.truth.chunk.0.max(1);
        let members = self.all()?.into_iter();
        Ok(members
            .map(|member| {
                let len = Bytes(member.superblock.data.len().0 / chunk * chunk);
                Segment::mirrored(len, vec![self.at(member, 0)])
            })
            .collect())
    }

    /// Level 10, near: the copies of a chunk lie on neighbouring disks, and the next chunk goes on behind them. The pattern
    /// comes back to the first disk after as many chunks as there are disks, at most.
    fn near(&self) -> Result<Vec<Segment>, Trouble> {
        let (used, chunk) = (self.used()?, self.chunk()?);
        let (disks, copies) = (u64::from(self.truth.disks), u64::from(self.truth.layout & 0xff));
        let (mut turn, mut places) = (0_u64, Vec::new());
        loop {
            let mut found = Vec::new();
            for copy in (turn * copies)..(turn + 1) * copies {
                let slot = u32::try_from(copy % disks).unwrap_or(u32::MAX);
                if let Some(member) = self.disks.get(&slot) {
                    found.push(self.at(member, copy / disks * chunk.0));
                }
            }
            if found.is_empty() {
                return Err(Trouble::Missing(self.absent()));
            }
            places.push(Place(found));
            turn += 1;
            if (turn * copies).is_multiple_of(disks) {
                break;
            }
            if places.len() > usize::try_from(limits::MD_DISKS).unwrap_or(usize::MAX) {
                return Err(Trouble::Shape(format!("it has {copies} copies on {disks} disks")));
            }
        }
        let chunks = (used.0 / chunk.0).checked_mul(disks).map(|all| all / copies);
        let len = chunks.and_then(|chunks| chunks.checked_mul(chunk.0));
        let len = len.ok_or_else(|| Trouble::Shape("it has more than 2^64 bytes".into()))?;
        let stride = Bytes(chunk.0.saturating_mul(turn * copies / disks));
        Ok(vec![Segment { len: Bytes(len), stripe_size: chunk, stride, places }])
    }
}
