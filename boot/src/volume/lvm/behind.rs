//! Legs of a raid that are not written with the rest: the metadata of the rest say so before the first write.
//!
//! dm-raid brings a leg that had failed, or was not here, back by itself when it finds it at the next activation. It copies
//! to it what the write-intent bitmap marks; so all of the bitmap is set. A bitmap older than the superblock would be
//! taken for outdated, and then nothing of it counts for the copy: its count of events grows with the other. (kernel:
//! `super_validate` in `drivers/md/dm-raid.c`; `md_bitmap_load`, `md_bitmap_init_from_disk` in `md-bitmap.c`)
//!
//! ```text
//! bitmap, 4 KiB into the leg's metadata, little-endian
//!   0 "bitm" · 4 version 3 or 4 · 24 events · 32 events when nothing was marked · 40 size, sectors · 52 bytes per bit
//! 256 bits
//! ```

use crate::volume::field::{le32, le64};
use crate::volume::view::View;
use crate::{Error, Result};
use landfall_image::{Disk, DiskMut, GuestOffset};
use std::sync::Arc;

const BITMAP_AT: u64 = 4096;
const BITMAP_HEADER: usize = 256;
/// By how much the count of events grows.
const EVENTS: u64 = 2;
/// Bytes that are set at once.
const PIECE: usize = 64 << 10;

/// A leg that is written.
pub(super) struct Written {
    pub meta: Arc<View>,
    pub events: u64,
}

/// What is to be said by the legs that are written.
pub(super) struct Behind {
    legs: Vec<Written>,
    /// A bit for each leg that is not written.
    failed: u64,
    /// The most that any leg has counted.
    events: u64,
    /// Bytes of bits.
    bits: u64,
}

impl Behind {
    /// Checks that it can be said: the bitmaps are where and what they should be.
    ///
    /// # Errors
    /// The end of a sentence: why it cannot.
    pub fn new(legs: Vec<Written>, failed: u64) -> Result<Behind, String> {
        let mut bits = None;
        for leg in &legs {
            let head = bitmap_header(&leg.meta).map_err(|error| error.to_string())?;
            let (version, sectors, per_bit) = (le32(&head, 4), le64(&head, 40), le32(&head, 52));
            let per_bit = per_bit.filter(|per_bit| per_bit.is_power_of_two() && *per_bit >= 512);
            let (Some(b"bitm"), Some(3 | 4), Some(sectors), Some(per_bit)) =
                (head.get(..4), version, sectors, per_bit)
            else {
                return Err(
                    "a leg is not here or had failed, and the bitmap of another one is damaged".into()
                );
            };
            let own = sectors.div_ceil(u64::from(per_bit) / 512).div_ceil(8);
            let begin = BITMAP_AT + BITMAP_HEADER as u64;
            if begin.checked_add(own).is_none_or(|end| end > leg.meta.size().0) {
                return Err(format!("its bitmap of {own} bytes does not fit into {}", leg.meta.size()));
            }
            if *bits.get_or_insert(own) != own {
                return Err("the bitmaps of its legs do not agree".into());
            }
        }
        let events = legs.iter().map(|leg| leg.events).max().unwrap_or(0);
        if events.checked_add(EVENTS).is_none() {
            return Err(format!("it has counted {events} events, and no more can be counted"));
        }
        Ok(Behind { legs, failed, events, bits: bits.unwrap_or(0) })
    }

    /// Writes it.
    ///
    /// # Errors
    /// Where a leg's metadata cannot be read or written.
    pub fn write(&self) -> Result<()> {
        let events = self.events.saturating_add(EVENTS);
        for Written { meta, .. } in &self.legs {
            let mut sector = [0; 512];
            meta.read_at(GuestOffset(0), &mut sector)?;
            let failed = le64(&sector, 24).unwrap_or(0) | self.failed;
            sector[16..24].copy_from_slice(&events.to_le_bytes());
            sector[24..32].copy_from_slice(&failed.to_le_bytes());
            let mut head = bitmap_header(meta)?;
            let cleared = le64(&head, 32).unwrap_or(0).min(self.events);
            head[24..32].copy_from_slice(&events.to_le_bytes());
            head[32..40].copy_from_slice(&cleared.to_le_bytes());
            // The superblock last: it is what makes the rest count.
            let ones = vec![0xff; PIECE];
            let mut done = 0;
            while done < self.bits {
                let len = (self.bits - done).min(PIECE as u64);
                let at = GuestOffset(BITMAP_AT + BITMAP_HEADER as u64 + done);
                meta.write_at(at, &ones[..usize::try_from(len).unwrap_or(PIECE)])?;
                done += len;
            }
            meta.write_at(GuestOffset(BITMAP_AT), &head)?;
            meta.write_at(GuestOffset(0), &sector)?;
        }
        Ok(())
    }
}

fn bitmap_header(meta: &View) -> Result<[u8; BITMAP_HEADER]> {
    let mut head = [0; BITMAP_HEADER];
    meta.read_at(GuestOffset(BITMAP_AT), &mut head).map_err(|error| match error.kind() {
        crate::Kind::Io | crate::Kind::Interrupted => error,
        _ => Error::corrupt("the metadata of a leg end before their bitmap"),
    })?;
    Ok(head)
}
