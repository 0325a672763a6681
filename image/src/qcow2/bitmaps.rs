//! The directory of persistent dirty bitmaps: "Bitmaps" in the specification. They say what changed since a backup;
//! the disk's content does not depend on them, so they are listed and checked, not read.
//!
//! ```text
//!  0  bitmap table at | 8 its entries | 12 flags | 16 type | 17 granularity bits | 18 length of the name
//! 20  length of the extra data, then that, then the name; the next one starts on a multiple of 8
//! ```

use super::header::Bitmaps;
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

const FIXED: usize = 24;
const IN_USE: u32 = 1;
const AUTO: u32 = 1 << 1;

/// A dirty bitmap, as its entry in the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bitmap {
    pub name: String,
    pub table: FileOffset,
    pub table_entries: u32,
    /// Not closed: its content is not valid.
    pub in_use: bool,
    /// Goes on recording when the image is opened.
    pub auto: bool,
    /// Base-two logarithm of the bytes that a bit stands for.
    pub granularity_bits: u8,
}

/// The entries of the directory.
pub(super) fn read(source: &Source, bitmaps: &Bitmaps) -> Result<Vec<Bitmap>> {
    if bitmaps.count > limits::QCOW2_BITMAPS || bitmaps.directory_len > limits::QCOW2_BITMAP_DIRECTORY {
        return Err(Error::refused(format!(
            "has {} bitmaps in a directory of {}; the limits are {} and {}",
            bitmaps.count,
            bitmaps.directory_len,
            limits::QCOW2_BITMAPS,
            limits::QCOW2_BITMAP_DIRECTORY
        )));
    }
    let directory = source.window(bitmaps.directory, bitmaps.directory_len)?;
    let directory = directory.head(usize::MAX)?;
    let mut here = 0usize;
    let mut out = Vec::new();
    for _ in 0..bitmaps.count {
        let bad = || {
            let at = FileOffset(bitmaps.directory.0.saturating_add(here as u64));
            source.corrupt("the bitmap directory is shorter than its entries").at(at)
        };
        let fixed = directory.get(here..).and_then(|rest| rest.first_chunk::<FIXED>()).ok_or_else(bad)?;
        let u32_at = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let name_len = usize::from(u16::from_be_bytes([fixed[18], fixed[19]]));
        let name_at = usize::try_from(u32_at(20)).ok().and_then(|extra| here.checked_add(FIXED + extra));
        let name = name_at.and_then(|at| directory.get(at..)?.get(..name_len)).ok_or_else(bad)?;
        out.push(Bitmap {
            name: String::from_utf8_lossy(name).into_owned(),
            table: FileOffset(u64::from(u32_at(0)) << 32 | u64::from(u32_at(4))),
            table_entries: u32_at(8),
            in_use: u32_at(12) & IN_USE != 0,
            auto: u32_at(12) & AUTO != 0,
            granularity_bits: fixed[17],
        });
        here = name_at.map_or(usize::MAX, |at| at + name_len).checked_next_multiple_of(8).ok_or_else(bad)?;
    }
    Ok(out)
}

impl Bitmap {
    /// For people: name, granularity, flags.
    pub fn shown(&self) -> String {
        let name: String = self.name.chars().filter(|c| !c.is_control()).take(80).collect();
        let granularity =
            1u64.checked_shl(self.granularity_bits.into()).map_or("?".to_owned(), |n| Bytes(n).to_string());
        let auto = if self.auto { ", auto" } else { "" };
        let in_use = if self.in_use { ", in use" } else { "" };
        format!("{name} (granularity {granularity}{auto}{in_use})")
    }
}
