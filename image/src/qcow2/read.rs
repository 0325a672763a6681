//! One qcow2 layer as a disk.

use super::cache::Cache;
use super::codec::Expander;
use super::entry::{Geometry, Packed, Place};
use super::open::L1Table;
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::Result;
use crate::limits;
use crate::luks::{self, SectorCipher};
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange, SECTOR_SIZE_BYTES};
use std::sync::Arc;

/// L2 tables are read in pieces of this size (a table of 2 MiB clusters would be 2 MiB).
const SLICE_SIZE: u64 = 64 << 10;

/// Slices of L2 tables that one call looks at before it answers with what it has.
const SLICES_PER_CALL: usize = 64;

/// Compressed clusters that lie in a row are fetched in reads of up to this, for each reading thread.
const PACKED_READ: u64 = 512 << 10;

/// Stored runs of this length and more are searched for holes of the file, which read as zeros for free.
const HOLES_FROM: u64 = 1 << 20;

/// What a reader reads from.
pub(super) struct Parts {
    pub source: Source,
    /// Where data clusters lie: the image itself, or an external data file.
    pub data: Source,
    pub geometry: Geometry,
    /// Decrypts what lies verbatim; sectors are numbered by their place in the file.
    pub cipher: Option<SectorCipher>,
    pub expander: Expander,
}

pub(super) struct Reader {
    source: Source,
    data: Source,
    geometry: Geometry,
    cipher: Option<SectorCipher>,
    expander: Expander,
    size: u64,
    /// Offsets of L2 tables, checked; 0 where there is none. Exactly as many as the disk needs.
    l1: Vec<u64>,
    slices: Cache<u64>,
    clusters: Cache<u8>,
}

/// A run of guest bytes of one kind.
#[derive(Clone, Copy, Debug)]
struct Run {
    len: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Unallocated,
    Zero,
    /// Verbatim in the data file from there on.
    Stored {
        at: u64,
    },
    /// Part of one compressed cluster.
    Compressed(Packed),
}

impl Run {
    /// This run and the one behind it as one, where they are.
    fn join(self, next: Run) -> Option<Run> {
        let joins = match (self.what, next.what) {
            (What::Unallocated, What::Unallocated) | (What::Zero, What::Zero) => true,
            (What::Stored { at }, What::Stored { at: next }) => at.checked_add(self.len) == Some(next),
            _ => false,
        };
        joins.then_some(Run { len: self.len + next.len, what: self.what })
    }
}

