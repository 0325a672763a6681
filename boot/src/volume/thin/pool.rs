//! A pool: which block of data holds which block of which volume.

use super::superblock::{self, Superblock};
use crate::volume::field::{le32, le64};
use crate::volume::persistent::{Metadata, Refers, Sort, Store, Tree, Which, find, set, wrong};
use crate::{Error, Result, limits};
use landfall_image::{Bytes, DiskMut, GuestOffset, GuestRange};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Device to root of its mappings.
const VOLUMES: Tree = Tree { value_size: 8, refers: Refers::Trees, is_map: false };
/// Block of the volume to block of the data.
const MAPPINGS: Tree = Tree { value_size: 8, refers: Refers::Data, is_map: false };
/// Device to what is known of it.
const DEVICES: Tree = Tree { value_size: 24, refers: Refers::Nothing, is_map: false };

/// The time in a mapping, and in a superblock.
const TIME: u64 = (1 << 24) - 1;

/// A thin pool, which its volumes share.
pub struct Pool {
    /// For errors: `vg0/pool`.
    name: String,
    data: Arc<dyn DiskMut>,
    block_size: Bytes,
    transaction: u64,
    state: Mutex<State>,
}

/// The mappings, as far as they are in memory. Locked while data are read or written, too: a block could get another owner
/// in between.
pub struct State {
    metadata: Metadata,
    superblock: Superblock,
    /// The first error of a change: memory and disk may differ since.
    broken: Option<String>,
}

/// Where a block of a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this block of the data; `is_shared` where writing to it would change another volume.
    At { block: u64, is_shared: bool },
    /// Nowhere, and so are all up to this block of the volume.
    Nowhere { until: u64 },
}

