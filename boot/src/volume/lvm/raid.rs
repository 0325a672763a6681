//! Logical volumes with parity: segments of the types raid4, raid5 and raid6, with the layouts that LVM has names for.
//!
//! Legs and their metadata are those of a mirror ([`mirror`](super::mirror)). Striped without parity, raid0, and mirrored
//! stripes, raid10, are absent.

use super::assembly::{Assembly, Described, NotOpened};
use super::mirror::{Shape, left_behind, legs};
use super::segments::{chunk, kind, number};
use super::text::Section;
use crate::volume::parity::{Layout, Parity};
use crate::volume::view::{Segment, View};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Level and layout of md by the type of a segment (lvm2: `lib/raid/raid.c`; kernel: `drivers/md/dm-raid.c`).
const TYPES: &[(&str, i32, u32)] = &[
    ("raid4", 5, 5),
    ("raid5", 5, 2),
    ("raid5_la", 5, 0),
    ("raid5_ra", 5, 1),
    ("raid5_ls", 5, 2),
    ("raid5_rs", 5, 3),
    ("raid5_n", 5, 5),
    ("raid6", 6, 8),
    ("raid6_zr", 6, 8),
    ("raid6_nr", 6, 9),
    ("raid6_nc", 6, 10),
    ("raid6_la_6", 6, 16),
    ("raid6_ra_6", 6, 17),
    ("raid6_ls_6", 6, 18),
    ("raid6_rs_6", 6, 19),
    ("raid6_n_6", 6, 5),
];

/// Level and layout of a segment that this module opens.
pub(super) fn level(piece: &Section) -> Option<(i32, u32)> {
    TYPES.iter().find(|(name, ..)| *name == kind(piece)).map(|&(_, level, layout)| (level, layout))
}

impl<'a> Assembly<'a> {
    /// Opens the segment with parity that the volume `name` consists of.
    pub(super) fn raid(
        &mut self,
        name: &str,
        piece: &'a Section,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
    ) -> Result<Vec<Segment>, NotOpened> {
        let not = |why: String| NotOpened::from((format!("lvm-{}", kind(piece)), why));
        let (level, number_of_layout) = level(piece).ok_or_else(|| not("its level is not known".into()))?;
        let layout =
            Layout::of(level, number_of_layout).ok_or_else(|| not("its layout is not known".into()))?;
        let chunk = chunk(piece, "stripe_size");
        let len = self.length(piece).map(|len| len.0);
        let count = legs(piece).len();
        let (Some(chunk), Some(len), Some(0)) = (chunk, len, number(piece, "start_extent")) else {
            return Err(not("its metadata tell no stripes".into()));
        };
        let data_disks =
            layout.data_disks(count).map(|disks| disks as u64).filter(|disks| len.is_multiple_of(*disks));
        let Some(data_disks) = data_disks else {
            return Err(not(format!("{len} bytes do not divide among {count} legs")));
        };
        let shape = Shape { level, layout: number_of_layout, chunk };
        let (open, absent, is_synced) = self.open_legs(piece, &shape, physical)?;
        if count - open.len() > layout.parities() {
            let why = absent.into_iter().next().unwrap_or_else(|| "it lacks legs".into());
            return Err(("lvm-partial".into(), why).into());
        }
        if !absent.is_empty() && !is_synced {
            return Err(not("its parity was not complete yet, and a leg is missing".into()));
        }
        let behind = match absent.is_empty() {
            true => None,
            false => Some(left_behind(&open, count).map_err(not)?),
        };
        for why in absent {
            oddities.push((
                format!("{name} is an array of {count} legs, and one is left as it is: {why}"),
                "name all disks of the machine, with the keys of those that are encrypted; or have it filled anew on the target: by itself when its disk is there, or by lvconvert --repair",
            ));
        }
        let member = |number: usize| {
            let leg = open.iter().find(|leg| leg.number == number)?;
            Some((leg.view.clone() as Arc<dyn DiskMut>, GuestOffset(0)))
        };
        let array = Parity::new((0..count).map(member).collect(), layout, chunk, Bytes(len / data_disks))
            .map_err(|error| not(error.to_string()))?;
        let whole = GuestRange::new(GuestOffset(0), array.size());
        if array.size() != Bytes(len) {
            return Err(not(format!("its stripes of {chunk} do not divide its legs")));
        }
        let view =
            View::new([Segment::linear(Arc::new(array), whole)]).map_err(|error| not(error.to_string()))?;
        let view = match behind {
            Some(behind) => view.before_writing(move || behind.write()),
            None => view,
        };
        Ok(vec![Segment::linear(Arc::new(view), whole)])
    }
}
