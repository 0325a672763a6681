//! Flat extents: the bytes of the disk in files, with a descriptor beside them.

use super::content_id::ContentId;
use super::files::{Files, stem};
use super::text::{Line, Text, file_name};
use super::{SPLIT, sectors};
use crate::create::{Adapter, CreateOptions, Preallocation};
use crate::error::{Error, Result};
use crate::limits;
use crate::sink::{Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestRange, SECTOR_SIZE_BYTES};
use std::path::{Path, PathBuf};

/// Zeros are found in units of this: a file system's usual block.
const GRANULARITY: Bytes = Bytes::kib(4);

/// Into which files the disk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Monolithic,
    Split,
    Esxi,
}

struct Flat {
    files: Files,
    shape: Shape,
    /// Bytes of the disk in each file but the last.
    step: u64,
    sectors: u64,
    names: Vec<String>,
    id: ContentId,
    adapter: Adapter,
    preallocation: Preallocation,
    /// The files may hold what an interrupted run wrote.
    resumed: bool,
}

pub(super) fn create(
    path: &Path,
    size: Bytes,
    shape: Shape,
    options: &CreateOptions,
) -> Result<Box<dyn Sink>> {
    let stem = stem(file_name(path)?);
    let sectors = sectors(size);
    let len = sectors * SECTOR_SIZE_BYTES;
    let (step, names) = match shape {
        Shape::Monolithic | Shape::Esxi => (len, vec![format!("{stem}-flat.vmdk")]),
        Shape::Split => (SPLIT.0, split_names(path, stem, 'f', len.div_ceil(SPLIT.0))?),
    };
    let files = Files::described(path, names.iter().map(String::as_str), options.files)?;
    let flat = Flat {
        files,
        shape,
        step,
        sectors,
        names,
        id: ContentId::default(),
        adapter: options.adapter.unwrap_or_default(),
        preallocation: options.preallocation,
        resumed: options.files.resume,
    };
    for number in 0..flat.names.len() {
        let len = flat.file_len(number);
        if flat.preallocation == Preallocation::Falloc {
            flat.files.reserve(number, len)?;
        }
        flat.files.set_len(number, len)?;
    }
    if flat.resumed && len > size.0 {
        flat.cut(size.0, len, |file, at, part| flat.files.write_zeros(file, at, part))?;
    }
    Ok(Box::new(flat))
}

/// `NAME-s001.vmdk` and so on, as many as a reader takes.
pub(super) fn split_names(path: &Path, stem: &str, letter: char, count: u64) -> Result<Vec<String>> {
    if count > limits::VMDK_EXTENTS as u64 {
        return Err(Error::refused(format!(
            "the disk would be {count} files; the limit is {}",
            limits::VMDK_EXTENTS
        ))
        .in_file(path)
        .hint("choose vmdk, vmdk-flat or vmdk-stream, which are one file"));
    }
    Ok((1..=count).map(|number| format!("{stem}-{letter}{number:03}.vmdk")).collect())
}

impl Flat {
    fn file_len(&self, number: usize) -> u64 {
        let start = self.step.saturating_mul(number as u64);
        (self.sectors * SECTOR_SIZE_BYTES).saturating_sub(start).min(self.step)
    }

    /// Calls `each` with the file, the place in it and the length of every part of a run.
    fn cut(&self, start: u64, end: u64, mut each: impl FnMut(usize, u64, u64) -> Result<()>) -> Result<()> {
        let mut here = start;
        while here < end {
            let file = here / self.step;
            let part = ((file + 1).saturating_mul(self.step)).min(end) - here;
            each(usize::try_from(file).unwrap_or(usize::MAX), here % self.step, part)?;
            here += part;
        }
        Ok(())
    }
}

impl Sink for Flat {
    fn further_files(&self) -> Vec<PathBuf> {
        self.files.further()
    }

    fn granularity(&self) -> Bytes {
        GRANULARITY
    }

    fn place(&self, range: GuestRange, _pieces: &[Piece]) -> Result<Vec<Placed>> {
        let mut out = Vec::with_capacity(1);
        self.cut(range.start().0, range.end().0, |file, at, len| {
            let len =
                usize::try_from(len).map_err(|_| Error::refused("a run that does not fit into memory"))?;
            out.push(Placed { file, at: FileOffset(at), len });
            Ok(())
        })?;
        Ok(out)
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        let (start, end) = (range.start().0, range.end().0);
        match self.preallocation {
            Preallocation::Full => {
                self.cut(start, end, |file, at, len| self.files.write_zeros(file, at, len))
            }
            _ if self.resumed => {
                let keep_room = self.preallocation == Preallocation::Falloc;
                self.cut(start, end, |file, at, len| self.files.clear(file, at, len, keep_room))
            }
            _ => Ok(()),
        }
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.files.store(to, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.files.load(from, bytes)
    }

    fn identify(&self, digest: blake3::Hash) {
        self.id.set(digest);
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        let (create_type, kind, offset) = match self.shape {
            Shape::Monolithic => ("monolithicFlat", "FLAT", Some(0)),
            Shape::Split => ("twoGbMaxExtentFlat", "FLAT", Some(0)),
            Shape::Esxi => ("vmfs", "VMFS", None),
        };
        let line = |(number, name): (usize, &String)| Line {
            access: "RW",
            sectors: self.file_len(number) / SECTOR_SIZE_BYTES,
            kind,
            name: name.clone(),
            offset,
        };
        let extents: Vec<Line> = self.names.iter().enumerate().map(line).collect();
        let text = Text {
            create_type,
            cid: self.id.get(self.sectors),
            sectors: self.sectors,
            extents: &extents,
            thin: self.shape == Shape::Esxi && self.preallocation == Preallocation::Off,
            adapter: self.adapter,
        };
        self.files.finish(&text.render())
    }

    fn leave(&self) {
        self.files.leave();
    }
}
