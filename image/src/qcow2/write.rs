//! Writing a new image.
//!
//! ```text
//! | header | L1 table | refcounts | L2 table, clusters as they come: verbatim, or regions of packed bytes | … | refcount table |
//! ```
//!
//! Room is given in the order of the disk, so one L2 table is enough to keep: it is written when the walk has passed
//! what it describes, as are reference counts (`space.rs`). What stays is the L1 table and the refcount table: 1.3 MiB
//! for 64 TiB in clusters of 64 KiB, 40 MiB at the very most.

use super::codec::Packer;
use super::entry::{USED_ONCE, ZERO};
use super::header::{self, NewHeader};
use super::layout::Layout;
use super::space::Space;
use crate::create::{Base, Compression, CreateOptions, Preallocation, Takes};
use crate::error::{Error, Result};
use crate::partial::PartialFile;
use crate::sink::{Encoded, Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestRange};
use rustix::fs::FallocateFlags;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Clusters where nothing else is asked for: QEMU's own choice, and with subclusters the smallest that makes them
/// 4 KiB.
const CLUSTER: Bytes = Bytes::kib(64);
const EXTENDED_CLUSTER: Bytes = Bytes::kib(128);

/// The smallest unit in which zeros are looked for: a file system's usual block.
const GRANULE: u64 = 4096;

/// Zeros are written in pieces of this.
const ZEROS: usize = 1 << 20;
/// Bytes of the header's cluster that are written: what the file system stores for it anyway.
const HEADER_WRITTEN: usize = 4096;

/// Compressions that can be chosen.
pub const COMPRESSIONS: &[Compression] = &[Compression::Zlib, Compression::Zstd];

/// What can be chosen.
const TAKES: Takes = Takes {
    compression: COMPRESSIONS,
    block_size: Some((512, 2 << 20)),
    extended_l2: true,
    preallocation: &[Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full],
    base: true,
    within: false,
    adapter: false,
};

/// Starts the image that will be `path`, for a disk of `size`, in version 3.
///
/// QEMU knows disks of whole 512-byte sectors only: the image's disk is `size` rounded up to that, and reads as
/// zeros in what was added.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) for a cluster size or level that does not exist, a disk that such
/// clusters cannot hold, options that exclude each other, a base whose name the header has no room for, and
/// whatever [`PartialFile::create`] refuses; [`Kind::Io`](crate::Kind::Io).
pub fn create(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    options.check(path, "qcow2", &TAKES)?;
    let refused = |says: &str, hint: &str| Err(Error::refused(says).in_file(path).hint(hint));
    let preallocated = options.preallocation != Preallocation::Off;
    if preallocated && options.compression.is_some() {
        return refused("cannot be both preallocated and compressed", "leave one of the two out");
    }
    if preallocated && options.base.is_some() {
        return refused(
            "cannot be preallocated over a base, which would be hidden",
            "leave one of the two out",
        );
    }
    let usual = if options.extended_l2 { EXTENDED_CLUSTER } else { CLUSTER };
    let layout = Layout::new(size, options.block_size.unwrap_or(usual), options.extended_l2)
        .map_err(|error| error.in_file(path))?;
    let packer = options.compression.map(|compression| Packer::new(compression, options.level)).transpose();
    let packer = packer.map_err(|error| error.in_file(path))?;
    let new = NewHeader {
        cluster_bits: layout.cluster_bits,
        size: Bytes(layout.size),
        // Bounded by the layout.
        l1_entries: u32::try_from(layout.l1_entries).unwrap_or(u32::MAX),
        l1_table: FileOffset(layout.cluster_size()),
        refcount_table: FileOffset(0),
        refcount_table_clusters: 0,
        compression: options.compression.unwrap_or(Compression::Zlib),
        extended_l2: layout.extended_l2,
        backing: options.base.as_ref().map(|base| backing(base).map_err(|e| e.in_file(path))).transpose()?,
    };
    header::build(&new).map_err(|error| error.in_file(path))?;
    let file = PartialFile::create(path, options.files)?;
    let writer = Writer {
        granularity: match layout.extended_l2 && packer.is_none() && !preallocated {
            true => (1 << layout.unit_bits()).max(GRANULE),
            false => layout.cluster_size(),
        },
        clears: options.files.resume || options.preallocation == Preallocation::Full,
        preallocation: options.preallocation,
        base_size: options.base.as_ref().map(|base| base.size.0),
        new,
        packer,
        layout,
        state: Mutex::new(State::new(layout)),
        file,
        failed: AtomicBool::new(false),
    };
    if options.preallocation == Preallocation::Falloc {
        // Room for the data, so that a full file system is told before the work; the tables' follows at the end.
        writer.file.reserve(Bytes(layout.clusters(layout.size) << layout.cluster_bits))?;
    }
    Ok(Box::new(writer))
}

