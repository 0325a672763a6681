//! A part of the journal goes into the base.
//!
//! ```text
//! units that change in part -> fold (on the medium) -> whole units from the journal -> those from fold -> through (on the medium)
//! ```
//!
//! The file `fold`, little-endian; it is streamed both ways, so that memory does not grow with the units:
//!
//! ```text
//!  0  "LFFOLD01"  through:64  units:64  CRC-32C of the 24 before
//! 28  for each unit, by disk and place: disk:32  unit:64  content: 4 KiB  CRC-32C of all that
//! ```

use super::{Base, UNIT, UNIT_BYTES, has, index};
use crate::vault::journal::map::{Run, Source};
use crate::vault::storage::{Storage, StoredFile};
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LFFOLD01";
const HEAD: usize = 28;
/// Disk, unit, content, CRC-32C.
const PATCH: usize = 4 + 8 + UNIT_BYTES + 4;
/// Patches that are read or written at once: 1 MiB.
const AT_ONCE: usize = (1 << 20) / PATCH;

/// Reads a stored run: segment, place in it, buffer.
pub type ReadRun<'r> = dyn Fn(u64, u64, &mut [u8]) -> Result<()> + 'r;

/// A part of the journal that goes into the base: runs by disk, and how they are read.
pub struct Part<'p> {
    /// The last record of it.
    pub through: u64,
    /// What the disks hold after it, as far as it says.
    pub runs: &'p BTreeMap<u32, Vec<Run>>,
    /// Disks that the machine has no more: what the base has of them goes.
    pub gone: &'p [u32],
    /// How its runs are read.
    pub read: &'p ReadRun<'p>,
    /// Called with the bytes that were written since: to be slow on purpose. An error ends the work.
    pub pace: &'p dyn Fn(u64) -> Result<()>,
}

impl Base {
    /// Takes a part of the journal in. Points up to it are gone from the moment that this begins.
    ///
    /// # Errors
    /// As the storage's, and where a unit that changes in part is not what was written.
    pub fn fold(&self, part: &Part<'_>) -> Result<()> {
        self.write_patches(part)?;
        self.apply(part)
    }

    /// Does a fold again that was cut off.
    ///
    /// # Errors
    /// As [`fold`](Self::fold); corrupt where what it wrote down first is damaged: nothing is changed then.
    pub fn fold_again(&self, part: &Part<'_>) -> Result<()> {
        Patches::open(&*self.storage, &self.path("fold"))?.each(|_, _, _| Ok(()))?;
        self.apply(part)
    }

    /// Whole units of a disk, where some are not what their sums say: a fold that was cut off (the medium was full, the service was killed) may have
    /// written the content and not the sum. What such a unit is to hold was written down first.
    ///
    /// # Errors
    /// `error` where no fold was cut off, or it says nothing of the unit.
    pub(super) fn patched(
        &self,
        number: u32,
        disk: &super::Disk,
        range: Range<u64>,
        error: Error,
    ) -> Result<Vec<u8>> {
        if self.begun()?.is_none() {
            return Err(error);
        }
        let mut patches = BTreeMap::new();
        Patches::open(&*self.storage, &self.path("fold"))?.each(|of, unit, content| {
            if of == number && range.contains(&(unit * UNIT)) {
                patches.insert(unit, content.to_vec());
            }
            Ok(())
        })?;
        let mut units = Vec::with_capacity(index(range.end - range.start));
        for unit in range.start / UNIT..range.end.div_ceil(UNIT) {
            match (disk.read_units(unit * UNIT, (unit + 1) * UNIT), patches.get(&unit)) {
                (Ok(read), _) => units.extend(read),
                (Err(_), Some(patch)) => units.extend(patch),
                (Err(error), None) => return Err(error),
            }
        }
        Ok(units)
    }

    fn apply(&self, part: &Part<'_>) -> Result<()> {
        for (number, runs) in part.runs {
            let disk = self.disk_or_new(*number)?;
            for run in runs {
                let whole = run.range.start.next_multiple_of(UNIT)..run.range.end / UNIT * UNIT;
                if whole.is_empty() {
                    continue;
                }
                match run.source.skip(whole.start - run.range.start) {
                    Source::Zero => disk.zero(whole.start, whole.end)?,
                    Source::Stored { segment, at } => {
                        disk.write_from(whole, &|done, buf| (part.read)(segment, at + done, buf), part.pace)?;
                    }
                }
            }
        }
        Patches::open(&*self.storage, &self.path("fold"))?
            .each(|number, unit, content| self.disk_or_new(number)?.write(unit * UNIT, content))?;
        for number in part.runs.keys() {
            self.disk_or_new(*number)?.sync()?;
        }
        self.set_through(part.through, part.gone)?;
        part.gone.iter().try_for_each(|disk| self.forget(*disk))?;
        self.storage.remove(&self.path("fold"))
    }

