use super::*;
use crate::Kind;
use crate::testing::Memory;
use crate::volume::persistent::node::{Draft, value};
use crate::volume::persistent::set;

const CHUNK: u64 = 32 << 10;

/// Metadata of a cache of 1000 blocks: these are mapped to blocks of the origin, and these blocks of it are discarded.
fn metadata(mapped: &[(usize, u64)], discarded: &[usize]) -> Vec<u8> {
    let disk = Arc::new(Memory::new(vec![0; 8 * BLOCK]));
    let mut store = Store::new(disk.clone());
    let tree = |children: &[u64]| {
        let mut node = Draft::new(false, 8);
        node.entries = (0..).zip(children).map(|(key, child)| (key, value(&child.to_le_bytes()))).collect();
        node.block()
    };
    let block = |numbers: &[u64]| {
        let mut block = vec![0; BLOCK];
        set(&mut block, 4, &509_u32.to_le_bytes());
        set(&mut block, 8, &u32::try_from(numbers.len()).unwrap().to_le_bytes());
        set(&mut block, 12, &8_u32.to_le_bytes());
        for (index, number) in numbers.iter().enumerate() {
            set(&mut block, 24 + index * 8, &number.to_le_bytes());
        }
        block
    };
    let mut mappings = vec![0; 1000];
    for &(block, of) in mapped {
        mappings[block] = of << 16 | 1;
    }
    let mut bits = vec![0_u64; 4];
    for &block in discarded {
        bits[block / 64] |= 1 << (block % 64);
    }
    store.put(1, Sort::Node, tree(&[3, 4])).unwrap();
    store.put(2, Sort::Node, tree(&[5])).unwrap();
    store.put(3, Sort::Array, block(&mappings[..509])).unwrap();
    store.put(4, Sort::Array, block(&mappings[509..])).unwrap();
    store.put(5, Sort::Array, block(&bits)).unwrap();
    let mut superblock = vec![0; BLOCK];
    for (at, number) in [(32, 0o6_142_003_u64), (192, 1), (208, 2), (216, 64), (224, 200)] {
        set(&mut superblock, at, &number.to_le_bytes());
    }
    for (at, number) in [(40, 2_u32), (232, 64), (236, 8), (240, 1000)] {
        set(&mut superblock, at, &number.to_le_bytes());
    }
    store.put(0, Sort::CacheSuperblock, superblock).unwrap();
    store.commit().unwrap();
    all(&*disk)
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().to_usize().unwrap()];
    disk.read_at(GuestOffset(0), &mut bytes).unwrap();
    bytes
}

struct Scene {
    metadata: Arc<Memory>,
    fast: Arc<dyn DiskMut>,
    origin: Arc<dyn DiskMut>,
}

impl Scene {
    fn new(metadata: Vec<u8>) -> Scene {
        Scene {
            metadata: Arc::new(Memory::new(metadata)),
            fast: Memory::patterned(usize::try_from(1000 * CHUNK).unwrap(), 1),
            // The last block is a part of one.
            origin: Memory::patterned(usize::try_from(199 * CHUNK + 512).unwrap(), 2),
        }
    }
    fn open(&self) -> Result<Cached> {
        Cached::open(self.metadata.clone(), self.fast.clone(), self.origin.clone())
    }
}

