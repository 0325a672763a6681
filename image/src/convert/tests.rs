use super::*;
use crate::Kind;
use crate::create::CreateOptions;
use crate::testing::{self, Faults, FaultyDisk, MemDisk, RecordingSink, mixed, noise_bytes};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn jobs(jobs: usize) -> Options {
    Options { jobs, ..Options::default() }
}

/// The digest, straight from its definition.
fn digest_by_definition(content: &[u8]) -> blake3::Hash {
    let mut all = b"landfall-content-1".to_vec();
    all.extend((content.len() as u64).to_le_bytes());
    for (n, block) in content.chunks(1 << 20).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            all.extend(((n as u64) << 20).to_le_bytes());
            all.extend(blake3::hash(block).as_bytes());
        }
    }
    blake3::hash(&all)
}

#[test]
fn every_byte_reaches_every_kind_of_sink_once() {
    let disk = mixed(1, Bytes(9 * MIB + 777));
    let content = testing::read_all(&disk).unwrap();
    for granularity in [512, 4 << 10, 64 << 10, MIB, 2 * MIB] {
        for workers in [1, 2, 8] {
            let (sink, recording) = RecordingSink::new(Bytes(granularity), disk.size());
            let converted = convert(&disk, Box::new(sink), &jobs(workers)).unwrap();
            recording.assert_complete(disk.size());
            let written = testing::read_all(&recording.disk(disk.size())).unwrap();
            assert!(written == content, "{granularity}, {workers}");
            assert_eq!(converted.digest, digest_by_definition(&content));
            let stored: u64 = recording
                .ops()
                .iter()
                .map(|op| if let testing::Op::Data(range) = op { range.len().0 } else { 0 })
                .sum();
            assert_eq!(converted.copied.0, stored);
            assert_eq!(converted.zeros().0, content.len() as u64 - stored);
        }
    }
}

/// Over a base only what differs from it is stored, what is zeros over data is said to be so, and both together are
/// the disk; whatever the base's size.
#[test]
fn over_a_base_only_differences_are_stored() {
    let disk = mixed(1, Bytes(9 * MIB + 777));
    let content = testing::read_all(&disk).unwrap();
    let mut older = content.clone();
    older[5000] ^= 1;
    older[2 << 20..3 << 20].fill(9);
    older[8 << 20..].fill(1); // zeros in the disk's own map
    let shorter = older[..6 << 20].to_vec();
    let mut longer = older.clone();
    longer.extend([7; 100_000]);
    for base in [older, shorter, longer, vec![], content.clone()] {
        let same = base == content;
        let base = MemDisk::from_bytes(base);
        for granularity in [512, 64 << 10, MIB] {
            let (sink, recording) = RecordingSink::new(Bytes(granularity), disk.size());
            let converted = convert_with(&disk, Some(&base), Box::new(sink), None, &jobs(3)).unwrap();
            recording.assert_complete(disk.size());
            assert_eq!(converted.digest, digest_by_definition(&content));
            let mut merged = testing::read_all(&base).unwrap();
            merged.resize(content.len(), 0);
            for op in recording.ops() {
                match op {
                    testing::Op::Zero(range) => {
                        merged[index(range.start().0)..index(range.end().0)].fill(0);
                    }
                    testing::Op::Data(range) => {
                        let mut bytes = vec![0; index(range.len().0)];
                        recording.disk(disk.size()).read_at(range.start(), &mut bytes).unwrap();
                        merged[index(range.start().0)..index(range.end().0)].copy_from_slice(&bytes);
                    }
                    _ => {}
                }
            }
            assert!(merged == content, "{granularity}");
            if same {
                assert_eq!(converted.copied, Bytes(0));
            }
        }
    }
    // A disk that is all zeros over data that lies anywhere.
    let base = MemDisk::new(Bytes(5 << 30)).data(700, [1; 10]).data((4 << 30) - 1, [1; 2]);
    let (sink, recording) = RecordingSink::new(Bytes::kib(64), Bytes(5 << 30));
    convert_with(&MemDisk::new(Bytes(5 << 30)), Some(&base), Box::new(sink), None, &jobs(2)).unwrap();
    let log = "\
zero 0x0 + 0x10000
keep 0x10000 + 0x3fff0000
keep 0x40000000 + 0x40000000
keep 0x80000000 + 0x40000000
keep 0xc0000000 + 0x3fff0000
zero 0xffff0000 + 0x10000
zero 0x100000000 + 0x10000
keep 0x100010000 + 0x3fff0000
finish
";
    assert_eq!(recording.log(), log);
}

