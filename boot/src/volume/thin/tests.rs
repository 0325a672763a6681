//! Pools made here, changed at random and compared with a model; `thin_check` and `thin_dump` say what they are worth.

use super::disk::ThinDisk;
use super::pool::{Place, Pool};
use crate::testing::Memory;
use crate::volume::field::le64;
use crate::volume::persistent::node::{Draft, Node};
use crate::volume::persistent::{BLOCK, Sort, Store, set};
use crate::{Error, Kind, Result};
use landfall_image::{Bytes, Disk, DiskMut, Extent, ExtentKind, GuestOffset, GuestRange};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

const CHUNK: u64 = 64 << 10;

/// A large disk of which little is written.
struct Sparse {
    size: u64,
    pages: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Sparse {
    fn new(size: u64) -> Arc<Sparse> {
        Arc::new(Sparse { size, pages: Mutex::default() })
    }
}

impl Disk for Sparse {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }
    fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
        Ok(vec![Extent { range, kind: ExtentKind::Data }])
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        let pages = self.pages.lock().unwrap();
        for (index, sector) in buf.chunks_mut(512).enumerate() {
            match pages.get(&(at.0 / 512 + index as u64)) {
                Some(page) => sector.copy_from_slice(page),
                None => sector.fill(0),
            }
        }
        Ok(())
    }
}

impl DiskMut for Sparse {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        assert!(
            at.0.is_multiple_of(512)
                && data.len().is_multiple_of(512)
                && at.0 + data.len() as u64 <= self.size
        );
        let mut pages = self.pages.lock().unwrap();
        for (index, sector) in data.chunks(512).enumerate() {
            pages.insert(at.0 / 512 + index as u64, sector.to_vec());
        }
        Ok(())
    }
    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let mut pages = self.pages.lock().unwrap();
        for sector in range.start().0 / 512..range.end().0 / 512 {
            pages.remove(&sector);
        }
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// An empty pool, laid out as the kernel does it: `blocks` of metadata, `data` of data.
fn format(blocks: u64, data: u64) -> Arc<Memory> {
    const PER_BITMAP: u64 = (4096 - 16) * 4;
    let disk = Arc::new(Memory::new(vec![0; usize::try_from(blocks).unwrap() * BLOCK]));
    let mut store = Store::new(disk.clone());
    let leaf = |value_size| Draft::new(false, value_size);
    let bitmaps = data.div_ceil(PER_BITMAP);
    let used = 8 + bitmaps;
    let mut index = vec![0; BLOCK];
    set(&mut index, 16, &2_u64.to_le_bytes());
    set(&mut index, 24, &u32::try_from(blocks - used).unwrap().to_le_bytes());
    set(&mut index, 28, &u32::try_from(used).unwrap().to_le_bytes());
    store.put(1, Sort::Index, index).unwrap();
    let mut bitmap = vec![0; BLOCK];
    for block in 0..usize::try_from(used).unwrap() {
        bitmap[16 + block / 4] |= 2 << (block % 4 * 2);
    }
    store.put(2, Sort::Bitmap, bitmap).unwrap();
    store.put(3, Sort::Node, leaf(4).block()).unwrap();
    let mut data_index = leaf(16);
    for number in 0..bitmaps {
        store.put(8 + number, Sort::Bitmap, vec![0; BLOCK]).unwrap();
        let free = (data - number * PER_BITMAP).min(PER_BITMAP);
        let entry = [(8 + number).to_le_bytes(), free.to_le_bytes()].concat();
        data_index.entries.push((number, crate::volume::persistent::node::value(&entry)));
    }
    store.put(4, Sort::Node, data_index.block()).unwrap();
    store.put(5, Sort::Node, leaf(4).block()).unwrap();
    store.put(6, Sort::Node, leaf(8).block()).unwrap();
    store.put(7, Sort::Node, leaf(24).block()).unwrap();
    let mut superblock = vec![0; BLOCK];
    let numbers: [(usize, u64); 12] = [
        (32, 27_022_010),
        (40, 2),
        (64, data),
        (80, 4),
        (88, 5),
        (192, blocks),
        (200, used),
        (208, 1),
        (216, 3),
        (320, 6),
        (328, 7),
        (344, blocks),
    ];
    for (at, number) in numbers {
        set(&mut superblock, at, &number.to_le_bytes());
    }
    set(&mut superblock, 336, &128_u32.to_le_bytes());
    set(&mut superblock, 340, &8_u32.to_le_bytes());
    store.put(0, Sort::ThinSuperblock, superblock).unwrap();
    store.commit().unwrap();
    disk
}

