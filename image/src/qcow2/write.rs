//! Writing a new image: places in the order of the disk, bytes from many threads at once.
//!
//! ```text
//! | header | L1 table | clusters as they come: verbatim, or regions of packed bytes | L2 tables | refcounts |
//! ```
//!
//! Tables are made when all is placed (`finish.rs`): until then 32 bytes stand for a run of verbatim clusters and 8 bytes for
//! a compressed one, so that an empty disk of any size takes no memory.

use super::codec::Packer;
use super::entry::COMPRESSED;
use super::header::CLUSTER_BITS;
use crate::create::{Compression, CreateOptions, Takes};
use crate::error::{Error, Result};
use crate::limits;
use crate::partial::PartialFile;
use crate::sink::{Encoded, Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestRange, SECTOR_SIZE_BYTES};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Space for packed clusters is taken in pieces of this size, so that verbatim clusters in between do not leave gaps.
const REGION: u64 = 1 << 20;

/// Starts the image that will be `path`, for a disk of `size`.
///
/// QEMU knows disks of whole 512-byte sectors only: the image's disk is `size` rounded up to that, and reads as
/// zeros in what was added.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) for a cluster size or level that does not exist, a disk that such
/// clusters cannot hold, and whatever [`PartialFile::create`] refuses; [`Kind::Io`](crate::Kind::Io).
pub fn create(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    let takes = Takes {
        compression: &[Compression::Zlib, Compression::Zstd],
        block_size: Some((1 << CLUSTER_BITS.start(), 1 << CLUSTER_BITS.end())),
        ..Takes::default()
    };
    options.check(path, "qcow2", &takes)?;
    let cluster_size = options.block_size.unwrap_or(Bytes::kib(64));
    let layout = Layout::new(size, cluster_size).map_err(|error| error.in_file(path))?;
    let packer =
        options.compression.map(|compression| Packer::new(compression, options.level)).transpose()?;
    let file = PartialFile::create(path, options.files)?;
    let space = Space { next: layout.first_cluster(), ..Space::default() };
    Ok(Box::new(Writer {
        file,
        layout,
        packer,
        compression: options.compression.unwrap_or(Compression::Zlib),
        space: Mutex::new(space),
    }))
}

/// The numbers of an image: what follows from the disk's size and the cluster size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub cluster_bits: u32,
    /// What the sink is given.
    pub given: u64,
    /// What the header says.
    pub size: u64,
    pub l1_entries: u64,
}

/// QEMU refuses larger ones.
const L1_TABLE: u64 = 32 << 20;
const REFCOUNT_TABLE: u64 = 8 << 20;

impl Layout {
    fn new(size: Bytes, cluster_size: Bytes) -> Result<Layout> {
        let cluster_bits = cluster_size.0.trailing_zeros();
        if !cluster_size.0.is_power_of_two() || !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Error::refused(format!(
                "clusters of {} bytes; powers of two from 512 to 2097152 are possible",
                cluster_size.0
            )));
        }
        if size > limits::DISK_SIZE {
            return Err(Error::refused(format!("a disk of {size}; the limit is {}", limits::DISK_SIZE)));
        }
        let rounded = size.0.next_multiple_of(SECTOR_SIZE_BYTES);
        let mut layout = Layout { cluster_bits, given: size.0, size: rounded, l1_entries: 0 };
        // QEMU always has at least one.
        layout.l1_entries = rounded.div_ceil(1 << (cluster_bits + layout.l2_bits())).max(1);
        // Tables take up to a thirty-second of what they describe; gaps between packed clusters take less.
        let at_most = rounded + rounded / 16 + (16 << 20);
        let counted = (REFCOUNT_TABLE / 8) << (layout.refcounts_bits() + cluster_bits);
        if layout.l1_entries * 8 > L1_TABLE || at_most > counted {
            return Err(Error::refused(format!(
                "a disk of {size} is too large for clusters of {cluster_size}"
            ))
            .hint("choose a larger cluster size; 64 KiB is usual"));
        }
        Ok(layout)
    }

    pub fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }
    /// Entries of an L2 table, as a power of two.
    pub fn l2_bits(self) -> u32 {
        self.cluster_bits - 3
    }
    /// 16-bit reference counts in a cluster, as a power of two.
    pub fn refcounts_bits(self) -> u32 {
        self.cluster_bits - 1
    }
    /// The first cluster behind the header and the L1 table.
    fn first_cluster(self) -> u64 {
        1 + (self.l1_entries * 8).div_ceil(self.cluster_size())
    }
    fn clusters(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }
    /// The lowest bit of the sector count in a compressed entry.
    fn sectors_shift(self) -> u32 {
        62 - (self.cluster_bits - 8)
    }
    /// The L2 entry of a compressed cluster: its offset, and the 512-byte sectors that it touches behind the first.
    fn packed_entry(self, at: u64, len: u32) -> u64 {
        let last = at + u64::from(len) - 1;
        let more_sectors = last / SECTOR_SIZE_BYTES - at / SECTOR_SIZE_BYTES;
        COMPRESSED | more_sectors << self.sectors_shift() | at
    }
    /// The offset in such an entry.
    pub fn packed_at(self, entry: u64) -> u64 {
        entry & ((1 << self.sectors_shift()) - 1)
    }
    /// The clusters of the file that such an entry touches, first and last.
    pub fn packed_clusters(self, entry: u64) -> std::ops::RangeInclusive<u64> {
        let first_sector = self.packed_at(entry) / SECTOR_SIZE_BYTES;
        let last_sector = first_sector + ((entry & (COMPRESSED - 1)) >> self.sectors_shift());
        let to_cluster = self.cluster_bits - SECTOR_SIZE_BYTES.trailing_zeros();
        first_sector >> to_cluster..=last_sector >> to_cluster
    }
}