/// The base's name as the header has it, and its format by QEMU's name.
fn backing(base: &Base) -> Result<(String, &'static str)> {
    let Some(name) = base.path.to_str() else {
        return Err(Error::refused(format!("its base's name is not UTF-8: {}", base.path.display()))
            .hint("rename the base"));
    };
    let Some(format) = super::open::qemu_name(base.format) else {
        return Err(Error::unsupported(format!("a base in the format {}", base.format.name()))
            .hint("raw, qcow2, vmdk, vhdx and vhd can be a base"));
    };
    Ok((name.to_owned(), format))
}

pub(super) struct Writer {
    file: PartialFile,
    layout: Layout,
    granularity: u64,
    packer: Option<Packer>,
    preallocation: Preallocation,
    /// What reads as zeros without an own table entry must be made zeros in the file.
    clears: bool,
    base_size: Option<u64>,
    new: NewHeader,
    state: Mutex<State>,
    /// A write failed: the image will not be whole.
    failed: AtomicBool,
}

/// The walk over the disk.
struct State {
    /// Everything before is placed.
    here: u64,
    space: Space,
    l1: Vec<u64>,
    /// Which L2 table is being filled, and its bytes.
    l2_index: Option<u64>,
    l2: Vec<u8>,
}

impl State {
    /// Nothing is placed but the header and the L1 table.
    fn new(layout: Layout) -> State {
        let mut space = Space::new(layout);
        space.take(1 + layout.l1_clusters());
        let l1 = vec![0; usize::try_from(layout.l1_entries).unwrap_or(usize::MAX)];
        State { here: 0, space, l1, l2_index: None, l2: Vec::new() }
    }
}