fn copy(disk: &dyn Disk) -> Vec<u8> {
    let mut raw = vec![0; disk.size().to_usize().unwrap()];
    disk.read_at(GuestOffset(0), &mut raw).unwrap();
    raw
}

/// One of the tools of thin-provisioning-tools, as `tools/make-arrays.sh` fetches them.
fn tool(name: &str, metadata: &[u8]) -> Option<String> {
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/arrays");
    let folder = std::env::var_os("LANDFALL_ARRAYS").map_or(target, PathBuf::from).join("packages/usr/sbin");
    if !folder.join(name).exists() {
        eprintln!("SKIPPED: no {name} here: run tools/make-arrays.sh target/arrays");
        return None;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), metadata).unwrap();
    let out = Command::new(folder.join(name)).arg(file.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{name}: {said}");
    Some(said)
}

/// What [`Place`] says of every block of a device, by `thin_dump`: device to block to block of data.
fn dumped(metadata: &[u8]) -> Option<BTreeMap<u32, BTreeMap<u64, u64>>> {
    let text = tool("thin_dump", metadata)?;
    let mut out: BTreeMap<u32, BTreeMap<u64, u64>> = BTreeMap::new();
    let (mut device, mut mapped) = (0, 0);
    for line in text.lines() {
        let field = |name: &str| -> Option<u64> {
            let rest = line.split_once(&format!("{name}=\""))?.1;
            rest.split('"').next()?.parse().ok()
        };
        if line.contains("<device") {
            assert_eq!(mapped, out.get(&device).map_or(0, BTreeMap::len), "blocks of device {device}");
            device = u32::try_from(field("dev_id").unwrap()).unwrap();
            mapped = usize::try_from(field("mapped_blocks").unwrap()).unwrap();
            out.entry(device).or_default();
        } else if line.contains("<range_mapping") {
            for step in 0..field("length").unwrap() {
                let (from, to) = (field("origin_begin").unwrap(), field("data_begin").unwrap());
                out.entry(device).or_default().insert(from + step, to + step);
            }
        } else if line.contains("<single_mapping") {
            let (from, to) = (field("origin_block").unwrap(), field("data_block").unwrap());
            out.entry(device).or_default().insert(from, to);
        }
    }
    assert_eq!(mapped, out.get(&device).map_or(0, BTreeMap::len), "blocks of device {device}");
    Some(out)
}

/// Numbers without a pattern.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A pool with volumes, and what they should hold: device and sector to what was written there.
struct Scene {
    metadata: Arc<Memory>,
    data: Arc<Sparse>,
    pool: Arc<Pool>,
    size: u64,
    model: BTreeMap<u32, HashMap<u64, u64>>,
}

impl Scene {
    fn new(blocks: u64, data_blocks: u64, size: u64) -> Scene {
        let metadata = format(blocks, data_blocks);
        let data = Sparse::new(data_blocks * CHUNK);
        let pool = Arc::new(Pool::open("vg/pool", metadata.clone(), data.clone()).unwrap());
        Scene { metadata, data, pool, size, model: BTreeMap::new() }
    }

    fn disk(&self, device: u32) -> ThinDisk {
        ThinDisk::new(self.pool.clone(), device, Bytes(self.size), None)
    }