impl Reader {
    /// `l1` holds the big-endian L1 table that lies at `table`, as far as the disk needs it; every entry is checked
    /// here.
    pub fn new(parts: Parts, table: L1Table, l1: &[u8]) -> Result<Reader> {
        let Parts { source, data, geometry, cipher, expander } = parts;
        let l1_table = table.at;
        let mut tables = Vec::with_capacity(l1.len() / 8);
        for (index, entry) in l1.as_chunks::<8>().0.iter().enumerate() {
            let here = FileOffset(l1_table.0 + index as u64 * 8);
            let table =
                geometry.l1(u64::from_be_bytes(*entry)).map_err(|says| source.corrupt(says).at(here))?;
            if let Some(table) = table
                && table.checked_add(geometry.cluster_size()).is_none_or(|end| end > source.len().0)
            {
                let end = source.len().0;
                return Err(source
                    .corrupt(format!("L1 entry {index} points at {table:#x}; the file ends at {end:#x}"))
                    .at(here)
                    .hint("the image is cut off: copy it again from its origin and compare the sizes"));
            }
            let l1_end = l1_table.0 + l1.len() as u64;
            if table.is_some_and(|table| (l1_table.0..l1_end).contains(&table)) {
                return Err(source
                    .corrupt(format!("L1 entry {index} points into the L1 table itself"))
                    .at(here));
            }
            tables.push(table.unwrap_or(0));
        }
        // One table for two places makes a small file a disk of any size; nothing sound writes that.
        let mut sorted: Vec<u64> = tables.iter().copied().filter(|&table| table != 0).collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(source
                .corrupt(format!("two L1 entries point at the same L2 table at {:#x}", pair[0]))
                .at(l1_table));
        }
        let slice_size = SLICE_SIZE.min(geometry.cluster_size());
        Ok(Reader {
            source,
            data,
            geometry,
            cipher,
            expander,
            size: table.size.0,
            l1: tables,
            slices: Cache::new(limits::TABLE_CACHE.0, slice_size),
            clusters: Cache::new(limits::CLUSTER_CACHE.0, geometry.cluster_size()),
        })
    }

    /// A walk over the tables, for one call.
    fn walk(&self) -> Walk<'_> {
        Walk { reader: self, slice: None }
    }

    /// The rest of the cluster or subcluster at `at`, up to `end`, from the slice that describes it.
    fn unit_run(&self, slice: &Slice, at: u64, end: u64) -> Result<Run> {
        let geometry = self.geometry;
        let index = (at >> geometry.cluster_bits) - slice.first_cluster;
        let entry_at = FileOffset(slice.at + (index << geometry.l2_entry_bits()));
        let slice = &slice.entries;
        let word = usize::try_from(index << (geometry.l2_entry_bits() - 3)).unwrap_or(usize::MAX);
        // The slice is as long as its clusters need; zeros stand for what cannot be missing.
        let entry = slice.get(word).copied().unwrap_or(0);
        let bitmap =
            if geometry.extended_l2 { slice.get(word.saturating_add(1)).copied().unwrap_or(0) } else { 0 };
        let corrupt =
            |says: String| self.source.corrupt(format!("{says} (guest offset {at:#x})")).at(entry_at);
        let place = geometry.l2(entry, bitmap, at).map_err(corrupt)?;

        let cluster_end = (at | (geometry.cluster_size() - 1)).saturating_add(1);
        let unit_end = match place {
            Place::Compressed(_) => cluster_end,
            _ => (at | ((1 << geometry.unit_bits()) - 1)).saturating_add(1),
        };
        let len = unit_end.min(end) - at;
        let what = match place {
            Place::Unallocated => What::Unallocated,
            Place::Zero => What::Zero,
            Place::Stored { cluster_at } => {
                let stored_at = cluster_at + (at & (geometry.cluster_size() - 1));
                // The last cluster of a file may be cut behind the disk's end, but not what the guest sees of it.
                let visible = unit_end.min(self.size) - at;
                if stored_at.checked_add(visible).is_none_or(|stored_end| stored_end > self.data.len().0) {
                    let (path, file_end) = (self.data.path().display(), self.data.len().0);
                    return Err(corrupt(format!(
                        "L2 entry {entry:#018x} points at {stored_at:#x}; the data file {path} ends at {file_end:#x}"
                    ))
                    .hint("the image is cut off: copy it again from its origin and compare the sizes"));
                }
                What::Stored { at: stored_at }
            }
            Place::Compressed(packed) => {
                // The count is in sectors; the file may end inside the last one.
                let file_end = self.source.len().0;
                let packed_end = packed.at.saturating_add(packed.len);
                if packed.at >= file_end || packed_end - file_end.min(packed_end) >= SECTOR_SIZE_BYTES {
                    return Err(corrupt(format!(
                        "L2 entry {entry:#018x} points at compressed bytes up to {packed_end:#x}; the file ends at {file_end:#x}"
                    ))
                    .hint("the image is cut off: copy it again from its origin and compare the sizes"));
                }
                What::Compressed(Packed { at: packed.at, len: packed.len.min(file_end - packed.at) })
            }
        };
        Ok(Run { len, what })
    }

    /// A part of an L2 table.
    fn slice(&self, at: u64, len: u64) -> Result<Arc<[u64]>> {
        self.slices.get(at, || {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            self.source.read_exact_at(FileOffset(at), &mut bytes)?;
            Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
        })
    }

    /// Reads the part of the compressed cluster around `at` that `out` covers, by way of the cache.
    fn read_part(&self, packed: Packed, at: u64, out: &mut [u8]) -> Result<()> {
        let cluster_size = self.geometry.cluster_size();
        let cluster = self.clusters.get(packed.at, || {
            let mut cluster = vec![0; usize::try_from(cluster_size).unwrap_or(usize::MAX)];
            let whole = PackedCluster { packed, guest: at, out: &mut cluster };
            self.expand(vec![whole])?;
            Ok(cluster.into())
        })?;
        let start = usize::try_from(at & (cluster_size - 1)).unwrap_or(usize::MAX);
        match start.checked_add(out.len()).and_then(|end| cluster.get(start..end)) {
            Some(part) => out.copy_from_slice(part),
            // A run of a compressed cluster never passes the cluster's end.
            None => return Err(self.source.corrupt("a read passes the end of its compressed cluster")),
        }
        Ok(())
    }

    /// Fetches clusters that lie in a row with one read and expands them straight to where they are wanted.
    fn expand(&self, clusters: Vec<PackedCluster<'_>>) -> Result<()> {
        let Some((first, last)) = clusters.first().zip(clusters.last()) else { return Ok(()) };
        let start = first.packed.at;
        let len = usize::try_from(last.packed.at + last.packed.len - start).unwrap_or(usize::MAX);
        self.expander.with(|tool| {
            self.source.read_exact_at(FileOffset(start), tool.room(len))?;
            for PackedCluster { packed, guest, out } in clusters {
                let from = usize::try_from(packed.at - start).unwrap_or(usize::MAX);
                let to = from.saturating_add(usize::try_from(packed.len).unwrap_or(usize::MAX));
                tool.expand(from..to, out).map_err(|error| {
                    error.in_file(self.source.path()).at(FileOffset(packed.at)).hint(format!(
                        "the cluster at guest offset {:#x} is damaged; copy the image again from its origin",
                        guest & !(self.geometry.cluster_size() - 1)
                    ))
                })?;
            }
            Ok(())
        })?
    }
}

