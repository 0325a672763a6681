//! Images that we wrote, checked and read by QEMU.

use super::*;
use crate::convert::{self, Options};
use crate::create::{Base, Compression, CreateOptions, FileOptions, Preallocation};
use crate::formats::Format;
use crate::qcow2::create;
use crate::suite::check_sink;
use crate::testing::{MemDisk, mixed, noise_bytes, read_all, text_bytes};

fn options(cluster_size: u64, compression: Option<Compression>) -> CreateOptions {
    CreateOptions { block_size: Some(Bytes(cluster_size)), compression, ..CreateOptions::default() }
}

const REPLACE: FileOptions = FileOptions { replace: true, resume: false, sync: false };

const COMPRESSIONS: [Option<Compression>; 3] = [None, Some(Compression::Zlib), Some(Compression::Zstd)];

#[test]
fn the_sink_passes_the_suite() {
    for (cluster_size, compression) in
        [(65536, None), (65536, Some(Compression::Zstd)), (65536, Some(Compression::Zlib)), (1 << 21, None)]
    {
        check_sink(
            |path, size, files| {
                create(path, size, &CreateOptions { files, ..options(cluster_size, compression) })
            },
            |path| Ok(open(path)?.disk),
        );
    }
}

/// Writes `disk` with several threads, lets QEMU check the image and compare its content.
fn write_and_check(folder: &Path, disk: &MemDisk, options: &CreateOptions) -> u64 {
    let what = format!("{options:?} {}", disk.size().0);
    let path = folder.join("a.qcow2");
    let sink = create(&path, disk.size(), options).unwrap();
    let converted = convert::convert(disk, sink, &Options { jobs: 4, ..Options::default() }).unwrap();
    assert!(converted.receipt.allocated.0 > 0, "{what}");
    let check = run(folder, "qemu-img check -f qcow2 a.qcow2");
    assert!(check.contains("No errors were found"), "{what}: {check}");
    if disk.size().0 < 1 << 30 {
        std::fs::write(folder.join("a.raw"), read_all(disk).unwrap()).unwrap();
        run(folder, "qemu-img compare -f raw -F qcow2 a.raw a.qcow2");
    }
    let ours = open(&path).unwrap();
    assert!(convert::compare(disk, &*ours.disk, &Options::default()).unwrap().is_identical(), "{what}");
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::remove_file(path).unwrap();
    len
}

