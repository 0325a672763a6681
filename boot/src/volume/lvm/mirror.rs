//! Mirrored logical volumes: segments of the types raid1 and mirror, and which of their legs are in sync.
//!
//! ```text
//! raid1    legs of two hidden volumes each: NAME_rmeta_N, whose first sector is dm-raid's superblock, and NAME_rimage_N
//!   0 "DmRd" · 8 legs · 12 this leg's number · 16 events · 24 failed legs, a bit each · 32 rebuilt up to
//!  40 parity known to be right up to · 48 level · 52 layout · 56 sectors of a stripe · 60 flags · 96 data begin
//!     (kernel: drivers/md/dm-raid.c, struct dm_raid_superblock)
//! mirror   hidden volumes NAME_mimage_N; what its log does not know to be alike is copied from the first one
//! ```
//! As with md, the first leg in sync is read and all legs in sync are written. Superblocks and logs are not, but where legs
//! of a raid1 are left out: [`behind`](super::behind).

use super::assembly::{Assembly, Described, NotOpened};
use super::behind::{Behind, Written};
use super::raid;
use super::segments::{kind, number, pieces};
use super::text::{self, Section};
use crate::limits;
use crate::volume::field::{le32, le64};
use crate::volume::view::{Segment, View};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One side of a mirror, by the names of the hidden volumes.
pub(super) struct Leg<'a> {
    pub image: &'a str,
    pub meta: Option<&'a str>,
}

/// The legs of a mirrored segment; none for another kind.
pub(super) fn legs(piece: &Section) -> Vec<Leg<'_>> {
    let list = |name: &str| piece.get(name).map_or(&[][..], text::Value::list);
    match kind(piece) {
        kind if kind == "raid1" || raid::level(piece).is_some() => list("raids")
            .chunks_exact(2)
            .filter_map(|pair| Some(Leg { meta: pair.first()?.text(), image: pair.get(1)?.text()? }))
            .collect(),
        "mirror" => list("mirrors")
            .chunks_exact(2)
            .filter_map(|pair| Some(Leg { meta: None, image: pair.first()?.text()? }))
            .collect(),
        _ => Vec::new(),
    }
}

/// True for a segment that this module opens.
pub(super) fn is_one(piece: &Section) -> bool {
    matches!(kind(piece), "raid1" | "mirror")
}

/// What dm-raid must say of itself.
pub(super) struct Shape {
    /// As of md.
    pub level: i32,
    /// As of md.
    pub layout: u32,
    /// Bytes of a stripe on one leg.
    pub chunk: Bytes,
}

/// What dm-raid keeps of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    number: u32,
    events: u64,
    failed: u64,
    is_rebuilt: bool,
    is_synced: bool,
}

/// dm-raid's superblock, in the first sector of a leg's metadata. `Err` with the end of a sentence.
fn parse(sector: &[u8], legs: usize, shape: &Shape) -> Result<State, String> {
    let cut = || "its metadata are cut off".to_owned();
    let long = |at: usize| le64(sector, at).ok_or_else(cut);
    let word = |at: usize| le32(sector, at).ok_or_else(cut);
    if sector.get(..4) != Some(b"DmRd") {
        return Err("it was never active, or its metadata are damaged".into());
    }
    let level = i32::from_ne_bytes(word(48)?.to_ne_bytes());
    let is_striped = level != 1;
    let chunk = Bytes(u64::from(word(56)?) * 512);
    if usize::try_from(word(8)?) != Ok(legs)
        || level != shape.level
        || (is_striped && (word(52)?, chunk) != (shape.layout, shape.chunk))
    {
        return Err("its legs and its metadata do not agree".into());
    }
    // Flags of a reshape, or data that one has moved; the latter are there with the first feature.
    if word(60)? != 0 || (word(4)? & 1 != 0 && long(96)? != 0) {
        return Err("it is being reshaped, or was".into());
    }
    Ok(State {
        number: word(12)?,
        events: long(16)?,
        failed: long(24)?,
        is_rebuilt: long(32)? == u64::MAX,
        is_synced: long(40)? == u64::MAX,
    })
}