/// The exact calls: what is sparse stays sparse, in whole granules, zeros in one piece.
#[test]
fn the_log_of_a_conversion() {
    let mut holed = noise_bytes(3, 1 << 20);
    holed[128 << 10..256 << 10].fill(0);
    let disk = MemDisk::new(Bytes(3 << 30))
        .data(5 * MIB + 1000, noise_bytes(1, 500))
        .data(8 * MIB, holed)
        .data(9 * MIB, vec![0; 2 << 20])
        .zero(100 * MIB, MIB)
        .data((2 << 30) - 512, noise_bytes(2, 1024));
    let (sink, recording) = RecordingSink::new(Bytes::kib(64), disk.size());
    convert(&disk, Box::new(sink), &jobs(3)).unwrap();
    recording.assert_complete(disk.size());
    let log = "\
zero 0x0 + 0x500000
data 0x500000 + 0x10000
zero 0x510000 + 0x2f0000
data 0x800000 + 0x20000
zero 0x820000 + 0x20000
data 0x840000 + 0xc0000
zero 0x900000 + 0x3f700000
zero 0x40000000 + 0x3fff0000
data 0x7fff0000 + 0x10000
data 0x80000000 + 0x10000
zero 0x80010000 + 0x3fff0000
finish
";
    assert_eq!(recording.log(), log);
}

#[test]
fn an_empty_disk_costs_nothing_however_large() {
    for size in [0, 1, 16 << 40, crate::limits::DISK_SIZE.0] {
        let disk = FaultyDisk { disk: MemDisk::new(Bytes(size)), faults: Faults::never() };
        let (sink, recording) = RecordingSink::new(Bytes::kib(64), disk.size());
        let options = jobs(2);
        let converted = convert(&disk, Box::new(sink), &options).unwrap();
        recording.assert_complete(disk.size());
        assert_eq!(converted.copied, Bytes(0));
        assert_eq!(options.progress.snapshot().fraction(), if size == 0 { 0.0 } else { 1.0 });
        assert!(disk.faults.count() <= 1, "one look at the map");
        assert!(compare(&disk, &MemDisk::new(Bytes(7)), &options).unwrap().is_same_content());
    }
}

#[test]
fn the_fraction_rises_from_0_to_1() {
    let disk = mixed(1, Bytes(64 * MIB));
    let options = Options { rate_limit: Some(RateLimit::new(Bytes(20 * MIB))), ..jobs(2) };
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| digest(&disk, &options).unwrap());
        while !run.is_finished() {
            if options.progress.snapshot().size.0 == 0 {
                continue; // not begun
            }
            seen.push(options.progress.snapshot());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    seen.push(options.progress.snapshot());
    assert!(seen.windows(2).skip(1).all(|pair| pair[0].fraction() <= pair[1].fraction()), "{seen:?}");
    let last = seen.last().unwrap();
    assert_eq!((last.fraction(), last.scanned, last.total), (1.0, disk.size(), last.read));
}

#[test]
fn a_rate_limit_is_kept_and_a_request_to_stop_heeded_meanwhile() {
    let disk = MemDisk::from_bytes(noise_bytes(1, 8 << 20));
    let begin = Instant::now();
    digest(&disk, &Options { rate_limit: Some(RateLimit::new(Bytes(20 * MIB))), ..jobs(4) }).unwrap();
    // The last chunk of 2 MiB is read 6 MiB after the first one.
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    // Two at once share it.
    let shared = Options { rate_limit: Some(RateLimit::new(Bytes(20 * MIB))), ..jobs(2) };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                digest(&disk, &Options { progress: Progress::default(), ..shared.clone() }).unwrap()
            });
        }
    });
    assert!(begin.elapsed() >= Duration::from_millis(700), "{:?}", begin.elapsed());
    let options = Options { rate_limit: Some(RateLimit::new(Bytes(1))), ..jobs(4) };
    let cancel = options.cancel.clone();
    let result = std::thread::scope(|scope| {
        let run = scope.spawn(|| digest(&disk, &options));
        std::thread::sleep(Duration::from_millis(30));
        cancel.cancel();
        run.join().unwrap()
    });
    assert_eq!(result.unwrap_err().kind(), Kind::Interrupted);
}