#[test]
fn qemu_finds_no_fault_and_the_same_content() {
    if !have("qemu_finds_no_fault_and_the_same_content", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for cluster_size in [512, 4096, 65536, 1 << 18, 1 << 21] {
        for compression in COMPRESSIONS {
            let options = options(cluster_size, compression);
            write_and_check(dir.path(), &mixed(7, Bytes(9 << 20)), &options);
            // Compressible and incompressible clusters by turns, and an end inside a cluster.
            let mut bytes = Vec::new();
            for n in 0..60u8 {
                let (seed, piece) = (u64::from(n), 1 + 7919 * usize::from(n));
                bytes.extend(noise_bytes(seed, piece % 150_000));
                bytes.extend(text_bytes(seed, piece * 3 % 200_000));
                bytes.extend(vec![n; piece * 5 % 100_000]);
            }
            bytes.truncate(bytes.len() / 512 * 512);
            write_and_check(dir.path(), &MemDisk::from_bytes(bytes), &options);
        }
    }
}

#[test]
fn sizes_around_every_boundary_are_written() {
    if !have("sizes_around_every_boundary_are_written", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for compression in COMPRESSIONS {
        for size in [512, 65024, 65536, 66048, 1 << 20, (1 << 20) + 512, (1 << 25) + 512] {
            let options = options(4096, compression);
            write_and_check(dir.path(), &MemDisk::new(Bytes(size)), &options);
            write_and_check(dir.path(), &MemDisk::new(Bytes(size)).data(0, [1; 512]), &options);
            write_and_check(dir.path(), &MemDisk::new(Bytes(size)).data(size - 512, [1; 512]), &options);
        }
    }
    // Far apart: many L2 tables, few clusters.
    let mut far = MemDisk::new(Bytes(64 << 40));
    for n in 0..40u64 {
        far = far.data(n * n * n * 1_000_000_512, text_bytes(n, 3000));
    }
    for compression in COMPRESSIONS {
        let len = write_and_check(dir.path(), &far, &options(65536, compression));
        assert!(len < 16 << 20, "{len}");
    }
    write_and_check(dir.path(), &MemDisk::new(crate::limits::DISK_SIZE), &options(65536, None));
}

/// A size that is no multiple of 512 is rounded up; the rest reads as zeros.
#[test]
fn an_odd_size_is_rounded_up_to_sectors() {
    if !have("an_odd_size_is_rounded_up_to_sectors", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bytes = text_bytes(1, 100_001);
    for compression in COMPRESSIONS {
        let path = dir.path().join("a.qcow2");
        let disk = MemDisk::from_bytes(bytes.clone());
        let sink =
            create(&path, disk.size(), &CreateOptions { files: REPLACE, ..options(65536, compression) });
        convert::convert(&disk, sink.unwrap(), &Options::default()).unwrap();
        run(dir.path(), "qemu-img check -q a.qcow2");
        let mut padded = bytes.clone();
        padded.resize(100_352, 0);
        assert!(qemu_reads(dir.path(), "a.qcow2") == padded);
        assert!(read_all(&*open(&path).unwrap().disk).unwrap() == padded);
    }
}

#[test]
fn compression_pays_and_incompressible_clusters_stay_verbatim() {
    let dir = tempfile::tempdir().unwrap();
    let len = |bytes: Vec<u8>, compression| {
        let path = dir.path().join("a.qcow2");
        let disk = MemDisk::from_bytes(bytes);
        let sink = create(&path, disk.size(), &options(65536, compression)).unwrap();
        convert::convert(&disk, sink, &Options { jobs: 3, ..Options::default() }).unwrap();
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::remove_file(path).unwrap();
        len
    };
    let plain = len(text_bytes(1, 8 << 20), None);
    assert_eq!(plain, (8 << 20) + 5 * 65536, "header, L1, L2, a block and the table of refcounts");
    for compression in [Compression::Zlib, Compression::Zstd] {
        assert!(len(text_bytes(1, 8 << 20), Some(compression)) < plain / 3);
        assert_eq!(len(noise_bytes(1, 8 << 20), Some(compression)), plain);
    }
    // By turns: half of it is incompressible, and a single region of 1 MiB takes all the packed clusters.
    let by_turns: Vec<u8> =
        (0..64u8).flat_map(|n| [noise_bytes(n.into(), 65536), vec![n + 1; 65536]].concat()).collect();
    assert_eq!(len(by_turns, Some(Compression::Zstd)), (4 << 20) + (1 << 20) + 5 * 65536);
}

/// Every way to preallocate: tables for all, the host's room as asked for, the content right.
#[test]
fn preallocated_images_have_their_tables() {
    if !have("preallocated_images_have_their_tables", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for extended_l2 in [false, true] {
        for preallocation in [Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full] {
            let options = CreateOptions { preallocation, extended_l2, ..CreateOptions::default() };
            for disk in [mixed(7, Bytes(9 << 20)), MemDisk::new(Bytes(66_049 << 9))] {
                let path = dir.path().join("a.qcow2");
                let sink = create(&path, disk.size(), &options).unwrap();
                let converted = convert::convert(&disk, sink, &Options::default()).unwrap();
                let held = converted.receipt.allocated.0;
                match preallocation {
                    Preallocation::Metadata => assert!(held < 8 << 20, "{held}"),
                    _ => assert!(held >= disk.size().0, "{preallocation:?}: {held}"),
                }
                let check = run(dir.path(), "qemu-img check -f qcow2 a.qcow2");
                assert!(check.contains("No errors") && check.contains("= 100.00% allocated"), "{check}");
                std::fs::write(dir.path().join("a.raw"), read_all(&disk).unwrap()).unwrap();
                run(dir.path(), "qemu-img compare -f raw -F qcow2 a.raw a.qcow2 && rm a.qcow2");
            }
        }
    }
    let refused = |options: CreateOptions| {
        let error = create(&dir.path().join("b.qcow2"), Bytes(1 << 20), &options).err().unwrap();
        assert_eq!(error.kind(), crate::Kind::Refused, "{error}");
    };
    let preallocation = Preallocation::Metadata;
    refused(CreateOptions { preallocation, ..options(65536, Some(Compression::Zlib)) });
    refused(CreateOptions { preallocation, base: Some(base(1 << 20)), ..CreateOptions::default() });
    refused(CreateOptions { extended_l2: true, ..options(8192, None) });
}

fn base(size: u64) -> Base {
    Base { path: "base.raw".into(), format: Format::Raw, size: Bytes(size), identity: None }
}

/// Subclusters: data that is smaller than a cluster takes no more than it needs, in every cluster size.
#[test]
fn extended_l2_entries_are_written() {
    if !have("extended_l2_entries_are_written", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for cluster_size in [16 << 10, 64 << 10, 128 << 10, 2 << 20] {
        for compression in COMPRESSIONS {
            let options = CreateOptions { extended_l2: true, ..options(cluster_size, compression) };
            write_and_check(dir.path(), &mixed(7, Bytes(9 << 20)), &options);
            write_and_check(
                dir.path(),
                &MemDisk::new(Bytes(70 << 20)).data((70 << 20) - 512, [1; 512]),
                &options,
            );
        }
    }
    let options = CreateOptions { extended_l2: true, ..CreateOptions::default() };
    let disk =
        (0..64u64).fold(MemDisk::new(Bytes(16 << 20)), |disk, n| disk.data(n << 18, noise_bytes(n, 4096)));
    let path = dir.path().join("a.qcow2");
    let sink = create(&path, disk.size(), &options).unwrap();
    let converted = convert::convert(&disk, sink, &Options::default()).unwrap();
    assert!(converted.receipt.allocated.0 < 1 << 20, "{}", converted.receipt.allocated);
    check_sink(
        |path, size, files| create(path, size, &CreateOptions { files, ..options.clone() }),
        |path| Ok(open(path)?.disk),
    );
}

/// Over a base: what is kept shines through, zeros hide it, and QEMU sees the same.
#[test]
fn an_image_over_a_base_stores_the_difference() {
    if !have("an_image_over_a_base_stores_the_difference", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (extended_l2, unit, compression) in [
        (false, 65536, None),
        (true, 4096, None),
        (false, 65536, Some(Compression::Zstd)),
        (true, 131_072, Some(Compression::Zlib)),
    ] {
        // A base that is shorter than the disk and ends inside of a unit.
        for base_len in [3 * MIB + 512, 8 * MIB] {
            let below = noise_bytes(3, base_len);
            std::fs::write(dir.path().join("base.raw"), &below).unwrap();
            let size = 5 * MIB;
            let options = CreateOptions {
                extended_l2,
                compression,
                base: Some(base(base_len as u64)),
                ..CreateOptions::default()
            };
            let path = dir.path().join("a.qcow2");
            let sink = create(&path, Bytes(size as u64), &options).unwrap();
            assert_eq!(sink.granularity(), Bytes(unit));
            let unit = usize::try_from(unit).unwrap();
            let mut wanted = below.clone();
            wanted.resize(size.max(base_len), 0);
            wanted.truncate(size);
            for (n, at) in (0..size).step_by(unit).enumerate() {
                let range = GuestRange::new(GuestOffset(at as u64), Bytes(unit as u64));
                match n % 5 {
                    0 | 1 => sink.keep(range).unwrap(),
                    2 => {
                        sink.zero(range).unwrap();
                        wanted[at..at + unit].fill(0);
                    }
                    _ => {
                        let data = text_bytes(n as u64, unit);
                        let encoded = sink.encode(range, &data).unwrap();
                        let (bytes, pieces) = encoded
                            .map_or((data.clone(), Vec::new()), |encoded| (encoded.bytes, encoded.pieces));
                        let mut bytes = &bytes[..];
                        for part in sink.place(range, &pieces).unwrap() {
                            let (now, later) = bytes.split_at(part.len);
                            sink.store(part, now).unwrap();
                            bytes = later;
                        }
                        wanted[at..at + unit].copy_from_slice(&data);
                    }
                }
            }
            sink.finish().unwrap();
            let check = run(dir.path(), "qemu-img check -f qcow2 a.qcow2");
            assert!(check.contains("No errors"), "{check}");
            assert!(qemu_reads(dir.path(), "a.qcow2") == wanted, "{extended_l2} {compression:?} {base_len}");
            assert!(read_all(&*open(&path).unwrap().disk).unwrap() == wanted);
            let info = run(dir.path(), "qemu-img info a.qcow2");
            assert!(
                info.contains("backing file: base.raw") && info.contains("backing file format: raw"),
                "{info}"
            );
            std::fs::remove_file(path).unwrap();
        }
    }
}

const MIB: usize = 1 << 20;

/// A disk that is full from end to end: hundreds of tables, each written as the walk passes it.
#[test]
fn a_full_disk_of_terabytes_is_written() {
    if !have("a_full_disk_of_terabytes_is_written", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let size = 2u64 << 40;
    let path = dir.path().join("a.qcow2");
    let sink = create(&path, Bytes(size), &options(1 << 20, None)).unwrap();
    for at in (0..size).step_by(1 << 30) {
        let placed = sink.place(GuestRange::new(GuestOffset(at), Bytes(1 << 30)), &[]).unwrap();
        assert_eq!(placed.iter().map(|part| part.len).sum::<usize>(), 1 << 30);
        assert_eq!(placed.len(), 1, "a run that is given at once lies in a row");
    }
    sink.finish().unwrap();
    let check = run(dir.path(), "qemu-img check -f qcow2 a.qcow2");
    assert!(check.contains("No errors") && check.contains("= 100.00% allocated"), "{check}");
    let checked = crate::qcow2::check(crate::Source::open(&path).unwrap(), &crate::Gate::default()).unwrap();
    assert_eq!((checked.counts, checked.allocated), ([0, 0, 0], Bytes(size)), "{:?}", checked.problems);
}

/// Nothing depends on what an earlier run left in the file, not even where nothing is written to.
#[test]
fn old_content_of_a_partial_file_is_never_seen() {
    if !have("old_content_of_a_partial_file_is_never_seen", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = FileOptions { replace: true, resume: true, sync: false };
    let mut disk = MemDisk::new(Bytes((9 << 20) + 77)).data((9 << 20) + 70, [1; 7]);
    for n in 0..20u64 {
        disk = disk.data(n * 400_000, noise_bytes(n, 5000 + 9000 * usize::try_from(n).unwrap()));
    }
    let mut wanted = read_all(&disk).unwrap();
    wanted.resize(wanted.len().next_multiple_of(512), 0);
    let plain = CreateOptions { files, ..CreateOptions::default() };
    for options in [
        plain.clone(),
        CreateOptions { extended_l2: true, ..plain.clone() },
        CreateOptions { compression: Some(Compression::Zstd), ..plain.clone() },
        CreateOptions { preallocation: Preallocation::Metadata, ..plain.clone() },
        CreateOptions { preallocation: Preallocation::Metadata, extended_l2: true, ..plain.clone() },
        CreateOptions { preallocation: Preallocation::Falloc, ..plain.clone() },
        CreateOptions { preallocation: Preallocation::Full, ..plain },
    ] {
        std::fs::write(dir.path().join(".a.qcow2.landfall-partial"), vec![0xee; 30 << 20]).unwrap();
        let sink = create(&dir.path().join("a.qcow2"), disk.size(), &options).unwrap();
        convert::convert(&disk, sink, &Options::default()).unwrap();
        run(dir.path(), "qemu-img check -q a.qcow2");
        assert!(qemu_reads(dir.path(), "a.qcow2") == wanted, "{options:?}");
    }
}