    fn reopen(&mut self) {
        self.pool = Arc::new(Pool::open("vg/pool", self.metadata.clone(), self.data.clone()).unwrap());
    }

    fn write(&mut self, device: u32, sector: u64, stamp: u64) -> Result<()> {
        self.disk(device).write_at(GuestOffset(sector * 512), &stamp.to_le_bytes().repeat(64))?;
        self.model.get_mut(&device).unwrap().insert(sector, stamp);
        Ok(())
    }

    fn check(&self) {
        for (&device, sectors) in &self.model {
            let disk = self.disk(device);
            let mut sector = [0; 512];
            for (&at, &stamp) in sectors {
                disk.read_at(GuestOffset(at * 512), &mut sector).unwrap();
                assert_eq!(sector[504..], stamp.to_le_bytes(), "device {device}, sector {at}");
            }
            let mut whole = vec![0; 1 << 20];
            let mut stamps = 0;
            for at in (0..self.size).step_by(1 << 20) {
                let len = usize::try_from((self.size - at).min(1 << 20)).unwrap();
                disk.read_at(GuestOffset(at), &mut whole[..len]).unwrap();
                stamps += whole[..len].chunks(512).filter(|sector| sector[0..8] != [0; 8]).count();
            }
            assert_eq!(
                stamps,
                sectors.values().filter(|&&stamp| stamp != 0).count(),
                "nothing else is there"
            );
        }
    }

    /// The books are right, for us and for the tools.
    fn audit(&mut self) {
        self.check();
        self.reopen();
        self.check();
        let raw = copy(&*self.metadata);
        self.recount(&raw);
        tool("thin_check", &raw);
        let Some(dumped) = dumped(&raw) else { return };
        assert_eq!(dumped.keys().collect::<Vec<_>>(), self.model.keys().collect::<Vec<_>>());
        for (&device, blocks) in &dumped {
            let mut state = self.pool.lock();
            for block in 0..self.size / CHUNK {
                let place = match state.place(device, block).unwrap() {
                    Place::At { block, .. } => Some(block),
                    Place::Nowhere { until } => {
                        assert!(blocks.range(block..until).next().is_none());
                        None
                    }
                };
                assert_eq!(place, blocks.get(&block).copied(), "device {device}, block {block}");
            }
        }
    }

    /// Every block of data is counted once for each node that names it; `thin_check` of some versions does not look.
    fn recount(&self, raw: &[u8]) {
        let at = |block: u64| &raw[usize::try_from(block).unwrap() * BLOCK..][..BLOCK];
        let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        // Blocks, and how many leaves lie above the values that are data.
        let mut next = vec![(le64(at(0), 320).unwrap(), 1)];
        while let Some((block, above)) = next.pop() {
            if !seen.insert(block) {
                continue;
            }
            let node = Node::of(at(block));
            for number in (0..node.len).map(|index| node.number(index).unwrap()) {
                match (node.is_inner, above) {
                    (true, above) => next.push((number, above)),
                    (false, 1) => next.push((number, 0)),
                    (false, _) => *counts.entry(number >> 24).or_default() += 1,
                }
            }
        }
        let mut state = self.pool.lock();
        assert_eq!(state.used(), counts.len() as u64);
        for block in 0..self.data.size / CHUNK {
            assert_eq!(state.count(block), counts.get(&block).copied().unwrap_or(0), "block {block} of data");
        }
    }

    fn create(&mut self, device: u32) {
        self.pool.lock().create(device).unwrap();
        self.model.insert(device, HashMap::new());
    }

    fn snapshot(&mut self, of: u32, device: u32) {
        self.pool.lock().snapshot(of, device).unwrap();
        self.model.insert(device, self.model[&of].clone());
    }
}