#[test]
fn a_cancelled_conversion_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = mixed(1, Bytes(8 * MIB));
    let options = jobs(2);
    options.cancel.cancel();
    let sink = crate::raw::create(&dir.path().join("a"), disk.size(), &CreateOptions::default()).unwrap();
    assert_eq!(convert(&disk, sink, &options).unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A reader whose map has a hole must not lose data without a word.
#[test]
fn a_map_that_says_nothing_is_an_error() {
    struct Broken(u8);
    impl Disk for Broken {
        fn size(&self) -> Bytes {
            Bytes(8 * MIB)
        }
        fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<crate::Extent>> {
            let kind = crate::ExtentKind::Zero;
            let at = |start: u64, len: u64| crate::Extent {
                range: GuestRange::new(GuestOffset(start), Bytes(len)),
                kind,
            };
            Ok(match self.0 {
                0 => vec![],
                1 => vec![at(range.start().0 + 1, MIB)],
                2 => vec![at(0, MIB), at(2 * MIB, MIB)],
                _ => vec![at(range.start().0, 0)],
            })
        }
        fn read_at(&self, _: GuestOffset, _: &mut [u8]) -> Result<()> {
            Ok(())
        }
    }
    for n in 0..4 {
        assert_eq!(digest(&Broken(n), &jobs(2)).unwrap_err().kind(), Kind::Corrupt, "{n}");
    }
}

#[test]
fn a_granularity_that_would_not_fit_memory_is_refused() {
    for granularity in [0, 3 << 10, 4 * MIB, 1 << 63] {
        let (sink, _) = RecordingSink::new(Bytes(granularity), Bytes(0));
        let error = convert(&MemDisk::new(Bytes(0)), Box::new(sink), &jobs(1)).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}

#[test]
fn differences_are_found_at_the_first_byte() {
    let size = 40 * MIB;
    let base =
        MemDisk::new(Bytes(size)).data(3 * MIB, noise_bytes(1, 5 << 20)).data(30 * MIB, vec![0; 1 << 20]);
    let content = testing::read_all(&base).unwrap();
    let same = MemDisk::from_bytes(content.clone());
    assert!(compare(&base, &same, &jobs(3)).unwrap().is_identical());
    for at in [0, 511, 3 * MIB, 3 * MIB + 4097, 8 * MIB - 1, 8 * MIB, 30 * MIB + 5, size - 1] {
        let mut other = content.clone();
        other[index(at)] ^= 0x10;
        if let Some(later) = other.get_mut(index(at + 6 * MIB)) {
            *later ^= 1;
        }
        let other = MemDisk::from_bytes(other);
        for (a, b) in [(&base, &other), (&other, &base)] {
            let compared = compare(a, b, &jobs(3)).unwrap();
            assert_eq!(compared.first_difference, Some(GuestOffset(at)));
            assert!(!compared.is_same_content());
        }
    }
    // Of different sizes: the same as long as the longer one goes on with zeros.
    for (tail, same) in [(0u8, true), (9, false)] {
        let mut longer = content.clone();
        longer.extend([0; 1000]);
        longer.push(tail);
        let longer = MemDisk::from_bytes(longer);
        for (a, b) in [(&base, &longer), (&longer, &base)] {
            let compared = compare(a, b, &jobs(2)).unwrap();
            assert_eq!(compared.is_same_content(), same);
            assert!(!compared.is_identical());
            assert_eq!(compared.first_difference, (!same).then_some(GuestOffset(size + 1000)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Disks of any shape: the plan covers them, the digest is that of the content, and a copy compares equal.
    #[test]
    fn disks_of_any_shape(
        size in 1..7 * MIB,
        runs in prop::collection::vec((0..7 * MIB, 1..600_000u64, 0..4u8), 0..30),
        granularity in prop::sample::select(vec![512, 4096, 65_536, 2 * MIB]),
    ) {
        let mut disk = MemDisk::new(Bytes(size));
        let mut here = 0;
        let mut runs = runs;
        runs.sort_unstable();
        for (at, len, kind) in runs {
            let at = at.max(here);
            if at >= size {
                break;
            }
            let len = len.min(size - at);
            disk = match kind {
                0 => disk.zero(at, len),
                1 => disk.data(at, vec![0; index(len)]),
                _ => disk.data(at, noise_bytes(at, index(len))),
            };
            here = at + len;
        }
        let content = testing::read_all(&disk).unwrap();
        let (sink, recording) = RecordingSink::new(Bytes(granularity), Bytes(size));
        let converted = convert(&disk, Box::new(sink), &jobs(3)).unwrap();
        recording.assert_complete(Bytes(size));
        let copy = recording.disk(Bytes(size));
        prop_assert!(testing::read_all(&copy).unwrap() == content);
        prop_assert_eq!(converted.digest, digest_by_definition(&content));
        prop_assert!(compare(&disk, &copy, &jobs(2)).unwrap().is_identical());
    }
}