/// A leg that is here.
pub(super) struct Open {
    pub number: usize,
    pub view: Arc<View>,
    /// Of a raid: its metadata, and what they say.
    meta: Option<(Arc<View>, State)>,
    is_write_mostly: bool,
}

impl<'a> Assembly<'a> {
    /// Opens the mirrored segment that the volume `name` consists of.
    pub(super) fn mirror(
        &mut self,
        name: &str,
        piece: &'a Section,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
    ) -> Result<Vec<Segment>, NotOpened> {
        let not = |why: String| NotOpened::from((format!("lvm-{}", kind(piece)), why));
        let legs = legs(piece);
        let len = self.length(piece);
        let (Some(len), false, Some(0)) = (len, legs.is_empty(), number(piece, "start_extent")) else {
            return Err(not("its metadata tell no legs".into()));
        };
        let shape = Shape { level: 1, layout: 0, chunk: Bytes(0) };
        let (mut open, mut absent, _) = self.open_legs(piece, &shape, physical)?;
        // Without a leg nothing here says whether another one is current.
        if kind(piece) == "mirror"
            && let Some(why) = absent.pop()
        {
            return Err(("lvm-partial".into(), why).into());
        }
        if open.is_empty() {
            return Err(("lvm-partial".into(), absent.pop().unwrap_or_else(|| "it has no leg".into())).into());
        }
        open.sort_by_key(|leg| (leg.is_write_mostly, leg.number));
        let behind =
            if absent.is_empty() { None } else { Some(left_behind(&open, legs.len()).map_err(not)?) };
        for why in absent {
            oddities.push((
                format!("{name} is a mirror of {} legs, and one is left as it is: {why}", legs.len()),
                "name all disks of the machine, with the keys of those that are encrypted; or have it filled anew on the target: by itself when its disk is there, or by lvconvert --repair",
            ));
        }
        let copies = open.into_iter().map(|leg| (leg.view as Arc<dyn DiskMut>, GuestOffset(0)));
        let view = View::new([Segment::mirrored(len, copies.collect())])
            .map_err(|_| not(format!("its legs are shorter than its {len}")))?;
        let view = match behind {
            Some(behind) => view.before_writing(move || behind.write()),
            None => view,
        };
        Ok(vec![Segment::linear(Arc::new(view), GuestRange::new(GuestOffset(0), len))])
    }

    /// The legs that are here and in sync, why the others are not, and whether what they have in common is complete.
    pub(super) fn open_legs(
        &mut self,
        piece: &'a Section,
        shape: &Shape,
        physical: &BTreeMap<&str, Described<'_>>,
    ) -> Result<(Vec<Open>, Vec<String>, bool), NotOpened> {
        let not = |why: String| NotOpened::from((format!("lvm-{}", kind(piece)), why));
        let legs = legs(piece);
        if legs.len() > limits::LVM_LEGS {
            return Err(not(format!("it has {} legs; up to {} are taken", legs.len(), limits::LVM_LEGS)));
        }
        let (mut open, mut absent) = (Vec::new(), Vec::new());
        for (index, leg) in legs.iter().enumerate() {
            match self.leg(leg, (index, legs.len()), shape, physical) {
                Ok(found) => open.push(found),
                // One that is being filled again counts as much as one that is not here.
                Err(NotOpened { of, why, .. }) if of == "lvm-partial" || of == "lvm-rebuild" => {
                    absent.push(why)
                }
                Err(NotOpened { why, .. }) => return Err(not(why)),
            }
        }
        self.keep_synced(&mut open, &mut absent).map_err(not)?;
        let is_synced = open.iter().filter_map(Open::state).all(|state| state.is_synced);
        Ok((open, absent, is_synced))
    }