#[test]
fn random_writes_and_snapshots_keep_every_volume_and_the_books_right() {
    for seed in 1..4 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut scene = Scene::new(1500, 20_000, 48 << 20);
        scene.create(1);
        for step in 0..2500_u64 {
            let devices = u32::try_from(scene.model.len()).unwrap();
            let device = 1 + u32::try_from(dice.below(devices.into())).unwrap();
            // Some writes in a row, some anywhere.
            let block = if step % 3 == 0 { dice.below(768) } else { (step * 7 + u64::from(device)) % 768 };
            let sector = block * 128 + dice.below(128);
            match dice.below(100) {
                0 if devices < 8 => scene.snapshot(device, devices + 1),
                1..=5 => {
                    let range =
                        GuestRange::new(GuestOffset(sector * 512), Bytes(512 * (1 + dice.below(400))));
                    scene.disk(device).zero_at(range).unwrap();
                    let end = (range.end().0 / 512).min(scene.size / 512);
                    scene.model.get_mut(&device).unwrap().retain(|&at, _| !(sector..end).contains(&at));
                }
                _ => scene.write(device, sector, step + 1).unwrap(),
            }
        }
        assert!(scene.model.len() > 4, "{}", scene.model.len());
        scene.audit();
    }
}

/// Blocks with more users than the bitmaps count, in trees of more than one node that grow and shrink again.
#[test]
fn counts_above_two_come_and_go() {
    let mut scene = Scene::new(1200, 9000, 64 << 20);
    scene.create(1);
    for block in 0..1024 {
        scene.write(1, block * 128, block + 1).unwrap();
    }
    for device in 2..6 {
        scene.snapshot(1, device);
        // One block of every leaf: all others of it get one user more.
        for block in (0..1024).step_by(60) {
            scene.write(device, block * 128 + 1, block + 7).unwrap();
        }
    }
    scene.audit();
    let mut dice = Dice(77);
    for device in [3, 1, 5, 2, 4] {
        let first = dice.below(1024);
        for step in 0..1024 {
            scene.write(device, (first + step * 5) % 1024 * 128 + 2, step + 9).unwrap();
        }
        scene.audit();
    }
}

#[test]
fn a_full_pool_is_an_error_with_a_hint_and_stays_as_it_was() {
    let mut scene = Scene::new(100, 10, 4 << 20);
    scene.create(1);
    for block in 0..10 {
        scene.write(1, block * 128, 1).unwrap();
    }
    let before = copy(&*scene.metadata);
    scene.write(1, 5, 2).unwrap();
    let error = scene.write(1, 10 * 128, 3).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.says().contains("vg/pool is full: all 10 blocks of 64.0 KiB"), "{error}");
    assert!(error.hint_text().unwrap().contains("lvextend"));
    assert_eq!(copy(&*scene.metadata), before);
    // What was half done is not gone on with.
    assert!(scene.write(1, 5, 2).unwrap_err().says().contains("not written any more"));
    scene.reopen();
    scene.check();
    // No room for metadata.
    let mut scene = Scene::new(10, 5000, 64 << 20);
    scene.create(1);
    let failed = (0..1024).find_map(|block| scene.write(1, block * 128, 1).err()).unwrap();
    assert!(failed.says().contains("metadata volume is full"), "{failed}");
}