/// A run of guest clusters that is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub guest_cluster: u64,
    pub count: u64,
    pub place: RunPlace,
}

/// Where a run lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum RunPlace {
    /// Verbatim, from that cluster of the file on.
    Verbatim { cluster: u64 },
    /// Compressed: its L2 entries in [`Space::packed`], from that index on.
    Packed { first: usize },
}

/// What is taken of the file, and by what.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// The first cluster that is not taken.
    pub next: u64,
    /// The free rest of the newest region for packed clusters.
    pub region_at: u64,
    pub region_end: u64,
    pub runs: Vec<Run>,
    /// L2 entries of compressed clusters.
    pub packed: Vec<u64>,
}

impl Space {
    /// Takes `count` clusters in a row for guest clusters that lie verbatim. Returns the first one.
    fn take(&mut self, guest_cluster: u64, count: u64) -> u64 {
        let cluster = self.next;
        self.next += count;
        match self.runs.last_mut() {
            Some(Run {
                guest_cluster: first,
                count: so_far,
                place: RunPlace::Verbatim { cluster: start },
            }) if *first + *so_far == guest_cluster && *start + *so_far == cluster => {
                *so_far += count;
            }
            _ => self.runs.push(Run { guest_cluster, count, place: RunPlace::Verbatim { cluster } }),
        }
        cluster
    }

    /// Takes room for one guest cluster that is packed to `len` bytes. Returns where it starts.
    fn take_packed(&mut self, layout: Layout, guest_cluster: u64, len: u32) -> u64 {
        let end = self.region_at + u64::from(len);
        if end > self.region_end {
            let more = layout.clusters(u64::from(len).max(REGION));
            if self.region_end != self.next << layout.cluster_bits {
                self.region_at = self.next << layout.cluster_bits;
            }
            self.next += more;
            self.region_end = self.next << layout.cluster_bits;
        }
        let at = self.region_at;
        self.region_at += u64::from(len);
        match self.runs.last_mut() {
            Some(Run { guest_cluster: first, count, place: RunPlace::Packed { .. } })
                if *first + *count == guest_cluster =>
            {
                *count += 1;
            }
            _ => {
                let first = self.packed.len();
                self.runs.push(Run { guest_cluster, count: 1, place: RunPlace::Packed { first } });
            }
        }
        self.packed.push(layout.packed_entry(at, len));
        at
    }
}

pub(super) struct Writer {
    pub file: PartialFile,
    pub layout: Layout,
    packer: Option<Packer>,
    pub compression: Compression,
    pub space: Mutex<Space>,
}

impl Writer {
    /// The number of the first guest cluster of a run, after checking that it is cut as agreed.
    fn first_cluster(&self, range: GuestRange) -> Result<u64> {
        let (start, end) = (range.start().0, range.end().0);
        let mask = self.layout.cluster_size() - 1;
        let whole =
            start & mask == 0 && (end & mask == 0 || end == self.layout.given) && end <= self.layout.given;
        if whole {
            return Ok(start >> self.layout.cluster_bits);
        }
        Err(self.misused(format!("a run from {start:#x} to {end:#x} does not consist of whole clusters")))
    }

    /// The error of a caller that breaks the contract of [`Sink`].
    pub fn misused(&self, says: String) -> Error {
        Error::refused(format!("cannot be written: {says}")).in_file(self.file.target())
    }
}

impl Sink for Writer {
    fn granularity(&self) -> Bytes {
        Bytes(self.layout.cluster_size())
    }

