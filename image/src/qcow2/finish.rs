//! The tables of a new image, made when all clusters are written: L2, reference counts, L1, header.

use super::entry::USED_ONCE;
use super::header::{self, NewHeader};
use super::write::{Layout, Run, RunPlace, Writer};
use crate::error::Result;
use crate::partial::PartialFile;
use crate::sink::Receipt;
use crate::units::{Bytes, FileOffset};
use std::sync::PoisonError;

/// Tables are gathered to writes of this size.
const WRITE_SIZE: usize = 1 << 20;

/// Completes the image and gives it its name.
pub(super) fn finish(mut writer: Writer) -> Result<Receipt> {
    let layout = writer.layout;
    let space = std::mem::take(writer.space.get_mut().unwrap_or_else(PoisonError::into_inner));
    let mut runs = space.runs;
    runs.sort_unstable_by_key(|run| run.guest_cluster);
    if let Some(pair) =
        runs.windows(2).find(|pair| pair[0].guest_cluster + pair[0].count > pair[1].guest_cluster)
    {
        return Err(writer.misused(format!("guest cluster {} was written twice", pair[1].guest_cluster)));
    }
    // The unused rest of the last region: given back where it lies at the end, else free clusters in the file.
    let unused_from = space.region_at.div_ceil(layout.cluster_size());
    let unused_to = space.region_end >> layout.cluster_bits;
    let (mut next, unused) =
        if unused_to == space.next { (unused_from, 0..0) } else { (space.next, unused_from..unused_to) };

    let file = &writer.file;
    let l1 = write_l2_tables(file, layout, &runs, &space.packed, &mut next)?;
    let mut packed = space.packed;
    packed.sort_unstable_by_key(|&entry| layout.packed_at(entry));
    let refcounts = write_refcounts(file, layout, &packed, unused, next)?;
    let l1_bytes: Vec<u8> = l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
    let l1_table = FileOffset(layout.cluster_size());
    file.write_all_at(l1_table, &l1_bytes)?;
    let head = header::build(&NewHeader {
        cluster_bits: layout.cluster_bits,
        size: Bytes(layout.size),
        // Both are bounded when the image is started.
        l1_entries: u32::try_from(l1.len()).unwrap_or(u32::MAX),
        l1_table,
        refcount_table: FileOffset(refcounts.table << layout.cluster_bits),
        refcount_table_clusters: u32::try_from(refcounts.table_clusters).unwrap_or(u32::MAX),
        compression: writer.compression,
    });
    file.write_all_at(FileOffset(0), &head)?;
    // The last cluster of each kind may be written in part only.
    file.set_len(Bytes((refcounts.table + refcounts.table_clusters) << layout.cluster_bits))?;
    let (path, allocated) = writer.file.commit()?;
    Ok(Receipt { files: vec![path], allocated })
}

/// Writes the L2 tables from the cluster `next` on, which it moves behind them. Returns the L1 table.
fn write_l2_tables(
    file: &PartialFile,
    layout: Layout,
    runs: &[Run],
    packed: &[u64],
    next: &mut u64,
) -> Result<Vec<u64>> {
    let mut l1 = vec![0u64; usize::try_from(layout.l1_entries).unwrap_or(usize::MAX)];
    let mut tables = Gathered::new(file, *next << layout.cluster_bits);
    let mut current: Option<u64> = None;
    for run in runs {
        for n in 0..run.count {
            let guest_cluster = run.guest_cluster + n;
            let l1_index = guest_cluster >> layout.l2_bits();
            if current != Some(l1_index) {
                tables.flush_if_full()?;
                tables.start_block(layout.cluster_size());
                if let Some(entry) = usize::try_from(l1_index).ok().and_then(|index| l1.get_mut(index)) {
                    *entry = USED_ONCE | *next << layout.cluster_bits;
                }
                *next += 1;
                current = Some(l1_index);
            }
            let entry = match run.place {
                RunPlace::Verbatim { cluster } => USED_ONCE | (cluster + n) << layout.cluster_bits,
                RunPlace::Packed { first } => {
                    let index = usize::try_from(n).ok().and_then(|n| first.checked_add(n));
                    index.and_then(|index| packed.get(index)).copied().unwrap_or(0)
                }
            };
            let index = guest_cluster & ((1 << layout.l2_bits()) - 1);
            tables.put(index * 8, &entry.to_be_bytes());
        }
    }
    tables.flush()?;
    Ok(l1)
}