/// A whole compressed cluster, and where its content goes.
struct PackedCluster<'a> {
    packed: Packed,
    guest: u64,
    out: &'a mut [u8],
}

/// One call's way through the L2 tables: keeps the slice that it looked at last, so that the cache is asked once for
/// many clusters.
struct Walk<'a> {
    reader: &'a Reader,
    slice: Option<Slice>,
}

/// A slice of an L2 table: it describes the clusters from `first_cluster` on.
struct Slice {
    first_cluster: u64,
    at: u64,
    entries: Arc<[u64]>,
}

impl Walk<'_> {
    /// The longest run from `at`, up to `end`, that is known after looking at a few slices of L2 tables.
    /// `at` lies before `end`, which does not pass the disk's end.
    fn run(&mut self, at: u64, end: u64) -> Result<Run> {
        let mut run = self.slice_run(at, end)?;
        let mut slices = 1;
        while at + run.len < end && slices < SLICES_PER_CALL {
            // What is wrong further on is told to whoever asks for it.
            let Some(joined) = self.slice_run(at + run.len, end).ok().and_then(|next| run.join(next)) else {
                break;
            };
            run = joined;
            slices += 1;
        }
        Ok(run)
    }

    /// A run from `at` within one slice of an L2 table, or over all absent tables in a row.
    fn slice_run(&mut self, at: u64, end: u64) -> Result<Run> {
        let reader = self.reader;
        let span_bits = reader.geometry.l1_span_bits();
        let index = usize::try_from(at >> span_bits).unwrap_or(usize::MAX);
        let from_here = reader.l1.get(index..).unwrap_or_default();
        let Some(&table) = from_here.first().filter(|&&table| table != 0) else {
            let absent = from_here.iter().take_while(|&&table| table == 0).count();
            // Past the table's end lies only the disk's end.
            let covered = (index as u64).saturating_add(absent as u64);
            let covered = covered.saturating_mul(1 << span_bits).max(at + 1);
            let len = if absent == from_here.len() { end - at } else { covered.min(end) - at };
            return Ok(Run { len, what: What::Unallocated });
        };
        let slice_size = SLICE_SIZE.min(reader.geometry.cluster_size());
        let entry_bits = reader.geometry.l2_entry_bits();
        let cluster_bits = reader.geometry.cluster_bits;
        let slice_entries = slice_size >> entry_bits;
        let first_cluster = (at >> cluster_bits) & !(slice_entries - 1);
        let slice = match &mut self.slice {
            Some(slice) if slice.first_cluster == first_cluster => &*slice,
            other => {
                let entry_index = first_cluster & ((1 << reader.geometry.l2_bits()) - 1);
                let slice_at = table + (entry_index << entry_bits);
                let entries = reader.slice(slice_at, slice_size)?;
                &*other.insert(Slice { first_cluster, at: slice_at, entries })
            }
        };
        let end = end.min((first_cluster + slice_entries) << cluster_bits);

        let mut run = reader.unit_run(slice, at, end)?;
        // Nothing joins a compressed cluster.
        while at + run.len < end && !matches!(run.what, What::Compressed(_)) {
            let Ok(next) = reader.unit_run(slice, at + run.len, end) else { break };
            let Some(joined) = run.join(next) else { break };
            run = joined;
        }
        Ok(run)
    }
}