#[test]
fn what_is_mapped_is_read_from_the_cache_and_written_to_both() {
    let scene = Scene::new(metadata(&[(7, 3), (508, 4), (509, 199), (999, 0)], &[2, 3, 100]));
    let cached = scene.open().unwrap();
    let (fast, mut expected) = (all(&*scene.fast), all(&*scene.origin));
    let chunk = |number: usize| number * (32 << 10)..(number + 1) * (32 << 10);
    for (from, to) in [(7, 3), (508, 4), (999, 0)] {
        expected[chunk(to)].copy_from_slice(&fast[chunk(from)]);
    }
    let last = chunk(199).start;
    expected[last..].copy_from_slice(&fast[chunk(509)][..512]);
    assert!(all(&cached) == expected);
    // From a block that is not mapped into two that are.
    let at = chunk(2).end - 1000;
    let bytes = vec![0x5a; 40_000];
    cached.write_at(GuestOffset(at as u64), &bytes).unwrap();
    expected[at..at + 40_000].copy_from_slice(&bytes);
    cached.zero_at(GuestRange::new(GuestOffset(last as u64 - 700), Bytes(1212))).unwrap();
    expected[last - 700..].fill(0);
    assert!(all(&cached) == expected);
    assert!(all(&scene.open().unwrap()) == expected);
    let (fast, origin) = (all(&*scene.fast), all(&*scene.origin));
    assert!(fast[chunk(7)] == expected[chunk(3)] && fast[chunk(508)][..6232] == bytes[..6232]);
    assert!(origin[at..at + 40_000] == bytes[..], "the slow volume has it, too");
    assert!(origin[chunk(0)] != expected[chunk(0)], "what was not written is not copied");
    // What was written is not discarded any more; what was not, is.
    assert!(all(&*scene.metadata) == metadata(&[(7, 3), (508, 4), (509, 199), (999, 0)], &[100]));
}

#[test]
fn contradictions_are_errors() {
    let opened = |metadata: Vec<u8>| {
        Scene::new(metadata).open().map(drop).map_err(|error| (error.kind(), error.to_string()))
    };
    assert!(opened(metadata(&[], &[])).is_ok());
    let (kind, says) = opened(metadata(&[(1, 5), (600, 5)], &[])).unwrap_err();
    assert!(kind == Kind::Corrupt && says.contains("block 5 is in the cache twice"), "{says}");
    let (kind, says) = opened(metadata(&[(1, 200)], &[])).unwrap_err();
    assert!(kind == Kind::Corrupt && says.contains("is of block 200; there are 200"), "{says}");
    let changed = |at: usize, bytes: &[u8]| {
        let disk = Arc::new(Memory::new(metadata(&[], &[])));
        let mut store = Store::new(disk.clone());
        let mut block = store.read(0, Sort::CacheSuperblock).unwrap().to_vec();
        set(&mut block, at, bytes);
        store.put(0, Sort::CacheSuperblock, block).unwrap();
        store.commit().unwrap();
        opened(all(&*disk))
    };
    for (at, bytes, says) in [
        (4, &[2][..], "to be checked"),
        (32, &[0], "magic"),
        (40, &[3], "version 3"),
        (232, &[63], "blocks of 63 sectors"),
        (236, &[16], "blocks of metadata of 16"),
        (240, &[0, 0, 0x21], "up to 2097152"),
        (240, &[0xe9, 3], "more than the fast volume"),
        (252, &[1], "features"),
        (192, &[9], "ends at block 8"),
        (192, &[5], "checksum"),
    ] {
        let (_, found) = changed(at, bytes).unwrap_err();
        assert!(found.contains(says), "{found}");
    }
    // More entries than the array has; discarded blocks without bits.
    let scene = Scene::new(metadata(&[], &[]));
    assert!(changed(240, &[0xe8, 3]).is_ok() && scene.open().is_ok());
}

#[test]
fn damaged_metadata_end_in_an_error() {
    let raw = metadata(&[(7, 3), (508, 4)], &[2]);
    for at in (0..6 * BLOCK).step_by(97) {
        let mut bad = raw.clone();
        bad[at] ^= 0x10;
        let scene = Scene::new(bad);
        let outcome =
            scene.open().and_then(|cached| cached.zero_at(GuestRange::new(GuestOffset(0), Bytes(1 << 20))));
        assert_eq!(outcome.unwrap_err().kind(), Kind::Corrupt, "byte {at}");
    }
    for len in (0..6 * BLOCK).step_by(1000) {
        assert!(Scene::new(raw[..len].to_vec()).open().is_err() || len >= 5 * BLOCK, "{len} bytes");
    }
}