impl Writer {
    /// Runs one step of the walk over `range`, after checking that it is cut as agreed. A step that fails spoils
    /// the image.
    fn step<T>(&self, range: GuestRange, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        let (start, end) = (range.start().0, range.end().0);
        let whole = end.is_multiple_of(self.granularity) || end == self.layout.given;
        let done = if start != state.here || !whole || end > self.layout.given {
            Err(self.misused(format!(
                "{start:#x} to {end:#x} is not what follows {:#x} in whole units of {:#x}",
                state.here, self.granularity
            )))
        } else {
            state.here = end;
            work(&mut state)
        };
        if done.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a caller that breaks the contract of [`Sink`].
    fn misused(&self, says: String) -> Error {
        Error::refused(format!("cannot be written: {says}")).in_file(self.file.target())
    }

    /// The entry of a guest cluster, in the L2 table that is being filled: 8 bytes, or 16 with subclusters.
    fn entry<'a>(&self, state: &'a mut State, guest_cluster: u64) -> Result<&'a mut [u8]> {
        let index = guest_cluster >> self.layout.l2_bits();
        if state.l2_index != Some(index) {
            self.write_l2(state)?;
            let cluster = state.space.take(1);
            if let Some(entry) = usize::try_from(index).ok().and_then(|index| state.l1.get_mut(index)) {
                *entry = USED_ONCE | cluster << self.layout.cluster_bits;
            }
            state.l2_index = Some(index);
            state.l2.clear();
            state.l2.resize(1 << self.layout.cluster_bits, 0);
        }
        let len = self.layout.l2_entry_size();
        let at = (guest_cluster & ((1 << self.layout.l2_bits()) - 1)) * len;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        Ok(&mut state.l2[at..at + if self.layout.extended_l2 { 16 } else { 8 }])
    }

    /// Writes the L2 table that was being filled, and the reference counts that are complete by now.
    fn write_l2(&self, state: &mut State) -> Result<()> {
        let Some(index) = state.l2_index.take() else { return Ok(()) };
        let entry = usize::try_from(index).ok().and_then(|index| state.l1.get(index)).copied().unwrap_or(0);
        self.file.write_all_at(FileOffset(entry & !USED_ONCE), &state.l2)?;
        state.space.write_blocks(&self.file)
    }

    /// The bits of the subclusters of `guest_cluster` that lie in `range`, whole or in part.
    fn subclusters(&self, guest_cluster: u64, range: GuestRange) -> u32 {
        let cluster = guest_cluster << self.layout.cluster_bits;
        let unit = self.layout.unit_bits();
        let from = range.start().0.saturating_sub(cluster) >> unit;
        let to = (range.end().0 - cluster).min(self.layout.cluster_size()).div_ceil(1 << unit);
        let below = |bit: u64| u32::MAX.checked_shr(32 - u32::try_from(bit).unwrap_or(32)).unwrap_or(0);
        below(to) & !below(from)
    }

    /// Gives every guest cluster of `range` a cluster of the file, all in a row but for the first where it has one.
    fn place_verbatim(&self, state: &mut State, range: GuestRange, placed: &mut Vec<Placed>) -> Result<()> {
        let bits = self.layout.cluster_bits;
        let mut here = range.start().0;
        let last = (range.end().0 - 1) >> bits;
        let mut next = None;
        while here < range.end().0 {
            let guest_cluster = here >> bits;
            let begun = match here & (self.layout.cluster_size() - 1) {
                0 => 0,
                _ => be_u64(self.entry(state, guest_cluster)?) & !USED_ONCE,
            };
            let cluster = match (begun >> bits, next) {
                (0, Some(cluster)) => cluster,
                (0, None) => state.space.take(last - guest_cluster + 1),
                (begun, _) => begun,
            };
            if begun == 0 {
                next = Some(cluster + 1);
            }
            let subclusters = self.subclusters(guest_cluster, range);
            let entry = self.entry(state, guest_cluster)?;
            entry[..8].copy_from_slice(&(USED_ONCE | cluster << bits).to_be_bytes());
            if let Some(bitmap) = entry.get_mut(8..16) {
                let whole = self.preallocation != Preallocation::Off || self.packer.is_some();
                let stored = be_u64(bitmap) | u64::from(if whole { u32::MAX } else { subclusters });
                bitmap.copy_from_slice(&stored.to_be_bytes());
            }
            let end = ((guest_cluster + 1) << bits).min(range.end().0);
            let at = (cluster << bits) + (here & (self.layout.cluster_size() - 1));
            add(placed, at, end - here);
            here = end;
        }
        self.clear_rest(range, placed.last().copied())
    }

    /// Behind the disk's end lie zeros, up to the end of the unit: the guest may see up to a sector of them.
    fn clear_rest(&self, range: GuestRange, last: Option<Placed>) -> Result<()> {
        let end = range.end().0;
        let rest = end.next_multiple_of(self.granularity) - end;
        match last {
            Some(last) if rest > 0 => self.write_zeros(last.at.0 + last.len as u64, rest),
            _ => Ok(()),
        }
    }

    fn place_pieces(&self, state: &mut State, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>> {
        let first = range.start().0 >> self.layout.cluster_bits;
        if pieces.len() as u64 != self.layout.clusters(range.len().0) {
            return Err(self.misused(format!("{} pieces stand for {} bytes", pieces.len(), range.len().0)));
        }
        let mut placed = Vec::new();
        for (guest_cluster, piece) in (first..).zip(pieces) {
            let start = guest_cluster << self.layout.cluster_bits;
            let whole = self.layout.cluster_size().min(range.end().0 - start);
            let len = piece.len as u64;
            if piece.verbatim && len == whole {
                self.place_verbatim(
                    state,
                    GuestRange::new(crate::GuestOffset(start), Bytes(len)),
                    &mut placed,
                )?;
            } else if !piece.verbatim && (1..self.layout.cluster_size()).contains(&len) {
                let at = state.space.take_packed(len);
                let packed = self.layout.packed_entry(at, len);
                self.entry(state, guest_cluster)?[..8].copy_from_slice(&packed.to_be_bytes());
                add(&mut placed, at, len);
            } else {
                return Err(self.misused(format!("a piece of {len} bytes stands for {whole}")));
            }
        }
        Ok(placed)
    }

    /// Zero clusters and subclusters hide a base; behind its end there is nothing to hide.
    fn hide(&self, state: &mut State, range: GuestRange, base_size: u64) -> Result<()> {
        let bits = self.layout.cluster_bits;
        let end = range.end().0.min(base_size.next_multiple_of(self.granularity));
        if end <= range.start().0 {
            return Ok(());
        }
        let range = GuestRange::between(range.start(), crate::GuestOffset(end));
        for guest_cluster in range.start().0 >> bits..=(end - 1) >> bits {
            let zeros = u64::from(self.subclusters(guest_cluster, range)) << 32;
            let entry = self.entry(state, guest_cluster)?;
            match entry.get_mut(8..16) {
                Some(bitmap) => {
                    let all = be_u64(bitmap) | zeros;
                    bitmap.copy_from_slice(&all.to_be_bytes());
                }
                None => entry.copy_from_slice(&ZERO.to_be_bytes()),
            }
        }
        Ok(())
    }

    fn write_zeros(&self, at: u64, len: u64) -> Result<()> {
        let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS)];
        let mut done = 0;
        while done < len {
            let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(zeros.len());
            self.file.write_all_at(FileOffset(at + done), &zeros[..part])?;
            done += part as u64;
        }
        Ok(())
    }

    /// Makes a part of the file read as zeros whatever a run before this one left there.
    fn clear(&self, at: u64, len: u64) -> Result<()> {
        if self.preallocation != Preallocation::Full {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(self.file.file(), how, at, len).is_ok() {
                return Ok(());
            }
        }
        self.write_zeros(at, len)
    }

    /// Writes what is left: the last L2 table, reference counts, L1 table, header.
    fn complete(self) -> Result<Receipt> {
        let mut state = std::mem::replace(&mut *self.lock(), State::new(self.layout));
        if self.failed.load(Ordering::Relaxed) {
            return Err(self.misused("a step before this one has failed".to_owned()));
        }
        if state.here != self.layout.given {
            let says = format!("it ends at {:#x}, the disk at {:#x}", state.here, self.layout.given);
            return Err(self.misused(says));
        }
        self.write_l2(&mut state)?;
        let (table, table_clusters, clusters) = state.space.finish(&self.file)?;
        let l1_table = self.new.l1_table;
        // In pieces: the largest table is 32 MiB, and it is in memory already.
        for (index, part) in (0u64..).zip(state.l1.chunks(ZEROS / 8)) {
            let bytes: Vec<u8> = part.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            self.file.write_all_at(FileOffset(l1_table.0 + index * ZEROS as u64), &bytes)?;
        }
        let new = NewHeader {
            refcount_table: FileOffset(table << self.layout.cluster_bits),
            refcount_table_clusters: u32::try_from(table_clusters).unwrap_or(u32::MAX),
            ..self.new.clone()
        };
        // With the zeros behind it, which a file that was taken up again need not have.
        let mut header = header::build(&new)?;
        header.resize(header.len().max(HEADER_WRITTEN.min(1 << self.layout.cluster_bits)), 0);
        self.file.write_all_at(FileOffset(0), &header)?;
        // The last cluster may be written in part only.
        let len = clusters << self.layout.cluster_bits;
        self.file.set_len(Bytes(len))?;
        if self.preallocation == Preallocation::Falloc {
            self.file.reserve(Bytes(len))?;
        }
        let (path, allocated) = self.file.commit()?;
        Ok(Receipt { files: vec![path], allocated })
    }
}