    fn leg(
        &mut self,
        leg: &Leg<'a>,
        (index, legs): (usize, usize),
        shape: &Shape,
        physical: &BTreeMap<&str, Described<'_>>,
    ) -> Result<Open, NotOpened> {
        let not = |why: String| NotOpened::from(("lvm".to_owned(), why));
        let (image, view) = self.hidden_view(leg.image, physical)?;
        let has = |flag: &str| {
            ["status", "flags"].iter().any(|list| {
                image
                    .get(*list)
                    .is_some_and(|list| list.list().iter().any(|known| known.text() == Some(flag)))
            })
        };
        if has("LV_REBUILD") {
            return Err(("lvm-rebuild".into(), format!("{} is to be rebuilt", leg.image)).into());
        }
        let meta = match leg.meta {
            None => None,
            Some(meta) => {
                let (_, meta) = self.hidden_view(meta, physical)?;
                let mut sector = [0; 512];
                meta.read_at(GuestOffset(0), &mut sector).map_err(|error| not(error.to_string()))?;
                Some((Arc::new(meta), parse(&sector, legs, shape).map_err(not)?))
            }
        };
        if meta.as_ref().is_some_and(|(_, state)| usize::try_from(state.number) != Ok(index)) {
            return Err(not("its legs and its metadata do not agree".into()));
        }
        let is_write_mostly = has("LV_WRITEMOSTLY");
        Ok(Open { number: index, view: Arc::new(view), meta, is_write_mostly })
    }

    fn hidden_view(
        &mut self,
        name: &str,
        physical: &BTreeMap<&str, Described<'_>>,
    ) -> Result<(&'a Section, View), NotOpened> {
        let not = |why: String| NotOpened::from(("lvm".to_owned(), why));
        let section = self.hidden(name).ok_or_else(|| not(format!("its metadata lack {name}")))?;
        let extent = self.extent().unwrap_or(Bytes(0));
        let segments = self.segments(&pieces(section), extent, physical)?;
        Ok((section, View::new(segments).map_err(|error| not(error.to_string()))?))
    }

    /// Leaves out the legs of a raid1 that are not in sync, as the freshest one knows it.
    fn keep_synced(&self, open: &mut Vec<Open>, absent: &mut Vec<String>) -> Result<(), String> {
        let states: Vec<State> = open.iter().filter_map(Open::state).collect();
        let failed = failed(&states)?;
        open.retain(|leg| {
            let has_failed = failed & bit(leg.number) != 0;
            if has_failed {
                absent.push(format!("leg {} had failed earlier", leg.number));
            }
            !has_failed
        });
        Ok(())
    }
}

impl Open {
    fn state(&self) -> Option<State> {
        self.meta.as_ref().map(|(_, state)| *state)
    }
}

/// A leg's bit among those that failed; the superblock has room for 64.
fn bit(leg: usize) -> u64 {
    u32::try_from(leg).ok().and_then(|bit| 1_u64.checked_shl(bit)).unwrap_or(0)
}

/// The legs that are not in sync, as the freshest one knows it, a bit each. `Err` with the end of a sentence where they
/// contradict each other.
fn failed(states: &[State]) -> Result<u64, String> {
    let Some(freshest) = states.iter().max_by_key(|state| state.events) else { return Ok(0) };
    for state in states {
        // Each took the other for gone, and nothing tells which went on for longer.
        if state.events == freshest.events && state.failed != freshest.failed {
            return Err(format!("legs {} and {} each ran without the other", state.number, freshest.number));
        }
        let has_failed = usize::try_from(state.number).is_ok_and(|number| freshest.failed & bit(number) != 0);
        if !has_failed && !state.is_rebuilt {
            return Err("a leg of it is being rebuilt".into());
        }
        // Written in turns; one behind is the state before the last change.
        if !has_failed && state.events.saturating_add(1) < freshest.events {
            return Err("its legs do not agree on their state".into());
        }
    }
    Ok(freshest.failed)
}