/// Where the refcount table lies, in clusters.
struct Refcounts {
    table: u64,
    table_clusters: u64,
}

/// Counts the references to every cluster and writes the counts behind the cluster `used`, then their table.
///
/// Every cluster is referenced once, but for those `unused`, and those that packed clusters share.
fn write_refcounts(
    file: &PartialFile,
    layout: Layout,
    packed: &[u64],
    unused: std::ops::Range<u64>,
    used: u64,
) -> Result<Refcounts> {
    // The counts are counted, too.
    let per_block = 1u64 << layout.refcounts_bits();
    let (mut blocks, mut table_clusters) = (0, 0);
    loop {
        let total = used + blocks + table_clusters;
        let needed = total.div_ceil(per_block);
        let needed_table = (needed * 8).div_ceil(layout.cluster_size());
        if (needed, needed_table) == (blocks, table_clusters) {
            break;
        }
        (blocks, table_clusters) = (needed, needed_table);
    }
    let total = used + blocks + table_clusters;

    // Clusters that packed clusters touch, in rising order, once for each that touches them.
    let mut touches = packed.iter().flat_map(|&entry| layout.packed_clusters(entry)).peekable();
    let mut last_touched = 0;
    let mut counts = Gathered::new(file, used << layout.cluster_bits);
    for block in 0..blocks {
        counts.flush_if_full()?;
        counts.start_block(layout.cluster_size());
        let first = block * per_block;
        let end = total.min(first + per_block);
        for cluster in (first..end).filter(|cluster| !unused.contains(cluster)) {
            counts.put((cluster - first) * 2, &1u16.to_be_bytes());
        }
        let mut count = 1u16;
        while let Some(cluster) = touches.next_if(|&cluster| cluster < first + per_block) {
            if cluster == last_touched {
                // The smallest frames of the largest cluster: 2 MiB / 64 bytes are half of what 16 bits count.
                count = count.saturating_add(1);
                counts.put((cluster - first) * 2, &count.to_be_bytes());
            } else {
                (last_touched, count) = (cluster, 1);
            }
        }
    }
    counts.flush()?;

    let table = used + blocks;
    let entries: Vec<u8> =
        (used..table).flat_map(|block| (block << layout.cluster_bits).to_be_bytes()).collect();
    file.write_all_at(FileOffset(table << layout.cluster_bits), &entries)?;
    Ok(Refcounts { table, table_clusters })
}

/// Blocks that lie one behind the other in the file, gathered to large writes.
struct Gathered<'a> {
    file: &'a PartialFile,
    at: u64,
    bytes: Vec<u8>,
    /// Where the newest block starts.
    block: usize,
}

impl<'a> Gathered<'a> {
    fn new(file: &'a PartialFile, at: u64) -> Self {
        Gathered { file, at, bytes: Vec::new(), block: 0 }
    }

    /// Appends a block of zeros.
    fn start_block(&mut self, len: u64) {
        self.block = self.bytes.len();
        self.bytes.resize(self.block + usize::try_from(len).unwrap_or(usize::MAX), 0);
    }

    /// Puts `value` at `at` of the newest block, inside of it.
    fn put(&mut self, at: u64, value: &[u8]) {
        let start = self.block + usize::try_from(at).unwrap_or(usize::MAX);
        self.bytes[start..start + value.len()].copy_from_slice(value);
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.bytes.len() >= WRITE_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all_at(FileOffset(self.at), &self.bytes)?;
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}