impl Sink for Writer {
    fn granularity(&self) -> Bytes {
        Bytes(self.granularity)
    }

    fn encode(&self, _range: GuestRange, content: &[u8]) -> Result<Option<Encoded>> {
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
        self.step(range, |state| {
            let mut placed = Vec::new();
            match pieces.is_empty() {
                _ if range.is_empty() => {}
                true => self.place_verbatim(state, range, &mut placed)?,
                false => placed = self.place_pieces(state, range, pieces)?,
            }
            Ok(placed)
        })
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        self.step(range, |state| {
            if range.is_empty() {
                return Ok(());
            }
            if self.preallocation == Preallocation::Off {
                // Without a base, what has no entry reads as zeros.
                return self.base_size.map_or(Ok(()), |size| self.hide(state, range, size));
            }
            let mut placed = Vec::new();
            self.place_verbatim(state, range, &mut placed)?;
            for part in placed.into_iter().filter(|_| self.clears) {
                self.clear(part.at.0, part.len as u64)?;
            }
            Ok(())
        })
    }

    fn keep(&self, range: GuestRange) -> Result<()> {
        self.step(range, |_| match self.base_size {
            Some(_) => Ok(()),
            None => Err(self.misused("there is no base to keep".to_owned())),
        })
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        let stored = match to.len == bytes.len() && to.file == 0 {
            true => self.file.write_all_at(to.at, bytes),
            false => {
                Err(self.misused(format!("{} bytes are stored where {} were placed", bytes.len(), to.len)))
            }
        };
        if stored.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        stored
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(from.at, bytes)
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        self.complete()
    }

    fn leave(&self) {
        self.file.leave();
    }
}

/// Adds a stretch, joined to the last one where it follows it.
fn add(placed: &mut Vec<Placed>, at: u64, len: u64) {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    match placed.last_mut() {
        Some(last) if last.at.0 + last.len as u64 == at => last.len += len,
        _ => placed.push(Placed { file: 0, at: FileOffset(at), len }),
    }
}

fn be_u64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
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
        let start = || {
            let sink = create(&path, Bytes(1 << 20), &CreateOptions::default()).unwrap();
            sink.place(run(0, 131_072), &[]).unwrap();
            sink
        };
        let twice = start();
        assert!(twice.place(run(65536, 65536), &[]).is_err());
        assert!(twice.finish().unwrap_err().says().contains("has failed"));
        assert!(start().finish().unwrap_err().says().contains("ends at 0x20000"));
        assert!(start().keep(run(131_072, 65536)).is_err());
        let stored = start();
        let to = Placed { file: 0, at: FileOffset(1 << 20), len: 4 };
        assert!(stored.store(to, &[1; 5]).is_err());
        stored.zero(run(131_072, (1 << 20) - 131_072)).unwrap();
        assert!(stored.finish().is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