impl Disk for Reader {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let end = range.end().0;
        let mut here = range.start().0;
        let mut walk = self.walk();
        let mut out: Vec<Extent> = Vec::new();
        // Short runs (compressed clusters) merge to long extents; a call ends after many of them in any case.
        for _ in 0..SLICES_PER_CALL * 128 {
            if here >= end {
                break;
            }
            let run = match walk.run(here, end) {
                Ok(run) => run,
                Err(error) if out.is_empty() => return Err(error),
                Err(_) => break,
            };
            let run_range = GuestRange::new(GuestOffset(here), Bytes(run.len));
            let found = match run.what {
                What::Unallocated => vec![Extent { range: run_range, kind: ExtentKind::Unallocated }],
                What::Zero => vec![Extent { range: run_range, kind: ExtentKind::Zero }],
                // Holes in what is encrypted are no zeros to the guest.
                What::Stored { at } if run.len >= HOLES_FROM && self.cipher.is_none() => {
                    crate::raw::file_extents(&self.data, FileOffset(at), run_range, at_most.max(1))?
                }
                What::Stored { .. } | What::Compressed(_) => {
                    vec![Extent { range: run_range, kind: ExtentKind::Data }]
                }
            };
            for extent in found {
                let full = out.len() >= at_most.max(1);
                match out.last_mut() {
                    Some(last) if last.kind == extent.kind => {
                        last.range = GuestRange::between(last.range.start(), extent.range.end());
                    }
                    _ if full => return Ok(out),
                    _ => out.push(extent),
                }
                here = extent.range.end().0;
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        let (mut here, end) = (at.0, at.0 + buf.len() as u64);
        let mut rest = buf;
        let mut walk = self.walk();
        // Whole compressed clusters that lie in a row.
        let mut row: Vec<PackedCluster<'_>> = Vec::new();
        while !rest.is_empty() {
            let run = walk.run(here, end)?;
            let len = usize::try_from(run.len).unwrap_or(usize::MAX).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            match run.what {
                What::Unallocated | What::Zero => part.fill(0),
                What::Stored { at } => match &self.cipher {
                    None => self.data.read_exact_at(FileOffset(at), part)?,
                    Some(cipher) => luks::read_decrypted(&self.data, cipher, at, part, 0)?,
                },
                What::Compressed(packed) if part.len() as u64 == self.geometry.cluster_size() => {
                    let goes_on = row.first().zip(row.last()).is_some_and(|(first, last)| {
                        (last.packed.at..=last.packed.at + last.packed.len).contains(&packed.at)
                            && packed.at + packed.len >= last.packed.at + last.packed.len
                            && packed.at + packed.len - first.packed.at <= PACKED_READ
                    });
                    if !goes_on {
                        self.expand(std::mem::take(&mut row))?;
                    }
                    row.push(PackedCluster { packed, guest: here, out: part });
                }
                What::Compressed(packed) => self.read_part(packed, here, part)?,
            }
            here += run.len;
            rest = behind;
        }
        self.expand(row)
    }
}
