//! Images that we wrote, checked and read by QEMU.

use super::*;
use crate::convert::{self, Options};
use crate::create::{Compression, CreateOptions, FileOptions};
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