impl Pool {
    /// Opens the pool `name` (for errors) with its metadata and data volumes.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) and [`Kind::Unsupported`](crate::Kind::Unsupported) with a hint; those of
    /// the disks.
    pub fn open(name: &str, metadata: Arc<dyn DiskMut>, data: Arc<dyn DiskMut>) -> Result<Pool> {
        let mut store = Store::new(metadata);
        let superblock = superblock::parse(&store.read(0, Sort::ThinSuperblock)?)?;
        let blocks = data.size().0 / superblock.block_size.0;
        let metadata = Metadata::new(store, superblock.metadata, superblock.data, blocks)?;
        Ok(Pool {
            name: name.to_owned(),
            data,
            block_size: superblock.block_size,
            transaction: superblock.transaction,
            state: Mutex::new(State { metadata, superblock, broken: None }),
        })
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> Bytes {
        self.block_size
    }

    /// LVM's count of changes.
    pub fn transaction(&self) -> u64 {
        self.transaction
    }

    /// The data volume.
    pub fn data(&self) -> &Arc<dyn DiskMut> {
        &self.data
    }

    /// The mappings, for one read or write.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True where the pool has this device.
    ///
    /// # Errors
    /// Those of [`find`].
    pub fn has(&self, device: u32) -> Result<bool> {
        let mut state = self.lock();
        let state = &mut *state;
        let known = |state: &mut State, root, size| {
            Ok::<_, Error>(find(&mut state.metadata.store, root, device.into(), size)?.value.is_some())
        };
        Ok(known(state, state.superblock.mappings, VOLUMES.value_size)?
            && known(state, state.superblock.devices, DEVICES.value_size)?)
    }

    /// Where a block of data lies on the data volume.
    pub fn at(&self, block: u64) -> GuestOffset {
        // Inside the volume, as every block that is counted.
        GuestOffset(block.saturating_mul(self.block_size.0))
    }

    /// The block of data for `block` of the volume that nothing else has, to be written to. `fill` gives what a block holds
    /// that was nowhere: a disk that ends somewhere, or nothing. Bytes of `covered` are overwritten next and need no filling.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where the pool is full; that and every other error leaves the pool unusable,
    /// and what was written incomplete.
    pub fn own(
        &self,
        state: &mut State,
        device: u32,
        block: u64,
        origin: Option<&Arc<dyn DiskMut>>,
        covered: GuestRange,
    ) -> Result<u64> {
        state.check(&self.name)?;
        let owned = self.try_own(state, device, block, origin, covered);
        if let Err(error) = &owned {
            state.broken = Some(error.says().to_owned());
        }
        owned
    }

    fn try_own(
        &self,
        state: &mut State,
        device: u32,
        block: u64,
        origin: Option<&Arc<dyn DiskMut>>,
        covered: GuestRange,
    ) -> Result<u64> {
        let old = match state.place(device, block)? {
            Place::At { block, is_shared: false } => return Ok(block),
            Place::At { block, .. } => Some(block),
            Place::Nowhere { .. } => None,
        };
        let new = state.metadata.allocate(Which::Data)?.ok_or_else(|| {
            let blocks = state.superblock.data.blocks;
            Error::refused(format!(
                "the thin pool {} is full: all {blocks} blocks of {} are in use",
                self.name, self.block_size
            ))
            .hint("make room in the running guest (fstrim, or lvextend of the pool), then convert again")
        })?;
        let whole = GuestRange::new(GuestOffset(0), self.block_size);
        if covered != whole {
            self.fill(new, block, old, origin)?;
        }
        state.map(device, block, new, old)?;
        Ok(new)
    }

    /// Gives a new block its content: that of the old one, of the origin as far as that goes, or zeros.
    fn fill(&self, new: u64, block: u64, old: Option<u64>, origin: Option<&Arc<dyn DiskMut>>) -> Result<()> {
        let (to, len) = (self.at(new), self.block_size.0);
        let (from, from_at, known) = match (old, origin) {
            (Some(old), _) => (&self.data, self.at(old), len),
            (None, Some(origin)) => {
                let at = self.at(block);
                (origin, at, origin.size().0.saturating_sub(at.0).min(len))
            }
            (None, None) => (&self.data, GuestOffset(0), 0),
        };
        let mut buffer = vec![0; Bytes(known.min(limits::THIN_COPY.0)).to_usize().unwrap_or(0)];
        let mut done = 0;
        while done < known {
            let part = Bytes((known - done).min(limits::THIN_COPY.0)).to_usize().unwrap_or(0);
            let buffer = buffer.get_mut(..part).unwrap_or_default();
            from.read_at(GuestOffset(from_at.0.saturating_add(done)), buffer)?;
            self.data.write_at(GuestOffset(to.0.saturating_add(done)), buffer)?;
            done += part as u64;
        }
        self.data.zero_at(GuestRange::new(GuestOffset(to.0.saturating_add(known)), Bytes(len - known)))
    }
}

impl State {
    fn check(&self, name: &str) -> Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(Error::refused(format!("the thin pool {name} is not written any more: {why}"))),
        }
    }

    /// Where a block of a volume is.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) where the metadata are damaged; those of the disk.
    pub fn place(&mut self, device: u32, block: u64) -> Result<Place> {
        if let Some(why) = &self.broken {
            return Err(Error::refused(format!("the thin pool's metadata are half changed: {why}")));
        }
        let store = &mut self.metadata.store;
        let absent = || wrong(0, format!("the pool has no device {device}"));
        let volume = find(store, self.superblock.mappings, device.into(), VOLUMES.value_size)?.value;
        let root = volume.and_then(|value| le64(&value, 0)).ok_or_else(absent)?;
        let found = find(store, root, block, MAPPINGS.value_size)?;
        let Some(mapping) = found.value.and_then(|value| le64(&value, 0)) else {
            return Ok(Place::Nowhere { until: found.next });
        };
        let at = mapping >> 24;
        if at >= self.superblock.data.blocks {
            return Err(wrong(
                root,
                format!(
                    "block {block} of device {device} lies in block {at} of the data; there are {}",
                    self.superblock.data.blocks
                ),
            ));
        }
        let details = find(store, self.superblock.devices, device.into(), DEVICES.value_size)?.value;
        let snapshot = details.and_then(|value| le32(&value, 20)).ok_or_else(absent)?;
        // The books decide, too: they may only say more than the times do.
        let is_shared = u64::from(snapshot) > mapping & TIME || self.metadata.count(Which::Data, at)? > 1;
        Ok(Place::At { block: at, is_shared })
    }

    /// Enters a mapping into the books.
    fn map(&mut self, device: u32, block: u64, new: u64, old: Option<u64>) -> Result<()> {
        let absent = || wrong(0, format!("the pool has no device {device}"));
        let key = u64::from(device);
        // First the way to the volume's own tree, then that tree: what a node shares with others is known from above.
        let volume = find(&mut self.metadata.store, self.superblock.mappings, key, VOLUMES.value_size)?.value;
        let root = volume.and_then(|value| le64(&value, 0)).ok_or_else(absent)?;
        let enter = |state: &mut State, root: u64| {
            let top = state.superblock.mappings;
            let (top, _) = state.metadata.insert(VOLUMES, top, key, &root.to_le_bytes())?;
            state.superblock.mappings = top;
            Ok::<_, Error>(())
        };
        enter(self, root)?;
        let mapping = new << 24 | u64::from(self.superblock.time) & TIME;
        let (own, replaced) = self.metadata.insert(MAPPINGS, root, block, &mapping.to_le_bytes())?;
        if own != root {
            enter(self, own)?;
        }
        if replaced.and_then(|value| le64(&value, 0)).map(|mapping| mapping >> 24) != old {
            return Err(wrong(own, format!("block {block} of device {device} is mapped in two ways")));
        }
        match old {
            Some(old) => self.metadata.change(Which::Data, old, -1)?,
            None => {
                let details =
                    find(&mut self.metadata.store, self.superblock.devices, key, DEVICES.value_size)?.value;
                let mut details = details.ok_or_else(absent)?;
                let mapped = le64(&details, 0).and_then(|mapped| mapped.checked_add(1)).ok_or_else(absent)?;
                set(&mut details, 0, &mapped.to_le_bytes());
                let (root, _) = self.metadata.insert(DEVICES, self.superblock.devices, key, &details)?;
                self.superblock.devices = root;
            }
        }
        Ok(())
    }

    /// Brings what was mapped to the disk.
    ///
    /// # Errors
    /// Those of the disk; the pool is unusable then.
    pub fn commit(&mut self) -> Result<()> {
        let outcome = self.try_commit();
        if let Err(error) = &outcome {
            self.broken.get_or_insert(error.says().to_owned());
        }
        outcome
    }

    fn try_commit(&mut self) -> Result<()> {
        if self.broken.is_some() {
            return Ok(());
        }
        self.superblock.data = self.metadata.roots(Which::Data);
        self.superblock.metadata = self.metadata.roots(Which::Metadata);
        let old = self.metadata.store.read(0, Sort::ThinSuperblock)?;
        let mut block = old.to_vec();
        self.superblock.update(&mut block);
        if block != *old {
            self.metadata.store.put(0, Sort::ThinSuperblock, block)?;
        }
        self.metadata.store.commit()
    }

    /// Everything written so far is seen by others.
    pub fn flush(&self) -> Result<()> {
        self.metadata.store.flush()
    }
}