    fn encode(&self, _: GuestRange, content: &[u8]) -> Result<Option<Encoded>> {
        let Some(packer) = &self.packer else { return Ok(None) };
        let cluster_size = 1usize << self.layout.cluster_bits;
        // Less is not worth the time of every later reader.
        let worthwhile = cluster_size - cluster_size / 16;
        let mut bytes = vec![0; content.len().next_multiple_of(cluster_size)];
        let mut pieces = Vec::with_capacity(bytes.len() / cluster_size);
        let mut end = 0;
        packer.with(|pack| {
            for cluster in content.chunks(cluster_size) {
                let room = &mut bytes[end..end + worthwhile];
                let packed = if cluster.len() == cluster_size {
                    pack(cluster, room)
                } else {
                    // A compressed cluster is a whole one; behind the disk's end it holds zeros.
                    let mut padded = cluster.to_vec();
                    padded.resize(cluster_size, 0);
                    pack(&padded, room).filter(|&len| len < cluster.len())
                };
                let len = packed.unwrap_or(cluster.len());
                if packed.is_none() {
                    bytes[end..end + len].copy_from_slice(cluster);
                }
                pieces.push(Piece { len, verbatim: packed.is_none() });
                end += len;
            }
        })?;
        if pieces.iter().all(|piece| piece.verbatim) {
            return Ok(None);
        }
        bytes.truncate(end);
        Ok(Some(Encoded { bytes, pieces }))
    }

    fn place(&self, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>> {
        let first = self.first_cluster(range)?;
        let clusters = self.layout.clusters(range.len().0);
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        if pieces.is_empty() {
            let cluster = space.take(first, clusters);
            let len = usize::try_from(range.len().0).unwrap_or(usize::MAX);
            return Ok(vec![Placed { file: 0, at: FileOffset(cluster << self.layout.cluster_bits), len }]);
        }
        if pieces.len() as u64 != clusters {
            return Err(self.misused(format!("{} pieces stand for {clusters} clusters", pieces.len())));
        }
        let mut placed: Vec<Placed> = Vec::new();
        for (guest_cluster, piece) in (first..).zip(pieces) {
            let cluster = guest_cluster << self.layout.cluster_bits;
            let whole = self.layout.cluster_size().min(range.end().0 - cluster);
            let at = match u32::try_from(piece.len) {
                Ok(len) if piece.verbatim && u64::from(len) == whole => {
                    space.take(guest_cluster, 1) << self.layout.cluster_bits
                }
                Ok(len) if !piece.verbatim && len > 0 && u64::from(len) < self.layout.cluster_size() => {
                    space.take_packed(self.layout, guest_cluster, len)
                }
                _ => return Err(self.misused(format!("a piece of {} bytes stands for {whole}", piece.len))),
            };
            match placed.last_mut() {
                Some(last) if last.at.0 + last.len as u64 == at => last.len += piece.len,
                _ => placed.push(Placed { file: 0, at: FileOffset(at), len: piece.len }),
            }
        }
        Ok(placed)
    }

    /// There is no backing file: what is not written reads as zeros.
    fn zero(&self, _range: GuestRange) -> Result<()> {
        Ok(())
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(to.at, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(from.at, bytes)
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        super::finish::finish(*self)
    }

    fn leave(&self) {
        self.file.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::units::GuestOffset;

    #[test]
    fn what_clusters_cannot_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.qcow2");
        let refused = |size: Bytes, options: CreateOptions| {
            let error = create(&path, size, &options).err().unwrap();
            assert_eq!(error.kind(), Kind::Refused, "{error}");
        };
        let with = |cluster_size| CreateOptions {
            block_size: Some(Bytes(cluster_size)),
            ..CreateOptions::default()
        };
        for cluster_size in [0, 1, 256, 513, 65535, 4 << 20, 1 << 63] {
            refused(Bytes(1 << 20), with(cluster_size));
        }
        refused(Bytes(128 << 30), with(512));
        refused(Bytes(crate::limits::DISK_SIZE.0 + 1), with(1 << 21));
        assert!(create(&path, Bytes(100 << 30), &with(512)).is_ok());
        let compression = Some(Compression::Zstd);
        refused(Bytes(512), CreateOptions { compression, level: Some(23), ..with(65536) });
    }

    #[test]
    fn a_broken_contract_never_gives_an_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.qcow2");
        let run = |start, len| GuestRange::new(GuestOffset(start), Bytes(len));
        let packed = |len| Piece { len, verbatim: false };
        for (range, pieces) in [
            (run(512, 65536), vec![]),
            (run(0, 512), vec![]),
            (run(1 << 20, 65536), vec![]),
            (run(0, 65536), vec![packed(65536)]),
            (run(0, 65536), vec![packed(0)]),
            (run(0, 65536), vec![packed(5); 2]),
        ] {
            let sink = create(&path, Bytes(1 << 20), &CreateOptions::default()).unwrap();
            assert!(sink.place(range, &pieces).is_err());
        }
        let twice = create(&path, Bytes(1 << 20), &CreateOptions::default()).unwrap();
        twice.place(run(0, 131_072), &[]).unwrap();
        twice.place(run(65536, 65536), &[]).unwrap();
        assert!(twice.finish().unwrap_err().says().contains("twice"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
