//! Reads compressed grains (streamOptimized).
//!
//! ```text
//! grain marker: lba 0 (u64, first guest sector) | size 8 (u32, bytes of data) | data 12: one zlib stream
//! ```
//! A marker must name the grain that was asked for, and the stream (which has a checksum) must fill the grain:
//! a wrong table entry cannot pass as data. Whole grains go straight to the reader's buffer; grains that are
//! read in parts are kept, so that small sequential reads inflate each grain once.

use super::sparse::{Grain, Sparse, Tables};
use crate::error::Result;
use crate::units::{FileOffset, GuestOffset, SECTOR_SIZE_BYTES};
use libdeflater::{DecompressionError, Decompressor};
use std::cell::RefCell;
use std::sync::Arc;

pub(super) const MARKER_BYTES: usize = 12;
/// Grains that lie behind each other are fetched together, up to about this many bytes.
const BATCH_BYTES: u64 = 1 << 20;

/// What a thread keeps between reads.
struct Scratch {
    decompressor: Decompressor,
    compressed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { decompressor: Decompressor::new(), compressed: Vec::new() });
}

impl Sparse {
    /// Fills `buf` from `at`; the range lies inside the extent.
    pub(super) fn read_compressed(&self, at: GuestOffset, buf: &mut [u8], markers: bool) -> Result<()> {
        let grain = self.layout.grain.0;
        let end = at.0 + buf.len() as u64;
        let last = end.div_ceil(grain);
        let mut tables = self.tables();
        let mut index = at.0 / grain;
        while index < last {
            match tables.grain(index)? {
                Grain::Stored(_) => {
                    // Only grains that are read in parts are kept.
                    let in_part = index * grain < at.0 || (index + 1) * grain > end;
                    if in_part && let Some(whole) = self.caches.grains.get((self.number(), index)) {
                        copy_part(&whole, index * grain, at, buf);
                        index += 1;
                        continue;
                    }
                    let batch = self.batch(&mut tables, index, last)?;
                    self.read_batch(index, &batch, at, buf, markers)?;
                    index += batch.starts.len() as u64;
                }
                Grain::Zero | Grain::Unallocated => {
                    target(index * grain, grain, at, buf).fill(0);
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// Bytes that a grain's marker and data can take: deflate never doubles its input.
    fn record_bytes(&self) -> u64 {
        MARKER_BYTES as u64 + 2 * self.layout.grain.0
    }

    /// The stored grains from `first` on, up to `last`, that lie behind each other in the file.
    fn batch(&self, tables: &mut Tables<'_>, first: u64, last: u64) -> Result<Batch> {
        let gap = self.record_bytes() + SECTOR_SIZE_BYTES;
        let mut starts: Vec<u64> = Vec::new();
        let mut index = first;
        loop {
            // The grain behind the batch is only asked for where the last one ends.
            let next = if index < self.grains() { tables.grain(index)? } else { Grain::Unallocated };
            let follows = match (next, starts.last(), starts.first()) {
                (Grain::Stored(at), Some(&before), _) if at <= before || at - before > gap => None,
                (Grain::Stored(at), ..) => Some(at),
                _ => None,
            };
            let full = starts.first().zip(follows).is_some_and(|(first, at)| at - first > BATCH_BYTES);
            match follows {
                Some(at) if index < last && !full => starts.push(at),
                Some(at) => return Ok(Batch { starts, end: at }),
                None => {
                    let end = starts.last().map_or(0, |before| before.saturating_add(self.record_bytes()));
                    return Ok(Batch { starts, end });
                }
            }
            index += 1;
        }
    }

    fn read_batch(
        &self,
        first: u64,
        batch: &Batch,
        at: GuestOffset,
        buf: &mut [u8],
        markers: bool,
    ) -> Result<()> {
        let Some(&start) = batch.starts.first() else { return Ok(()) };
        let grain = self.layout.grain.0;
        SCRATCH.with_borrow_mut(|Scratch { decompressor, compressed }| {
            let end = batch.end.min(self.source.len().0);
            let fetched = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
            if compressed.len() < fetched {
                compressed.resize(fetched, 0);
            }
            let compressed = &mut compressed[..fetched];
            self.source.read_exact_at(FileOffset(start), compressed)?;
            for (index, &lies_at) in (first..).zip(&batch.starts) {
                let from = usize::try_from(lies_at - start).unwrap_or(usize::MAX);
                let record = compressed.get(from..).unwrap_or_default();
                let longer;
                let data = if markers {
                    let len = self.marker(index, lies_at, record)?;
                    match record.get(MARKER_BYTES..MARKER_BYTES + len) {
                        Some(data) => data,
                        // The grain behind it lies closer than this one is long: not read far enough.
                        None => {
                            let mut all = vec![0; len];
                            self.source.read_exact_at(FileOffset(lies_at + MARKER_BYTES as u64), &mut all)?;
                            longer = all;
                            &longer
                        }
                    }
                } else {
                    self.check_data(index, lies_at, 1)?;
                    record
                };
                let guest = index * grain;
                let stored = grain.min(self.layout.size.0 - guest);
                let part = target(guest, grain, at, buf);
                let broken = |what: &str| {
                    self.source
                        .corrupt(format!("grain {index}, {} bytes compressed, {what}", data.len()))
                        .at(FileOffset(lies_at))
                        .hint("the file is damaged: copy it again from its origin and compare the checksums")
                };
                if part.len() as u64 == grain {
                    inflate(decompressor, data, part, part_len(grain)).map_err(broken)?;
                } else {
                    let mut whole = vec![0; part_len(grain)];
                    inflate(decompressor, data, &mut whole, part_len(stored)).map_err(broken)?;
                    copy_part(&whole, guest, at, buf);
                    self.caches.grains.insert((self.number(), index), Arc::from(whole));
                }
            }
            Ok(())
        })
    }

    /// Checks the marker at the start of `record`, which was read from `at`; returns the length of its data.
    pub(super) fn marker(&self, index: u64, at: u64, record: &[u8]) -> Result<usize> {
        self.check_data(index, at, MARKER_BYTES as u64)?;
        let corrupt = |says: String| self.source.corrupt(says).at(FileOffset(at));
        let (Some(lba), Some(size)) = (
            record.first_chunk::<8>().map(|raw| u64::from_le_bytes(*raw)),
            record.get(8..12).and_then(|raw| raw.first_chunk::<4>()).map(|raw| u32::from_le_bytes(*raw)),
        ) else {
            return Err(corrupt(format!("the marker of grain {index} is cut off")));
        };
        let wanted = index * (self.layout.grain.0 / SECTOR_SIZE_BYTES);
        if size == 0 {
            return Err(corrupt(format!("there is another marker where that of grain {index} should be")));
        }
        if lba != wanted {
            return Err(corrupt(format!(
                "the grain marker is of sector {lba:#x}; the grain table wants {wanted:#x} here"
            )));
        }
        if u64::from(size) > self.record_bytes() - MARKER_BYTES as u64 {
            return Err(corrupt(format!(
                "grain {index} takes {size} bytes compressed; a grain is {} bytes",
                self.layout.grain.0
            )));
        }
        self.check_data(index, at, MARKER_BYTES as u64 + u64::from(size))?;
        Ok(size as usize)
    }
}

/// Grains that are fetched with one read.
struct Batch {
    /// Where each grain starts in the file, rising.
    starts: Vec<u64>,
    /// Where the last one ends at the latest.
    end: u64,
}

/// Inflates a zlib stream that holds at least `wanted` bytes and no more than `out` takes.
fn inflate(with: &mut Decompressor, data: &[u8], out: &mut [u8], wanted: usize) -> Result<(), &'static str> {
    match with.zlib_decompress(data, out) {
        Ok(len) if len >= wanted => Ok(()),
        Ok(_) => Err("inflates to less than a grain"),
        Err(DecompressionError::BadData) => Err("cannot be inflated"),
        Err(DecompressionError::InsufficientSpace) => Err("inflates to more than a grain"),
    }
}

fn part_len(bytes: u64) -> usize {
    // A compressed grain is bounded by limits::VMDK_COMPRESSED_GRAIN.
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The part of `buf` (guest bytes from `at`) that the grain at `guest` covers.
fn target(guest: u64, grain: u64, at: GuestOffset, buf: &mut [u8]) -> &mut [u8] {
    let len = buf.len() as u64;
    let start = guest.saturating_sub(at.0).min(len);
    let end = (guest + grain).saturating_sub(at.0).min(len);
    buf.get_mut(part_len(start)..part_len(end)).unwrap_or_default()
}

/// Copies what `buf` (guest bytes from `at`) wants of `whole`, the grain at `guest`.
fn copy_part(whole: &[u8], guest: u64, at: GuestOffset, buf: &mut [u8]) {
    let skip = part_len(at.0.saturating_sub(guest));
    let part = target(guest, whole.len() as u64, at, buf);
    if let Some(from) = whole.get(skip..).and_then(|rest| rest.get(..part.len())) {
        part.copy_from_slice(from);
    }
}
