//! The table of internal snapshots: "Snapshots" in the specification.
//!
//! ```text
//!  0  L1 table at | 8 its entries | 12 length of the id | 14 length of the name | 16 seconds | 20 nanoseconds
//! 24  guest clock | 32 size of the machine state | 36 length of the extra data
//! 40  extra data: size of the machine state, in 64 bits | 8 size of the disk | …
//! then the id and the name; the next one starts on a multiple of 8
//! ```

use super::header::Header;
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

const FIXED: usize = 40;
/// The part of the extra data that is understood.
const EXTRA: usize = 16;

/// One internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub id: String,
    pub name: String,
    pub l1_table: FileOffset,
    pub l1_entries: u32,
    /// Size of the disk when it was taken; `None` where it was not recorded (version 2).
    pub size: Option<Bytes>,
    /// Where its entry lies, and how long it is.
    pub at: FileOffset,
    pub len: u64,
}

impl Snapshot {
    /// The name, or the id where that is empty.
    pub fn shown(&self) -> String {
        let shown = if self.name.is_empty() { &self.id } else { &self.name };
        shown.chars().filter(|c| !c.is_control()).take(80).collect()
    }
}

/// The snapshots, one by one; nothing comes behind an error.
pub(super) fn read<'a>(
    source: &'a Source,
    header: &'a Header,
) -> Result<impl Iterator<Item = Result<Snapshot>> + 'a> {
    if header.snapshots > limits::QCOW2_SNAPSHOTS {
        return Err(Error::refused(format!(
            "has {} internal snapshots; the limit is {}",
            header.snapshots,
            limits::QCOW2_SNAPSHOTS
        )));
    }
    let mut here = Some(header.snapshot_table);
    Ok((0..header.snapshots).map_while(move |_| {
        let snapshot = read_one(source, here?);
        here = snapshot.as_ref().ok().map(|snapshot| FileOffset(snapshot.at.0 + snapshot.len));
        Some(snapshot)
    }))
}

fn read_one(source: &Source, here: FileOffset) -> Result<Snapshot> {
    let mut fixed = [0; FIXED];
    source.read_exact_at(here, &mut fixed)?;
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([fixed[at], fixed[at + 1]]));
    let u32_at = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let (id_len, name_len, extra_len) = (u16_at(12), u16_at(14), u32_at(36));
    let passes = || source.corrupt("the snapshot table passes the end of all files").at(here);
    let extra_at = here.checked_add(Bytes(FIXED as u64)).ok_or_else(passes)?;
    let texts = extra_at.checked_add(Bytes(u64::from(extra_len))).ok_or_else(passes)?;
    let mut size = None;
    if extra_len as usize >= EXTRA {
        let mut extra = [0; EXTRA];
        source.read_exact_at(extra_at, &mut extra)?;
        size = extra.last_chunk().map(|size| Bytes(u64::from_be_bytes(*size)));
    }
    let mut text = vec![0; id_len + name_len];
    source.read_exact_at(texts, &mut text)?;
    let (id, name) = text.split_at(id_len);
    let end = texts.0.checked_add(text.len() as u64).and_then(|end| end.checked_next_multiple_of(8));
    Ok(Snapshot {
        id: String::from_utf8_lossy(id).into_owned(),
        name: String::from_utf8_lossy(name).into_owned(),
        l1_table: FileOffset(u64::from(u32_at(0)) << 32 | u64::from(u32_at(4))),
        l1_entries: u32_at(8),
        size,
        at: here,
        len: end.ok_or_else(passes)? - here.0,
    })
}

/// The names of the first [`limits::QCOW2_SNAPSHOTS_LISTED`] snapshots; the id where a name is empty.
pub(super) fn names(source: &Source, header: &Header) -> Result<Vec<String>> {
    let listed = read(source, header)?.take(limits::QCOW2_SNAPSHOTS_LISTED as usize);
    listed.map(|snapshot| snapshot.map(|snapshot| snapshot.shown())).collect()
}

/// The snapshot with that id, or else with that name: as QEMU looks for it.
pub(super) fn find(source: &Source, header: &Header, wanted: &str) -> Result<Snapshot> {
    let mut named = None;
    for snapshot in read(source, header)? {
        let snapshot = snapshot?;
        if snapshot.id == wanted {
            return Ok(snapshot);
        }
        if snapshot.name == wanted && named.is_none() {
            named = Some(snapshot);
        }
    }
    if let Some(named) = named {
        return Ok(named);
    }
    let names = names(source, header)?;
    let error = Error::refused(format!("has no internal snapshot {wanted:?}"));
    Err(match names.is_empty() {
        true => error.hint("it has none at all; leave the snapshot out to read its current state"),
        false => error.hint(format!("it has {}", names.join(", "))),
    })
}