/// What the legs that are written have to say of the others, of `legs` in all.
pub(super) fn left_behind(open: &[Open], legs: usize) -> Result<Behind, String> {
    let written = open.iter().fold(0, |written, leg| written | bit(leg.number));
    let failed = (0..legs).fold(0, |failed, leg| failed | bit(leg)) & !written;
    let metas = open.iter().filter_map(|leg| leg.meta.as_ref());
    let legs = metas.map(|(meta, state)| Written { meta: meta.clone(), events: state.events });
    Behind::new(legs.collect(), failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(number: u32, events: u64) -> Vec<u8> {
        let mut raw = vec![0; 512];
        raw[..4].copy_from_slice(b"DmRd");
        raw[8..12].copy_from_slice(&2_u32.to_le_bytes());
        raw[12..16].copy_from_slice(&number.to_le_bytes());
        raw[16..24].copy_from_slice(&events.to_le_bytes());
        raw[32..48].fill(0xff);
        raw[48..52].copy_from_slice(&1_u32.to_le_bytes());
        raw
    }

    fn parsed(sector: &[u8], legs: usize) -> Result<State, String> {
        parse(sector, legs, &Shape { level: 1, layout: 0, chunk: Bytes(0) })
    }

    #[test]
    fn a_leg_says_what_it_is() {
        let good = parsed(&sector(1, 7), 2).unwrap();
        assert_eq!(good, State { number: 1, events: 7, failed: 0, is_rebuilt: true, is_synced: true });
        assert!(parsed(&[0; 512], 2).unwrap_err().contains("never active"));
        assert!(parsed(&sector(1, 7), 3).is_err(), "another number of legs");
        assert!(parsed(&sector(1, 7)[..40], 2).is_err());
        let mut reshaped = sector(0, 1);
        reshaped[60] = 1;
        assert!(parsed(&reshaped, 2).unwrap_err().contains("reshaped"));
        // One with parity.
        let mut five = sector(1, 7);
        five[4] = 1;
        for (at, number) in [(48, 5_u32), (52, 2), (56, 128)] {
            five[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let shape = |level, layout, chunk| Shape { level, layout, chunk: Bytes(chunk) };
        assert!(parse(&five, 2, &shape(5, 2, 65536)).is_ok());
        for other in [shape(6, 2, 65536), shape(5, 3, 65536), shape(5, 2, 32768)] {
            assert!(parse(&five, 2, &other).unwrap_err().contains("do not agree"));
        }
        five[96] = 8;
        assert!(parse(&five, 2, &shape(5, 2, 65536)).unwrap_err().contains("reshaped"));
    }

    #[test]
    fn the_freshest_leg_tells_unless_two_contradict() {
        let state =
            |number, events, failed| State { number, events, failed, is_rebuilt: true, is_synced: true };
        assert_eq!(failed(&[]), Ok(0));
        assert_eq!(failed(&[state(0, 7, 0), state(1, 7, 0)]), Ok(0));
        assert_eq!(failed(&[state(0, 7, 0), state(1, 8, 0)]), Ok(0), "written in turns");
        assert_eq!(failed(&[state(0, 9, 2), state(1, 5, 0)]), Ok(2));
        assert_eq!(failed(&[state(0, 9, 2), state(1, 11, 1)]), Ok(1), "the target takes it so, too");
        for (a, b) in [(2, 1), (2, 0), (0, 1)] {
            let error = failed(&[state(0, 9, a), state(1, 9, b)]).unwrap_err();
            assert!(error.contains("without the other"), "{error}");
        }
        assert!(failed(&[state(0, 9, 0), state(1, 7, 0)]).unwrap_err().contains("do not agree"));
        let filled = State { is_rebuilt: false, ..state(1, 9, 0) };
        assert!(failed(&[state(0, 9, 0), filled]).unwrap_err().contains("rebuilt"));
    }
}