    /// Writes down the units that change in part, as they will be.
    fn write_patches(&self, part: &Part<'_>) -> Result<()> {
        let mut writer = Writer::create(&*self.storage, &self.path("fold.new"))?;
        let mut content = vec![0; UNIT_BYTES];
        for (number, runs) in part.runs {
            // Runs come in their order, and so do the units: more than one run may change a part of the same.
            let mut unit = None;
            for run in runs {
                for range in edges(&run.range) {
                    let here = range.start / UNIT;
                    if unit != Some(here) {
                        if let Some(unit) = unit {
                            writer.push(*number, unit, &content)?;
                        }
                        unit = Some(here);
                        self.read(*number, here * UNIT, &mut content)?;
                    }
                    let inside =
                        index(range.start % UNIT)..index(range.start % UNIT + range.end - range.start);
                    match run.source.skip(range.start - run.range.start) {
                        Source::Zero => content[inside].fill(0),
                        Source::Stored { segment, at } => (part.read)(segment, at, &mut content[inside])?,
                    }
                }
            }
            if let Some(unit) = unit {
                writer.push(*number, unit, &content)?;
            }
        }
        writer.finish(part.through)?;
        self.storage.rename(&self.path("fold.new"), &self.path("fold"))?;
        self.storage.sync_dir(&self.dir)
    }
}

/// The record up to which a fold goes that was cut off; `None` where none was.
pub(super) fn begun(storage: &dyn Storage, dir: &str) -> Result<Option<u64>> {
    match has(storage, dir, "fold")? {
        true => Ok(Some(Patches::open(storage, &format!("{dir}/fold"))?.through)),
        false => Ok(None),
    }
}

/// The parts of a run that do not fill their unit: none, one or two.
fn edges(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let (first, last) = (range.start / UNIT * UNIT, range.end / UNIT * UNIT);
    let head = (range.start > first).then(|| range.start..range.end.min(first + UNIT));
    let tail_from = last.max(range.start);
    let has_tail = range.end > last && !(head.is_some() && first == last);
    head.into_iter().chain(has_tail.then_some(tail_from..range.end))
}

/// Writes the file.
struct Writer {
    file: Arc<dyn StoredFile>,
    at: u64,
    pending: Vec<u8>,
    count: u64,
}

impl Writer {
    fn create(storage: &dyn Storage, path: &str) -> Result<Writer> {
        storage.remove(path)?;
        Ok(Writer { file: storage.create(path)?, at: HEAD as u64, pending: Vec::new(), count: 0 })
    }

    fn push(&mut self, disk: u32, unit: u64, content: &[u8]) -> Result<()> {
        let from = self.pending.len();
        self.pending.extend_from_slice(&disk.to_le_bytes());
        self.pending.extend_from_slice(&unit.to_le_bytes());
        self.pending.extend_from_slice(content);
        let sum = crc32c::crc32c(&self.pending[from..]);
        self.pending.extend_from_slice(&sum.to_le_bytes());
        self.count += 1;
        if self.pending.len() >= AT_ONCE * PATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(self.at, &[&self.pending])?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self, through: u64) -> Result<()> {
        self.flush()?;
        let mut head = Vec::from(MAGIC.as_slice());
        head.extend_from_slice(&through.to_le_bytes());
        head.extend_from_slice(&self.count.to_le_bytes());
        head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
        self.file.write_at(0, &[&head])?;
        self.file.sync()
    }
}

/// Reads the file.
struct Patches {
    file: Arc<dyn StoredFile>,
    place: std::path::PathBuf,
    through: u64,
    count: u64,
}

impl Patches {
    fn open(storage: &dyn Storage, path: &str) -> Result<Patches> {
        let (file, place) = (storage.open(path)?, storage.place(path));
        let mut head = [0; HEAD];
        let patches = Patches { file, place, through: 0, count: 0 };
        patches.read(0, &mut head)?;
        match head[..8] == *MAGIC && crc32c::crc32c(&head[..24]).to_le_bytes() == head[24..] {
            true => Ok(Patches { through: le64(&head[8..16]), count: le64(&head[16..24]), ..patches }),
            false => Err(patches.damaged()),
        }
    }

    fn damaged(&self) -> Error {
        Error::corrupt("a fold that began cannot be read")
            .in_file(&self.place)
            .hint("copy the machine anew, or bring the file back from a copy of the vault")
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_at(at, buf).map_err(|error| {
            let is_short =
                error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof);
            if is_short { self.damaged() } else { error }
        })
    }

    /// Disk, unit and content of each, in their order.
    fn each(&self, mut work: impl FnMut(u32, u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut raw = Vec::new();
        let mut done = 0;
        while done < self.count {
            let now = (self.count - done).min(AT_ONCE as u64);
            raw.resize(index(now) * PATCH, 0);
            self.read(HEAD as u64 + done * PATCH as u64, &mut raw)?;
            for patch in raw.chunks(PATCH) {
                let (body, sum) = patch.split_at(PATCH - 4);
                if crc32c::crc32c(body).to_le_bytes() != *sum {
                    return Err(self.damaged());
                }
                let disk = u32::from_le_bytes(body[..4].try_into().unwrap_or_default());
                work(disk, le64(&body[4..12]), &body[12..])?;
            }
            done += now;
        }
        Ok(())
    }
}

fn le64(raw: &[u8]) -> u64 {
    raw.try_into().map_or(0, u64::from_le_bytes)
}