/// What only tests do: the kernel makes volumes and snapshots when LVM asks for them.
#[cfg(test)]
impl State {
    pub(super) fn create(&mut self, device: u32) -> Result<()> {
        let root = self.metadata.allocate_block()?;
        let leaf = crate::volume::persistent::node::Draft::new(false, MAPPINGS.value_size);
        self.metadata.store.put(root, Sort::Node, leaf.block())?;
        self.enter(device, root, &[0; 24])
    }

    pub(super) fn snapshot(&mut self, of: u32, device: u32) -> Result<()> {
        self.superblock.time += 1;
        let time = self.superblock.time.to_le_bytes();
        let store = &mut self.metadata.store;
        let root = find(store, self.superblock.mappings, of.into(), 8)?.value.unwrap();
        let mut details = find(store, self.superblock.devices, of.into(), 24)?.value.unwrap();
        set(&mut details, 20, &time);
        let (devices, _) = self.metadata.insert(DEVICES, self.superblock.devices, of.into(), &details)?;
        self.superblock.devices = devices;
        let root = le64(&root, 0).unwrap();
        self.metadata.change(Which::Metadata, root, 1)?;
        set(&mut details, 16, &time);
        self.enter(device, root, &details)
    }

    fn enter(&mut self, device: u32, root: u64, details: &[u8]) -> Result<()> {
        let Superblock { mappings, devices, .. } = self.superblock;
        (self.superblock.mappings, _) =
            self.metadata.insert(VOLUMES, mappings, device.into(), &root.to_le_bytes())?;
        (self.superblock.devices, _) = self.metadata.insert(DEVICES, devices, device.into(), details)?;
        let mut block = self.metadata.store.read(0, Sort::ThinSuperblock)?.to_vec();
        set(&mut block, 44, &self.superblock.time.to_le_bytes());
        self.metadata.store.put(0, Sort::ThinSuperblock, block)?;
        self.commit()
    }

    pub(super) fn count(&mut self, block: u64) -> u32 {
        self.metadata.count(Which::Data, block).unwrap()
    }

    pub(super) fn used(&self) -> u64 {
        self.metadata.roots(Which::Data).used
    }
}