#[test]
fn what_lies_outside_of_the_pool_is_read_and_copied_and_never_written() {
    let mut scene = Scene::new(100, 100, 1 << 20);
    scene.create(1);
    // It ends inside of a block.
    let origin = Memory::patterned(200_000 / 512 * 512, 5);
    let before = copy(&*origin);
    let disk = ThinDisk::new(scene.pool.clone(), 1, Bytes(scene.size), Some(origin.clone()));
    let mut expected = before.clone();
    expected.resize(1 << 20, 0);
    let read = |disk: &ThinDisk| {
        let mut all = vec![0; 1 << 20];
        disk.read_at(GuestOffset(0), &mut all).unwrap();
        all
    };
    assert!(read(&disk) == expected);
    for at in [512_usize, 66_048, 199_168, 300_032] {
        disk.write_at(GuestOffset(at as u64), &[0xee; 1024]).unwrap();
        expected[at..at + 1024].fill(0xee);
    }
    disk.zero_at(GuestRange::new(GuestOffset(131_072), Bytes(1024))).unwrap();
    expected[131_072..132_096].fill(0);
    assert!(read(&disk) == expected);
    assert!(copy(&*origin) == before);
    let kinds: Vec<_> = disk
        .extents(GuestRange::new(GuestOffset(0), Bytes(1 << 20)), 9)
        .unwrap()
        .iter()
        .map(|extent| (extent.range.start().0 / CHUNK, extent.kind))
        .collect();
    assert_eq!(kinds, [(0, ExtentKind::Data), (5, ExtentKind::Zero)]);
}

#[test]
fn zeroes_take_no_blocks() {
    let mut scene = Scene::new(100, 100, 1 << 30);
    scene.create(1);
    scene.write(1, 1000, 1).unwrap();
    scene.disk(1).zero_at(GuestRange::new(GuestOffset(0), Bytes(1 << 30))).unwrap();
    assert_eq!(scene.pool.lock().used(), 1);
    scene.model.get_mut(&1).unwrap().clear();
    scene.model.get_mut(&1).unwrap().insert(1000, 0);
    scene.audit();
}

/// A pool with two volumes that share most of their blocks.
fn shared() -> Scene {
    let mut scene = Scene::new(100, 1000, 40 << 20);
    scene.create(1);
    for block in 0..300 {
        scene.write(1, block * 128, block + 1).unwrap();
    }
    scene.snapshot(1, 2);
    scene.snapshot(1, 3);
    scene.write(2, 5, 7).unwrap();
    scene
}

fn sorts() -> [Sort; 4] {
    [Sort::ThinSuperblock, Sort::Node, Sort::Bitmap, Sort::Index]
}

/// Reads and writes all over; what comes of it.
fn exercise(metadata: Vec<u8>, data: Arc<Sparse>) -> Result<()> {
    let pool = Arc::new(Pool::open("p", Arc::new(Memory::new(metadata)), data)?);
    let mut outcome = Ok(());
    for device in 1..4 {
        outcome = outcome.and(pool.has(device).map(drop));
        let disk = ThinDisk::new(pool.clone(), device, Bytes(40 << 20), None);
        let mut buffer = vec![0; 1 << 20];
        for at in (0..40).step_by(3) {
            outcome = outcome.and(disk.read_at(GuestOffset(at << 20), &mut buffer));
            outcome = outcome
                .and(disk.extents(GuestRange::new(GuestOffset(at << 20), Bytes(1 << 20)), 3).map(drop));
        }
        for at in (0..40).step_by(5) {
            outcome = outcome.and(disk.write_at(GuestOffset(at << 20), &[1; 512]));
        }
        outcome = outcome.and(disk.zero_at(GuestRange::new(GuestOffset(0), Bytes(40 << 20))));
    }
    outcome
}

fn never_silent(error: &Error) {
    assert!(
        matches!(error.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Refused | Kind::Io),
        "{error:?}"
    );
}

#[test]
fn every_flipped_or_missing_byte_is_noticed() {
    let scene = shared();
    let raw = copy(&*scene.metadata);
    let mut dice = Dice(4711);
    for block in 0..40_usize {
        if raw[block * BLOCK..][..BLOCK].iter().all(|&byte| byte == 0) {
            continue;
        }
        for _ in 0..6 {
            let mut bad = raw.clone();
            let at = block * BLOCK + usize::try_from(dice.below(BLOCK as u64)).unwrap();
            bad[at] ^= 1 << dice.below(8);
            // A block that nothing refers to may hold anything: then all is as it was.
            if let Err(error) = exercise(bad, scene.data.clone()) {
                never_silent(&error);
            }
        }
    }
    for len in (0..raw.len()).step_by(BLOCK / 2) {
        if let Err(error) = exercise(raw[..len].to_vec(), scene.data.clone()) {
            never_silent(&error);
        }
    }
    let mut flipped = raw.clone();
    flipped[100] ^= 1;
    assert_eq!(exercise(flipped, scene.data.clone()).unwrap_err().kind(), Kind::Corrupt);
}

