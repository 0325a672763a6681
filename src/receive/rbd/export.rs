//! Points of a machine's disk as RBD's diffs: from nothing to a point, or from one point to a later one.
//!
//! What may differ between two points is asked of the journal, and only that is read and compared. The stream then has nothing but what
//! differs, in blocks of 4 KiB.

use super::record::{DATA_AT_MOST, Head, Version};
use super::write::Writer;
use super::{Snapshot, WAY};
use crate::receive::content::{self, BLOCK, PIECE, each_extent};
use crate::receive::position::{self, Position};
use crate::vault::machine::{Machine, PointDisk};
use landfall_image::convert::{Cancel, is_zero};
use landfall_image::{Bytes, Disk, Error, ExtentKind, GuestOffset, GuestRange, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

/// What is exported.
#[derive(Clone, Debug)]
pub struct Wanted<'w> {
    /// The disk, by its name in the machine.
    pub disk: &'w str,
    /// The point to begin at, and the name of the snapshot that it is to be; `None` for all of the disk.
    pub from: Option<(u64, &'w str)>,
    /// The point that it leads to.
    pub to: u64,
    /// The name of the snapshot that it leads to; `rbd import-diff` makes one of that name.
    pub name: Option<&'w str>,
    /// The notation: V1 for `rbd import-diff` and `merge-diff`.
    pub version: Version,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Exported {
    /// Bytes of data.
    pub data: Bytes,
    /// Bytes that become zeros.
    pub zeros: Bytes,
}

/// Writes a diff.
///
/// # Errors
/// Refused where there is no such point or disk, `to` is not behind `from`, or a name can be none of a snapshot; as the vault's and the writer's;
/// [`Kind::Interrupted`](landfall_image::Kind::Interrupted) where it was stopped.
pub fn export(
    machine: &Arc<Machine>,
    wanted: &Wanted<'_>,
    out: impl Write,
    cancel: &Cancel,
) -> Result<Exported> {
    let (number, to) = disk_at(machine, wanted.to, wanted.disk)?;
    let size = to.size();
    let from = match wanted.from {
        None => None,
        Some((point, _)) if point >= wanted.to => {
            return Err(Error::refused(format!("point {} does not lie behind point {point}", wanted.to))
                .hint("name the older point first; landfall points list shows them in order"));
        }
        Some((point, _)) => match disk_at(machine, point, wanted.disk)? {
            (old, from) if old == number => Some((point, from)),
            _ => {
                return Err(Error::refused(format!(
                    "{} was removed and made anew between the points",
                    wanted.disk
                ))
                .hint("export all of it, without --since"));
            }
        },
    };
    let head =
        Head { from: wanted.from.map(|(_, name)| name.to_owned()), to: wanted.name.map(str::to_owned), size };
    let mut writer = Writer::begin(out, wanted.version, &head)?;
    let mut gather = Gather { writer: &mut writer, run: None, buf: Vec::new(), done: Exported::default() };
    let (mut new, mut old) = (vec![0; PIECE], vec![0; PIECE]);
    let mut piece = |range: GuestRange, from: Option<&PointDisk>, gather: &mut Gather<'_, _>| -> Result<()> {
        if cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        let len = range.len().to_usize().unwrap_or(PIECE);
        to.read_at(range.start(), &mut new[..len])?;
        old[..len].fill(0);
        if let Some(from) = from {
            let there = landfall_image::disk::clip(range, from.size()).len().to_usize().unwrap_or(PIECE);
            if there > 0 {
                from.read_at(range.start(), &mut old[..there])?;
            }
        }
        gather.blocks(range.start().0, &new[..len], &old[..len])
    };
    match &from {
        None => each_extent(&to, GuestRange::new(GuestOffset(0), size), |extent| match extent.kind {
            ExtentKind::Data => pieces(extent.range).try_for_each(|range| piece(range, None, &mut gather)),
            ExtentKind::Zero | ExtentKind::Unallocated => Ok(()),
        })?,
        Some((point, from)) => {
            // What lies behind the older one's end was zeros to its reader.
            let changed = content::changed(machine, number, *point, wanted.to, size)?;
            for range in changed.ranges() {
                let range = GuestRange::between(GuestOffset(range.start), GuestOffset(range.end));
                pieces(range).try_for_each(|range| piece(range, Some(from), &mut gather))?;
            }
        }
    }
    gather.end_run()?;
    let done = gather.done;
    writer.finish()?;
    Ok(done)
}

/// The snapshot that a disk is at at a point, where a stream has brought it there.
///
/// # Errors
/// Refused where there is no such point; where the journal cannot be read.
pub fn snapshot_at(machine: &Arc<Machine>, point: u64, disk: &str) -> Result<Option<String>> {
    let was = machine.at(point)?;
    let Some(raw) = was.state().attachments.get(&position::attachment(WAY, disk)) else { return Ok(None) };
    let position: Position<Snapshot> = position::parse(raw, WAY, disk)?;
    let holds = match position.point {
        // The point that was cut of it.
        None => !position.has_ended,
        Some(_) => position.was_lost(machine, disk, point)?.is_none(),
    };
    Ok(position.source.snapshot.filter(|_| holds && !position.source.is_head))
}

/// What the snapshot is called that a point becomes where nobody says: as its stream did, or by its number.
///
/// # Errors
/// As [`snapshot_at`].
pub fn name_at(machine: &Arc<Machine>, point: u64, disk: &str) -> Result<String> {
    Ok(snapshot_at(machine, point, disk)?.unwrap_or_else(|| format!("landfall-{point}")))
}

fn disk_at(machine: &Arc<Machine>, point: u64, name: &str) -> Result<(u32, PointDisk)> {
    let point_of = machine.at(point)?;
    let number = point_of.state().disks.iter().find(|(_, info)| info.name == name).map(|(number, _)| *number);
    let number = number.ok_or_else(|| {
        Error::refused(format!("{} had no disk {name:?} at point {point}", machine.name()))
            .hint("landfall points show tells which it had")
    })?;
    Ok((number, point_of.disk(number)?))
}

/// A run in pieces that are read at once, on multiples of that.
fn pieces(range: GuestRange) -> impl Iterator<Item = GuestRange> {
    let next = |at: u64| (at / PIECE as u64 + 1) * PIECE as u64;
    std::iter::successors(Some(range.start().0), move |at| Some(next(*at)))
        .take_while(move |at| *at < range.end().0)
        .map(move |at| GuestRange::between(GuestOffset(at), GuestOffset(next(at).min(range.end().0))))
}

/// Joins blocks to records.
struct Gather<'g, W> {
    writer: &'g mut Writer<W>,
    /// What is not written yet: whether it is data, and where it lies.
    run: Option<(bool, Range<u64>)>,
    /// Of data.
    buf: Vec<u8>,
    done: Exported,
}

impl<W: Write> Gather<'_, W> {
    fn blocks(&mut self, at: u64, new: &[u8], old: &[u8]) -> Result<()> {
        let mut here = at;
        for (new, old) in new.chunks(BLOCK).zip(old.chunks(BLOCK)) {
            let end = here + new.len() as u64;
            if new != old {
                let is_data = !is_zero(new);
                let goes_on = self.run.as_ref().is_some_and(|(data, range)| {
                    *data == is_data && range.end == here && self.buf.len() + new.len() <= DATA_AT_MOST
                });
                if !goes_on {
                    self.end_run()?;
                }
                if is_data {
                    self.buf.extend_from_slice(new);
                }
                let run = self.run.get_or_insert((is_data, here..here));
                run.1.end = end;
            }
            here = end;
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<()> {
        let Some((is_data, range)) = self.run.take() else { return Ok(()) };
        let len = range.end - range.start;
        if is_data {
            self.writer.data(GuestOffset(range.start), &self.buf)?;
            self.buf.clear();
            self.done.data.0 += len;
        } else {
            self.writer.zero(GuestRange::new(GuestOffset(range.start), Bytes(len)))?;
            self.done.zeros.0 += len;
        }
        Ok(())
    }
}
