//! The table of internal snapshots: "Snapshots" in the specification. Only what `disk info` shows is read.
//!
//! ```text
//!  0  L1 table at | 8 its entries | 12 length of the id | 14 length of the name | 16 seconds | 20 nanoseconds
//! 24  guest clock | 32 size of the machine state | 36 length of the extra data
//! then the extra data, the id and the name; the next one starts on a multiple of 8
//! ```

use super::header::Header;
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::FileOffset;

const FIXED: usize = 40;

/// The names of the first [`limits::QCOW2_SNAPSHOTS_LISTED`] snapshots; the id where a name is empty.
pub(super) fn names(source: &Source, header: &Header) -> Result<Vec<String>> {
    if header.snapshots > limits::QCOW2_SNAPSHOTS {
        return Err(Error::refused(format!(
            "has {} internal snapshots; the limit is {}",
            header.snapshots,
            limits::QCOW2_SNAPSHOTS
        )));
    }
    let mut names = Vec::new();
    let mut here = header.snapshot_table;
    for _ in 0..header.snapshots.min(limits::QCOW2_SNAPSHOTS_LISTED) {
        let mut fixed = [0; FIXED];
        source.read_exact_at(here, &mut fixed)?;
        let u16_at = |at: usize| usize::from(u16::from_be_bytes([fixed[at], fixed[at + 1]]));
        let (id_len, name_len) = (u16_at(12), u16_at(14));
        let extra_len = u32::from_be_bytes([fixed[36], fixed[37], fixed[38], fixed[39]]);
        let texts = here
            .checked_add(crate::Bytes(FIXED as u64 + u64::from(extra_len)))
            .ok_or_else(|| source.corrupt("the snapshot table passes the end of all files").at(here))?;
        let mut text = vec![0; id_len + name_len];
        source.read_exact_at(texts, &mut text)?;
        let (id, name) = text.split_at(id_len);
        let shown = if name.is_empty() { id } else { name };
        names.push(String::from_utf8_lossy(shown).chars().filter(|c| !c.is_control()).take(80).collect());
        here = FileOffset((texts.0 + text.len() as u64).next_multiple_of(8));
    }
    Ok(names)
}