/// With checksums that are right: circles, blocks beyond the end, counts that do not fit. Errors, or other data, but an end.
#[test]
fn hostile_metadata_end_in_an_error() {
    let scene = shared();
    let raw = copy(&*scene.metadata);
    let mut dice = Dice(815);
    let (mut failed, mut tried) = (0, 0);
    for block in 0..40_u64 {
        let here = usize::try_from(block).unwrap() * BLOCK;
        let kind = sorts()
            .into_iter()
            .find(|&sort| Store::new(Arc::new(Memory::new(raw.clone()))).read(block, sort).is_ok());
        let Some(sort) = kind else { continue };
        for _ in 0..40 {
            let mut bad = raw[here..here + BLOCK].to_vec();
            for _ in 0..=dice.below(3) {
                // Fields at the beginning are more telling than what is behind them.
                let end = if dice.below(2) == 0 { 60 } else { 4092 };
                let at = 4 + usize::try_from(dice.below(end)).unwrap();
                let small = u8::try_from(dice.below(41)).unwrap();
                bad[at] = if dice.below(2) == 0 { small } else { bad[at] ^ (1 << dice.below(8)) };
            }
            let disk = Arc::new(Memory::new(raw.clone()));
            let mut store = Store::new(disk.clone());
            store.put(block, sort, bad).unwrap();
            store.commit().unwrap();
            tried += 1;
            if let Err(error) = exercise(copy(&*disk), scene.data.clone()) {
                never_silent(&error);
                failed += 1;
            }
        }
    }
    assert!(tried > 400 && failed > tried / 4, "{failed} of {tried}");
    // A node that is its own child.
    let disk = Arc::new(Memory::new(raw.clone()));
    let mut store = Store::new(disk.clone());
    let mut circle = Draft::new(true, 8);
    circle.entries.push((0, crate::volume::persistent::node::value(&6_u64.to_le_bytes())));
    store.put(6, Sort::Node, circle.block()).unwrap();
    store.commit().unwrap();
    let pool = Pool::open("p", disk, scene.data.clone()).unwrap();
    assert!(pool.has(1).unwrap_err().says().contains("circle"));
}

#[test]
fn pools_that_must_not_be_written_say_so() {
    let raw = copy(&*shared().metadata);
    let opened = |at: usize, bytes: &[u8]| {
        let disk = Arc::new(Memory::new(raw.clone()));
        let mut store = Store::new(disk.clone());
        let mut block = store.read(0, Sort::ThinSuperblock).unwrap().to_vec();
        set(&mut block, at, bytes);
        store.put(0, Sort::ThinSuperblock, block).unwrap();
        store.commit().unwrap();
        Pool::open("p", disk, Sparse::new(1000 * CHUNK)).map(drop)
    };
    assert!(opened(4, &[0]).is_ok());
    for (at, bytes, says) in [
        (4, &[1][..], "marked to be checked"),
        (56, &[9], "snapshot of its metadata"),
        (40, &[3], "version 3"),
        (360, &[1], "features"),
        (336, &[127], "blocks of data of 127 sectors"),
        (340, &[16], "blocks of metadata of 16"),
        (32, &[0], "magic"),
        (64, &[0, 0, 1], "blocks of data are counted"),
        (192, &[101], "blocks of metadata are counted"),
    ] {
        let error = opened(at, bytes).unwrap_err();
        assert!(error.says().contains(says), "{error}");
        assert!(error.kind() == Kind::Corrupt || error.hint_text().is_some(), "{error}");
    }
}
